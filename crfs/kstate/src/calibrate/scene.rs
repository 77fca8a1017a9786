//! The children that calibration reads, stopped, with what is known of them.

use std::io;

use crfs_sys::puppet::{Arg, Step};
use crfs_sys::rseq;
use crfs_sys::thread_area::{self, FIRST_ENTRY, UserDesc};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};

use super::actor::{Actor, Script};
use super::{Trouble, connections, numa, registers};
use crate::error::Error;
use crate::state::KernelState;
use crate::tasks::Task;
use crate::timers::monotonic_ns;

/// How long the children would wait: they end by themselves, whatever happens to us.
pub(super) const WAIT_SECONDS: u64 = 20;
/// The interval timers must not expire meanwhile.
pub(super) const TIMER_SECONDS: u64 = 900;
/// Seconds and microseconds between expiries of the three interval timers.
pub(super) const INTERVALS: [(u64, u64); 3] = [(123, 456_789), (234, 567_891), (345, 678_912)];
pub(super) const ALTSTACK: (u64, u64) = (0x6000_1234_5670, 0x5678);
pub(super) const SS_AUTODISARM: u32 = 1 << 31;
pub(super) const CLEAR_TID: u64 = 0x1234_5678_9ab8;
/// ADDR_NO_RANDOMIZE
pub(super) const PERSONALITY: u32 = 0x0004_0000;
/// Nanoseconds.
const SLACK: u64 = 123_456;
pub(super) const UMASK: u64 = 0o137;
pub(super) const BRK_GROWTH: u64 = 0x5000;
pub(super) const DISPATCH_RANGE: (u64, u64) = (0x10_0000, 0x1000);
pub(super) const SEMAPHORES: u16 = 3;
pub(super) const SEM_OPS: [(u16, i16); 2] = [(0, 5), (2, 3)];
pub(super) const FUTEX_VALUE: u32 = 0x1357_9bdf;
/// What a terminal holds.
pub(super) const FED: &[u8] = b"crfs\n";
/// Blocked while a child waits, and not before and after: SIGUSR1 and a real-time signal.
pub(super) const WAIT_MASK: u64 = 1 << 9 | 1 << 40;
/// Size and signature of an area of restartable sequences.
pub(super) const RSEQ: (u32, u32) = (32, 0x5305_3053);
pub(super) const NEXT_WD: u32 = 0x0012_3456;
/// fanotify groups, by their flags: the second as its maker gets it without privileges (FANOTIFY_UNPRIV, include/linux/fanotify.h, v6.18).
pub(super) const GROUPS: [(&str, u32); 2] =
    [("fanotify_init", libc::FAN_REPORT_TID | libc::FAN_NONBLOCK), ("fanotify_init without privileges", UNPRIVILEGED)];
const UNPRIVILEGED: u32 = libc::FAN_REPORT_FID | 1 << 31;
/// The messages of a queue, by priority, as they are sent; one goes beyond a page.
pub(super) const MESSAGES: [(u32, usize); 4] = [(3, 4), (1, 2), (7, 5000), (1, 0)];
/// Signal and value of mq_notify(3).
pub(super) const NOTIFY: (i32, u64) = (10, 0x1122_3344_5566_7788);
/// The descriptor of the netlink socket that is told of messages in a queue, and what it is told.
pub(super) const NOTIFY_SOCKET: i32 = 90;
/// The last byte is the kernel's.
pub(super) const NOTIFY_COOKIE: [u8; 32] = *b"thirty-two bytes of a cookie...\0";
/// Signal, handler, flags (SA_RESTORER and some others), restorer, mask.
pub(super) const ACTIONS: [(u64, [u64; 4]); 4] = [
    (1, [0x1111_2221, 0x0400_0004, 0x7111_1111_1113, 0x0000_1234_0000_0400]),
    (10, [0x1234_5671, 0x1400_0000, 0x7222_2222_2225, 0x8000_0000_0000_0000]),
    (34, [0x1, 0x0, 0x0, 0x0]),
    (64, [0x7fff_1234_5673, 0xc400_0000, 0x7333_3333_3337, 0x2]),
];
pub(super) const SEGMENT: UserDesc =
    UserDesc { entry_number: 0, base_addr: 0x1234_5678, limit: 0x000a_bcde, flags: 0x51 };

/// A filter of one instruction that lets every call through: `struct sock_filter` with BPF_RET and SECCOMP_RET_ALLOW.
const ALLOW_ALL: u64 = 0x7fff_0000_0000_0006;
/// SECCOMP_FILTER_FLAG_SPEC_ALLOW: the child's speculation stays as it is.
const SPEC_ALLOW: u64 = 4;
/// SECCOMP_FILTER_FLAG_NEW_LISTENER.
const NEW_LISTENER: u64 = 8;
/// `PROCESS_CLOCK` of kernel/time/posix-cpu-timers.c: CLOCK_PROCESS_CPUTIME_ID as a timer keeps it.
pub(super) const PROCESS_CLOCK: i32 = -6;

/// linux/prctl.h
const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
const PR_SET_MDWE: i32 = 65;
const PR_TSC_SIGSEGV: u64 = 2;
const PR_THP_DISABLE_EXCEPT_ADVISED: u64 = 2;
/// asm/prctl.h
const ARCH_SET_CPUID: u64 = 0x1012;

/// Where the child that has everything keeps what its calls wrote.
pub(super) struct Addresses {
    pub(super) rmtp: u64,
    pub(super) selector: u64,
    pub(super) itimers_left: [u64; 2],
    pub(super) pollfds: u64,
    pub(super) futex: u64,
    pub(super) pty_number: u64,
    pub(super) aio_context: u64,
    pub(super) rseq: u64,
}

/// All children.
pub(super) struct Scene {
    /// Has everything, and sleeps.
    pub(super) full: Actor,
    /// Has nothing, and waits in ppoll(2) with a signal mask, which leaves no restart block.
    pub(super) bare: Actor,
    /// Polls with a time limit.
    pub(super) poll: Actor,
    /// Polls without one.
    pub(super) poll_forever: Actor,
    /// Waits for a futex with a time limit; it also has a pipe.
    pub(super) futex: Actor,
    /// Has two masters of pseudo-terminals, two inotify instances, two message queues and connections that wait, and waits for a datagram with a time limit.
    pub(super) terminal: Actor,
    pub(super) at: Addresses,
    /// Whether the kernel let us set a GDT entry of `full`.
    pub(super) thread_area: nix::Result<()>,
    /// Whether `full` has a value of its own in each register, and why it has no breakpoints.
    pub(super) dressed: nix::Result<Option<Errno>>,
    /// Nanoseconds of CLOCK_MONOTONIC before the first child was forked.
    pub(super) before_ns: u64,
    /// And after all waited.
    pub(super) after_ns: u64,
}

/// The tasks of the children.
pub(super) struct Roles {
    pub(super) full: Task,
    pub(super) bare: Task,
    pub(super) poll: Task,
    pub(super) poll_forever: Task,
    pub(super) futex: Task,
    pub(super) terminal: Task,
}

impl Scene {
    /// Lets the children come to the calls that they wait in.
    pub(super) fn set() -> Result<Self, Error> {
        let before_ns = monotonic_ns();
        let (full, mut at) = full()?;
        let bare = bare()?;
        let (poll, pollfds) = poll(Some(WAIT_SECONDS))?;
        let (poll_forever, _) = self::poll(None)?;
        let (futex, word) = futex()?;
        let (terminal, number) = terminal()?;
        (at.pollfds, at.futex, at.pty_number) = (pollfds, word, number);
        let actors = [&bare, &poll, &poll_forever, &futex, &terminal, &full];
        for actor in actors {
            actor.await_sleep().map_err(|source| Error::Calibrate { doing: "waiting for a child to sleep", source })?;
        }
        let after_ns = monotonic_ns();
        // Until they are stopped.
        let (thread_area, dressed) = (Err(Errno::ESRCH), Err(Errno::ESRCH));
        Ok(Self { full, bare, poll, poll_forever, futex, terminal, at, thread_area, dressed, before_ns, after_ns })
    }

    /// Stops the children.
    pub(super) fn stop(&mut self) -> Result<(), Error> {
        for actor in [&self.bare, &self.poll, &self.poll_forever, &self.futex, &self.terminal, &self.full] {
            actor.stop().map_err(|source| Error::Calibrate { doing: "stopping a child", source })?;
        }
        let stop = |actor: &Actor| actor.stop_by_job_control();
        stop(&self.poll_forever)
            .and_then(|()| stop(&self.poll))
            .and_then(|()| Ok(kill(self.poll.puppet.pid(), Signal::SIGCONT)?))
            .map_err(|source| Error::Calibrate { doing: "stopping a child by a signal", source })?;
        let entry = UserDesc { entry_number: FIRST_ENTRY, ..SEGMENT };
        self.thread_area = thread_area::set(self.full.puppet.pid(), &entry);
        self.dressed = registers::dress(&self.full);
        Ok(())
    }

    /// The device number of the host's devpts, as the kernel writes it.
    pub(super) fn devpts(&self) -> io::Result<u64> {
        let device = std::os::unix::fs::MetadataExt::dev(&std::fs::metadata("/dev/pts")?);
        Ok(nix::sys::stat::major(device) << 20 | nix::sys::stat::minor(device))
    }

    /// The tasks of the children, by the walk that is to be proven.
    pub(super) fn find(&self, state: &KernelState) -> Result<Roles, String> {
        let tasks = state.tracees().map_err(|error| match Trouble::from(error) {
            Trouble::Wrong(why) | Trouble::Absent(why) => why,
        })?;
        let task = |actor: &Actor| {
            let pid = actor.puppet.pid().as_raw();
            let task = tasks.get(&pid).copied().filter(|task| task.tgid() == pid);
            task.ok_or_else(|| format!("the traced child {pid} is not among {:?}", tasks.keys()))
        };
        Ok(Roles {
            full: task(&self.full)?,
            bare: task(&self.bare)?,
            poll: task(&self.poll)?,
            poll_forever: task(&self.poll_forever)?,
            futex: task(&self.futex)?,
            terminal: task(&self.terminal)?,
        })
    }
}

/// Lets a context have two requests that wait for ever and one that has completed.
fn requests(s: &mut Script, context: u64) -> Result<(), Error> {
    const NUMBER: u64 = 100;
    const IOCB_CMD_POLL: u64 = 5;
    let [readable, writable] = [libc::POLLIN, libc::POLLOUT].map(|events| u64::from(events.unsigned_abs()));
    let mut list = Vec::new();
    for events in [readable, readable, writable] {
        // struct iocb
        list.push(s.words(&[0, 0, IOCB_CMD_POLL | NUMBER << 32, events, 0, 0, 0, 0])?);
    }
    let count = list.len() as u64;
    let list = s.words(&list)?;
    let file = s.call("eventfd2", libc::SYS_eventfd2, [0, 0]);
    s.step("dup2", Step::call_with(libc::SYS_dup2, [Arg::Result { step: file, plus: 0 }, NUMBER.into()]));
    s.step("io_submit", Step::call_with(libc::SYS_io_submit, [Arg::Word(context), count.into(), list.into()]));
    // The requests keep the file.
    s.call("close", libc::SYS_close, [NUMBER]);
    s.step("close", Step::call_with(libc::SYS_close, [Arg::Result { step: file, plus: 0 }]));
    Ok(())
}

fn full() -> Result<(Actor, Addresses), Error> {
    let mut s = Script::new()?;
    for (signal, action) in ACTIONS {
        let action = s.words(&action)?;
        s.call("rt_sigaction", libc::SYS_rt_sigaction, [signal, action, 0, 8]);
    }
    identity(&mut s)?;
    let stack = s.words(&[ALTSTACK.0, u64::from(SS_AUTODISARM), ALTSTACK.1])?;
    s.call("sigaltstack", libc::SYS_sigaltstack, [stack, 0]);
    s.call("set_tid_address", libc::SYS_set_tid_address, [CLEAR_TID]);
    s.prctl("PR_SET_PDEATHSIG", libc::PR_SET_PDEATHSIG, [9, 0, 0, 0]);
    s.prctl("PR_SET_CHILD_SUBREAPER", libc::PR_SET_CHILD_SUBREAPER, [1, 0, 0, 0]);
    s.prctl("PR_SET_KEEPCAPS", libc::PR_SET_KEEPCAPS, [1, 0, 0, 0]);
    s.prctl("PR_GET_SECUREBITS", libc::PR_GET_SECUREBITS, [0; 4]);
    // A namespace of its own: the semaphores go with the child.
    s.call("unshare", libc::SYS_unshare, [u64::from(libc::CLONE_NEWIPC.unsigned_abs())]);
    let set = s.call("semget", libc::SYS_semget, [0, u64::from(SEMAPHORES), 0o1600]);
    let ops: Vec<u8> = SEM_OPS
        .iter()
        .flat_map(|&(number, by)| [number, by.cast_unsigned(), 0x1000].map(u16::to_ne_bytes))
        .flatten()
        .collect();
    let ops = s.place(&ops)?;
    let set = Arg::Result { step: set, plus: 0 };
    s.step("semop", Step::call_with(libc::SYS_semop, [set, ops.into(), (SEM_OPS.len() as u64).into()]));
    let segment = s.place(&SEGMENT.to_bytes())?;
    s.call("modify_ldt", libc::SYS_modify_ldt, [0x11, segment, 16]);
    let context = s.words(&[0])?;
    s.call("io_setup", libc::SYS_io_setup, [8, context]);
    requests(&mut s, context)?;
    posix_timers(&mut s)?;
    numa::set(&mut s)?;
    s.call("ioperm", libc::SYS_ioperm, [0x80, 1, 1]);
    s.call("iopl", libc::SYS_iopl, [1]);
    let brk = s.call("brk", libc::SYS_brk, [0]);
    s.step("brk growth", Step::call_with(libc::SYS_brk, [Arg::Result { step: brk, plus: BRK_GROWTH }]));
    pipe(&mut s)?;
    s.call("flock", libc::SYS_flock, [4, libc::LOCK_SH.unsigned_abs().into()]);
    s.call("dup", libc::SYS_dup, [4]);
    let path = s.place(b"/proc/self/fd/4\0")?;
    s.call("open", libc::SYS_open, [path, 1]);
    let path = s.place(b"/\0")?;
    s.call("open of a directory", libc::SYS_open, [path, u64::from(libc::O_CLOEXEC.unsigned_abs())]);
    for (which, (seconds, micros)) in (0..).zip(INTERVALS) {
        let value = s.words(&[seconds, micros, TIMER_SECONDS, 0])?;
        s.call("setitimer", libc::SYS_setitimer, [which, value, 0]);
    }
    s.step("using the processor", Step::BurnTicks);
    let mut itimers_left = [0; 2];
    for (which, left) in (1..).zip(&mut itimers_left) {
        *left = s.words(&[0; 4])?;
        s.call("getitimer", libc::SYS_getitimer, [which, *left]);
    }
    let selector = s.words(&[0])?;
    let (start, length) = DISPATCH_RANGE;
    s.prctl("PR_SET_SYSCALL_USER_DISPATCH", PR_SET_SYSCALL_USER_DISPATCH, [1, start, length, selector]);
    s.prctl("PR_SET_DUMPABLE", libc::PR_SET_DUMPABLE, [0; 4]);
    // KEYCTL_JOIN_SESSION_KEYRING, of no name; then a key in KEY_SPEC_SESSION_KEYRING.
    s.call("keyctl", libc::SYS_keyctl, [1, 0]);
    let (kind, name, payload) = (s.place(b"user\0")?, s.place(b"crfs-calibration\0")?, s.place(b"1")?);
    s.call("add_key", libc::SYS_add_key, [kind, name, payload, 1, 3u64.wrapping_neg()]);
    // MCL_FUTURE
    s.call("mlockall", libc::SYS_mlockall, [2]);
    s.prctl("PR_SET_MDWE", PR_SET_MDWE, [1, 0, 0, 0]);
    s.prctl("PR_SET_TSC", libc::PR_SET_TSC, [PR_TSC_SIGSEGV, 0, 0, 0]);
    landlock(&mut s)?;
    let time = s.words(&[WAIT_SECONDS, 0])?;
    let rmtp = s.words(&[0, 0])?;
    let rseq = restartable_sequences(&mut s)?;
    s.call("clock_nanosleep", libc::SYS_clock_nanosleep, [1, 0, time, rmtp]);
    let at =
        Addresses { rmtp, selector, itimers_left, pollfds: 0, futex: 0, pty_number: 0, aio_context: context, rseq };
    Ok((s.start(libc::SIGCHLD, true)?, at))
}

/// Lets go of the area that the C library registered and the child inherited.
fn no_restartable_sequences(s: &mut Script) {
    const UNREGISTER: u64 = 1;
    if let Some((address, size)) = rseq::area() {
        s.call("rseq", libc::SYS_rseq, [address, size.into(), UNREGISTER, RSEQ.1.into()]);
    } else {
        s.call("rseq", libc::SYS_getpid, []);
    }
}

/// An area of its own.
fn restartable_sequences(s: &mut Script) -> Result<u64, Error> {
    no_restartable_sequences(s);
    // The area's alignment is 32 bytes, that of `words` 16.
    let area = s.words(&[0; 6])?.next_multiple_of(32);
    let (size, signature) = RSEQ;
    s.call("another rseq", libc::SYS_rseq, [area, size.into(), 0, signature.into()]);
    Ok(area)
}

/// A new process numbers its timers from 0.
fn posix_timers(s: &mut Script) -> Result<(), Error> {
    let id = s.words(&[0])?;
    s.call("timer_create", libc::SYS_timer_create, [1, 0, id]);
    let clock = u64::from(libc::CLOCK_PROCESS_CPUTIME_ID.unsigned_abs());
    s.call("timer_create of processor time", libc::SYS_timer_create, [clock, 0, id]);
    for ((id, name), (seconds, micros)) in
        (0..).zip(["timer_settime", "timer_settime of processor time"]).zip(INTERVALS)
    {
        let value = s.words(&[seconds, micros * 1000, TIMER_SECONDS, 0])?;
        s.call(name, libc::SYS_timer_settime, [id, 0, value, 0]);
    }
    Ok(())
}

/// What every thread has of its own, and /proc shows.
fn identity(s: &mut Script) -> Result<(), Error> {
    let name = s.place(b"crfs) (kstate\0")?;
    s.prctl("PR_SET_NAME", libc::PR_SET_NAME, [name, 0, 0, 0]);
    s.prctl("PR_SET_TIMERSLACK", libc::PR_SET_TIMERSLACK, [SLACK, 0, 0, 0]);
    s.call("personality", libc::SYS_personality, [u64::from(PERSONALITY)]);
    s.call("umask", libc::SYS_umask, [UMASK]);
    let usr2 = s.words(&[1 << 11])?;
    s.call("rt_sigprocmask", libc::SYS_rt_sigprocmask, [0, usr2, 0, 8]);
    let own = Arg::Result { step: s.call("getpid", libc::SYS_getpid, []), plus: 0 };
    s.step("tgkill", Step::call_with(libc::SYS_tgkill, [own, own, 12.into()]));
    s.step("kill", Step::call_with(libc::SYS_kill, [own, 12.into()]));
    s.prctl("PR_SET_NO_NEW_PRIVS", libc::PR_SET_NO_NEW_PRIVS, [1, 0, 0, 0]);
    // One instruction: everything is allowed.
    let program = s.words(&[0x7fff_0000_0000_0006])?;
    let filter = s.words(&[1, program])?;
    s.prctl("PR_SET_SECCOMP", libc::PR_SET_SECCOMP, [2, filter, 0, 0]);
    Ok(())
}

/// A domain that forbids to make sockets in the file system.
fn landlock(s: &mut Script) -> Result<(), Error> {
    let attributes = s.words(&[1 << 9])?;
    let ruleset = s.call("landlock_create_ruleset", libc::SYS_landlock_create_ruleset, [attributes, 8, 0]);
    let ruleset = Arg::Result { step: ruleset, plus: 0 };
    s.step("landlock_restrict_self", Step::call_with(libc::SYS_landlock_restrict_self, [ruleset]));
    s.step("close of the ruleset", Step::call_with(libc::SYS_close, [ruleset]));
    Ok(())
}

fn pipe(s: &mut Script) -> Result<(), Error> {
    let ends = s.words(&[0])?;
    s.call("pipe2", libc::SYS_pipe2, [ends, 0]);
    Ok(())
}

/// What the n-th message of [`MESSAGES`] says.
pub(super) fn message(number: usize, length: usize) -> Vec<u8> {
    (0..=250).cycle().skip(number).take(length).collect()
}

/// A queue with messages and a notification, and one without; in a namespace that goes with the child.
fn message_queues(s: &mut Script) -> Result<(), Error> {
    s.call("unshare", libc::SYS_unshare, [u64::from(libc::CLONE_NEWIPC.unsigned_abs())]);
    let flags = u64::from((libc::O_RDWR | libc::O_CREAT | libc::O_EXCL).unsigned_abs());
    // struct mq_attr: room for four messages, and for the longest.
    let attributes = s.words(&[0, MESSAGES.len() as u64, 5000, 0, 0, 0, 0, 0])?;
    let name = s.place(b"crfs\0")?;
    let queue = s.call("mq_open", libc::SYS_mq_open, [name, flags, 0o600, attributes]);
    let queue = Arg::Result { step: queue, plus: 0 };
    let name = s.place(b"crfs-empty\0")?;
    s.call("another mq_open", libc::SYS_mq_open, [name, flags, 0o600, attributes]);
    for (number, (priority, length)) in MESSAGES.into_iter().enumerate() {
        let text = s.place(&message(number, length))?;
        let send = [queue, text.into(), (length as u64).into(), u64::from(priority).into(), 0.into()];
        s.step("mq_timedsend", Step::call_with(libc::SYS_mq_timedsend, send));
    }
    let (signal, value) = NOTIFY;
    // struct sigevent with SIGEV_SIGNAL, which is 0.
    let event = s.words(&[value, u64::from(signal.unsigned_abs()), 0, 0, 0, 0, 0, 0])?;
    s.step("mq_notify", Step::call_with(libc::SYS_mq_notify, [queue, event.into()]));
    let name = s.place(b"crfs-thread\0")?;
    let queue = s.call("a third mq_open", libc::SYS_mq_open, [name, flags, 0o600, attributes]);
    let [family, kind] = [libc::AF_NETLINK, libc::SOCK_RAW].map(|number| u64::from(number.unsigned_abs()));
    let socket = s.call("a netlink socket", libc::SYS_socket, [family, kind, 0]);
    let told = [Arg::Result { step: socket, plus: 0 }, u64::from(NOTIFY_SOCKET.unsigned_abs()).into(), 0.into()];
    s.step("dup3", Step::call_with(libc::SYS_dup3, told));
    let cookie = s.place(&NOTIFY_COOKIE)?;
    // With SIGEV_THREAD, which is 2.
    let event = s.words(&[cookie, u64::from(NOTIFY_SOCKET.unsigned_abs()) | 2 << 32, 0, 0, 0, 0, 0, 0])?;
    let queue = Arg::Result { step: queue, plus: 0 };
    s.step("another mq_notify", Step::call_with(libc::SYS_mq_notify, [queue, event.into()]));
    Ok(())
}

fn bare() -> Result<Actor, Error> {
    let mut s = Script::new()?;
    let default = s.words(&[0; 4])?;
    for (signal, _) in ACTIONS {
        s.call("rt_sigaction", libc::SYS_rt_sigaction, [signal, default, 0, 8]);
    }
    let stack = s.words(&[0, 2, 0])?;
    s.call("sigaltstack", libc::SYS_sigaltstack, [stack, 0]);
    s.call("set_tid_address", libc::SYS_set_tid_address, [0]);
    s.prctl("PR_SET_PDEATHSIG", libc::PR_SET_PDEATHSIG, [0; 4]);
    s.prctl("PR_SET_CHILD_SUBREAPER", libc::PR_SET_CHILD_SUBREAPER, [0; 4]);
    s.prctl("PR_SET_KEEPCAPS", libc::PR_SET_KEEPCAPS, [0; 4]);
    s.prctl("PR_GET_SECUREBITS", libc::PR_GET_SECUREBITS, [0; 4]);
    s.prctl("PR_SET_DUMPABLE", libc::PR_SET_DUMPABLE, [1, 0, 0, 0]);
    s.call("brk", libc::SYS_brk, [0]);
    no_restartable_sequences(&mut s);
    let mask = s.words(&[WAIT_MASK])?;
    let time = s.words(&[WAIT_SECONDS, 0])?;
    s.call("ppoll", libc::SYS_ppoll, [0, 0, time, mask, 8]);
    s.start(0, false)
}

/// The array has two entries that stand for no file. Both children have a system call filter, the one with a time limit a second
/// one that somebody listens to.
fn poll(seconds: Option<u64>) -> Result<(Actor, u64), Error> {
    let mut s = Script::new()?;
    s.prctl("PR_SET_PDEATHSIG", libc::PR_SET_PDEATHSIG, [9, 0, 0, 0]);
    s.prctl("PR_SET_NO_NEW_PRIVS", libc::PR_SET_NO_NEW_PRIVS, [1, 0, 0, 0]);
    let filter = s.words(&[ALLOW_ALL])?;
    let program = s.words(&[1, filter])?;
    let install = u64::from(libc::SECCOMP_SET_MODE_FILTER);
    s.call("seccomp", libc::SYS_seccomp, [install, SPEC_ALLOW, program]);
    s.prctl("PR_SET_THP_DISABLE", libc::PR_SET_THP_DISABLE, [1, PR_THP_DISABLE_EXCEPT_ADVISED, 0, 0]);
    if seconds.is_some() {
        s.call("seccomp with a listener", libc::SYS_seccomp, [install, SPEC_ALLOW | NEW_LISTENER, program]);
        // KEYCTL_GET_KEYRING_ID of KEY_SPEC_PROCESS_KEYRING, made if there is none.
        s.call("keyctl", libc::SYS_keyctl, [0, 2u64.wrapping_neg(), 1]);
        // MCL_FUTURE and MCL_ONFAULT
        s.call("mlockall", libc::SYS_mlockall, [6]);
        s.prctl("PR_SET_MDWE", PR_SET_MDWE, [1, 0, 0, 0]);
        s.prctl("PR_SET_TSC", libc::PR_SET_TSC, [PR_TSC_SIGSEGV, 0, 0, 0]);
        s.call("ARCH_SET_CPUID", libc::SYS_arch_prctl, [ARCH_SET_CPUID, 0]);
        landlock(&mut s)?;
    }
    let fds = s.words(&[0xffff_ffff; 2])?;
    let limit = seconds.map_or(0xffff_ffff, |seconds| seconds * 1000);
    s.call("poll", libc::SYS_poll, [fds, 2, limit]);
    Ok((s.start(libc::SIGCHLD, false)?, fds))
}

fn futex() -> Result<(Actor, u64), Error> {
    let mut s = Script::new()?;
    s.prctl("PR_SET_PDEATHSIG", libc::PR_SET_PDEATHSIG, [9, 0, 0, 0]);
    pipe(&mut s)?;
    // KEYCTL_GET_KEYRING_ID of KEY_SPEC_THREAD_KEYRING.
    s.call("keyctl", libc::SYS_keyctl, [0, 1u64.wrapping_neg(), 1]);
    // With PR_MDWE_NO_INHERIT.
    s.prctl("PR_SET_MDWE", PR_SET_MDWE, [3, 0, 0, 0]);
    s.call("ARCH_SET_CPUID", libc::SYS_arch_prctl, [ARCH_SET_CPUID, 0]);
    let word = s.words(&[u64::from(FUTEX_VALUE)])?;
    let time = s.words(&[WAIT_SECONDS, 0])?;
    // FUTEX_WAIT_PRIVATE
    s.call("futex", libc::SYS_futex, [word, 128, u64::from(FUTEX_VALUE), time]);
    Ok((s.start(libc::SIGCHLD, false)?, word))
}

fn terminal() -> Result<(Actor, u64), Error> {
    const TIOCGPTN: u64 = 0x8004_5430;
    // linux/inotify.h
    const INOTIFY_IOC_SETNEXTWD: u64 = 0x4004_4900;
    let flags = u64::from((libc::O_RDWR | libc::O_NOCTTY).unsigned_abs());
    let mut s = Script::new()?;
    s.prctl("PR_SET_PDEATHSIG", libc::PR_SET_PDEATHSIG, [9, 0, 0, 0]);
    let path = s.place(b"/dev/ptmx\0")?;
    let master = s.call("open of /dev/ptmx", libc::SYS_open, [path, flags]);
    s.call("another", libc::SYS_open, [path, flags]);
    let master = Arg::Result { step: master, plus: 0 };
    let ioctl = |s: &mut Script, name, request: u64, argument: u64| {
        s.step(name, Step::call_with(libc::SYS_ioctl, [master, request.into(), argument.into()]));
    };
    let number = s.words(&[0])?;
    ioctl(&mut s, "TIOCGPTN", TIOCGPTN, number);
    ioctl(&mut s, "TIOCEXCL", libc::TIOCEXCL, 0);
    for &byte in FED {
        let byte = s.place(&[byte])?;
        ioctl(&mut s, "TIOCSTI", libc::TIOCSTI, byte);
    }
    let inotify = s.call("inotify_init1", libc::SYS_inotify_init1, [0]);
    s.call("another inotify_init1", libc::SYS_inotify_init1, [0]);
    let next = [Arg::Result { step: inotify, plus: 0 }, INOTIFY_IOC_SETNEXTWD.into(), u64::from(NEXT_WD).into()];
    s.step("INOTIFY_IOC_SETNEXTWD", Step::call_with(libc::SYS_ioctl, next));
    message_queues(&mut s)?;
    connections::script(&mut s)?;
    fanotify(&mut s)?;
    receive(&mut s)?;
    Ok((s.start(libc::SIGCHLD, false)?, number))
}

/// Waits for what nobody can send.
fn receive(s: &mut Script) -> Result<(), Error> {
    let [family, kind, level, option] = [libc::AF_UNIX, libc::SOCK_DGRAM, libc::SOL_SOCKET, libc::SO_RCVTIMEO]
        .map(|number| u64::from(number.unsigned_abs()));
    let socket = s.call("a Unix socket", libc::SYS_socket, [family, kind, 0]);
    let socket = Arg::Result { step: socket, plus: 0 };
    let time = s.words(&[WAIT_SECONDS, 0])?;
    let limit = [socket, level.into(), option.into(), time.into(), 16.into()];
    s.step("setsockopt of SO_RCVTIMEO", Step::call_with(libc::SYS_setsockopt, limit));
    let buffer = s.words(&[0])?;
    s.step(
        "recvfrom",
        Step::call_with(libc::SYS_recvfrom, [socket, buffer.into(), 8.into(), 0.into(), 0.into(), 0.into()]),
    );
    Ok(())
}

/// Two groups. Between them the child gives up what it might do as an administrator, last of all.
fn fanotify(s: &mut Script) -> Result<(), Error> {
    const CAPABILITY_VERSION: u64 = 0x2008_0522;
    let [(privileged, flags), (unprivileged, fewer)] = GROUPS;
    s.call(privileged, libc::SYS_fanotify_init, [flags.into(), 0]);
    let (header, none) = (s.words(&[CAPABILITY_VERSION])?, s.words(&[0; 3])?);
    s.call("capset", libc::SYS_capset, [header, none]);
    s.call(unprivileged, libc::SYS_fanotify_init, [(fewer & !(1 << 31)).into(), 0]);
    Ok(())
}
