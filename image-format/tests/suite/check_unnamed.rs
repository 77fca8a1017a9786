//! The checks of files without a name and of locks, each against the golden image with exactly that wrong.

use crate::check::{CHILD, each_is_told, file, process};
use image_format::files::{FileKind, Unnamed};
use image_format::locks::{Lock, LockKind};
use image_format::memory::{Backing, HugeMapping, MappedUnnamed};
use image_format::unnamed::{Memfd, Origin, Place, Seals, UnnamedFile};
use image_format::{Bytes, FileId, Image, Octal, Pid, Timespec};

/// The number of the one file without a name.
const NUMBER: u32 = 1;

fn memfd(image: &mut Image, name: Vec<u8>, seals: u64) {
    open(image, Origin::Memfd(Memfd { name: Bytes(name), seals: Seals(seals), page_size: 4096 }));
}

/// One of huge pages, of so many bytes in all.
fn huge(image: &mut Image, page_size: u64, size: u64) {
    open(image, Origin::Memfd(Memfd { name: Bytes(b"huge".to_vec()), seals: Seals(1), page_size }));
    image.unnamed[0].size = size;
}

/// Shared anonymous memory in huge pages, of so many bytes in all.
fn shared_huge(image: &mut Image, page_size: u64, size: u64) {
    open(image, Origin::SharedHugePages(HugeMapping { page_size }));
    image.unnamed[0].size = size;
}

/// Makes what file 3 names one without a name.
fn open(image: &mut Image, origin: Origin) {
    let modified = Timespec { sec: 1, nsec: 0 };
    let file_of = |number| UnnamedFile { number, origin, size: 17, mode: Octal(0o600), uid: 0, gid: 0, modified };
    image.unnamed.push(file_of(NUMBER));
    file(image, 3).kind = FileKind::Unnamed(Unnamed { file: NUMBER });
}

fn deleted(image: &mut Image, path: &[u8]) {
    open(image, Origin::Deleted(Place { path: Bytes(path.to_vec()) }));
}

#[test]
fn files_without_a_name() {
    each_is_told(&[
        (
            |i| {
                deleted(i, b"/tmp/x");
                i.unnamed[0].number = 2;
                file(i, 3).kind = FileKind::Unnamed(Unnamed { file: 2 });
            },
            "files/unnamed: line 1: number 2 stands where 1 belongs",
        ),
        (
            |i| file(i, 3).kind = FileKind::Unnamed(Unnamed { file: NUMBER }),
            "files/0x00000003: there is no file 1 in files/unnamed",
        ),
        (
            |i| {
                deleted(i, b"/tmp/x");
                let mut other = i.unnamed[0].clone();
                other.number = 2;
                i.unnamed.push(other);
            },
            "files/unnamed: line 2: number 2: nobody has it open or mapped",
        ),
        (|i| deleted(i, b"tmp/x"), "files/unnamed: line 1: path: \"tmp/x\" is not an absolute path"),
        (
            |i| {
                deleted(i, b"/tmp/x");
                i.unnamed[0].size = 1 << 63;
            },
            "files/unnamed: line 1: size 9223372036854775808: no file has that",
        ),
        (
            |i| {
                deleted(i, b"/tmp/x");
                i.unnamed[0].mode = Octal(0o10_600);
            },
            "files/unnamed: line 1: mode 010600: permissions are twelve bits",
        ),
        (
            |i| {
                deleted(i, b"/tmp/x");
                i.unnamed[0].modified.nsec = 1_000_000_000;
            },
            "files/unnamed: line 1: modified: 1000000000 nanoseconds are a second or more",
        ),
        (|i| memfd(i, b"ball".to_vec(), 0x40), "files/unnamed: line 1: seals: 0x40 is not known here"),
        (
            |i| memfd(i, b"a\0b".to_vec(), 0),
            "files/unnamed: line 1: name: \"a\\\\x00b\" is not at most 249 bytes without NUL",
        ),
        (|i| huge(i, 0, 0), "files/unnamed: line 1: page_size 0: huge pages have 2 MiB or 1 GiB"),
        (|i| huge(i, 2 << 20, 17), "files/unnamed: line 1: size 17: no whole huge pages"),
        (|i| shared_huge(i, 4096, 0), "files/unnamed: line 1: page_size 4096: huge pages have 2 MiB or 1 GiB"),
        (|i| shared_huge(i, 1 << 30, 2 << 20), "files/unnamed: line 1: size 2097152: no whole huge pages"),
    ]);
}

/// Makes the first mapping of the child one of a file without a name, as none of it was written.
fn map(image: &mut Image, offset: u64, writable: bool) {
    let segment = process(image, CHILD).segments.iter_mut().find(|s| matches!(s.backing, Backing::File(_))).unwrap();
    segment.backing = Backing::Unnamed(MappedUnnamed { file: NUMBER, offset, writable });
}

#[test]
fn mappings_of_files_without_a_name() {
    each_is_told(&[
        (
            |i| {
                memfd(i, b"ball".to_vec(), 0);
                map(i, 5, false);
            },
            "0x00003002/mem.segments: line 1: offset 5: not on a page boundary",
        ),
        (
            |i| {
                memfd(i, b"ball".to_vec(), 0);
                map(i, (1 << 63) - 4096, false);
            },
            "0x00003002/mem.segments: line 1: offset 9223372036854771712: the mapping passes the end of all files",
        ),
        (|i| map(i, 0, false), "0x00003002/mem.segments: line 1: there is no file 1 in files/unnamed"),
        (
            |i| {
                huge(i, 2 << 20, 2 << 20);
                map(i, 0, false);
            },
            "0x00003002/mem.segments: line 1: private: file 1 consists of huge pages",
        ),
        (
            |i| {
                shared_huge(i, 2 << 20, 2 << 20);
                map(i, 0, false);
            },
            "0x00003002/mem.segments: line 1: private: file 1 consists of huge pages",
        ),
        (
            |i| {
                huge(i, 2 << 20, 2 << 20);
                map(i, 0, false);
                let segments = &mut process(i, CHILD).segments;
                segments.iter_mut().find(|s| matches!(s.backing, Backing::Unnamed(_))).unwrap().shared = true;
            },
            "0x00003002/mem.segments: line 1: file 1 consists of huge pages, and the mapping of no whole ones",
        ),
    ]);
}

fn lock(image: &mut Image) -> &mut Lock {
    &mut image.locks[1]
}

#[test]
fn locks() {
    each_is_told(&[
        (|i| lock(i).file = FileId(99), "files/locks: line 2: there is no files/0x00000063"),
        (|i| lock(i).process = Pid(77), "files/locks: line 2: process 77 does not have files/0x00000003 open"),
        (|i| lock(i).exclusive = true, "files/locks: line 2: exclusive, and files/0x00000003 is not open for writing"),
        (|i| lock(i).start = 200, "files/locks: line 2: bytes 200 to 199: no range of a file"),
        (|i| lock(i).end = Some(1 << 63), "files/locks: line 2: bytes 100 to 9223372036854775808: no range of a file"),
        (|i| lock(i).kind = LockKind::Flock, "files/locks: line 2: start, end: such a lock is on the whole file"),
    ]);
}
