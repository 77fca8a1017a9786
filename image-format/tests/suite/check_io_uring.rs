//! The checks of rings of io_uring, each against the golden image with exactly that wrong.

use crate::check::{CHILD, each_is_told, process};
use crate::golden;
use image_format::files::{File, FileKind, OpenFlags};
use image_format::io_uring::{IoUring, MappedRing, OFF_CQ_RING, OFF_SQES};
use image_format::memory::{Backing, PageRange, Protection, Segment, SegmentFlags, Source};
use image_format::process::Fd;
use image_format::{Address, FileId, Hex, Image, Pid, check};

const ENTRY: FileId = FileId(0x77);
const RING: IoUring =
    IoUring { ring: 1, flags: Hex(8), sq_entries: 8, cq_entries: 16, submitted: 3, completed: 1, issuer: None };
const R_DISABLED: u64 = 1 << 6;
const TASKRUN_FLAG: u64 = 1 << 9;
const SINGLE_ISSUER: u64 = 1 << 12;
const DEFER_TASKRUN: u64 = 1 << 13;

/// Gives the child a ring that it has mapped, before its other mappings.
fn ring(image: &mut Image) {
    let file = File { flags: OpenFlags::O_RDWR, position: 0, owner: None, kind: FileKind::IoUring(RING) };
    image.files.insert(ENTRY, file);
    let child = process(image, CHILD);
    child.fds.push(Fd { fd: 1000, file: ENTRY, cloexec: true });
    for (at, offset) in (0..).zip([OFF_SQES, OFF_CQ_RING]) {
        let segment = Segment {
            start: Address(0x1_0000 + at * 4096),
            end: Address(0x1_1000 + at * 4096),
            protection: Protection(3),
            shared: true,
            flags: SegmentFlags(0),
            backing: Backing::IoUring(MappedRing { ring: 1, offset: Hex(offset) }),
            pages: vec![],
        };
        child.segments.insert(usize::try_from(at).unwrap(), segment);
    }
}

fn record(image: &mut Image) -> &mut IoUring {
    ring(image);
    match &mut image.files.get_mut(&ENTRY).unwrap().kind {
        FileKind::IoUring(record) => record,
        other => panic!("{other:?}"),
    }
}

/// A ring that belongs to the child's first thread.
fn owned(image: &mut Image, flags: u64) -> &mut IoUring {
    let ring = record(image);
    ring.flags.0 |= flags;
    ring.issuer = Some(CHILD);
    ring
}

fn segment(image: &mut Image) -> &mut Segment {
    ring(image);
    &mut process(image, CHILD).segments[0]
}

fn mapped(image: &mut Image) -> &mut MappedRing {
    match &mut segment(image).backing {
        Backing::IoUring(mapped) => mapped,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_ring_with_what_was_submitted_under_no_way() {
    let mut image = golden::image();
    ring(&mut image);
    image.manifest.paths = image.paths();
    assert_eq!(check::image(&image, &golden::sizes(&image)), []);
    let mut image = golden::image();
    owned(&mut image, SINGLE_ISSUER | DEFER_TASKRUN | TASKRUN_FLAG);
    image.manifest.paths = image.paths();
    assert_eq!(check::image(&image, &golden::sizes(&image)), []);
}

#[test]
fn sizes_are_those_of_the_kernel() {
    let sizes = |ring: IoUring| (ring.rings_size(), ring.sqes_size());
    assert_eq!(sizes(RING), (4096, 4096));
    // What io_uring_setup(2) returns for 256 entries is an array at 8256 with 1024 bytes.
    assert_eq!(sizes(IoUring { sq_entries: 256, cq_entries: 512, ..RING }), (12288, 16384));
    assert_eq!(
        sizes(IoUring { flags: Hex(1 << 10 | 1 << 11), sq_entries: 256, cq_entries: 512, ..RING }),
        (20480, 32768)
    );
}

#[test]
fn rings_and_mappings() {
    each_is_told(&[
        (
            |i| {
                record(i).ring = 0;
                process(i, CHILD).segments.drain(..2);
            },
            "files/0x00000077: ring 0: rings are counted from 1",
        ),
        (|i| record(i).flags.0 |= 1 << 1, "files/0x00000077: flags: 0x2 is not known here"),
        (
            |i| record(i).issuer = Some(CHILD),
            "files/0x00000077: issuer 12290: the ring belongs to no thread (IORING_SETUP_SINGLE_ISSUER)",
        ),
        (
            |i| owned(i, SINGLE_ISSUER).issuer = Some(Pid(0x77)),
            "files/0x00000077: issuer 119: no process has this thread",
        ),
        (
            |i| {
                let ring = owned(i, SINGLE_ISSUER | R_DISABLED);
                (ring.submitted, ring.completed) = (0, 0);
            },
            "files/0x00000077: issuer 12290: a ring that is disabled (IORING_SETUP_R_DISABLED) has none yet",
        ),
        (
            |i| record(i).flags.0 |= R_DISABLED,
            "files/0x00000077: submitted 3: a ring that is disabled (IORING_SETUP_R_DISABLED) takes nothing",
        ),
        (
            |i| record(i).flags.0 |= DEFER_TASKRUN,
            "files/0x00000077: flags: IORING_SETUP_DEFER_TASKRUN is of rings of one thread (IORING_SETUP_SINGLE_ISSUER)",
        ),
        (
            |i| record(i).flags.0 |= TASKRUN_FLAG,
            "files/0x00000077: flags: IORING_SETUP_TASKRUN_FLAG needs IORING_SETUP_COOP_TASKRUN or IORING_SETUP_DEFER_TASKRUN",
        ),
        (|i| record(i).sq_entries = 9, "files/0x00000077: sq_entries 9: a ring has a power of two up to 32768"),
        (
            |i| record(i).cq_entries = 1 << 17,
            "files/0x00000077: cq_entries 131072: a ring has a power of two up to 65536",
        ),
        (|i| record(i).cq_entries = 4, "files/0x00000077: cq_entries 4: fewer than entries to be submitted"),
        (|i| record(i).completed = 4, "files/0x00000077: completed 4: more than were submitted, 3"),
        (
            |i| {
                ring(i);
                let copy = i.files[&ENTRY].clone();
                i.files.insert(FileId(0x78), copy);
                process(i, CHILD).fds.push(Fd { fd: 1001, file: FileId(0x78), cloexec: true });
            },
            "files/0x00000078: ring 1: it is files/0x00000077's",
        ),
        (|i| mapped(i).ring = 2, "0x00003002/mem.segments: line 1: ring 2: no descriptor leads to it"),
        (
            |i| mapped(i).offset.0 = 4096,
            "0x00003002/mem.segments: line 1: offset 0x1000: a ring has nothing there to be mapped",
        ),
        (|i| segment(i).shared = false, "0x00003002/mem.segments: line 1: a ring of io_uring is always mapped shared"),
        (|i| segment(i).start.0 -= 4096, "0x00003002/mem.segments: line 1: 8192 bytes: ring 1 has 4096 there"),
        (
            |i| {
                let segment = segment(i);
                segment.pages = vec![PageRange { start: segment.start, count: 1, source: Source::Zero }];
            },
            "0x00003002/mem.segments: line 1: pages at 0x10000: what is in a ring of io_uring lies beside its description",
        ),
    ]);
}
