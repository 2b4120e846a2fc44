//! A tree of files as path_resolution(7) and the calls on names describe it: resolved string by string, without caches,
//! layers or shared structure.

use std::collections::BTreeMap;

use lg_abi::Errno;
use lg_abi::raw::general::{RENAME_EXCHANGE, RENAME_NOREPLACE};

pub type Id = usize;

#[derive(Clone, Debug)]
pub enum Kind {
    Dir(BTreeMap<String, Id>),
    File(Vec<u8>),
    Link(String),
}

#[derive(Clone, Debug)]
pub struct Node {
    pub kind: Kind,
    /// Names of it, for what is no directory.
    pub links: u32,
    /// The directory that a directory lies in; the root of a file system names itself.
    parent: Id,
    /// Which file system it is on.
    fs: usize,
    /// What is mounted here, and where the root of a file system is mounted.
    covered_by: Option<Id>,
    covers: Option<Id>,
    removed: bool,
}

/// The last component of a path.
enum Last<'a> {
    Name(&'a str),
    Dot,
    DotDot,
    Root,
}

/// The directory of the last component, that, and whether a slash is behind it.
struct Found<'a> {
    dir: Id,
    last: Last<'a>,
    slash: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Follow {
    Yes,
    No,
}

pub struct Tree {
    pub nodes: Vec<Node>,
    pub cwd: Id,
    file_systems: usize,
}

const ROOT: Id = 0;
const MAX_LINKS: u32 = 40;

impl Tree {
    pub fn new() -> Tree {
        let mut tree = Tree { nodes: Vec::new(), cwd: ROOT, file_systems: 1 };
        tree.add(Kind::Dir(BTreeMap::new()), ROOT, 0);
        tree
    }

    fn add(&mut self, kind: Kind, parent: Id, fs: usize) -> Id {
        let node = Node { kind, links: 1, parent, fs, covered_by: None, covers: None, removed: false };
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    pub fn is_dir(&self, id: Id) -> bool {
        matches!(self.nodes[id].kind, Kind::Dir(_))
    }

    pub fn is_removed(&self, id: Id) -> bool {
        self.nodes[id].removed
    }

    fn entries(&mut self, id: Id) -> &mut BTreeMap<String, Id> {
        match &mut self.nodes[id].kind {
            Kind::Dir(entries) => entries,
            _ => panic!("node {id} is no directory"),
        }
    }

    fn cross(&self, mut id: Id) -> Id {
        while let Some(root) = self.nodes[id].covered_by {
            id = root;
        }
        id
    }

    /// What has this name in a directory, without what is mounted on it.
    fn entry(&self, dir: Id, name: &str) -> Result<Id, Errno> {
        let Kind::Dir(entries) = &self.nodes[dir].kind else { return Err(Errno::ENOTDIR) };
        if name.len() > 255 {
            return Err(Errno::ENAMETOOLONG);
        }
        entries.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn climb(&self, mut at: Id) -> Id {
        loop {
            if at == ROOT {
                return at;
            }
            match self.nodes[at].covers {
                Some(point) => at = point,
                None => return self.cross(self.nodes[at].parent),
            }
        }
    }

    /// Walks to the last component of a path that is walked from `at`.
    fn to_last<'a>(&self, at: Id, path: &'a str, links: &mut u32) -> Result<Found<'a>, Errno> {
        let mut dir = if path.starts_with('/') { ROOT } else { at };
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let Some((last, before)) = names.split_last() else {
            return Ok(Found { dir, last: Last::Root, slash: false });
        };
        for name in before {
            dir = self.step(dir, name, links)?;
        }
        if !self.is_dir(dir) {
            return Err(Errno::ENOTDIR);
        }
        let slash = path.ends_with('/');
        let last = match *last {
            "." => Last::Dot,
            ".." => Last::DotDot,
            name => Last::Name(name),
        };
        Ok(Found { dir, last, slash })
    }

    fn step(&self, dir: Id, name: &str, links: &mut u32) -> Result<Id, Errno> {
        if !self.is_dir(dir) {
            return Err(Errno::ENOTDIR);
        }
        match name {
            "." => Ok(dir),
            ".." => Ok(self.climb(dir)),
            _ => self.follow(dir, self.cross(self.entry(dir, name)?), links),
        }
    }

    /// Goes to the end of a chain of links; `dir` is where the first lies.
    fn follow(&self, dir: Id, id: Id, links: &mut u32) -> Result<Id, Errno> {
        let Kind::Link(target) = &self.nodes[id].kind else { return Ok(id) };
        *links += 1;
        if *links > MAX_LINKS {
            return Err(Errno::ELOOP);
        }
        self.walk(dir, target, Follow::Yes, links)
    }

    fn walk(&self, at: Id, path: &str, follow: Follow, links: &mut u32) -> Result<Id, Errno> {
        let found = self.to_last(at, path, links)?;
        let id = match found.last {
            Last::Root | Last::Dot => found.dir,
            Last::DotDot => self.climb(found.dir),
            Last::Name(name) => {
                let id = self.cross(self.entry(found.dir, name)?);
                if follow == Follow::Yes || found.slash { self.follow(found.dir, id, links)? } else { id }
            }
        };
        if found.slash && !self.is_dir(id) { Err(Errno::ENOTDIR) } else { Ok(id) }
    }

    fn check_path(path: &str) -> Result<(), Errno> {
        if path.is_empty() { Err(Errno::ENOENT) } else { Ok(()) }
    }

    /// stat(2)
    pub fn resolve(&self, path: &str) -> Result<Id, Errno> {
        Tree::check_path(path)?;
        self.walk(self.cwd, path, Follow::Yes, &mut 0)
    }

    /// lstat(2)
    pub fn resolve_link(&self, path: &str) -> Result<Id, Errno> {
        Tree::check_path(path)?;
        self.walk(self.cwd, path, Follow::No, &mut 0)
    }

    fn last_of<'a>(&self, path: &'a str) -> Result<Found<'a>, Errno> {
        Tree::check_path(path)?;
        self.to_last(self.cwd, path, &mut 0)
    }

    fn insert(&mut self, dir: Id, name: &str, kind: Kind) -> Result<Id, Errno> {
        if self.nodes[dir].removed {
            return Err(Errno::ENOENT);
        }
        let id = self.add(kind, dir, self.nodes[dir].fs);
        self.entries(dir).insert(name.to_owned(), id);
        Ok(id)
    }

    /// The directory and the name that something new is to have.
    fn new_name<'a>(&self, path: &'a str, is_dir: bool) -> Result<(Id, &'a str), Errno> {
        let found = self.last_of(path)?;
        let Last::Name(name) = found.last else { return Err(Errno::EEXIST) };
        match self.entry(found.dir, name) {
            Ok(_) => Err(Errno::EEXIST),
            Err(Errno::ENOENT) if found.slash && !is_dir => Err(Errno::ENOENT),
            Err(Errno::ENOENT) => Ok((found.dir, name)),
            Err(errno) => Err(errno),
        }
    }

    /// mkdir(2)
    pub fn mkdir(&mut self, path: &str) -> Result<(), Errno> {
        let (dir, name) = self.new_name(path, true)?;
        self.insert(dir, name, Kind::Dir(BTreeMap::new())).map(drop)
    }

    /// symlink(2)
    pub fn symlink(&mut self, target: &str, path: &str) -> Result<(), Errno> {
        let (dir, name) = self.new_name(path, false)?;
        self.insert(dir, name, Kind::Link(target.to_owned())).map(drop)
    }

    /// link(2)
    pub fn link(&mut self, old: &str, new: &str) -> Result<(), Errno> {
        let id = self.resolve_link(old)?;
        let (dir, name) = self.new_name(new, false)?;
        if self.nodes[id].fs != self.nodes[dir].fs {
            return Err(Errno::EXDEV);
        }
        if self.is_dir(id) {
            return Err(Errno::EPERM);
        }
        if self.nodes[dir].removed {
            return Err(Errno::ENOENT);
        }
        self.entries(dir).insert(name.to_owned(), id);
        self.nodes[id].links += 1;
        Ok(())
    }

    /// open(2) with O_WRONLY | O_CREAT
    pub fn open_new(&mut self, path: &str) -> Result<Id, Errno> {
        Tree::check_path(path)?;
        let mut links = 0;
        let (mut at, mut path) = (self.cwd, path.to_owned());
        loop {
            let found = self.to_last(at, &path, &mut links)?;
            let Last::Name(name) = found.last else { return Err(Errno::EISDIR) };
            if found.slash {
                return Err(Errno::EISDIR);
            }
            let id = match self.entry(found.dir, name) {
                Ok(id) => self.cross(id),
                Err(Errno::ENOENT) => {
                    return self.insert(found.dir, name, Kind::File(Vec::new()));
                }
                Err(errno) => return Err(errno),
            };
            match &self.nodes[id].kind {
                Kind::Dir(_) => return Err(Errno::EISDIR),
                Kind::File(_) => return Ok(id),
                Kind::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::ELOOP);
                    }
                    (at, path) = (found.dir, target.clone());
                }
            }
        }
    }

    /// The contents of a file that is there.
    pub fn file(&mut self, path: &str) -> Result<&mut Vec<u8>, Errno> {
        let id = self.resolve(path)?;
        match &mut self.nodes[id].kind {
            Kind::File(bytes) => Ok(bytes),
            _ => Err(Errno::EISDIR),
        }
    }

    fn drop_name(&mut self, dir: Id, name: &str, id: Id) {
        self.entries(dir).remove(name);
        self.nodes[id].links -= 1;
        self.nodes[id].removed = self.is_dir(id);
    }

    /// unlink(2)
    pub fn unlink(&mut self, path: &str) -> Result<(), Errno> {
        let found = self.last_of(path)?;
        let Last::Name(name) = found.last else { return Err(Errno::EISDIR) };
        let id = self.entry(found.dir, name)?;
        match (self.is_dir(id), found.slash) {
            (true, _) => Err(Errno::EISDIR),
            (false, true) => Err(Errno::ENOTDIR),
            (false, false) => {
                self.drop_name(found.dir, name, id);
                Ok(())
            }
        }
    }

    /// rmdir(2)
    pub fn rmdir(&mut self, path: &str) -> Result<(), Errno> {
        let found = self.last_of(path)?;
        let name = match found.last {
            Last::Name(name) => name,
            Last::DotDot => return Err(Errno::ENOTEMPTY),
            Last::Dot => return Err(Errno::EINVAL),
            Last::Root => return Err(Errno::EBUSY),
        };
        let id = self.entry(found.dir, name)?;
        self.check_removable(id, true)?;
        self.drop_name(found.dir, name, id);
        Ok(())
    }

    /// Whether a name may go, or be replaced by a directory or by something else.
    fn check_removable(&self, id: Id, by_dir: bool) -> Result<(), Errno> {
        match (&self.nodes[id].kind, by_dir) {
            (Kind::Dir(_), false) => Err(Errno::EISDIR),
            (Kind::File(_) | Kind::Link(_), true) => Err(Errno::ENOTDIR),
            (Kind::Dir(_), true) if self.nodes[id].covered_by.is_some() => Err(Errno::EBUSY),
            (Kind::Dir(entries), true) if !entries.is_empty() => Err(Errno::ENOTEMPTY),
            _ => Ok(()),
        }
    }

    fn is_within(&self, mut id: Id, other: Id) -> bool {
        loop {
            if id == other {
                return true;
            }
            match self.nodes[id].parent {
                parent if parent == id => return false,
                parent => id = parent,
            }
        }
    }

    /// renameat2(2)
    pub fn rename(&mut self, old: &str, new: &str, flags: u32) -> Result<(), Errno> {
        let exchange = flags & RENAME_EXCHANGE != 0;
        let keeps = flags & RENAME_NOREPLACE != 0;
        let (from, to) = (self.last_of(old)?, self.last_of(new)?);
        if self.nodes[from.dir].fs != self.nodes[to.dir].fs {
            return Err(Errno::EXDEV);
        }
        let Last::Name(old_name) = from.last else { return Err(Errno::EBUSY) };
        let Last::Name(new_name) = to.last else {
            return Err(if keeps { Errno::EEXIST } else { Errno::EBUSY });
        };
        let id = self.entry(from.dir, old_name)?;
        let replaced = match self.entry(to.dir, new_name) {
            Ok(_) if keeps => return Err(Errno::EEXIST),
            Ok(id) => Some(id),
            Err(Errno::ENOENT) if !exchange => None,
            Err(errno) => return Err(errno),
        };
        let is_dir = self.is_dir(id);
        let slash_wrong = match replaced {
            Some(other) if exchange => from.slash && !is_dir || to.slash && !self.is_dir(other),
            _ => !is_dir && (from.slash || to.slash),
        };
        if slash_wrong {
            return Err(Errno::ENOTDIR);
        }
        if self.is_within(to.dir, id) {
            return Err(Errno::EINVAL);
        }
        if replaced.is_some_and(|replaced| self.is_within(from.dir, replaced)) {
            return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        if replaced == Some(id) {
            return Ok(());
        }
        if self.nodes[to.dir].removed {
            return Err(Errno::ENOENT);
        }
        let covered = |id: Id| self.nodes[id].covered_by.is_some();
        match replaced {
            Some(other) if exchange && (covered(id) || covered(other)) => return Err(Errno::EBUSY),
            Some(other) if !exchange => {
                // A directory in the way is found to be a mount point before it is found to be full.
                match self.check_removable(other, is_dir) {
                    Err(Errno::ENOTEMPTY) if covered(id) => return Err(Errno::EBUSY),
                    answer => answer?,
                }
            }
            _ => {}
        }
        if covered(id) {
            return Err(Errno::EBUSY);
        }
        self.entries(from.dir).remove(old_name);
        if let Some(replaced) = replaced {
            if exchange {
                self.entries(from.dir).insert(old_name.to_owned(), replaced);
                if self.is_dir(replaced) {
                    self.nodes[replaced].parent = from.dir;
                }
            } else {
                self.drop_name(to.dir, new_name, replaced);
            }
        }
        self.entries(to.dir).insert(new_name.to_owned(), id);
        if is_dir {
            self.nodes[id].parent = to.dir;
        }
        Ok(())
    }

    /// Mounts an empty file system on a directory.
    pub fn mount(&mut self, id: Id) {
        let fs = self.file_systems;
        self.file_systems += 1;
        let root = self.add(Kind::Dir(BTreeMap::new()), 0, fs);
        self.nodes[root].parent = root;
        self.nodes[root].covers = Some(id);
        self.nodes[id].covered_by = Some(root);
    }

    /// The names in a directory, sorted.
    pub fn list(&self, path: &str) -> Result<Vec<String>, Errno> {
        match &self.nodes[self.resolve(path)?].kind {
            Kind::Dir(entries) => Ok(entries.keys().cloned().collect()),
            _ => Err(Errno::ENOTDIR),
        }
    }
}
