//! ELF programs (elf(5), System V ABI chapter 5). Every field is the guest's and may hold anything.

use std::rc::Rc;

use lg_abi::Errno;
use lg_platform::{PAGE_SIZE, Prot, UserAddr, UserRange};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::mm::{Backing, MemoryManager, Place, UserMemory, Vma, VmaFlags};
use crate::vfs::{FileDescription, Inode};

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_PHDR: u32 = 6;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PAGE: u64 = PAGE_SIZE as u64;

/// Most program headers that are read: Linux reads at most a page of them.
const MAX_HEADERS: u16 = (PAGE_SIZE / size_of::<ProgramHeader>()) as u16;

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FileHeader {
    ident: [u8; 16],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    phoff: u64,
    shoff: u64,
    flags: u32,
    ehsize: u16,
    phentsize: u16,
    phnum: u16,
    shentsize: u16,
    shnum: u16,
    shstrndx: u16,
}

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    paddr: u64,
    filesz: u64,
    memsz: u64,
    align: u64,
}

/// Whether a program has addresses of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ElfKind {
    /// ET_EXEC: it must be loaded where it says.
    Fixed,
    /// ET_DYN: it can be loaded anywhere.
    PositionIndependent,
}

/// A part of the file to be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Address of its first byte, before the load bias.
    pub vaddr: u64,
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// Bytes from the file.
    pub file_len: u64,
    /// Bytes in memory; those behind `file_len` are zero.
    pub mem_len: u64,
    /// What the program may do with it.
    pub prot: Prot,
}

/// What the headers of an ELF file say, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ElfHeader {
    /// Whether it has addresses of its own.
    pub kind: ElfKind,
    /// Its entry point, before the load bias.
    pub entry: u64,
    /// Its segments, ascending and apart from each other.
    pub segments: Vec<Segment>,
    /// The path of its interpreter.
    pub interpreter: Option<Vec<u8>>,
    /// Where its program headers are in memory, before the load bias.
    pub phdr: u64,
    /// How many there are.
    pub phnum: u16,
    /// Largest alignment that a segment asks for.
    pub align: u64,
}

impl ElfHeader {
    /// Reads and checks the headers; `read` reads the file at an offset and returns how many bytes it got.
    ///
    /// Errors: ENOEXEC where it is no x86-64 ELF program or a header contradicts itself; what `read` gives.
    pub fn parse(read: &dyn Fn(u64, &mut [u8]) -> Result<usize, Errno>) -> Result<ElfHeader, Errno> {
        let read_exact = |offset: u64, buf: &mut [u8]| -> Result<(), Errno> {
            let mut done = 0;
            while done < buf.len() {
                let at = offset.checked_add(done as u64).ok_or(Errno::ENOEXEC)?;
                match read(at, &mut buf[done..])? {
                    0 => return Err(Errno::ENOEXEC),
                    got => done += got,
                }
            }
            Ok(())
        };
        let mut bytes = [0; size_of::<FileHeader>()];
        read_exact(0, &mut bytes)?;
        let header = FileHeader::read_from_bytes(&bytes).map_err(|_| Errno::ENOEXEC)?;
        let kind = match header.kind {
            ET_EXEC => ElfKind::Fixed,
            ET_DYN => ElfKind::PositionIndependent,
            _ => return Err(Errno::ENOEXEC),
        };
        // Class 2 is 64 bits, data 1 is little-endian.
        let sound = header.ident.starts_with(b"\x7fELF\x02\x01")
            && header.machine == EM_X86_64
            && usize::from(header.phentsize) == size_of::<ProgramHeader>()
            && (1..=MAX_HEADERS).contains(&header.phnum);
        if !sound {
            return Err(Errno::ENOEXEC);
        }
        let mut table = vec![0; usize::from(header.phnum) * size_of::<ProgramHeader>()];
        read_exact(header.phoff, &mut table)?;
        let mut result = ElfHeader {
            kind,
            entry: header.entry,
            segments: Vec::new(),
            interpreter: None,
            phdr: 0,
            phnum: header.phnum,
            align: PAGE,
        };
        let mut phdr = None;
        for bytes in table.chunks_exact(size_of::<ProgramHeader>()) {
            let program = ProgramHeader::read_from_bytes(bytes).map_err(|_| Errno::ENOEXEC)?;
            match program.kind {
                PT_LOAD if program.memsz > 0 => result.add_segment(&program)?,
                PT_INTERP if result.interpreter.is_none() => {
                    // Linux: at least one character and a NUL, at most PATH_MAX.
                    if !(2..=4096).contains(&program.filesz) {
                        return Err(Errno::ENOEXEC);
                    }
                    let mut path = vec![0; program.filesz as usize];
                    read_exact(program.offset, &mut path)?;
                    if path.pop() != Some(0) {
                        return Err(Errno::ENOEXEC);
                    }
                    path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(path.len()));
                    result.interpreter = Some(path);
                }
                PT_PHDR => phdr = Some(program.vaddr),
                _ => {}
            }
        }
        let table_end = header.phoff.checked_add(table.len() as u64).ok_or(Errno::ENOEXEC)?;
        let holder = result
            .segments
            .iter()
            .find(|s| s.offset <= header.phoff && table_end <= s.offset.saturating_add(s.file_len));
        result.phdr = phdr.or(holder.map(|s| s.vaddr + (header.phoff - s.offset))).unwrap_or(0);
        if result.segments.is_empty() {
            return Err(Errno::ENOEXEC);
        }
        Ok(result)
    }

    fn add_segment(&mut self, program: &ProgramHeader) -> Result<(), Errno> {
        let mut prot = Prot::empty();
        prot.set(Prot::READ, program.flags & 4 != 0);
        prot.set(Prot::WRITE, program.flags & 2 != 0);
        prot.set(Prot::EXEC, program.flags & 1 != 0);
        let range = UserRange::from_len(UserAddr(program.vaddr), program.memsz).ok_or(Errno::ENOEXEC)?;
        let sound = program.filesz <= program.memsz
            && program.vaddr % PAGE == program.offset % PAGE
            && program.offset.checked_add(program.filesz).is_some_and(|end| end <= i64::MAX as u64)
            && range.end.page_ceil().is_some_and(|end| end <= lg_platform::USER_END)
            && self.segments.last().is_none_or(|last| last.vaddr + last.mem_len <= program.vaddr);
        if !sound {
            return Err(Errno::ENOEXEC);
        }
        if program.align.is_power_of_two() && program.align <= 1 << 30 {
            self.align = self.align.max(program.align);
        }
        self.segments.push(Segment {
            vaddr: program.vaddr,
            offset: program.offset,
            file_len: program.filesz,
            mem_len: program.memsz,
            prot,
        });
        Ok(())
    }

    /// Returns the pages from the first segment's start to the last one's end, before the load bias.
    pub fn span(&self) -> UserRange {
        let start = self.segments.first().map_or(0, |segment| segment.vaddr);
        let end = self.segments.last().map_or(0, |segment| segment.vaddr + segment.mem_len);
        // `add_segment` has checked that the end can be rounded up.
        UserRange::new(UserAddr(start).page_floor(), UserAddr(end.next_multiple_of(PAGE)))
    }
}

/// A program in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoadedElf {
    /// What was added to each of its addresses.
    pub bias: u64,
    /// Its entry point.
    pub entry: u64,
    /// Where its program headers are; 0 where they are not in memory.
    pub phdr: u64,
    /// The first page behind its last segment.
    pub end: UserAddr,
}

/// Maps a program. `base` is where a position-independent one goes; `None` lets the memory choose.
///
/// Errors: ENOMEM, ENOEXEC, EINVAL as execve(2).
pub fn load(
    mm: &Rc<std::cell::RefCell<MemoryManager>>,
    header: &ElfHeader,
    inode: &Rc<dyn Inode>,
    description: &Rc<FileDescription>,
    base: Option<UserAddr>,
) -> Result<LoadedElf, Errno> {
    let span = header.span();
    let bias = match header.kind {
        ElfKind::Fixed => 0,
        ElfKind::PositionIndependent => {
            let base = match base {
                Some(base) => base.0,
                None => {
                    // Room for the whole, found by mapping it once.
                    let room = span.len().checked_add(header.align).ok_or(Errno::ENOMEM)?;
                    let at = mm.borrow_mut().map(
                        Place::Anywhere(UserAddr(0)),
                        room,
                        area(Prot::empty(), Backing::Anonymous, 0),
                    )?;
                    let room = UserRange::from_len(at, room.next_multiple_of(PAGE)).ok_or(Errno::ENOMEM)?;
                    mm.borrow_mut().unmap(room)?;
                    at.0.next_multiple_of(header.align)
                }
            };
            base.next_multiple_of(header.align).wrapping_sub(span.start.0)
        }
    };
    let mut mm_mut = mm.borrow_mut();
    for segment in &header.segments {
        let start = bias.wrapping_add(segment.vaddr);
        let page_start = UserAddr(start).page_floor();
        let in_page = start - page_start.0;
        let file_end = start.checked_add(segment.file_len).ok_or(Errno::ENOEXEC)?;
        let mem_end = start.checked_add(segment.mem_len).ok_or(Errno::ENOEXEC)?;
        let file_pages_end = UserAddr(file_end).page_ceil().ok_or(Errno::ENOEXEC)?;
        if segment.file_len > 0 {
            mm_mut.map(
                Place::Fixed(page_start),
                in_page + segment.file_len,
                area(
                    segment.prot,
                    Backing::File { inode: inode.clone(), description: description.clone() },
                    (segment.offset - in_page) / PAGE,
                ),
            )?;
        }
        let bss_start = if segment.file_len > 0 { file_pages_end } else { page_start };
        if mem_end > bss_start.0 {
            mm_mut.map(
                Place::Fixed(bss_start),
                mem_end - bss_start.0,
                area(segment.prot, Backing::Anonymous, 0),
            )?;
        }
    }
    for segment in &header.segments {
        let start = UserAddr(bias.wrapping_add(segment.vaddr)).page_floor();
        if let Some(range) = UserRange::from_len(start, segment.mem_len.next_multiple_of(PAGE)) {
            mm_mut.prefault(range);
        }
    }
    drop(mm_mut);
    // The file's last page goes on behind the segment's end; the program expects zeros there.
    let user = UserMemory::new(mm);
    for segment in header.segments.iter().filter(|s| s.mem_len > s.file_len && s.prot.contains(Prot::WRITE)) {
        let end = bias.wrapping_add(segment.vaddr) + segment.file_len;
        let rest = (PAGE - end % PAGE) % PAGE;
        if segment.file_len > 0 && rest > 0 {
            user.write(end, &vec![0; rest as usize]).map_err(|_| Errno::ENOEXEC)?;
        }
    }
    Ok(LoadedElf {
        bias,
        entry: bias.wrapping_add(header.entry),
        phdr: if header.phdr == 0 { 0 } else { bias.wrapping_add(header.phdr) },
        end: UserAddr(bias.wrapping_add(span.end.0)),
    })
}

fn area(prot: Prot, backing: Backing, offset_pages: u64) -> Vma {
    let nowhere = UserRange::new(UserAddr(0), UserAddr(0));
    Vma { range: nowhere, prot, flags: VmaFlags::empty(), backing, offset_pages }
}
