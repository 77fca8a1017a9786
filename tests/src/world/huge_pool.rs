//! Huge pages for a test, which the machine may have none of.

use super::{PATIENCE, wait_for};
use crfs_sys::lock::flock;
use nix::errno::Errno;
use std::fs::{self, File};
use std::os::fd::AsFd;

const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// More huge pages of 2 MiB than the machine had, given back when it is dropped. One test has them at a time.
#[derive(Debug)]
pub struct HugePool {
    before: u64,
    /// Its lock ends with it.
    _file: File,
}

impl HugePool {
    /// So many pages more; None, and a word about it, where the machine has none to give.
    ///
    /// # Panics
    /// When the machine's pool cannot be read or set, or another test keeps it.
    #[must_use]
    pub fn of(pages: u64) -> Option<Self> {
        let file = File::open(POOL).expect("the pool of huge pages");
        let mut locked = Err(Errno::EWOULDBLOCK);
        wait_for(PATIENCE, || {
            locked = flock(file.as_fd(), libc::LOCK_EX);
            locked != Err(Errno::EWOULDBLOCK)
        });
        locked.expect("the pool of huge pages for this test alone");
        let pool = HugePool { before: size(), _file: file };
        fs::write(POOL, (pool.before + pages).to_string()).expect("setting the pool of huge pages");
        let there = size();
        if there < pool.before + pages {
            eprintln!("{there} huge pages of {} are there: not tested", pool.before + pages);
            return None;
        }
        Some(pool)
    }
}

impl Drop for HugePool {
    fn drop(&mut self) {
        let _ = fs::write(POOL, self.before.to_string());
    }
}

fn size() -> u64 {
    fs::read_to_string(POOL).expect("the pool of huge pages").trim().parse().expect("a number")
}
