//! The checks of descriptors and open file descriptions, each against the golden image with exactly that wrong.

use crate::check::{CHILD, FIRST, each_is_told, file, process};
use crate::golden;
use image_format::ended::EndedTask;
use image_format::fanotify::{Fanotify, FanotifyMark, Marked};
use image_format::files::{
    Directory, EpollTarget, Fifo, File, FileKind, IfChanged, Inotify, InotifyWatch, OpenFlags, Owner, OwnerKind,
    PathOnly, PathType, Pidfd, PseudoFile, PseudoFileSystem, Replacement, Stdio, Stream,
};
use image_format::process::Fd;
use image_format::{Bytes, FileId, Hex, Image, Pid, check};

macro_rules! kind {
    ($image:expr, $id:literal, $kind:ident) => {
        match &mut file($image, $id).kind {
            FileKind::$kind(record) => record,
            other => panic!("{other:?}"),
        }
    };
}

#[test]
fn pidfds() {
    each_is_told(&[(
        |i| file(i, 2).kind = FileKind::Pidfd(Pidfd { pid: Some(Pid(77)), thread: false }),
        "files/0x00000002: pid: there is no process 77",
    )]);
}

#[test]
fn inotify() {
    fn watching(image: &mut Image, watches: &[(u32, &str, u64)], next_wd: u32) {
        let watch = |&(wd, path, mask): &(u32, &str, u64)| InotifyWatch { wd, path: path.into(), mask: Hex(mask) };
        let watches = watches.iter().map(watch).collect();
        file(image, 2).kind = FileKind::Inotify(Inotify { watches, next_wd, unread: true });
    }
    each_is_told(&[
        (|i| watching(i, &[(1, "/tmp", 0x100)], 0), "files/0x00000002: next_wd: 0 is no number from 1 to 2147483647"),
        (
            |i| watching(i, &[(1 << 31, "/tmp", 1)], 9),
            "files/0x00000002: watch 2147483648: 2147483648 is no number from 1 to 2147483647",
        ),
        (|i| watching(i, &[(3, "/tmp", 1), (3, "/", 1)], 4), "files/0x00000002: watch 3: it stands there twice"),
        (|i| watching(i, &[(3, "tmp", 1)], 4), "files/0x00000002: watch 3: path: \"tmp\" is not an absolute path"),
        (
            |i| watching(i, &[(3, "/tmp", 0)], 4),
            "files/0x00000002: watch 3: mask 0x0: inotify_add_watch(2) takes bits of 0x84000fff",
        ),
        (
            |i| watching(i, &[(3, "/tmp", 0x2001)], 4),
            "files/0x00000002: watch 3: mask 0x2001: inotify_add_watch(2) takes bits of 0x84000fff",
        ),
    ]);
}

#[test]
fn fanotify() {
    fn group(image: &mut Image, flags: u64, change: fn(&mut Fanotify)) {
        let mark =
            FanotifyMark { on: Marked::Mount, path: "/".into(), mask: Hex(0x20), ignored_mask: Hex(0), flags: Hex(0) };
        let mut group =
            Fanotify { flags: Hex(flags), event_flags: Hex(0), unprivileged: false, marks: vec![mark], unread: false };
        change(&mut group);
        file(image, 2).kind = FileKind::Fanotify(group);
    }
    each_is_told(&[
        (|i| group(i, 0x4000, |_| ()), "files/0x00000002: flags 0x4000: bits of fanotify_init(2) are 0x3fbf"),
        (|i| group(i, 0xc, |_| ()), "files/0x00000002: flags 0xc: a group is of one class"),
        (
            |i| group(i, 0, |group| group.event_flags = Hex(0x40)),
            "files/0x00000002: event_flags 0x40: bits of fanotify_init(2) are 0x1c9c03",
        ),
        (
            |i| group(i, 0, |group| group.unprivileged = true),
            "files/0x00000002: flags 0x0: an unprivileged group has FAN_REPORT_FID or FAN_REPORT_DIR_FID and none of 0x21bc",
        ),
        (
            |i| group(i, 0x210, |group| group.unprivileged = true),
            "files/0x00000002: flags 0x210: an unprivileged group has FAN_REPORT_FID or FAN_REPORT_DIR_FID and none of 0x21bc",
        ),
        (
            |i| group(i, 0x10, |group| group.unread = true),
            "files/0x00000002: unread: nothing can stand for the events of a queue without limit",
        ),
        (
            |i| group(i, 0, |group| group.marks[0].path = "tmp".into()),
            "files/0x00000002: mark 1: path: \"tmp\" is not an absolute path",
        ),
        (
            |i| group(i, 0, |group| group.marks[0].mask = Hex(0x1_0000)),
            "files/0x00000002: mark 1: mask 0x10000: bits of what can be carried of fanotify_mark(2) are 0x58009fff",
        ),
        (
            |i| group(i, 0, |group| group.marks[0].ignored_mask = Hex(0x4000)),
            "files/0x00000002: mark 1: ignored_mask 0x4000: bits of what can be carried of fanotify_mark(2) are 0x58179fff",
        ),
        (
            |i| group(i, 0, |group| group.marks[0].mask = Hex(0)),
            "files/0x00000002: mark 1: it neither tells nor ignores anything",
        ),
        (
            |i| group(i, 0, |group| group.marks[0].flags = Hex(1)),
            "files/0x00000002: mark 1: flags 0x1: bits of a mark are 0x640",
        ),
        (
            |i| group(i, 0, |group| group.marks[0].flags = Hex(0x200)),
            "files/0x00000002: mark 1: flags 0x200: only a mark of an inode can be evictable",
        ),
        (
            |i| group(i, 0, |group| group.marks.push(group.marks[0].clone())),
            "files/0x00000002: mark 2: / is marked twice",
        ),
    ]);
}

#[test]
fn owners() {
    fn owner(image: &mut Image) -> &mut Owner {
        file(image, 5).owner.as_mut().unwrap()
    }
    each_is_told(&[
        (|i| owner(i).id = Pid(77), "files/0x00000005: owner: there is no process 77"),
        (
            |i| *owner(i) = Owner { kind: OwnerKind::Thread, id: Pid(77), ..owner(i).clone() },
            "files/0x00000005: owner: there is no thread 77",
        ),
        (
            |i| *owner(i) = Owner { kind: OwnerKind::Group, id: Pid(77), ..owner(i).clone() },
            "files/0x00000005: owner: there is no process group 77",
        ),
        (
            |i| *owner(i) = Owner { id: Pid(0), euid: 33, ..owner(i).clone() },
            "files/0x00000005: owner: nobody is signalled, so nobody said so: uid and euid are 0",
        ),
    ]);
}

#[test]
fn descriptors() {
    each_is_told(&[
        (|i| process(i, FIRST).fds[1].fd = 0, "0x00000001/fds: line 2: descriptor 0 stands there twice"),
        (
            |i| process(i, FIRST).fds[1].fd = 1 << 30,
            "0x00000001/fds: line 2: descriptor 1073741824 is beyond 1073741823",
        ),
        (|i| process(i, FIRST).fds[2].file = FileId(99), "0x00000001/fds: line 3: there is no files/0x00000063"),
        (|i| assert!(process(i, CHILD).fds.pop().is_some()), "files/0x00000009: no process has it open"),
        (
            |i| i.stdios.push(Stdio { file: FileId(0x10), stream: Stream::Log }),
            "files/stdios: line 2: there is no files/0x00000010",
        ),
        (|i| i.stdios.push(i.stdios[0].clone()), "files/stdios: line 2: files/0x00000001 stands there twice"),
        (
            |i| kind!(i, 7, Epoll).targets[0].file = FileId(99),
            "files/0x00000007: target 4: there is no files/0x00000063",
        ),
        (|i| kind!(i, 7, Epoll).targets[0].fd = 1 << 30, "files/0x00000007: target 1073741824 is beyond 1073741823"),
        (
            |i| {
                let twin = kind!(i, 7, Epoll).targets[0].clone();
                kind!(i, 7, Epoll).targets.push(twin);
            },
            "files/0x00000007: target 4 stands there twice",
        ),
        // Watching a file does not keep it open.
        (|i| process(i, FIRST).fds.retain(|fd| fd.file != FileId(8)), "files/0x00000008: no process has it open"),
        (
            |i| kind!(i, 7, Epoll).targets[0].file = FileId(7),
            "files/0x00000007: target 4: the epoll instances watch each other",
        ),
        (
            |i| {
                let mut other = file(i, 7).clone();
                let target = |file| EpollTarget { fd: 30, file: FileId(file), events: Hex(1), data: Hex(0) };
                let FileKind::Epoll(epoll) = &mut other.kind else { panic!() };
                epoll.targets = vec![target(8), target(7)];
                i.files.insert(FileId(20), other);
                process(i, FIRST).fds.push(Fd { fd: 20, file: FileId(20), cloexec: false });
                kind!(i, 7, Epoll).targets.push(target(20));
            },
            "files/0x00000014: target 30: the epoll instances watch each other",
        ),
    ]);
}

#[test]
fn epoll_may_watch_epoll() {
    let mut image = golden::image();
    let mut other = file(&mut image, 7).clone();
    let target = |fd, file| EpollTarget { fd, file: FileId(file), events: Hex(1), data: Hex(0) };
    if let FileKind::Epoll(epoll) = &mut other.kind {
        epoll.targets = vec![target(30, 7), target(31, 7), target(8, 8)];
    }
    image.files.insert(FileId(20), other);
    process(&mut image, FIRST).fds.push(Fd { fd: 20, file: FileId(20), cloexec: false });
    image.manifest.paths = image.paths();
    assert_eq!(check::image(&image, &golden::sizes(&image)), []);
}

#[test]
fn files() {
    each_is_told(&[
        (|i| file(i, 3).position = 1 << 63, "files/0x00000003: position 9223372036854775808: offsets are below 2^63"),
        (|i| kind!(i, 3, Regular).path = "srv/x".into(), "files/0x00000003: path: \"srv/x\" is not an absolute path"),
        (|i| kind!(i, 3, Regular).path = "/srv\0/x".into(), "files/0x00000003: path: \"/srv\\\\x00/x\" holds a NUL"),
        (
            |i| kind!(i, 3, Regular).path = vec![b'/'; 4096].into(),
            "files/0x00000003: path: a path of 4096 bytes: the kernel takes 4095",
        ),
        (
            |i| kind!(i, 3, Regular).modified.nsec = 1_000_000_000,
            "files/0x00000003: modified: 1000000000 nanoseconds are a second or more",
        ),
        (|i| kind!(i, 2, Directory).path = Bytes::default(), "files/0x00000002: path: \"\" is not an absolute path"),
        (|i| kind!(i, 0, Device).path = "null".into(), "files/0x00000000: path: \"null\" is not an absolute path"),
        (|i| kind!(i, 6, Eventfd).count = Hex(u64::MAX), "files/0x00000006: count: a counter ends one below 2^64 - 1"),
        (|i| kind!(i, 8, Timerfd).clock = 2, "files/0x00000008: clock 2: timerfd_create(2) takes [0, 1, 7, 8, 9]"),
        (
            |i| kind!(i, 8, Timerfd).settime_flags = 4,
            "files/0x00000008: settime_flags 0x4: timerfd_settime(2) takes bits 0 and 1",
        ),
        (|i| kind!(i, 8, Timerfd).remaining.sec = -1, "files/0x00000008: remaining: -1 seconds are negative"),
        (
            |i| kind!(i, 8, Timerfd).interval.nsec = u32::MAX,
            "files/0x00000008: interval: 4294967295 nanoseconds are a second or more",
        ),
        (|i| kind!(i, 9, Signalfd).mask.0 |= 1 << 8, "files/0x00000009: mask: SIGKILL cannot be in it"),
    ]);
}

/// Gives an end of a pipe a name.
fn name(image: &mut image_format::Image, end: u32, awaits_writer: bool) {
    let file = file(image, end);
    let FileKind::Pipe(pipe) = file.kind.clone() else { panic!("no pipe") };
    file.kind = FileKind::Fifo(Fifo { path: "/run/fifo".into(), awaits_writer, pipe });
}

#[test]
fn what_becomes_of_files_that_changed() {
    each_is_told(&[
        (
            |i| kind!(i, 3, Regular).if_changed = IfChanged::Append,
            "files/0x00000003: if_changed: append: it is not open for writing",
        ),
        (
            |i| kind!(i, 1, Regular).if_changed = IfChanged::Replace(Replacement { from: "saved".into() }),
            "files/0x00000001: if_changed: from: \"saved\" is not an absolute path",
        ),
    ]);
}

#[test]
fn places_and_listings() {
    each_is_told(&[
        (
            |i| {
                file(i, 2).flags = image_format::files::OpenFlags(0);
                file(i, 2).position = 0;
                let place = PathOnly { path: "/run/socket".into(), file_type: PathType::Socket };
                file(i, 2).kind = FileKind::PathOnly(place);
            },
            "files/0x00000002: flags: such a place is open with O_PATH only",
        ),
        (
            |i| {
                file(i, 2).position = 7;
                let directory = Directory { path: "/srv".into(), listing: None, deleted: None };
                file(i, 2).kind = FileKind::Directory(directory);
            },
            "files/0x00000002: position 7: of which listing, `listing` must say",
        ),
        (
            |i| {
                file(i, 2).position = 7;
                let file_system = PseudoFileSystem::Proc;
                let pseudo = PseudoFile { file_system, path: "/proc/stat".into(), at_end: true };
                file(i, 2).kind = FileKind::Pseudo(pseudo);
            },
            "files/0x00000002: position 7: it is at its end, wherever that is",
        ),
    ]);
}

#[test]
fn files_of_tasks_that_have_ended() {
    fn ended(image: &mut Image, path: &str, at_end: bool, position: u64, flags: u64) {
        let kind = FileKind::EndedTask(EndedTask { path: path.into(), at_end });
        *file(image, 2) = File { flags: OpenFlags(flags), position, owner: None, kind };
    }
    each_is_told(&[
        (
            |i| ended(i, "/proc/7/mountinfo", false, 0, 0),
            "files/0x00000002: path: it is none of a process or thread whose end is the end of what it tells",
        ),
        (
            |i| ended(i, "/proc/7/task/9/stat", false, 0, 0),
            "files/0x00000002: path: the thread is one of another process; a restore needs /proc/9/task/9/stat",
        ),
        (|i| ended(i, "/proc/7/mem", true, 0, 0), "files/0x00000002: at_end: what such a path names has no end"),
        (|i| ended(i, "/proc/7/stat", true, 7, 0), "files/0x00000002: position 7: it is at its end, wherever that is"),
        (
            |i| ended(i, "/proc/7/mem", false, 0, 2),
            "files/0x00000002: flags: such a file is carried when it is open for reading only",
        ),
    ]);
}

#[test]
fn fifos() {
    each_is_told(&[(
        |i| {
            name(i, 4, true);
            name(i, 5, false);
        },
        "files/0x00000004: awaits_writer: files/0x00000005 is open for writing",
    )]);
}

#[test]
fn pipes() {
    each_is_told(&[
        (
            |i| kind!(i, 5, Pipe).capacity = 4096,
            "files/0x00000005: capacity 4096, but files/0x00000004 says 65536 of pipe 1",
        ),
        (|i| kind!(i, 5, Pipe).queued = 13, "files/0x00000005: queued 13, but files/0x00000004 says 12 of pipe 1"),
        (|i| kind!(i, 5, Pipe).pipe = 0, "files/0x00000005: pipe 0: pipes are counted from 1"),
        (
            |i| kind!(i, 5, Pipe).packets = vec![5, 7],
            "files/0x00000005: packets: files/0x00000004 has others of pipe 1",
        ),
        (|i| name(i, 5, false), "files/0x00000005: pipe 1: one of this and files/0x00000004 has a name"),
    ]);
    let both = |edit: fn(&mut image_format::files::Pipe), expected: &str| {
        let mut image = golden::image();
        edit(kind!(&mut image, 4, Pipe));
        edit(kind!(&mut image, 5, Pipe));
        image.manifest.paths = image.paths();
        let told = check::image(&image, &golden::sizes(&image));
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert_eq!(told, [format!("files/0x00000004: {expected}"), format!("files/0x00000005: {expected}")]);
    };
    both(|pipe| pipe.packets = vec![5, 8], "packets: 13 bytes, but queued says 12");
    both(|pipe| pipe.packets = vec![12, 0], "packets: 0: a packet has 1 to 4096 bytes");
    both(|pipe| pipe.packets = vec![4097], "packets: 4097: a packet has 1 to 4096 bytes");
    both(
        |pipe| (pipe.packets, pipe.capacity) = (vec![5, 7], 4096),
        "packets: 2 do not fit into 4096 bytes, each in a page of its own",
    );
    both(|pipe| pipe.queued = 65537, "queued 65537: more than its capacity of 65536");
    both(|pipe| pipe.capacity = 65537, "capacity 65537: a pipe's is a power of two from 4096 to 2^31");
    both(|pipe| pipe.capacity = 2048, "capacity 2048: a pipe's is a power of two from 4096 to 2^31");
    both(|pipe| pipe.capacity = 1 << 32, "capacity 4294967296: a pipe's is a power of two from 4096 to 2^31");
}

#[test]
fn directories_are_of_who_has_ended_when_nobody_has_the_id() {
    let image = crate::golden::image();
    let is_one = |path: &str| image.ended_directory(&path.into()).is_some();
    assert!(is_one("/proc/7/fdinfo") && is_one("/proc/7") && is_one("/proc/7/task/9"));
    assert!(!is_one("/proc/7/stat") && !is_one("/proc") && !is_one("/"));
    // A process, and a thread of it.
    assert!(!is_one("/proc/12290/fdinfo") && !is_one("/proc/12290/task/12291"));
}
