//! What every measurement says beside its figures: where it was made, what failed, what was left; and how it is written.

use std::fs::{File, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lg_runtime::{Census, Leftovers, Template, TemplateSpec};
use serde::Serialize;

use crate::environment::Environment;
use crate::floors::BareVm;
use crate::report::{rounded, seconds};
use crate::{Bench, ms};

/// How long something may take to go away before it counts as left.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// So many errors are kept in words.
const KEPT_ERRORS: usize = 10;

/// What a run found.
pub trait Finding: Serialize {
    /// The tables for a terminal.
    fn tables(&self) -> String;

    /// What failed and what was left behind.
    fn tally(&self) -> &Tally;

    /// What is wrong, a line for each; nothing if all went well.
    fn complaints(&self) -> Vec<String> {
        self.tally().complaints()
    }

    /// Whether somebody interrupted the run, and this is what was found by then.
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// Where and when a run was made.
#[derive(Debug, Clone, Serialize)]
pub struct Header {
    /// When it started, RFC 3339.
    pub timestamp: String,
    /// `luminaguard.bench.VERB/1`.
    pub schema: String,
    /// Where it was measured.
    pub environment: Environment,
}

impl Header {
    pub(crate) fn new(verb: &str, bare_vm: &BareVm) -> Self {
        Self {
            timestamp: seconds(jiff::Timestamp::now()),
            schema: format!("luminaguard.bench.{verb}/1"),
            environment: Environment::look("warm", Some(bare_vm.kind().to_owned())),
        }
    }
}

/// What was not measured, and why.
#[derive(Debug, Clone, Serialize)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// The reason.
    pub reason: String,
}

/// The template that a run forked from.
#[derive(Debug, Clone, Serialize)]
pub struct TemplateFacts {
    /// Its name.
    pub name: String,
    /// How long it took to make, in milliseconds.
    pub build_ms: f64,
    /// Guest memory that all forks share, in MiB.
    pub memory_mb: f64,
}

impl TemplateFacts {
    pub(crate) fn of(template: &Template) -> Self {
        Self {
            name: template.spec().name.clone(),
            build_ms: ms(template.build_time()),
            memory_mb: template.memory_bytes() as f64 / (1 << 20) as f64,
        }
    }

    pub(crate) fn line(&self) -> String {
        let Self { name, build_ms, memory_mb } = self;
        format!("template {name}: made in {build_ms:.0} ms, {memory_mb:.1} MiB that all forks share")
    }
}

/// What failed and what was left.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Tally {
    /// Lives that were lived, those that failed among them.
    pub lives: usize,
    /// Lives that failed.
    pub failures: usize,
    /// Why, in words: of the first few.
    pub errors: Vec<String>,
    /// What remained after the run.
    pub leftovers: Leftovers,
}

impl Tally {
    /// Whether every life went well and nothing was left behind.
    pub fn is_clean(&self) -> bool {
        self.failures == 0 && self.leftovers.is_nothing()
    }

    /// Counts a life; answers what it measured if it went well.
    pub(crate) fn count<T>(&mut self, result: Result<T>) -> Option<T> {
        self.lives += 1;
        match result {
            Ok(life) => Some(life),
            Err(error) => {
                self.failures += 1;
                self.note(format!("{error:#}"));
                None
            }
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.lives += other.lives;
        self.failures += other.failures;
        other.errors.into_iter().for_each(|error| self.note(error));
        self.leftovers = self.leftovers.max(other.leftovers);
    }

    pub(crate) fn note(&mut self, error: String) {
        if self.errors.len() < KEPT_ERRORS {
            self.errors.push(error);
        }
    }

    pub(crate) fn line(&self) -> String {
        let Self { lives, failures, leftovers, .. } = self;
        match leftovers.things() {
            0 => format!("{lives} lives, {failures} failed, nothing left behind"),
            things => format!("{lives} lives, {failures} failed, {things} things left behind: {leftovers:?}"),
        }
    }

    /// What is wrong, a line for each.
    pub fn complaints(&self) -> Vec<String> {
        let failed = (self.failures > 0).then(|| format!("{} of {} lives failed", self.failures, self.lives));
        let left =
            (!self.leftovers.is_nothing()).then(|| format!("something is left behind: {:?}", self.leftovers));
        failed.into_iter().chain(self.errors.iter().cloned()).chain(left).collect()
    }
}

/// A template, and what there was before the first of its forks.
pub(crate) struct Bed {
    pub(crate) template: std::sync::Arc<Template>,
    before: Census,
}

impl Bed {
    /// Makes the template, and lives a few lives that are not counted: they fill the caches of the host, and
    /// whatever tokio keeps for good.
    pub(crate) async fn make(bench: &Bench, spec: &TemplateSpec) -> Result<Self> {
        const UNCOUNTED: usize = 3;
        let built = Template::build(spec, &bench.launcher).await;
        let template = built.with_context(|| format!("cannot make the template {}", spec.name))?;
        for _ in 0..UNCOUNTED {
            let life = crate::warm_life::live(&template, std::time::Instant::now()).await;
            life.context("the first life failed")?;
        }
        Ok(Self { template: template.into(), before: Census::take() })
    }

    /// What the forks have left behind, while the template is still there.
    pub(crate) async fn leftovers(&self) -> Leftovers {
        self.before.settle(PATIENCE).await
    }
}

/// Says early that a file cannot be written in the end.
///
/// # Errors
/// When its directory is not there.
pub fn check_json_path(path: &Path) -> Result<()> {
    let directory = directory_of(path);
    ensure!(directory.is_dir(), "cannot write {}: {} is no directory", path.display(), directory.display());
    Ok(())
}

/// Writes a finding as JSON: aside, and then under its name, where it never is but whole, and on storage when this returns.
///
/// # Errors
/// When it cannot be written. Whatever had the name before has it still then, unless only the storage of its directory
/// failed.
pub fn write_json(path: &Path, finding: &impl Serialize) -> Result<()> {
    let write = || -> Result<()> {
        let value = rounded(serde_json::to_value(finding)?);
        let aside = tempfile::Builder::new()
            .prefix(".luminaguard-")
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(directory_of(path))?;
        let mut file = BufWriter::new(aside);
        // As the error of the file that it is, such as a full disk.
        serde_json::to_writer(&mut file, &value).map_err(std::io::Error::from)?;
        file.write_all(b"\n")?;
        let aside = file.into_inner().map_err(|error| error.into_error())?;
        // Before it has its name: some file systems find only now that they are full.
        aside.as_file().sync_all()?;
        aside.persist(path)?;
        Ok(File::open(directory_of(path))?.sync_all()?)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_counted_and_the_first_errors_kept() {
        let mut tally = Tally::default();
        assert_eq!(tally.count(Ok(1)), Some(1));
        assert!(tally.is_clean());
        for number in 0..20 {
            assert_eq!(tally.count::<()>(Err(anyhow::anyhow!("error {number}"))), None);
        }
        let mut sum = Tally { lives: 5, ..Tally::default() };
        sum.add(tally);
        assert_eq!((sum.lives, sum.failures, sum.errors.len()), (26, 20, 10));
        assert_eq!(sum.errors[0], "error 0");
        assert_eq!(sum.complaints()[0], "20 of 26 lives failed");
        assert!(!sum.is_clean());
    }

    #[test]
    fn a_file_appears_whole_under_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spawn.json");
        check_json_path(&path).unwrap();
        for value in [1.000_04, 2.0] {
            write_json(&path, &[value]).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[2.0]\n");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(check_json_path(&directory.path().join("none/spawn.json")).is_err());
        assert_eq!(directory_of(Path::new("spawn.json")), Path::new("."));
    }
}
