//! A checkpoint as a plain directory.

use super::{Entry, Source};
use crate::failure::{Doing, Failure, Kind};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of a file that are asked for before its size is.
const SMALL: usize = 4096;

/// A directory that a tree was copied into.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// The tree in this directory.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Directory(path.into())
    }

    fn list(&self, below: &str, entries: &mut Vec<Entry>) -> Result<(), Failure> {
        let directory = self.0.join(below);
        let doing = || format!("{}: listing", directory.display());
        for entry in fs::read_dir(&directory).doing(doing)? {
            let entry = entry.doing(doing)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = if below.is_empty() { name.into_owned() } else { format!("{below}/{name}") };
            let metadata = fs::metadata(entry.path()).doing(|| format!("{}: looking", entry.path().display()))?;
            if metadata.is_dir() {
                entries.push(Entry { path: path.clone(), size: None });
                self.list(&path, entries)?;
            } else {
                entries.push(Entry { path, size: Some(metadata.len()) });
            }
        }
        Ok(())
    }
}

impl Source for Directory {
    fn entries(&self) -> Result<Vec<Entry>, Failure> {
        let mut entries = Vec::new();
        self.list("", &mut entries)?;
        entries.sort();
        Ok(entries)
    }

    fn size(&self, path: &str) -> Option<u64> {
        fs::metadata(self.0.join(path)).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len())
    }

    // In one look at the path: an image of a thousand threads has nine thousand files.
    fn read(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let missing = || Failure::new(Kind::NotFound, format!("{path}: missing"));
        // O_NONBLOCK: what stands there may be a fifo.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(self.0.join(path));
        let file = match opened {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(missing());
            }
            other => other.doing(|| format!("{path}: opening"))?,
        };
        // Most files fit into the first read, and what it does not fill has ended.
        let mut start = [0; SMALL];
        let length = match (&file).read(&mut start) {
            Err(error) if error.kind() == ErrorKind::IsADirectory => return Err(missing()),
            read => read.doing(|| format!("{path}: reading"))?,
        };
        let mut bytes = start[..length].to_vec();
        if length < SMALL && length > 0 {
            return Ok(bytes);
        }
        let metadata = file.metadata().doing(|| format!("{path}: looking"))?;
        if !metadata.is_file() {
            return Err(missing());
        }
        let rest = metadata.len().saturating_sub(length as u64);
        bytes.reserve_exact(usize::try_from(rest).unwrap_or(0));
        // Of a plain file the library would ask for size and position once more, and then for more than there is.
        file.take(rest).read_to_end(&mut bytes).doing(|| format!("{path}: reading"))?;
        Ok(bytes)
    }

    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        let place: &Path = &self.0.join(path);
        let read = File::open(place).and_then(|file| file.read_exact_at(buffer, offset));
        read.doing(|| format!("{path}: reading {} bytes at {offset}", buffer.len()))
    }
}
