//! The captured records on disk: every text file of a frozen tree, and what was queued in pipes, in one file.
//!
//! A container of a thousand threads has nine thousand of them. As files of their own, making them took longer than everything else
//! that a freeze does, and removing them at the thaw as long again.
//!
//! Form: the contents, one after the other; lines `SIZE PATH` (`- PATH` for a directory) in the same order; and a last line
//! `crfs-captured 2 COUNT OFFSET` of fixed length, which tells how many lines there are and where they begin. So it is written as
//! records are rendered. It is renamed into place when it is whole, and no interface: copies are taken from the mounted tree.

use crate::failure::{Doing, Failure, Kind};
use image_format::Texts;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const MAGIC: &str = "crfs-captured 2";
/// Bytes of the last line.
const LAST_LINE: u64 = 15 + 2 * 21 + 1;
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
        self.read_into(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The same, into a buffer.
    ///
    /// # Errors
    /// As read(2).
    pub fn read_into(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

fn index(file: &File, length: u64) -> io::Result<BTreeMap<String, Entry>> {
    let damaged = |what: &str| io::Error::new(ErrorKind::InvalidData, format!("it is damaged: {what}"));
    let read = |from: u64, to: u64| {
        let length = to.checked_sub(from).and_then(|length| usize::try_from(length).ok());
        let mut bytes = vec![0; length.ok_or_else(|| damaged("its length"))?];
        file.read_exact_at(&mut bytes, from)?;
        String::from_utf8(bytes).map_err(|_| damaged("the index"))
    };
    let end = length.checked_sub(LAST_LINE).ok_or_else(|| damaged("its length"))?;
    let last = read(end, length).map_err(|_| damaged("the last line"))?;
    let numbers = last.strip_prefix(MAGIC).and_then(|rest| rest.strip_suffix('\n'));
    let mut numbers =
        numbers.into_iter().flat_map(str::split_whitespace).map_while(|number| number.parse::<u64>().ok());
    let (Some(count), Some(start)) = (numbers.next(), numbers.next()) else { return Err(damaged("the last line")) };
    let mut entries = BTreeMap::new();
    let (mut at, mut lines) = (0u64, 0);
    for line in read(start, end)?.lines() {
        let (size, path) = line.split_once(' ').ok_or_else(|| damaged("the index"))?;
        let entry = match size {
            "-" => Entry::Directory,
            _ => Entry::File { offset: at, size: size.parse().map_err(|_| damaged("the index"))? },
        };
        if let Entry::File { size, .. } = entry {
            at = at.checked_add(size).ok_or_else(|| damaged("the index"))?;
        }
        entries.insert(path.to_owned(), entry);
        lines += 1;
    }
    if (at, lines) == (start, count) { Ok(entries) } else { Err(damaged("the index")) }
}

/// Where records are written before they are renamed into place.
#[must_use]
pub fn beside(place: &Path) -> PathBuf {
    place.with_extension("new")
}

/// Records on their way to the disk, beside their place.
#[derive(Debug)]
pub struct Writer {
    place: PathBuf,
    out: BufWriter<File>,
    /// Bytes of content so far.
    at: u64,
    index: String,
    entries: u64,
    /// The first write that failed: reported at the end.
    failed: Option<io::Error>,
}

impl Writer {
    /// Begins.
    ///
    /// # Errors
    /// When there is no place for them.
    pub fn create(place: &Path) -> Result<Self, Failure> {
        let new = beside(place);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
        let file = file.doing(|| format!("{}: creating the captured records", new.display()))?;
        Ok(Writer {
            place: place.to_owned(),
            out: BufWriter::with_capacity(GATHERED, file),
            at: 0,
            index: String::new(),
            entries: 0,
            failed: None,
        })
    }

    /// Adds a directory.
    pub fn directory(&mut self, path: &str) {
        self.entry(format_args!("-"), path);
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(format_args!("{}", content.len()), path);
        self.content(content);
    }

    /// Adds files whose contents follow each other.
    pub fn texts(&mut self, texts: &Texts) {
        texts.files().for_each(|(path, content)| self.entry(format_args!("{}", content.len()), path));
        self.content(texts.bytes());
    }

    fn content(&mut self, content: &[u8]) {
        self.at += content.len() as u64;
        if self.failed.is_none() {
            self.failed = self.out.write_all(content).err();
        }
    }

    fn entry(&mut self, size: fmt::Arguments<'_>, path: &str) {
        // Writing into a String cannot fail.
        let _ = fmt::Write::write_fmt(&mut self.index, format_args!("{size} {path}\n"));
        self.entries += 1;
    }

    /// Writes the rest, and puts all in place.
    ///
    /// # Errors
    /// When something could not be written; what stood at the place before stands there still.
    pub fn finish(mut self) -> Result<(), Failure> {
        let new = beside(&self.place);
        let mut written = || -> io::Result<()> {
            self.failed.take().map_or(Ok(()), Err)?;
            self.out.write_all(self.index.as_bytes())?;
            writeln!(self.out, "{MAGIC} {:20} {:20}", self.entries, self.at)?;
            self.out.flush()
        };
        written().doing(|| format!("{}: writing the captured records", new.display()))?;
        fs::rename(&new, &self.place).doing(|| format!("{}: renaming the captured records", self.place.display()))
    }
}

/// Writes records that are all there already. Directories have no content.
///
/// # Errors
/// As [`Writer`].
pub fn write<'a>(place: &Path, entries: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Result<(), Failure> {
    let mut writer = Writer::create(place)?;
    for (path, content) in entries {
        match content {
            Some(content) => writer.file(path, content),
            None => writer.directory(path),
        }
    }
    writer.finish()
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
        for (from, to) in [("4 a b", "5 a b"), ("4 a b", "x a b"), ("captured 2 ", "captured 1 "), ("   5 ", "   6 ")] {
            let other = String::from_utf8(whole.clone()).unwrap().replace(from, to);
            fs::write(&path, other).unwrap();
            Captured::open(&path).unwrap_err();
        }
    }
}
