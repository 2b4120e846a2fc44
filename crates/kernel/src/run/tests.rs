//! What becomes of a sandbox whose platform fails.

use lg_abi::raw::general::*;
use lg_platform::{Context, Trap};

use super::*;
use crate::Limits;
use crate::testing::{FRAMES, Nobody, Sandbox};

/// Guest code that makes a system call.
fn call(number: u32, args: [u64; 2]) -> impl FnMut(&mut Context) -> Trap {
    move |context| {
        let regs = &mut context.regs;
        (regs.rax, regs.rdi, regs.rsi) = (number.into(), args[0], args[1]);
        Trap::Syscall
    }
}

#[test]
fn a_task_whose_state_is_lost_ends_the_sandbox_before_guest_code_runs_again() {
    const ARCH_GET_FS: u64 = 0x1003;
    for (number, args) in [
        (__NR_fork, [0, 0]),
        (__NR_rt_sigreturn, [0, 0]),
        (__NR_arch_prctl, [ARCH_GET_FS, 0]),
        (__NR_exit_group, [0, 0]),
    ] {
        let mut sandbox = Sandbox::new(Limits::with_memory(FRAMES));
        let is_failing = sandbox.is_failing.clone();
        let mut make_call = call(number, args);
        let mut script = sandbox.script.borrow_mut();
        script.push_back(Box::new(move |context| {
            is_failing.set(true);
            make_call(context)
        }));
        script.push_back(Box::new(|_| panic!("guest code runs on")));
        drop(script);
        let end = sandbox.kernel.run(&mut Nobody);
        assert!(matches!(end, Err(KernelError::Platform(PlatformError::Host { .. }))), "{number}: {end:?}");
    }
}
