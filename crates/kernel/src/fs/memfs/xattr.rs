//! Extended attributes of files in memory. Those that a file of the lower layer has on the host are not shown.

use std::cell::RefCell;
use std::collections::BTreeMap;

use lg_abi::Errno;

use super::{MemFs, MemNode};
use crate::vfs::FsContext;
use crate::vfs::xattr::XattrStore;

/// The attributes of an inode, by name.
#[derive(Default)]
pub(super) struct Xattrs(RefCell<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Xattrs {
    /// Gives back what is charged for them.
    pub(super) fn uncharge(&self, fs: &MemFs) {
        self.0.borrow().iter().for_each(|(name, value)| fs.uncharge_units(units(name, value)));
    }
}

/// Returns what an attribute costs in units of bookkeeping.
fn units(name: &[u8], value: &[u8]) -> u64 {
    1 + (name.len() + value.len()) as u64 / 512
}

impl XattrStore for MemNode {
    fn get(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.xattrs.0.borrow().get(name).cloned()
    }

    fn set(&self, cx: &FsContext<'_>, name: &[u8], value: Option<&[u8]>) -> Result<(), Errno> {
        let mut all = self.xattrs.0.borrow_mut();
        let before = all.get(name).map_or(0, |value| units(name, value));
        let after = value.map_or(0, |value| units(name, value));
        self.fs().charge_units(after.saturating_sub(before))?;
        self.fs().uncharge_units(before.saturating_sub(after));
        match value {
            Some(value) => all.insert(name.to_vec(), value.to_vec()),
            None => all.remove(name),
        };
        self.touch_inode(cx);
        Ok(())
    }

    fn names(&self) -> Vec<Vec<u8>> {
        self.xattrs.0.borrow().keys().cloned().collect()
    }
}
