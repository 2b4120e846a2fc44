//! The path walk and the file system in memory, alone and over host directories, against a model ([`model`]): random calls
//! on names, of which each must answer as the model does.

mod model;

use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::raw::general::{O_CREAT, O_RDWR, O_TRUNC, O_WRONLY, S_IFDIR, S_IFMT, S_IFREG};
use proptest::prelude::*;

use self::model::{Id, Kind, Tree};
use crate::fs::memfs::{MemFs, MemLimits};
use crate::vfs::testing::{TempDir, World};
use crate::vfs::{FileDescription, MountFlags, NewInode, ops};

#[derive(Clone, Debug)]
enum Op {
    Mkdir(String),
    Symlink(String, String),
    Link(String, String),
    /// Writes a new file, or over an old one from its start.
    Write(String, u8, usize),
    WriteAt(String, u64, u8),
    Truncate(String, u64),
    Read(String),
    Unlink(String),
    Rmdir(String),
    Rename(String, String, u32),
    List(String),
    Stat(String),
    LinkStat(String),
    Chdir(String),
    Mount(String),
    /// Keeps a file open.
    Hold(String),
    /// What only shows the lower layer is dropped.
    Shrink,
}

/// Calls on paths of one kind. `walks`: whether directories change, too, and file systems are mounted.
fn op(path: fn() -> BoxedStrategy<String>, walks: bool) -> impl Strategy<Value = Op> {
    let rare = u32::from(walks);
    let flags = prop_oneof![4 => Just(0u32), 1 => Just(1), 2 => Just(2)];
    let size = prop_oneof![0usize..20, 4000usize..9000];
    prop_oneof![
        6 => path().prop_map(Op::Mkdir),
        2 + 2 * rare => (path(), path()).prop_filter_map("a target is not empty", |(target, at)| {
            (!target.is_empty()).then_some(Op::Symlink(target, at))
        }),
        2 => (path(), path()).prop_map(|(old, new)| Op::Link(old, new)),
        5 => (path(), any::<u8>(), size).prop_map(|(at, byte, len)| Op::Write(at, byte, len)),
        2 => (path(), 0u64..9000, any::<u8>()).prop_map(|(at, offset, byte)| Op::WriteAt(at, offset, byte)),
        1 => (path(), 0u64..9000).prop_map(|(at, size)| Op::Truncate(at, size)),
        2 => path().prop_map(Op::Read),
        3 => path().prop_map(Op::Unlink),
        3 => path().prop_map(Op::Rmdir),
        6 => (path(), path(), flags).prop_map(|(old, new, flags)| Op::Rename(old, new, flags)),
        2 => path().prop_map(Op::List),
        2 => path().prop_map(Op::Stat),
        2 => path().prop_map(Op::LinkStat),
        2 * rare + 1 - rare => path().prop_map(Op::Chdir),
        rare + 1 => path().prop_map(move |at| if walks { Op::Mount(at) } else { Op::Shrink }),
        2 => path().prop_map(Op::Hold),
    ]
}

/// Paths with everything that a walk has to deal with.
fn crooked_path() -> BoxedStrategy<String> {
    let part = prop_oneof![
        8 => prop::sample::select(&["a", "b", "c"][..]),
        2 => Just(".."),
        1 => Just("."),
        1 => Just(""),
    ];
    let long = "x".repeat(256);
    let tail =
        prop_oneof![8 => Just(String::new()), 2 => Just("/".to_owned()), 1 => Just(format!("/{long}"))];
    (any::<bool>(), prop::collection::vec(part, 0..5), tail)
        .prop_map(|(absolute, parts, tail)| {
            format!("{}{}{tail}", if absolute { "/" } else { "" }, parts.join("/"))
        })
        .boxed()
}

/// Paths of a small tree.
fn straight_path() -> BoxedStrategy<String> {
    prop::collection::vec(prop::sample::select(&["a", "b", "c", "d"][..]), 1..4)
        .prop_map(|parts| format!("/{}", parts.join("/")))
        .boxed()
}

struct Bench {
    world: World,
    mem: Rc<MemFs>,
    tree: Tree,
    held: Vec<(Rc<FileDescription>, Id)>,
}

impl Bench {
    /// Returns an empty tree, or one over a host directory with these files, links and directories.
    fn new(lower: Option<&TempDir>, made: &[Op]) -> Result<Bench, TestCaseError> {
        let (world, mem) = World::with_memfs(4096, MemLimits::default(), lower);
        let mut bench = Bench { world, mem, tree: Tree::new(), held: Vec::new() };
        made.iter().for_each(|op| drop(bench.model(op)));
        Ok(bench)
    }

    fn model(&mut self, op: &Op) -> Result<Vec<String>, Errno> {
        let tree = &mut self.tree;
        let nothing = |answer: Result<(), Errno>| answer.map(|()| Vec::new());
        match op {
            Op::Mkdir(at) => nothing(tree.mkdir(at)),
            Op::Symlink(target, at) => nothing(tree.symlink(target, at)),
            Op::Link(old, new) => nothing(tree.link(old, new)),
            Op::Write(at, byte, len) => nothing(tree.open_new(at).map(|id| {
                tree.nodes[id].kind = Kind::File(vec![*byte; *len]);
            })),
            Op::WriteAt(at, offset, byte) => nothing(tree.file(at).map(|bytes| {
                let end = *offset as usize + 1;
                bytes.resize(bytes.len().max(end), 0);
                bytes[end - 1] = *byte;
            })),
            Op::Truncate(at, size) => nothing(tree.file(at).map(|bytes| bytes.resize(*size as usize, 0))),
            Op::Read(at) => tree.file(at).map(|bytes| vec![brief(bytes)]),
            Op::Unlink(at) => nothing(tree.unlink(at)),
            Op::Rmdir(at) => nothing(tree.rmdir(at)),
            Op::Rename(old, new, flags) => nothing(tree.rename(old, new, *flags)),
            Op::List(at) => tree.list(at),
            Op::Stat(at) => tree.resolve(at).map(|id| vec![tree.looks(id)]),
            Op::LinkStat(at) => tree.resolve_link(at).map(|id| vec![tree.looks(id)]),
            Op::Chdir(at) => nothing(tree.resolve(at).map(|id| {
                if tree.is_dir(id) {
                    tree.cwd = id;
                }
            })),
            Op::Mount(at) => nothing(tree.resolve(at).map(|id| {
                if tree.may_mount(id) {
                    tree.mount(id);
                }
            })),
            Op::Hold(at) => nothing(tree.file(at).map(drop)),
            Op::Shrink => Ok(Vec::new()),
        }
    }

    fn real(&mut self, op: &Op) -> Result<Vec<String>, Errno> {
        let world = &self.world;
        let nothing = |answer: Result<(), Errno>| answer.map(|()| Vec::new());
        match op {
            Op::Mkdir(at) => nothing(world.mkdir(at).map(drop)),
            Op::Symlink(target, at) => {
                nothing(world.create(at, NewInode::Symlink(target.as_bytes().to_vec()), 0).map(drop))
            }
            Op::Link(old, new) => nothing(world.link(old, new)),
            Op::Write(at, byte, len) => {
                let file = world.open(at, O_WRONLY | O_CREAT | O_TRUNC)?;
                if *len > 0 {
                    let written = file.file.write(&world.cx(), 0, &vec![*byte; *len])?;
                    assert_eq!(written, *len);
                }
                Ok(Vec::new())
            }
            Op::WriteAt(at, offset, byte) => nothing(world.write_at(at, *offset, &[*byte]).map(drop)),
            Op::Truncate(at, size) => {
                nothing(world.path(at).and_then(|path| ops::truncate(&world.cx(), &path, *size)))
            }
            Op::Read(at) => world.read(at).map(|bytes| vec![brief(&bytes)]),
            Op::Unlink(at) => nothing(world.unlink(at)),
            Op::Rmdir(at) => nothing(world.rmdir(at)),
            Op::Rename(old, new, flags) => nothing(world.rename(old, new, *flags)),
            Op::List(at) => world.list(at),
            Op::Stat(at) => self.looks(&world.path(at)?),
            Op::LinkStat(at) => self.looks(&world.link_path(at)?),
            Op::Chdir(at) => {
                let path = world.path(at)?;
                if path.inode().attr(&world.cx())?.mode & S_IFMT == S_IFDIR {
                    self.world.fs.cwd = path;
                }
                Ok(Vec::new())
            }
            Op::Mount(at) => {
                let path = world.path(at)?;
                let id = self.tree.resolve(at).expect("the model has it, too");
                if self.tree.may_mount(id) {
                    let limits = MemLimits::default();
                    MemFs::mount_tmpfs(&world.cx(), &world.vfs, path, 0o777, MountFlags::empty(), limits)?;
                }
                Ok(Vec::new())
            }
            Op::Hold(at) => {
                let id = self.tree.resolve(at);
                let file = world.open(at, O_RDWR)?;
                self.held.push((file, id.expect("the model has it, too")));
                Ok(Vec::new())
            }
            Op::Shrink => {
                self.mem.shrink();
                world.vfs.reclaim(4);
                Ok(Vec::new())
            }
        }
    }

    fn looks(&self, path: &crate::vfs::Path) -> Result<Vec<String>, Errno> {
        let attr = path.inode().attr(&self.world.cx())?;
        Ok(vec![match attr.mode & S_IFMT {
            S_IFDIR => "directory".to_owned(),
            S_IFREG => format!("file of {} bytes with {} names", attr.size, attr.nlink),
            _ => format!("link of {} bytes with {} names", attr.size, attr.nlink),
        }])
    }

    fn run(&mut self, ops: &[Op]) -> Result<(), TestCaseError> {
        for op in ops {
            // A mount asks the model where it is before that changes.
            let (is, should_be) = match op {
                Op::Mount(_) => {
                    let is = self.real(op);
                    (is, self.model(op))
                }
                _ => {
                    let should_be = self.model(op);
                    (self.real(op), should_be)
                }
            };
            prop_assert_eq!(is, should_be, "{:?}", op);
        }
        self.check_held()?;
        let below = self.tree.dump();
        prop_assert_eq!(self.dump("/")?, below);
        Ok(())
    }

    /// What was kept open has the contents that it should have, with a name or without.
    fn check_held(&self) -> Result<(), TestCaseError> {
        for (file, id) in &self.held {
            let Kind::File(expected) = &self.tree.nodes[*id].kind else { panic!("only files are held") };
            let mut bytes = vec![0; 20_000];
            let len = file.file.read(&self.world.cx(), 0, &mut bytes);
            prop_assert_eq!(len.map(|len| brief(&bytes[..len])), Ok(brief(expected)));
        }
        Ok(())
    }

    /// Writes down the whole tree.
    fn dump(&self, at: &str) -> Result<Vec<String>, TestCaseError> {
        let failed = |errno: Errno| TestCaseError::fail(format!("{at}: {errno:?}"));
        let mut lines = Vec::new();
        for name in self.world.list(at).map_err(failed)? {
            let path = format!("{at}{name}");
            let found = self.world.link_path(&path).map_err(failed)?;
            let looks = self.looks(&found).map_err(failed)?.join("");
            if looks == "directory" {
                lines.push(format!("{path}: {looks}"));
                lines.extend(self.dump(&format!("{path}/"))?);
            } else if looks.starts_with("file") {
                lines.push(format!("{path}: {looks}, {}", brief(&self.world.read(&path).map_err(failed)?)));
            } else {
                lines.push(format!("{path}: {looks}"));
            }
        }
        Ok(lines)
    }
}

impl Tree {
    fn looks(&self, id: Id) -> String {
        let node = &self.nodes[id];
        match &node.kind {
            Kind::Dir(_) => "directory".to_owned(),
            Kind::File(bytes) => format!("file of {} bytes with {} names", bytes.len(), node.links),
            Kind::Link(target) => format!("link of {} bytes with {} names", target.len(), node.links),
        }
    }

    /// The root stays free, as a process keeps the one that it has, and what was removed can be no mount point.
    fn may_mount(&self, id: Id) -> bool {
        self.is_dir(id) && id != 0 && !self.is_removed(id) && self.nodes.len() < 200
    }

    fn dump(&self) -> Vec<String> {
        let mut lines = Vec::new();
        self.dump_below("/", 0, &mut lines);
        lines
    }

    fn dump_below(&self, at: &str, dir: Id, lines: &mut Vec<String>) {
        let Kind::Dir(entries) = &self.nodes[dir].kind else { return };
        for (name, id) in entries {
            let path = format!("{at}{name}");
            let id = self.resolve_link(&path).unwrap_or(*id);
            let looks = self.looks(id);
            match &self.nodes[id].kind {
                Kind::File(bytes) => lines.push(format!("{path}: {looks}, {}", brief(bytes))),
                _ => lines.push(format!("{path}: {looks}")),
            }
            self.dump_below(&format!("{path}/"), id, lines);
        }
    }
}

/// Contents in short: runs of equal bytes.
fn brief(bytes: &[u8]) -> String {
    let runs = bytes.chunk_by(|left, right| left == right);
    runs.map(|run| format!("{}x{}", run.len(), run[0])).collect::<Vec<_>>().join(" ")
}

/// Makes the same lower tree on the host.
fn make_lower(dir: &TempDir, made: &[Op]) {
    let at = |path: &str| dir.0.join(path.trim_start_matches('/'));
    for op in made {
        // What can not be made is not there in the model either.
        let _ = match op {
            Op::Mkdir(path) => std::fs::create_dir(at(path)),
            Op::Write(path, byte, len) => std::fs::write(at(path), vec![*byte; *len]),
            Op::Symlink(target, path) => std::os::unix::fs::symlink(target, at(path)),
            _ => Ok(()),
        };
    }
}

/// What a lower tree is made of: names that are written to once, as links to elsewhere would lead out of it.
fn lower() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => straight_path().prop_map(Op::Mkdir),
        3 => (straight_path(), any::<u8>(), 0usize..9000).prop_map(|(at, byte, len)| Op::Write(at, byte, len)),
    ];
    let link = (straight_path(), straight_path()).prop_map(|(target, at)| Op::Symlink(target, at));
    (prop::collection::vec(op, 0..25), prop::collection::vec(link, 0..4)).prop_map(|(mut ops, links)| {
        ops.extend(links);
        ops
    })
}

fn listing(dir: &TempDir) -> Vec<u8> {
    let mut find = std::process::Command::new("find");
    find.arg(&dir.0).args(["-printf", "%P %y %m %s %T@ %l\n"]).output().expect("find can be started").stdout
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn walks_and_calls_on_names_answer_as_the_model_does(
        ops in prop::collection::vec(op(crooked_path, true), 1..60),
    ) {
        Bench::new(None, &[])?.run(&ops)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    #[test]
    fn an_overlay_answers_as_one_tree_and_leaves_the_host_alone(
        made in lower(),
        ops in prop::collection::vec(op(straight_path, false), 1..60),
    ) {
        let dir = TempDir::new();
        make_lower(&dir, &made);
        let before = listing(&dir);
        Bench::new(Some(&dir), &made)?.run(&ops)?;
        prop_assert_eq!(listing(&dir), before);
    }
}

#[test]
fn an_exchange_with_a_slash_behind_a_file_is_refused() {
    let ops = [
        Op::Write("/a".into(), 1, 1),
        Op::Write("/b".into(), 2, 1),
        Op::Rename("/a".into(), "/b/".into(), 2),
    ];
    Bench::new(None, &[]).unwrap().run(&ops).unwrap();
}
