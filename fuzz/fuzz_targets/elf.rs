//! Programs that a guest executes: any bytes as an ELF file or a script, through the whole of execve(2).

#![no_main]

use lg_kernel::Limits;
use lg_kernel::testing::Sandbox;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut sandbox = Sandbox::new(Limits::with_memory(2048));
    sandbox.execute(bytes);
    // Whatever came of it, others can be started.
    assert!(sandbox.kernel.usage().peak_memory_bytes <= 2048 * lg_kernel::PAGE_BYTES);
});
