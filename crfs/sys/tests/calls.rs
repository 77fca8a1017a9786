//! Each family of system calls against the kernel that runs.
#![allow(clippy::unwrap_used, clippy::cast_sign_loss, clippy::cast_possible_truncation)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_sys::kcmp::{Comparison, Object};
use crfs_sys::memory::{CategoryMasks, PageRegion, RemoteRange, category};
use crfs_sys::wait::Status;
use crfs_sys::{kcmp, limits, memory, namespaces, personality, pidfd, robust_list, sched, signal, sockets, time, wait};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::{Pid, getpid, getppid, gettid};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// Runs the body in a forked child and returns its exit code.
fn in_child(args: &CloneArgs<'_>, body: impl FnOnce() -> i32) -> i32 {
    match fork_into(args).unwrap() {
        Forked::Child => exit_now(body()),
        Forked::Parent { child, .. } => match wait::wait_until(child, soon()).unwrap() {
            Some(Status::Exited { code }) => code,
            other => panic!("{other:?}"),
        },
    }
}

/// A child that sleeps, killed and reaped at the end.
struct Sleeper(Pid);

impl Sleeper {
    fn new() -> Self {
        match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() }).unwrap() {
            Forked::Parent { child, .. } => Self(child),
            Forked::Child => {
                std::thread::sleep(Duration::from_secs(60));
                exit_now(0)
            }
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGKILL);
        let _ = wait::wait_until(self.0, soon());
    }
}

#[test]
fn fork_with_a_chosen_pid_in_new_namespaces() {
    let flags = libc::CLONE_NEWPID as u64 | namespaces::CLONE_NEWTIME.bits() as u64;
    let code = in_child(&CloneArgs { flags, exit_signal: libc::SIGCHLD, ..CloneArgs::default() }, || {
        if getpid().as_raw() != 1 || getppid().as_raw() != 0 {
            return 1;
        }
        let chosen = CloneArgs { set_tid: &[321], exit_signal: libc::SIGCHLD, ..CloneArgs::default() };
        in_child(&chosen, || if getpid().as_raw() == 321 { 42 } else { 2 })
    });
    assert_eq!(code, 42);
    let own = std::fs::read_link("/proc/self/ns/time").unwrap();
    let args = CloneArgs { flags: namespaces::CLONE_NEWTIME.bits() as u64, ..CloneArgs::default() };
    assert_eq!(in_child(&args, || i32::from(std::fs::read_link("/proc/self/ns/time").unwrap() == own)), 0);
}

#[test]
fn fork_refuses_to_share_memory() {
    let args = CloneArgs { flags: libc::CLONE_VM as u64, ..CloneArgs::default() };
    assert_eq!(fork_into(&args).unwrap_err(), Errno::EINVAL);
    let taken = CloneArgs { set_tid: &[getpid().as_raw()], ..CloneArgs::default() };
    assert_eq!(fork_into(&taken).unwrap_err(), Errno::EEXIST);
}

#[test]
fn pidfds_tell_while_it_lives_and_after() {
    let args = CloneArgs { exit_signal: libc::SIGCHLD, pidfd: true, ..CloneArgs::default() };
    let (mut read, write) = std::io::pipe().unwrap();
    let (child, fd) = match fork_into(&args).unwrap() {
        Forked::Parent { child, pidfd } => (child, pidfd.unwrap()),
        Forked::Child => {
            std::thread::sleep(Duration::from_secs(60));
            exit_now(0)
        }
    };
    let info = pidfd::info(fd.as_fd()).unwrap();
    assert_eq!(info.pids, Some((child, child, getpid())));
    assert!(info.cgroup.is_some());
    assert_eq!(info.exit_status, None);
    // The child's end of the pipe, through the number it has in both.
    let stolen = pidfd::getfd(fd.as_fd(), write.as_raw_fd()).unwrap();
    drop(write);
    assert_eq!(pidfd::getfd(fd.as_fd(), 9999).unwrap_err(), Errno::EBADF);
    nix::unistd::write(&stolen, b"through").unwrap();
    let mut bytes = [0; 7];
    std::io::Read::read_exact(&mut read, &mut bytes).unwrap();
    assert_eq!(&bytes, b"through");
    let other = pidfd::open(child, false).unwrap();
    pidfd::send_signal(other.as_fd(), 0).unwrap();
    pidfd::send_signal(other.as_fd(), libc::SIGTERM).unwrap();
    let end = wait::wait_until(child, soon()).unwrap().unwrap();
    assert_eq!(end, Status::Signaled { signal: libc::SIGTERM, core: false });
    assert_eq!(pidfd::info(fd.as_fd()).unwrap().exit_status, Some(libc::SIGTERM));
    assert_eq!(pidfd::send_signal(fd.as_fd(), 0).unwrap_err(), Errno::ESRCH);
    let thread = pidfd::open(gettid(), true).unwrap();
    assert_eq!(pidfd::info(thread.as_fd()).unwrap().pids.map(|(tid, pid, _)| (tid, pid)), Some((gettid(), getpid())));
}

#[test]
fn waiting_ends_at_the_deadline() {
    let sleeper = Sleeper::new();
    assert_eq!(wait::try_wait(sleeper.0).unwrap(), None);
    let begun = Instant::now();
    assert_eq!(wait::wait_until(sleeper.0, begun + Duration::from_millis(20)).unwrap(), None);
    assert!(begun.elapsed() >= Duration::from_millis(20));
    assert_eq!(wait::try_wait(getpid()).unwrap_err(), Errno::ECHILD);
    assert_eq!(wait::try_wait(Pid::from_raw(-1)).unwrap_err(), Errno::EINVAL);
}

#[test]
fn kcmp_tells_what_is_shared() {
    let child = Sleeper::new();
    let me = getpid();
    for object in [Object::Vm, Object::Files, Object::Fs, Object::Sighand] {
        assert_eq!(kcmp::compare(object, me, me).unwrap(), Comparison::Equal);
        assert_eq!(kcmp::compare(object, me, gettid()).unwrap(), Comparison::Equal, "{object:?}");
        let forward = kcmp::compare(object, me, child.0).unwrap();
        let backward = kcmp::compare(object, child.0, me).unwrap();
        assert_eq!(forward.ordering().unwrap(), backward.ordering().unwrap().reverse());
        assert_ne!(forward, Comparison::Equal);
    }
    // The caller has threads, and threads share a list from their birth on; the children have none.
    let sibling = Sleeper::new();
    assert_eq!(kcmp::compare(Object::Sysvsem, sibling.0, child.0).unwrap(), Comparison::Equal);
    assert_ne!(kcmp::compare(Object::Sysvsem, me, child.0).unwrap(), Comparison::Equal);
    let file = File::open("/dev/null").unwrap();
    let again = File::open("/dev/null").unwrap();
    let dup = file.try_clone().unwrap();
    assert_eq!(kcmp::compare_files(me, file.as_raw_fd(), me, dup.as_raw_fd()).unwrap(), Comparison::Equal);
    assert_ne!(kcmp::compare_files(me, file.as_raw_fd(), me, again.as_raw_fd()).unwrap(), Comparison::Equal);
    assert_eq!(kcmp::compare_files(me, 9999, me, 0).unwrap_err(), Errno::EBADF);

    let epoll = nix::sys::epoll::Epoll::new(nix::sys::epoll::EpollCreateFlags::empty()).unwrap();
    let (read, _write) = std::io::pipe().unwrap();
    epoll.add(&read, nix::sys::epoll::EpollEvent::empty()).unwrap();
    let (fd, target) = (epoll.0.as_raw_fd(), read.as_raw_fd());
    assert_eq!(kcmp::compare_epoll_target(me, target, me, fd, target, 0).unwrap(), Comparison::Equal);
    assert_ne!(kcmp::compare_epoll_target(me, file.as_raw_fd(), me, fd, target, 0).unwrap(), Comparison::Equal);
    assert_eq!(kcmp::compare_epoll_target(me, target, me, fd, target, 1).unwrap_err(), Errno::ENOENT);
}

#[test]
fn memory_of_another_process_is_read_and_written() {
    // More ranges than one call takes.
    let mut page = vec![0u8; 1 << 16];
    for (index, byte) in page.iter_mut().enumerate() {
        *byte = (index % 251) as u8;
    }
    let child = Sleeper::new();
    let base = page.as_ptr() as u64;
    let ranges: Vec<_> = (0..3000).map(|index| RemoteRange { start: base + index * 20, len: 10 }).collect();
    let mut read = vec![0u8; 30_000];
    memory::read_ranges(child.0, &ranges, &mut read).unwrap();
    let expected: Vec<u8> = (0..3000).flat_map(|index| page[index * 20..index * 20 + 10].to_vec()).collect();
    assert_eq!(read, expected);
    let written: Vec<u8> = expected.iter().rev().copied().collect();
    memory::write_ranges(child.0, &ranges, &written).unwrap();
    memory::read_ranges(child.0, &ranges, &mut read).unwrap();
    assert_eq!(read, written);
    // The child's copy changed, ours did not.
    assert_eq!(page[0..10], expected[0..10]);
    assert_eq!(memory::read(child.0, 8, &mut [0; 8]).unwrap_err(), Errno::EFAULT);
    assert_eq!(memory::write_ranges(child.0, &ranges[..1], &[0; 5]).unwrap_err(), Errno::EINVAL);
}

#[test]
fn pagemap_scan_finds_the_pages_that_are_there() {
    let pages = 4096usize;
    let length = pages * 4096;
    let mut area = memmap2::MmapMut::map_anon(length).unwrap();
    // Without huge pages only what is touched is there.
    area.advise(memmap2::Advice::NoHugePage).unwrap();
    let start = area.as_ptr() as u64;
    // Every other page, so that there are more regions than one call reports, and then a run across that boundary.
    let touched: Vec<usize> = (0..2048).step_by(2).chain(2048..4096).collect();
    for index in &touched {
        area[index * 4096] = 1;
    }
    let pagemap = File::open("/proc/self/pagemap").unwrap();
    let masks = CategoryMasks {
        required: category::PRESENT,
        returned: category::PRESENT | category::FILE | category::PFNZERO,
        ..CategoryMasks::default()
    };
    let mut regions = Vec::new();
    let end = start + length as u64;
    memory::pagemap_scan(pagemap.as_fd(), start, end, masks, &mut regions).unwrap();
    let at = |page: usize| start + page as u64 * 4096;
    let mut expected: Vec<_> = (0..2048)
        .step_by(2)
        .map(|page| PageRegion { start: at(page), end: at(page + 1), categories: category::PRESENT })
        .collect();
    expected.push(PageRegion { start: at(2048), end: at(4096), categories: category::PRESENT });
    assert_eq!(regions, expected);
    // And the holes, with the category inverted.
    let masks = CategoryMasks { inverted: category::PRESENT, ..masks };
    let mut holes = Vec::new();
    memory::pagemap_scan(pagemap.as_fd(), start, end, masks, &mut holes).unwrap();
    assert_eq!(holes.len(), 1024);
    let protect = memory::pagemap_scan_and_protect(pagemap.as_fd(), start, end, masks, &mut holes);
    assert_eq!(protect.unwrap_err(), Errno::EPERM);
}

#[test]
fn limits_and_scheduling_of_another_process() {
    let child = Sleeper::new();
    let core = libc::RLIMIT_CORE;
    let old = limits::get(child.0, core).unwrap();
    let new = limits::Limit { soft: 0, hard: old.hard };
    assert_eq!(limits::set(child.0, core, new).unwrap(), old);
    assert_eq!(limits::get(child.0, core).unwrap(), new);
    assert_eq!(limits::get(child.0, limits::COUNT).unwrap_err(), Errno::EINVAL);

    sched::set_nice(child.0, 7).unwrap();
    assert_eq!(sched::nice(child.0).unwrap(), 7);
    let mut attr = sched::attributes(child.0).unwrap();
    assert_eq!((attr.policy, attr.nice), (libc::SCHED_OTHER as u32, 7));
    attr.policy = libc::SCHED_BATCH as u32;
    sched::set_attributes(child.0, &attr).unwrap();
    assert_eq!(sched::attributes(child.0).unwrap(), attr);

    let class_best_effort_level_6 = (2 << 13) | 6;
    sched::set_io_priority(child.0, class_best_effort_level_6).unwrap();
    assert_eq!(sched::io_priority(child.0).unwrap(), class_best_effort_level_6);

    let all = sched::affinity(child.0).unwrap();
    let lowest = all.iter().position(|word| *word != 0).unwrap();
    let mut one = vec![0; all.len()];
    one[lowest] = 1 << all[lowest].trailing_zeros();
    sched::set_affinity(child.0, &one).unwrap();
    assert_eq!(sched::affinity(child.0).unwrap(), one);
    assert_eq!(sched::set_affinity(child.0, &[0]).unwrap_err(), Errno::EINVAL);
}

#[test]
fn clocks() {
    let child = Sleeper::new();
    let cpu = time::process_cpu_ns(child.0).unwrap();
    assert!((0..1_000_000_000).contains(&cpu), "{cpu}");
    assert!(time::thread_cpu_ns(gettid()).unwrap() > 0);
    let dead = child.0;
    drop(child);
    assert_eq!(time::process_cpu_ns(dead).unwrap_err(), Errno::ESRCH);
    let before = time::clock_ns(libc::CLOCK_MONOTONIC).unwrap();
    assert!(time::clock_ns(libc::CLOCK_MONOTONIC).unwrap() >= before);
    assert_eq!(time::clock_ns(99).unwrap_err(), Errno::EINVAL);
}

#[test]
fn robust_lists_and_personalities() {
    let list = robust_list::get(gettid()).unwrap();
    assert!(list.head != 0);
    assert_eq!(list.len, 24);
    let code = in_child(&CloneArgs::default(), || {
        let unchanged = personality::get().unwrap();
        let no_randomization = unchanged | libc::ADDR_NO_RANDOMIZE as u32;
        assert_eq!(personality::set(no_randomization).unwrap(), unchanged);
        i32::from(personality::get().unwrap() == no_randomization)
    });
    assert_eq!(code, 1);
}

#[test]
fn signals_are_reset_and_masked_by_number() {
    let code = in_child(&CloneArgs::default(), || {
        let ignore = nix::sys::signal::SigHandler::SigIgn;
        for number in [nix::sys::signal::Signal::SIGPIPE, nix::sys::signal::Signal::SIGXFSZ] {
            // SAFETY: no handler is installed.
            unsafe { nix::sys::signal::signal(number, ignore) }.unwrap();
        }
        signal::reset_all().unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let zero = "0000000000000000";
        if !status.contains(&format!("SigIgn:\t{zero}")) || !status.contains(&format!("SigCgt:\t{zero}")) {
            return 1;
        }
        // 32 and 33, which the C library does not let one block, and 64.
        let set = signal::bit(32) | signal::bit(33) | signal::bit(64);
        signal::set_mask(0).unwrap();
        let before = signal::block(set).unwrap();
        let blocked = signal::unblock(signal::bit(33)).unwrap();
        let after = signal::mask().unwrap();
        if (before, blocked, after) == (0, set, set & !signal::bit(33)) { 0 } else { 2 }
    });
    assert_eq!(code, 0);
    assert_eq!((signal::bit(1), signal::bit(64), signal::bit(0), signal::bit(65)), (1, 1 << 63, 0, 0));
}

#[test]
fn loopback_comes_up_in_a_new_network_namespace() {
    let flags = CloneFlags::CLONE_NEWNET.bits() as u64;
    let code = in_child(&CloneArgs { flags, ..CloneArgs::default() }, || {
        let try_it = || {
            std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| {
                socket.connect(socket.local_addr()?)?;
                socket.send(b"x")
            })
        };
        let before = try_it().is_ok();
        sockets::bring_loopback_up().unwrap();
        i32::from(!before && try_it().is_ok())
    });
    assert_eq!(code, 1);
}
