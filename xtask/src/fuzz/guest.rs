//! `cargo xtask fuzz guest`: sandboxes in which the program `guest-fuzz` makes random system calls, two at a time, one after
//! the other. What must hold of each: the vmm ends when it should and by what its guest did, without a panic and within its
//! memory; the guest still works at the end; and of the host's files only those granted for writing have changed, and hold
//! nothing dangerous.
//!
//! The unoptimised build is used, as it checks its arithmetic.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};

use crate::{target_directory, workspace_root};

/// How long all sandboxes run together if nothing else is said.
const SECONDS: u64 = 60;
/// Sandboxes at a time.
const AT_A_TIME: usize = 2;
/// How long each makes calls.
const CALLS_MS: u64 = 3000;
/// When the vmm ends a sandbox that has not ended: what is left to do after the calls takes much less.
const DEADLINE_S: u64 = 60;
/// How much later it must have ended at the latest.
const GRACE: Duration = Duration::from_secs(30);
/// Memory of each sandbox.
const MEMORY_MIB: u64 = 96;
/// What a vmm may take besides, on an unoptimised build.
const OWN_MEMORY_MIB: u64 = 128;
/// The vmm's own exit statuses from here on up to 127 are not the guest's.
const VMM_FAILED: i32 = 125;
const SECRET: &str = "secret of the host";

/// Runs sandboxes as the words say.
pub fn run(words: &[&str]) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let (mut seconds, mut seed) = (SECONDS, now);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = match *word {
            "--seconds" => &mut seconds,
            "--seed" => &mut seed,
            other => bail!("unknown word {other}"),
        };
        let text = words.next().with_context(|| format!("{word} needs a number"))?;
        *value = text.parse().with_context(|| format!("{word} {text}"))?;
    }
    ensure!(
        std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok(),
        "/dev/kvm can not be opened, so there can be no sandbox"
    );
    let programs = build()?;
    let next_seed = AtomicU64::new(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let one_after_another = || -> anyhow::Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        loop {
            let seed = next_seed.fetch_add(1, Ordering::Relaxed);
            let outcome = sandbox(&programs, seed)?;
            outcome.wrong.iter().for_each(|what| eprintln!("seed {seed}: {what}"));
            outcomes.push(outcome);
            if Instant::now() >= end {
                return Ok(outcomes);
            }
        }
    };
    let at_a_time = if seconds == 0 { 1 } else { AT_A_TIME };
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_a_time).map(|_| scope.spawn(one_after_another)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<anyhow::Result<Vec<_>>>()
    })?
    .into_iter()
    .flatten()
    .collect();
    conclude(seed, &outcomes)
}

/// How one sandbox ended.
struct Outcome {
    /// What must not be.
    wrong: Vec<String>,
    /// Processes that made calls; `None` where one of them ended the program that starts them.
    workers: Option<u64>,
    most_mib: u64,
}

fn conclude(seed: u64, outcomes: &[Outcome]) -> anyhow::Result<ExitCode> {
    let failed = outcomes.iter().filter(|outcome| !outcome.wrong.is_empty()).count();
    let ended_early = outcomes.iter().filter(|outcome| outcome.workers.is_none()).count();
    let workers: u64 = outcomes.iter().filter_map(|outcome| outcome.workers).sum();
    let most_mib = outcomes.iter().map(|outcome| outcome.most_mib).max().unwrap_or(0);
    println!(
        "guest: {} sandboxes from seed {seed} on, {workers} workers, at most {most_mib} MiB, {ended_early} ended early, \
         {failed} failed",
        outcomes.len()
    );
    // A guest may well end itself; where most do, little has been tried.
    ensure!(ended_early * 2 <= outcomes.len(), "most sandboxes were ended by their own workers");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the command line and the guest's program, and returns their directory.
fn build() -> anyhow::Result<PathBuf> {
    let status = Command::new(env!("CARGO"))
        .current_dir(workspace_root())
        .args(["build", "--quiet", "--locked", "--bin", "luminaguard", "--bin", "guest-fuzz"])
        .args(["--package", "luminaguard", "--package", "lg-tests"])
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "the programs can not be built");
    Ok(target_directory()?.join("debug"))
}

/// Runs one sandbox.
fn sandbox(programs: &Path, seed: u64) -> anyhow::Result<Outcome> {
    let scene = Scene::new()?;
    let before = scene.looks()?;
    let mount = |name: &str, mode: &str| format!("{}:/{name}:{mode}", scene.root.path().join(name).display());
    let mut child = Command::new(programs.join("luminaguard"))
        .args(["run", "--max-processes", "64"])
        .args(["--timeout", &format!("{DEADLINE_S}s"), "--memory", &format!("{MEMORY_MIB}M")])
        .args(["--mount", &mount("rw", "rw"), "--mount", &mount("ro", "ro")])
        .args(["--mount", &format!("{}:/guest:ro", programs.display())])
        .args(["--", "/guest/guest-fuzz", &seed.to_string(), &CALLS_MS.to_string()])
        .env("HOST_VARIABLE", SECRET)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting luminaguard")?;
    let Ended { status, said, errors, most_mib } = watch(&mut child)?;
    let mut wrong = Vec::new();
    match status {
        None => wrong.push("it did not end".to_owned()),
        Some(status) if is_vmm_failure(status) => wrong.push(format!("{status}: {errors}")),
        Some(status) if status.code() == Some(1) => wrong.push(said.clone()),
        Some(_) => {}
    }
    if errors.contains("panicked") {
        wrong.push(format!("a panic: {errors}"));
    }
    if said.contains(SECRET) || errors.contains(SECRET) {
        wrong.push("the secret came out".to_owned());
    }
    if most_mib > MEMORY_MIB + OWN_MEMORY_MIB {
        wrong.push(format!("the vmm took {most_mib} MiB"));
    }
    if scene.looks()? != before {
        wrong.push("what was not granted for writing has changed".to_owned());
    }
    wrong.extend(scene.dangerous()?);
    let workers = said
        .lines()
        .find_map(|line| line.strip_prefix("still works after ")?.strip_suffix(" workers")?.parse().ok());
    Ok(Outcome { wrong, workers, most_mib })
}

/// Says whether a vmm ended by something else than what its guest did. The deadline counts, as the guest never takes so long.
fn is_vmm_failure(status: ExitStatus) -> bool {
    status.signal().is_some() || status.code().is_some_and(|code| (124..=VMM_FAILED).contains(&code))
}

struct Ended {
    /// `None`: it had to be killed.
    status: Option<ExitStatus>,
    said: String,
    errors: String,
    most_mib: u64,
}

/// Waits for a sandbox, and notes the most memory that it has taken.
fn watch(child: &mut Child) -> anyhow::Result<Ended> {
    let start = Instant::now();
    let mut stdout = child.stdout.take().context("it is piped")?;
    let mut stderr = child.stderr.take().context("it is piped")?;
    let read = |from: &mut dyn Read| {
        let mut bytes = Vec::new();
        // What can be read is what there is to tell.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    std::thread::scope(|scope| {
        let said = scope.spawn(move || read(&mut stdout));
        let errors = scope.spawn(move || read(&mut stderr));
        let mut most_mib = 0;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if start.elapsed() > Duration::from_secs(DEADLINE_S) + GRACE {
                child.kill()?;
                child.wait()?;
                break None;
            }
            most_mib = most_mib.max(resident_mib(child.id()));
            std::thread::sleep(Duration::from_millis(20));
        };
        let (said, errors) = (said.join().expect("no panic"), errors.join().expect("no panic"));
        Ok(Ended { status, said, errors, most_mib })
    })
}

/// The most memory that a process has had; 0 once it has ended.
fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// What tells that a file was changed: its metadata and its contents.
type Looks = BTreeMap<PathBuf, (u64, u32, u32, i64, i64, Vec<u8>)>;

/// Directories of the host, two of which a sandbox is granted.
struct Scene {
    root: tempfile::TempDir,
}

impl Scene {
    fn new() -> anyhow::Result<Scene> {
        let root = tempfile::tempdir()?;
        let at = |name: &str| root.path().join(name);
        for directory in ["rw", "ro", "ro/directory", "elsewhere"] {
            std::fs::create_dir(at(directory))?;
        }
        for (file, text) in [("rw/file", "granted"), ("ro/file", "granted"), ("elsewhere/secret", SECRET)] {
            std::fs::write(at(file), text)?;
        }
        symlink("../elsewhere/secret", at("rw/link-up"))?;
        symlink(at("elsewhere/secret"), at("rw/link-absolute"))?;
        Ok(Scene { root })
    }

    /// How all looks that was not granted for writing.
    fn looks(&self) -> anyhow::Result<Looks> {
        let mut looks = Looks::new();
        for directory in ["ro", "elsewhere"] {
            for path in below(&self.root.path().join(directory))? {
                let it = std::fs::symlink_metadata(&path)?;
                let contents = std::fs::read(&path).unwrap_or_default();
                looks.insert(path, (it.len(), it.mode(), it.uid(), it.mtime(), it.mtime_nsec(), contents));
            }
        }
        Ok(looks)
    }

    /// What in the writable directory would be dangerous on the host.
    fn dangerous(&self) -> anyhow::Result<Vec<String>> {
        let mut found = Vec::new();
        for path in below(&self.root.path().join("rw"))? {
            let it = std::fs::symlink_metadata(&path)?;
            let kind = it.file_type();
            if kind.is_char_device() || kind.is_block_device() || kind.is_fifo() || kind.is_socket() {
                found.push(format!("{} is a {kind:?}", path.display()));
            }
            if kind.is_file() && it.mode() & 0o6000 != 0 {
                found.push(format!("{} has the mode {:o}", path.display(), it.mode()));
            }
        }
        Ok(found)
    }
}

/// A directory and all that is below it. Directories that their owner can not read are entered by the superuser alone.
fn below(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = vec![directory.to_owned()];
    let mut next = 0;
    while next < found.len() {
        let path = found[next].clone();
        next += 1;
        if path.symlink_metadata().is_ok_and(|it| it.is_dir())
            && let Ok(entries) = std::fs::read_dir(&path)
        {
            found.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
    Ok(found)
}
