//! The terminal that this process was started on, while it shows one of a sandbox.
//!
//! ```text
//!   keys --> host terminal, raw --> this process --> terminal of the sandbox --> program
//!   screen <-- host terminal <----- this process <-- terminal of the sandbox <---- program
//! ```
//!
//! In raw mode no key is a signal here: Ctrl-C and Ctrl-Z are bytes, and what they mean is seen to in the sandbox.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use lg_control::Terminal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How many bytes of keys are taken at once.
const KEYS_BYTES: usize = 4096;

/// A terminal of the host in raw mode. Dropping it gives the terminal its settings back.
pub(crate) struct HostTerminal {
    keys: AsyncFd<OwnedFd>,
    settings: Termios,
    resized: Signal,
    continued: Signal,
    is_open: bool,
}

/// What came from the terminal.
#[derive(Debug)]
pub(crate) enum Input {
    /// Keys.
    Keys(Vec<u8>),
    /// It has this size now.
    Resized(Terminal),
    /// It is gone.
    HungUp,
}

/// Checks that standard input is a terminal.
///
/// # Errors
/// When it is none.
pub(crate) fn check() -> Result<()> {
    if !isatty(std::io::stdin()) {
        bail!("--tty needs a terminal as standard input: leave it out, or run this in a terminal");
    }
    Ok(())
}

impl HostTerminal {
    /// Puts standard input's terminal into raw mode. Needs a tokio context with I/O.
    ///
    /// # Errors
    /// When standard input is no terminal.
    pub(crate) fn enter() -> Result<Self> {
        check()?;
        let fd = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).context("cannot use the terminal")?;
        let settings = tcgetattr(&fd).context("cannot read the settings of the terminal")?;
        // Its successor is unsafe, for types that could close or change their descriptor; an OwnedFd does not.
        #[expect(deprecated, reason = "the same without unsafe")]
        let keys = AsyncFd::with_interest(fd, Interest::READABLE).context("cannot wait for keys")?;
        let terminal = Self {
            keys,
            settings,
            resized: signal(SignalKind::window_change()).context("cannot listen to signals")?,
            continued: signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))
                .context("cannot listen to signals")?,
            is_open: true,
        };
        terminal.make_raw()?;
        Ok(terminal)
    }

    fn make_raw(&self) -> Result<()> {
        let mut raw = self.settings.clone();
        raw.make_raw();
        tcsetattr(&self.keys, OptionalActions::Now, &raw).context("cannot set the terminal")
    }

    /// The size of the terminal.
    pub(crate) fn size(&self) -> Terminal {
        match tcgetwinsize(&self.keys) {
            Ok(size) => Terminal { rows: size.ws_row, columns: size.ws_col },
            Err(_) => Terminal::default(),
        }
    }

    /// Waits for keys or another size; after the end for ever. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Input> {
        tokio::select! {
            _ = self.resized.recv() => Ok(Input::Resized(self.size())),
            _ = self.continued.recv() => {
                // Whoever had the terminal in between has set it to their liking.
                self.make_raw()?;
                Ok(Input::Resized(self.size()))
            }
            input = read_keys(&self.keys), if self.is_open => {
                if let Some(keys) = input? {
                    return Ok(Input::Keys(keys));
                }
                self.is_open = false;
                Ok(Input::HungUp)
            }
        }
    }

    /// Shows what a program wrote.
    ///
    /// # Errors
    /// When standard output is gone.
    pub(crate) fn show(&self, bytes: &[u8]) -> std::io::Result<()> {
        let mut screen = std::io::stdout().lock();
        screen.write_all(bytes)?;
        screen.flush()
    }
}

impl Drop for HostTerminal {
    fn drop(&mut self) {
        // One that is gone has no settings.
        let _ = tcsetattr(&self.keys, OptionalActions::Drain, &self.settings);
    }
}

/// Waits for keys; `None` when the terminal is gone. The descriptor is shared with others, so it stays one that blocks,
/// and is read only where poll(2) says that there is something. Cancel safe.
async fn read_keys(keys: &AsyncFd<OwnedFd>) -> Result<Option<Vec<u8>>> {
    loop {
        let mut guard = keys.readable().await.context("cannot wait for keys")?;
        let mut fds = [PollFd::new(keys.get_ref(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut fds, Some(&now)).context("cannot wait for keys")? == 0 {
            guard.clear_ready();
            continue;
        }
        let mut bytes = vec![0; KEYS_BYTES];
        return match rustix::io::read(keys.as_fd(), &mut bytes) {
            Ok(0) | Err(rustix::io::Errno::IO) => Ok(None),
            Ok(count) => {
                bytes.truncate(count);
                Ok(Some(bytes))
            }
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => Err(error).context("cannot read from the terminal"),
        };
    }
}
