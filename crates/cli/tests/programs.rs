//! Programs that agents use, driven through real tasks, natively and in a sandbox.
//!
//! Each script in `programs/` is a test. `bash -eu` runs it twice, in an empty directory that is its home: both must
//! succeed and print the same. A script prints only what must not differ: no times, no process numbers. Its head is
//! comments, which may say:
//!
//! ```text
//! # needs: PROGRAM...            skip the test, loudly, where one is missing
//! # module: NAME...              the same for modules of Debian's Python
//! # module-java: NAME...         the same for modules of Java
//! # mount: VARIABLE COMMAND...   show the directory that the command prints on the host, read only, and tell its place
//! ```

mod needs_kvm;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};
use needs_kvm::needs_kvm;

const LUMINAGUARD: &str = env!("CARGO_BIN_EXE_luminaguard");
/// What both sides get as PATH: that of a sandbox.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The longest that a script may take, in a sandbox on a busy machine.
const TIMEOUT: &str = "300s";

fn main() -> ExitCode {
    needs_kvm_or_succeed().unwrap_or_else(|| {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
        let mut scripts: Vec<PathBuf> = std::fs::read_dir(&directory)
            .expect("the scripts are there")
            .map(|entry| entry.expect("an entry can be read").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "sh"))
            .collect();
        scripts.sort();
        assert!(!scripts.is_empty(), "no scripts in {}", directory.display());
        let trials = scripts.into_iter().map(|script| {
            let name = script.file_stem().expect("a script has a name").to_string_lossy().into_owned();
            Trial::test(name, move || check(&Script::read(&script)))
        });
        libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
    })
}

fn needs_kvm_or_succeed() -> Option<ExitCode> {
    let mut code = Some(ExitCode::SUCCESS);
    let mut go_on = || {
        needs_kvm!();
        code = None;
    };
    go_on();
    code
}

/// A script with what its head says.
struct Script {
    path: PathBuf,
    text: String,
}

impl Script {
    fn read(path: &Path) -> Script {
        let text = std::fs::read_to_string(path).expect("the script can be read");
        Script { path: path.to_owned(), text }
    }

    /// Returns the words of the lines `# KEY: WORD...` of the head.
    fn says<'a>(&'a self, key: &'a str) -> impl Iterator<Item = Vec<&'a str>> {
        let head = self.text.lines().take_while(|line| line.starts_with('#'));
        head.filter_map(move |line| {
            let words = line.strip_prefix("# ")?.strip_prefix(key)?.strip_prefix(": ")?;
            Some(words.split_whitespace().collect())
        })
    }

    /// Returns what the script needs and this machine does not have.
    fn missing(&self) -> Option<String> {
        let finds = |program: &str, words: &[&str]| {
            let output = Command::new(program).args(words).env("PATH", PATH).output();
            output.is_ok_and(|output| output.status.success())
        };
        let programs = self.says("needs").flatten().map(str::to_owned);
        let mut missing: Vec<String> = programs
            .filter(|program| !finds("sh", &["-c", "command -v \"$0\"", program]))
            .chain(self.says("module").flatten().map(str::to_owned).filter(|module| {
                !finds("/usr/bin/python3", &["-c", "__import__(__import__('sys').argv[1])", module])
            }))
            .collect();
        let java = |module: &&str| !finds("java", &["--describe-module", module]);
        missing.extend(self.says("module-java").flatten().filter(java).map(str::to_owned));
        let cannot_mount = |mount: &Vec<&str>| host_directory(mount).is_none();
        missing.extend(self.says("mount").filter(cannot_mount).map(|mount| mount.join(" ")));
        (!missing.is_empty()).then(|| missing.join(" "))
    }

    /// The directories to show: variable, place on the host, place in the sandbox.
    fn mounts(&self) -> Vec<(String, String, String)> {
        let place = |mount: Vec<&str>| {
            let host = host_directory(&mount)?;
            Some((mount[0].to_owned(), host, format!("/mnt/{}", mount[0])))
        };
        self.says("mount").filter_map(place).collect()
    }

    fn natively(&self) -> Output {
        let home = tempfile::tempdir().expect("a directory can be made");
        let mut command = Command::new("bash");
        command
            .arg("-eu")
            .arg(&self.path)
            .current_dir(home.path())
            .env_clear()
            .envs([("PATH", PATH), ("LC_CTYPE", "C.UTF-8")])
            .env("HOME", home.path());
        for (variable, host, _) in self.mounts() {
            command.env(variable, host);
        }
        command.stdin(Stdio::null()).output().expect("bash starts")
    }

    fn in_a_sandbox(&self) -> Output {
        let mut command = Command::new(LUMINAGUARD);
        command.args([
            "run",
            "--memory",
            "2G",
            "--timeout",
            TIMEOUT,
            "--workdir",
            "/root",
            "--env",
            "HOME=/root",
        ]);
        let mut script = self.path.clone().into_os_string();
        script.push(":/script");
        command.arg("--mount").arg(script);
        for (variable, host, sandbox) in self.mounts() {
            command.arg("--mount").arg(format!("{host}:{sandbox}:ro"));
            command.arg("--env").arg(format!("{variable}={sandbox}"));
        }
        command
            .args(["--", "bash", "-eu", "/script"])
            .stdin(Stdio::null())
            .output()
            .expect("luminaguard starts")
    }
}

/// The directory that the command after the first word prints.
fn host_directory(mount: &[&str]) -> Option<String> {
    let [_, program, words @ ..] = mount else { return None };
    let output = Command::new(program).args(words).output().ok().filter(|output| output.status.success())?;
    let directory = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    Path::new(&directory).is_dir().then_some(directory)
}

/// Runs a script on both sides and compares.
fn check(script: &Script) -> Result<(), Failed> {
    if let Some(missing) = script.missing() {
        eprintln!("SKIPPED: {} needs {missing}", script.path.display());
        return Ok(());
    }
    let native = script.natively();
    succeeded("natively", &native)?;
    if native.stdout.is_empty() {
        return Err("the script prints nothing, so it checks nothing".into());
    }
    let sandbox = script.in_a_sandbox();
    succeeded("in a sandbox", &sandbox)?;
    if native.stdout != sandbox.stdout {
        let (native, sandbox) = (text(&native.stdout), text(&sandbox.stdout));
        return Err(format!("the outputs differ\n--- natively\n{native}--- in a sandbox\n{sandbox}").into());
    }
    Ok(())
}

fn succeeded(side: &str, output: &Output) -> Result<(), Failed> {
    if output.status.success() {
        return Ok(());
    }
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    Err(format!("{side}: {}\n--- output\n{out}--- errors\n{err}", output.status).into())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
