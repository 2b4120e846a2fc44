//! `luminaguard bench overload`: what happens when more is asked for than there is.
//!
//! ```text
//!   this process                          a process for each row
//!     a control group, a small disk  ──>    makes the resource scarce for itself
//!                                           asks for more sandboxes than fit, all at once
//!                                           counts what became of each request
//!     the table              <── a row ──   asks for one more when the pressure has ended
//! ```
//!
//! - `plan.rs`: the rows, as data.
//! - `child.rs`: the process of a row, which is this binary again, so that nothing that is made scarce hurts the harness.
//! - `crowd.rs`: requests at once, and what became of them.
//! - `reason.rs`: which errors are refusals with a reason.
//! - `disk.rs`: a small file system that is full.
//! - `process.rs`: starting the process of a row, and ending it.

mod child;
mod crowd;
mod disk;
mod plan;
mod process;
mod reason;
mod row;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use lg_runtime::{Census, Cgroup};
use serde::Serialize;

pub use self::child::overload_row;
use self::disk::SmallDisk;
pub use self::plan::Scarce;
use self::plan::{Means, PLANS, Plan, Task, most_at_once};
use self::process::RowProcess;
pub use self::row::{OverloadRow, RowSamples};
use crate::finding::{Finding, Header, PATIENCE, Skipped, Tally};
use crate::floors::BareVm;
use crate::interrupt::{Interrupted, block_on};
use crate::progress::Progress;

/// The hidden subcommand that is the process of one row: `overload-row TASK`, with the task in JSON.
pub const OVERLOAD_ROW: &str = "overload-row";

/// What to measure.
#[derive(Debug, Clone)]
pub struct OverloadConfig {
    /// The kind of KVM, for the record.
    pub bare_vm: BareVm,
    /// The binary, whose subcommand [`OVERLOAD_ROW`] is started.
    pub luminaguard: PathBuf,
    /// Which resources are made scarce; empty: all.
    pub only: Vec<Scarce>,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct OverloadFinding {
    /// Where and when; the schema is `luminaguard.bench.overload/1`.
    #[serde(flatten)]
    pub header: Header,
    /// Whether SIGINT or SIGTERM ended the run before all rows were measured.
    pub interrupted: bool,
    /// One for each way to make a resource scarce.
    pub rows: Vec<OverloadRow>,
    /// What was not measured, and why.
    pub skipped: Vec<Skipped>,
    /// Those admitted, what failed and what was left, over all rows.
    pub tally: Tally,
}

/// What is known of the rows so far.
#[derive(Default)]
struct Rows {
    measured: Vec<OverloadRow>,
    skipped: Vec<Skipped>,
}

impl OverloadConfig {
    /// Measures everything. Shows progress on standard error. On SIGINT and SIGTERM it answers what it has by then.
    ///
    /// # Errors
    /// When the run cannot be done at all. Whatever fails in a row is no error but a finding.
    pub fn run(&self) -> Result<OverloadFinding> {
        let header = Header::new("overload", &self.bare_vm);
        let rows = Mutex::new(Rows::default());
        let mut left = Tally::default();
        let interrupted = match block_on(self.measure(&rows)) {
            Ok(tally) => {
                left = tally;
                false
            }
            Err(error) if error.is::<Interrupted>() => true,
            Err(error) => return Err(error),
        };
        let Rows { measured, skipped } = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut tally = Tally::default();
        measured.iter().for_each(|row| tally.add(row.tally()));
        tally.add(left);
        Ok(OverloadFinding { header, interrupted, rows: measured, skipped, tally })
    }

    /// Runs the rows one after the other. Answers what they have left behind in this process.
    async fn measure(&self, rows: &Mutex<Rows>) -> Result<Tally> {
        let is_wanted = |plan: &&Plan| self.only.is_empty() || self.only.contains(&plan.scarce);
        let wanted: Vec<&Plan> = PLANS.iter().filter(is_wanted).collect();
        let progress = Progress::new(wanted.len());
        let before = Census::take();
        for plan in wanted {
            progress.begin(plan.name);
            let measured = self.row(plan).await?;
            let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
            match measured {
                Ok(row) => {
                    progress.done(&row.line());
                    rows.measured.push(row);
                }
                Err(reason) => {
                    progress.done(&format!("{}: skipped: {reason}", plan.name));
                    rows.skipped.push(Skipped { name: plan.name.to_owned(), reason });
                }
            }
        }
        Ok(Tally { leftovers: before.settle(PATIENCE).await, ..Tally::default() })
    }

    /// One row, or why it cannot be had on this machine.
    async fn row(&self, plan: &Plan) -> Result<Result<OverloadRow, String>> {
        let directory = tempfile::Builder::new().prefix("luminaguard-overload-").tempdir()?;
        // Dropped in the opposite order: first the process, then what it was in.
        let group = match plan.group_limits().map(|limits| Cgroup::create(&limits)).transpose() {
            Ok(group) => group,
            Err(error) => return Ok(Err(format!("{:#}", anyhow::Error::from(error)))),
        };
        let disk = match (plan.means == Means::FullDisk).then(|| SmallDisk::mount(directory.path())) {
            Some(Err(error)) => return Ok(Err(format!("{error:#}"))),
            disk => disk.transpose()?,
        };
        let task = Task {
            name: plan.name.to_owned(),
            at_once: most_at_once(),
            directory: directory.path().to_owned(),
            group: group.iter().flat_map(Cgroup::directories).next().cloned(),
        };
        let process = RowProcess::start(&self.luminaguard, &task)?;
        let row = process.row().await?.unwrap_or_else(|error| OverloadRow::lost(plan, error));
        drop((disk, group));
        Ok(Ok(row))
    }
}

impl Finding for OverloadFinding {
    fn tables(&self) -> String {
        let mut text = row::table(&self.rows);
        for row in self.rows.iter().filter(|row| !row.refused.is_empty()) {
            text.push_str(&format!("\n{}: refused: {}", row.name, row.reasons()));
        }
        for Skipped { name, reason } in &self.skipped {
            text.push_str(&format!("\nskipped: {name}: {reason}"));
        }
        format!("{text}\n\n{}", self.tally.line())
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_cannot_be_run_is_a_failure_and_no_error() {
        let config = OverloadConfig {
            bare_vm: BareVm::new("pvm", || anyhow::bail!("not measured here")),
            luminaguard: "/bin/false".into(),
            only: vec![Scarce::Counts],
        };
        let finding = config.run().unwrap();
        assert_eq!((finding.rows.len(), finding.tally.failures), (2, 2));
        assert!(!finding.tally.is_clean() && !finding.interrupted);
        assert!(finding.tally.errors[0].contains("exit status: 1"), "{:?}", finding.tally.errors);
        assert!(finding.tables().contains("counts x3"));
    }
}
