//! The files of a run.

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use tempfile::TempDir;

use super::{html, markdown, plots, rounded, sections};
use crate::agent::Life;
use crate::scale::{Measurement, agent_id};
use crate::schema::Scaling;

/// The files of one run in one directory. They are written aside, and appear under their names once all of them are
/// whole.
#[derive(Debug)]
pub(crate) struct Files {
    directory: PathBuf,
    suffix: String,
}

/// One line of `samples.jsonl`.
#[derive(Serialize)]
struct Sample<'a> {
    agent_count: usize,
    repetition: usize,
    /// `timed`, or `memory`: the agents waited for each other, so that the times mean nothing.
    phase: &'static str,
    /// In which round of all agent counts it was, from 1 on.
    round: usize,
    agent_id: String,
    #[serde(flatten)]
    life: &'a Life,
}

/// Where files are until all are written.
struct Aside {
    directory: TempDir,
    /// The names, in the order in which they were written.
    names: Vec<PathBuf>,
}

impl Files {
    /// Makes the directory, and sees to it that it can be written to.
    pub(crate) fn new(directory: &Path, started: jiff::Timestamp) -> Result<Self> {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make the directory {}", directory.display()))?;
        let files =
            Self { directory: directory.to_owned(), suffix: started.strftime("%Y%m%d_%H%M%S").to_string() };
        files.aside()?;
        Ok(files)
    }

    fn aside(&self) -> Result<Aside> {
        let made = tempfile::Builder::new().prefix(".luminaguard-").tempdir_in(&self.directory);
        let directory = made.with_context(|| format!("cannot write to {}", self.directory.display()))?;
        Ok(Aside { directory, names: Vec::new() })
    }

    /// Writes all files and answers their paths.
    pub(crate) fn write(&self, scaling: &Scaling, measurements: &[Measurement]) -> Result<Vec<PathBuf>> {
        let mut aside = self.aside()?;
        for result in &scaling.test_results {
            aside.json(&format!("concurrent_{}_agents_{}.json", result.agent_count, self.suffix), result)?;
        }
        aside.json(&format!("scaling_comprehensive_{}.json", self.suffix), scaling)?;
        let (document, plots) = sections::report(scaling, &spawns(measurements))?;
        aside.put("report.md", |file| Ok(file.write_all(markdown::render(&document).as_bytes())?))?;
        aside.put("report.html", |file| Ok(file.write_all(html::render(&document).as_bytes())?))?;
        for plot in &plots {
            let svg = plots::stand_alone(plot);
            aside.put(&format!("plots/{}.svg", plot.name), |file| Ok(file.write_all(svg.as_bytes())?))?;
        }
        aside.put("samples.jsonl", |file| write_samples(file, measurements))?;
        aside.appear(&self.directory)
    }
}

impl Aside {
    fn json(&mut self, name: &str, value: &impl Serialize) -> Result<()> {
        self.put(name, |file| {
            serde_json::to_writer_pretty(&mut *file, &rounded(serde_json::to_value(value)?))?;
            Ok(file.write_all(b"\n")?)
        })
    }

    /// Writes one file; `name` may hold one directory.
    fn put(&mut self, name: &str, write: impl FnOnce(&mut BufWriter<fs::File>) -> Result<()>) -> Result<()> {
        let path = self.directory.path().join(name);
        let write = || -> Result<()> {
            fs::create_dir_all(path.parent().context("a file without a directory")?)?;
            let mut file = BufWriter::new(fs::File::create(&path)?);
            write(&mut file)?;
            Ok(file.into_inner().map_err(|error| error.into_error())?.sync_all()?)
        };
        write().with_context(|| format!("cannot write {name}"))?;
        self.names.push(name.into());
        Ok(())
    }

    /// Gives all files their names in `directory`.
    fn appear(self, directory: &Path) -> Result<Vec<PathBuf>> {
        let paths = self.names.iter().map(|name| {
            let path = directory.join(name);
            let rename = || -> Result<()> {
                fs::create_dir_all(path.parent().context("a file without a directory")?)?;
                Ok(fs::rename(self.directory.path().join(name), &path)?)
            };
            rename().with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        });
        paths.collect()
    }
}

/// The spawns of all timed repetitions, by agent count.
fn spawns(measurements: &[Measurement]) -> plots::Spawns {
    let spawns = |m: &Measurement| m.completed().map(|life| life.spawn_ms).collect();
    measurements.iter().filter(|m| !m.timed.is_empty()).map(|m| (m.agents, spawns(m))).collect()
}

fn write_samples(file: &mut impl std::io::Write, measurements: &[Measurement]) -> Result<()> {
    for m in measurements {
        let timed = m.timed.iter().map(|repetition| ("timed", repetition));
        let sampled = m.sampled.iter().map(|(repetition, _)| ("memory", repetition));
        for (number, (phase, repetition)) in timed.chain(sampled).enumerate() {
            let lives_each = repetition.lives.len() / m.agents.max(1);
            for (index, life) in repetition.lives.iter().enumerate() {
                let sample = Sample {
                    agent_count: m.agents,
                    repetition: number + 1,
                    phase,
                    round: repetition.round + 1,
                    agent_id: agent_id(index / lives_each.max(1), m.agents),
                    life,
                };
                serde_json::to_writer(&mut *file, &rounded(serde_json::to_value(sample)?))?;
                file.write_all(b"\n")?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_appear_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path(), jiff::Timestamp::UNIX_EPOCH).unwrap();
        let mut aside = files.aside().unwrap();
        aside.json("one.json", &[1.0]).unwrap();
        aside.put("plots/two.svg", |file| Ok(file.write_all(b"<svg/>")?)).unwrap();
        let entries = || fs::read_dir(directory.path()).unwrap().count();
        let error = aside.put("three", |_| anyhow::bail!("no room")).unwrap_err();
        assert!(format!("{error:#}").contains("cannot write three: no room"));
        assert!(!directory.path().join("one.json").exists());
        let paths = aside.appear(directory.path()).unwrap();
        assert_eq!(paths, [directory.path().join("one.json"), directory.path().join("plots/two.svg")]);
        assert!(paths.iter().all(|path| path.is_file()) && entries() == 2);
        assert!(Files::new(&paths[0], jiff::Timestamp::UNIX_EPOCH).is_err());
    }
}
