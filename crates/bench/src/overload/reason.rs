//! Which errors say that there was too little of something, and of what.

use lg_runtime::admission::{Refused, Shortage};
use lg_runtime::pool::{ClaimError, MakeError};
use lg_runtime::{SpawnError, StartFailureKind};
use rustix::io::Errno;

use super::plan::Guard;

/// The reason of a refusal in two words: how it was refused, and what there was too little of. `None` for an error
/// that does not say so, which is a failure. Behind admission the host has nothing left to refuse.
pub(crate) fn of_claim(error: &ClaimError<MakeError>, guard: Guard) -> Option<String> {
    match error {
        ClaimError::DeadlinePassed { .. } => Some("claim: deadline passed".to_owned()),
        ClaimError::Failed { error: MakeError::Refused(refused), .. } => of_admission(refused),
        ClaimError::Failed { error: MakeError::Spawn(error), .. } if guard == Guard::Nobody => of_host(error),
        _ => None,
    }
}

fn of_admission(refused: &Refused) -> Option<String> {
    let how = match refused {
        Refused::Short { .. } => "no room",
        Refused::QueueFull { .. } => "queue full",
        Refused::DeadlinePassed { .. } => "deadline passed",
        Refused::TooLarge { resource, .. } => return Some(format!("too large: {resource}")),
        _ => return None,
    };
    let what = match refused.short()? {
        Shortage::NoMemory { .. } => "memory",
        Shortage::NoDescriptors { .. } => "descriptors",
        Shortage::NoProcesses { .. } => "processes",
        Shortage::TooManyAlive { .. } => "sandboxes",
        Shortage::TooManyStarting { .. } => "sandboxes that start",
        _ => return None,
    };
    Some(format!("{how}: {what}"))
}

/// What the host had too little of: for this process, by the error of the system call; or for a vmm.
fn of_host(error: &SpawnError) -> Option<String> {
    let what = match error {
        SpawnError::Launch(error) => match Errno::from_io_error(error)? {
            Errno::MFILE | Errno::NFILE => "descriptors",
            Errno::AGAIN => "processes",
            Errno::NOMEM => "memory",
            _ => return None,
        },
        SpawnError::Start(failure) => match failure.kind {
            StartFailureKind::Descriptors => "descriptors",
            StartFailureKind::Processes => "processes",
            StartFailureKind::Memory => "memory",
            _ => return None,
        },
        _ => return None,
    };
    Some(format!("host: {what}"))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use lg_runtime::StartFailure;

    use super::*;

    fn failed(error: MakeError) -> ClaimError<MakeError> {
        ClaimError::Failed { error, refill: None }
    }

    #[test]
    fn a_refusal_says_how_and_what() {
        let short = Shortage::TooManyAlive { alive: 4, most: 4 };
        let cases = [
            (
                Refused::QueueFull { length: 9, short: short.clone(), retry_after: None },
                Some("queue full: sandboxes"),
            ),
            (
                Refused::DeadlinePassed {
                    waited: Duration::ZERO,
                    short: Shortage::NoDescriptors { needed: 1, used: 2, limit: 3, reserve: 0 },
                    retry_after: None,
                },
                Some("deadline passed: descriptors"),
            ),
            (Refused::ShuttingDown, None),
        ];
        for (refused, reason) in cases {
            let error = failed(MakeError::Refused(refused));
            assert_eq!(of_claim(&error, Guard::Admission).as_deref(), reason, "{error}");
        }
    }

    #[test]
    fn the_host_refuses_only_where_nobody_stands_before_it() {
        let launch = |errno: Errno| failed(MakeError::Spawn(SpawnError::Launch(io::Error::from(errno))));
        assert_eq!(of_claim(&launch(Errno::MFILE), Guard::Nobody).as_deref(), Some("host: descriptors"));
        assert_eq!(of_claim(&launch(Errno::MFILE), Guard::Admission), None);
        assert_eq!(of_claim(&launch(Errno::PERM), Guard::Nobody), None);
        let start = |kind| {
            let failure = StartFailure { kind, message: "no".to_owned() };
            failed(MakeError::Spawn(SpawnError::Start(failure)))
        };
        let reason = of_claim(&start(StartFailureKind::Processes), Guard::Nobody);
        assert_eq!(reason.as_deref(), Some("host: processes"));
        assert_eq!(of_claim(&start(StartFailureKind::Kvm), Guard::Nobody), None);
        let died = failed(MakeError::Spawn(SpawnError::ForkDied));
        assert_eq!(of_claim(&died, Guard::Nobody), None);
    }
}
