//! Where images lie while they are measured, and how much there is of them and of memory.

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often it is looked how much memory there is.
const LOOK: Duration = Duration::from_millis(5);

/// A tmpfs of its own, so that copies are measured against memory and not against a disk.
pub(super) struct Memory(pub(super) PathBuf);

impl Memory {
    pub(super) fn new(at: PathBuf) -> Result<Self> {
        fs::create_dir_all(&at)?;
        mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), None::<&str>).context("mounting a tmpfs")?;
        Ok(Memory(at))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Nothing more can be done about it, and the directory that stays says so.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// A directory of its own on a disk.
pub(super) struct Disk(pub(super) PathBuf);

impl Disk {
    pub(super) fn new(inside: &Path) -> Result<Self> {
        let at = inside.join(format!("crfs-benchmark-{}", std::process::id()));
        fs::create_dir_all(&at).with_context(|| at.display().to_string())?;
        Ok(Disk(at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // As above.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the files below a directory take, in bytes.
pub(super) fn size_of(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let (path, metadata) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
        bytes += if metadata.is_dir() { size_of(&path)? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

/// What the kernel has to give, in bytes.
fn available() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// What `work` needed at its worst beyond what it left behind, in bytes, and its result.
pub(super) fn memory_beyond<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut least = available();
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
                least = least.min(available());
            }
            least
        });
        let result = work();
        let after = available();
        done.store(true, Ordering::Relaxed);
        (after.saturating_sub(watcher.join().unwrap_or(after)), result)
    })
}
