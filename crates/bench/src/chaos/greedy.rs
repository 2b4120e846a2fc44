//! A guest that wants more memory than it may have: [`be_greedy`].

use std::time::Duration;

use lg_runtime::pool::Ask;
use lg_runtime::{ExitStatus, Limits};

use super::life::{LIFE_LIMIT, Trouble, killed, value};
use super::vmm::VmmId;
use super::world::World;

/// How much more than its template a guest may have.
const ROOM_BYTES: u64 = 48 << 20;
/// Between two attempts, when a fault hit one.
const PAUSE: Duration = Duration::from_millis(20);

/// Address space is promised freely; pages are not there when they are touched.
const GREED: &str = "import mmap\nm = mmap.mmap(-1, 1 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n\
                     for at in range(0, 1 << 30, 4096): m[at] = 1";

/// What came of one attempt.
enum Attempt {
    /// Its program was ended, and its sandbox goes on.
    Ended,
    /// Another fault got in its way.
    Hit,
}

/// Has a guest want more than its limit. Other faults may hit its sandbox, as any other; then another one tries.
///
/// # Errors
/// What did not go as it must, in words.
pub(super) async fn be_greedy(world: &World) -> Result<(), String> {
    let attempts = async {
        while let Attempt::Hit = attempt(world).await? {
            if world.is_interrupted() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    };
    tokio::time::timeout(LIFE_LIMIT, attempts)
        .await
        .unwrap_or_else(|_| Err(format!("a greedy guest was not ended within {LIFE_LIMIT:?}")))
}

async fn attempt(world: &World) -> Result<Attempt, String> {
    let template = world.pool.template();
    let limits = Limits { memory_bytes: Some(template.memory_bytes() + ROOM_BYTES), ..Limits::default() };
    drop(template);
    let mut sandbox = match world.pool.claim(&Ask { limits, ..Ask::default() }, LIFE_LIMIT).await {
        Ok(sandbox) => sandbox,
        // Claims of agents say whether there was a reason.
        Err(error) if super::life::is_not_forked(&error) => return Ok(Attempt::Hit),
        Err(error) => return Err(format!("a greedy guest: {:#}", anyhow::Error::from(error))),
    };
    let vmm = VmmId::of(sandbox.vmm_pid());
    let greed = sandbox.program(["python3", "-c", GREED]).output().await;
    let ended = match greed {
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let is_refused = stderr.contains("allocate") || stderr.contains("Memory");
            match output.status {
                ExitStatus::Signaled(9) => Ok(()),
                ExitStatus::Exited(1) if is_refused => Ok(()),
                status => {
                    Err(Trouble::failed(format!("a guest beyond its limit ended with {status}: {stderr}")))
                }
            }
        }
        Err(error) => Err(Trouble::from(error)),
    };
    let answer = match ended {
        Ok(()) => value(&mut sandbox, "6*7").await,
        Err(trouble) => Err(trouble),
    };
    match answer {
        Ok(answer) if answer == "42" => Ok(Attempt::Ended),
        Ok(answer) => Err(format!("6*7 is {answer} in a sandbox whose program was ended")),
        Err(Trouble::Over) => match killed(&mut sandbox).await {
            Ok(_) if vmm.is_some_and(|vmm| world.ledger().was_killed(vmm)) => Ok(Attempt::Hit),
            Ok(reason) | Err(reason) => {
                Err(format!("a guest beyond its limit took its sandbox along: {reason}"))
            }
        },
        Err(Trouble::Ending(ending)) => Err(format!("a greedy guest: {ending:?}")),
    }
}
