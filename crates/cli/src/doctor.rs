//! `luminaguard doctor`: whether this machine can run sandboxes, check by check, and what to do if not; and what sandboxes
//! left behind on it.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use lg_control::Wall;
use lg_kvm::{StartError, Survey};
use lg_runtime::{Orphan, lasting_orphans};
use serde::Serialize;

use crate::args::DoctorOptions;
use crate::bench::kind_name;

const DEFAULT_MEMORY_BYTES: u64 = 512 << 20;
/// The system call openat2 came with it.
const OLDEST_KERNEL: (u32, u32) = (5, 17);
/// How long something may take to go away before it counts as left behind.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// As it must be.
    Ok,
    /// Not as it should be, but sandboxes run.
    Warning,
    /// Sandboxes do not run.
    Failed,
    /// Not looked at, since an earlier check failed.
    Skipped,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    /// What was found.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), advice: None }
    }

    fn bad(name: &'static str, status: Status, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, status, found: found.into(), advice: Some(advice.into()) }
    }

    fn skipped(name: &'static str) -> Self {
        Self { name, status: Status::Skipped, found: "needs what failed before".to_owned(), advice: None }
    }
}

/// What was measured, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
struct Measured {
    vm_create_us: f64,
    first_exit_us: f64,
    system_call_exit_us: f64,
    bare_run_us: f64,
    vm_tear_down_us: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_true_us: Option<f64>,
}

/// All that was found.
#[derive(Debug, Clone, Serialize)]
struct Findings {
    schema: &'static str,
    /// Whether `luminaguard run` works.
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    kvm_kind: Option<&'static str>,
    checks: Vec<Check>,
    #[serde(skip_serializing_if = "Option::is_none")]
    measured: Option<Measured>,
}

/// What was left behind.
#[derive(Debug, Clone, Serialize)]
struct Leftovers {
    schema: &'static str,
    count: usize,
    /// Of all of them together.
    bytes: u64,
    left: Vec<Orphan>,
}

/// Answers 0 when `run` works here, 1 when it does not. With `--leftovers`: 0 when nothing is left behind.
pub(crate) fn run(options: &DoctorOptions) -> Result<u8> {
    if options.leftovers {
        return leftovers(options);
    }
    let findings = examine();
    let text = if options.json { json(&findings)? } else { crate::printable_lines(&text(&findings)) + "\n" };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(u8::from(!findings.ok))
}

fn leftovers(options: &DoctorOptions) -> Result<u8> {
    let left = lasting_orphans(PATIENCE);
    let found = Leftovers {
        schema: "luminaguard.leftovers/1",
        count: left.len(),
        bytes: left.iter().map(|orphan| orphan.bytes).sum(),
        left,
    };
    let text = if options.json { json(&found)? } else { leftovers_text(&found) };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(u8::from(found.count > 0))
}

fn json(found: &impl Serialize) -> Result<String> {
    Ok(lg_control::printable_json(&serde_json::to_string_pretty(found)?).into_owned() + "\n")
}

fn leftovers_text(found: &Leftovers) -> String {
    let lines: String = found.left.iter().map(|orphan| format!("{orphan}\n")).collect();
    format!("{lines}{} left behind\n", found.count)
}

fn examine() -> Findings {
    let mut checks = vec![kernel(rustix::system::uname().release().to_str().unwrap_or_default()), memory()];
    let (mut kvm_kind, mut measured) = (None, None);
    match lg_kvm::survey() {
        Ok(survey) => {
            kvm_kind = Some(kind_name(survey.hardware.kind));
            measured = Some(measure(&survey));
            checks.extend(kvm_checks(&survey));
            let (check, jail, elapsed) = sandbox();
            checks.push(check);
            checks.push(jail);
            if let (Some(measured), Some(elapsed)) = (&mut measured, elapsed) {
                measured.run_true_us = Some(us(elapsed));
            }
        }
        Err(error) => {
            checks.push(kvm_failure(&error));
            checks.push(Check::skipped("sandbox"));
            checks.push(Check::skipped("jail"));
        }
    }
    checks.push(python());
    let ok = !checks.iter().any(|check| matches!(check.status, Status::Failed | Status::Skipped));
    Findings { schema: "luminaguard.doctor/1", ok, kvm_kind, checks, measured }
}

fn kernel(release: &str) -> Check {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let found = format!("Linux {release}");
    if version >= OLDEST_KERNEL {
        return Check::ok("host kernel", found);
    }
    let (major, minor) = OLDEST_KERNEL;
    Check::bad(
        "host kernel",
        Status::Warning,
        found,
        format!("{major}.{minor} or later is needed: update the host's kernel"),
    )
}

fn memory() -> Check {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    match available.map(|kib| kib << 10) {
        Some(bytes) if bytes < DEFAULT_MEMORY_BYTES => Check::bad(
            "memory",
            Status::Warning,
            format!("{} MiB available", bytes >> 20),
            "a sandbox may use 512 MiB unless --memory says less: give one, or free some memory",
        ),
        Some(bytes) => Check::ok("memory", format!("{} MiB available", bytes >> 20)),
        None => Check::bad("memory", Status::Warning, "not known", "mount /proc"),
    }
}

fn kvm_checks(survey: &Survey) -> [Check; 4] {
    let clock = match survey.hardware.tsc_khz {
        Some(khz) => Check::ok("guest clock", format!("the time-stamp counter, {:.2} GHz", khz as f64 / 1e6)),
        None => Check::bad(
            "guest clock",
            Status::Warning,
            "the time-stamp counter cannot serve as a clock",
            "nothing: programs that ask for the time often run slower",
        ),
    };
    [
        Check::ok("/dev/kvm", "opens, and has all that is needed"),
        Check::ok("kind of KVM", survey.hardware.kind.to_string()),
        Check::ok(
            "virtual machine",
            format!(
                "made in {:.0} us, first exit {:.0} us, system call {:.1} us, taken down in {:.0} us",
                us(survey.create),
                us(survey.first_exit),
                us(survey.round_trip),
                us(survey.tear_down)
            ),
        ),
        clock,
    ]
}

fn kvm_failure(error: &StartError) -> Check {
    let chain = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let found = chain.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    let advice = match error {
        StartError::Absent { .. } => {
            "load kvm_intel or kvm_amd, switch virtualisation on in the firmware, or on a virtual machine ask its \
             provider for nested virtualisation"
        }
        StartError::Forbidden { .. } => {
            "add this user to the group that owns /dev/kvm (usually `sudo usermod -aG kvm $USER`) and log in again"
        }
        StartError::ApiVersion { .. } | StartError::MissingCapability { .. } => "update the host's kernel",
        StartError::MissingFeature { .. } => "use a machine with a newer processor",
        _ => "look at the host's kernel log (`dmesg`) for what KVM says",
    };
    Check::bad("/dev/kvm", Status::Failed, found, advice)
}

fn measure(survey: &Survey) -> Measured {
    Measured {
        vm_create_us: us(survey.create),
        first_exit_us: us(survey.first_exit),
        system_call_exit_us: us(survey.round_trip),
        bare_run_us: us(survey.bare_run),
        vm_tear_down_us: us(survey.tear_down),
        run_true_us: None,
    }
}

/// Which walls stand around a sandbox that ran, by its statistics.
fn jail(stats: &[u8]) -> Check {
    let stats: serde_json::Value = serde_json::from_slice(stats).unwrap_or_default();
    let stands =
        |wall: &Wall| stats["walls"].as_array().is_some_and(|walls| walls.contains(&wall.name().into()));
    let names = |walls: Vec<Wall>| walls.iter().map(|wall| wall.name()).collect::<Vec<_>>().join(", ");
    let (standing, missing) = Wall::ALL.iter().partition::<Vec<_>, _>(|wall| stands(wall));
    if missing.is_empty() {
        return Check::ok("jail", format!("all walls stand: {}", names(standing)));
    }
    Check::bad(
        "jail",
        Status::Warning,
        format!("of the walls around a sandbox's process these do not stand: {}", names(missing)),
        "use a host kernel that has them (Landlock: 5.13 or later, with `landlock` in its parameter lsm=)",
    )
}

/// Runs a sandbox, as a user would. Answers how that went, which walls stood, and how long it took.
fn sandbox() -> (Check, Check, Option<Duration>) {
    let started = Instant::now();
    let output = Command::new("/proc/self/exe")
        .args(["run", "--timeout", "10s", "--stats=json", "--", "/bin/true"])
        .stdin(Stdio::null())
        .output();
    let elapsed = started.elapsed();
    let advice = "run `luminaguard run --strace -- /bin/true` to see how far it comes";
    match output {
        Ok(output) if output.status.success() => (
            Check::ok("sandbox", format!("`run -- /bin/true` took {:.1} ms", us(elapsed) / 1e3)),
            jail(&output.stderr),
            Some(elapsed),
        ),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            // The statistics are beside the point.
            let said = said.lines().next().unwrap_or_default();
            let found = format!("`run -- /bin/true` failed ({}) {}", output.status, said.trim());
            (Check::bad("sandbox", Status::Failed, found, advice), Check::skipped("jail"), None)
        }
        Err(error) => (
            Check::bad("sandbox", Status::Failed, format!("cannot be started: {error}"), "mount /proc"),
            Check::skipped("jail"),
            None,
        ),
    }
}

/// The harness's agents are written in Python; sandboxes themselves need none.
fn python() -> Check {
    let path = std::path::Path::new("/usr/bin/python3");
    if path.exists() || std::path::Path::new("/usr/local/bin/python3").exists() {
        return Check::ok("python3", "installed, for `bench scale`");
    }
    Check::bad(
        "python3",
        Status::Warning,
        "not installed",
        "install python3 if you want to run `bench scale`",
    )
}

fn us(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn text(findings: &Findings) -> String {
    let mut text = String::new();
    for check in &findings.checks {
        let status = match check.status {
            Status::Ok => "ok",
            Status::Warning => "note",
            Status::Failed => "FAIL",
            Status::Skipped => "-",
        };
        text.push_str(&format!("{status:<5} {:<16} {}\n", check.name, check.found));
        if let Some(advice) = &check.advice {
            text.push_str(&format!("{:<22} what to do: {advice}\n", ""));
        }
    }
    text.push_str(if findings.ok {
        "Sandboxes run on this machine.\n"
    } else {
        "Sandboxes do not run on this machine.\n"
    });
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use lg_runtime::OrphanKind;

    use super::*;

    #[test]
    fn an_old_kernel_gets_advice() {
        assert_eq!(kernel("6.1.0-18-amd64").status, Status::Ok);
        assert_eq!(kernel("5.17").status, Status::Ok);
        assert_eq!(kernel("5.4.0-generic").status, Status::Warning);
        assert_eq!(kernel("").status, Status::Warning);
    }

    #[test]
    fn each_failure_of_kvm_says_what_to_do() {
        let error = |kind: io::ErrorKind| io::Error::from(kind);
        let cases = [
            (StartError::Absent { source: error(io::ErrorKind::NotFound) }, "kvm_intel"),
            (StartError::Forbidden { source: error(io::ErrorKind::PermissionDenied) }, "usermod -aG kvm"),
            (StartError::ApiVersion { found: 11 }, "update"),
            (StartError::MissingCapability { capability: "KVM_CAP_XSAVE2" }, "update"),
        ];
        for (error, part) in cases {
            let check = kvm_failure(&error);
            assert_eq!(check.status, Status::Failed);
            assert!(check.advice.as_ref().is_some_and(|advice| advice.contains(part)), "{check:?}");
        }
    }

    #[test]
    fn a_wall_that_does_not_stand_is_named() {
        let all = jail(br#"{"walls": ["namespaces", "privileges", "landlock", "seccomp"]}"#);
        assert_eq!(all.status, Status::Ok);
        let some = jail(br#"{"walls": ["namespaces", "privileges", "seccomp"]}"#);
        assert_eq!(some.status, Status::Warning);
        assert!(some.found.ends_with(": landlock"), "{some:?}");
        assert_eq!(jail(b"not what was expected").status, Status::Warning);
    }

    #[test]
    fn leftovers_read_as_before() {
        let left = vec![
            Orphan {
                kind: OrphanKind::Process,
                what: "lg-vmm".to_owned(),
                place: "adopted by 1 (systemd)".to_owned(),
                pid: Some(4711),
                bytes: 5 << 20,
            },
            Orphan {
                kind: OrphanKind::Mount,
                what: "/run/luminaguard-4710/root".to_owned(),
                place: "in this mount namespace".to_owned(),
                pid: None,
                bytes: 0,
            },
        ];
        let found = Leftovers { schema: "luminaguard.leftovers/1", count: 2, bytes: 5 << 20, left };
        insta::assert_snapshot!(leftovers_text(&found));
        insta::assert_snapshot!(serde_json::to_string_pretty(&found).unwrap());
        let nothing = Leftovers { count: 0, bytes: 0, left: Vec::new(), ..found };
        assert_eq!(leftovers_text(&nothing), "0 left behind\n");
    }

    #[test]
    fn findings_read_as_before() {
        let checks = vec![
            Check::ok("host kernel", "Linux 6.1.0"),
            kvm_failure(&StartError::MissingCapability { capability: "KVM_CAP_XSAVE2" }),
            Check::skipped("sandbox"),
        ];
        let findings =
            Findings { schema: "luminaguard.doctor/1", ok: false, kvm_kind: None, checks, measured: None };
        insta::assert_snapshot!(text(&findings));
        insta::assert_snapshot!(serde_json::to_string_pretty(&findings).unwrap());
    }
}
