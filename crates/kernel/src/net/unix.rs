//! Names of unix sockets (unix(7)).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use lg_abi::Errno;
use lg_abi::raw::general::{S_IFMT, S_IFSOCK};

use super::{Kind, Net, Socket, UnixName};
use crate::vfs::permission::{Access, check_access};
use crate::vfs::{Final, FsContext, FsState, NewInode, Path, ops};

/// By what a named socket is found: abstract names of each kind of socket are apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Abstract(Kind, Vec<u8>),
    /// Device and inode number.
    Inode(u64, u64),
}

/// The names of sockets.
#[derive(Default)]
pub struct Names {
    bound: RefCell<BTreeMap<Key, Weak<Socket>>>,
    next_automatic: Cell<u32>,
}

impl Names {
    fn find(&self, key: &Key) -> Option<Rc<Socket>> {
        self.bound.borrow().get(key).and_then(Weak::upgrade)
    }
}

/// A name that a socket has. It is free when this is dropped; a path stays in the file system.
pub struct BoundName {
    net: Rc<Net>,
    key: Key,
    /// Keeps the inode, so that its number is not another's.
    _path: Option<Path>,
}

impl BoundName {
    fn new(socket: &Rc<Socket>, net: &Rc<Net>, key: Key, path: Option<Path>) -> BoundName {
        net.names.bound.borrow_mut().insert(key.clone(), Rc::downgrade(socket));
        BoundName { net: net.clone(), key, _path: path }
    }
}

impl Drop for BoundName {
    fn drop(&mut self) {
        self.net.names.bound.borrow_mut().remove(&self.key);
    }
}

/// Gives a socket a name; one without a name gets an abstract one of five digits.
///
/// Errors: EADDRINUSE; those of mknod(2) for a path.
pub fn bind(
    cx: &FsContext<'_>,
    fs: &FsState,
    socket: &Rc<Socket>,
    name: UnixName,
) -> Result<(UnixName, BoundName), Errno> {
    let net = cx.vfs.net();
    match name {
        UnixName::Unnamed => {
            let name = automatic_name(net, socket.kind)?;
            let key = Key::Abstract(socket.kind, name.clone());
            Ok((UnixName::Abstract(name), BoundName::new(socket, net, key, None)))
        }
        UnixName::Abstract(name) => {
            let key = Key::Abstract(socket.kind, name.clone());
            if net.names.find(&key).is_some() {
                return Err(Errno::EADDRINUSE);
            }
            Ok((UnixName::Abstract(name), BoundName::new(socket, net, key, None)))
        }
        UnixName::Path(path) => {
            let made = ops::create(cx, fs, &fs.cwd, &path, NewInode::Socket, 0o777);
            let place =
                made.map_err(|errno| if errno == Errno::EEXIST { Errno::EADDRINUSE } else { errno })?;
            let attr = place.inode().attr(cx)?;
            let bound = BoundName::new(socket, net, Key::Inode(attr.dev, attr.ino), Some(place));
            Ok((UnixName::Path(path), bound))
        }
    }
}

fn automatic_name(net: &Net, kind: Kind) -> Result<Vec<u8>, Errno> {
    for _ in 0..1 << 20 {
        let number = net.names.next_automatic.get();
        net.names.next_automatic.set((number + 1) & 0xfffff);
        let name = format!("{number:05x}").into_bytes();
        if net.names.find(&Key::Abstract(kind, name.clone())).is_none() {
            return Ok(name);
        }
    }
    Err(Errno::ENOSPC)
}

/// Returns the socket of that name and kind.
///
/// Errors: ECONNREFUSED where nobody has the name; EPROTOTYPE for a socket of another kind; ENOENT, EACCES.
pub fn find(cx: &FsContext<'_>, fs: &FsState, kind: Kind, name: &UnixName) -> Result<Rc<Socket>, Errno> {
    let names = &cx.vfs.net().names;
    let key = match name {
        UnixName::Unnamed => return Err(Errno::EINVAL),
        UnixName::Abstract(name) => Key::Abstract(kind, name.clone()),
        UnixName::Path(path) => {
            let place = fs.lookup(cx, path, Final::Follow)?;
            let attr = place.inode().attr(cx)?;
            check_access(cx, &attr, Access::WRITE)?;
            if attr.mode & S_IFMT != S_IFSOCK {
                return Err(Errno::ECONNREFUSED);
            }
            Key::Inode(attr.dev, attr.ino)
        }
    };
    let socket = names.find(&key).ok_or(Errno::ECONNREFUSED)?;
    if socket.kind != kind {
        return Err(Errno::EPROTOTYPE);
    }
    Ok(socket)
}
