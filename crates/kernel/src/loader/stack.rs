//! The initial stack of a program (System V ABI, section 3.4.1).
//!
//! ```text
//!   top      8 zero bytes
//!            path of the program, environment and argument strings
//!            "x86_64", 16 random bytes
//!            auxiliary vector, ending with AT_NULL
//!            pointers to the environment strings, NULL
//!            pointers to the argument strings, NULL
//!   rsp ->   number of arguments                              16-byte aligned
//! ```

use lg_abi::raw::auxvec;
use lg_platform::{PAGE_SIZE, UserAddr, UserRange};

use super::{ElfHeader, LoadedElf};
use crate::task::Credentials;

/// What a program finds on its stack.
pub struct StackImage {
    /// The stack pointer.
    pub rsp: u64,
    /// The bytes from `rsp` to the top.
    pub bytes: Vec<u8>,
    /// Where the argument strings are.
    pub arguments: UserRange,
    /// Where the environment strings are.
    pub environment: UserRange,
    /// The auxiliary vector.
    pub auxv: Vec<u8>,
}

/// What the auxiliary vector says of the program (getauxval(3)).
pub struct AuxFacts<'a> {
    /// The program's headers.
    pub header: &'a ElfHeader,
    /// Where it is.
    pub program: LoadedElf,
    /// Where its interpreter is; 0 without one.
    pub interpreter_base: u64,
    /// Where the vDSO is; 0 without one.
    pub vdso: u64,
    /// Who it runs as.
    pub creds: &'a Credentials,
    /// Random bytes for its stack protector and pointer mangling.
    pub random: [u8; 16],
    /// `AT_HWCAP`: EDX of CPUID leaf 1.
    pub hwcap: u64,
    /// `AT_MINSIGSTKSZ`: what a signal frame may need.
    pub min_sigstack: u64,
}

/// Builds the stack that ends at `top`.
pub fn build_stack(
    top: UserAddr,
    path: &[u8],
    argv: &[Vec<u8>],
    envp: &[Vec<u8>],
    facts: &AuxFacts<'_>,
) -> StackImage {
    // Strings, written from the top downwards.
    let mut strings = Strings { top: top.0, low: top.0 - 8, bytes: vec![0; 8] };
    let exec_path = strings.push(path);
    let env_end = strings.low;
    let mut env_at: Vec<u64> = envp.iter().rev().map(|string| strings.push(string)).collect();
    env_at.reverse();
    let env_start = strings.low;
    let mut arg_at: Vec<u64> = argv.iter().rev().map(|string| strings.push(string)).collect();
    arg_at.reverse();
    let arg_start = strings.low;
    let platform = strings.push(b"x86_64");
    let random = strings.push_raw(&facts.random);

    let creds = facts.creds;
    let auxv: [(u32, u64); 21] = [
        (auxvec::AT_SYSINFO_EHDR, facts.vdso),
        (auxvec::AT_HWCAP, facts.hwcap),
        (auxvec::AT_PAGESZ, PAGE_SIZE as u64),
        (auxvec::AT_CLKTCK, 100),
        (auxvec::AT_PHDR, facts.program.phdr),
        (auxvec::AT_PHENT, 56),
        (auxvec::AT_PHNUM, u64::from(facts.header.phnum)),
        (auxvec::AT_BASE, facts.interpreter_base),
        (auxvec::AT_FLAGS, 0),
        (auxvec::AT_ENTRY, facts.program.entry),
        (auxvec::AT_UID, u64::from(creds.uid)),
        (auxvec::AT_EUID, u64::from(creds.euid)),
        (auxvec::AT_GID, u64::from(creds.gid)),
        (auxvec::AT_EGID, u64::from(creds.egid)),
        (auxvec::AT_SECURE, u64::from(creds.uid != creds.euid || creds.gid != creds.egid)),
        (auxvec::AT_RANDOM, random),
        // AT_HWCAP2, bit 1: RDFSBASE and its like can be used.
        (auxvec::AT_HWCAP2, 2),
        (auxvec::AT_MINSIGSTKSZ, facts.min_sigstack),
        (auxvec::AT_EXECFN, exec_path),
        (auxvec::AT_PLATFORM, platform),
        (auxvec::AT_NULL, 0),
    ];
    let mut words = vec![argv.len() as u64];
    words.extend(&arg_at);
    words.push(0);
    words.extend(&env_at);
    words.push(0);
    let auxv_at = words.len();
    for (key, value) in auxv {
        if key == auxvec::AT_SYSINFO_EHDR && value == 0 {
            continue;
        }
        words.extend([u64::from(key), value]);
    }
    let auxv = words[auxv_at..].iter().flat_map(|word| word.to_le_bytes()).collect();
    let rsp = (strings.low - 8 * words.len() as u64) & !15;
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.resize((strings.low - rsp) as usize, 0);
    bytes.extend(strings.bytes.iter().rev());
    debug_assert_eq!(rsp + bytes.len() as u64, top.0);
    StackImage {
        rsp,
        bytes,
        arguments: UserRange::new(UserAddr(arg_start), UserAddr(env_start)),
        environment: UserRange::new(UserAddr(env_start), UserAddr(env_end)),
        auxv,
    }
}

/// Returns how many bytes the stack of such a program has at most: for the limit of execve(2).
pub fn stack_bytes(path: &[u8], argv: &[Vec<u8>], envp: &[Vec<u8>]) -> u64 {
    let strings: usize = argv.iter().chain(envp).map(|string| string.len() + 1 + 8).sum();
    (strings + path.len() + PAGE_SIZE) as u64
}

/// Strings that grow downwards; `bytes` has them in reverse.
struct Strings {
    top: u64,
    low: u64,
    bytes: Vec<u8>,
}

impl Strings {
    fn push(&mut self, string: &[u8]) -> u64 {
        self.bytes.push(0);
        self.low -= 1;
        self.push_raw(string)
    }

    fn push_raw(&mut self, bytes: &[u8]) -> u64 {
        self.bytes.extend(bytes.iter().rev());
        self.low -= bytes.len() as u64;
        debug_assert_eq!(self.top - self.low, self.bytes.len() as u64);
        self.low
    }
}
