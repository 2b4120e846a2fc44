//! `cargo xtask unsafe-code`: how often the word `unsafe` stands in the code of each package, tests apart.
//!
//! The counts are kept in `unsafe-code.toml`. One that grows fails; one that falls is written down, so that it can not
//! grow again.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use proc_macro2::{TokenStream, TokenTree};

use crate::workspace_root;

const FILE: &str = "unsafe-code.toml";
const HEAD: &str = "\
# How often the word `unsafe` stands in the code of each package, tests apart: these numbers may only fall.
# `cargo xtask unsafe-code` writes them down when they have fallen.
";

/// Occurrences by package.
type Counts = BTreeMap<String, usize>;

/// Counts, compares with what is written down, and with `check` writes nothing.
pub fn run(check: bool) -> anyhow::Result<ExitCode> {
    let path = workspace_root().join(FILE);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {FILE}"))?;
    let kept: Counts = toml::from_str(&text).with_context(|| format!("reading {FILE}"))?;
    let counts = count_packages(&workspace_root().join("crates"))?;
    let mut failed = false;
    for (package, count) in &counts {
        let before = kept.get(package).copied().unwrap_or(0);
        if *count > before {
            failed = true;
            eprintln!("{package}: `unsafe` stands there {count} times, and {before} times before");
        }
    }
    if failed {
        return Ok(ExitCode::FAILURE);
    }
    let now = format!("{HEAD}\n{}", toml::to_string(&counts)?);
    if now == text {
        return Ok(ExitCode::SUCCESS);
    }
    if check {
        eprintln!("the counts of {FILE} have fallen: run `cargo xtask unsafe-code`");
        return Ok(ExitCode::FAILURE);
    }
    std::fs::write(&path, now).with_context(|| format!("writing {FILE}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Counts in the sources of each package below a directory; those without any are left out.
fn count_packages(directory: &Path) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    for entry in std::fs::read_dir(directory)? {
        let package = entry?;
        let count = count_below(&package.path().join("src"))?;
        if count > 0 {
            counts.insert(package.file_name().to_string_lossy().into_owned(), count);
        }
    }
    Ok(counts)
}

fn count_below(directory: &Path) -> anyhow::Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry?.path();
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests" || stem == "testing");
        if is_test {
            continue;
        }
        if path.is_dir() {
            count += count_below(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path)?;
            count += count_in(&text).with_context(|| path.display().to_string())?;
        }
    }
    Ok(count)
}

fn count_in(text: &str) -> anyhow::Result<usize> {
    let tokens: TokenStream = text.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(count_tokens(tokens))
}

fn count_tokens(tokens: TokenStream) -> usize {
    let count = |token| match token {
        TokenTree::Group(group) => count_tokens(group.stream()),
        TokenTree::Ident(word) => usize::from(word == "unsafe"),
        TokenTree::Punct(_) | TokenTree::Literal(_) => 0,
    };
    tokens.into_iter().map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_words_of_code_and_no_others() {
        let text = r#"
            //! unsafe
            #![forbid(unsafe_code)]
            /// unsafe
            unsafe fn one() { let text = "unsafe"; println!("{}", unsafe { two() }); }
        "#;
        // A doc comment is an attribute with a text.
        assert_eq!(count_in(text).unwrap(), 2);
    }
}
