//! The captured records on disk: every text file of a frozen tree, and what was queued in pipes, in one file.
//!
//! A container of a thousand threads has nine thousand of them. As files of their own, making them took longer than everything else
//! that a freeze does, and removing them at the thaw as long again.
//!
//! Form: the line `crfs-captured 1 COUNT`; COUNT lines `SIZE PATH` (`- PATH` for a directory) in the order of their paths; the
//! contents, one after the other in that order, up to the end of the file. It is written whole and renamed into place, and no
//! interface: copies are taken from the mounted tree.

use crate::failure::{Doing, Failure, Kind};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const MAGIC: &str = "crfs-captured 1";
/// Writes are gathered to so many bytes: most files have a hundred.
const GATHERED: usize = 1 << 18;

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// Where its content begins, bytes.
        offset: u64,
        /// Its length, bytes.
        size: u64,
    },
}

/// The records of one freeze, open for reading: also after a thaw has removed their file.
#[derive(Debug)]
pub struct Captured {
    file: File,
    entries: BTreeMap<String, Entry>,
    /// When they were written: the moment of the freeze, as the tree shows it.
    pub written: SystemTime,
}

impl Captured {
    /// Opens what [`write()`] wrote. None where there is nothing.
    ///
    /// # Errors
    /// When it cannot be read or is not whole.
    pub fn open(path: &Path) -> Result<Option<Self>, Failure> {
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.doing(|| format!("{}: opening the captured records", path.display()))?,
        };
        let read = || -> io::Result<Self> {
            let metadata = file.metadata()?;
            let entries = index(&file, metadata.len())?;
            Ok(Captured { written: metadata.modified()?, entries, file: file.try_clone()? })
        };
        read().map(Some).doing(|| format!("{}: reading the captured records", path.display()))
    }

    /// Every path, sorted.
    pub fn entries(&self) -> impl Iterator<Item = (&str, Entry)> {
        self.entries.iter().map(|(path, &entry)| (path.as_str(), entry))
    }

    /// The content of a file.
    ///
    /// # Errors
    /// [`Kind::NotFound`], or that it cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let Some(&Entry::File { offset, size }) = self.entries.get(path) else {
            return Err(Failure::new(Kind::NotFound, format!("{path}: was not captured")));
        };
        self.read_at(offset, size).doing(|| format!("{path}: reading"))
    }

    /// Bytes of a file's content, by their place as [`Entry::File`] tells it.
    ///
    /// # Errors
    /// As read(2).
    pub fn read_at(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| ErrorKind::InvalidInput)?];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

fn index(file: &File, length: u64) -> io::Result<BTreeMap<String, Entry>> {
    let damaged = |what: &str| io::Error::new(ErrorKind::InvalidData, format!("it is damaged: {what}"));
    let mut lines = BufReader::new(file);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let count = line.trim_end().strip_prefix(MAGIC).and_then(|count| count.trim_start().parse::<usize>().ok());
    let count = count.ok_or_else(|| damaged("the first line"))?;
    let mut at = line.len() as u64;
    let mut sizes = Vec::new();
    for _ in 0..count {
        line.clear();
        lines.read_line(&mut line)?;
        at += line.len() as u64;
        let (size, path) = line.trim_end_matches('\n').split_once(' ').ok_or_else(|| damaged("the index"))?;
        let size = if size == "-" { None } else { Some(size.parse::<u64>().map_err(|_| damaged("the index"))?) };
        sizes.push((path.to_owned(), size));
    }
    let mut entries = BTreeMap::new();
    for (path, size) in sizes {
        let entry = match size {
            None => Entry::Directory,
            Some(size) => Entry::File { offset: at, size },
        };
        at = at.checked_add(size.unwrap_or(0)).ok_or_else(|| damaged("the index"))?;
        entries.insert(path, entry);
    }
    if at == length { Ok(entries) } else { Err(damaged("its length")) }
}

/// Where records are written before they are renamed into place.
#[must_use]
pub fn beside(place: &Path) -> PathBuf {
    place.with_extension("new")
}

/// Writes records beside their place and renames them there. Paths in order, a directory (None) before what is in it.
///
/// # Errors
/// When they cannot be written; what stood there before stands there still.
pub fn write<'a>(
    place: &Path,
    entries: impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone,
) -> Result<(), Failure> {
    let new = beside(place);
    let written = || -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let mut out = BufWriter::with_capacity(GATHERED, file);
        writeln!(out, "{MAGIC} {}", entries.clone().count())?;
        for (path, bytes) in entries.clone() {
            match bytes {
                Some(bytes) => writeln!(out, "{} {path}", bytes.len())?,
                None => writeln!(out, "- {path}")?,
            }
        }
        for bytes in entries.filter_map(|(_, bytes)| bytes) {
            out.write_all(bytes)?;
        }
        out.flush()
    };
    written().doing(|| format!("{}: writing the captured records", new.display()))?;
    fs::rename(&new, place).doing(|| format!("{}: renaming the captured records", place.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn written(dir: &Path) -> PathBuf {
        let path = dir.join("image");
        let entries: [(&str, Option<&[u8]>); 5] =
            [("a b", Some(b"12\n3")), ("d", None), ("d/empty", Some(b"")), ("d/x", Some(b"xyz")), ("e", None)];
        write(&path, entries.into_iter()).unwrap();
        path
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path());
        assert!(!beside(&path).exists());
        let captured = Captured::open(&path).unwrap().unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(captured.read("a b").unwrap(), b"12\n3");
        assert_eq!(captured.read("d/empty").unwrap(), b"");
        assert_eq!(captured.read("d/x").unwrap(), b"xyz");
        assert_eq!(captured.read("d").unwrap_err().kind, Kind::NotFound);
        let directories: Vec<&str> =
            captured.entries().filter(|(_, entry)| *entry == Entry::Directory).map(|(path, _)| path).collect();
        assert_eq!(directories, ["d", "e"]);
        assert!(Captured::open(&path).unwrap().is_none());
    }

    #[test]
    fn damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path());
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let refused = Captured::open(&path).unwrap_err().to_string();
            assert!(refused.contains("it is damaged"), "{cut}: {refused}");
        }
        for (from, to) in [("4 a b", "5 a b"), ("4 a b", "x a b"), ("captured 1 5", "captured 2 5")] {
            let other = String::from_utf8(whole.clone()).unwrap().replace(from, to);
            fs::write(&path, other).unwrap();
            Captured::open(&path).unwrap_err();
        }
    }
}
