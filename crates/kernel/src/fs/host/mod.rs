//! Views of the host's files: [`Image`]s below the root file system, and directories passed through.

mod fds;
mod image;
mod own_files;
mod tree;

pub use fds::FdCache;
pub use image::{Image, ImageError, host_paths, populate};
pub use own_files::OwnFiles;
pub(crate) use tree::OWN_IDS;
pub use tree::{
    AllowList, Audience, HostTree, LowerDir, LowerEntry, LowerFile, LowerStat, open_beneath, open_root,
    read_host_dir, to_errno,
};
