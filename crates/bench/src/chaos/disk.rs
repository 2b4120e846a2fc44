//! A disk that becomes full while results are written: [`fill`].

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};
use serde::{Deserialize, Serialize};

use crate::write_json;

/// How large the disk is.
const DISK_BYTES: usize = 1 << 20;
/// How much of it is freed in the end.
const FREED_BYTES: usize = DISK_BYTES / 4;
/// How long a record is.
const RECORD_BYTES: usize = 20_000;
/// More records than this cannot fit.
const MOST_RECORDS: usize = 2 * DISK_BYTES / RECORD_BYTES;
/// What takes the place that is freed.
const BALLAST: &str = "ballast";

/// A small file system in memory. It is mounted at no path, only at its descriptor: whatever ends this process, it is gone.
pub(super) struct SmallDisk(OwnedFd);

impl SmallDisk {
    /// Makes it.
    ///
    /// # Errors
    /// Of fsopen(2), fsconfig(2) and fsmount(2); they need the right to mount.
    pub(super) fn new() -> io::Result<Self> {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "size", DISK_BYTES.to_string())?;
        fsconfig_create(&context)?;
        Ok(Self(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NOSUID)?))
    }

    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

/// What was seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filled {
    /// When the disk was full.
    pub(super) full: Instant,
    /// When a record had been written again.
    pub(super) restored: Instant,
    /// How many records were acknowledged, and read back whole.
    pub(super) records: usize,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    number: usize,
    text: String,
}

impl Record {
    fn new(number: usize, bytes: usize) -> Self {
        Self { number, text: number.to_string().repeat(bytes).chars().take(bytes).collect() }
    }
}

/// Records that were acknowledged, by the name of their file.
struct Journal {
    directory: PathBuf,
    acknowledged: BTreeMap<String, Record>,
}

impl Journal {
    fn write(&mut self, name: String, record: Record) -> Result<()> {
        write_json(&self.directory.join(&name), &record)?;
        self.acknowledged.insert(name, record);
        Ok(())
    }

    /// The next record under a name of its own.
    fn append(&mut self) -> Result<()> {
        let number = self.acknowledged.len();
        self.write(format!("record-{number}.json"), Record::new(number, RECORD_BYTES))
    }

    /// Everything that was acknowledged is there, whole, and nothing else is.
    fn check(&self) -> Result<()> {
        for (name, record) in &self.acknowledged {
            let bytes = fs::read(self.directory.join(name)).with_context(|| format!("{name} is lost"))?;
            let found: Record =
                serde_json::from_slice(&bytes).with_context(|| format!("{name} is not whole"))?;
            ensure!(found == *record, "{name} is another record");
        }
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            ensure!(
                name == BALLAST || self.acknowledged.contains_key(&name),
                "{name} is there, and was never acknowledged"
            );
        }
        Ok(())
    }
}

/// Writes records, with the means that result files are written with, until the disk is full; looks at what is there;
/// waits for `hold`, frees some, and writes on. Blocks the thread.
///
/// # Errors
/// What is not as it must be.
pub(super) fn fill(disk: &SmallDisk, hold: impl FnOnce()) -> Result<Filled> {
    fill_in(&disk.path(), hold)
}

fn fill_in(directory: &Path, hold: impl FnOnce()) -> Result<Filled> {
    let ballast = directory.join(BALLAST);
    fs::write(&ballast, vec![0; FREED_BYTES]).context("cannot fill the disk")?;
    let mut journal = Journal { directory: directory.to_owned(), acknowledged: BTreeMap::new() };
    let refusal = loop {
        if let Err(error) = journal.append() {
            break error;
        }
        ensure!(journal.acknowledged.len() < MOST_RECORDS, "the disk does not become full");
    };
    let full = Instant::now();
    is_full(&refusal)?;
    ensure!(!journal.acknowledged.is_empty(), "nothing fits on the disk");
    journal.check()?;
    // A record that replaces one, and is longer: the one that is there must stay.
    let longer = Record::new(0, 4 * RECORD_BYTES);
    match journal.write("record-0.json".to_owned(), longer.clone()) {
        Ok(()) => bail!("there is room for a longer record on a full disk"),
        Err(error) => is_full(&error)?,
    }
    journal.check()?;
    hold();
    fs::remove_file(&ballast).context("cannot free room on the disk")?;
    journal.append().context("there is room again, but")?;
    let restored = Instant::now();
    journal.write("record-0.json".to_owned(), longer).context("there is room again, but")?;
    journal.check()?;
    Ok(Filled { full, restored, records: journal.acknowledged.len() })
}

/// The error must say that there is no room.
fn is_full(error: &anyhow::Error) -> Result<()> {
    let errors = || error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    ensure!(
        errors().any(|error| error.kind() == io::ErrorKind::StorageFull),
        "the disk is full, but the error is: {error:#}"
    );
    Ok(())
}

/// How long the disk stays full.
pub(super) fn wait(hold: Duration, is_over: impl Fn() -> bool) {
    let started = Instant::now();
    while started.elapsed() < hold && !is_over() {
        std::thread::sleep(Duration::from_millis(5).min(hold));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Option<SmallDisk> {
        match SmallDisk::new() {
            Ok(disk) => Some(disk),
            Err(error) => {
                eprintln!("SKIPPED: a file system cannot be mounted: {error}");
                None
            }
        }
    }

    #[test]
    fn a_full_disk_loses_nothing_and_is_written_to_again() {
        let Some(disk) = disk() else { return };
        let mut was_full = false;
        let filled = fill(&disk, || was_full = true).unwrap();
        assert!(was_full && filled.full <= filled.restored);
        assert!((20..MOST_RECORDS).contains(&filled.records), "{filled:?}");
    }

    #[test]
    fn what_is_lost_or_half_written_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal { directory: directory.path().to_owned(), acknowledged: BTreeMap::new() };
        (0..3).for_each(|_| journal.append().unwrap());
        journal.check().unwrap();
        let path = directory.path().join("record-1.json");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(journal.check().unwrap_err().to_string().contains("record-1.json is not whole"));
        fs::remove_file(&path).unwrap();
        assert!(journal.check().unwrap_err().to_string().contains("record-1.json is lost"));
        fs::write(&path, whole).unwrap();
        fs::write(directory.path().join("record-9.json"), "").unwrap();
        assert!(journal.check().unwrap_err().to_string().contains("never acknowledged"));
    }

    #[test]
    fn a_disk_that_does_not_become_full_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = fill_in(directory.path(), || {}).unwrap_err();
        assert!(error.to_string().contains("does not become full"), "{error:#}");
        let other = anyhow::Error::from(io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(is_full(&other).is_err());
    }
}
