//! Everything that cannot be carried is named: the object, the kind, and what to do.

use crate::world::{FIRST, Script, World, holding};
use crfs::resource::Findings;
use image_format::files::FileKind;
use image_format::locks::LockKind;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::EventFd;
use std::os::fd::AsRawFd;

/// Asserts that exactly these descriptors are in the way, each with these words.
fn assert_named(findings: &Findings, expected: &[(u32, &str)]) {
    let object = |fd| format!("0x00000001/fds: {fd}");
    for &(fd, words) in expected {
        let found = findings.blockers.iter().find(|blocker| blocker.object == object(fd));
        let found = found.unwrap_or_else(|| panic!("{fd} ({words}) is not named in {:#?}", findings.blockers));
        assert!(found.reason.contains(words), "{fd}: {:?} does not say {words:?}", found.reason);
        assert!(!found.remedy.is_empty() && found.remedy.ends_with('.'), "{found:?}");
    }
    assert_eq!(findings.blockers.len(), expected.len(), "{:#?}", findings.blockers);
}

/// `struct sockaddr_in` for 127.0.0.1.
fn loopback(port: u16) -> Vec<u8> {
    let mut address = 2u16.to_ne_bytes().to_vec();
    address.extend(port.to_be_bytes());
    address.extend([127, 0, 0, 1]);
    address.extend([0; 8]);
    address
}

#[test]
fn anonymous_files_and_files_in_memory() {
    let world = World::new();
    let mut script = Script::new();
    let name = script.place(b"scratch\0");
    let tmpfs = script.place(b"tmpfs\0");
    let queue = script.place(format!("crfs-test-{}\0", std::process::id()).as_bytes());
    let rdwr_create = u64::from((libc::O_RDWR | libc::O_CREAT).unsigned_abs());
    script
        // FAN_REPORT_MNT
        .call(libc::SYS_fanotify_init, [0x4000, 0])
        .call(libc::SYS_userfaultfd, [1])
        .call(libc::SYS_pidfd_open, [std::process::id().into(), 0])
        .call(libc::SYS_memfd_create, [name, 0])
        .call(libc::SYS_fsopen, [tmpfs, 0])
        .open("/proc/self/ns/uts".as_ref(), libc::O_RDONLY)
        .call(libc::SYS_unshare, [libc::CLONE_NEWUTS.unsigned_abs().into()])
        .call(libc::SYS_mq_open, [queue, rdwr_create, 0o600, 0])
        .call(libc::SYS_mq_unlink, [queue])
        .open("/proc/self/mem".as_ref(), libc::O_RDONLY)
        .open("/sys/kernel/mm/transparent_hugepage/enabled".as_ref(), libc::O_RDWR)
        .open("/proc/self/comm".as_ref(), libc::O_RDWR)
        .open("/proc/thread-self/stat".as_ref(), libc::O_RDONLY)
        .open("/proc/self/ns/net".as_ref(), libc::O_RDONLY)
        .call(libc::SYS_flock, [11, libc::LOCK_EX.unsigned_abs().into()])
        .call(libc::SYS_socket, [libc::AF_UNIX, libc::SOCK_STREAM, 0].map(|word| word.unsigned_abs().into()))
        .call(libc::SYS_flock, [12, libc::LOCK_EX.unsigned_abs().into()]);
    let puppet = script.start();
    let (captured, findings) = world.capture(&[&puppet]);
    assert_named(
        &findings,
        &[
            (0, "a fanotify group of a kind that is not carried yet (0x4000)"),
            (1, "a userfaultfd"),
            (2, "a pidfd"),
            (4, "a file system context (fsopen)"),
            (5, "]) cannot be carried: no process of the container is in it"),
            (6, "a POSIX message queue"),
            (7, "the address space that the process had when it was opened"),
            (8, "of the sysfs file system cannot be carried: it is open for writing"),
            (9, "of the proc file system cannot be carried: it is open for writing"),
            (11, "is locked, and it is opened too late in a restore for a lock"),
            (12, "is locked, and it is opened too late in a restore for a lock"),
        ],
    );
    assert_eq!(
        captured.files.len(),
        4,
        "what is refused has no record; the memfd, the file of a thread, the locked namespace and the locked socket are carried"
    );
    assert_eq!(captured.fds[&FIRST].len(), 4);
}

#[test]
fn a_namespace_that_is_mounted() {
    let world = World::new();
    let at = world.file("net", b"");
    let mut script = Script::new();
    let [root, namespace] = ["/\0", "/proc/self/ns/net\0"].map(|path| script.place(path.as_bytes()));
    let target = script.place(&[at.to_str().unwrap().as_bytes(), &[0]].concat());
    script
        .call(libc::SYS_unshare, [libc::CLONE_NEWNS.unsigned_abs().into()])
        .call(libc::SYS_mount, [0, root, 0, libc::MS_REC | libc::MS_PRIVATE, 0])
        .call(libc::SYS_mount, [namespace, target, 0, libc::MS_BIND, 0])
        .open(&at, libc::O_RDONLY);
    let puppet = script.start();
    let (_, findings) = world.capture(&[&puppet]);
    assert_named(&findings, &[(0, "it was not opened through /proc/PID/ns")]);
}

#[test]
fn sockets_by_protocol() {
    let world = World::new();
    let mut script = Script::new();
    let any = script.place(&loopback(0));
    let pair = script.place(&[0; 8]);
    let at = world.path("socket");
    let mut unix = 1u16.to_ne_bytes().to_vec();
    unix.extend(at.to_str().unwrap().as_bytes());
    unix.push(0);
    let length = unix.len() as u64;
    let unix = script.place(&unix);
    script
        .call(libc::SYS_socket, [2, 1, 0])
        .call(libc::SYS_bind, [0, any, 16])
        .call(libc::SYS_listen, [0, 1])
        .call(libc::SYS_socket, [2, 2, 0])
        .call(libc::SYS_bind, [1, any, 16])
        .call(libc::SYS_socketpair, [1, 1, 0, pair])
        .call(libc::SYS_socket, [1, 2, 0])
        .call(libc::SYS_bind, [4, unix, length])
        .call(libc::SYS_socket, [16, 3, 16])
        .call(libc::SYS_socket, [17, 3, 0])
        .call(libc::SYS_socket, [10, 1, 0]);
    let puppet = script.start();
    let (_, findings) = world.capture(&[&puppet]);
    assert_named(&findings, &[(5, "a netlink socket of protocol 16"), (6, "a packet socket")]);
}

#[test]
fn files_that_are_not_there_any_more() {
    let world = World::new();
    let [gone, replaced, linked, empty] = ["gone", "replaced", "linked", "empty"].map(|name| world.path(name));
    let other = world.file("other", b"");
    std::fs::write(&gone, "").unwrap();
    std::fs::write(&replaced, "").unwrap();
    std::fs::create_dir(&empty).unwrap();
    std::os::unix::fs::symlink("other", &linked).unwrap();
    let fifo = world.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut script = Script::new();
    script
        .open(&gone, libc::O_RDONLY)
        .open(&replaced, libc::O_RDWR)
        .open(&linked, libc::O_PATH | libc::O_NOFOLLOW)
        .open(&empty, libc::O_RDONLY)
        .open(&fifo, libc::O_PATH)
        .open(&other, libc::O_RDONLY);
    let puppet = script.start();
    std::fs::remove_file(&gone).unwrap();
    std::fs::rename(&other, &replaced).unwrap();
    std::fs::remove_dir(&empty).unwrap();
    let (captured, findings) = world.capture(&[&puppet]);
    assert_named(&findings, &[]);
    // Renamed: it is found under its new name. The others are part of the image.
    assert_eq!(captured.files.len(), 6);
    let unnamed = captured.files.values().filter(|file| matches!(file.kind, FileKind::Unnamed(_)));
    assert_eq!(unnamed.count(), 2);
}

#[test]
fn state_that_is_not_carried() {
    let world = World::new();
    let [flock, posix] = ["flock", "posix"].map(|name| world.file(name, b"12345678"));
    let many = world.path("many");
    std::fs::create_dir(&many).unwrap();
    for n in 0..100 {
        std::fs::write(many.join(n.to_string()), "").unwrap();
    }
    let mut script = Script::new();
    let pair = script.place(&[0; 8]);
    let entries = script.place(&[0; 512]);
    // struct flock: F_WRLCK, SEEK_SET, from 0, 4 bytes.
    let lock = [1u16.to_ne_bytes().as_slice(), &[0; 6], &[0; 8], &4u64.to_ne_bytes(), &[0; 8]].concat();
    let lock = script.place(&lock);
    let set_own = [libc::F_SETOWN.unsigned_abs().into(), std::process::id().into()];
    let set_signal = [10, 40];
    let asynchronous = [libc::F_SETFL.unsigned_abs().into(), 0o20_000];
    script
        .open(&flock, libc::O_RDONLY)
        .call(libc::SYS_flock, [0, 2])
        .open(&posix, libc::O_RDWR)
        .call(libc::SYS_fcntl, [1, libc::F_SETLK.unsigned_abs().into(), lock])
        .open(&many, libc::O_RDONLY | libc::O_DIRECTORY)
        .call(libc::SYS_getdents64, [2, entries, 512])
        .call(libc::SYS_pipe2, [pair, 0])
        .call(libc::SYS_pipe2, [pair, 0])
        .call(libc::SYS_fcntl, [5, set_own[0], set_own[1]])
        .call(libc::SYS_pipe2, [pair, 0])
        .call(libc::SYS_fcntl, [7, asynchronous[0], asynchronous[1]])
        .call(libc::SYS_fcntl, [7, set_signal[0], set_signal[1]])
        .open("/proc/thread-self".as_ref(), libc::O_RDONLY | libc::O_DIRECTORY)
        .open("/dev/kmsg".as_ref(), libc::O_RDONLY)
        .call(libc::SYS_dup, [7]);
    let puppet = script.start();
    let (captured, findings) = world.capture(&[&puppet]);
    let held: Vec<_> = captured.locks.iter().map(|lock| (lock.kind, lock.exclusive, lock.end)).collect();
    assert_eq!(held, [(LockKind::Flock, true, None), (LockKind::Posix, true, Some(3))]);
    assert_named(
        &findings,
        &[
            (5, "of the host, which is outside the container"),
            (7, "tells its number with a signal"),
            (10, "device /dev/kmsg (1:11)"),
        ],
    );
}

#[test]
fn pipes_that_leave_the_container() {
    let world = World::new();
    // This process keeps both ends of the first pipe, and hands the reading end on; the second it hands on whole.
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let whole = nix::unistd::pipe().unwrap();
    let kept = [&reader, &whole.0, &whole.1].map(|fd| fd.as_raw_fd());
    let puppet = crate::world::holding(kept);
    let number = |fd: i32| u32::try_from(fd).unwrap();
    let outside = "the other end is held outside the container";

    let running = world.survey(&[&puppet]);
    assert!(running.blockers.iter().all(|blocker| blocker.reason.contains(outside)), "{running:#?}");
    assert_eq!(running.blockers.len(), 2, "{running:#?}");

    drop(whole);
    let (captured, findings) = world.capture(&[&puppet]);
    assert_named(&findings, &[(number(reader.as_raw_fd()), outside)]);
    assert_eq!(captured.pipes.len(), 1);
    drop(writer);
    drop(reader);
    let (captured, findings) = world.capture(&[&puppet]);
    assert_eq!(findings, Findings::default());
    assert_eq!(captured.pipes.len(), 2);
}

#[test]
fn epoll_targets_that_cannot_be_added_again() {
    let world = World::new();
    let mut script = Script::new();
    let pair = script.place(&[0; 8]);
    let event = |events: u32| [events.to_ne_bytes().as_slice(), &[0; 8]].concat();
    let once = script.place(&event(0x4000_0001));
    let got = script.place(&[0; 12]);
    let ctl = libc::SYS_epoll_ctl;
    script
        .call(libc::SYS_pipe2, [pair, 0])
        .call(libc::SYS_epoll_create1, [0])
        .call(libc::SYS_write, [1, got, 1])
        .call(ctl, [2, 1, 0, once])
        .call(libc::SYS_epoll_wait, [2, got, 1, 0])
        .call(libc::SYS_read, [0, got, 1]);
    let puppet = script.start();
    let (_, findings) = world.capture(&[&puppet]);
    let off = "watches descriptor 0 with EPOLLONESHOT, its one event was reported, and it is not ready for another";
    assert_named(&findings, &[(2, off)]);
}

#[test]
fn an_epoll_target_that_only_somebody_outside_has() {
    let world = World::new();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let outside = EventFd::new().unwrap();
    epoll.add(&outside, EpollEvent::new(EpollFlags::EPOLLIN, 1)).unwrap();
    let fd = epoll.0.as_raw_fd();
    let puppet = holding([fd]);
    let (_, findings) = world.capture(&[&puppet]);
    let watched = format!("watches descriptor {}, which was closed while a duplicate outside", outside.as_raw_fd());
    assert_named(&findings, &[(u32::try_from(fd).unwrap(), &watched)]);
}

#[test]
fn what_cannot_be_told_is_an_obstacle() {
    let world = World::new();
    let mut script = Script::new();
    let pair = script.place(&[0; 8]);
    script.call(libc::SYS_eventfd2, [0, 0]).call(libc::SYS_dup, [0]).call(libc::SYS_pipe2, [pair, 0]);
    let puppet = script.start();
    let (captured, findings) = world.capture_blind(&[&puppet]);
    assert_named(&findings, &[(2, "whether its other end is outside the container cannot be told")]);
    // Identity has another source.
    assert_eq!(captured.files.len(), 1);
    assert_eq!(captured.fds[&FIRST].iter().map(|fd| fd.file.0).collect::<Vec<_>>(), [0, 0]);
}
