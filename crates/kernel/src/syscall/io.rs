//! Reading and writing: read(2), write(2) and their vectored and positioned forms.

use std::io::SeekFrom;
use std::rc::Rc;

use lg_abi::raw::general as linux;
use lg_abi::{Errno, Iovec, Signal};

use super::fd::file_type;
use super::socket::OpenSocket;
use super::{Ctx, message, signalfd};
use crate::fs::pipe::as_pipe;
use crate::fs::signalfd::as_signalfd;
use crate::mm::Span;
use crate::net::as_socket;
use crate::task::{HostEvent, Stop, SysResult, Wait};
use crate::vfs::{FileDescription, FsContext, Readiness};

/// Most bytes that one call moves (Linux's MAX_RW_COUNT).
const MAX_COUNT: u64 = 0x7fff_f000;

/// How many bytes pass through the kernel at a time.
const CHUNK: usize = 128 << 10;
/// How many the first piece of a read has at most.
const FIRST_CHUNK: usize = 4096;

/// Most buffers of a vectored call (IOV_MAX).
pub(super) const MAX_VECTORS: u64 = 1024;

/// Where in the file a transfer starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Position {
    /// Where the open file is; the transfer moves that.
    Current,
    /// At this byte.
    At(u64),
    /// At the end; the transfer moves the position of the open file behind it.
    End,
    /// At the end; the position stays.
    EndAside,
}

impl Position {
    fn moves(self) -> bool {
        matches!(self, Position::Current | Position::End)
    }

    /// Returns where RWF_APPEND moves a transfer to.
    fn at_end(self) -> Position {
        if self.moves() { Position::End } else { Position::EndAside }
    }
}

pub(super) fn sys_read(ctx: &mut Ctx<'_>, [fd, buf, len, ..]: [u64; 6]) -> SysResult {
    read(ctx, fd, &[span(buf, len)], Position::Current)
}

pub(super) fn sys_write(ctx: &mut Ctx<'_>, [fd, buf, len, ..]: [u64; 6]) -> SysResult {
    write(ctx, fd, &[span(buf, len)], Position::Current)
}

pub(super) fn sys_pread64(ctx: &mut Ctx<'_>, [fd, buf, len, offset, ..]: [u64; 6]) -> SysResult {
    let position = position(offset)?;
    read(ctx, fd, &[span(buf, len)], position)
}

pub(super) fn sys_pwrite64(ctx: &mut Ctx<'_>, [fd, buf, len, offset, ..]: [u64; 6]) -> SysResult {
    let position = position(offset)?;
    write(ctx, fd, &[span(buf, len)], position)
}

pub(super) fn sys_readv(ctx: &mut Ctx<'_>, [fd, vectors, count, ..]: [u64; 6]) -> SysResult {
    let spans = transfer(ctx, fd, (vectors, count), Position::Current, 0)?;
    read(ctx, fd, &spans, Position::Current)
}

pub(super) fn sys_writev(ctx: &mut Ctx<'_>, [fd, vectors, count, ..]: [u64; 6]) -> SysResult {
    let spans = transfer(ctx, fd, (vectors, count), Position::Current, 0)?;
    write(ctx, fd, &spans, Position::Current)
}

pub(super) fn sys_preadv(ctx: &mut Ctx<'_>, [fd, vectors, count, offset, ..]: [u64; 6]) -> SysResult {
    let position = position(offset)?;
    let spans = transfer(ctx, fd, (vectors, count), position, 0)?;
    read(ctx, fd, &spans, position)
}

pub(super) fn sys_pwritev(ctx: &mut Ctx<'_>, [fd, vectors, count, offset, ..]: [u64; 6]) -> SysResult {
    let position = position(offset)?;
    let spans = transfer(ctx, fd, (vectors, count), position, 0)?;
    write(ctx, fd, &spans, position)
}

pub(super) fn sys_preadv2(ctx: &mut Ctx<'_>, [fd, vectors, count, offset, _, flags]: [u64; 6]) -> SysResult {
    let position = optional_position(offset)?;
    let spans = transfer(ctx, fd, (vectors, count), position, flags)?;
    read(ctx, fd, &spans, position)
}

pub(super) fn sys_pwritev2(ctx: &mut Ctx<'_>, [fd, vectors, count, offset, _, flags]: [u64; 6]) -> SysResult {
    let position = optional_position(offset)?;
    let spans = transfer(ctx, fd, (vectors, count), position, flags)?;
    let appends = flags as u32 & linux::RWF_APPEND != 0;
    write(ctx, fd, &spans, if appends { position.at_end() } else { position })
}

/// Returns a part of user memory, of at most as many bytes as one call moves. One that leaves user space stays as
/// it is, for [`check_spans`] to refuse.
pub(super) fn span(addr: u64, len: u64) -> Span {
    Span { addr, len: if is_user(addr, len) { len.min(MAX_COUNT) } else { u64::MAX } }
}

/// Where user space ends on Linux, with four levels of page tables. It ends earlier here, which calls that ask for far
/// more than there is must not notice.
const LINUX_USER_END: u64 = (1 << 47) - 4096;

fn is_user(addr: u64, len: u64) -> bool {
    addr.checked_add(len).is_some_and(|end| end <= LINUX_USER_END)
}

/// Refuses buffers that leave user space, before anything is moved. Errors: EFAULT.
pub(super) fn check_spans(spans: &[Span]) -> Result<(), Errno> {
    if spans.iter().all(|span| is_user(span.addr, span.len)) { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Returns the buffers of a vectored call, whose arguments are checked in the order in which Linux does.
fn transfer(
    ctx: &mut Ctx<'_>,
    fd: u64,
    (vectors, count): (u64, u64),
    position: Position,
    flags: u64,
) -> Result<Vec<Span>, Errno> {
    let description = ctx.fd(fd)?;
    check_position(&description, position)?;
    let spans = read_vectors(ctx, vectors, count)?;
    // RWF_HIPRI, RWF_DSYNC and RWF_SYNC change nothing here.
    let without = linux::RWF_HIPRI | linux::RWF_DSYNC | linux::RWF_SYNC;
    if flags as u32 & !(without | linux::RWF_NOWAIT | linux::RWF_APPEND) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags as u32 & linux::RWF_NOWAIT != 0 {
        let file = &description.file;
        if !file.has_position() && as_pipe(file).is_none() && as_socket(file).is_none() {
            return Err(Errno::EOPNOTSUPP);
        }
        ctx.forbid_sleep();
    }
    Ok(spans)
}

fn position(offset: u64) -> Result<Position, Errno> {
    if (offset as i64) < 0 { Err(Errno::EINVAL) } else { Ok(Position::At(offset)) }
}

fn optional_position(offset: u64) -> Result<Position, Errno> {
    if offset == u64::MAX { Ok(Position::Current) } else { position(offset) }
}

/// Copies the list of a vectored call's buffers in.
///
/// Errors: EINVAL, EFAULT.
pub(super) fn read_vectors(ctx: &Ctx<'_>, vectors: u64, count: u64) -> Result<Vec<Span>, Errno> {
    // Linux takes the lower half only.
    let count = u64::from(count as u32);
    if count > MAX_VECTORS {
        return Err(Errno::EINVAL);
    }
    let mut spans = Vec::with_capacity(count as usize);
    let mut left = MAX_COUNT;
    for index in 0..count {
        let at = vectors.checked_add(index * size_of::<Iovec>() as u64).ok_or(Errno::EFAULT)?;
        let vector: Iovec = ctx.copy_in(at)?;
        if vector.len > i64::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        let len = vector.len.min(left);
        left -= len;
        spans.push(Span { addr: vector.base, len });
    }
    Ok(spans)
}

/// Answers a transfer that can not go on now: what has been moved, or a sleep, or EAGAIN.
pub(super) fn stop_or_wait(
    ctx: &mut Ctx<'_>,
    description: &FileDescription,
    wanted: Readiness,
    moved: u64,
) -> SysResult {
    if description.is_nonblocking() || !ctx.may_sleep() {
        return if moved > 0 { Ok(moved) } else { Err(Errno::EAGAIN.into()) };
    }
    *ctx.progress() = moved;
    Err(Stop::Block(wait_for(description, wanted)))
}

/// Returns the wait for a file's readiness.
pub(super) fn wait_for(description: &FileDescription, wanted: Readiness) -> Wait {
    let file = &description.file;
    let host: Vec<HostEvent> = file.host_events(wanted);
    Wait { host, ..Wait::on(file.queues()) }.until(file.ready_at_ns())
}

fn read(ctx: &mut Ctx<'_>, fd: u64, spans: &[Span], position: Position) -> SysResult {
    let description = ctx.fd(fd)?;
    let moved = read_from(ctx, &description, spans, position)?;
    if moved > 0 {
        description.tell(linux::IN_ACCESS);
    }
    Ok(moved)
}

fn read_from(
    ctx: &mut Ctx<'_>,
    description: &Rc<FileDescription>,
    spans: &[Span],
    position: Position,
) -> SysResult {
    check_position(description, position)?;
    description.check_readable()?;
    check_spans(spans)?;
    if let Some(socket) = as_socket(&description.file) {
        return message::read(ctx, &OpenSocket { description: description.clone(), socket }, spans);
    }
    if let Some(file) = as_signalfd(&description.file) {
        return signalfd::read(ctx, description, &file, spans);
    }
    let total: u64 = spans.iter().map(|span| span.len).sum();
    // Programs ask for far more than there mostly is: the buffer grows with what comes.
    let first = if description.file.reads_records() { CHUNK } else { FIRST_CHUNK };
    let mut chunk = vec![0; first.min(total as usize)];
    let mut moved = 0;
    for span in spans {
        let mut in_span = 0;
        while in_span < span.len {
            let want = chunk.len().min((span.len - in_span) as usize);
            let offset = current_offset(description, position, moved)?;
            let got = match description.file.read(&ctx.fs(), offset, &mut chunk[..want]) {
                Ok(got) => got,
                Err(Errno::EAGAIN) if moved > 0 => return Ok(moved),
                Err(Errno::EAGAIN) => return stop_or_wait(ctx, description, Readiness::READABLE, 0),
                Err(_) if moved > 0 => return Ok(moved),
                Err(errno) => return Err(errno.into()),
            };
            let stored = ctx.write_bytes_partial(span.addr.wrapping_add(in_span), &chunk[..got]);
            advance(description, position, stored as u64);
            moved += stored as u64;
            in_span += stored as u64;
            if stored < got {
                return if moved > 0 { Ok(moved) } else { Err(Errno::EFAULT.into()) };
            }
            if got < want {
                // The end of the file, or all that a pipe or terminal has now.
                return Ok(moved);
            }
            if got == chunk.len() && got < CHUNK {
                chunk.resize((8 * got).min(CHUNK).min(total as usize), 0);
            }
        }
    }
    if total == 0 {
        let offset = current_offset(description, position, 0)?;
        description.file.read(&ctx.fs(), offset, &mut []).or_else(|errno| match errno {
            Errno::EAGAIN => Ok(0),
            other => Err(other),
        })?;
    }
    Ok(moved)
}

fn write(ctx: &mut Ctx<'_>, fd: u64, spans: &[Span], position: Position) -> SysResult {
    let description = ctx.fd(fd)?;
    let moved = write_to(ctx, &description, spans, position)?;
    if moved > 0 {
        description.tell(linux::IN_MODIFY);
    }
    Ok(moved)
}

fn write_to(
    ctx: &mut Ctx<'_>,
    description: &Rc<FileDescription>,
    spans: &[Span],
    position: Position,
) -> SysResult {
    check_position(description, position)?;
    description.check_writable()?;
    check_spans(spans)?;
    if let Some(socket) = as_socket(&description.file) {
        return message::write(ctx, &OpenSocket { description: description.clone(), socket }, spans);
    }
    let total: u64 = spans.iter().map(|span| span.len).sum();
    let mut chunk = vec![0; CHUNK.min(total as usize)];
    // A call that is made again goes on behind what its earlier tries have written.
    let mut moved = *ctx.progress();
    let mut skip = moved;
    // What several small buffers hold goes to the file in one piece, so that it stays together.
    let mut pending = 0;
    for (index, span) in spans.iter().enumerate() {
        if skip >= span.len {
            skip -= span.len;
            continue;
        }
        let mut in_span = std::mem::take(&mut skip);
        while in_span < span.len {
            let want = (chunk.len() - pending).min((span.len - in_span) as usize);
            let addr = span.addr.wrapping_add(in_span);
            let got = ctx.user().read_partial(addr, &mut chunk[pending..pending + want]);
            pending += got;
            in_span += got as u64;
            let faulted = got < want;
            let is_last = index + 1 == spans.len() && in_span == span.len;
            if pending == chunk.len() || faulted || is_last {
                match write_chunk(ctx, description, position, &chunk[..pending], moved) {
                    Ok(written) => {
                        moved += written as u64;
                        if written < pending && description.file.has_position() {
                            // The file system is full; the next call hears of it.
                            return Ok(moved);
                        }
                        if written < pending {
                            // A pipe took a part: the rest of this call is made later.
                            return stop_or_wait(ctx, description, Readiness::WRITABLE, moved);
                        }
                    }
                    Err(Errno::EAGAIN) => {
                        return stop_or_wait(ctx, description, Readiness::WRITABLE, moved);
                    }
                    Err(Errno::EPIPE) => {
                        ctx.signal_self(Signal::SIGPIPE);
                        return if moved > 0 { Ok(moved) } else { Err(Errno::EPIPE.into()) };
                    }
                    Err(_) if moved > 0 => return Ok(moved),
                    Err(errno) => return Err(errno.into()),
                }
                pending = 0;
            }
            if faulted {
                return if moved > 0 { Ok(moved) } else { Err(Errno::EFAULT.into()) };
            }
        }
    }
    if pending > 0 {
        let written = write_chunk(ctx, description, position, &chunk[..pending], moved)?;
        moved += written as u64;
    }
    Ok(moved)
}

fn write_chunk(
    ctx: &mut Ctx<'_>,
    description: &Rc<FileDescription>,
    position: Position,
    data: &[u8],
    moved: u64,
) -> Result<usize, Errno> {
    if data.is_empty() {
        return Ok(0);
    }
    let appends =
        description.flags() & linux::O_APPEND != 0 || matches!(position, Position::End | Position::EndAside);
    let offset = if appends && description.file.has_position() {
        let cx = ctx.fs();
        let end = description.inode().attr(&cx)?.size;
        if position.moves() {
            description.set_offset(end);
        }
        end
    } else {
        current_offset(description, position, moved)?
    };
    let written = write_limited(ctx, description, offset, data)?;
    advance(description, position, written as u64);
    Ok(written)
}

/// Writes within RLIMIT_FSIZE.
fn write_limited(
    ctx: &mut Ctx<'_>,
    description: &FileDescription,
    offset: u64,
    data: &[u8],
) -> Result<usize, Errno> {
    let mut len = data.len();
    let limit = ctx.rlimit(linux::RLIMIT_FSIZE).cur;
    if limit != u64::MAX && description.file.has_position() {
        let room = limit.saturating_sub(offset);
        if room == 0 {
            ctx.signal_self(Signal::SIGXFSZ);
            return Err(Errno::EFBIG);
        }
        len = len.min(usize::try_from(room).unwrap_or(usize::MAX));
    }
    description.file.write(&ctx.fs(), offset, &data[..len])
}

fn check_position(description: &FileDescription, position: Position) -> Result<(), Errno> {
    if !position.moves() && !description.file.has_position() && !description.is_path_only() {
        return Err(Errno::ESPIPE);
    }
    Ok(())
}

fn current_offset(description: &FileDescription, position: Position, moved: u64) -> Result<u64, Errno> {
    match position {
        Position::Current | Position::End | Position::EndAside => Ok(description.offset()),
        Position::At(offset) => offset.checked_add(moved).ok_or(Errno::EINVAL),
    }
}

fn advance(description: &FileDescription, position: Position, by: u64) {
    if position.moves() && description.file.has_position() {
        description.set_offset(description.offset().saturating_add(by));
    }
}

/// One file of a copy inside the kernel.
struct End {
    description: Rc<FileDescription>,
    /// The offset argument: where it is in user memory, and its value.
    offset: Option<(u64, u64)>,
}

impl End {
    fn new(ctx: &Ctx<'_>, fd: u64, offset_addr: u64) -> Result<End, Errno> {
        let description = ctx.open_fd(fd)?;
        let offset = if offset_addr == 0 { None } else { Some((offset_addr, ctx.copy_in(offset_addr)?)) };
        if offset.is_some() && !description.file.has_position() {
            return Err(Errno::ESPIPE);
        }
        Ok(End { description, offset })
    }

    /// Checks that `count` bytes from here on are within what a file can have. Errors: EINVAL.
    fn check_range(&self, count: u64) -> Result<(), Errno> {
        if !self.description.file.has_position() {
            return Ok(());
        }
        let end = self.at().checked_add(count).filter(|end| *end <= i64::MAX as u64);
        end.map(drop).ok_or(Errno::EINVAL)
    }

    fn appends(&self) -> bool {
        self.description.flags() & linux::O_APPEND != 0
    }

    /// Says whether the file is of a kind that moves bytes inside the kernel: not a directory, nor one of those that
    /// stand for events, which have no type.
    fn can_splice(&self, ctx: &Ctx<'_>) -> bool {
        let moves = |kind| matches!(kind, linux::S_IFREG | linux::S_IFIFO | linux::S_IFSOCK | linux::S_IFCHR);
        file_type(ctx, &self.description).is_ok_and(moves)
    }

    fn at(&self) -> u64 {
        self.offset.map_or(self.description.offset(), |(_, value)| value)
    }

    fn advance(&mut self, by: u64) {
        match &mut self.offset {
            Some((_, value)) => *value = value.saturating_add(by),
            None => advance(&self.description, Position::Current, by),
        }
    }

    fn finish(&self, ctx: &Ctx<'_>) -> Result<(), Errno> {
        match self.offset {
            Some((addr, value)) => ctx.copy_out(addr, &value),
            None => Ok(()),
        }
    }
}

pub(super) fn sys_sendfile(ctx: &mut Ctx<'_>, [out, input, offset, count, ..]: [u64; 6]) -> SysResult {
    if offset != 0 {
        ctx.copy_in::<u64>(offset)?;
    }
    ctx.fd(input)?.check_readable()?;
    let from = End::new(ctx, input, offset)?;
    if (count as i64) < 0 {
        return Err(Errno::EINVAL.into());
    }
    let to = End::new(ctx, out, 0)?;
    to.description.check_writable()?;
    if !from.description.file.has_position() || !from.can_splice(ctx) || !to.can_splice(ctx) {
        return Err(Errno::EINVAL.into());
    }
    from.check_range(count)?;
    to.check_range(count)?;
    if to.appends() && to.description.file.has_position() {
        return Err(Errno::EINVAL.into());
    }
    copy(ctx, from, to, count)
}

pub(super) fn sys_copy_file_range(
    ctx: &mut Ctx<'_>,
    [input, in_offset, out, out_offset, count, flags]: [u64; 6],
) -> SysResult {
    let from = End::new(ctx, input, in_offset)?;
    let to = End::new(ctx, out, out_offset)?;
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    for end in [&from, &to] {
        match file_type(ctx, &end.description)? {
            linux::S_IFREG => {}
            linux::S_IFDIR => return Err(Errno::EISDIR.into()),
            _ => return Err(Errno::EINVAL.into()),
        }
    }
    from.description.check_readable()?;
    to.description.check_writable()?;
    if to.appends() {
        return Err(Errno::EBADF.into());
    }
    if from.at().checked_add(count).is_none() || to.at().checked_add(count).is_none() {
        return Err(Errno::EOVERFLOW.into());
    }
    from.check_range(0)?;
    to.check_range(0)?;
    let size = from.description.inode().attr(&ctx.fs())?.size;
    let count = count.min(size.saturating_sub(from.at()));
    let same = Rc::ptr_eq(from.description.inode(), to.description.inode());
    let (start, end) = (from.at(), from.at().saturating_add(count));
    if same && start < to.at().saturating_add(count) && to.at() < end {
        return Err(Errno::EINVAL.into());
    }
    copy(ctx, from, to, count)
}

pub(super) fn sys_splice(
    ctx: &mut Ctx<'_>,
    [input, in_offset, out, out_offset, count, flags]: [u64; 6],
) -> SysResult {
    let known = linux::SPLICE_F_MOVE | linux::SPLICE_F_NONBLOCK | linux::SPLICE_F_MORE | linux::SPLICE_F_GIFT;
    if flags & !u64::from(known) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let from = End::new(ctx, input, in_offset)?;
    let to = End::new(ctx, out, out_offset)?;
    from.description.check_readable()?;
    to.description.check_writable()?;
    refuse_sleep(ctx, flags);
    let is_pipe = |cx: &FsContext<'_>, end: &End| {
        end.description.inode().attr(cx).is_ok_and(|attr| attr.mode & linux::S_IFMT == linux::S_IFIFO)
    };
    if !is_pipe(&ctx.fs(), &from) && !is_pipe(&ctx.fs(), &to) {
        return Err(Errno::EINVAL.into());
    }
    if let (Some(one), Some(other)) = (as_pipe(&from.description.file), as_pipe(&to.description.file))
        && one.same_pipe(&other)
    {
        return Err(Errno::EINVAL.into());
    }
    if !from.can_splice(ctx) || !to.can_splice(ctx) {
        return Err(Errno::EINVAL.into());
    }
    from.check_range(0)?;
    to.check_range(0)?;
    if to.appends() && to.description.file.has_position() {
        return Err(Errno::EINVAL.into());
    }
    copy(ctx, from, to, count.min(CHUNK as u64))
}

/// Heeds SPLICE_F_NONBLOCK.
fn refuse_sleep(ctx: &mut Ctx<'_>, flags: u64) {
    if flags & u64::from(linux::SPLICE_F_NONBLOCK) != 0 {
        ctx.forbid_sleep();
    }
}

fn copy(ctx: &mut Ctx<'_>, from: End, to: End, count: u64) -> SysResult {
    let (read, written) = (from.description.clone(), to.description.clone());
    let moved = copy_bytes(ctx, from, to, count)?;
    if moved > 0 {
        read.tell(linux::IN_ACCESS);
        written.tell(linux::IN_MODIFY);
    }
    Ok(moved)
}

/// Copies up to `count` bytes from one file to another, without losing what was read where less can be
/// written: a source without a position is only read as far as there is room.
fn copy_bytes(ctx: &mut Ctx<'_>, mut from: End, mut to: End, count: u64) -> SysResult {
    let count = count.min(MAX_COUNT);
    let mut moved = *ctx.progress();
    let mut chunk = vec![0; CHUNK.min(count as usize)];
    while moved < count {
        if !to.description.file.readiness(&ctx.fs()).intersects(Readiness::WRITABLE | Readiness::ERR) {
            to.finish(ctx)?;
            from.finish(ctx)?;
            return stop_or_wait(ctx, &to.description, Readiness::WRITABLE, moved);
        }
        // A pipe that is ready for writing has room for at least PIPE_BUF bytes.
        let limit = if to.description.file.has_position() { chunk.len() } else { 4096.min(chunk.len()) };
        let want = limit.min((count - moved) as usize);
        let got = match from.description.file.read(&ctx.fs(), from.at(), &mut chunk[..want]) {
            Ok(0) => break,
            Ok(got) => got,
            Err(Errno::EAGAIN) if moved > 0 => break,
            Err(Errno::EAGAIN) => {
                return stop_or_wait(ctx, &from.description, Readiness::READABLE, moved);
            }
            Err(errno) if moved == 0 => return Err(errno.into()),
            Err(_) => break,
        };
        let written = match write_limited(ctx, &to.description, to.at(), &chunk[..got]) {
            Ok(written) => written,
            Err(Errno::EPIPE) => {
                ctx.signal_self(Signal::SIGPIPE);
                return Err(Errno::EPIPE.into());
            }
            Err(errno) if moved == 0 => return Err(errno.into()),
            Err(_) => break,
        };
        from.advance(written as u64);
        to.advance(written as u64);
        moved += written as u64;
        if written < got {
            break;
        }
    }
    from.finish(ctx)?;
    to.finish(ctx)?;
    Ok(moved)
}

pub(super) fn sys_lseek(ctx: &mut Ctx<'_>, [fd, offset, whence, ..]: [u64; 6]) -> SysResult {
    use crate::vfs::Extent;
    let description = ctx.open_fd(fd)?;
    if whence as u32 > linux::SEEK_MAX {
        return Err(Errno::EINVAL.into());
    }
    let shared = match whence as u32 {
        // Devices take any place, even a negative one.
        linux::SEEK_SET => Some(SeekFrom::Start(offset)),
        linux::SEEK_CUR => Some(SeekFrom::Current(offset as i64)),
        linux::SEEK_END => Some(SeekFrom::End(offset as i64)),
        // Devices have neither data nor holes, so that it is a place like any other.
        _ => description.file.seek(SeekFrom::End(0)).and(Some(SeekFrom::End(0))),
    };
    if let Some(moved) = shared.and_then(|to| description.file.seek(to)) {
        return Ok(moved?);
    }
    if !description.file.has_position() {
        return Err(Errno::ESPIPE.into());
    }
    let attr = description.inode().attr(&ctx.fs())?;
    // The positions of a directory are cookies: only one that was given out means anything.
    if attr.mode & linux::S_IFMT == linux::S_IFDIR && whence as u32 > linux::SEEK_CUR {
        return Err(Errno::EINVAL.into());
    }
    let relative = |base: u64| base.checked_add_signed(offset as i64).ok_or(Errno::EINVAL);
    let target = match whence as u32 {
        linux::SEEK_SET => relative(0)?,
        linux::SEEK_CUR => relative(description.offset())?,
        linux::SEEK_END => relative(attr.size)?,
        linux::SEEK_DATA | linux::SEEK_HOLE => {
            let end = attr.size;
            if offset >= end {
                return Err(Errno::ENXIO.into());
            }
            let wanted = if whence as u32 == linux::SEEK_DATA { Extent::Data } else { Extent::Hole };
            match description.file.seek_hole(offset, wanted) {
                Some(found) => found?,
                None if wanted == Extent::Data => offset,
                None => end,
            }
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    if target > i64::MAX as u64 {
        return Err(Errno::EINVAL.into());
    }
    description.set_offset(target);
    Ok(target)
}

pub(super) fn sys_tee(ctx: &mut Ctx<'_>, [input, out, count, flags, ..]: [u64; 6]) -> SysResult {
    let known = linux::SPLICE_F_MOVE | linux::SPLICE_F_NONBLOCK | linux::SPLICE_F_MORE | linux::SPLICE_F_GIFT;
    if flags & !u64::from(known) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (input, out) = (ctx.fd(input)?, ctx.fd(out)?);
    input.check_readable()?;
    out.check_writable()?;
    let (Some(from), Some(to)) = (as_pipe(&input.file), as_pipe(&out.file)) else {
        return Err(Errno::EINVAL.into());
    };
    if from.same_pipe(&to) {
        return Err(Errno::EINVAL.into());
    }
    refuse_sleep(ctx, flags);
    let want = CHUNK.min(usize::try_from(count).unwrap_or(CHUNK));
    if want == 0 {
        return Ok(0);
    }
    if out.file.readiness(&ctx.fs()).contains(Readiness::ERR) {
        ctx.signal_self(Signal::SIGPIPE);
        return Err(Errno::EPIPE.into());
    }
    // What is taken must fit whole, so that the pipes do not drift apart.
    let room = to.room();
    if room == 0 {
        return stop_or_wait(ctx, &out, Readiness::WRITABLE, 0);
    }
    let mut chunk = vec![0; want.min(room)];
    let got = from.peek(&mut chunk);
    if got == 0 {
        if input.file.readiness(&ctx.fs()).contains(Readiness::HUP) {
            return Ok(0);
        }
        return stop_or_wait(ctx, &input, Readiness::READABLE, 0);
    }
    match write_limited(ctx, &out, 0, &chunk[..got]) {
        Ok(written) => Ok(written as u64),
        Err(Errno::EPIPE) => {
            ctx.signal_self(Signal::SIGPIPE);
            Err(Errno::EPIPE.into())
        }
        Err(errno) => Err(errno.into()),
    }
}

pub(super) fn sys_vmsplice(ctx: &mut Ctx<'_>, [fd, vectors, count, flags, ..]: [u64; 6]) -> SysResult {
    let known = linux::SPLICE_F_MOVE | linux::SPLICE_F_NONBLOCK | linux::SPLICE_F_MORE | linux::SPLICE_F_GIFT;
    if flags & !u64::from(known) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let description = ctx.fd(fd)?;
    if as_pipe(&description.file).is_none() {
        return Err(Errno::EBADF.into());
    }
    refuse_sleep(ctx, flags);
    let move_bytes = if description.check_writable().is_ok() { sys_writev } else { sys_readv };
    move_bytes(ctx, [fd, vectors, count, 0, 0, 0])
}
