//! What is captured, restored and captured again is the same.

use crate::world::{FIRST, SECOND, Script, World};
use crfs::resource::epoll::Registration;
use crfs::resource::mount::Roots;
use image_format::files::{File, FileKind, OpenFlags, RegularFile};
use image_format::{FileId, Hex, Timespec};
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

const RDWR: u64 = 2;

fn file(captured: &crfs::resource::descriptor::Descriptors, fd: u32) -> &File {
    let entry = captured.fds[&FIRST].iter().find(|entry| entry.fd == fd).unwrap();
    &captured.files[&entry.file]
}

#[test]
fn files_directories_and_devices() {
    let world = World::new();
    let data = world.file("data \\ \n", b"0123456789");
    let mut script = Script::new();
    script
        .open(&data, libc::O_RDWR | libc::O_APPEND | libc::O_NONBLOCK)
        .call(libc::SYS_lseek, [0, 7, 0])
        .open(&data, libc::O_RDONLY | libc::O_CLOEXEC)
        .call(libc::SYS_lseek, [1, 4000, 0])
        .open(&data, libc::O_WRONLY | libc::O_DSYNC)
        .open(&data, libc::O_PATH)
        .open(world.dir.path(), libc::O_RDONLY | libc::O_DIRECTORY)
        .open(world.dir.path(), libc::O_PATH | libc::O_DIRECTORY)
        .open("/dev/null".as_ref(), libc::O_RDWR)
        .open("/dev/zero".as_ref(), libc::O_RDONLY)
        .open("/dev/full".as_ref(), libc::O_WRONLY)
        .open("/dev/urandom".as_ref(), libc::O_RDONLY | libc::O_NONBLOCK)
        .open(&world.log(), libc::O_WRONLY | libc::O_APPEND);
    let puppet = script.start();
    let captured = world.capture_all(&[&puppet]);

    let FileKind::Regular(RegularFile { path, size, modified, .. }) = &file(&captured, 0).kind else { panic!() };
    assert_eq!((path.0.as_slice(), *size), (data.to_str().unwrap().as_bytes(), 10));
    let written = std::fs::metadata(&data).unwrap().modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(modified.ns(), i128::try_from(written.as_nanos()).unwrap());
    assert_eq!(file(&captured, 0).position, 7);
    let large = OpenFlags::O_LARGEFILE.0;
    let expected = RDWR | OpenFlags::O_APPEND.0 | OpenFlags::O_NONBLOCK.0;
    assert_eq!(file(&captured, 0).flags.0 & !large, expected);
    assert_eq!((file(&captured, 1).position, file(&captured, 1).flags.0 & !large), (4000, 0));
    let cloexec: Vec<bool> = captured.fds[&FIRST].iter().map(|fd| fd.cloexec).collect();
    assert_eq!(cloexec, [false, true, false, false, false, false, false, false, false, false, false]);
    assert!(matches!(&file(&captured, 6).kind, FileKind::Device(device) if (device.major, device.minor) == (1, 3)));
    assert_eq!(captured.stdios.len(), 1);
    assert_eq!(captured.stdios[0].file, FileId(10));

    let (files, _) = world.again(&world.image(&captured));
    assert_eq!(files, captured.files);
}

#[test]
fn capturing_twice_gives_the_same() {
    let world = World::new();
    let mut script = Script::new();
    let pair = script.place(&[0; 8]);
    let text = script.place(b"abc");
    script.call(libc::SYS_pipe2, [pair, 0]).call(libc::SYS_write, [1, text, 3]).call(libc::SYS_eventfd2, [3, 0]);
    let puppet = script.start();
    let first = world.capture_all(&[&puppet]);
    assert_eq!(world.capture_all(&[&puppet]), first);
    assert_eq!(first.pipes[&1], b"abc");
}

#[test]
fn descriptions_shared_by_duplicates_and_processes() {
    let world = World::new();
    let data = world.file("data", b"0123456789");
    // Opened here and inherited by both: one description. Two more in each that look exactly alike: four of their own.
    let mut shared = std::fs::File::options().read(true).append(true).open(&data).unwrap();
    shared.seek(std::io::SeekFrom::Start(5)).unwrap();
    let start = || {
        let kept = u64::try_from(shared.as_raw_fd()).unwrap();
        let mut script = Script::bare();
        script
            .call(libc::SYS_dup3, [kept, 500, 0])
            .call(libc::SYS_dup3, [kept, 501, libc::O_CLOEXEC.unsigned_abs().into()]);
        script.call(libc::SYS_close_range, [0, 499]).call(libc::SYS_close_range, [502, u64::from(u32::MAX)]);
        script.open(&data, libc::O_RDONLY).open(&data, libc::O_RDONLY).call(libc::SYS_dup, [1]);
        script.start()
    };
    let (one, two) = (start(), start());
    drop(shared);
    let captured = world.capture_all(&[&one, &two]);
    let ids = |pid| captured.fds[&pid].iter().map(|fd| (fd.fd, fd.file.0, fd.cloexec)).collect::<Vec<_>>();
    assert_eq!(ids(FIRST), [(0, 0, false), (1, 1, false), (2, 1, false), (500, 2, false), (501, 2, true)]);
    assert_eq!(ids(SECOND), [(0, 3, false), (1, 4, false), (2, 4, false), (500, 2, false), (501, 2, true)]);
    assert_eq!(captured.files.len(), 5);
    // Without the kernel's memory, by comparison.
    assert_eq!(world.compare(&[&one, &two]), captured);
    let (files, _) = world.again(&world.image(&captured));
    assert_eq!(files, captured.files);
}

#[test]
fn pipes_with_what_is_in_them() {
    let world = World::new();
    let mut script = Script::new();
    let pair = script.place(&[0; 8]);
    let bytes: Vec<u8> = (0..8192u32).map(|n| n.to_le_bytes()[0]).collect();
    let bytes_at = script.place(&bytes);
    let this = world_path_of(1, &mut script);
    let half = world_path_of(5, &mut script);
    let nonblock = u64::from(libc::O_NONBLOCK.unsigned_abs());
    script
        // 0, 1: half full. 2: its writing end once more, 3: both ways.
        .call(libc::SYS_pipe2, [pair, nonblock])
        .call(libc::SYS_write, [1, bytes_at, 5000])
        .call(libc::SYS_open, [this, 1])
        .call(libc::SYS_open, [this, 2])
        // 4, 5: a small one, full, whose reader goes.
        .call(libc::SYS_pipe2, [pair, 0])
        .call(libc::SYS_fcntl, [5, libc::F_SETPIPE_SZ.unsigned_abs().into(), 8192])
        .call(libc::SYS_write, [5, bytes_at, 8192])
        .call(libc::SYS_open, [half, 1])
        .call(libc::SYS_close, [4])
        .call(libc::SYS_close, [5])
        // 4, 5 again: data that will end.
        .call(libc::SYS_pipe2, [pair, 0])
        .call(libc::SYS_write, [5, bytes_at, 3])
        .call(libc::SYS_close, [5]);
    let puppet = script.start();
    let captured = world.capture_all(&[&puppet]);
    let pipe = |fd| match &file(&captured, fd).kind {
        FileKind::Pipe(pipe) => (pipe.pipe, pipe.capacity, pipe.queued),
        other => panic!("{other:?}"),
    };
    assert_eq!([pipe(0), pipe(1), pipe(2), pipe(3)], [(1, 65536, 5000); 4]);
    assert_eq!(pipe(4), (2, 65536, 3));
    assert_eq!(pipe(6), (3, 8192, 8192));
    assert_eq!(captured.pipes[&1], bytes[..5000]);
    assert_eq!(captured.pipes[&2], bytes[..3]);
    assert_eq!(captured.pipes[&3], bytes);

    let image = world.image(&captured);
    let (files, pipes) = world.again(&image);
    assert_eq!(files, captured.files);
    assert_eq!(pipes, captured.pipes);

    // What the ends do: data and then the end of it; and nobody left to write for.
    let open = world.open_all(&image, &mut Vec::new()).unwrap();
    let end = |fd: u32| {
        let id = captured.fds[&FIRST].iter().find(|entry| entry.fd == fd).unwrap().file;
        std::fs::File::from(open[&id].try_clone().unwrap())
    };
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut end(4), &mut rest).unwrap();
    assert_eq!(rest, bytes[..3]);
    assert_eq!(end(6).write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
}

/// `/proc/self/fd/N` of the puppet.
fn world_path_of(fd: u32, script: &mut Script) -> u64 {
    script.place(format!("/proc/self/fd/{fd}\0").as_bytes())
}

#[test]
fn eventfd_signalfd_and_timerfd() {
    let world = World::new();
    let mut script = Script::new();
    let count = script.place(&0x1_0000_0002_u64.to_ne_bytes());
    // SIGUSR1, SIGTERM, and the last of the real-time ones.
    let mask = script.place(&(1u64 << 9 | 1 << 14 | 1 << 63).to_ne_bytes());
    let times = |interval: (i64, i64), value: (i64, i64)| {
        [interval.0, interval.1, value.0, value.1].map(i64::to_ne_bytes).concat()
    };
    let seconds = |clock| crfs_sys::time::clock_ns(clock).unwrap() / 1_000_000_000;
    let periodic = script.place(&times((7, 5), (1000, 0)));
    let wall = script.place(&times((0, 0), (seconds(0) + 2000, 0)));
    let absolute = script.place(&times((0, 0), (seconds(1) + 3000, 0)));
    let off = script.place(&times((4, 0), (0, 0)));
    let once = script.place(&times((0, 0), (0, 1)));
    let often = script.place(&times((500, 0), (0, 1)));
    let nonblock = u64::from(libc::O_NONBLOCK.unsigned_abs());
    let settime = libc::SYS_timerfd_settime;
    script
        .call(libc::SYS_eventfd2, [7, 1 | nonblock])
        .call(libc::SYS_eventfd2, [0, 0])
        .call(libc::SYS_write, [1, count, 8])
        .call(libc::SYS_signalfd4, [u64::MAX, mask, 8, nonblock])
        .call(libc::SYS_timerfd_create, [1, nonblock])
        .call(settime, [3, 0, periodic])
        .call(libc::SYS_timerfd_create, [0, 0])
        .call(settime, [4, 1, wall])
        .call(libc::SYS_timerfd_create, [1, 0])
        .call(settime, [5, 1, absolute])
        .call(libc::SYS_timerfd_create, [7, 0])
        .call(settime, [6, 0, off])
        .call(libc::SYS_timerfd_create, [1, 0])
        .call(settime, [7, 0, once])
        .call(libc::SYS_timerfd_create, [1, 0])
        .call(settime, [8, 0, often]);
    let puppet = script.start();
    std::thread::sleep(std::time::Duration::from_millis(5));
    let captured = world.capture_all(&[&puppet]);

    let eventfd = |fd| match &file(&captured, fd).kind {
        FileKind::Eventfd(record) => (record.count.0, record.semaphore),
        other => panic!("{other:?}"),
    };
    assert_eq!([eventfd(0), eventfd(1)], [(7, true), (0x1_0000_0002, false)]);
    let FileKind::Signalfd(signalfd) = &file(&captured, 2).kind else { panic!() };
    assert_eq!(signalfd.mask.iter().map(|signal| signal.0).collect::<Vec<_>>(), [10, 15, 64]);
    let timer = |fd| match &file(&captured, fd).kind {
        FileKind::Timerfd(t) => (t.clock, t.settime_flags, t.remaining.sec, t.interval, t.ticks.0),
        other => panic!("{other:?}"),
    };
    let every = |sec, nsec| Timespec { sec, nsec };
    assert_eq!(timer(3), (1, 0, 999, every(7, 5), 0));
    assert!(matches!(timer(4), (0, 1, 1998..=1999, _, 0)), "{:?}", timer(4));
    assert!(matches!(timer(5), (1, 1, 2998..=2999, _, 0)), "{:?}", timer(5));
    assert_eq!(timer(6), (7, 0, 0, every(4, 0), 0));
    assert_eq!(timer(7), (1, 0, 0, every(0, 0), 1));
    // Periodic and expired: the next expiration is told, not lost.
    assert_eq!(timer(8), (1, 0, 499, every(500, 0), 1));

    // At a moment before, after the last expiration: more remained of what runs, and nothing of what does not.
    let mut before = captured.files.clone();
    crfs::resource::descriptor::timers_at_moment(&mut before, 1_000_000);
    for (id, file) in &captured.files {
        if let (FileKind::Timerfd(now), FileKind::Timerfd(then)) = (&file.kind, &before[id].kind) {
            let more = if now.remaining.ns() == 0 { 0 } else { 1_000_000 };
            assert_eq!(then.remaining.ns(), now.remaining.ns() + more);
        }
    }

    let mut image = world.image(&captured);
    let wall_ns = crfs_sys::time::clock_ns(0).unwrap();
    image.manifest.clocks.realtime = Timespec::from_ns(wall_ns.into());
    let (again, _) = world.again(&image);
    for (id, was) in &captured.files {
        let mut is = again[id].clone();
        if let (FileKind::Timerfd(was), FileKind::Timerfd(is)) = (&was.kind, &mut is.kind) {
            let passed = was.remaining.ns() - is.remaining.ns();
            assert!((0..5_000_000_000).contains(&passed) || was.remaining.ns() == 0, "{was:?} {is:?}");
            assert_eq!(was.remaining.ns() == 0, is.remaining.ns() == 0);
            is.remaining = was.remaining;
        }
        assert_eq!(is, *was);
    }
}

#[test]
fn epoll_instances() {
    let world = World::new();
    let mut script = Script::new();
    let event = |events: u32, data: u64| [events.to_ne_bytes().as_slice(), &data.to_ne_bytes()].concat();
    let pair = script.place(&[0; 8]);
    let plain = script.place(&event(1, u64::MAX));
    let edge = script.place(&event(0x8000_0001, 0x1122_3344_5566_7788));
    let exclusive = script.place(&event(0x1000_0004, 3));
    let off = script.place(&event(0x4000_0004, 4));
    let got = script.place(&[0; 12]);
    let ctl = libc::SYS_epoll_ctl;
    script
        .call(libc::SYS_epoll_create1, [0])
        .call(libc::SYS_eventfd2, [0, 0])
        .call(libc::SYS_pipe2, [pair, 0])
        .call(libc::SYS_epoll_create1, [0])
        .call(libc::SYS_eventfd2, [0, 0])
        // The eventfd reports once that it can be written, and is off from then on.
        .call(ctl, [4, 1, 5, off])
        .call(libc::SYS_epoll_wait, [4, got, 1, 0])
        .call(ctl, [0, 1, 1, plain])
        .call(ctl, [0, 1, 2, edge])
        .call(ctl, [0, 1, 3, exclusive])
        .call(ctl, [0, 1, 4, plain])
        // The same description under two numbers: two targets.
        .call(libc::SYS_dup, [1])
        .call(ctl, [0, 1, 6, edge]);
    let puppet = script.start();
    let captured = world.capture_all(&[&puppet]);
    let targets = |fd| match &file(&captured, fd).kind {
        FileKind::Epoll(epoll) => {
            epoll.targets.iter().map(|t| (t.fd, t.file.0, t.events.0, t.data.0)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let own = 0x1122_3344_5566_7788;
    assert_eq!(
        targets(0),
        [
            (1, 1, 0x19, u64::MAX),
            (2, 2, 0x8000_0019, own),
            (3, 3, 0x1000_001c, 3),
            (4, 4, 0x19, u64::MAX),
            (6, 1, 0x8000_0019, own)
        ]
    );
    assert_eq!(targets(4), [(5, 5, 0x4000_0018, 4)]);
    let image = world.image(&captured);
    let registrations = crfs::resource::epoll::registrations(&image).unwrap();
    assert!(registrations.early.is_empty());
    let call = |r: &Registration| (r.owner, r.epfd, r.watch.fd, r.watch.events, r.watch.data);
    let calls: Vec<_> = registrations.in_place.iter().map(call).collect();
    assert_eq!(calls.len(), 6);
    assert!(calls.contains(&(FIRST, 0, 6, 0x8000_0019, own)));
    assert!(calls.contains(&(FIRST, 4, 5, 0x4000_0018, 4)));

    // The dup is left out of the comparison: the harness opens each description under one number.
    let mut single = image;
    for file in single.files.values_mut() {
        if let FileKind::Epoll(epoll) = &mut file.kind {
            epoll.targets.retain(|target| target.fd != 6);
        }
    }
    let (files, _) = world.again(&single);
    assert_eq!(files, single.files);
}

#[test]
fn epoll_targets_whose_number_is_another_or_none() {
    let world = World::new();
    let mut script = Script::new();
    let event = |data: u64| [1u32.to_ne_bytes().as_slice(), &data.to_ne_bytes()].concat();
    let (first, second, third) = (script.place(&event(1)), script.place(&event(2)), script.place(&event(3)));
    let ctl = libc::SYS_epoll_ctl;
    script
        .call(libc::SYS_epoll_create1, [0])
        .call(libc::SYS_eventfd2, [0, 0])
        .call(libc::SYS_dup, [1])
        .call(ctl, [0, 1, 1, first])
        .call(libc::SYS_close, [1])
        // The number is in use again, for another file, and remembered under a third.
        .call(libc::SYS_eventfd2, [0, 0])
        .call(ctl, [0, 1, 1, second])
        .call(libc::SYS_dup, [1])
        .call(ctl, [0, 1, 3, third])
        .call(libc::SYS_close, [3]);
    let puppet = script.start();
    let captured = world.capture_all(&[&puppet]);
    let FileKind::Epoll(epoll) = &file(&captured, 0).kind else { panic!() };
    let file_at = |fd: u32| captured.fds[&FIRST].iter().find(|entry| entry.fd == fd).unwrap().file;
    let mut targets: Vec<_> = epoll.targets.iter().map(|t| (t.data.0, t.fd, t.file)).collect();
    targets.sort_unstable();
    assert_eq!(targets, [(1, 1, file_at(2)), (2, 1, file_at(1)), (3, 3, file_at(1))]);

    let registrations = crfs::resource::epoll::registrations(&world.image(&captured)).unwrap();
    assert_eq!(registrations.in_place, []);
    let early = &registrations.early[&FIRST];
    assert_eq!(
        early.iter().map(|one| (one.epoll, one.file)).collect::<Vec<_>>(),
        epoll.targets.iter().map(|t| (file_at(0), t.file)).collect::<Vec<_>>()
    );
}

#[test]
fn a_counter_at_its_highest() {
    let world = World::new();
    let mut script = Script::new();
    let highest = script.place(&(u64::MAX - 1).to_ne_bytes());
    script.call(libc::SYS_eventfd2, [0, 0]).call(libc::SYS_write, [0, highest, 8]);
    let puppet = script.start();
    let captured = world.capture_all(&[&puppet]);
    let FileKind::Eventfd(record) = &file(&captured, 0).kind else { panic!() };
    assert_eq!(record.count, Hex(u64::MAX - 1));
    let (files, _) = world.again(&world.image(&captured));
    assert_eq!(files, captured.files);
}

#[test]
fn a_container_with_a_root_of_its_own() {
    let world = World::new();
    let data = world.file("data", b"0123456789");
    let outside = world.file("outside", b"");
    let root = world.path("root");
    std::fs::create_dir_all(root.join("inner")).unwrap();
    std::fs::rename(&data, root.join("data")).unwrap();
    let mut script = Script::new();
    let new_root = script.place(format!("{}\0", root.display()).as_bytes());
    script.open(&outside, libc::O_RDONLY).call(libc::SYS_chroot, [new_root]);
    script.open("/data".as_ref(), libc::O_RDONLY).open("/inner".as_ref(), libc::O_RDONLY).open("/".as_ref(), 0);
    let puppet = script.start();
    let (captured, findings) = world.capture(&[&puppet]);
    assert_eq!(findings.blockers.len(), 1, "{findings:#?}");
    assert_eq!(findings.blockers[0].object, "0x00000001/fds: 0");
    assert!(findings.blockers[0].reason.ends_with("lies outside the container's root directory"));
    let path = |fd| match &file(&captured, fd).kind {
        FileKind::Regular(record) => record.path.to_string(),
        FileKind::Directory(record) => record.path.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!([path(1), path(2), path(3)], ["/data", "/inner", "/"]);
    let image = world.image(&captured);
    let link = format!("/proc/{}/root", puppet.pid());
    let here = std::fs::File::options().read(true).custom_flags(libc::O_PATH).open(link).unwrap();
    let open = crfs::resource::descriptor::open_all(
        &image,
        world.dir.path(),
        &Roots::only(here.as_fd()),
        &world.log(),
        &Default::default(),
        &mut Vec::new(),
    );
    let opened = std::fs::File::from(open.unwrap().files.remove(&FileId(1)).unwrap());
    assert_eq!(opened.metadata().unwrap().ino(), std::fs::metadata(root.join("data")).unwrap().ino());
}

#[test]
fn a_pipe_belongs_to_the_user_of_its_process() {
    let world = World::new();
    let mut script = Script::new();
    let pair = script.place(&[0; 8]);
    script.call(libc::SYS_pipe2, [pair, 0]);
    let captured = world.capture_all(&[&script.start()]);
    let mut image = world.image(&captured);
    let thread = image.processes.get_mut(&FIRST).unwrap().threads.get_mut(&FIRST).unwrap();
    (thread.attr.credentials.uid[3], thread.attr.credentials.gid[3]) = (1234, 2345);
    let open = world.open_all(&image, &mut Vec::new()).unwrap();
    for end in open.values() {
        let metadata = std::fs::File::from(end.try_clone().unwrap()).metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (1234, 2345));
    }
}

#[test]
fn a_long_table() {
    let world = World::new();
    let mut script = Script::new();
    let limit = script.place(&[20_000u64.to_ne_bytes(), 20_000u64.to_ne_bytes()].concat());
    let pair = script.place(&[0; 8]);
    script.call(libc::SYS_prlimit64, [0, 7, limit, 0]).call(libc::SYS_eventfd2, [0, 0]);
    // A table that long, with the last of it in use; and descriptions that look alike.
    for fd in 9_980..10_000 {
        script.call(libc::SYS_dup2, [0, fd]);
    }
    for _ in 0..12 {
        script.call(libc::SYS_eventfd2, [0, 0]).call(libc::SYS_pipe2, [pair, 0]);
    }
    let puppet = script.start();
    let captured = world.capture_all(&[&puppet]);
    assert_eq!(captured.fds[&FIRST].len(), 1 + 20 + 12 * 3);
    assert_eq!(captured.files.len(), 1 + 12 * 3);
    assert_eq!(captured.fds[&FIRST].last().unwrap().fd, 9_999);
    assert_eq!(captured.fds[&FIRST].last().unwrap().file, FileId(0));
}
