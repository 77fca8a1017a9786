//! The numbers of rings: descriptors and mappings name one alike.

use std::collections::BTreeMap;

/// The rings of a container, by the inode that each has for itself (`io_uring_get_file` in io_uring/io_uring.c, v6.18).
#[derive(Debug, Default)]
pub struct Rings {
    numbers: BTreeMap<u64, u32>,
    /// Those that a descriptor leads to, with whose they are: 0, or the address of a task.
    open: BTreeMap<u32, u64>,
}

impl Rings {
    /// The number of a ring, counted from 1 in the order in which they are met.
    pub(in crate::resource) fn number(&mut self, inode: u64) -> u32 {
        let next = u32::try_from(self.numbers.len() + 1).unwrap_or(u32::MAX);
        *self.numbers.entry(inode).or_insert(next)
    }

    /// The number of a ring that a descriptor leads to. `issuer`: the address of the task that it belongs to, or 0.
    pub(in crate::resource) fn opened(&mut self, inode: u64, issuer: u64) -> u32 {
        let number = self.number(inode);
        self.open.insert(number, issuer);
        number
    }

    /// Whether a descriptor leads to it.
    pub(super) fn is_open(&self, number: u32) -> bool {
        self.open.contains_key(&number)
    }

    /// The address of the task that a ring belongs to; 0 where it belongs to none.
    pub(super) fn issuer(&self, number: u32) -> u64 {
        self.open.get(&number).copied().unwrap_or(0)
    }
}
