//! The numbers of rings: descriptors and mappings name one alike.

use std::collections::{BTreeMap, BTreeSet};

/// The rings of a container, by the inode that each has for itself (`io_uring_get_file` in io_uring/io_uring.c, v6.18).
#[derive(Debug, Default)]
pub struct Rings {
    numbers: BTreeMap<u64, u32>,
    open: BTreeSet<u32>,
}

impl Rings {
    /// The number of a ring, counted from 1 in the order in which they are met.
    pub(in crate::resource) fn number(&mut self, inode: u64) -> u32 {
        let next = u32::try_from(self.numbers.len() + 1).unwrap_or(u32::MAX);
        *self.numbers.entry(inode).or_insert(next)
    }

    /// The number of a ring that a descriptor leads to.
    pub(in crate::resource) fn opened(&mut self, inode: u64) -> u32 {
        let number = self.number(inode);
        self.open.insert(number);
        number
    }

    /// Whether a descriptor leads to it.
    pub(super) fn is_open(&self, number: u32) -> bool {
        self.open.contains(&number)
    }
}
