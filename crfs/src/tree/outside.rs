//! Raw files whose content a container holds itself, open for reading.

use crate::resource::mount::Contents;
use nix::errno::Errno;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

/// Where such a content is read.
#[derive(Debug)]
pub(super) enum Outside {
    /// A file that a task has.
    File(File),
    /// The files of a tmpfs, one after the other.
    Mount(Contents),
}

impl Outside {
    /// Fills a buffer with what there is from `offset` on.
    ///
    /// # Errors
    /// As read(2); EIO when there is less.
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), Errno> {
        let read = match self {
            Outside::File(file) => file.read_exact_at(buffer, offset),
            Outside::Mount(contents) => contents.read_exact_at(buffer, offset),
        };
        read.map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Errno::EIO,
            _ => error.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
        })
    }
}
