//! A small file system in memory that can be filled.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Its size is `size=512k` of tmpfs(5).
const SIZE: &std::ffi::CStr = c"size=512k,mode=700";

/// A mounted file system. Dropping it takes it away.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it on a directory.
    ///
    /// # Errors
    /// When this user may not.
    pub(crate) fn mount(directory: &Path) -> Result<Self> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("luminaguard", directory, "tmpfs", flags, SIZE)
            .context("cannot mount a small file system; root may")?;
        Ok(Self(directory.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What somebody still has open there goes away with its last descriptor.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Fills the file system of `directory` to the last byte. Answers the file that does so.
///
/// # Errors
/// When that cannot be done, or there is far more room than a small disk has.
pub(crate) fn fill(directory: &Path) -> Result<PathBuf> {
    const MOST_BLOCKS: usize = 1024;
    let path = directory.join("filler");
    let mut file = File::create(&path)?;
    for _ in 0..MOST_BLOCKS {
        match file.write_all(&[0; 4096]) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(path),
            Err(error) => return Err(error).context("cannot fill the disk"),
        }
    }
    bail!("{} is no small disk", directory.display())
}

/// Whether an error says that a disk is full.
pub(crate) fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let json = cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
        kind.or(json) == Some(ErrorKind::StorageFull)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write_json;

    #[test]
    fn a_full_disk_is_told_as_such_and_keeps_no_half_of_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let disk = match SmallDisk::mount(directory.path()) {
            Ok(disk) => disk,
            Err(error) => return eprintln!("SKIPPED: {error:#}"),
        };
        let result = directory.path().join("result.json");
        let filler = fill(directory.path()).unwrap();
        // One that fits no buffer and one that does.
        for length in [100_000, 10] {
            let error = write_json(&result, &vec![1; length]).unwrap_err();
            assert!(is_full(&error), "{error:#}");
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        std::fs::remove_file(filler).unwrap();
        write_json(&result, &[1]).unwrap();
        drop(disk);
        assert!(!result.exists());
    }

    #[test]
    fn other_errors_are_not_those_of_a_full_disk() {
        let error = write_json(Path::new("/nowhere/at/all.json"), &[1]).unwrap_err();
        assert!(!is_full(&error), "{error:#}");
    }
}
