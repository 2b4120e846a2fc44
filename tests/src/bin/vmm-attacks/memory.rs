//! Sealed memory, which all forks of a template share: what a fork does to its mappings of it must reach nobody else.

use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::FileExt;

use crate::captive::{Answer, Captive};
use crate::{Attack, Verdict, must_fail, process};

const PAGE: u64 = 4096;
const DATA: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
/// `MADV_POPULATE_WRITE`.
const POPULATE_WRITE: u64 = 23;

/// All attacks of the group.
pub fn attacks() -> Vec<Attack> {
    let fails = |name: &str, make: fn(&Captive, u64, u64) -> Answer| {
        Attack::new(name, move |captive| {
            each_mapping(captive, |at, len| must_fail(make(captive, at, len)).map(drop))
        })
    };
    vec![
        Attack::new("no-descriptor-of-it", |captive| {
            let all = captive.descriptors();
            match all.iter().find(|(_, what)| what.starts_with("/memfd:")) {
                Some((fd, what)) => Err(format!("descriptor {fd} is {what}")),
                None => Ok(format!("{} descriptors", all.len())),
            }
        }),
        fails("removed", |captive, at, len| {
            captive.call(libc::SYS_madvise, &[at, len, libc::MADV_REMOVE as u64])
        }),
        fails("poisoned", |captive, at, _| {
            captive.call(libc::SYS_madvise, &[at, PAGE, libc::MADV_HWPOISON as u64])
        }),
        fails("mapped-again", |captive, at, len| {
            captive.call(libc::SYS_mremap, &[at, 0, len, libc::MREMAP_MAYMOVE as u64])
        }),
        fails("opened-anew", |captive, at, len| {
            let how = [libc::O_RDWR as u64, 0, 0].map(u64::to_ne_bytes).concat();
            let path = format!("/proc/self/map_files/{at:x}-{:x}\0", at + len);
            let at = captive.put(&[&how, path.as_bytes()].concat());
            captive.call(libc::SYS_openat2, &[libc::AT_FDCWD as u64, at + 24, at, 24])
        }),
        Attack::new("written", |captive| each_mapping(captive, |at, len| write(captive, at, len))),
        Attack::new("given-back", |captive| {
            each_mapping(captive, |at, len| {
                done(captive, libc::SYS_madvise, &[at, len, libc::MADV_DONTNEED as u64])
            })
        }),
        Attack::new("unmapped", |captive| {
            each_mapping(captive, |at, len| done(captive, libc::SYS_munmap, &[at, len]))
        }),
    ]
}

/// Does something to each mapping; then the template must see what it saw before.
fn each_mapping(captive: &Captive, make: impl Fn(u64, u64) -> Result<(), String>) -> Verdict {
    let mappings = captive.memory_files();
    if mappings.is_empty() {
        return Err("there is no memory that it shares with its template".to_owned());
    }
    let before = seen_by_template(&mappings);
    for (at, len) in &mappings {
        make(*at, *len).map_err(|what| format!("{len} bytes at {at:#x}: {what}"))?;
    }
    if seen_by_template(&mappings) == before {
        Ok(format!("{} mappings", mappings.len()))
    } else {
        Err("the template's memory has changed".to_owned())
    }
}

/// A sum over what the template has at these places.
fn seen_by_template(mappings: &[(u64, u64)]) -> u64 {
    let memory = File::open(format!("/proc/{}/mem", process("TEMPLATE"))).expect("it is there");
    let mut sum = DefaultHasher::new();
    for (at, len) in mappings {
        let mut bytes = vec![0; *len as usize];
        memory.read_exact_at(&mut bytes, *at).expect("a fork has its template's mappings");
        sum.write(&bytes);
    }
    sum.finish()
}

/// Writes over it all, which is the fork's own affair: so it must be possible.
fn write(captive: &Captive, at: u64, len: u64) -> Result<(), String> {
    done(captive, libc::SYS_mprotect, &[at, len, DATA])?;
    done(captive, libc::SYS_madvise, &[at, len, POPULATE_WRITE])?;
    // The host's kernel writes as the fork does.
    done(captive, libc::SYS_clock_gettime, &[libc::CLOCK_MONOTONIC as u64, at])
}

fn done(captive: &Captive, number: i64, arguments: &[u64]) -> Result<(), String> {
    match captive.call(number, arguments) {
        Ok(0) => Ok(()),
        other => Err(format!("call {number} answered {other:?}")),
    }
}
