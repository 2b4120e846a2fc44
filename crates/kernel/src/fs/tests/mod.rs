//! Behaviour of the file systems and files other than the one in memory.

mod events;
mod hostfs;
mod pipes;
mod proc;
mod root;
mod streams;
mod trees;

use std::path::Path;

use super::host::Image;
use super::hostfs::HostAccess;
use super::memfs::MemLimits;
use super::root::{HostMount, RootConfig, build_root};
use crate::vfs::FsState;
use crate::vfs::testing::World;

/// Returns a world with this image and these mounts, as a sandbox has them.
fn sandbox(image: Image, mounts: &[(&Path, &str, HostAccess)]) -> World {
    let mut world = World::new();
    world.vfs = crate::vfs::Vfs::new();
    let mounts = mounts.iter().map(|(source, target, access)| HostMount {
        source: source.to_path_buf(),
        target: target.as_bytes().to_vec(),
        access: *access,
    });
    let config = RootConfig {
        image,
        mounts: mounts.collect(),
        hostname: b"box".to_vec(),
        limits: MemLimits::default(),
        shm_pages: 16,
    };
    let root = build_root(&world.cx(), &config).unwrap();
    world.fs = FsState::new(root);
    world
}
