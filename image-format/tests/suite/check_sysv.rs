//! The checks of System V objects, each against the golden image with exactly that wrong.

use crate::check::{CHILD, Defect, each_is_told, process};
use crate::golden;
use image_format::manifest::NamespaceKind;
use image_format::memory::{Backing, SysvShm};
use image_format::sysv::{AttachedCount, SemaphoreAdjustment};
use image_format::{Address, Hex, Image, Octal, check, render_lines};

/// Turns line 5 of the child's `mem.segments`, two pages at 0x7f0000010000, into an attachment.
fn attach(image: &mut Image, segment: u32, offset: u64) {
    let mapping = &mut process(image, CHILD).segments[4];
    mapping.shared = true;
    mapping.pages = vec![];
    mapping.backing = Backing::SysvShm(SysvShm { segment, offset, writable: true });
}

#[test]
fn objects() {
    let defects: &[Defect] = &[
        (|i| i.sysv.segments[0].id = 1 << 31, "sysv.shm: line 1: id 2147483648: ids are below 2^31"),
        (
            |i| {
                let mut twin = i.sysv.queues[0].clone();
                (twin.id, twin.permissions.key, twin.messages) = (32768, Hex(1), vec![]);
                i.sysv.queues.push(twin);
            },
            "sysv.msg: line 2: id 32768: has the place of another in the kernel's table",
        ),
        (
            |i| {
                let mut twin = i.sysv.segments[0].clone();
                twin.id = 4;
                i.sysv.segments.push(twin);
            },
            "sysv.shm: line 2: key 0x52e2c1: another has it",
        ),
        (
            |i| i.sysv.semaphores[0].permissions.key = Hex(1 << 32),
            "sysv.sem: line 1: key 0x100000000: keys have 32 bits",
        ),
        (
            |i| i.sysv.semaphores[0].permissions.mode = Octal(0o1600),
            "sysv.sem: line 1: mode 01600: permissions are nine bits",
        ),
        (|i| i.sysv.segments[0].size = 0, "sysv.shm: line 1: size 0: no segment has that"),
        (|i| i.sysv.segments[0].page_size = 0, "sysv.shm: line 1: page_size 0: huge pages have 2 MiB or 1 GiB"),
        (|i| i.sysv.segments[0].destroyed = true, "sysv.shm: line 1: key 0x52e2c1: a destroyed segment has none"),
        (|i| i.sysv.semaphores[0].values[0] = 32768, "sysv.sem: line 1: values: 32768 is beyond 32767"),
        (|i| i.sysv.queues[0].messages[0].kind = 0, "sysv.msg: line 1: messages: type 0 is not from 1 to 2^63 - 1"),
        (
            |i| {
                i.queues.clear();
                i.manifest.container.host_namespaces.insert(NamespaceKind::Ipc);
            },
            "manifest: container.host_namespaces: ipc: System V objects take a namespace of their own",
        ),
        (|i| i.sysv.queues[0].capacity = 7, "sysv.msg: line 1: messages: 8 bytes are more than its capacity of 7"),
    ];
    each_is_told(defects);
}

#[test]
fn adjustments() {
    let line = |set, adjustments: &[i32]| SemaphoreAdjustment { set, adjustments: adjustments.to_vec() };
    let told = |line: SemaphoreAdjustment, expected: &str| {
        let mut image = golden::image();
        process(&mut image, CHILD).semadj.push(line);
        let findings = check::image(&image, &golden::sizes(&image));
        let found: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(found, [format!("0x00003002/sysv.semadj: line 2: {expected}")]);
    };
    told(line(5, &[1]), "there is no semaphore set 5");
    told(line(32769, &[1]), "1 adjustments of set 32769, which has 3 semaphores");
    told(line(32769, &[1, 2, 3]), "set 32769 stands there twice");
}

#[test]
fn attachments() {
    let told_of = |page_size, segment, offset, size, expected: &str| {
        let mut image = golden::image();
        image.sysv.segments[0].size = size;
        image.sysv.segments[0].page_size = page_size;
        attach(&mut image, segment, offset);
        let findings = check::image(&image, &golden::sizes(&image));
        let found: Vec<String> = findings.iter().map(ToString::to_string).collect();
        let found: Vec<&String> = found.iter().filter(|found| found.contains("mem.segments")).collect();
        let expected: &[String] = &[format!("0x00003002/mem.segments: {expected}")];
        assert_eq!(found, if expected[0].ends_with(": ") { vec![] } else { vec![&expected[0]] });
    };
    let told = |segment, offset, size, expected: &str| told_of(4096, segment, offset, size, expected);
    told(3, 0, 8192, "");
    told(3, 0, 4097, "");
    told(9, 0, 8192, "line 5: there is no System V segment 9");
    told(3, 0, 4096, "line 5: it passes the end of the System V segment 3");
    told(3, 4096, 12288, "line 5: the System V segment 3 is attached without its first 4096 bytes");
    told(3, 0, 12288, "line 6: byte 8192 of the System V segment 3 belongs at 0x7f0000012000");
    let cut = "line 5: the System V segment 3 consists of huge pages, and the mapping of no whole ones";
    told_of(2 << 20, 3, 0, 8192, cut);
}

#[test]
fn attached_counts_are_shown_only() {
    let mut files = golden::files();
    let counts = [AttachedCount { segment: 3, mappings: 1 }];
    files.insert("0x00003002/sysv.shmcount".to_owned(), render_lines(&counts));
    let error = Image::parse(&files).unwrap_err();
    assert_eq!(
        error.to_string(),
        "0x00003002/sysv.shmcount: it does not count the lines of mem.segments; it is shown only"
    );
    let mut image = golden::image();
    assert_eq!(process(&mut image, CHILD).segments[4].start, Address(0x7f00_0001_0000));
    attach(&mut image, 3, 0);
    assert_eq!(process(&mut image, CHILD).attached(), counts);
}
