//! Input made to harm: whatever the bytes are, parsing and checking end with an answer.

use crate::golden;
use image_format::image::{ImageError, parse_file};
use image_format::{Image, check, layout};
use proptest::prelude::*;
use proptest::sample::Index;

/// A change to the bytes of one file.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Remove(Index, u8),
    Insert(Index, Vec<u8>),
    /// A piece of another file.
    Splice(Index, Index, Index, u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..9),
        Just(b"99999999999999999999".to_vec()),
        Just(b"\"0xffffffffffffffff\"".to_vec()),
        Just(b"-1".to_vec()),
        Just(b"[[[[[[[[[[[[[[[[".to_vec()),
        Just(b"null".to_vec()),
        Just(b"\n".to_vec()),
    ];
    let index = || any::<Index>();
    prop_oneof![
        (index(), 1..=255u8).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        (index(), any::<u8>()).prop_map(|(at, length)| Damage::Remove(at, length)),
        (index(), piece).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (index(), index(), index(), any::<u8>()).prop_map(|(at, file, from, n)| Damage::Splice(at, file, from, n)),
    ]
}

fn any<T: proptest::arbitrary::Arbitrary>() -> impl Strategy<Value = T> {
    proptest::prelude::any::<T>()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_images_are_answered(file in any::<Index>(), damages in proptest::collection::vec(damage(), 1..4)) {
        let whole = golden::files();
        let names: Vec<&String> = whole.keys().collect();
        let name = *file.get(&names);
        let mut files = whole.clone();
        let bytes = files.get_mut(name).unwrap();
        for damage in damages {
            match damage {
                Damage::Flip(at, bits) if !bytes.is_empty() => {
                    let at = at.index(bytes.len());
                    bytes[at] ^= bits;
                }
                Damage::Flip(..) => {}
                Damage::Remove(at, length) => {
                    let at = at.index(bytes.len() + 1);
                    let end = bytes.len().min(at + usize::from(length));
                    bytes.drain(at..end);
                }
                Damage::Insert(at, piece) => {
                    let at = at.index(bytes.len() + 1);
                    bytes.splice(at..at, piece);
                }
                Damage::Splice(at, other, from, length) => {
                    let other = &whole[*other.get(&names)];
                    let from = from.index(other.len() + 1);
                    let end = other.len().min(from + usize::from(length));
                    let at = at.index(bytes.len() + 1);
                    bytes.splice(at..at, other[from..end].iter().copied());
                }
            }
        }
        let alone = parse_file(name, &files[name]);
        if let Ok(image) = Image::parse(&files) {
            // A file that was read with the rest is also well by itself.
            prop_assert!(alone.is_ok() || is_sums(name) || golden_raw(name));
            for finding in check::image(&image, &|path| files.get(path).map(|bytes| bytes.len() as u64)) {
                prop_assert!(!finding.to_string().is_empty());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_answered(file in any::<Index>(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut files = golden::files();
        let names: Vec<String> = files.keys().filter(|name| !golden_raw(name)).cloned().collect();
        let name = file.get(&names);
        let refused = matches!(
            parse_file(name, &bytes),
            Err(ImageError::Text { path, .. }) if path == *name
        );
        prop_assert!(refused, "{name} took {bytes:?}");
        files.insert(name.clone(), bytes);
        prop_assert_eq!(Image::parse(&files).is_err(), !is_sums(name));
    }

    /// The checks count and add with whatever numbers stand in the records.
    #[test]
    fn arbitrary_records_are_checked(image in crate::arbitrary::any::<Image>()) {
        let findings = check::image(&image, &|_| Some(u64::MAX));
        prop_assert!(!findings.is_empty(), "no such image can be right");
    }
}

/// Parsed apart from the image.
fn is_sums(name: &str) -> bool {
    name.ends_with(layout::MEM_SUMS) || name == layout::CONTENTS_SUMS
}

fn golden_raw(name: &str) -> bool {
    layout::kind(name) == Some(image_format::manifest::PathKind::Raw)
}

#[test]
fn deep_nesting_is_refused() {
    let text = "[".repeat(1 << 20);
    assert!(parse_file("0x00000001/process", text.as_bytes()).is_err());
    let text = format!("{}\n", "{\"a\":".repeat(1 << 16));
    assert!(parse_file("0x00000001/fds", text.as_bytes()).is_err());
}

/// A million threads named in a list, of which nothing else is there: answered at the first, without room for a million.
#[test]
fn a_list_of_threads_that_are_not_there_is_refused() {
    let mut files = golden::files();
    let mut list: String = (1..1_000_000).map(|tid| format!("{{\"tid\":{tid}}}\n")).collect();
    list.push_str("{\"end\":true}\n");
    files.insert("0x00000001/thread.list".to_owned(), list.into_bytes());
    let refused = Image::parse(&files).unwrap_err().to_string();
    assert_eq!(refused, "0x00000001/0x00000002/attr: missing");
}
