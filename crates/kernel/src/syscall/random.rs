//! Randomness: getrandom(2).

use lg_abi::Errno;
use lg_abi::raw::general as linux;
use rustix::rand::{GetRandomFlags, getrandom};

use super::Ctx;
use crate::task::SysResult;

/// Fills `buf` with random bytes from the host.
pub fn fill_random(buf: &mut [u8]) {
    let mut done = 0;
    while done < buf.len() {
        match getrandom(&mut buf[done..], GetRandomFlags::empty()) {
            Ok(got) => done += got,
            Err(rustix::io::Errno::INTR) => {}
            // Linux has had the call since 3.17; without it there is no way to be safe.
            Err(error) => panic!("the host gives no randomness: {error}"),
        }
    }
}

pub(super) fn sys_getrandom(ctx: &mut Ctx<'_>, [buf, len, flags, ..]: [u64; 6]) -> SysResult {
    let known = linux::GRND_NONBLOCK | linux::GRND_RANDOM | linux::GRND_INSECURE;
    if flags & !u64::from(known) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut chunk = [0; 4096];
    let mut done = 0;
    let len = len.min(32 << 20);
    while done < len {
        let part = chunk.len().min((len - done) as usize);
        fill_random(&mut chunk[..part]);
        let written = ctx.write_bytes_partial(buf.wrapping_add(done), &chunk[..part]);
        done += written as u64;
        if written < part {
            break;
        }
    }
    if done == 0 && len > 0 { Err(Errno::EFAULT.into()) } else { Ok(done) }
}
