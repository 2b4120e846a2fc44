//! A second thread that runs the vCPU while the first looks into the mailbox.
//!
//! It touches nothing but the descriptor and the words below, allocates nothing and holds no lock, so the process may
//! be forked at any time; the fork has no such thread.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::alarm::{self, Kick};

const IDLE: u32 = 0;
const GO: u32 = 1;
const RUNNING: u32 = 2;
const BACK: u32 = 3;
const QUIT: u32 = 4;

/// How long the thread looks out for the next run before it sleeps.
const AWAKE: Duration = Duration::from_micros(50);
/// Rounds of waiting for the thread before the processor is offered to it.
const PATIENCE: u32 = 2000;
/// It calls ioctl(2) and little else.
const STACK_BYTES: usize = 64 << 10;

/// `_IO(KVMIO, 0x80)`.
const KVM_RUN: libc::c_ulong = 0xae80;

#[derive(Default)]
struct Shared {
    stage: AtomicU32,
    /// The errno of the last KVM_RUN, or 0.
    errno: AtomicI32,
    tid: AtomicI32,
}

/// The thread.
pub struct Runner {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    kick: Option<Kick>,
    process: u32,
}

/// One KVM_RUN on the calling thread. Returns the errno, or 0.
pub fn kvm_run(vcpu: RawFd) -> i32 {
    // SAFETY: the descriptor is a vCPU's, whose owner sees to it that nobody looks at its kvm_run meanwhile.
    match unsafe { libc::ioctl(vcpu, KVM_RUN, 0) } {
        0 => 0,
        _ => io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO),
    }
}

impl Runner {
    /// Starts the thread. It inherits the signal mask.
    ///
    /// # Safety
    ///
    /// `vcpu` must be the descriptor of a vCPU that stays open until the runner is dropped.
    pub unsafe fn start(vcpu: RawFd) -> io::Result<Runner> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        // Without a name: to give it one takes a system call that nothing else needs.
        let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
        let thread = builder.spawn(move || work(&theirs, vcpu))?;
        // What a thread does before its own code may take locks.
        while shared.tid.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        let tid = shared.tid.load(Ordering::Acquire);
        let mut runner = Runner { shared, thread: Some(thread), kick: None, process: std::process::id() };
        runner.kick = Some(Kick::new(tid)?);
        Ok(runner)
    }

    /// Lets the thread run the vCPU once.
    pub fn go(&self) {
        self.shared.stage.store(GO, Ordering::SeqCst);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// The errno of the run, or 0, if it is over.
    pub fn is_back(&self) -> Option<i32> {
        if self.shared.stage.load(Ordering::Acquire) != BACK {
            return None;
        }
        self.shared.stage.store(IDLE, Ordering::Relaxed);
        Some(self.shared.errno.load(Ordering::Relaxed))
    }

    /// Takes the run back if the thread has not begun it.
    pub fn withdraw(&self) -> bool {
        self.shared.stage.compare_exchange(GO, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Sends the thread the signal that ends a run.
    pub fn kick(&self) {
        // The thread blocks the signal outside of KVM_RUN.
        if let Some(kick) = &self.kick {
            kick.send();
        }
    }

    /// Waits for the end of the run.
    pub fn wait(&self) -> i32 {
        loop {
            if let Some(errno) = self.wait_for(PATIENCE) {
                return errno;
            }
            std::thread::yield_now();
        }
    }

    /// Waits for the end of the run, which is soon, and sees to it if it is not.
    pub fn wait_or_kick(&self) -> i32 {
        self.wait_for(PATIENCE).unwrap_or_else(|| {
            self.kick();
            self.wait()
        })
    }

    fn wait_for(&self, rounds: u32) -> Option<i32> {
        (0..rounds).find_map(|_| {
            std::hint::spin_loop();
            self.is_back()
        })
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        if self.process != std::process::id() {
            // A fork: the thread is not here.
            std::mem::forget(thread);
            return;
        }
        if self.shared.stage.load(Ordering::Acquire) == RUNNING && !self.withdraw() {
            self.kick();
            self.wait();
        }
        self.shared.stage.store(QUIT, Ordering::SeqCst);
        thread.thread().unpark();
        let _ = thread.join();
        if let Some(kick) = self.kick.take() {
            kick.delete();
        }
    }
}

fn work(shared: &Shared, vcpu: RawFd) {
    shared.tid.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
    loop {
        let start = Instant::now();
        let mut rounds = 0u32;
        loop {
            match shared.stage.load(Ordering::Acquire) {
                GO => break,
                QUIT => return,
                _ => {}
            }
            rounds = rounds.wrapping_add(1);
            match rounds.is_multiple_of(64) && start.elapsed() > AWAKE {
                true => std::thread::park(),
                false => std::hint::spin_loop(),
            }
        }
        if shared.stage.compare_exchange(GO, RUNNING, Ordering::AcqRel, Ordering::Acquire).is_err() {
            continue;
        }
        let errno = kvm_run(vcpu);
        if errno == libc::EINTR {
            alarm::consume_here();
        }
        shared.errno.store(errno, Ordering::Relaxed);
        // Unless it is to quit.
        let _ = shared.stage.compare_exchange(RUNNING, BACK, Ordering::Release, Ordering::Relaxed);
    }
}
