//! The checks of contexts of asynchronous I/O, each against the golden image with exactly that wrong.

use crate::check::{CHILD, each_is_told, process};
use crate::golden;
use image_format::aio::{AioContext, AioEvent};
use image_format::memory::{Backing, PageRange, Protection, Segment, SegmentFlags, Source};
use image_format::{Address, Hex, Image, check};

const RING: Address = Address(0x1_0000);

/// Gives the child a context whose ring has a page, before its other mappings.
fn context(image: &mut Image) -> (&mut AioContext, &mut Segment) {
    let child = process(image, CHILD);
    let event = AioEvent { data: Hex(1), obj: Hex(2), res: -5, res2: 0 };
    child.aio = vec![AioContext { ring: RING, events: vec![event; 126] }];
    let ring = Segment {
        start: RING,
        end: Address(RING.0 + 4096),
        protection: Protection(3),
        shared: true,
        flags: SegmentFlags(0),
        backing: Backing::AioRing,
        pages: vec![],
    };
    child.segments.insert(0, ring);
    (&mut child.aio[0], &mut child.segments[0])
}

#[test]
fn a_context_with_a_full_ring() {
    let mut image = golden::image();
    context(&mut image);
    image.manifest.paths = image.paths();
    assert_eq!(check::image(&image, &golden::sizes(&image)), []);
}

#[test]
fn contexts_and_rings() {
    each_is_told(&[
        (
            |i| {
                let events = &mut context(i).0.events;
                events.push(events[0]);
            },
            "0x00003002/aio: line 1: 127 events: the ring holds fewer than 127",
        ),
        (
            |i| {
                context(i);
                let contexts = &mut process(i, CHILD).aio;
                contexts.push(contexts[0].clone());
            },
            "0x00003002/aio: line 2: ring 0x10000: not in ascending order",
        ),
        (
            |i| {
                context(i);
                process(i, CHILD).segments.remove(0);
            },
            "0x00003002/aio: line 1: ring 0x10000: mem.segments has none there",
        ),
        (
            |i| {
                context(i);
                process(i, CHILD).aio.clear();
            },
            "0x00003002/mem.segments: line 1: 0x10000: aio has no context with this ring",
        ),
        (
            |i| context(i).1.shared = false,
            "0x00003002/mem.segments: line 1: a ring of asynchronous I/O is always mapped shared",
        ),
        (
            |i| context(i).1.protection = Protection(1),
            "0x00003002/mem.segments: line 1: protection: a ring of asynchronous I/O is read and written",
        ),
        (
            |i| context(i).1.pages = vec![PageRange { start: RING, count: 1, source: Source::Zero }],
            "0x00003002/mem.segments: line 1: pages at 0x10000: what waits in a ring of asynchronous I/O stands in aio",
        ),
    ]);
}
