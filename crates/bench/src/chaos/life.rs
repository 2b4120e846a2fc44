//! The life of an agent: a sandbox from the pool, work whose every answer is known beforehand, and at the end everything that
//! was acknowledged is read back: [`live`].

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::Error;
use fastrand::Rng;
use lg_runtime::pool::{Ask, ClaimError, MakeError, PooledSandbox, SandboxPool};
use lg_runtime::{CallError, EvaluateError, SpawnError, Stats, WaitError};

use super::ledger::{Done, Ending, LifeEnd};

/// A life that is not over by then hangs.
pub(super) const LIFE_LIMIT: Duration = Duration::from_secs(30);
/// How long a claim may wait.
const CLAIM_LIMIT: Duration = Duration::from_secs(10);
/// How many rounds of work a life has.
const ROUNDS: usize = 4;
/// How large a file may be, in bytes.
const FILE_BYTES: std::ops::RangeInclusive<usize> = 1..=20_000;
/// The modulus of the sums that are kept.
const MODULUS: u64 = 1_000_003;

/// Lives one life as `hostname`, with work that `rng` chooses. `claimed` is told the process id of its vmm.
pub(super) async fn live(
    pool: &SandboxPool,
    rng: &mut Rng,
    hostname: &str,
    claimed: impl FnOnce(u32),
) -> LifeEnd {
    let mut work = Work { rng, log: Vec::new(), files: Vec::new(), stage: "claim", read_back: 0 };
    let result = match tokio::time::timeout(LIFE_LIMIT, work.whole(pool, hostname, claimed)).await {
        Ok(result) => result,
        Err(_) => Err(Ending::Hung(format!("{}: nothing for {LIFE_LIMIT:?}", work.stage))),
    };
    LifeEnd { read_back: work.read_back, result }
}

/// Whether a claim failed for want of a fork: its template, or the fork itself, was gone.
pub(super) fn is_not_forked(error: &ClaimError<MakeError>) -> bool {
    let ClaimError::Failed { error: MakeError::Spawn(error), .. } = error else { return false };
    matches!(error, SpawnError::OriginalEnded | SpawnError::ForkDied)
}

/// Waits for the end of a sandbox that is over. Answers what killed its vmm, if it was SIGKILL.
pub(super) async fn killed(sandbox: &mut PooledSandbox) -> Result<String, String> {
    match sandbox.wait().await {
        Err(error @ WaitError::VmmDied(status)) if status.signal() == Some(9) => Ok(error.to_string()),
        Err(error) => Err(format!("{:#}", Error::from(error))),
        Ok(report) => Err(format!("it ended as {:?}", report.outcome)),
    }
}

/// Why work could not go on.
pub(super) enum Trouble {
    /// A call said that the sandbox is over.
    Over,
    /// Something else.
    Ending(Ending),
}

impl Trouble {
    /// That something failed, in words.
    pub(super) fn failed(text: String) -> Self {
        Self::Ending(Ending::Failed(text))
    }
}

impl From<CallError> for Trouble {
    fn from(error: CallError) -> Self {
        match error {
            error if error.is_over() => Self::Over,
            error => Self::failed(format!("{:#}", Error::from(error))),
        }
    }
}

impl From<EvaluateError> for Trouble {
    fn from(error: EvaluateError) -> Self {
        match error {
            EvaluateError::Call(error) => error.into(),
            error => Self::failed(format!("{:#}", Error::from(error))),
        }
    }
}

/// Evaluates a cell that has a value; answers it as text.
pub(super) async fn value(sandbox: &mut PooledSandbox, source: &str) -> Result<String, Trouble> {
    let context = sandbox.context().ok_or(Trouble::failed("no interpreter".to_owned()))?;
    let cell = context.evaluate(source).await?;
    match cell.text() {
        Some(text) => Ok(text.to_owned()),
        None => Err(Trouble::Ending(Ending::Wrong(format!("{source}: {:?}", cell.outcome)))),
    }
}

/// What a life does, and what was acknowledged of it.
struct Work<'r> {
    rng: &'r mut Rng,
    /// Sums that the interpreter has answered, in order.
    log: Vec<u64>,
    /// Files that were written, with their contents.
    files: Vec<(String, Vec<u8>)>,
    stage: &'static str,
    read_back: usize,
}

impl Work<'_> {
    async fn whole(
        &mut self,
        pool: &SandboxPool,
        hostname: &str,
        claimed: impl FnOnce(u32),
    ) -> Result<Done, Ending> {
        let ask = Ask { hostname: Some(hostname.to_owned()), ..Ask::default() };
        let mut sandbox = pool.claim(&ask, CLAIM_LIMIT).await.map_err(|error| {
            let is_not_forked = is_not_forked(&error);
            let text = format!("claim: {:#}", Error::from(error));
            if is_not_forked { Ending::NotForked(text) } else { Ending::Failed(text) }
        })?;
        claimed(sandbox.vmm_pid());
        match self.all_rounds(&mut sandbox, hostname).await {
            Ok(()) => self.end(sandbox).await,
            Err(Trouble::Over) => Err(match killed(&mut sandbox).await {
                Ok(reason) => Ending::VmmKilled(format!("{}: {reason}", CallError::Ended)),
                Err(reason) => Ending::Failed(format!("{}: the sandbox is over, but {reason}", self.stage)),
            }),
            Err(Trouble::Ending(ending)) => Err(ending),
        }
    }

    async fn end(&mut self, sandbox: PooledSandbox) -> Result<Done, Ending> {
        self.stage = "end";
        let report =
            sandbox.end().await.map_err(|error| Ending::Failed(format!("end: {:#}", Error::from(error))))?;
        match report.outcome.failure_message() {
            Some(message) => Err(Ending::Failed(format!("end: {message}"))),
            // A vmm always says what it did, unless it had to be killed.
            None if report.stats == Stats::default() => Ok(Done::Silent),
            None => Ok(Done::Reported),
        }
    }

    async fn all_rounds(&mut self, sandbox: &mut PooledSandbox, hostname: &str) -> Result<(), Trouble> {
        self.stage = "evaluate";
        let mut sum = self.rng.u64(..MODULUS);
        let first = format!("log, total = [], {sum}\nopen('/etc/hostname').read().strip()");
        expect(&first, &format!("'{hostname}'"), value(sandbox, &first).await?)?;
        for round in 0..ROUNDS {
            sum = self.evaluate(sandbox, sum).await?;
            self.write(sandbox, round).await?;
            self.write_inside(sandbox, round).await?;
        }
        self.read_all_back(sandbox).await
    }

    /// One step of a sum that the interpreter keeps.
    async fn evaluate(&mut self, sandbox: &mut PooledSandbox, sum: u64) -> Result<u64, Trouble> {
        self.stage = "evaluate";
        let (factor, summand) = (self.rng.u64(2..1000), self.rng.u64(..MODULUS));
        let next = (sum * factor + summand) % MODULUS;
        let source = format!("total = (total * {factor} + {summand}) % {MODULUS}; log.append(total); total");
        expect(&source, &next.to_string(), value(sandbox, &source).await?)?;
        self.log.push(next);
        Ok(next)
    }

    /// A file that is written from outside, and read inside.
    async fn write(&mut self, sandbox: &mut PooledSandbox, round: usize) -> Result<(), Trouble> {
        self.stage = "write";
        let path = format!("/tmp/note-{round}");
        let mut bytes = vec![0; self.rng.usize(FILE_BYTES)];
        self.rng.fill(&mut bytes);
        sandbox.files().write(&path, &bytes).await?;
        let sum: u64 = bytes.iter().copied().map(u64::from).sum();
        self.files.push((path.clone(), bytes));
        let source = format!("sum(open('{path}', 'rb').read())");
        expect(&source, &sum.to_string(), value(sandbox, &source).await?)
    }

    /// A file that is written inside, and read from outside.
    async fn write_inside(&mut self, sandbox: &mut PooledSandbox, round: usize) -> Result<(), Trouble> {
        self.stage = "read";
        let path = format!("/tmp/own-{round}");
        let (number, times) = (self.rng.u64(..), self.rng.usize(1..500));
        let text = number.to_string().repeat(times);
        let source = format!("open('{path}', 'w').write('{number}' * {times})");
        expect(&source, &text.len().to_string(), value(sandbox, &source).await?)?;
        self.files.push((path.clone(), text.into_bytes()));
        let (path, bytes) = &self.files[self.files.len() - 1];
        is_whole(path, bytes, sandbox).await
    }

    /// Everything that was acknowledged must be there.
    async fn read_all_back(&mut self, sandbox: &mut PooledSandbox) -> Result<(), Trouble> {
        self.stage = "read back";
        for (path, bytes) in &self.files {
            is_whole(path, bytes, sandbox).await?;
            self.read_back += 1;
        }
        let kept = value(sandbox, "' '.join(map(str, log))").await?;
        let log = self.log.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
        if kept != format!("'{log}'") {
            return Err(Trouble::Ending(Ending::Lost(format!("the interpreter kept {kept} of {log}"))));
        }
        self.read_back += self.log.len();
        Ok(())
    }
}

fn expect(source: &str, expected: &str, answer: String) -> Result<(), Trouble> {
    if answer == expected {
        return Ok(());
    }
    Err(Trouble::Ending(Ending::Wrong(format!("{source} is {answer} instead of {expected}"))))
}

/// A file that was written must be there as it was written.
async fn is_whole(path: &str, bytes: &[u8], sandbox: &PooledSandbox) -> Result<(), Trouble> {
    let lost = |what: String| Err(Trouble::Ending(Ending::Lost(format!("{path}: {what}"))));
    match sandbox.files().read(path).await {
        Ok(found) if found == bytes => Ok(()),
        Ok(found) => lost(format!("{} bytes instead of {}, or others", found.len(), bytes.len())),
        Err(error) if error.errno().is_some() => lost(format!("{:#}", Error::from(error))),
        Err(error) => Err(error.into()),
    }
}
