//! `luminaguard template`: which templates there are, what is in one, and how long it takes to make.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use lg_runtime::proc::private_bytes;
use lg_runtime::units::format_size;
use lg_runtime::{Launcher, Ready, Template, TemplateSpec, WarmUp};

use crate::args::TemplateVerb;

/// Answers the exit status.
pub(crate) fn run(verb: TemplateVerb) -> Result<u8> {
    let text = match verb {
        TemplateVerb::List => list(),
        TemplateVerb::Show(which) => find(&which.template)?.to_toml(),
        TemplateVerb::Build(which) => {
            let spec = find(&which.template)?;
            crate::async_runtime()?.block_on(build(&spec))?
        }
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(0)
}

/// The template of that name, or in that file: a name with a slash or with the ending `.toml` is a file.
pub(crate) fn find(name: &OsStr) -> Result<TemplateSpec> {
    let bytes = name.as_bytes();
    if bytes.contains(&b'/') || bytes.ends_with(b".toml") {
        return TemplateSpec::from_file(name)
            .with_context(|| format!("cannot use the template {}", name.to_string_lossy()));
    }
    name.to_str().and_then(TemplateSpec::built_in).ok_or_else(|| {
        anyhow!(
            "there is no template `{}`: use {}, or a file as in ./mine.toml",
            name.to_string_lossy(),
            TemplateSpec::BUILT_IN.join(", ")
        )
    })
}

fn list() -> String {
    let row = |name: &str, memory: &str, warm: &str| format!("{name:<8}  {memory:<6}  {warm}\n");
    let built_in = TemplateSpec::BUILT_IN.iter().filter_map(|name| TemplateSpec::built_in(name));
    let rows = built_in
        .map(|spec| row(&spec.name, &format_size(spec.sandbox.memory_bytes), &describe(&spec.warm_up)));
    std::iter::once(row("name", "memory", "what is warm")).chain(rows).collect()
}

/// What makes a template warm, in a few words.
fn describe(warm_up: &WarmUp) -> String {
    match warm_up {
        WarmUp::Nothing => "nothing: the host's programs, and no process".to_owned(),
        WarmUp::Python { cell: None } => "a Python interpreter that has imported common modules".to_owned(),
        WarmUp::Python { cell: Some(_) } => "a Python interpreter that has evaluated a cell".to_owned(),
        WarmUp::Program { command, ready: Ready::Exits } => format!("what {} left behind", command.join(" ")),
        WarmUp::Program { command, .. } => format!("{}, ready and running", command.join(" ")),
    }
}

/// Makes a template and one fork of it, and says what that took.
async fn build(spec: &TemplateSpec) -> Result<String> {
    let template = make(spec).await?;
    let measured = measure(&template).await;
    template.end().await.context("cannot end the template")?;
    measured
}

async fn measure(template: &Template) -> Result<String> {
    let mut fork = template.spawn().await.context("cannot fork the template")?;
    let spec = template.spec();
    let mut lines = vec![
        format!("template  {}: {}", spec.name, describe(&spec.warm_up)),
        format!("built     in {}", ms(template.build_time())),
        format!("memory    {}, shared by all of its forks", mib(template.memory_bytes())),
        format!("fork      {}, {} of it in the vmm", ms(fork.spawn_latency()), ms(fork.vmm_latency())),
    ];
    if let Some(bytes) = private_bytes(fork.vmm_pid()) {
        lines.push(format!("private   {} of the fork's own", mib(bytes)));
    }
    if let Some(context) = fork.context() {
        let asked = Instant::now();
        context.evaluate("0").await.context("the fork's interpreter does not answer")?;
        lines.push(format!("answer    {} for the fork's first cell", ms(asked.elapsed())));
        if let Some(bytes) = private_bytes(fork.vmm_pid()) {
            lines.push(format!("private   {} of the fork's own after it", mib(bytes)));
        }
    }
    fork.kill().await.context("cannot end the fork")?;
    Ok(lines.join("\n") + "\n")
}

/// Makes a template whose VMs are held by this very binary.
pub(crate) async fn make(spec: &TemplateSpec) -> Result<Template> {
    Template::build(spec, &Launcher::current_exe())
        .await
        .with_context(|| format!("cannot make the template {}", spec.name))
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn mib(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / (1 << 20) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_reads_as_before() {
        insta::assert_snapshot!(list());
    }

    #[test]
    fn a_name_with_a_slash_or_the_ending_toml_is_a_file() {
        assert_eq!(find(OsStr::new("base")).unwrap().name, "base");
        for file in ["./base", "base.toml", "/no/such/file"] {
            let message = format!("{:#}", find(OsStr::new(file)).unwrap_err());
            assert!(message.contains("cannot read") && message.contains(file), "{message}");
        }
        let message = find(OsStr::new("node")).unwrap_err().to_string();
        assert!(message.contains("no template `node`") && message.contains("base, python"), "{message}");
    }
}
