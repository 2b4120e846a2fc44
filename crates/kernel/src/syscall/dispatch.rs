//! From the trap to the function that serves the call, and back.

use lg_abi::Errno;

use super::{Ctx, row};
use crate::Kernel;
use crate::task::{Call, Stop, Tid};

impl Kernel {
    /// Serves the system call whose number and arguments are in the task's registers.
    pub(crate) fn begin_call(&mut self, tid: Tid) {
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        let regs = &task.context.regs;
        task.call = Some(Call {
            number: regs.rax,
            args: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9],
            ..Call::default()
        });
        self.stats.calls.entry(task.context.regs.rax).or_default().calls += 1;
        self.make_call(tid);
    }

    /// Makes the call that the task is in, for the first time or again.
    pub(crate) fn make_call(&mut self, tid: Tid) {
        let Some(call) = self.tasks.get(&tid).and_then(|task| task.call.as_ref()) else { return };
        let (number, args) = (call.number, call.args);
        let row = row(number);
        let result = match row.and_then(|row| row.handler) {
            Some(handler) => handler(&mut Ctx { kernel: self, tid }, args),
            None => Err(Errno::ENOSYS.into()),
        };
        let value = match result {
            Ok(value) => Some(value),
            Err(Stop::Errno(errno)) => {
                self.stats.calls.entry(number).or_default().errors += 1;
                Some((-i64::from(errno.number())) as u64)
            }
            Err(Stop::NoReturn) => None,
            Err(Stop::Block(wait)) => {
                if let Some(call) = self.tasks.get_mut(&tid).and_then(|task| task.call.as_mut()) {
                    call.retried = true;
                    call.on_signal = wait.on_signal;
                }
                // A signal to be taken ends the wait before it begins: the task stays runnable, and on its
                // way back to user code the signal decides how the call goes on.
                if !wait.uninterruptible && self.has_signal_to_take(tid) {
                    return;
                }
                self.put_to_sleep(tid, wait);
                return;
            }
        };
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        let Some(call) = task.call.take() else { return };
        if let Some(value) = value {
            task.context.regs.rax = value;
        }
        if self.trace.is_some() {
            self.trace_call(tid, row, &call, value);
        }
    }
}
