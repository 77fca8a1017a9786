//! The packed stream: a whole tree as one sequence of bytes, written and read from front to back without ever seeking, so that it
//! passes through any pipe and filter.
//!
//! Its form, readable without any codec, stands in docs/FORMAT.md: a head, then sections of kind, lengths, checksum, name and content. A
//! section is verified before anything of it is used.

use super::{Entry, Progress, Source, go_on};
use crate::failure::{Doing, Failure, Kind};
use image_format::layout;
use image_format::manifest::PathKind;
use image_format::memory::CHUNK_SIZE;
use std::fs::{self, File, OpenOptions};
use std::hash::Hasher;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use twox_hash::XxHash3_64;

const MAGIC: &[u8; 10] = b"crfs-pack\n";
/// The version this program writes and reads.
pub const VERSION: u32 = 1;
/// No name is longer: an image's deepest path is far below it.
const MOST_NAME: u32 = 4096;
/// No text file is larger: the segments of 65,000 mappings take some 20 MiB.
const MOST_TEXT: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum SectionKind {
    Directory = 1,
    Text = 2,
    Raw = 3,
    Hole = 4,
    End = 255,
}

impl SectionKind {
    fn from_byte(byte: u8) -> Option<Self> {
        use SectionKind::{Directory, End, Hole, Raw, Text};
        [Directory, Text, Raw, Hole, End].into_iter().find(|&kind| kind as u8 == byte)
    }

    /// Bytes of content it may have.
    fn most(self) -> u64 {
        match self {
            SectionKind::Directory => 0,
            SectionKind::Text => MOST_TEXT,
            SectionKind::Raw => CHUNK_SIZE,
            SectionKind::Hole | SectionKind::End => 8,
        }
    }
}

/// The head of a section, as it stands in the stream.
fn header(kind: SectionKind, name: &str, content: &[u8]) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[0] = kind as u8;
    bytes[4..8].copy_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes[8..16].copy_from_slice(&(content.len() as u64).to_le_bytes());
    let sum = sum(&bytes[..16], name.as_bytes(), content);
    bytes[16..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn sum(head: &[u8], name: &[u8], content: &[u8]) -> u64 {
    let mut hasher = XxHash3_64::new();
    hasher.write(head);
    hasher.write(name);
    hasher.write(content);
    hasher.finish()
}

struct Packer<'a> {
    out: &'a mut dyn Write,
    sections: u64,
}

impl Packer<'_> {
    fn section(&mut self, kind: SectionKind, name: &str, content: &[u8]) -> Result<(), Failure> {
        go_on()?;
        let mut write = |bytes: &[u8]| self.out.write_all(bytes).doing(|| "writing the packed stream");
        write(&header(kind, name, content))?;
        write(name.as_bytes())?;
        write(content)?;
        self.sections += 1;
        Ok(())
    }

    fn raw(&mut self, source: &dyn Source, entry: &Entry, progress: &Progress) -> Result<(), Failure> {
        let size = entry.size.unwrap_or(0);
        let mut hole = 0;
        let mut at = 0;
        let mut buffer = Vec::new();
        while at < size {
            let length = CHUNK_SIZE.min(size - at);
            buffer.resize(usize::try_from(length).unwrap_or(0), 0);
            source.read_at(&entry.path, at, &mut buffer)?;
            if buffer.iter().all(|&byte| byte == 0) {
                hole += length;
            } else {
                self.hole(&entry.path, &mut hole)?;
                self.section(SectionKind::Raw, &entry.path, &buffer)?;
            }
            at += length;
            progress.advance(length);
        }
        self.hole(&entry.path, &mut hole)?;
        if size == 0 {
            self.section(SectionKind::Raw, &entry.path, &[])?;
        }
        Ok(())
    }

    fn hole(&mut self, path: &str, hole: &mut u64) -> Result<(), Failure> {
        match std::mem::take(hole) {
            0 => Ok(()),
            length => self.section(SectionKind::Hole, path, &length.to_le_bytes()),
        }
    }
}

/// Writes a tree as a packed stream.
///
/// # Errors
/// Of reading or writing; [`Kind::Interrupted`]. What was written so far has no end section and is refused by [`unpack`].
pub fn pack(source: &dyn Source, out: &mut dyn Write, progress: &Progress) -> Result<(), Failure> {
    let entries = source.entries()?;
    progress.begin(entries.iter().filter_map(|entry| entry.size).sum());
    let mut head = MAGIC.to_vec();
    head.extend(VERSION.to_le_bytes());
    out.write_all(&head).doing(|| "writing the packed stream")?;
    let mut packer = Packer { out, sections: 0 };
    let (manifest, others): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.path == layout::MANIFEST);
    for entry in manifest.into_iter().chain(others) {
        match (layout::kind(&entry.path), entry.size) {
            (None, _) => {
                let reason = format!("{}: no image has this; remove it from the directory", entry.path);
                return Err(Failure::new(Kind::BadImage, reason));
            }
            (_, None) => packer.section(SectionKind::Directory, &entry.path, &[])?,
            (Some(PathKind::Raw), Some(_)) => packer.raw(source, entry, progress)?,
            (_, Some(size)) => {
                packer.section(SectionKind::Text, &entry.path, &source.read(&entry.path)?)?;
                progress.advance(size);
            }
        }
    }
    let sections = packer.sections;
    packer.section(SectionKind::End, "", &sections.to_le_bytes())?;
    packer.out.flush().doing(|| "writing the packed stream")
}

/// A section that was read and verified.
struct Section {
    kind: SectionKind,
    name: String,
    content: Vec<u8>,
}

fn damaged(number: u64, why: impl std::fmt::Display) -> Failure {
    Failure::new(Kind::BadImage, format!("packed stream: section {number}: {why}"))
}

fn fill(input: &mut dyn Read, buffer: &mut [u8], number: u64) -> Result<(), Failure> {
    input.read_exact(buffer).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => damaged(number, "the stream is cut; pack it again"),
        _ => Failure::from_error(&error).within("reading the packed stream"),
    })
}

fn read_section(input: &mut dyn Read, number: u64) -> Result<Section, Failure> {
    go_on()?;
    let mut head = [0; 24];
    fill(input, &mut head, number)?;
    let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap_or_default());
    let name_length = u32::from_le_bytes(head[4..8].try_into().unwrap_or_default());
    let kind = SectionKind::from_byte(head[0]).filter(|_| head[1..4] == [0; 3]);
    let kind = kind.ok_or_else(|| damaged(number, "is of no kind that is known here; the stream is damaged"))?;
    if name_length > MOST_NAME || word(8) > kind.most() {
        return Err(damaged(number, "says that it is longer than any can be; the stream is damaged"));
    }
    let mut name = vec![0; name_length as usize];
    fill(input, &mut name, number)?;
    // No more than what really comes is asked of memory.
    let mut content = Vec::new();
    let read = input.take(word(8)).read_to_end(&mut content).doing(|| "reading the packed stream")?;
    if read as u64 != word(8) {
        return Err(damaged(number, "the stream is cut; pack it again"));
    }
    if sum(&head[..16], &name, &content) != word(16) {
        let name = String::from_utf8_lossy(&name).into_owned();
        return Err(damaged(number, format!("({name:?}) does not have the checksum it names; pack it again")));
    }
    let name = String::from_utf8(name).map_err(|_| damaged(number, "has a name that is no text"))?;
    Ok(Section { kind, name, content })
}

/// Reads a packed stream into a new directory `target`, which must not exist while its parent must: byte for byte the tree that was
/// packed. It is made under a name that begins with a dot and renamed when the end section was read.
///
/// # Errors
/// [`Kind::BadImage`] naming the section where the stream is cut, damaged or of another version; [`Kind::Exists`], what writing
/// meets. Nothing is left then.
pub fn unpack(input: &mut dyn Read, target: &Path) -> Result<(), Failure> {
    super::write::publish(target, |partial| {
        fs::DirBuilder::new().mode(0o700).create(partial).doing(|| format!("{}: making it", partial.display()))?;
        read_head(input)?;
        let mut writer = Writer { at: partial, file: None };
        for number in 1.. {
            let section = read_section(input, number)?;
            if section.kind == SectionKind::End {
                let sections = section.content.try_into().map(u64::from_le_bytes);
                return if sections == Ok(number - 1) {
                    Ok(())
                } else {
                    Err(damaged(number, "counts other sections than came; the stream is damaged"))
                };
            }
            writer.take(section, number)?;
        }
        Ok(())
    })
}

fn read_head(input: &mut dyn Read) -> Result<(), Failure> {
    let mut head = [0; 14];
    let refuse = |why: String| Failure::new(Kind::BadImage, format!("packed stream: {why}"));
    input.read_exact(&mut head).map_err(|_| refuse("it is shorter than its head".to_owned()))?;
    if &head[..10] != MAGIC {
        return Err(refuse("it does not begin as one; give it what `crctl pack` wrote".to_owned()));
    }
    let version = u32::from_le_bytes(head[10..].try_into().unwrap_or_default());
    if version != VERSION {
        return Err(refuse(format!("it has version {version} and this program reads {VERSION}; use that crfs")));
    }
    Ok(())
}

/// What unpacking writes.
struct Writer<'a> {
    at: &'a Path,
    /// The raw file that sections go on with: path, how long it is by now.
    file: Option<(String, File, u64)>,
}

impl Writer<'_> {
    fn take(&mut self, section: Section, number: u64) -> Result<(), Failure> {
        let Section { kind, name, content } = section;
        let expected = match (layout::kind(&name), kind) {
            (Some(PathKind::Directory), SectionKind::Directory)
            | (Some(PathKind::Object | PathKind::Lines), SectionKind::Text)
            | (Some(PathKind::Raw), SectionKind::Raw | SectionKind::Hole) => true,
            (_, _) => false,
        };
        if !expected {
            return Err(damaged(number, format!("{name:?}: no image has this")));
        }
        let place = self.at.join(&name);
        let doing = || format!("{}: writing", place.display());
        match kind {
            SectionKind::Directory => fs::DirBuilder::new().mode(0o700).create(&place).doing(doing),
            SectionKind::Text => create(&place).and_then(|file| file.write_all_at(&content, 0)).doing(doing),
            SectionKind::Raw | SectionKind::Hole | SectionKind::End => {
                if self.file.as_ref().is_none_or(|(path, ..)| *path != name) {
                    self.file = Some((name, create(&place).doing(doing)?, 0));
                }
                let Some((_, file, length)) = &mut self.file else { return Ok(()) };
                let hole = content.as_slice().try_into().map(u64::from_le_bytes);
                match (kind, hole) {
                    (SectionKind::Hole, Ok(hole)) => {
                        *length = length.saturating_add(hole);
                        file.set_len(*length).doing(doing)
                    }
                    (SectionKind::Hole, Err(_)) => Err(damaged(number, "is a hole without a length")),
                    _ => {
                        file.write_all_at(&content, *length).doing(doing)?;
                        *length = length.saturating_add(content.len() as u64);
                        Ok(())
                    }
                }
            }
        }
    }
}

fn create(place: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(place)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Directory;
    use super::*;

    /// A tree with a directory, texts, a raw file with a hole in its middle and at its end, and an empty one.
    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("0x00000001")).unwrap();
        fs::create_dir_all(at("files")).unwrap();
        fs::write(at("manifest"), "{}\n").unwrap();
        fs::write(at("0x00000001/fds"), "{\"end\":true}\n").unwrap();
        let mut pages = vec![7; 1 << 20];
        pages.resize(4 << 20, 0);
        pages.extend([9; 5000]);
        pages.resize(7 << 20, 0);
        fs::write(at("0x00000001/mem.pages"), pages).unwrap();
        fs::write(at("files/pipe.1"), "").unwrap();
        dir
    }

    fn packed() -> Vec<u8> {
        let tree = tree();
        let mut stream = Vec::new();
        pack(&Directory::new(tree.path()), &mut stream, &Progress::default()).unwrap();
        stream
    }

    fn contents(at: &Path) -> Vec<(Entry, Option<Vec<u8>>)> {
        let source = Directory::new(at);
        let entries = source.entries().unwrap();
        entries
            .into_iter()
            .map(|entry| (entry.clone(), entry.size.map(|_| source.read(&entry.path).unwrap())))
            .collect()
    }

    #[test]
    fn what_is_packed_comes_out_again_and_holes_are_not_sent() {
        let (stream, out) = (packed(), tempfile::tempdir().unwrap());
        assert!(stream.len() < (3 << 20), "{}", stream.len());
        unpack(&mut stream.as_slice(), &out.path().join("vs1")).unwrap();
        assert_eq!(contents(&out.path().join("vs1")), contents(tree().path()));
    }

    #[test]
    fn a_cut_stream_is_refused_wherever_it_was_cut() {
        let (stream, out) = (packed(), tempfile::tempdir().unwrap());
        let target = out.path().join("vs1");
        let cuts = (0..200).chain((200..stream.len()).step_by(49_999)).chain(stream.len() - 40..stream.len());
        for cut in cuts {
            let failure = unpack(&mut &stream[..cut], &target).unwrap_err();
            assert_eq!(failure.kind, Kind::BadImage, "{cut}: {failure}");
        }
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_flipped_bit_is_refused_with_its_section() {
        let (stream, out) = (packed(), tempfile::tempdir().unwrap());
        let target = out.path().join("vs1");
        let places = (0..400).chain((400..stream.len()).step_by(99_991));
        for at in places {
            let mut bad = stream.clone();
            bad[at] ^= 0x10;
            let failure = unpack(&mut bad.as_slice(), &target).unwrap_err();
            assert_eq!(failure.kind, Kind::BadImage, "{at}: {failure}");
            assert!(at < 14 || failure.to_string().contains("section "), "{at}: {failure}");
        }
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["../x", "/etc/x", "files/../../x", "0x00000001/x", "files"] {
            let mut stream = MAGIC.to_vec();
            stream.extend(VERSION.to_le_bytes());
            stream.extend(header(SectionKind::Text, name, b"x"));
            stream.extend(name.as_bytes());
            stream.extend(b"x");
            let out = tempfile::tempdir().unwrap();
            let failure = unpack(&mut stream.as_slice(), &out.path().join("vs1")).unwrap_err();
            assert!(failure.to_string().contains("no image has this"), "{failure}");
        }
    }

    #[test]
    fn another_version_is_refused_with_what_it_needs() {
        let mut stream = MAGIC.to_vec();
        stream.extend(2u32.to_le_bytes());
        let out = tempfile::tempdir().unwrap();
        let failure = unpack(&mut stream.as_slice(), &out.path().join("vs1")).unwrap_err();
        assert!(failure.to_string().contains("has version 2"), "{failure}");
    }
}
