//! A runtime in a process of its own, to be killed: [`serve_chaos_runtime`] is one, [`OtherRuntime`] starts and kills it.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use lg_runtime::pool::{PoolConfig, SandboxPool, SandboxPoolConfig};
use lg_runtime::{Launcher, Template, TemplateSpec};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::life::live;
use super::vmm::Stat;

/// The hidden verb of the command line that calls [`serve_chaos_runtime`].
pub const CHAOS_RUNTIME: &str = "chaos-runtime";

/// How many agents live in it at once.
const AGENTS: usize = 2;
/// How long its agents rest between two lives: it is there to be killed, not to load the machine.
const REST: Duration = Duration::from_millis(20);
/// What it says when its first life went well.
const READY: &str = "ready";
/// How long it may take until then.
pub(super) const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long its vmms may be there after it was killed.
pub(super) const GONE_LIMIT: Duration = Duration::from_secs(10);

/// Is a runtime with a template, a pool and agents of its own: what `bench chaos` starts in another process, and kills. Says
/// when it is at work, and ends when standard input does.
///
/// # Errors
/// When its template cannot be made.
pub fn serve_chaos_runtime(launcher: &Launcher) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let template = Template::build(&TemplateSpec::python(), launcher).await?;
        let pool = PoolConfig { floor: AGENTS, ceiling: 2 * AGENTS, ..PoolConfig::default() };
        let config = SandboxPoolConfig { pool, ..SandboxPoolConfig::default() };
        let pool = Arc::new(SandboxPool::new(template.into(), config));
        let first = live(&pool, &mut Rng::with_seed(0), "first", |_| {}).await;
        if let Err(ending) = first.result {
            bail!("the first life did not go well: {ending:?}");
        }
        {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{READY}").and_then(|()| out.flush())?;
        }
        for agent in 0..AGENTS {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut rng = Rng::with_seed(agent as u64);
                loop {
                    live(&pool, &mut rng, "other", |_| {}).await;
                    tokio::time::sleep(REST).await;
                }
            });
        }
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        Ok(())
    })
}

/// Such a process. This process must adopt what it leaves, see [`adopt`]. Dropping this ends all of it.
pub(super) struct OtherRuntime {
    child: Child,
    group: Pid,
    /// Nothing of it is left, and its group may be another's.
    is_gone: bool,
}

/// What was there when it was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Killed {
    /// When it was killed.
    pub(super) at: Instant,
    /// How many vmms it had, templates among them.
    pub(super) vmms: usize,
    /// How long the last of them was there.
    pub(super) gone_after: Duration,
}

/// While this lives, processes that lose their runtime come to this one instead of to init, and can be waited for.
pub(super) struct Adoption(());

/// Adopts orphans from now on.
///
/// # Errors
/// Of PR_SET_CHILD_SUBREAPER(2const).
pub(super) fn adopt() -> Result<Adoption> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(Adoption(()))
}

impl Drop for Adoption {
    fn drop(&mut self) {
        // What could be set can be unset.
        let _ = rustix::process::set_child_subreaper(None);
    }
}

impl OtherRuntime {
    /// Starts it, in a process group of its own, which its vmms are in too.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(command: &[OsString], _: &Adoption) -> Result<Self> {
        let (program, arguments) = command.split_first().context("no command for another runtime")?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("cannot start another runtime")?;
        Ok(Self { group: Pid::from_child(&child), child, is_gone: false })
    }

    /// Takes what it says.
    pub(super) fn words(&mut self) -> Option<Words> {
        self.child.stdout.take().map(|stdout| Words(BufReader::new(stdout)))
    }

    /// Kills it, and waits until all of its vmms are gone. Blocks the thread.
    ///
    /// # Errors
    /// When some are still there after `within`. They are killed then.
    pub(super) fn kill(mut self, within: Duration) -> Result<Killed> {
        let vmms = self.members().len().saturating_sub(1);
        let at = Instant::now();
        self.child.kill()?;
        self.child.wait()?;
        let are_reaped = self.reap(within)?;
        let left = self.members().len();
        ensure!(are_reaped, "{left} of {vmms} vmms are still there {within:?} after their runtime");
        ensure!(left == 0, "{left} processes of a killed runtime were adopted by nobody");
        self.is_gone = true;
        Ok(Killed { at, vmms, gone_after: at.elapsed() })
    }

    /// All processes of its group.
    fn members(&self) -> Vec<Stat> {
        let group = self.group.as_raw_nonzero().get().cast_unsigned();
        Stat::all().into_iter().filter(|stat| stat.group == group).collect()
    }

    /// Reaps what has ended of its group, until nothing is left of it or so much time has passed; says which.
    fn reap(&self, within: Duration) -> Result<bool> {
        let started = Instant::now();
        loop {
            match waitid(WaitId::Pgid(Some(self.group)), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) if started.elapsed() >= within => return Ok(false),
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Err(rustix::io::Errno::CHILD) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for OtherRuntime {
    fn drop(&mut self) {
        if !self.is_gone {
            // All of it may have ended by itself.
            let _ = kill_process_group(self.group, Signal::KILL);
            let _ = self.child.wait();
            let _ = self.reap(GONE_LIMIT);
        }
    }
}

/// What a runtime says.
pub(super) struct Words(BufReader<std::process::ChildStdout>);

impl Words {
    /// Blocks the thread until it says that it is at work.
    ///
    /// # Errors
    /// When it ends before.
    pub(super) fn wait_ready(mut self) -> Result<()> {
        let mut line = String::new();
        self.0.read_line(&mut line).context("cannot hear another runtime")?;
        ensure!(line.trim_end() == READY, "another runtime ended before it was at work");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<OsString> {
        ["sh", "-c", script].map(OsString::from).to_vec()
    }

    // One test: orphans come to the whole process.
    #[test]
    fn what_a_killed_runtime_leaves_is_counted_and_nothing_stays() {
        let adoption = adopt().unwrap();
        let mut runtime =
            OtherRuntime::start(&shell("sleep 0.2 & sleep 0.3 & echo ready; wait"), &adoption).unwrap();
        runtime.words().unwrap().wait_ready().unwrap();
        let killed = runtime.kill(GONE_LIMIT).unwrap();
        // Those two end by themselves, as vmms do.
        assert_eq!(killed.vmms, 2);
        assert!(killed.gone_after >= Duration::from_millis(50), "{killed:?}");
        // Those that do not are a failure, and killed.
        let mut runtime = OtherRuntime::start(&shell("sleep 60 & echo ready; wait"), &adoption).unwrap();
        let group = runtime.group.as_raw_nonzero().get().cast_unsigned();
        runtime.words().unwrap().wait_ready().unwrap();
        let error = runtime.kill(Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().starts_with("1 of 1 vmms are still there"), "{error:#}");
        assert!(!Stat::all().iter().any(|stat| stat.group == group));
        // One that ends at once says nothing.
        let mut runtime = OtherRuntime::start(&shell("exit 1"), &adoption).unwrap();
        assert!(runtime.words().unwrap().wait_ready().is_err());
    }
}
