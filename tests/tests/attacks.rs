//! Each attack of the program `guest-attacks`, in a sandbox of its own: it must be refused, and nothing of the host may
//! have changed, been seen or been reached. The number of attacks is the one that README.md tells.

mod common;
#[path = "common/readme.rs"]
mod readme;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

const GUEST: &str = env!("CARGO_BIN_EXE_guest-attacks");
/// What must never come out of a sandbox.
const SECRET: &str = "secret of the host";
/// Memory of each sandbox.
const MEMORY_MIB: u64 = 64;
/// What a vmm may take besides, on an unoptimised build.
const OWN_MEMORY_MIB: u64 = 96;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let Some(luminaguard) = common::luminaguard(Path::new(GUEST)) else {
        eprintln!("SKIPPED: /dev/kvm can not be opened, so nothing can be attacked");
        return ExitCode::SUCCESS;
    };
    let list = Command::new(GUEST).arg("--list").output().expect("the guest program can be started");
    let names: Vec<String> =
        String::from_utf8(list.stdout).expect("names are text").lines().map(str::to_owned).collect();
    let host = Arc::new(Host::new(luminaguard));
    let mut trials: Vec<Trial> = names
        .iter()
        .map(|name| {
            let (name, host) = (name.clone(), host.clone());
            Trial::test(name.clone(), move || host.attack(&name))
        })
        .collect();
    let count = names.len();
    trials.push(Trial::test("the number of attacks that README.md tells", move || {
        readme::tells_attacks(count)
    }));
    let conclusion = libtest_mimic::run(&arguments, trials);
    conclusion.exit_if_failed();
    match host.after_all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("after all attacks: {what}");
            ExitCode::FAILURE
        }
    }
}

/// What all attacks have in common on the host's side.
struct Host {
    luminaguard: PathBuf,
    listener: TcpListener,
    abstract_name: String,
    abstract_listener: UnixListener,
    /// Files of the host that some attacks change in their sandbox.
    image: BTreeMap<&'static str, Looks>,
}

impl Host {
    fn new(luminaguard: PathBuf) -> Host {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.set_nonblocking(true).expect("it is a socket");
        let abstract_name = format!("luminaguard-attacks-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).expect("a short name");
        let abstract_listener = UnixListener::bind_addr(&address).expect("the name is free");
        abstract_listener.set_nonblocking(true).expect("it is a socket");
        let image =
            ["/usr/bin/true", "/usr/bin/env", "/etc/passwd"].map(|path| (path, Looks::of(path.as_ref())));
        Host { luminaguard, listener, abstract_name, abstract_listener, image: image.into() }
    }

    fn attack(&self, name: &str) -> Result<(), Failed> {
        let scene = Scene::new();
        let before = scene.looks();
        let Run { status, said, errors, most_mib } = run(&mut self.command(name, &scene));
        let mut wrong = Vec::new();
        if status.code() != Some(0) || !said.starts_with("refused: ") {
            wrong.push(format!("{status}: {said}{errors}"));
        }
        if said.contains(SECRET) || errors.contains(SECRET) {
            wrong.push("the secret came out".to_owned());
        }
        if most_mib > MEMORY_MIB + OWN_MEMORY_MIB {
            wrong.push(format!("a process of it took {most_mib} MiB on the host"));
        }
        if errors.contains("panicked") {
            wrong.push(format!("a panic: {errors}"));
        }
        let after = scene.looks();
        if before != after {
            wrong.push(format!("what was not granted for writing changed: {before:?} to {after:?}"));
        }
        wrong.extend(scene.dangerous());
        if self.listener.accept().is_ok() || self.abstract_listener.accept().is_ok() {
            wrong.push("a server of the host was reached".to_owned());
        }
        if scene.socket.accept().is_ok() {
            wrong.push("a socket of the host was reached".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
    }

    fn command(&self, name: &str, scene: &Scene) -> Command {
        let guest = Path::new(GUEST).parent().expect("a program lies in a directory");
        let port = self.listener.local_addr().expect("it is bound").port();
        let root = scene.root.path();
        let mut command = Command::new(&self.luminaguard);
        command
            .args(["run", "--timeout", "150s", "--max-processes", "64"])
            .args(["--memory", &format!("{MEMORY_MIB}M")])
            .args(["--mount", &format!("{}:/rw:rw", root.join("rw").display())])
            .args(["--mount", &format!("{}:/ro:ro", root.join("ro").display())])
            .args(["--mount", &format!("{}:/guest:ro", guest.display())])
            .args(["--env", &format!("SECRET_PATH={}", root.join("secret").display())])
            .args(["--env", &format!("LISTENER_PORT={port}")])
            .args(["--env", &format!("LISTENER_NAME={}", self.abstract_name)])
            .args(["--", "/guest/guest-attacks", name])
            .env("HOST_VARIABLE", SECRET)
            .stdin(Stdio::null());
        command
    }

    /// A process of a sandbox that is there still.
    fn left_over(&self) -> Option<String> {
        let runs_it = |entry: &std::fs::DirEntry| {
            std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == self.luminaguard)
        };
        let entry = std::fs::read_dir("/proc").ok()?.flatten().find(runs_it)?;
        Some(entry.file_name().to_string_lossy().into_owned())
    }

    /// What must hold when all sandboxes are gone.
    fn after_all(&self) -> Result<(), String> {
        for (path, looks) in &self.image {
            if Looks::of(path.as_ref()) != *looks {
                return Err(format!("{path} was changed"));
            }
        }
        // What ended last may still be on its way out.
        let start = Instant::now();
        while let Some(pid) = self.left_over() {
            if start.elapsed() > Duration::from_secs(10) {
                return Err(format!("process {pid} is left"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// What a run of the guest program came to.
struct Run {
    status: ExitStatus,
    said: String,
    errors: String,
    /// Memory of the largest of its processes on the host.
    most_mib: u64,
}

#[allow(clippy::zombie_processes, reason = "it is waited for by another call, which tells what it used")]
fn run(command: &mut Command) -> Run {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("luminaguard can be started");
    let (mut said, mut errors) = (Vec::new(), Vec::new());
    let (mut stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    std::thread::scope(|scope| {
        scope.spawn(|| stderr.read_to_end(&mut errors).expect("a pipe can be read"));
        stdout.read_to_end(&mut said).expect("a pipe can be read");
    });
    // SAFETY: a structure of integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let mut status = 0;
    // SAFETY: both are there for the call to fill, and nobody else waits for this child.
    let waited = unsafe { libc::wait4(child.id().cast_signed(), &raw mut status, 0, &raw mut usage) };
    assert!(waited > 0, "the child can be waited for");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let status = ExitStatus::from_raw(status);
    Run { status, said: text(said), errors: text(errors), most_mib: usage.ru_maxrss as u64 / 1024 }
}

/// What tells that a file was changed.
#[derive(Debug, PartialEq, Eq)]
struct Looks(u64, u32, u32, i64, i64);

impl Looks {
    fn of(path: &Path) -> Looks {
        let it = std::fs::symlink_metadata(path).expect("it is there");
        Looks(it.len(), it.mode(), it.uid(), it.mtime(), it.mtime_nsec())
    }
}

/// The directories of the host that one attack is about.
struct Scene {
    root: tempfile::TempDir,
    socket: UnixListener,
}

impl Scene {
    fn new() -> Scene {
        let root = tempfile::tempdir().expect("a directory can be made");
        let at = |name: &str| root.path().join(name);
        std::fs::write(at("secret"), SECRET).expect("it is new");
        for directory in ["rw", "ro", "ro/directory", "elsewhere"] {
            std::fs::create_dir(at(directory)).expect("it is new");
        }
        for file in ["rw/file", "ro/file"] {
            std::fs::write(at(file), "granted").expect("it is new");
        }
        std::fs::write(at("elsewhere/secret"), SECRET).expect("it is new");
        for (name, target) in [
            ("link-up", PathBuf::from("../secret")),
            ("link-absolute", at("secret")),
            (
                "link-to-proc",
                PathBuf::from("/proc/self/root").join(at("secret").strip_prefix("/").expect("absolute")),
            ),
            ("link-chain", PathBuf::from("link-absolute")),
            ("link-directory", at("elsewhere")),
        ] {
            symlink(target, at("rw").join(name)).expect("it is new");
        }
        for (name, kind, device) in [("fifo", libc::S_IFIFO, 0), ("node", libc::S_IFCHR, libc::makedev(1, 5))]
        {
            let path = std::ffi::CString::new(at("rw").join(name).into_os_string().into_encoded_bytes());
            // SAFETY: the path ends with a NUL. Where an ordinary user may not make a node, it is not there.
            unsafe { libc::mknod(path.expect("no NUL").as_ptr(), kind | 0o666, device) };
        }
        let socket = UnixListener::bind(at("rw/socket")).expect("the name is free");
        socket.set_nonblocking(true).expect("it is a socket");
        Scene { root, socket }
    }

    /// How all looks that was not granted for writing.
    fn looks(&self) -> BTreeMap<PathBuf, (Looks, Vec<u8>)> {
        let mut looks = BTreeMap::new();
        let mut directories = vec![self.root.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(&directory).expect("a directory").flatten() {
                let path = entry.path();
                if path == self.root.path().join("rw") {
                    continue;
                }
                let contents = std::fs::read(&path).unwrap_or_default();
                looks.insert(path.clone(), (Looks::of(&path), contents));
                if path.is_dir() {
                    directories.push(path);
                }
            }
        }
        looks
    }

    /// What in the writable directory would be dangerous on the host.
    fn dangerous(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.root.path().join("rw")).expect("a directory").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(it) = std::fs::symlink_metadata(entry.path()) else { continue };
            let kind = it.file_type();
            if kind.is_file() && it.mode() & 0o6000 != 0 {
                found.push(format!("{name} has the mode {:o}", it.mode()));
            }
            let ours = ["fifo", "node", "socket"].contains(&name.as_str());
            if (kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device())
                && !ours
            {
                found.push(format!("{name} is a {kind:?}"));
            }
            if kind.is_file() && it.ino() == inode_of("/usr/bin/env") {
                found.push(format!("{name} is a file of the image"));
            }
        }
        found
    }
}

fn inode_of(path: &str) -> u64 {
    std::fs::metadata(path).map_or(0, |it| it.ino())
}
