//! The checks of mappings and pages, each against the golden image with exactly that wrong.

use crate::check::{CHILD, Defect, FIRST, each_is_told, process};
use crate::golden;
use image_format::memory::{
    Backing, HugeMapping, MappedFile, PageRange, Protection, Segment, SegmentFlags, SharedAnonymous, Source,
};
use image_format::{Address, Image, Pid, check};

/// The line of the child's `mem.segments`, counted from 1: 1 and 2 the executable, 3 heap, 4 shared, 5 anonymous and
/// without pages, 6 stack, 7 vvar, 8 vvar_vclock, 9 vdso, 10 vsyscall.
fn line(image: &mut Image, line: usize) -> &mut Segment {
    &mut process(image, CHILD).segments[line - 1]
}

fn first(image: &mut Image, line: usize) -> &mut Segment {
    &mut process(image, FIRST).segments[line - 1]
}

fn mapped(image: &mut Image) -> &mut MappedFile {
    match &mut line(image, 1).backing {
        Backing::File(file) => file,
        other => panic!("{other:?}"),
    }
}

fn shared(image: &mut Image) -> &mut SharedAnonymous {
    match &mut line(image, 4).backing {
        Backing::SharedAnonymous(piece) => piece,
        other => panic!("{other:?}"),
    }
}

fn range(start: u64, count: u64, source: Source) -> PageRange {
    PageRange { start: Address(start), count, source }
}

fn told(defects: &[Defect]) {
    each_is_told(defects);
}

#[test]
fn ranges() {
    told(&[
        (
            |i| line(i, 5).end.0 -= 1,
            "0x00003002/mem.segments: line 5: 0x7f0000010000 to 0x7f0000011fff: not on page boundaries",
        ),
        (
            |i| line(i, 5).start.0 += 1,
            "0x00003002/mem.segments: line 5: 0x7f0000010001 to 0x7f0000012000: not on page boundaries",
        ),
        (
            |i| line(i, 5).end = Address(0x7f00_0001_0000),
            "0x00003002/mem.segments: line 5: 0x7f0000010000 to 0x7f0000010000: it ends before it has started",
        ),
        (
            |i| {
                let mut high = line(i, 5).clone();
                (high.start, high.end) = (Address(0x7fff_ffff_e000), Address(0x8000_0000_0000));
                process(i, CHILD).segments.insert(9, high);
            },
            "0x00003002/mem.segments: line 10: 0x7fffffffe000 to 0x800000000000: user space ends at 0x7ffffffff000",
        ),
        (
            |i| line(i, 10).end.0 += 4096,
            "0x00003002/mem.segments: line 10: 0xffffffffff600000 to 0xffffffffff602000: vsyscall is the page at 0xffffffffff600000",
        ),
        (
            |i| line(i, 5).start = Address(0x7f00_0000_1000),
            "0x00003002/mem.segments: line 5: 0x7f0000001000 to 0x7f0000012000: overlaps 0x7f0000000000 to 0x7f0000002000",
        ),
        (
            |i| process(i, CHILD).segments.swap(4, 5),
            "0x00003002/mem.segments: line 6: 0x7f0000010000 to 0x7f0000012000: lower than the line before: segments ascend",
        ),
    ]);
}

#[test]
fn kinds() {
    told(&[
        (
            |i| line(i, 5).protection = Protection(8),
            "0x00003002/mem.segments: line 5: protection: 0x8 is not known here",
        ),
        (
            |i| line(i, 5).flags = SegmentFlags(1 << 20),
            "0x00003002/mem.segments: line 5: flags: 0x100000 is not known here",
        ),
        (
            |i| line(i, 5).flags = SegmentFlags::onfault,
            "0x00003002/mem.segments: line 5: flags: onfault without locked",
        ),
        (
            |i| line(i, 4).flags = SegmentFlags::droppable,
            "0x00003002/mem.segments: line 4: flags: droppable, which only private memory is, neither locked nor growing",
        ),
        (
            |i| line(i, 5).flags = SegmentFlags(SegmentFlags::droppable.0 | SegmentFlags::locked.0),
            "0x00003002/mem.segments: line 5: flags: droppable, which only private memory is, neither locked nor growing",
        ),
        (
            |i| line(i, 5).backing = Backing::HugePages(HugeMapping { page_size: 4096 }),
            "0x00003002/mem.segments: line 5: page_size 4096: huge pages have 2 MiB or 1 GiB",
        ),
        (
            |i| line(i, 5).backing = Backing::HugePages(HugeMapping { page_size: 2 << 20 }),
            "0x00003002/mem.segments: line 5: 0x7f0000010000 to 0x7f0000012000: no whole huge pages",
        ),
        (|i| line(i, 5).shared = true, "0x00003002/mem.segments: line 5: shared: what backs it is private"),
        (|i| line(i, 9).shared = true, "0x00003002/mem.segments: line 9: shared: what backs it is private"),
        (|i| line(i, 8).backing = Backing::Vvar, "0x00003002/mem.segments: line 8: vvar stands there twice"),
        (
            |i| line(i, 9).end.0 -= 4096,
            "0x00003002/mem.segments: line 9: the vdso has 4096 bytes, the manifest's has 8192",
        ),
        (
            |i| mapped(i).path = "bin/worker".into(),
            "0x00003002/mem.segments: line 1: path: \"bin/worker\" is not an absolute path",
        ),
        (
            |i| mapped(i).modified.nsec = u32::MAX,
            "0x00003002/mem.segments: line 1: modified: 4294967295 nanoseconds are a second or more",
        ),
        (|i| mapped(i).offset = 512, "0x00003002/mem.segments: line 1: offset 512: not on a page boundary"),
        (
            |i| mapped(i).offset = (1 << 63) - 4096,
            "0x00003002/mem.segments: line 1: offset 9223372036854771712: the mapping passes the end of all files",
        ),
        (
            |i| mapped(i).offset = u64::MAX - 4095,
            "0x00003002/mem.segments: line 1: offset 18446744073709547520: the mapping passes the end of all files",
        ),
    ]);
}

#[test]
fn shared_memory() {
    told(&[
        (|i| shared(i).object = 0, "0x00003002/mem.segments: line 4: object 0: shared memory is counted from 1"),
        (|i| shared(i).offset = 4097, "0x00003002/mem.segments: line 4: offset 4097: not on a page boundary"),
        (
            |i| shared(i).offset = 4096,
            "0x00003002/mem.segments: line 4: object 1: 8192 bytes at 4096 pass its end at 8192",
        ),
        (
            |i| shared(i).offset = u64::MAX - 4095,
            "0x00003002/mem.segments: line 4: object 1: 8192 bytes at 18446744073709547520 pass its end at 8192",
        ),
        (|i| shared(i).size = 16384, "0x00003002/mem.segments: line 4: object 1: 16384 bytes, but process 1 says 8192"),
        (
            |i| (shared(i).object, shared(i).size) = (2, 1 << 63),
            "0x00003002/mem.segments: line 4: object 2: 9223372036854775808 bytes are more than any file has",
        ),
    ]);
}

#[test]
fn page_ranges() {
    told(&[
        (
            |i| line(i, 5).pages.push(range(0x7f00_0001_0800, 1, Source::Zero)),
            "0x00003002/mem.segments: line 5: pages at 0x7f0000010800: not on a page boundary",
        ),
        (
            |i| line(i, 5).pages.push(range(0x7f00_0001_0000, 0, Source::Zero)),
            "0x00003002/mem.segments: line 5: pages at 0x7f0000010000: no pages",
        ),
        (
            |i| line(i, 5).pages.push(range(0x7f00_0001_1000, 2, Source::Zero)),
            "0x00003002/mem.segments: line 5: pages at 0x7f0000011000: 2 pages that are not inside of 0x7f0000010000 to 0x7f0000012000",
        ),
        (
            |i| line(i, 5).pages.push(range(0x7f00_0000_f000, 2, Source::Zero)),
            "0x00003002/mem.segments: line 5: pages at 0x7f000000f000: 2 pages that are not inside of 0x7f0000010000 to 0x7f0000012000",
        ),
        (
            |i| line(i, 5).pages.push(range(0x7f00_0001_0000, 1 << 52, Source::Zero)),
            "0x00003002/mem.segments: line 5: pages at 0x7f0000010000: 4503599627370496 pages that are not inside of 0x7f0000010000 to 0x7f0000012000",
        ),
        (
            |i| {
                line(i, 5).pages =
                    vec![range(0x7f00_0001_0000, 2, Source::Zero), range(0x7f00_0001_1000, 1, Source::Zero)]
            },
            "0x00003002/mem.segments: line 5: pages at 0x7f0000011000: not above the pages before",
        ),
        (
            |i| {
                line(i, 5).pages =
                    vec![range(0x7f00_0001_1000, 1, Source::Zero), range(0x7f00_0001_0000, 1, Source::Zero)]
            },
            "0x00003002/mem.segments: line 5: pages at 0x7f0000010000: not above the pages before",
        ),
        (
            |i| line(i, 5).pages.push(range(0x7f00_0001_0000, 1, Source::Parent)),
            "0x00003002/mem.segments: line 5: pages at 0x7f0000010000: from a parent image, and this one has none",
        ),
        (
            |i| line(i, 5).pages.push(range(0x7f00_0001_0000, 1, Source::File)),
            "0x00003002/mem.segments: line 5: pages at 0x7f0000010000: from a mapped file, and none is mapped",
        ),
        (
            |i| line(i, 7).pages.push(range(0x7ffc_000f_8000, 1, Source::Zero)),
            "0x00003002/mem.segments: line 7: pages at 0x7ffc000f8000: these are the kernel's own and have no contents",
        ),
    ]);
}

#[test]
fn own_pages_are_used_once_each() {
    told(&[
        (
            |i| line(i, 6).pages[0].source = Source::Own(0),
            "0x00003002/mem.segments: line 6: page 0 of mem.pages is used twice",
        ),
        (
            |i| line(i, 6).pages[0].source = Source::Own(2),
            "0x00003002/mem.segments: line 6: page 1 of mem.pages is used nowhere",
        ),
    ]);
    // Missing at the start: what comes first is told, and what is missing before the last again.
    let mut image = golden::image();
    line(&mut image, 3).pages[0].source = Source::Own(u64::MAX);
    image.manifest.paths = image.paths();
    let told: Vec<String> = check::image(&image, &golden::sizes(&image)).iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "0x00003002/mem.segments: line 6: page 0 of mem.pages is used nowhere",
            "0x00003002/mem.segments: line 3: page 2 of mem.pages is used nowhere",
        ]
    );
}

#[test]
fn pages_of_other_processes() {
    told(&[
        (
            |i| line(i, 2).pages[0].source = Source::Process(Pid(9)),
            "0x00003002/mem.segments: line 2: pages at 0x401000: there is no process 9",
        ),
        (
            |i| line(i, 2).pages[0].source = Source::Process(CHILD),
            "0x00003002/mem.segments: line 2: pages at 0x401000: taken from this process itself",
        ),
        (
            |i| line(i, 5).pages.push(range(0x7f00_0001_0000, 2, Source::Process(FIRST))),
            "0x00003002/mem.segments: line 5: pages at 0x7f0000010000: process 1 names no source of 0x7f0000011000",
        ),
        (
            |i| {
                first(i, 5).pages[0].start.0 += 4096;
                line(i, 5).pages.push(range(0x7f00_0001_0000, 2, Source::Process(FIRST)));
            },
            "0x00003002/mem.segments: line 5: pages at 0x7f0000010000: process 1 names no source of 0x7f0000010000",
        ),
        (
            |i| {
                first(i, 5).pages[0].source = Source::Guard;
                line(i, 5).pages.push(range(0x7f00_0001_0000, 1, Source::Process(FIRST)));
            },
            "0x00003002/mem.segments: line 5: pages at 0x7f0000010000: process 1 names no source of 0x7f0000010000",
        ),
        (
            |i| {
                first(i, 5).pages = vec![range(0x7f00_0001_0000, 2, Source::Process(CHILD))];
                line(i, 5).pages =
                    vec![range(0x7f00_0001_0000, 1, Source::Zero), range(0x7f00_0001_1000, 1, Source::Process(FIRST))];
            },
            "0x00003002/mem.segments: line 5: pages at 0x7f0000011000: taken from process 1, which takes them from here",
        ),
    ]);
}

#[test]
fn pages_may_be_passed_on_and_crosswise() {
    let mut image = golden::image();
    let mut third = image.processes[&CHILD].clone();
    // Only memory of the third process matters: its other files are of no concern to these checks.
    third.segments = vec![first(&mut image, 5).clone()];
    third.segments[0].pages = vec![range(0x7f00_0001_0000, 2, Source::Process(CHILD))];
    // Each of two takes one page from the other, at different addresses.
    first(&mut image, 5).pages =
        vec![range(0x7f00_0001_0000, 1, Source::Zero), range(0x7f00_0001_1000, 1, Source::Process(CHILD))];
    line(&mut image, 5).pages =
        vec![range(0x7f00_0001_0000, 1, Source::Process(FIRST)), range(0x7f00_0001_1000, 1, Source::Zero)];
    image.processes.insert(Pid(0x4000), third);
    image.manifest.paths = image.paths();
    let told = check::image(&image, &golden::sizes(&image));
    assert!(told.iter().all(|finding| !finding.to_string().contains("mem.segments")), "{told:?}");

    // A circle of three.
    first(&mut image, 5).pages[0].source = Source::Process(Pid(0x4000));
    let told: Vec<String> = check::image(&image, &golden::sizes(&image)).iter().map(ToString::to_string).collect();
    let circles: Vec<_> = told.iter().filter(|finding| finding.contains("mem.segments")).collect();
    assert_eq!(
        circles,
        [
            "0x00004000/mem.segments: line 1: pages at 0x7f0000010000: taken from process 12290, which takes them from here"
        ]
    );
}
