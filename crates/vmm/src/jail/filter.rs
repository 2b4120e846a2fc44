//! The system-call filter, compiled from [`TABLE`].

use std::collections::BTreeMap;
use std::io;

use lg_control::Wall;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use super::JailError;
use super::table::{ABSENT, Allowed, Check, Part, TABLE, Test};

/// Installs the filter for good, in this thread and in all that it starts and forks.
pub fn install(parts: &[Part]) -> Result<(), JailError> {
    let failed = |doing, error: io::Error| JailError::new(Wall::Seccomp, doing, error);
    let rows: Vec<&Allowed> = TABLE.iter().filter(|row| parts.contains(&row.part)).collect();
    let programs =
        compile(&rows).map_err(|error| failed("compile the system-call filter", io::Error::other(error)))?;
    for program in &programs {
        apply_filter(program)
            .map_err(|error| failed("install the system-call filter", io::Error::other(error)))?;
    }
    Ok(())
}

/// Two programs, of which the stricter answer counts: what is not in the table ends the process, but for calls that answer as
/// if the host's kernel did not have them.
fn compile(rows: &[&Allowed]) -> Result<[BpfProgram; 2], BackendError> {
    let absent: BTreeMap<_, _> = ABSENT.iter().map(|(_, number, _)| (*number, Vec::new())).collect();
    let enosys = SeccompAction::Errno(libc::ENOSYS as u32);
    let mut allowed = absent.clone();
    for row in rows {
        // A call in two parts has the rules of both.
        allowed.entry(row.number).or_insert_with(Vec::new).extend(rules(row.checks)?);
    }
    let arch = TargetArch::x86_64;
    let absent = SeccompFilter::new(absent, SeccompAction::Allow, enosys, arch)?;
    let allowed = SeccompFilter::new(allowed, SeccompAction::KillProcess, SeccompAction::Allow, arch)?;
    Ok([absent.try_into()?, allowed.try_into()?])
}

/// All checks must hold; a rule has one value for each, so there is a rule for each choice of values.
fn rules(checks: &[Check]) -> Result<Vec<SeccompRule>, BackendError> {
    let mut choices: Vec<Vec<SeccompCondition>> = vec![Vec::new()];
    for check in checks {
        let conditions = conditions(check)?;
        choices = choices
            .iter()
            .flat_map(|chosen| {
                conditions
                    .iter()
                    .map(|condition| [chosen.as_slice(), std::slice::from_ref(condition)].concat())
            })
            .collect();
    }
    choices.into_iter().filter(|chosen| !chosen.is_empty()).map(SeccompRule::new).collect()
}

fn conditions(check: &Check) -> Result<Vec<SeccompCondition>, BackendError> {
    let condition =
        |operator, value| SeccompCondition::new(check.argument, SeccompCmpArgLen::Qword, operator, value);
    let low = |value| SeccompCondition::new(check.argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
    match check.test {
        Test::OneOf(values) => values.iter().map(|(_, value)| low(*value)).collect(),
        Test::Exactly(values) => {
            values.iter().map(|(_, value)| condition(SeccompCmpOp::Eq, *value)).collect()
        }
        Test::Without(_, bits) => Ok(vec![condition(SeccompCmpOp::MaskedEq(bits), 0)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_compiles_and_stays_far_below_what_the_host_takes() {
        let rows: Vec<&Allowed> = TABLE.iter().collect();
        let programs = compile(&rows).unwrap();
        // BPF_MAXINSNS.
        assert!(programs.iter().all(|program| program.len() < 4096 / 4));
    }

    /// Does one thing behind the filter. Only [`what_is_not_allowed_ends_the_process`] asks for it.
    #[test]
    #[ignore = "part of another test"]
    fn behind_the_filter() {
        let case = std::env::var("LG_BEHIND_THE_FILTER").unwrap();
        install(&[Part::All]).unwrap();
        match case.as_str() {
            "nothing" => {}
            "another socket" => drop(std::net::UdpSocket::bind("127.0.0.1:0")),
            "another program" => drop(std::process::Command::new("/bin/true").status()),
            "another's end" => {
                // Signal 0 does nothing but ask.
                let _ = rustix::process::test_kill_process(rustix::process::getpid());
            }
            "another name for a file" => drop(std::fs::rename("/nonexistent/a", "/nonexistent/b")),
            case => panic!("{case}"),
        }
    }

    #[test]
    fn what_is_not_allowed_ends_the_process() {
        use std::os::unix::process::ExitStatusExt;
        let run = |case: &str| {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "jail::filter::tests::behind_the_filter", "--ignored"])
                .env("LG_BEHIND_THE_FILTER", case)
                .stdout(std::process::Stdio::null())
                .status()
                .unwrap()
        };
        assert!(run("nothing").success());
        for case in ["another socket", "another program", "another's end", "another name for a file"] {
            assert_eq!(run(case).signal(), Some(libc::SIGSYS), "{case}");
        }
    }

    #[test]
    fn each_call_is_listed_once_and_says_why() {
        let mut numbers: Vec<_> = TABLE.iter().map(|row| (row.number, row.part as u8)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), TABLE.len());
        assert!(TABLE.iter().all(|row| !row.why.is_empty()));
        // Without arguments to look at, the rules of another part would mean nothing.
        for (index, row) in TABLE.iter().enumerate() {
            let again = TABLE[index + 1..].iter().find(|other| other.number == row.number);
            assert!(
                again.is_none_or(|other| !row.checks.is_empty() && !other.checks.is_empty()),
                "{}",
                row.name
            );
        }
        let names: Vec<_> = TABLE.iter().map(|row| row.name).collect();
        for forbidden in
            ["execve", "socket", "connect", "ptrace", "kill", "tgkill", "mount", "open_by_handle_at", "bpf"]
        {
            assert!(!names.contains(&forbidden), "{forbidden}");
        }
    }
}
