//! Other ways to isolate a program, and what one program takes in each: `luminaguard bench peers`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use comfy_table::{CellAlignment, Table};
use lg_runtime::{SandboxSpec, TemplateSpec};
use serde::Serialize;
use serde_json::json;

use crate::Bench;
use crate::finding::{Bed, Finding, Header, Skipped, Tally};
use crate::floors::time_command_ms;
use crate::interrupt::{Stop, block_on_to_stop};
use crate::progress::Count;
use crate::report::TABLE_STYLE;
use crate::stats::Summary;
use crate::warm_life::live;

/// What is run in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerProgram {
    /// `/bin/true`.
    True,
    /// `python3 -c 'print(1)'`.
    Python,
}

impl PeerProgram {
    pub(crate) fn words(self) -> &'static [&'static str] {
        match self {
            Self::True => &["/bin/true"],
            Self::Python => &["python3", "-c", "print(1)"],
        }
    }

    /// The template whose forks answer instead, and what a fork does.
    fn warm(self) -> (TemplateSpec, &'static str) {
        match self {
            Self::True => (TemplateSpec::base(), "a fork of the template base runs true"),
            Self::Python => (TemplateSpec::python(), "a fork of the template python evaluates 6*7"),
        }
    }
}

/// A program that isolates others.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// The package of Debian that has it.
    package: &'static str,
    /// `BUNDLE` stands for an OCI bundle that runs the program, `ID` for a name, `PROGRAM` for the program itself.
    arguments: &'static [&'static str],
}

pub(crate) const PEERS: [Peer; 4] = [
    Peer {
        name: "bwrap",
        package: "bubblewrap",
        arguments: &["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all", "PROGRAM"],
    },
    Peer { name: "crun", package: "crun", arguments: &["run", "--bundle", "BUNDLE", "ID"] },
    Peer { name: "runc", package: "runc", arguments: &["run", "--bundle", "BUNDLE", "ID"] },
    // Its platform is the best that it has without hardware: systrap, or ptrace in older versions.
    Peer {
        name: "runsc",
        package: "runsc",
        arguments: &["--network=none", "--ignore-cgroups", "do", "PROGRAM"],
    },
];

impl Peer {
    /// The command that runs `program` in it. `bundle` is a directory for this program alone.
    ///
    /// # Errors
    /// When it is not installed, or the bundle cannot be written.
    pub(crate) fn command(&self, program: PeerProgram, bundle: &Path) -> Result<Vec<OsString>> {
        let file = find_program(self.name).with_context(|| {
            format!("{} is not installed; the Debian package {} has it", self.name, self.package)
        })?;
        let mut words = vec![file.into_os_string()];
        for word in self.arguments {
            match *word {
                "BUNDLE" => {
                    write_bundle(program, bundle)?;
                    words.push(bundle.into());
                }
                "ID" => words.push(format!("luminaguard-{}", std::process::id()).into()),
                "PROGRAM" => words.extend(program.words().iter().map(Into::into)),
                word => words.push(word.into()),
            }
        }
        Ok(words)
    }
}

/// Finds a program in the directories of PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// A command with the environment of a sandbox, so that the same name is the same program inside and outside.
pub(crate) fn command_of(words: &[OsString]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env_clear().envs(SandboxSpec::new([&words[0]]).env);
    command
}

/// A command as it is shown: without the directory of its program.
pub(crate) fn display(words: &[OsString]) -> String {
    let name = |word: &OsString| Path::new(word).file_name().unwrap_or(word).to_string_lossy().into_owned();
    let rest = words[1..].iter().map(|word| word.to_string_lossy().into_owned());
    std::iter::once(name(&words[0])).chain(rest).collect::<Vec<_>>().join(" ")
}

/// `luminaguard run` of a command.
pub(crate) fn run_command(luminaguard: &Path, options: &[&str], command: &[&str]) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec![luminaguard.into(), "run".into()];
    words.extend(options.iter().map(Into::into));
    words.push("--".into());
    words.extend(command.iter().map(Into::into));
    words
}

/// Writes an OCI bundle (the runtime specification's config.md) that runs `program` in namespaces of its own, over a
/// read-only view of the host's programs.
fn write_bundle(program: PeerProgram, directory: &Path) -> Result<()> {
    let root = directory.join("root");
    let mut mounts = vec![json!({ "destination": "/proc", "type": "proc", "source": "proc" })];
    std::fs::create_dir_all(root.join("proc"))?;
    for name in ["bin", "lib", "lib64", "usr"] {
        let source = Path::new("/").join(name);
        // On most hosts all but the last are symbolic links into it.
        if let Ok(target) = std::fs::read_link(&source) {
            if !root.join(name).is_symlink() {
                std::os::unix::fs::symlink(target, root.join(name))?;
            }
        } else if source.is_dir() {
            std::fs::create_dir_all(root.join(name))?;
            mounts.push(json!({ "destination": source, "type": "bind", "source": source, "options": ["rbind", "ro"] }));
        }
    }
    let env = SandboxSpec::new(program.words()).env.into_iter().map(|(name, value)| {
        String::from_utf8_lossy(&[name.as_bytes(), b"=", value.as_bytes()].concat()).into_owned()
    });
    let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": program.words(),
            "env": env.collect::<Vec<_>>(),
            "cwd": "/",
            "noNewPrivileges": true,
        },
        "root": { "path": root, "readonly": true },
        "mounts": mounts,
        "linux": { "namespaces": namespaces },
    });
    std::fs::write(directory.join("config.json"), serde_json::to_vec(&config)?)?;
    Ok(())
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct PeersConfig {
    /// What the warm row needs.
    pub bench: Bench,
    /// The binary whose `run` is measured.
    pub luminaguard: PathBuf,
    /// What is run in each.
    pub program: PeerProgram,
    /// How often, in turns.
    pub rounds: usize,
}

/// One way to run the program, and how long it took.
#[derive(Debug, Clone, Serialize)]
pub struct PeerFigure {
    /// Its name.
    pub name: String,
    /// What was run.
    pub command: String,
    /// From the start until the process, or the sandbox, was reaped, in milliseconds.
    pub life_ms: Summary,
    /// Its median / that of the plain process.
    pub of_process: f64,
    /// All samples in milliseconds, in the order they were taken.
    pub samples: Vec<f64>,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct PeersFinding {
    /// Where and when; the schema is `luminaguard.bench.peers/1`.
    #[serde(flatten)]
    pub header: Header,
    /// Whether SIGINT or SIGTERM ended the run early: then this is what was found until there.
    pub interrupted: bool,
    /// What was run in each.
    pub program: PeerProgram,
    /// How often.
    pub rounds: usize,
    /// The plain process first, then LuminaGuard, then the peers.
    pub measured: Vec<PeerFigure>,
    /// What was not measured, and why.
    pub skipped: Vec<Skipped>,
    /// Of LuminaGuard's own rows: what failed and what was left.
    pub tally: Tally,
}

/// How the program is run in one row.
enum Way {
    /// As a process of the host, without which there is nothing to compare with.
    Process,
    /// By LuminaGuard: a failure is one of ours.
    Cold,
    Warm,
    Peer,
}

struct Row {
    way: Way,
    name: &'static str,
    command: Vec<OsString>,
    samples: Vec<f64>,
}

impl Row {
    fn new(way: Way, name: &'static str, command: Vec<OsString>) -> Self {
        Self { way, name, command, samples: Vec::new() }
    }
}

impl PeersConfig {
    /// Measures everything.
    ///
    /// # Errors
    /// When the run cannot be done at all. A peer that fails is skipped, with its reason.
    pub fn run(&self) -> Result<PeersFinding> {
        ensure!(self.rounds > 0, "--rounds must be at least 1");
        block_on_to_stop(|stop| self.measure(stop))
    }

    async fn measure(&self, stop: Stop) -> Result<PeersFinding> {
        let header = Header::new("peers", &self.bench.bare_vm);
        let bundle = tempfile::Builder::new().prefix("luminaguard-").tempdir()?;
        let (template, _) = self.program.warm();
        let bed = Bed::make(&self.bench, &template).await?;
        let (mut rows, mut skipped) = self.rows(bundle.path());
        let mut tally = Tally::default();
        let progress = Count::new("rounds", self.rounds + 1);
        // In turns, so that whatever else the machine does falls on all alike. The first round fills caches.
        'rounds: for round in 0..=self.rounds {
            let mut index = 0;
            while let Some(row) = rows.get_mut(index) {
                // Here an interruption is heard. It may have ended what was just being measured, too.
                tokio::task::yield_now().await;
                let taken = take(row, &bed, &mut tally).await?;
                tokio::task::yield_now().await;
                if stop.is_requested() {
                    break 'rounds;
                }
                match taken {
                    Ok(ms) if round > 0 => row.samples.push(ms),
                    Ok(_) => {}
                    Err(reason) => {
                        skipped.push(Skipped { name: rows.remove(index).name.to_owned(), reason });
                        continue;
                    }
                }
                index += 1;
            }
            progress.step();
        }
        // Runtimes add mount points to the bundle, which count as little as the bundle itself.
        drop(bundle);
        tally.leftovers = bed.leftovers().await;
        Ok(PeersFinding {
            header,
            interrupted: stop.is_requested(),
            program: self.program,
            rounds: self.rounds,
            measured: self.figures(rows),
            skipped,
            tally,
        })
    }

    fn rows(&self, bundle: &Path) -> (Vec<Row>, Vec<Skipped>) {
        let words = self.program.words();
        let mut rows = vec![
            Row::new(Way::Process, "process", words.iter().map(Into::into).collect()),
            Row::new(Way::Warm, "luminaguard, warm", Vec::new()),
            Row::new(Way::Cold, "luminaguard run", run_command(&self.luminaguard, &[], words)),
        ];
        let mut skipped = Vec::new();
        for peer in &PEERS {
            match peer.command(self.program, bundle) {
                Ok(command) => rows.push(Row::new(Way::Peer, peer.name, command)),
                Err(error) => {
                    skipped.push(Skipped { name: peer.name.to_owned(), reason: format!("{error:#}") });
                }
            }
        }
        (rows, skipped)
    }

    fn figures(&self, rows: Vec<Row>) -> Vec<PeerFigure> {
        let process = rows.iter().find(|row| matches!(row.way, Way::Process));
        let process = process.and_then(|row| Summary::of(&row.samples));
        let figure = |row: Row| {
            let life_ms = Summary::of(&row.samples)?;
            Some(PeerFigure {
                name: row.name.to_owned(),
                command: match row.way {
                    Way::Warm => self.program.warm().1.to_owned(),
                    _ => display(&row.command),
                },
                life_ms,
                of_process: life_ms.p50 / process?.p50,
                samples: row.samples,
            })
        };
        rows.into_iter().filter_map(figure).collect()
    }
}

/// Takes one sample, in milliseconds; or says why there is none, and will be none.
async fn take(row: &Row, bed: &Bed, tally: &mut Tally) -> Result<Result<f64, String>> {
    let result = match row.way {
        Way::Warm => live(&bed.template, Instant::now()).await.map(|life| life.total_ms),
        _ => tokio::task::block_in_place(|| time_command_ms(&mut command_of(&row.command))),
    };
    let told = |error: &anyhow::Error| format!("{error:#}");
    match row.way {
        Way::Process => Ok(Ok(result?)),
        Way::Peer => Ok(result.map_err(|error| told(&error))),
        Way::Cold | Way::Warm => {
            let reason = result.as_ref().err().map(told).unwrap_or_default();
            Ok(tally.count(result).ok_or(reason))
        }
    }
}

impl Finding for PeersFinding {
    fn tables(&self) -> String {
        let mut table = Table::new();
        table.load_style(TABLE_STYLE);
        table.set_header(["ms", "p50", "p95", "p50 / process", "command"]);
        for figure in &self.measured {
            table.add_row([
                figure.name.clone(),
                format!("{:.2}", figure.life_ms.p50),
                format!("{:.2}", figure.life_ms.p95),
                format!("{:.1}", figure.of_process),
                figure.command.clone(),
            ]);
        }
        for column in table.column_iter_mut().skip(1).take(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = format!("{}, {} times in turns\n{table}", self.program.words().join(" "), self.rounds);
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
    use crate::floors::BareVm;

    fn config() -> PeersConfig {
        let bare_vm = BareVm::new("pvm", || anyhow::bail!("not measured here"));
        PeersConfig {
            bench: Bench { launcher: lg_runtime::Launcher::default(), bare_vm },
            luminaguard: "/opt/bin/luminaguard".into(),
            program: PeerProgram::Python,
            rounds: 3,
        }
    }

    #[test]
    fn commands_are_shown_without_directories() {
        let command = run_command(Path::new("/opt/bin/luminaguard"), &[], &["/bin/true"]);
        assert_eq!(display(&command), "luminaguard run -- /bin/true");
    }

    #[test]
    fn every_peer_is_a_row_or_is_skipped_with_its_package() {
        let bundle = tempfile::tempdir().unwrap();
        let (rows, skipped) = config().rows(bundle.path());
        assert_eq!(rows.len() + skipped.len(), 3 + PEERS.len());
        let nowhere = Peer { name: "no-such-peer", package: "peerless", arguments: &["BUNDLE"] };
        let error = nowhere.command(PeerProgram::True, bundle.path()).unwrap_err().to_string();
        assert_eq!(error, "no-such-peer is not installed; the Debian package peerless has it");
    }

    #[test]
    fn a_peer_gets_the_program_or_a_bundle_of_it() {
        let bundle = tempfile::tempdir().unwrap();
        let peer = |arguments| Peer { name: "sh", package: "dash", arguments };
        let words = peer(&["-x", "PROGRAM"]).command(PeerProgram::Python, bundle.path()).unwrap();
        assert_eq!(words[1..], ["-x", "python3", "-c", "print(1)"]);
        let words = peer(&["BUNDLE", "ID"]).command(PeerProgram::Python, bundle.path()).unwrap();
        assert_eq!(words[1], bundle.path());
        let config = std::fs::read(bundle.path().join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["process"]["args"], json!(["python3", "-c", "print(1)"]));
        assert!(config["process"]["env"][0].as_str().is_some_and(|text| text.contains('=')));
    }

    #[test]
    fn medians_are_compared_with_that_of_the_process() {
        let row = |way, name, samples: &[f64]| Row {
            samples: samples.to_vec(),
            ..Row::new(way, name, vec!["x".into()])
        };
        let rows = vec![
            row(Way::Process, "process", &[1.0, 2.0, 9.0]),
            row(Way::Warm, "luminaguard, warm", &[4.0]),
            row(Way::Peer, "none", &[]),
        ];
        let figures = config().figures(rows);
        assert_eq!(figures.iter().map(|figure| figure.of_process).collect::<Vec<_>>(), [1.0, 2.0]);
        assert_eq!(figures[1].command, "a fork of the template python evaluates 6*7");
    }
}
