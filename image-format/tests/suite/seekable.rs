//! The table of compressed page contents: what it is, and what is refused.

use image_format::memory::CHUNK_SIZE;
use image_format::seekable::{FOOTER_SIZE, Frames, SeekableError};
use proptest::prelude::*;

const CHUNK: u32 = CHUNK_SIZE as u32;

/// The table of these (stored, length), and the size of their file.
fn table(frames: &[(u32, u32)]) -> (Vec<u8>, u64) {
    let mut table = Frames::default();
    frames.iter().for_each(|&(stored, length)| table.push(stored, length));
    let bytes = table.render();
    let size = bytes.len() as u64 + frames.iter().map(|&(stored, _)| u64::from(stored)).sum::<u64>();
    (bytes, size)
}

fn footer(bytes: &[u8]) -> [u8; FOOTER_SIZE] {
    bytes[bytes.len() - FOOTER_SIZE..].try_into().unwrap()
}

#[test]
fn a_table_is_read_as_it_was_written() {
    let (bytes, size) = table(&[(77, CHUNK), (CHUNK + 40, CHUNK), (9, 4096)]);
    // As contrib/seekable_format writes it.
    assert_eq!(bytes[..8], [0x5e, 0x2a, 0x4d, 0x18, 33, 0, 0, 0]);
    assert_eq!(footer(&bytes), [3, 0, 0, 0, 0, 0xb1, 0xea, 0x92, 0x8f]);
    assert_eq!(Frames::size(footer(&bytes)), Ok(bytes.len()));
    let frames = Frames::parse(&bytes, size).unwrap();
    assert_eq!(frames.length(), 2 * CHUNK_SIZE + 4096);
    let last = frames.get(2).unwrap();
    assert_eq!((last.offset, last.stored, last.length), (u64::from(77 + CHUNK + 40), 9, 4096));
    assert_eq!((frames.get(3), frames.render()), (None, bytes));
}

#[test]
fn a_table_that_cannot_be_is_refused() {
    let told = |frames: &[(u32, u32)]| {
        let (bytes, size) = table(frames);
        Frames::parse(&bytes, size)
    };
    assert_eq!(told(&[(9, 4096), (9, CHUNK)]), Err(SeekableError::Entry(0)));
    assert_eq!(told(&[(9, CHUNK), (9, CHUNK + 1)]), Err(SeekableError::Entry(1)));
    assert_eq!(told(&[(9, CHUNK), (9, 0)]), Err(SeekableError::Entry(1)));
    assert_eq!(told(&[(0, CHUNK)]), Err(SeekableError::Entry(0)));
    assert_eq!(told(&[(2 * CHUNK, CHUNK)]), Err(SeekableError::Entry(0)));
    let (bytes, size) = table(&[(9, CHUNK)]);
    assert_eq!(Frames::parse(&bytes, size + 1), Err(SeekableError::Length { told: size, has: size + 1 }));
    for cut in 0..bytes.len() {
        assert!(Frames::parse(&bytes[..cut], size).is_err(), "{cut}");
    }
    assert_eq!(Frames::size([3, 0, 0, 0, 0x80, 0xb1, 0xea, 0x92, 0x8f]), Err(SeekableError::NoTable));
    assert_eq!(Frames::size([0; FOOTER_SIZE]), Err(SeekableError::NoTable));
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in any::<Vec<u8>>(), size in any::<u64>()) {
        if let Ok(frames) = Frames::parse(&bytes, size) {
            prop_assert_eq!(frames.render(), bytes);
        }
    }
}
