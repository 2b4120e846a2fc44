//! Many requests at the same moment, and what becomes of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lg_runtime::ExitStatus;
use lg_runtime::pool::{Ask, PooledSandbox, SandboxPool};
use tokio::task::JoinSet;

use super::plan::{Guard, STAY};
use super::reason;
use super::row::{OverloadRow, Stage};
use crate::ms;
use crate::warm_life::{answer, ended_in_order};

/// Far longer than a sandbox works, so that what hangs is seen.
const LIFE_LIMIT: Duration = Duration::from_secs(20);
/// How long a fresh sandbox may take when the pressure has ended.
const RECOVERY_LIMIT: Duration = Duration::from_secs(5);
/// What a guest fills of its memory, in bytes: half of what a sandbox is taken to cost.
const FILLED_BYTES: usize = 16 << 20;
/// Takes memory until there is none. Address space is promised freely; pages are not there when they are touched.
const TAKE_ALL: &str = "import mmap\nm = mmap.mmap(-1, 1 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n\
                        for at in range(0, 1 << 30, 4096): m[at] = 1";
/// Writes a file, takes it away, and answers the errno that this met.
const WRITE: &str = "import os, tempfile\ndef attempt():\n  path = tempfile.mktemp(dir='/out')\n  try:\n    \
                     with open(path, 'wb') as file: file.write(bytes(65536))\n    return 0\n  \
                     except OSError as error: return error.errno\n  finally:\n    \
                     if os.path.exists(path): os.unlink(path)\nattempt()";

/// What a sandbox does once it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Evaluates something.
    Answer,
    /// Fills memory that it may fill.
    Fill,
    /// Takes memory beyond its limit: the program that does so is ended inside, and the interpreter goes on.
    TakeAll,
    /// Writes to the disk, which is full: its own business, and it goes on.
    WriteInVain,
}

/// Those who ask.
pub(crate) struct Crowd {
    pub(crate) pool: SandboxPool,
    pub(crate) ask: Ask,
    pub(crate) deadline: Duration,
    pub(crate) guard: Guard,
    pub(crate) work: Work,
    pub(crate) alive: AtomicUsize,
    pub(crate) most_alive: AtomicUsize,
}

/// What became of a request.
pub(crate) enum Answer {
    Completed { ms: f64 },
    Refused { reason: String, ms: f64 },
    Failed { stage: Stage, error: String },
}

impl OverloadRow {
    pub(crate) fn record(&mut self, answer: Answer) {
        match answer {
            Answer::Completed { ms } => self.complete(ms),
            Answer::Refused { reason, ms } => self.refuse(reason, ms),
            Answer::Failed { stage, error } => self.fail(stage, error),
        }
    }
}

impl Crowd {
    /// Asks `count` times at once. Answers in the order of the ends.
    pub(crate) async fn ask(self: &Arc<Self>, count: usize) -> Vec<Answer> {
        let started = Instant::now();
        let mut requests = JoinSet::new();
        for _ in 0..count {
            let crowd = self.clone();
            requests.spawn(async move { crowd.one(started).await });
        }
        let mut answers = Vec::with_capacity(count);
        while let Some(answer) = requests.join_next().await {
            // Nobody aborts these tasks.
            let panicked =
                |_| Answer::Failed { stage: Stage::Asking, error: "the request panicked".to_owned() };
            answers.push(answer.unwrap_or_else(panicked));
        }
        answers
    }

    async fn one(&self, started: Instant) -> Answer {
        let failed = |stage, error: String| Answer::Failed { stage, error };
        let limit = self.deadline + LIFE_LIMIT;
        let Ok(claimed) = tokio::time::timeout(limit, self.pool.claim(&self.ask, self.deadline)).await else {
            return failed(Stage::Asking, "neither a sandbox nor an error came".to_owned());
        };
        let mut sandbox = match claimed {
            Ok(sandbox) => sandbox,
            Err(error) => {
                let ms = ms(started.elapsed());
                return match reason::of_claim(&error, self.guard) {
                    Some(reason) => Answer::Refused { reason, ms },
                    None => failed(Stage::Asking, format!("{:#}", anyhow::Error::from(error))),
                };
            }
        };
        self.most_alive.fetch_max(self.alive.fetch_add(1, Relaxed) + 1, Relaxed);
        let lived = tokio::time::timeout(LIFE_LIMIT, async {
            let worked = work(&mut sandbox, self.work).await;
            let answered = started.elapsed();
            tokio::time::sleep(STAY).await;
            let ended = end(sandbox).await;
            match (worked, ended) {
                // How it ended may say why it did not work.
                (Err(error), Err(end)) => bail!("{error:#}; {end:#}"),
                (worked, ended) => worked.and(ended).map(|()| answered),
            }
        });
        let lived = lived.await;
        self.alive.fetch_sub(1, Relaxed);
        match lived {
            Ok(Ok(answered)) => Answer::Completed { ms: ms(answered) },
            Ok(Err(error)) => failed(Stage::Admitted, format!("{error:#}")),
            Err(_) => failed(Stage::Admitted, format!("it hung for {} s", LIFE_LIMIT.as_secs())),
        }
    }

    /// How long it takes until a fresh sandbox has answered, in milliseconds. What is refused is asked for again.
    ///
    /// # Errors
    /// When none answers in time, or not rightly.
    pub(crate) async fn recover(&self) -> Result<f64> {
        let started = Instant::now();
        let mut sandbox = loop {
            match self.pool.claim(&Ask::default(), RECOVERY_LIMIT).await {
                Ok(sandbox) => break sandbox,
                Err(error) => {
                    let is_refusal = reason::of_claim(&error, self.guard).is_some();
                    if !is_refusal || started.elapsed() > RECOVERY_LIMIT {
                        return Err(error.into());
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        };
        answer(&mut sandbox).await?;
        let recovered = started.elapsed();
        if self.work == Work::WriteInVain {
            write(&mut sandbox, 0).await.context("there is room on the disk again")?;
        }
        end(sandbox).await?;
        Ok(ms(recovered))
    }
}

async fn end(sandbox: PooledSandbox) -> Result<()> {
    ended_in_order(&sandbox.end().await.context("destroy")?)
}

async fn work(sandbox: &mut PooledSandbox, work: Work) -> Result<()> {
    match work {
        Work::Answer => {}
        Work::Fill => {
            let source = format!("filled = bytearray(b'\\1') * {FILLED_BYTES}\nlen(filled)");
            expect(sandbox, &source, &FILLED_BYTES.to_string()).await?;
        }
        Work::TakeAll => {
            let output = sandbox.program(["python3", "-c", TAKE_ALL]).output().await.context("python3")?;
            let said = String::from_utf8_lossy(&output.stderr);
            let is_out_of_memory = match output.status {
                ExitStatus::Signaled(9) => true,
                ExitStatus::Exited(1) => said.contains("allocate") || said.contains("Memory"),
                _ => false,
            };
            ensure!(is_out_of_memory, "who takes all memory ended with {}: {said}", output.status);
        }
        Work::WriteInVain => write(sandbox, rustix::io::Errno::NOSPC.raw_os_error()).await?,
    }
    answer(sandbox).await
}

/// Has the guest write a file, which must meet that errno.
async fn write(sandbox: &mut PooledSandbox, errno: i32) -> Result<()> {
    expect(sandbox, WRITE, &errno.to_string()).await
}

async fn expect(sandbox: &mut PooledSandbox, source: &str, value: &str) -> Result<()> {
    let context = sandbox.context().context("the sandbox has no interpreter")?;
    let cell = context.evaluate(source).await.context("evaluate")?;
    match cell.text() {
        Some(text) if text == value => Ok(()),
        Some(text) => bail!("evaluate: {text:?} instead of {value}"),
        None => bail!("evaluate: no value: {:?}", cell.outcome),
    }
}
