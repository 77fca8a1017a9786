//! Any value of any record: the numbers at their edges and the strings with everything that needs escaping.

use image_format::aio::*;
use image_format::cgroups::*;
use image_format::controls::*;
use image_format::fanotify::*;
use image_format::files::*;
use image_format::image::{Image, ProcessImage, ThreadImage};
use image_format::io_uring::{IoUring, MappedRing};
use image_format::ldt::*;
use image_format::locks::*;
use image_format::manifest::*;
use image_format::memory::*;
use image_format::mounts::*;
use image_format::mqueue::*;
use image_format::namespaces::*;
use image_format::numa::*;
use image_format::pid_namespaces::PidNamespace;
use image_format::process::*;
use image_format::seccomp::*;
use image_format::signal::*;
use image_format::socket::*;
use image_format::sysv::*;
use image_format::thread::*;
use image_format::time_namespaces::TimeNamespace;
use image_format::timer::*;
use image_format::tty::*;
use image_format::unnamed::*;
use image_format::user_namespaces::{IdRange, UserNamespace};
use image_format::xstate::{Xstate, XstatePart};
use image_format::{Address, Blob, Blocker, Bytes, FileId, Hex, Octal, Pid, Timespec};
use proptest::prelude::{Just, RngExt, Strategy};
use proptest::test_runner::TestRng;
use std::collections::{BTreeMap, BTreeSet};

/// Something a random generator can make.
pub(crate) trait Arbitrary: Sized {
    fn arbitrary(rng: &mut TestRng) -> Self;
}

/// A proptest strategy of any such value. It does not shrink: the records are small enough to read.
pub(crate) fn any<T: Arbitrary + std::fmt::Debug>() -> impl Strategy<Value = T> {
    Just(()).prop_perturb(|(), mut rng| T::arbitrary(&mut rng))
}

macro_rules! numbers {
    ($($type:ty),*) => { $(impl Arbitrary for $type {
        fn arbitrary(rng: &mut TestRng) -> Self {
            match rng.random_range(0..6) {
                0 => <$type>::MIN,
                1 => <$type>::MAX,
                2 => rng.random_range(0..9),
                _ => rng.random(),
            }
        }
    })* };
}
numbers!(u8, u16, u32, u64, i32, i64);

macro_rules! records {
    ($($type:path { $($field:ident),* $(,)? })*) => { $(impl Arbitrary for $type {
        fn arbitrary(rng: &mut TestRng) -> Self {
            Self { $($field: Arbitrary::arbitrary(rng)),* }
        }
    })* };
}

macro_rules! wrappers {
    ($($type:path),* $(,)?) => { $(impl Arbitrary for $type {
        fn arbitrary(rng: &mut TestRng) -> Self {
            Self(Arbitrary::arbitrary(rng))
        }
    })* };
}

macro_rules! choices {
    ($($type:ident [ $($unit:ident),* ] [ $($with:ident),* ])*) => { $(impl Arbitrary for $type {
        fn arbitrary(rng: &mut TestRng) -> Self {
            let makers: &[fn(&mut TestRng) -> Self] = &[
                $(|_| $type::$unit,)*
                $(|rng| $type::$with(Arbitrary::arbitrary(rng)),)*
            ];
            makers[rng.random_range(0..makers.len())](rng)
        }
    })* };
}

impl Arbitrary for bool {
    fn arbitrary(rng: &mut TestRng) -> Self {
        rng.random()
    }
}
impl Arbitrary for String {
    fn arbitrary(rng: &mut TestRng) -> Self {
        const PIECES: [&str; 10] =
            ["", "a", "\"", "\\", "\n", "\u{0}", "\u{9b}", "caf\u{e9}", "{\"end\":true}", "\u{1f980}"];
        (0..rng.random_range(0..4)).map(|_| PIECES[rng.random_range(0..PIECES.len())]).collect()
    }
}
impl Arbitrary for std::net::SocketAddr {
    fn arbitrary(rng: &mut TestRng) -> Self {
        let port = u32::arbitrary(rng).to_le_bytes();
        let port = u16::from_le_bytes([port[0], port[1]]);
        if bool::arbitrary(rng) {
            return (<[u8; 4]>::arbitrary(rng), port).into();
        }
        // The text has no flow information.
        let address = <[u8; 16]>::arbitrary(rng).into();
        std::net::SocketAddrV6::new(address, port, 0, u32::arbitrary(rng)).into()
    }
}
impl Arbitrary for Bytes {
    fn arbitrary(rng: &mut TestRng) -> Self {
        let mut bytes = String::arbitrary(rng).into_bytes();
        bytes.extend(Vec::<u8>::arbitrary(rng));
        Bytes(bytes)
    }
}
impl Arbitrary for Signal {
    fn arbitrary(rng: &mut TestRng) -> Self {
        Signal(rng.random_range(1..=64))
    }
}
impl<T: Arbitrary> Arbitrary for Box<T> {
    fn arbitrary(rng: &mut TestRng) -> Self {
        Box::new(T::arbitrary(rng))
    }
}

impl<T: Arbitrary> Arbitrary for Vec<T> {
    fn arbitrary(rng: &mut TestRng) -> Self {
        (0..rng.random_range(0..4)).map(|_| T::arbitrary(rng)).collect()
    }
}
impl<T: Arbitrary> Arbitrary for Option<T> {
    fn arbitrary(rng: &mut TestRng) -> Self {
        rng.random::<bool>().then(|| T::arbitrary(rng))
    }
}
impl<T: Arbitrary, const N: usize> Arbitrary for [T; N] {
    fn arbitrary(rng: &mut TestRng) -> Self {
        std::array::from_fn(|_| T::arbitrary(rng))
    }
}
impl<K: Arbitrary + Ord, V: Arbitrary> Arbitrary for BTreeMap<K, V> {
    fn arbitrary(rng: &mut TestRng) -> Self {
        (0..rng.random_range(0..4)).map(|_| (K::arbitrary(rng), V::arbitrary(rng))).collect()
    }
}
impl<T: Arbitrary + Ord> Arbitrary for BTreeSet<T> {
    fn arbitrary(rng: &mut TestRng) -> Self {
        (0..rng.random_range(0..4)).map(|_| T::arbitrary(rng)).collect()
    }
}

wrappers! {
    Pid, FileId, Address, Hex, Octal, Blob, Fixed, SignalSet, Xstate,
    OpenFlags, Seals, Protection, SegmentFlags, AltStackFlags, ActionFlags, SecureBits, SeccompFlags, Mdwe, LockFuture, LdtFlags,
    NumaFlags,
    MountFlags,
}

choices! {
    IfChanged [Default, Strict, Ignore, Append] [Replace]
    FileKind [] [Regular, Unnamed, Directory, PathOnly, Device, Pipe, Fifo, Eventfd, Epoll, Timerfd, Signalfd, Pseudo, EndedTask, Pidfd, Namespace, Inotify, Fanotify, IoUring, MessageQueue, Tty, UnixSocket, InetSocket, NetlinkSocket]
    Marked [Inode, Mount, Filesystem] []
    PseudoFileSystem [Proc, Sysfs, Cgroup2, Cgroup] []
    PathType [SymbolicLink, Fifo, Socket, BlockDevice, CharacterDevice] []
    Stream [Log, Console] []
    TtySide [Master, Slave, Controlling] []
    SlaveState [Unopened, Open, Closed] []
    Flow [On, StoppedByKey, StoppedByCall] []
    NamespaceContent [] [Cgroup, Ipc, Mnt, Net, Pid, Time, User, Uts]
    NamespaceType [Cgroup, Ipc, Mnt, Net, Pid, Time, User, Uts] []
    OwnerKind [Thread, Process, Group] []
    NetlinkProtocol [Route, Usersock, SockDiag, Audit, KobjectUevent] []
    SocketStyle [Stream, Datagram, Seqpacket] []
    UnixName [] [Abstract, Path, Accepted, FormerPath, FormerAbstract]
    UnixLink [Unconnected] [Listening, Connected, Closed, External]
    InetLink [Unconnected, Ended] [Listening, Directed, Connected]
    InetClient [] [Open, Closed]
    MountKind [Host, Inherited, Unmounted] [Tmpfs, Bind, HostPath, Taken, Fresh]
    Master [Host] [Peers]
    Node [Directory, Fifo, Socket] [File, Symlink, Link, CharacterDevice, BlockDevice]
    LockKind [Flock, Posix, Ofd, Lease] []
    PathKind [Directory, Object, Lines, Raw, Zstd] []
    NamespaceKind [Cgroup, Ipc, Mnt, Net, Pid, Uts] []
    Backing [Anonymous, AioRing, Vdso, Vvar, VvarVclock, Vsyscall] [HugePages, File, Unnamed, SharedAnonymous, SysvShm, IoUring]
    Origin [] [Memfd, Deleted, Tmpfile, SharedHugePages]
    Source [Zero, File, Guard, Parent] [Own, Process]
    Resume [Again, Ended] [Remaining]
    JobControl [Running, Continued] [Stopped]
    Seccomp [None, Strict] [Filter]
    HugePages [Default, Advised, Never] []
    NumaOwner [] [Thread, Mapping]
    NumaMode [Preferred, Bind, Interleave, Local, PreferredMany, WeightedInterleave] []
    MemoryErrors [Default, Early, Late] []
    IntervalTimerKind [ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF] []
    Timer [] [Interval, Posix]
    TimerClock [CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI, CLOCK_PROCESS_CPUTIME_ID]
        [CLOCK_THREAD_CPUTIME_ID]
    Notify [SIGEV_NONE] [SIGEV_SIGNAL, SIGEV_THREAD, SIGEV_THREAD_ID]
    TimerState [Disarmed] [Remaining, Expired]
}

records! {
    Blocker { object, reason, remedy }
    Timespec { sec, nsec }
    File { flags, position, owner, kind }
    Owner { kind, id, uid, euid, signal }
    RegularFile { path, size, modified, if_changed }
    image_format::files::Replacement { from }
    image_format::files::Unnamed { file }
    Lock { file, kind, process, exclusive, start, end }
    UnnamedFile { number, origin, size, mode, uid, gid, modified }
    image_format::unnamed::Memfd { name, seals, page_size }
    image_format::unnamed::Place { path }
    HugeMapping { page_size }
    MappedUnnamed { file, offset, writable }
    image_format::files::Directory { path, listing, deleted }
    image_format::files::Listing { inode, modified }
    image_format::files::DeletedDirectory { mode, uid, gid }
    image_format::files::PathOnly { path, file_type }
    image_format::files::PseudoFile { file_system, path, at_end }
    image_format::ended::EndedTask { path, at_end }
    Device { path, major, minor }
    Pipe { pipe, capacity, queued, packets }
    image_format::files::Fifo { path, awaits_writer, pipe }
    Eventfd { count, semaphore }
    image_format::files::Pidfd { pid, thread }
    image_format::files::Namespace { kind, process }
    image_format::files::Inotify { watches, next_wd, unread }
    image_format::files::InotifyWatch { wd, path, mask }
    Fanotify { flags, event_flags, unprivileged, marks, unread }
    FanotifyMark { on, path, mask, ignored_mask, flags }
    OpenQueue { queue }
    PosixQueue { number, namespace, name, mode, uid, gid, capacity, message_size, messages, notify }
    PosixMessage { priority, size }
    QueueNotify { process, signal, value, thread }
    QueueThread { socket, cookie }
    Epoll { targets }
    EpollTarget { fd, file, events, data }
    Timerfd { clock, settime_flags, remaining, interval, ticks }
    Signalfd { mask }
    IoUring { ring, flags, sq_entries, cq_entries, submitted, completed, issuer }
    MappedRing { ring, offset }
    Stdio { file, stream }
    Tty { path, number, side, hung_up }
    Pty {
        slave, locked, packet, master_exclusive, exclusive, flow, uid, gid, mode, termios, size, foreground, input, output,
        console,
    }
    Termios { iflag, oflag, cflag, lflag, line, cc, ispeed, ospeed }
    WindowSize { rows, columns, x_pixels, y_pixels }
    Console { shown }
    TtyQueue { bytes, line_ends, behind }
    UnixSocket { style, name, link, receive_shut, send_shut, peer, uid, gid, options, queued }
    UnixPath { path, directory, file }
    UnixFile { mode, uid, gid }
    UnixListening { backlog, pending }
    UnixPending { client, connected, queued }
    UnixClosed { reset }
    UnixExternal { path }
    SocketCredentials { pid, uid, gid }
    UnixMessage { length, from, credentials, files }
    InetSocket { style, ipv6, local, link, uid, gid, options, congestion, received, unsent, datagrams }
    NetlinkSocket { protocol, raw, port, groups, destination, uid, gid, options }
    NetlinkDestination { port, groups }
    InetListening { backlog, pending }
    InetPending { client, received }
    ClosedClient { from, to }
    TcpConnection { remote, peer, send_shut, receive_shut, advertised_mss, window_scale, sack, timestamps }
    Datagram { length, from }
    SocketOptions { numbers, receive_timeout_us, send_timeout_us, linger, filter }
    SocketOption { name, value }
    Manifest {
        format, generator, name, architecture, page_size, kernel, cpu, clocks, container, parent, paths,
    }
    Kernel { release, vdso, vdso_size }
    Cpu { xfeatures, xsave_size, flags }
    Clocks { realtime, monotonic, boottime }
    Container { root, host_namespaces, hostname, domainname, loopback }
    PathEntry { path, kind, size }
    Segment { start, end, protection, shared, flags, backing, pages }
    MappedFile { path, offset, size, modified, writable }
    SharedAnonymous { object, offset, size }
    image_format::memory::SysvShm { segment, offset, writable }
    Permissions { key, mode, uid, gid, creator_uid, creator_gid }
    SharedSegment { id, permissions, size, page_size, locked, destroyed }
    SemaphoreSet { id, permissions, values }
    MessageQueue { id, permissions, capacity, messages }
    Message { kind, size }
    SemaphoreAdjustment { set, adjustments }
    SysV { segments, semaphores, queues }
    PageRange { start, count, source }
    ChunkSum { chunk, xxh3 }
    Process {
        pid, parent, parent_thread, group, session, exit_signal, shares, job_control, first_thread_ended, tty, exe, cwd, cwd_deleted, root, umask, limits, arguments, environment, layout,
    }
    Shares { memory, descriptors, directories, signal_actions }
    EndedThread { name, uid, gid, status }
    Stopped { signal, told }
    Limit { soft, hard }
    MemoryLayout {
        start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start, env_end,
        auxv,
    }
    ProcessAttr { dumpable, child_subreaper, oom_score_adj, coredump_filter, memory, autogroup_nice }
    MemoryPolicy { huge_pages, merge, mdwe, lock_future }
    ThreadControls { no_tsc, no_cpuid, memory_errors, io_flusher, syscall_dispatch }
    SyscallDispatch { selector, start, length }
    LdtEntry { entry, base, limit, contents, flags }
    NumaPolicy { of, mode, flags, nodes, home_node }
    AioContext { ring, events }
    AioEvent { data, obj, res, res2 }
    Fd { fd, file, cloexec }
    ThreadEntry { tid }
    Zombie { pid, group, session, name, uid, gid, exit_signal, status }
    SignalMask { blocked }
    AltStack { sp, size, flags }
    SignalAction { signal, handler, flags, restorer, mask }
    PendingSignal { signal, code, siginfo }
    ThreadAttr {
        name, credentials, scheduling, affinity, timer_slack_ns, personality, tid_address, robust_list, rseq,
        pdeath_signal, no_new_privs, seccomp, controls, login_uid, directories,
    }
    Directories { cwd, cwd_deleted, root, umask }
    Credentials { uid, gid, groups, inheritable, permitted, effective, bounding, ambient, securebits }
    Scheduling { policy, flags, nice, priority, runtime_ns, deadline_ns, period_ns, io_priority }
    RobustList { head, length }
    Rseq { address, size, signature, flags }
    FpuState { xstate, debug }
    XstatePart { offset, bytes }
    Frame { registers, syscall }
    Registers {
        r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip, cs, eflags, rsp, ss, ds,
        es, fs, gs,
    }
    InterruptedSyscall { name, resume }
    IntervalTimer { which, remaining, interval }
    PosixTimer { id, clock, notify, value, state, interval, absolute, overrun }
    NotifyThread { signal, thread }
    Tls { fs_base, gs_base }
    ThreadImage { attr, fds, mask, altstack, pending, fpu, frame, timers, tls, zombies }
    ProcessImage { process, attr, fds, aio, ldt, numa, segments, actions, pending, semadj, threads }
    SeccompFilter { filter, after, flags, program }
    Mount { number, namespace, path, kind, flags, propagation }
    FileSystem { source, options, read_only }
    FreshMount { file_system, options }
    BindMount { source }
    HostPath { source }
    Propagation { peers, master, unbindable }
    TreeEntry { path, node, mode, uid, gid, modified, xattrs }
    FileContent { size, parts }
    FilePart { offset, length }
    DeviceNumber { major, minor }
    ExtendedAttribute { name, value }
    Image { manifest, processes, files, stdios, locks, unnamed, seccomp, sysv, queues, ttys, mounts, trees, cgroups, namespaces }
    Cgroup {
        path, threaded, frozen, mode, uid, gid, maker, delegated, controllers, settings, processes, threads,
    }
    Maker { uid, gid }
    UnsharedNamespace { content, processes, user }
    CgroupRoot { root }
    MountNamespace { number, base, private, files }
    NetworkNamespace { loopback, sockets }
    PidNamespace { ids, for_children_of, shown_by }
    TimeNamespace { monotonic, boottime, for_children_of }
    UserNamespace { owner, uid_map, gid_map, setgroups, container }
    IdRange { inside, outside, count }
    UtsNames { hostname, domainname }
    DelegatedFile { file, mode, uid, gid }
    Setting { file, value }
}
