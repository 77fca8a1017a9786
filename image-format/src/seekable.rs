//! Page contents in compressed form: one zstd frame (RFC 8878) a chunk, and behind them a table of their sizes in a skippable frame, so
//! that any page is found without what is before it, and `zstd -d` makes the plain file of it.
//!
//! The table is that of the "zstd seekable format" (contrib/seekable_format in zstd's sources), without its optional checksums:
//! those of the pages stand in `mem.sums`. All numbers are little-endian.

use crate::memory::CHUNK_SIZE;

/// Bytes at the end of a file that tell how long its table is.
pub const FOOTER_SIZE: usize = 9;
/// No chunk becomes longer than this: what cannot be compressed grows by less than a hundredth.
pub const LARGEST_FRAME: u64 = CHUNK_SIZE + CHUNK_SIZE / 64;

const SKIPPABLE: u32 = 0x184D_2A5E;
const SEEKABLE: u32 = 0x8F92_EAB1;
/// Of the skippable frame, before its content.
const HEADER_SIZE: usize = 8;
const ENTRY_SIZE: usize = 8;

/// Why a file is not compressed as an image's is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeekableError {
    /// The end of the file is no table.
    #[error(
        "its table of chunks is missing: it was cut, or was not compressed by crfs; zstd -d makes plain contents of it"
    )]
    NoTable,
    /// The table says what cannot be.
    #[error("its table of chunks is damaged: entry {0} cannot be")]
    Entry(usize),
    /// The frames and the table do not make the file.
    #[error("its table of chunks tells of {told} bytes, and it has {has}")]
    Length {
        /// Bytes of frames and table.
        told: u64,
        /// Bytes of the file.
        has: u64,
    },
}

/// Where the frame of a chunk lies, and how many bytes it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// In the file.
    pub offset: u64,
    /// Bytes in the file.
    pub stored: u32,
    /// Bytes of pages: [`CHUNK_SIZE`], of the last one perhaps less.
    pub length: u32,
}

/// The table of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frames(Vec<Frame>);

impl Frames {
    /// Adds the frame that follows.
    pub fn push(&mut self, stored: u32, length: u32) {
        self.0.push(Frame { offset: self.end(), stored, length });
    }

    /// The frame of a chunk.
    #[must_use]
    pub fn get(&self, chunk: usize) -> Option<Frame> {
        self.0.get(chunk).copied()
    }

    /// Bytes of pages in all.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.0.iter().map(|frame| u64::from(frame.length)).sum()
    }

    fn end(&self) -> u64 {
        self.0.last().map_or(0, |last| last.offset + u64::from(last.stored))
    }

    /// What stands behind the frames.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes = SKIPPABLE.to_le_bytes().to_vec();
        bytes.extend(number(self.0.len() * ENTRY_SIZE + FOOTER_SIZE));
        for frame in &self.0 {
            bytes.extend(frame.stored.to_le_bytes());
            bytes.extend(frame.length.to_le_bytes());
        }
        bytes.extend(number(self.0.len()));
        // No checksums.
        bytes.push(0);
        bytes.extend(SEEKABLE.to_le_bytes());
        bytes
    }

    /// How many bytes at the end of a file are its table, by its last [`FOOTER_SIZE`].
    ///
    /// # Errors
    /// [`SeekableError::NoTable`].
    pub fn size(footer: [u8; FOOTER_SIZE]) -> Result<usize, SeekableError> {
        let [a, b, c, d, 0, magic @ ..] = footer else { return Err(SeekableError::NoTable) };
        if u32::from_le_bytes(magic) != SEEKABLE {
            return Err(SeekableError::NoTable);
        }
        let frames = usize::try_from(u32::from_le_bytes([a, b, c, d])).map_err(|_| SeekableError::NoTable)?;
        let size = frames.checked_mul(ENTRY_SIZE).and_then(|entries| entries.checked_add(HEADER_SIZE + FOOTER_SIZE));
        size.ok_or(SeekableError::NoTable)
    }

    /// The table of a file of `file_size` bytes, of which it is the last ones.
    ///
    /// # Errors
    /// What of it cannot be.
    pub fn parse(table: &[u8], file_size: u64) -> Result<Self, SeekableError> {
        let word = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).unwrap_or_default();
        let (header, rest) = table.split_at_checked(HEADER_SIZE).ok_or(SeekableError::NoTable)?;
        let (entries, footer) = rest.split_last_chunk().ok_or(SeekableError::NoTable)?;
        let (magic, size) = header.split_at(4);
        let sizes_agree = Frames::size(*footer)? == table.len() && usize::try_from(word(size)) == Ok(rest.len());
        if word(magic) != SKIPPABLE || !sizes_agree {
            return Err(SeekableError::NoTable);
        }
        let mut frames = Frames::default();
        let last = (entries.len() / ENTRY_SIZE).saturating_sub(1);
        for (index, entry) in entries.chunks_exact(ENTRY_SIZE).enumerate() {
            let (stored, length) = entry.split_at(4);
            let (stored, length) = (word(stored), word(length));
            let whole =
                u64::from(length) == CHUNK_SIZE || (index == last && (1..CHUNK_SIZE).contains(&u64::from(length)));
            if !whole || !(1..=LARGEST_FRAME).contains(&u64::from(stored)) {
                return Err(SeekableError::Entry(index));
            }
            frames.push(stored, length);
        }
        let told = frames.end() + table.len() as u64;
        if told == file_size { Ok(frames) } else { Err(SeekableError::Length { told, has: file_size }) }
    }
}
