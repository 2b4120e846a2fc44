//! Each attack of the program `vmm-attacks`, in a vmm of its own that was taken over: it must be refused, the
//! template, the other forks and the runtime must go on, and nothing of the host may have changed or be left at the
//! end. The number of attacks is the one that README.md tells.

mod common;
#[path = "common/readme.rs"]
mod readme;

use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lg_runtime::{Access, Launcher, Report, Sandbox, Template, TemplateSpec, WaitError, WarmUp};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;
use tokio::time::timeout;

const ATTACKER: &str = env!("CARGO_BIN_EXE_vmm-attacks");
const SECRET: &str = "secret of the host";
/// How long anything may take that must come about.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a vmm says of itself is its own affair; it is over all the same.
const MAY_CLAIM: &str = "control/claims-its-end-and-lives-on";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if std::fs::metadata("/proc/self").expect("proc is mounted").uid() != 0 {
        eprintln!("SKIPPED: only root may take over the processes of sandboxes");
        return ExitCode::SUCCESS;
    }
    let Some(luminaguard) = common::luminaguard(Path::new(ATTACKER)) else {
        eprintln!("SKIPPED: /dev/kvm can not be opened, so nothing can be attacked");
        return ExitCode::SUCCESS;
    };
    let list = Command::new(ATTACKER).arg("--list").output().expect("the attacker can be started");
    let list = String::from_utf8(list.stdout).expect("names are text");
    let attacks: Vec<(String, String)> = list
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, scene)| (name.to_owned(), scene.to_owned()))
        .collect();
    let host = Arc::new(Host::new(&Launcher::new(luminaguard, ["vmm"])));
    let mut trials: Vec<Trial> = attacks
        .iter()
        .map(|(name, scene)| {
            let (name, scene, host) = (name.clone(), scene.clone(), host.clone());
            Trial::test(name.clone(), move || host.runtime.block_on(host.attack(&name, &scene)))
        })
        .collect();
    let count = attacks.len();
    trials.push(Trial::test("the number of attacks that README.md tells", move || {
        readme::tells_attacks(count)
    }));
    let conclusion = libtest_mimic::run(&arguments, trials);
    let left = Arc::into_inner(host).expect("all trials are over").after_all();
    conclusion.exit_if_failed();
    match left {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("after all attacks: {what}");
            ExitCode::FAILURE
        }
    }
}

/// A template, and a fork of it that is never attacked.
struct Stand {
    template: Template,
    sibling: Sandbox,
}

impl Stand {
    async fn new(launcher: &Launcher, mounts: Option<&Path>) -> Stand {
        let mut spec = TemplateSpec::new("attacked", WarmUp::Nothing);
        if let Some(root) = mounts {
            spec.sandbox = spec.sandbox.mount(root.join("ro"), "/ro", Access::ReadOnly).mount(
                root.join("rw"),
                "/rw",
                Access::ReadWrite,
            );
        }
        let template = Template::build(&spec, launcher).await.expect("a template can be built");
        let sibling = template.spawn().await.expect("it can be forked");
        Stand { template, sibling }
    }

    /// Whether the sandbox that was not attacked works, and the template can be forked.
    async fn works(&self) -> Result<(), String> {
        let output = self.sibling.program(["/bin/echo", "works"]).output().await;
        let output = output.map_err(|error| format!("the sibling: {error}"))?;
        if output.stdout != b"works\n" {
            return Err(format!("the sibling: {output:?}"));
        }
        let mut fork = self.template.spawn().await.map_err(|error| format!("the template: {error}"))?;
        fork.files().stat("/etc/passwd").await.map_err(|error| format!("a new fork: {error}"))?;
        fork.kill().await.map_err(|error| format!("a new fork: {error}"))?;
        Ok(())
    }
}

/// What all attacks have in common on the host's side.
struct Host {
    runtime: Runtime,
    scene: Scene,
    stands: [(&'static str, Stand); 3],
    descriptors: usize,
}

impl Host {
    fn new(launcher: &Launcher) -> Host {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let scene = Scene::new();
        let root = scene.root.path();
        let stands = runtime.block_on(async {
            [
                ("Plain", Stand::new(launcher, None).await),
                ("Granted", Stand::new(launcher, Some(root)).await),
                ("Quiet", Stand::new(launcher, None).await),
            ]
        });
        Host { runtime, scene, stands, descriptors: open_descriptors() }
    }

    async fn attack(&self, name: &str, scene: &str) -> Result<(), Failed> {
        let (_, stand) = self.stands.iter().find(|stand| stand.0 == scene).ok_or("an unknown scene")?;
        let before = self.scene.looks();
        let mut sandbox = stand.template.spawn().await.map_err(|error| error.to_string())?;
        let attacker = tokio::process::Command::new(ATTACKER)
            .arg(name)
            .env("VMM", sandbox.vmm_pid().to_string())
            .env("TEMPLATE", stand.template.vmm_pid().to_string())
            .env("SIBLING", stand.sibling.vmm_pid().to_string())
            .env("RUNTIME", std::process::id().to_string())
            .env("ROOT", self.scene.root.path())
            .kill_on_drop(true)
            .output();
        // The attacker's end is the vmm's.
        let both = timeout(PATIENCE, async { tokio::join!(attacker, sandbox.wait()) }).await;
        let (attacker, end) = both.map_err(|_| "it did not end")?;
        let mut wrong = wrong_with(&attacker.map_err(|error| error.to_string())?, end, name);
        match timeout(PATIENCE, stand.works()).await {
            Ok(Ok(())) => {}
            Ok(Err(what)) => wrong.push(what),
            Err(_) => wrong.push("the others hang".to_owned()),
        }
        if before != self.scene.looks() {
            wrong.push("what was not granted for writing changed".to_owned());
        }
        wrong.extend(self.scene.dangerous());
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
    }

    /// Ends all sandboxes; then nothing may be there that was not before.
    fn after_all(self) -> Result<(), String> {
        let started = Instant::now();
        let kept = open_descriptors();
        if kept > self.descriptors {
            return Err(format!("{} descriptors came from vmms and were kept", kept - self.descriptors));
        }
        drop(self.stands);
        loop {
            let left = children();
            if left.is_empty() {
                return Ok(());
            }
            if started.elapsed() > Duration::from_secs(10) {
                return Err(format!("processes {left:?} are left"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn wrong_with(attacker: &Output, end: Result<Report, WaitError>, name: &str) -> Vec<String> {
    let (said, errors) =
        (String::from_utf8_lossy(&attacker.stdout), String::from_utf8_lossy(&attacker.stderr));
    let mut wrong = Vec::new();
    if attacker.status.code() != Some(0) || !said.starts_with("refused: ") {
        wrong.push(format!("{}: {said}{errors}", attacker.status));
    }
    if said.contains(SECRET) || errors.contains(SECRET) {
        wrong.push("the secret came out".to_owned());
    }
    if let Ok(report) = end
        && name != MAY_CLAIM
    {
        wrong.push(format!("its sandbox ended as if nothing were wrong: {:?}", report.outcome));
    }
    wrong
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// The children of this process, those that have ended included.
fn children() -> Vec<String> {
    let threads = std::fs::read_dir("/proc/self/task").expect("proc is mounted").flatten();
    let texts = threads.map(|thread| std::fs::read_to_string(thread.path().join("children")));
    texts.flatten().flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// A directory of the host of which parts are granted.
struct Scene {
    root: tempfile::TempDir,
}

/// What tells that a file was changed, and its contents.
type Looks = (String, u64, u32, u32, i64, i64, Vec<u8>);

impl Scene {
    fn new() -> Scene {
        let root = tempfile::tempdir().expect("a directory can be made");
        let at = |name: &str| root.path().join(name);
        for directory in ["rw", "ro", "ro/directory"] {
            std::fs::create_dir(at(directory)).expect("it is new");
        }
        for (file, contents) in [("secret", SECRET), ("rw/file", "granted"), ("ro/file", "granted")] {
            std::fs::write(at(file), contents).expect("it is new");
        }
        let behind_proc = format!("/proc/self/root{}", at("secret").display());
        for (name, target) in [
            ("link-up", "../secret".into()),
            ("link-absolute", at("secret")),
            ("link-to-proc", behind_proc.into()),
            ("link-to-device", "/dev/zero".into()),
        ] {
            symlink(target, at("rw").join(name)).expect("it is new");
        }
        Scene { root }
    }

    /// How all looks that was not granted for writing.
    fn looks(&self) -> Vec<Looks> {
        let files = ["secret", "ro", "ro/file", "ro/directory"].map(|name| self.root.path().join(name));
        let files = files.into_iter().chain(["/usr/bin/env".into(), "/etc/passwd".into()]);
        let looks = |path: std::path::PathBuf| {
            let it = std::fs::symlink_metadata(&path).expect("it is there");
            let contents = std::fs::read(&path).unwrap_or_default();
            let name = path.display().to_string();
            (name, it.len(), it.mode(), it.uid(), it.mtime(), it.mtime_nsec(), contents)
        };
        files.map(looks).collect()
    }

    /// What in the writable directory would be dangerous on the host.
    fn dangerous(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.path().join("rw")).expect("a directory").flatten();
        let facts =
            entries.filter_map(|entry| Some((entry.file_name(), entry.path().symlink_metadata().ok()?)));
        let dangerous = facts.filter(|(_, it)| {
            let kind = it.file_type();
            kind.is_char_device() || kind.is_block_device() || kind.is_fifo() || kind.is_socket()
        });
        dangerous.map(|(name, it)| format!("{} is a {:?}", name.display(), it.file_type())).collect()
    }
}
