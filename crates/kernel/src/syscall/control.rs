//! Control messages (cmsg(3)): open files and credentials that go along with data.

use std::rc::Rc;

use lg_abi::raw::general::{CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN, RLIMIT_NOFILE};
use lg_abi::raw::net::{SO_PASSCRED, SOL_SOCKET};
use lg_abi::zerocopy::{FromBytes, IntoBytes};
use lg_abi::{CmsgHdr, Errno, Ucred};

use super::Ctx;
use super::fd::install;
use super::packet::put_fields;
use crate::net::{Incoming, Outgoing, Rights, SOL_NETLINK, Socket};
use crate::vfs::FileDescription;

/// Types of control messages (unix(7)).
const SCM_RIGHTS: u32 = 1;
const SCM_CREDENTIALS: u32 = 2;
/// A control message of netlink(7), and the option that asks for it.
const NETLINK_PKTINFO: u32 = 3;
/// Most open files of one message (SCM_MAX_FD).
const MAX_FILES: usize = 253;
/// Most bytes of control messages (`/proc/sys/net/core/optmem_max`).
const MAX_CONTROL: u64 = 131_072;
const HEADER: usize = size_of::<CmsgHdr>();

/// A control message that was copied in.
pub(super) struct ControlMessage {
    pub level: u32,
    pub kind: u32,
    pub data: Vec<u8>,
}

/// Copies control messages in.
///
/// Errors: EINVAL for lengths that can not be; ENOBUFS, EFAULT.
pub(super) fn read_messages(ctx: &Ctx<'_>, addr: u64, len: u64) -> Result<Vec<ControlMessage>, Errno> {
    let mut messages = Vec::new();
    if addr == 0 || len == 0 {
        return Ok(messages);
    }
    if len > MAX_CONTROL {
        return Err(Errno::ENOBUFS);
    }
    let mut bytes = vec![0; len as usize];
    ctx.read_bytes(addr, &mut bytes)?;
    let mut rest = bytes.as_slice();
    while let Ok((header, _)) = CmsgHdr::read_from_prefix(rest) {
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        let data = rest.get(HEADER..len).ok_or(Errno::EINVAL)?.to_vec();
        messages.push(ControlMessage { level: header.level, kind: header.kind, data });
        rest = rest.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(messages)
}

/// Reads the control messages of something that is sent through a unix socket.
///
/// Errors: EINVAL for lengths or types that can not be; EBADF; EPERM for the credentials of others; ETOOMANYREFS
/// when more files are on their way than RLIMIT_NOFILE; ENOBUFS, EFAULT.
pub(super) fn read_control(ctx: &Ctx<'_>, addr: u64, len: u64, outgoing: &mut Outgoing) -> Result<(), Errno> {
    let mut files = Vec::new();
    for message in read_messages(ctx, addr, len)?.iter().filter(|message| message.level == SOL_SOCKET) {
        match message.kind {
            SCM_RIGHTS => read_files(ctx, &message.data, &mut files)?,
            SCM_CREDENTIALS => outgoing.creds = read_credentials(ctx, &message.data)?,
            _ => return Err(Errno::EINVAL),
        }
    }
    if files.is_empty() {
        return Ok(());
    }
    let fs = ctx.fs();
    let net = fs.vfs.net();
    if net.count_in_flight() as u64 > ctx.rlimit(RLIMIT_NOFILE).cur {
        return Err(Errno::ETOOMANYREFS);
    }
    outgoing.rights = Rights::new(net, files);
    Ok(())
}

fn read_files(ctx: &Ctx<'_>, data: &[u8], files: &mut Vec<Rc<FileDescription>>) -> Result<(), Errno> {
    if files.len() + data.len() / 4 > MAX_FILES {
        return Err(Errno::EINVAL);
    }
    for fd in data.chunks_exact(4) {
        let fd = u32::read_from_bytes(fd).map_err(|_| Errno::EINVAL)?;
        files.push(ctx.fd(u64::from(fd))?);
    }
    Ok(())
}

/// Reads credentials that the caller claims to have.
fn read_credentials(ctx: &Ctx<'_>, data: &[u8]) -> Result<Ucred, Errno> {
    let claimed = Ucred::read_from_bytes(data).map_err(|_| Errno::EINVAL)?;
    let task = ctx.task();
    let creds = &task.creds;
    let is_own_pid = claimed.pid == task.tgid.0 || creds.has_capability(CAP_SYS_ADMIN);
    let is_own_uid = [creds.uid, creds.euid, creds.suid].contains(&claimed.uid);
    let is_own_gid = [creds.gid, creds.egid, creds.sgid].contains(&claimed.gid);
    if is_own_pid
        && (is_own_uid || creds.has_capability(CAP_SETUID))
        && (is_own_gid || creds.has_capability(CAP_SETGID))
    {
        return Ok(claimed);
    }
    Err(Errno::EPERM)
}

/// Where control messages are written.
pub(super) struct ControlWriter {
    start: u64,
    len: u64,
    used: u64,
    truncated: bool,
}

impl ControlWriter {
    /// Returns a writer to `len` bytes.
    pub fn new(addr: u64, len: u64) -> ControlWriter {
        ControlWriter { start: addr, len: if addr == 0 { 0 } else { len }, used: 0, truncated: false }
    }

    /// Says whether something did not fit.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// Returns how many bytes were written.
    pub fn written(&self) -> u64 {
        self.used
    }

    /// Returns how many bytes of data the next message can have.
    fn room(&self) -> usize {
        usize::try_from(self.len - self.used).unwrap_or(usize::MAX).saturating_sub(HEADER)
    }

    /// Writes a message, or as much of it as there is room for.
    pub fn put(&mut self, ctx: &Ctx<'_>, (level, kind): (u32, u32), data: &[u8]) -> Result<(), Errno> {
        if self.len - self.used < HEADER as u64 {
            self.truncated = true;
            return Ok(());
        }
        let len = data.len().min(self.room());
        self.truncated |= len < data.len();
        let header = CmsgHdr { len: (HEADER + len) as u64, level, kind };
        let at = self.start.wrapping_add(self.used);
        ctx.write_bytes(at, &[header.as_bytes(), &data[..len]].concat())?;
        let space = (HEADER + len).next_multiple_of(8) as u64;
        self.used += space.min(self.len - self.used);
        Ok(())
    }
}

/// Hands over what came along: the sender's credentials where the socket wants them, and open files as descriptors of
/// the caller. What there is no room for is lost.
pub(super) fn deliver(
    ctx: &mut Ctx<'_>,
    socket: &Socket,
    incoming: Incoming,
    control: &mut ControlWriter,
    cloexec: u32,
) -> Result<(), Errno> {
    if !socket.family.is_inet() && socket.options.is_set(SOL_SOCKET, SO_PASSCRED) {
        control.put(ctx, (SOL_SOCKET, SCM_CREDENTIALS), incoming.creds.as_bytes())?;
    }
    if socket.options.is_set(SOL_NETLINK, NETLINK_PKTINFO) {
        // No group has sent it.
        control.put(ctx, (SOL_NETLINK, NETLINK_PKTINFO), &0u32.to_ne_bytes())?;
    }
    put_fields(ctx, socket, incoming.fields, control)?;
    let files = incoming.rights.receive();
    if files.is_empty() {
        return Ok(());
    }
    let count = files.len();
    let mut fds: Vec<u32> = Vec::new();
    for file in files.into_iter().take(control.room() / 4) {
        match install(ctx, file, cloexec) {
            Ok(fd) => fds.push(fd as u32),
            Err(_) => break,
        }
    }
    control.truncated |= fds.len() < count;
    if fds.is_empty() { Ok(()) } else { control.put(ctx, (SOL_SOCKET, SCM_RIGHTS), fds.as_bytes()) }
}
