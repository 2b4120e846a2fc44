//! From a file to a program in memory: ELF, `#!` scripts, the initial stack.

mod elf;
mod script;
mod stack;

pub use elf::{ElfHeader, ElfKind, LoadedElf, load};
pub use script::{HEAD_LEN, parse_script};
pub use stack::{AuxFacts, build_stack, stack_bytes};
