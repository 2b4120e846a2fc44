//! The vDSO as programs see it: a page of parameters, then a page that is an ELF shared object.
//!
//! The dynamic linker and the C library look the functions up by name and version `LINUX_2.6`, so the image
//! has a symbol table, a hash table (System V ABI, "Hash Table") and version definitions (GNU).

use std::rc::Rc;

use lg_abi::Errno;
use lg_platform::{PAGE_SIZE, Prot, UserAddr, UserRange};
use lg_vdso::{CODE_OFFSET, code, functions};

use crate::mm::{Backing, FrameRef, Frames, MemoryManager, Place, SharedPages, Vma, VmaFlags};
use crate::time::VdsoTime;

/// Builds the two pages, once per sandbox. `None` where the time-stamp counter is no clock or no memory is
/// left.
pub fn build(frames: &Rc<Frames>, time: Option<VdsoTime>) -> Option<Rc<SharedPages>> {
    let time = time?;
    let parameters = frames.alloc().ok()?;
    write_parameters(&parameters, time);
    let image = frames.alloc().ok()?;
    image.write(0, &build_image());
    Some(SharedPages::with_pages([parameters, image]))
}

/// Writes new parameters into the page that all processes share. No guest code may run meanwhile.
pub fn update(pages: &SharedPages, frames: &Rc<Frames>, time: VdsoTime) {
    // The page is there since `build`, so nothing is allocated.
    if let Ok(parameters) = pages.page(frames, 0) {
        write_parameters(&parameters, time);
    }
}

fn write_parameters(page: &FrameRef, time: VdsoTime) {
    let words = [time.base, time.mult, time.realtime_base_ns, 0];
    page.write(0, &words.map(u64::to_le_bytes).concat());
}

/// Maps the vDSO and returns the address of its ELF header (`AT_SYSINFO_EHDR`).
pub fn map(mm: &mut MemoryManager, pages: &Rc<SharedPages>) -> Result<u64, Errno> {
    let nowhere = UserRange::new(UserAddr(0), UserAddr(0));
    let page = PAGE_SIZE as u64;
    let area = |name, prot, offset_pages| Vma {
        range: nowhere,
        prot,
        flags: VmaFlags::KERNEL | VmaFlags::SHARED,
        backing: Backing::Kernel(name, pages.clone()),
        offset_pages,
    };
    let room = mm.map(Place::Anywhere(UserAddr(0)), 2 * page, area("[vvar]", Prot::READ, 0))?;
    let image = UserAddr(room.0 + page);
    mm.map(Place::Fixed(image), page, area("[vdso]", Prot::READ | Prot::EXEC, 1))?;
    Ok(image.0)
}

const VERSION: &str = "LINUX_2.6";
const SONAME: &str = "linux-vdso.so.1";

/// Lays the shared object out: headers, tables, and at [`CODE_OFFSET`] the code.
fn build_image() -> Vec<u8> {
    let functions = functions();
    let mut strings = vec![0u8];
    let mut intern = |text: &str| {
        let at = strings.len() as u32;
        strings.extend(text.as_bytes());
        strings.push(0);
        at
    };
    let soname = intern(SONAME);
    let version = intern(VERSION);
    let names = functions.map(|function| intern(function.name));

    let mut symbols = vec![0u8; 24];
    for (function, name) in functions.iter().zip(names) {
        symbols.extend(name.to_le_bytes());
        symbols.extend([0x12, 0]); // a global function, default visibility
        symbols.extend(1u16.to_le_bytes()); // defined in some section
        symbols.extend(((CODE_OFFSET + function.offset) as u64).to_le_bytes());
        symbols.extend(16u64.to_le_bytes());
    }
    let count = functions.len() as u32 + 1;
    // One bucket that chains all symbols.
    let mut hash: Vec<u32> = vec![1, count, 1, 0];
    hash.extend((1..count).map(|symbol| if symbol + 1 < count { symbol + 1 } else { 0 }));
    let versions: Vec<u16> = std::iter::once(0).chain(functions.map(|_| 2)).collect();
    let mut definitions = Vec::new();
    for (index, flags, name, text, next) in [(1u16, 1u16, soname, SONAME, 28u32), (2, 0, version, VERSION, 0)]
    {
        definitions.extend([1, flags, index, 1].map(u16::to_le_bytes).concat());
        definitions.extend([elf_hash(text), 20, next, name, 0].map(u32::to_le_bytes).concat());
    }

    let mut image = vec![0u8; 64 + 2 * 56];
    let mut place = |bytes: &[u8]| {
        image.resize(image.len().next_multiple_of(8), 0);
        let at = image.len() as u64;
        image.extend(bytes);
        at
    };
    let strings_at = place(&strings);
    let symbols_at = place(&symbols);
    let hash_at = place(&hash.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>());
    let versions_at = place(&versions.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>());
    let definitions_at = place(&definitions);
    let dynamic: Vec<(u64, u64)> = vec![
        (14, u64::from(soname)),       // DT_SONAME
        (4, hash_at),                  // DT_HASH
        (5, strings_at),               // DT_STRTAB
        (6, symbols_at),               // DT_SYMTAB
        (10, strings.len() as u64),    // DT_STRSZ
        (11, 24),                      // DT_SYMENT
        (0x6fff_fffc, definitions_at), // DT_VERDEF
        (0x6fff_fffd, 2),              // DT_VERDEFNUM
        (0x6fff_fff0, versions_at),    // DT_VERSYM
        (0, 0),
    ];
    let dynamic: Vec<u8> =
        dynamic.iter().flat_map(|(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()].concat()).collect();
    let dynamic_at = place(&dynamic);
    debug_assert!(image.len() <= CODE_OFFSET);
    image.resize(CODE_OFFSET, 0);
    image.extend(code());

    let len = image.len() as u64;
    let header = [
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(),
        [3u16, 62].map(u16::to_le_bytes).concat(), // ET_DYN, EM_X86_64
        1u32.to_le_bytes().to_vec(),
        [0u64, 64, 0].map(u64::to_le_bytes).concat(), // entry, program headers, section headers
        0u32.to_le_bytes().to_vec(),
        [64u16, 56, 2, 64, 0, 0].map(u16::to_le_bytes).concat(),
    ]
    .concat();
    let program = |kind: u32, flags: u32, at: u64, len: u64, align: u64| {
        [
            [kind, flags].map(u32::to_le_bytes).concat(),
            [at, at, at, len, len, align].map(u64::to_le_bytes).concat(),
        ]
        .concat()
    };
    let load = program(1, 5, 0, len, PAGE_SIZE as u64);
    let dynamic_header = program(2, 4, dynamic_at, dynamic.len() as u64, 8);
    image[..64].copy_from_slice(&header);
    image[64..120].copy_from_slice(&load);
    image[120..176].copy_from_slice(&dynamic_header);
    image
}

/// The hash function of the System V ABI's symbol table.
fn elf_hash(name: &str) -> u32 {
    name.bytes().fold(0u32, |hash, byte| {
        let hash = (hash << 4).wrapping_add(u32::from(byte));
        let high = hash & 0xf000_0000;
        (hash ^ (high >> 24)) & !high
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_one_page_with_the_code_behind_the_tables() {
        let image = build_image();
        assert!(image.len() <= PAGE_SIZE);
        assert_eq!(&image[CODE_OFFSET..], code());
        assert_eq!(&image[..4], b"\x7fELF");
    }

    #[test]
    fn the_version_hash_is_that_of_the_abi() {
        // The value that linux-vdso.so.1 itself has for this version.
        assert_eq!(elf_hash("LINUX_2.6"), 0x3ae_75f6);
    }
}
