//! The memory of a process, area by area: `smaps` and `smaps_rollup` (proc_pid_smaps(5)).

use std::fmt::Write as _;

use lg_abi::raw::general::{PROT_EXEC, PROT_READ, PROT_WRITE};

use super::pid::map_line;
use crate::vfs::{FsContext, MapFacts};

/// Amounts of memory in KiB, in the order in which they are shown. No page is known to be shared with another process:
/// what an area has it has alone.
#[derive(Clone, Copy, Default)]
struct Amounts {
    rss: u64,
    shared_dirty: u64,
    private_clean: u64,
    private_dirty: u64,
    anonymous: u64,
    locked: u64,
}

impl Amounts {
    fn of(map: &MapFacts) -> Amounts {
        let rss = map.rss_pages.saturating_mul(4);
        let when = |holds: bool| if holds { rss } else { 0 };
        let is_shared_memory = map.shared && map.file.is_none();
        let is_clean = map.file.is_some() && map.prot & PROT_WRITE == 0;
        Amounts {
            rss,
            shared_dirty: when(is_shared_memory),
            private_clean: when(is_clean),
            private_dirty: when(!(is_clean || is_shared_memory)),
            anonymous: when(!map.shared && !is_clean),
            locked: when(map.locked),
        }
    }

    fn add(self, other: Amounts) -> Amounts {
        Amounts {
            rss: self.rss.saturating_add(other.rss),
            shared_dirty: self.shared_dirty.saturating_add(other.shared_dirty),
            private_clean: self.private_clean.saturating_add(other.private_clean),
            private_dirty: self.private_dirty.saturating_add(other.private_dirty),
            anonymous: self.anonymous.saturating_add(other.anonymous),
            locked: self.locked.saturating_add(other.locked),
        }
    }

    fn put(self, text: &mut String) {
        let dirty = self.shared_dirty.saturating_add(self.private_dirty);
        for (name, kib) in [
            ("Rss", self.rss),
            ("Pss", self.rss),
            ("Pss_Dirty", dirty),
            ("Shared_Clean", 0),
            ("Shared_Dirty", self.shared_dirty),
            ("Private_Clean", self.private_clean),
            ("Private_Dirty", self.private_dirty),
            ("Referenced", self.rss),
            ("Anonymous", self.anonymous),
            ("LazyFree", 0),
            ("AnonHugePages", 0),
            ("ShmemPmdMapped", 0),
            ("FilePmdMapped", 0),
            ("Shared_Hugetlb", 0),
            ("Private_Hugetlb", 0),
            ("Swap", 0),
            ("SwapPss", 0),
            ("Locked", self.locked),
        ] {
            put(text, name, kib);
        }
    }
}

/// Adds a line. There are two dozen for each of what may be thousands of areas, so nothing is made on the way.
fn put(text: &mut String, name: &str, kib: u64) {
    let blanks = 15 - name.len().min(15);
    // Nothing fails to be written to a string.
    let _ = writeln!(text, "{name}:{:blanks$}{kib:>8} kB", "");
}

/// Adds the two-letter flags of an area.
fn put_flags(text: &mut String, map: &MapFacts) {
    let all = [
        (map.prot & PROT_READ != 0, "rd "),
        (map.prot & PROT_WRITE != 0, "wr "),
        (map.prot & PROT_EXEC != 0, "ex "),
        (map.shared, "sh "),
        (true, "mr mw me "),
        (map.shared, "ms "),
        (map.label == "[stack]", "gd "),
        (map.locked, "lo "),
    ];
    text.extend(all.into_iter().filter(|(holds, _)| *holds).map(|(_, flag)| flag));
}

/// Returns the text of `smaps`.
pub(super) fn areas(cx: &FsContext<'_>, pid: u32) -> Vec<u8> {
    let mut text = Vec::new();
    let mut facts = String::new();
    for map in cx.procs.maps(pid).unwrap_or_default() {
        text.extend_from_slice(&map_line(cx, &map));
        facts.clear();
        put(&mut facts, "Size", map.end.saturating_sub(map.start) / 1024);
        put(&mut facts, "KernelPageSize", 4);
        put(&mut facts, "MMUPageSize", 4);
        Amounts::of(&map).put(&mut facts);
        facts.push_str("THPeligible:    0\nVmFlags: ");
        put_flags(&mut facts, &map);
        facts.push('\n');
        text.extend_from_slice(facts.as_bytes());
    }
    text
}

/// Returns the text of `smaps_rollup`.
pub(super) fn rollup(cx: &FsContext<'_>, pid: u32) -> String {
    let maps = cx.procs.maps(pid).unwrap_or_default();
    let start = maps.first().map_or(0, |map| map.start);
    let end = maps.last().map_or(0, |map| map.end);
    let total = maps.iter().map(Amounts::of).fold(Amounts::default(), Amounts::add);
    let mut text = format!("{start:08x}-{end:08x} ---p 00000000 00:00 0                          [rollup]\n");
    // What is shown of huge pages in an area is not summed up.
    total.put(&mut text);
    text
}
