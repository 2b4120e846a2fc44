//! `/proc`, `/sys` and `/sys/fs/cgroup` (proc(5), sysfs(5), cgroups(7)): the sandbox as its programs may see it, never the host.
//!
//! Everything is made up at the moment it is read, from what [`ProcSource`](crate::vfs::ProcSource) tells.

mod cgroup;
mod cpu;
mod namespaces;
mod net;
mod pid;
mod smaps;
mod sysctl;
mod sysfs;
mod system;

use std::any::Any;
use std::cell::RefCell;
use std::rc::{Rc, Weak};

use lg_abi::raw::general::{CAP_SYS_PTRACE, S_IFDIR, S_IFLNK, S_IFREG};
use lg_abi::{Errno, Timespec};

use crate::task::Stop;
use crate::vfs::permission::has_capability;
use crate::vfs::{
    Attr, AttrChange, DirEntry, DirFile, File, FsContext, FsSpace, Inode, LinkTarget, Path, Shown,
};
use namespaces::{NAMESPACES, Namespace};
use pid::PidFile;

/// The trees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tree {
    /// `/proc`
    Proc,
    /// `/sys`
    Sys,
    /// `/sys/fs/cgroup`
    Cgroup,
}

/// An entry of the fixed part of a tree.
pub struct Entry {
    name: &'static str,
    kind: Kind,
}

enum Kind {
    Dir(&'static [Entry]),
    /// A file whose text is made when it is read.
    File(fn(&FsContext<'_>) -> Vec<u8>),
    /// A file that always says the same.
    Text(&'static str),
    Link(&'static str),
}

/// What an inode of the tree stands for.
#[derive(Clone, Copy)]
enum What {
    Fixed(&'static Kind),
    /// The root of `/proc`, where the processes are.
    ProcRoot,
    SelfLink,
    ThreadSelfLink,
    /// The directory of a process, or of a thread below `task`.
    Task {
        pid: u32,
        tid: u32,
        place: Place,
    },
    TaskList {
        pid: u32,
    },
    Facts {
        pid: u32,
        tid: u32,
        file: PidFile,
    },
    Link {
        pid: u32,
        link: PidLink,
    },
    /// `ns`
    NsList {
        pid: u32,
    },
    Ns {
        pid: u32,
        namespace: &'static Namespace,
    },
    FdList {
        pid: u32,
        shows: Fds,
    },
    Fd {
        pid: u32,
        fd: u32,
        shows: Fds,
    },
}

/// Where the directory of a task is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Process,
    Thread,
}

/// What is shown of descriptors.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fds {
    /// `fd`: links to the open files.
    Links,
    /// `fdinfo`: their state.
    Info,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PidLink {
    Cwd,
    Root,
    Exe,
}

const PID_LINKS: &[(&str, PidLink)] =
    &[("cwd", PidLink::Cwd), ("root", PidLink::Root), ("exe", PidLink::Exe)];

/// `net` in the directory of a process: there is one network.
static NET: Kind = Kind::Dir(net::NET);

struct Node {
    dev: u64,
    ino: u64,
    what: What,
    last_long: LastLong,
}

/// The last text of a tree that was too long to be kept by the file: who reads it piece by piece finds it here.
type LastLong = Rc<RefCell<Option<Rc<Vec<u8>>>>>;

/// Returns the root of a tree.
pub fn new_root(dev: u64, tree: Tree) -> Rc<dyn Inode> {
    static SYS: Kind = Kind::Dir(sysfs::SYS);
    static CGROUP: Kind = Kind::Dir(cgroup::CGROUP);
    let what = match tree {
        Tree::Proc => What::ProcRoot,
        Tree::Sys => What::Fixed(&SYS),
        Tree::Cgroup => What::Fixed(&CGROUP),
    };
    Rc::new(Node { dev, ino: 1, what, last_long: LastLong::default() })
}

/// Returns the process whose directory of `/proc` an inode is, if it is one.
pub fn process_of(inode: &Rc<dyn Inode>) -> Option<u32> {
    let any: Rc<dyn Any> = inode.clone();
    match any.downcast::<Node>().ok()?.what {
        What::Task { pid, tid, place: Place::Process } if pid == tid => Some(pid),
        _ => None,
    }
}

/// Makes the inode number of a child: the same for the same path.
fn child_ino(parent: u64, name: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ parent;
    let hash = name.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    // Some programs keep inode numbers in 32 bits, others take 0 for no file.
    (hash >> 32 ^ hash & 0xffff_ffff).max(2)
}

/// Reads a number that is a name: decimal, without leading zeros.
fn parse_number(name: &[u8]) -> Option<u32> {
    let is_canonical =
        name.iter().all(u8::is_ascii_digit) && (name.len() == 1 || name.first() != Some(&b'0'));
    std::str::from_utf8(name).ok().filter(|_| is_canonical)?.parse().ok()
}

impl Node {
    fn child(&self, name: &[u8], what: What) -> Node {
        let last_long = self.last_long.clone();
        Node { dev: self.dev, ino: child_ino(self.ino, name), what, last_long }
    }

    fn find(&self, cx: &FsContext<'_>, name: &[u8]) -> Result<What, Errno> {
        let found = match self.what {
            What::Fixed(Kind::Dir(entries)) => find_entry(entries, name),
            What::ProcRoot => match name {
                b"self" => Some(What::SelfLink),
                b"thread-self" => Some(What::ThreadSelfLink),
                _ => match parse_number(name) {
                    // A thread has a directory here too, though it is not listed.
                    Some(tid) => cx
                        .procs
                        .process(tid)
                        .map(|_| tid)
                        .or_else(|| cx.procs.pid_of(tid))
                        .map(|pid| What::Task { pid, tid, place: Place::Process }),
                    None => find_entry(system::PROC, name),
                },
            },
            What::Task { pid, tid, place } => find_in_task(name, pid, tid, place),
            What::TaskList { pid } => parse_number(name)
                .filter(|tid| cx.procs.tids(pid).contains(tid))
                .map(|tid| What::Task { pid, tid, place: Place::Thread }),
            What::NsList { pid } => NAMESPACES
                .iter()
                .find(|namespace| namespace.link.as_bytes() == name)
                .map(|namespace| What::Ns { pid, namespace }),
            What::FdList { pid, shows } => parse_number(name)
                .filter(|fd| open_fds(cx, pid).is_ok_and(|fds| fds.contains(fd)))
                .map(|fd| What::Fd { pid, fd, shows }),
            _ => return Err(Errno::ENOTDIR),
        };
        found.ok_or(Errno::ENOENT)
    }

    /// Returns the names in a directory with what they stand for.
    fn list(&self, cx: &FsContext<'_>) -> Result<Vec<(Vec<u8>, What)>, Errno> {
        let mut all: Vec<(Vec<u8>, What)> = Vec::new();
        match self.what {
            What::Fixed(Kind::Dir(entries)) => all.extend(fixed(entries)),
            What::ProcRoot => {
                all.push((b"self".to_vec(), What::SelfLink));
                all.push((b"thread-self".to_vec(), What::ThreadSelfLink));
                all.extend(fixed(system::PROC));
                all.extend(cx.procs.pids().into_iter().map(|pid| {
                    (pid.to_string().into_bytes(), What::Task { pid, tid: pid, place: Place::Process })
                }));
            }
            What::Task { pid, tid, place } => {
                all.extend(
                    pid::FILES.iter().map(|(name, file)| {
                        (name.as_bytes().to_vec(), What::Facts { pid, tid, file: *file })
                    }),
                );
                all.extend(
                    PID_LINKS
                        .iter()
                        .map(|(name, link)| (name.as_bytes().to_vec(), What::Link { pid, link: *link })),
                );
                all.push((b"fd".to_vec(), What::FdList { pid, shows: Fds::Links }));
                all.push((b"fdinfo".to_vec(), What::FdList { pid, shows: Fds::Info }));
                all.push((b"net".to_vec(), What::Fixed(&NET)));
                all.push((b"ns".to_vec(), What::NsList { pid }));
                if place == Place::Process {
                    all.push((b"task".to_vec(), What::TaskList { pid }));
                }
            }
            What::TaskList { pid } => all.extend(
                cx.procs
                    .tids(pid)
                    .into_iter()
                    .map(|tid| (tid.to_string().into_bytes(), What::Task { pid, tid, place: Place::Thread })),
            ),
            What::NsList { pid } => all.extend(
                NAMESPACES
                    .iter()
                    .map(|namespace| (namespace.link.as_bytes().to_vec(), What::Ns { pid, namespace })),
            ),
            What::FdList { pid, shows } => all.extend(
                open_fds(cx, pid)?
                    .into_iter()
                    .map(|fd| (fd.to_string().into_bytes(), What::Fd { pid, fd, shows })),
            ),
            _ => return Err(Errno::ENOTDIR),
        }
        Ok(all)
    }

    /// Returns type and permission bits.
    fn mode(&self, cx: &FsContext<'_>) -> u32 {
        match self.what {
            What::Fixed(Kind::Dir(_)) | What::ProcRoot | What::Task { .. } | What::TaskList { .. } => {
                S_IFDIR | 0o555
            }
            What::FdList { .. } => S_IFDIR | 0o500,
            What::NsList { .. } => S_IFDIR | 0o511,
            What::Fixed(Kind::File(_) | Kind::Text(_)) => S_IFREG | 0o444,
            What::Facts { file, .. } => S_IFREG | file.mode(),
            What::Fd { shows: Fds::Info, .. } => S_IFREG | 0o400,
            What::Fd { pid, fd, .. } => S_IFLNK | link_mode(cx, pid, fd),
            What::Fixed(Kind::Link(_))
            | What::SelfLink
            | What::ThreadSelfLink
            | What::Link { .. }
            | What::Ns { .. } => S_IFLNK | 0o777,
        }
    }

    /// Returns the process and thread that own the inode.
    fn owner(&self) -> Option<(u32, u32)> {
        match self.what {
            What::Task { pid, tid, .. } | What::Facts { pid, tid, .. } => Some((pid, tid)),
            What::TaskList { pid }
            | What::Link { pid, .. }
            | What::NsList { pid }
            | What::Ns { pid, .. }
            | What::FdList { pid, .. }
            | What::Fd { pid, .. } => Some((pid, pid)),
            _ => None,
        }
    }

    fn text(&self, cx: &FsContext<'_>) -> Result<Vec<u8>, Errno> {
        match self.what {
            What::Fixed(Kind::File(text)) => Ok(text(cx)),
            What::Fixed(Kind::Text(text)) => Ok(text.as_bytes().to_vec()),
            What::Facts { pid, tid, file } => file.text(cx, pid, tid),
            What::Fd { pid, fd, .. } => pid::fd_info(cx, pid, fd),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Checks that the asking task may look into the process (ptrace(2), "access mode checking").
    fn check_may_inspect(&self, cx: &FsContext<'_>) -> Result<(), Errno> {
        let Some((pid, tid)) = self.owner() else { return Ok(()) };
        if cx.procs.pid_of(cx.tid.0) == Some(pid) || has_capability(cx.creds, CAP_SYS_PTRACE) {
            return Ok(());
        }
        let facts = cx.procs.thread(pid, tid).ok_or(Errno::ESRCH)?;
        if facts.uids[..3].iter().all(|uid| *uid == cx.creds.fsuid) { Ok(()) } else { Err(Errno::EACCES) }
    }
}

fn find_entry(entries: &'static [Entry], name: &[u8]) -> Option<What> {
    let entry = entries.iter().find(|entry| entry.name.as_bytes() == name)?;
    Some(What::Fixed(&entry.kind))
}

fn fixed(entries: &'static [Entry]) -> impl Iterator<Item = (Vec<u8>, What)> {
    entries.iter().map(|entry| (entry.name.as_bytes().to_vec(), What::Fixed(&entry.kind)))
}

fn find_in_task(name: &[u8], pid: u32, tid: u32, place: Place) -> Option<What> {
    match name {
        b"fd" => return Some(What::FdList { pid, shows: Fds::Links }),
        b"fdinfo" => return Some(What::FdList { pid, shows: Fds::Info }),
        b"net" => return Some(What::Fixed(&NET)),
        b"ns" => return Some(What::NsList { pid }),
        b"task" if place == Place::Process => return Some(What::TaskList { pid }),
        _ => {}
    }
    if let Some((_, link)) = PID_LINKS.iter().find(|(link, _)| link.as_bytes() == name) {
        return Some(What::Link { pid, link: *link });
    }
    let (_, file) = pid::FILES.iter().find(|(file, _)| file.as_bytes() == name)?;
    Some(What::Facts { pid, tid, file: *file })
}

fn open_fds(cx: &FsContext<'_>, pid: u32) -> Result<Vec<u32>, Errno> {
    let table = cx.procs.fds(pid).ok_or(Errno::ENOENT)?;
    let table = table.try_borrow().map_err(|_| Errno::EBUSY)?;
    Ok(table.fds())
}

fn open_file(
    cx: &FsContext<'_>,
    pid: u32,
    fd: u32,
) -> Result<(Rc<crate::vfs::FileDescription>, crate::vfs::OnExec), Errno> {
    let table = cx.procs.fds(pid).ok_or(Errno::ENOENT)?;
    let table = table.try_borrow().map_err(|_| Errno::EBUSY)?;
    let fd = u64::from(fd);
    let file = table.get(fd).map_err(|_| Errno::ENOENT)?;
    Ok((file, table.on_exec(fd).map_err(|_| Errno::ENOENT)?))
}

/// Returns the permission bits of a link in `fd`: what the descriptor can do.
fn link_mode(cx: &FsContext<'_>, pid: u32, fd: u32) -> u32 {
    let Ok((file, _)) = open_file(cx, pid, fd) else { return 0 };
    let mut mode = 0o100;
    if file.check_readable().is_ok() {
        mode |= 0o400;
    }
    if file.check_writable().is_ok() {
        mode |= 0o200;
    }
    mode
}

/// Returns the text of a path as the asking task sees it.
fn show(cx: &FsContext<'_>, path: &Path) -> Vec<u8> {
    let root = cx
        .procs
        .pid_of(cx.tid.0)
        .and_then(|pid| cx.procs.fs_state(pid))
        .and_then(|fs| fs.try_borrow().ok().map(|fs| fs.root.clone()))
        .or_else(|| cx.vfs.root().ok());
    match root {
        Some(root) => cx.vfs.show_in_proc(&root, path).unwrap_or_default(),
        None => Vec::new(),
    }
}

/// Returns where a path is as seen from another, for tables of mounts; `None` where it is out of reach.
fn show_below(cx: &FsContext<'_>, root: &Path, path: &Path) -> Option<Vec<u8>> {
    let Shown { text, reachable, .. } = cx.vfs.show(root, path).ok()?;
    reachable.then_some(text)
}

impl Inode for Node {
    fn attr(&self, cx: &FsContext<'_>) -> Result<Attr, Errno> {
        let owner = match self.owner() {
            Some((pid, tid)) => cx
                .procs
                .thread(pid, tid)
                .map(|thread| (thread.uids[1], thread.gids[1]))
                .ok_or(Errno::ENOENT)?,
            None => (0, 0),
        };
        let now: Timespec = cx.now;
        Ok(Attr {
            dev: self.dev,
            ino: self.ino,
            mode: self.mode(cx),
            nlink: 1,
            uid: owner.0,
            gid: owner.1,
            atime: now,
            mtime: now,
            ctime: now,
            ..Attr::default()
        })
    }

    fn set_attr(&self, _cx: &FsContext<'_>, change: &AttrChange) -> Result<(), Errno> {
        // Opening with O_TRUNC is how shells write to such files.
        let only_size = AttrChange { size: None, ..*change };
        let AttrChange { mode: None, uid: None, gid: None, atime: None, mtime: None, size: None } = only_size
        else {
            return Err(Errno::EPERM);
        };
        Ok(())
    }

    fn lookup(&self, cx: &FsContext<'_>, name: &[u8]) -> Result<Rc<dyn Inode>, Errno> {
        let what = self.find(cx, name)?;
        Ok(Rc::new(self.child(name, what)))
    }

    fn caches_children(&self) -> bool {
        // What is fixed stays; processes and descriptors come and go.
        matches!(self.what, What::Fixed(_))
    }

    fn read_dir(
        &self,
        cx: &FsContext<'_>,
        cursor: u64,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<(), Errno> {
        let mut all = self.list(cx)?;
        // Processes and descriptors come and go between calls: their cursors are their numbers.
        let cursors = |position: usize, name: &[u8]| match parse_number(name) {
            Some(number) => u64::from(number) + (1 << 32),
            None => position as u64,
        };
        let mut keyed: Vec<(u64, Vec<u8>, What)> = all
            .drain(..)
            .enumerate()
            .map(|(position, (name, what))| (cursors(position, &name), name, what))
            .collect();
        keyed.sort_by_key(|(key, ..)| *key);
        for (key, name, what) in keyed {
            if key < cursor {
                continue;
            }
            let child = self.child(&name, what);
            let file_type = child.mode(cx) & lg_abi::raw::general::S_IFMT;
            if !sink(DirEntry { ino: child.ino, file_type, name, next: key + 1 }) {
                break;
            }
        }
        Ok(())
    }

    fn read_link(&self, cx: &FsContext<'_>) -> Result<LinkTarget, Errno> {
        match self.what {
            What::Fixed(Kind::Link(target)) => Ok(LinkTarget::Path(target.as_bytes().to_vec())),
            What::SelfLink => {
                let pid = cx.procs.pid_of(cx.tid.0).ok_or(Errno::ENOENT)?;
                Ok(LinkTarget::Path(pid.to_string().into_bytes()))
            }
            What::ThreadSelfLink => {
                let pid = cx.procs.pid_of(cx.tid.0).ok_or(Errno::ENOENT)?;
                Ok(LinkTarget::Path(format!("{pid}/task/{}", cx.tid.0).into_bytes()))
            }
            What::Link { pid, link } => {
                self.check_may_inspect(cx)?;
                let state = || {
                    let fs = cx.procs.fs_state(pid).ok_or(Errno::ENOENT)?;
                    let fs = fs.try_borrow().map_err(|_| Errno::EBUSY)?;
                    Ok::<_, Errno>(fs.clone())
                };
                let to = match link {
                    PidLink::Cwd => state()?.cwd,
                    PidLink::Root => state()?.root,
                    PidLink::Exe => cx.procs.exe(pid).ok_or(Errno::ENOENT)?,
                };
                Ok(LinkTarget::Magic { shown: show(cx, &to), to })
            }
            What::Ns { namespace, .. } => {
                self.check_may_inspect(cx)?;
                Ok(LinkTarget::Magic { shown: namespace.shown(), to: namespace.path(cx) })
            }
            What::Fd { pid, fd, shows: Fds::Links } => {
                self.check_may_inspect(cx)?;
                let to = open_file(cx, pid, fd)?.0.path.clone();
                Ok(LinkTarget::Magic { shown: show(cx, &to), to })
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(self: Rc<Self>, cx: &FsContext<'_>, _flags: u32) -> Result<Rc<dyn File>, Stop> {
        match self.what {
            What::Fixed(Kind::Dir(_))
            | What::ProcRoot
            | What::Task { .. }
            | What::TaskList { .. }
            | What::NsList { .. }
            | What::FdList { .. } => Ok(Rc::new(DirFile)),
            What::Facts { file, .. } if file.mode() & 0o044 == 0 => {
                self.check_may_inspect(cx)?;
                Ok(Rc::new(ProcFile { node: self, text: RefCell::default() }))
            }
            _ => Ok(Rc::new(ProcFile { node: self, text: RefCell::default() })),
        }
    }

    fn space(&self, _cx: &FsContext<'_>) -> FsSpace {
        FsSpace::default()
    }
}

/// Texts up to this long are kept between reads, by each file.
const KEPT_TEXT: usize = 4096;

/// And up to this long if no other long one is read meanwhile.
const KEPT_LONG_TEXT: usize = 4 << 20;

/// An open file of the tree. A read from the start makes the text anew.
struct ProcFile {
    node: Rc<Node>,
    text: RefCell<Kept>,
}

#[derive(Default)]
enum Kept {
    #[default]
    Nothing,
    Here(Rc<Vec<u8>>),
    /// As [`LastLong`].
    WhileLast(Weak<Vec<u8>>),
}

impl ProcFile {
    fn kept(&self) -> Option<Rc<Vec<u8>>> {
        match &*self.text.borrow() {
            Kept::Nothing => None,
            Kept::Here(text) => Some(text.clone()),
            Kept::WhileLast(text) => text.upgrade(),
        }
    }

    fn keep(&self, text: &Rc<Vec<u8>>) {
        let kept = if text.len() <= KEPT_TEXT {
            Kept::Here(text.clone())
        } else if text.len() <= KEPT_LONG_TEXT {
            *self.node.last_long.borrow_mut() = Some(text.clone());
            Kept::WhileLast(Rc::downgrade(text))
        } else {
            Kept::Nothing
        };
        *self.text.borrow_mut() = kept;
    }
}

impl Drop for ProcFile {
    fn drop(&mut self) {
        let own = self.kept();
        let mut last = self.node.last_long.borrow_mut();
        if last.as_ref().zip(own.as_ref()).is_some_and(|(last, own)| Rc::ptr_eq(last, own)) {
            *last = None;
        }
    }
}

impl File for ProcFile {
    fn read(&self, cx: &FsContext<'_>, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let kept = if offset == 0 { None } else { self.kept() };
        let text = match kept {
            Some(text) => text,
            None => {
                let text = Rc::new(self.node.text(cx)?);
                self.keep(&text);
                text
            }
        };
        let rest = usize::try_from(offset).ok().and_then(|offset| text.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write(&self, cx: &FsContext<'_>, _offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let What::Facts { pid, tid, file } = self.node.what else { return Err(Errno::EPERM) };
        file.write(cx, pid, tid, data)?;
        Ok(data.len())
    }

    /// The text is made while it is read: where it ends is not known before.
    fn seek(&self, to: std::io::SeekFrom) -> Option<Result<u64, Errno>> {
        matches!(to, std::io::SeekFrom::End(_)).then_some(Err(Errno::EINVAL))
    }
}
