//! One check a feature: what is read of the children against what they set, present and absent.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};

use crfs_sys::pidfd;
use nix::errno::Errno;
use nix::unistd::Pid;

use super::Trouble;
use super::actor::Actor;
use super::connections;
use super::io_uring;
use super::numa;
use super::registers;
use super::scene::{self, Roles, Scene};
use crate::aio::AioContext;
use crate::error::Error;
use crate::feature::Feature;
use crate::files::{OpenDescriptor, PipeEnds, file};
use crate::flags::{MemoryFlags, ThreadFlags};
use crate::jiffies::Jiffies;
use crate::memory::MemoryLayout;
use crate::mqueue::{MessageQueue, NotifyCookie, QueueNotify, QueuedMessage};
use crate::paths::Path;
use crate::posix_timers::{Expiry, PosixTimer, PosixTimerStatus};
use crate::security::Keyrings;
use crate::signals::{AltStack, GroupStop, KernelSigaction};
use crate::state::KernelState;
use crate::tasks::Task;
use crate::thread::ThreadRecord;
use crate::timers::Itimer;
use crate::waits::Sleeper;

type Check = fn(&KernelState, &Scene, &Roles) -> Result<(), Trouble>;

/// In the order of [`Feature`], but for the walk, which is proven by finding the children at all.
pub(super) const CHECKS: &[(Feature, Check)] = &[
    (Feature::ThreadRecord, thread_record),
    (Feature::SignalActions, signal_actions),
    (Feature::AlternateStack, alternate_stack),
    (Feature::TidAddresses, tid_addresses),
    (Feature::ExitSignal, exit_signal),
    (Feature::PdeathSignal, pdeath_signal),
    (Feature::JobControl, job_control),
    (Feature::RestartKind, restart_kind),
    (Feature::RestartNanosleep, restart_nanosleep),
    (Feature::RestartPoll, restart_poll),
    (Feature::RestartFutex, restart_futex),
    (Feature::RealTimer, real_timer),
    (Feature::CpuTimers, cpu_timers),
    (Feature::PosixTimers, posix_timers),
    (Feature::SemUndo, sem_undo),
    (Feature::Ldt, ldt),
    (Feature::Aio, aio),
    (Feature::AioRequests, aio_requests),
    (Feature::IoUringTask, io_uring::check_task),
    (Feature::IoUring, io_uring::check),
    (Feature::IoPermission, io_permission),
    (Feature::MemoryLayout, memory_layout),
    (Feature::Dumpable, dumpable),
    (Feature::Securebits, securebits),
    (Feature::Subreaper, subreaper),
    (Feature::SyscallDispatch, syscall_dispatch),
    (Feature::TlsArray, tls_array),
    (Feature::Threads, registers::threads),
    (Feature::Registers, registers::general),
    (Feature::ExtendedRegisters, registers::extended),
    (Feature::DebugRegisters, registers::debug),
    (Feature::SignalMask, registers::signal_mask),
    (Feature::PendingSignals, registers::pending_signals),
    (Feature::Rseq, registers::rseq),
    (Feature::MemoryFlags, memory_flags),
    (Feature::ThreadFlags, thread_flags),
    (Feature::Keyrings, keyrings),
    (Feature::Landlock, landlock),
    (Feature::Seccomp, seccomp),
    (Feature::Files, files),
    (Feature::FileLocks, file_locks),
    (Feature::PipeEnds, pipe_ends),
    (Feature::Terminals, terminals),
    (Feature::MessageQueues, message_queues),
    (Feature::Numa, numa::check),
    (Feature::Inotify, inotify),
    (Feature::Fanotify, fanotify),
    (Feature::PendingUnix, connections::check_unix),
    (Feature::PendingTcp, connections::check_tcp),
];

const NS: u64 = 1_000_000_000;
/// Timer slack and rounding, on times that are exact otherwise.
const SLACK_NS: u64 = 1_000_000;
/// With CONFIG_HZ=100.
const LONGEST_TICK_NS: u64 = 10_000_000;
/// Processor time that a child may have used after it asked: more than a tick of the slowest kernel.
const TICKS_NS: u64 = 25_000_000;

pub(super) fn same<T: PartialEq + Debug>(what: &str, read: T, expected: T) -> Result<(), Trouble> {
    if read == expected {
        return Ok(());
    }
    Err(Trouble::Wrong(format!("{what}: {read:x?} was read where {expected:x?} was set")))
}

fn within(what: &str, read: u64, least: u64, most: u64) -> Result<(), Trouble> {
    if (least..=most).contains(&read) {
        return Ok(());
    }
    Err(Trouble::Wrong(format!("{what}: {read} was read where {least} to {most} was expected")))
}

/// Compares with /proc, which shows most of it; and where two children share something, and where not.
fn thread_record(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    for step in
        ["PR_SET_NAME", "PR_SET_TIMERSLACK", "personality", "umask", "rt_sigprocmask", "tgkill", "PR_SET_SECCOMP"]
    {
        scene.full.outcome(step)?;
    }
    let unread = |error| Trouble::Wrong(format!("reading what /proc says of a child: {error}"));
    let (full, bare) = (state.thread_record(&roles.full)?, state.thread_record(&roles.bare)?);
    for (actor, record) in [(&scene.full, &full), (&scene.bare, &bare)] {
        let status = actor.proc("status").map_err(unread)?;
        let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim();
        let mask = |key| u64::from_str_radix(line(key), 16).unwrap_or(u64::MAX);
        same("the name", String::from_utf8_lossy(&record.name).as_ref(), line("Name:"))?;
        same("the signal masks", (record.blocked, record.pending), (mask("SigBlk:"), mask("SigPnd:")))?;
        let ids: Vec<String> = record.ids.iter().map(u32::to_string).collect();
        same("the ids", ids.join("\t").as_str(), line("NSpid:"))?;
        if status.contains("x86_Thread_features:") && state.known.path(Path::ShadowStack).is_err() {
            return Err(Trouble::Wrong("shadow stacks cannot be told".to_owned()));
        }
        if let Ok(shown) = actor.proc("loginuid") {
            same("the login uid", record.login_uid.unwrap_or(u32::MAX).to_string().as_str(), shown.trim())?;
        }
        let stat = actor.stat().map_err(unread)?;
        // Not what was set: a real-time task, and so the child of one, has none.
        let slack = actor.proc("timerslack_ns").map_err(unread)?;
        same("the timer slack", record.timer_slack_ns.to_string().as_str(), slack.trim())?;
        // The ninth field of proc_pid_stat(5), and two are cut off.
        same("the flags", Some(record.flags.to_string()).as_ref(), stat.get(6))?;
    }
    same("a task in a stop for its tracer at rest", state.is_at_rest(&roles.full)?, false)?;
    same("its state", state.view(Feature::ThreadRecord, &roles.full)?.u32(&[Path::TaskState])? & 0xff, 8)?;
    same("personalities", (full.personality, bare.personality), (scene::PERSONALITY, 0))?;
    same("no children", (full.has_children, bare.has_children), (false, false))?;
    same("a child with children", state.thread_record(&Task::caller(0))?.has_children, true)?;
    let view = state.view(Feature::ThreadRecord, &roles.full)?;
    same("the umask", u64::from(view.u32(&[Path::TaskFs, Path::FsUmask])?), scene::UMASK)?;
    same("the number of threads", state.thread_count(&roles.full)?, 1)?;
    let poll = state.thread_record(&roles.poll)?;
    same("namespaces in common", poll.shared.same_namespaces(&bare.shared), true)?;
    same("namespaces of its own", full.shared.same_namespaces(&bare.shared), false)?;
    same("credentials", full.shared.credentials, view.u64(&[Path::TaskCred])?)?;
    let restrictions =
        |record: &ThreadRecord| (record.shared.seccomp.0, record.shared.seccomp.1 != 0, record.shared.atomic_flags & 1);
    same("a filter and no_new_privs", restrictions(&full), (2, true, 1))?;
    same("neither", restrictions(&bare), (0, false, 0))
}

fn signal_actions(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.full.outcome("rt_sigaction")?;
    let (set, unset) = (state.signal_actions(&roles.full)?, state.signal_actions(&roles.bare)?);
    for (signal, [handler, flags, restorer, mask]) in scene::ACTIONS {
        let index = usize::try_from(signal - 1).unwrap_or(usize::MAX);
        let expected = KernelSigaction { handler, flags, restorer, mask };
        same("a handler", set.get(index), Some(&expected))?;
        same("no handler", unset.get(index), Some(&KernelSigaction::default()))?;
    }
    Ok(())
}

fn alternate_stack(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.full.outcome("sigaltstack")?;
    let (sp, size) = scene::ALTSTACK;
    let expected = AltStack { sp, flags: scene::SS_AUTODISARM, size };
    same("a stack", state.alternate_stack(&roles.full)?, expected)?;
    same("no stack", state.alternate_stack(&roles.bare)?, AltStack { sp: 0, flags: 2, size: 0 })
}

fn tid_addresses(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    let read = |task| -> Result<_, Error> { Ok((state.set_child_tid(task)?, state.clear_child_tid(task)?)) };
    same("both addresses", read(&roles.full)?, (scene.full.puppet.child_tid_address(), scene::CLEAR_TID))?;
    same("no address", read(&roles.bare)?, (0, 0))
}

fn exit_signal(state: &KernelState, _: &Scene, roles: &Roles) -> Result<(), Trouble> {
    same("SIGCHLD", state.exit_signal(&roles.full)?, libc::SIGCHLD)?;
    same("no signal", state.exit_signal(&roles.bare)?, 0)
}

fn pdeath_signal(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.full.outcome("PR_SET_PDEATHSIG")?;
    same("SIGKILL", state.pdeath_signal(&roles.full)?, libc::SIGKILL)?;
    same("no signal", state.pdeath_signal(&roles.bare)?, 0)
}

fn job_control(state: &KernelState, _: &Scene, roles: &Roles) -> Result<(), Trouble> {
    same("a stop", state.group_stop(&roles.poll_forever)?, GroupStop::Stopped { told: false })?;
    same("a continued one", state.group_stop(&roles.poll)?, GroupStop::Continued)?;
    same("neither", state.group_stop(&roles.bare)?, GroupStop::None)
}

/// The timers on the kernel stack of a child that waits.
pub(super) fn sleepers(state: &KernelState, actor: &Actor) -> Result<Vec<Sleeper>, Trouble> {
    let pid = actor.puppet.pid();
    Ok(state.sleepers(thread(pid)?.as_fd(), pid.as_raw())?)
}

/// The same of timers that count jiffies.
pub(super) fn timeouts(state: &KernelState, actor: &Actor) -> Result<Vec<Sleeper>, Trouble> {
    let pid = actor.puppet.pid();
    Ok(state.timeouts(thread(pid)?.as_fd(), pid.as_raw(), &jiffies()?)?)
}

fn jiffies() -> Result<Jiffies, Trouble> {
    Jiffies::now().map_err(|error| Trouble::Wrong(format!("/proc/timer_list: jiffies: {error}")))
}

/// When the wait on a socket ends. It begins with the next tick, and a socket counts whole ones: at most 10 ms long each.
pub(super) fn socket_wait(scene: &Scene) -> RangeInclusive<u64> {
    let [least, most] = [scene.before_ns, scene.after_ns].map(|ns| ns + scene::WAIT_SECONDS * NS);
    least - LONGEST_TICK_NS..=most + 4 * LONGEST_TICK_NS
}

fn thread(pid: Pid) -> Result<OwnedFd, Trouble> {
    pidfd::open(pid, true).map_err(|errno| match errno {
        Errno::EINVAL => Trouble::Wrong("this kernel has no pidfds of threads (Linux 6.9 has)".to_owned()),
        errno => Trouble::Wrong(format!("opening a pidfd of a child: {}", errno.desc())),
    })
}

/// Not among [`CHECKS`], as [`wait_end`].
pub(super) fn socket_wait_end(state: &KernelState, scene: &Scene) -> Result<(), Trouble> {
    scene.terminal.outcome("setsockopt of SO_RCVTIMEO")?;
    let jiffies = jiffies()?;
    let end = |actor: &Actor| -> Result<Option<u64>, Trouble> {
        let pid = actor.puppet.pid();
        Ok(state.socket_wait_end(thread(pid)?.as_fd(), pid.as_raw(), &jiffies)?)
    };
    let ends = socket_wait(scene);
    match end(&scene.terminal)? {
        Some(end) => within("the end of the wait", end, *ends.start(), *ends.end())?,
        None => return Err(Trouble::Wrong("a waiting child's stack has no timer of jiffies".to_owned())),
    }
    same("no such timer", end(&scene.poll_forever)?, None)?;
    same("no such timer", end(&scene.full)?, None)
}

/// Not among [`CHECKS`]: it is made while the children wait.
pub(super) fn wait_end(state: &KernelState, scene: &Scene) -> Result<(), Trouble> {
    for actor in [&scene.bare, &scene.full, &scene.poll, &scene.futex] {
        let found = sleepers(state, actor)?;
        let [sleeper] = found[..] else {
            return Err(Trouble::Wrong(format!("a waiting child's stack has not one timer that wakes it: {found:x?}")));
        };
        same("what wakes it", sleeper.function, state.known.wakeup)?;
        until("the end of the wait", sleeper.expires_ns, scene, scene::WAIT_SECONDS)?;
    }
    same("no end", sleepers(state, &scene.poll_forever)?, Vec::new())
}

fn restart_kind(state: &KernelState, _: &Scene, roles: &Roles) -> Result<(), Trouble> {
    let known = &state.known.restart;
    let mut all = [known.none, known.nanosleep, known.poll, known.futex];
    all.sort_unstable();
    let distinct = all.windows(2).all(|pair| pair[0] != pair[1]);
    // The kernel's half of the address space.
    if !distinct || all.iter().any(|&function| function < 0xffff_8000_0000_0000) {
        return Err(Trouble::Wrong(format!("four kinds of calls have the functions {all:x?}")));
    }
    same("the function of a poll", state.restart_function(&roles.poll_forever)?, known.poll)
}

fn restart_nanosleep(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    let read = state.restart_nanosleep(&roles.full)?;
    same("clock, kind and address", (read.clockid, read.kind, read.rmtp), (libc::CLOCK_MONOTONIC, 1, scene.at.rmtp))?;
    until("the end of the sleep", read.expires_ns, scene, scene::WAIT_SECONDS)
}

/// A time that was `seconds` ahead when the children ran.
fn until(what: &str, read_ns: u64, scene: &Scene, seconds: u64) -> Result<(), Trouble> {
    within(what, read_ns, scene.before_ns + seconds * NS, scene.after_ns + seconds * NS + SLACK_NS)
}

fn restart_poll(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    let read = state.restart_poll(&roles.poll)?;
    same("address and number", (read.ufds, read.nfds), (scene.at.pollfds, 2))?;
    let (seconds, nanos) = read.expires.unwrap_or_default();
    within("the nanoseconds", nanos, 0, NS - 1)?;
    until("the end of the poll", seconds.wrapping_mul(NS).wrapping_add(nanos), scene, scene::WAIT_SECONDS)?;
    same("no end", state.restart_poll(&roles.poll_forever)?.expires, None)
}

fn restart_futex(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    let read = state.restart_futex(&roles.futex)?;
    let expected = (scene.at.futex, scene::FUTEX_VALUE, 0x40, u32::MAX);
    same("the wait", (read.uaddr, read.val, read.flags & 0x60, read.bitset), expected)?;
    until("the end of the wait", read.time_ns, scene, scene::WAIT_SECONDS)
}

fn interval(which: usize) -> u64 {
    let (seconds, micros) = scene::INTERVALS[which];
    seconds * NS + micros * 1000
}

fn real_timer(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.full.outcome("setitimer")?;
    let read = state.real_itimer(&roles.full)?;
    same("the interval", read.interval_ns, interval(0))?;
    until("the expiry", read.expires_ns.unwrap_or(0), scene, scene::TIMER_SECONDS)?;
    same("no timer", state.real_itimer(&roles.bare)?, Itimer::default())
}

fn cpu_timers(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.full.outcome("using the processor")?;
    let read = state.cpu_itimers(&roles.full)?;
    let mut told = [0; 2];
    for (told, &at) in told.iter_mut().zip(&scene.at.itimers_left) {
        let [_, _, seconds, micros] = scene.full.words(at)?;
        *told = seconds * NS + micros * 1000;
    }
    for ((which, timer), told) in (1..).zip(read).zip(told) {
        same("the interval", timer.interval_ns, interval(which))?;
        // getitimer(2) rounds down to microseconds.
        within("the time left", timer.remaining_ns, told.saturating_sub(TICKS_NS), told + 1000)?;
    }
    same("no timer", state.cpu_itimers(&roles.bare)?, [Itimer::default(); 2])
}

fn posix_timers(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    for step in ["timer_create", "timer_create of processor time", "timer_settime", "timer_settime of processor time"] {
        scene.full.outcome(step)?;
    }
    let read = state.posix_timers(&roles.full)?;
    let what = |timer: &PosixTimer| (timer.id, timer.clock, timer.status, timer.interval_ns, timer.overrun);
    let expected = [(1, scene::PROCESS_CLOCK, interval(1)), (0, libc::CLOCK_MONOTONIC, interval(0))];
    let expected = expected.map(|(id, clock, interval)| (id, clock, PosixTimerStatus::Armed, interval, 0));
    same("the timers", read.iter().map(what).collect(), expected.to_vec())?;
    for timer in read {
        match timer.expiry {
            Expiry::Clock { clock, ns } => {
                same("the clock", clock, libc::CLOCK_MONOTONIC)?;
                until("the expiry", ns, scene, scene::TIMER_SECONDS)?;
            }
            Expiry::Cpu { tid, ns } => {
                same("the process", tid, scene.full.puppet.pid().as_raw())?;
                let most = scene::TIMER_SECONDS * NS + scene.after_ns - scene.before_ns;
                within("the expiry", ns, scene::TIMER_SECONDS * NS, most)?;
            }
        }
    }
    same("no timer", state.posix_timers(&roles.bare)?, Vec::new())
}

fn sem_undo(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.full.outcome("unshare")?;
    let set = scene.full.outcome("semget")?;
    scene.full.outcome("semop")?;
    let read = state.sem_undo(&roles.full)?;
    let ids: Vec<_> = read.iter().map(|undo| i64::from(undo.semid).cast_unsigned()).collect();
    same("the sets", ids, vec![set])?;
    let mut expected = vec![0; usize::from(scene::SEMAPHORES)];
    for (number, by) in scene::SEM_OPS {
        expected[usize::from(number)] = -by;
    }
    let adjustments =
        read.first().map(|undo| state.sem_adjustments(&roles.full, undo, scene::SEMAPHORES)).transpose()?;
    same("the adjustments", adjustments, Some(expected))?;
    same("none", state.has_sem_undo(&roles.bare)?, false)
}

/// What `fill_ldt` of arch/x86/include/asm/desc.h makes of the segment that was set.
fn descriptor() -> u64 {
    let segment = scene::SEGMENT;
    let (base, limit) = (u64::from(segment.base_addr), u64::from(segment.limit));
    // Writable data, accessed; code-or-data, privilege 3, present; 32-bit, in pages, useable.
    let (kind, upper) = (0xf3, 0xd0);
    (limit & 0xffff)
        | (base & 0x00ff_ffff) << 16
        | kind << 40
        | (upper | (limit >> 16) & 0xf) << 48
        | (base >> 24) << 56
}

fn ldt(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.full.outcome("modify_ldt")?;
    same("a table", state.has_ldt(&roles.full)?, true)?;
    same("its entries", state.ldt(&roles.full)?, vec![descriptor()])?;
    same("no table", state.has_ldt(&roles.bare)?, false)
}

fn aio(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.full.outcome("io_setup")?;
    same("a context", state.has_aio(&roles.full)?, true)?;
    same("no context", state.has_aio(&roles.bare)?, false)
}

fn aio_requests(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.full.outcome("io_setup")?;
    same("requests", scene.full.outcome("io_submit")?, 3)?;
    let [id] = scene.full.words(scene.at.aio_context)?;
    // `struct aio_ring` begins with its number and how many events it has places for.
    let ring = scene.full.word(id).map_err(|error| Trouble::Wrong(format!("reading a child's ring: {error}")))?;
    let places = u32::try_from(ring >> 32).unwrap_or(0);
    same("a context", state.aio_contexts(&roles.full)?, vec![AioContext { id, places, under_way: 2 }])?;
    same("no context", state.aio_contexts(&roles.bare)?, vec![])
}

fn io_permission(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.full.outcome("ioperm")?;
    scene.full.outcome("iopl")?;
    let read = |task| -> Result<_, Error> { Ok((state.has_io_bitmap(task)?, state.io_privilege_level(task)?)) };
    same("a bitmap and a level", read(&roles.full)?, (true, 1))?;
    same("neither", read(&roles.bare)?, (false, 0))
}

fn memory_layout(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    let brk = |actor: &Actor| actor.outcome("brk");
    layout(state, &scene.full, &roles.full, brk(&scene.full)? + scene::BRK_GROWTH)?;
    layout(state, &scene.bare, &roles.bare, brk(&scene.bare)?)
}

/// Compares with proc_pid_stat(5), which has everything but the end of the heap.
fn layout(state: &KernelState, actor: &Actor, task: &Task, brk: u64) -> Result<(), Trouble> {
    let stat = actor.stat().map_err(|error| Trouble::Wrong(format!("reading /proc/PID/stat: {error}")))?;
    // proc_pid_stat(5) counts from 1, and two fields are cut off.
    let field = |number: usize| stat.get(number - 3).and_then(|text| text.parse().ok()).unwrap_or(0);
    let expected = MemoryLayout {
        start_code: field(26),
        end_code: field(27),
        start_data: field(45),
        end_data: field(46),
        start_brk: field(47),
        brk,
        start_stack: field(28),
        arg_start: field(48),
        arg_end: field(49),
        env_start: field(50),
        env_end: field(51),
    };
    same("the layout", state.memory_layout(task)?, expected)
}

fn dumpable(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.full.outcome("PR_SET_DUMPABLE")?;
    scene.bare.outcome("PR_SET_DUMPABLE")?;
    same("not dumpable", state.dumpable(&roles.full)?, 0)?;
    same("dumpable", state.dumpable(&roles.bare)?, 1)
}

fn securebits(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.full.outcome("PR_SET_KEEPCAPS")?;
    scene.bare.outcome("PR_SET_KEEPCAPS")?;
    for (actor, task, keep) in [(&scene.full, &roles.full, 0x10), (&scene.bare, &roles.bare, 0)] {
        let told = actor.outcome("PR_GET_SECUREBITS")?;
        same("SECBIT_KEEP_CAPS", told & 0x10, keep)?;
        same("the bits", u64::from(state.securebits(task)?), told)?;
    }
    Ok(())
}

fn subreaper(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.full.outcome("PR_SET_CHILD_SUBREAPER")?;
    same("a subreaper", state.is_child_subreaper(&roles.full)?, true)?;
    same("no subreaper", state.is_child_subreaper(&roles.bare)?, false)
}

fn syscall_dispatch(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.full.outcome("PR_SET_SYSCALL_USER_DISPATCH")?;
    let read = |task| -> Result<_, Error> {
        let read = state.syscall_dispatch(task)?;
        Ok((read.on, read.selector, read.offset, read.length))
    };
    let (start, length) = scene::DISPATCH_RANGE;
    same("a dispatch", read(&roles.full)?, (true, scene.at.selector, start, length))?;
    same("none", read(&roles.bare)?, (false, 0, 0, 0))
}

fn tls_array(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    match scene.thread_area {
        Ok(()) => {}
        Err(Errno::EIO) => return Err(Trouble::Absent("this kernel runs no 32-bit programs".to_owned())),
        Err(errno) => return Err(Trouble::Wrong(format!("PTRACE_SET_THREAD_AREA fails here: {}", errno.desc()))),
    }
    same("an entry", state.tls_array(&roles.full)?, [descriptor(), 0, 0])?;
    same("no entry", state.tls_array(&roles.bare)?, [0; 3])
}

fn memory_flags(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    for actor in [&scene.full, &scene.poll] {
        actor.outcome("mlockall")?;
    }
    let locks = |task| -> Result<_, Error> {
        let flags = state.memory_flags(task)?;
        Ok((flags.mdwe, flags.lock_future, flags.lock_on_fault))
    };
    same("locked at once", locks(&roles.full)?, (true, true, false))?;
    same("locked on fault", locks(&roles.poll)?, (true, true, true))?;
    same("nothing", state.memory_flags(&roles.bare)?, MemoryFlags::default())
}

fn thread_flags(state: &KernelState, _: &Scene, roles: &Roles) -> Result<(), Trouble> {
    same("no time stamp counter", state.thread_flags(&roles.full)?, ThreadFlags { no_tsc: true, no_cpuid: false })?;
    same("nothing", state.thread_flags(&roles.bare)?, ThreadFlags::default())
}

fn keyrings(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    for actor in [&scene.full, &scene.poll, &scene.futex] {
        actor.outcome("keyctl")?;
    }
    scene.full.outcome("add_key")?;
    let keys = |task| -> Result<_, Error> {
        let Keyrings { thread, process, session } = state.keyrings(task)?;
        Ok((thread.map(|ring| ring.keys), process.map(|ring| ring.keys), session.map(|ring| ring.address)))
    };
    let inherited = state.own_keyrings()?.session.map(|ring| ring.address);
    same("a key in the session keyring", state.keyrings(&roles.full)?.session.map(|ring| ring.keys), Some(1))?;
    same("a process keyring", keys(&roles.poll)?, (None, Some(0), inherited))?;
    same("a thread keyring", keys(&roles.futex)?, (Some(0), None, inherited))?;
    same("neither", keys(&roles.bare)?, (None, None, inherited))
}

fn landlock(state: &KernelState, _: &Scene, roles: &Roles) -> Result<(), Trouble> {
    for (task, confined) in [(&roles.full, true), (&roles.poll, true), (&roles.bare, false), (&roles.futex, false)] {
        same("a domain", state.in_landlock_domain(task)?, confined)?;
    }
    Ok(())
}

/// A caller that is under filters itself has handed them on to all children.
fn seccomp(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    for actor in [&scene.poll, &scene.poll_forever] {
        actor.outcome("seccomp")?;
    }
    scene.poll.outcome("seccomp with a listener")?;
    let inherited = state.seccomp_filters(&roles.bare)?;
    let own = |task| -> Result<Vec<bool>, Error> {
        let filters = state.seccomp_filters(task)?;
        let own = filters.len().saturating_sub(inherited.len());
        Ok(filters.iter().take(own).map(|filter| filter.has_listener).collect())
    };
    same("a filter with a listener on one without", own(&roles.poll)?, vec![true, false])?;
    same("a filter", own(&roles.poll_forever)?, vec![false])?;
    same("no filter", own(&roles.futex)?, vec![])
}

/// Whether a getter says that a descriptor is closed.
fn closed<T: Debug>(read: Result<T, Error>) -> Result<(), Trouble> {
    match read {
        Err(Error::NotOpen { .. }) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(read) => Err(Trouble::Wrong(format!("a closed descriptor reads as {read:x?}"))),
    }
}

fn files(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    for step in ["close_range", "pipe2", "dup", "open", "open of a directory"] {
        scene.full.outcome(step)?;
    }
    let at = |fd| state.file_address(&roles.full, fd);
    let all = (3..8).map(|fd| Ok(OpenDescriptor { fd, address: at(fd)?, cloexec: fd == 7 }));
    let all = all.collect::<Result<Vec<_>, Error>>()?;
    same("a duplicate", at(5)?, at(4)?)?;
    let mut addresses: Vec<_> = all.iter().map(|open| open.address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    same("the number of descriptions", addresses.len(), 4)?;
    let own = |task| -> Result<Vec<_>, Error> {
        Ok(state.descriptors(task)?.into_iter().filter(|open| open.fd > 2).collect())
    };
    same("the whole table", own(&roles.full)?, all)?;
    same("an empty table", own(&roles.bare)?, Vec::new())?;
    closed(state.file_address(&roles.full, 8))?;
    closed(state.file_address(&roles.bare, 1 << 20))
}

fn file_locks(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.full.outcome("flock")?;
    scene.futex.outcome("pipe2")?;
    let locked = |task, fd| state.was_locked(task, file(&state.view(Feature::FileLocks, task)?, fd)?);
    same("a pipe that is locked", locked(&roles.full, 4)?, true)?;
    same("a pipe that is not", locked(&roles.futex, 3)?, false)
}

fn pipe_ends(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.full.outcome("open")?;
    scene.futex.outcome("pipe2")?;
    for fd in [3, 4, 6] {
        same("one reader, two writers", state.pipe_ends(&roles.full, fd)?, PipeEnds { readers: 1, writers: 2 })?;
    }
    same("one and one", state.pipe_ends(&roles.futex, 3)?, PipeEnds { readers: 1, writers: 1 })?;
    match state.pipe_ends(&roles.full, 7) {
        Err(Error::NotAPipe { .. }) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(read) => Err(Trouble::Wrong(format!("a directory reads as a pipe: {read:?}"))),
    }
}

/// Bytes are fed to the master, whose line discipline takes them as they are; what a kernel thread moves would come late.
fn terminals(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    for step in ["open of /dev/ptmx", "TIOCSTI", "TIOCEXCL"] {
        scene.terminal.outcome(step)?;
    }
    let [number, ..] = scene.terminal.words::<1>(scene.at.pty_number)?;
    let pair = |fd| -> Result<_, Trouble> {
        state.pty(&roles.terminal, fd)?.ok_or_else(|| Trouble::Wrong("it reads as another terminal".to_owned()))
    };
    let (master, slave) = pair(3)?;
    let (untouched, _) = pair(4)?;
    same("the number", u64::from(slave.number), number & 0xffff_ffff)?;
    let told = |side: &crate::tty::PtySide| (side.exclusive(), side.other_closed(), side.stopped);
    same("an exclusive one", told(&master), (true, false, false))?;
    same("a new one", told(&untouched), (false, false, false))?;
    let device = scene.devpts().map_err(|error| Trouble::Wrong(format!("looking at /dev/pts: {error}")))?;
    same("its devpts", u64::from(state.pty_device(&roles.terminal, &slave)?), device)?;
    let read = state.pty_queue(&roles.terminal, &master)?;
    same("what the master reads", (read.bytes.as_slice(), read.line_ends, read.behind), (scene::FED, vec![], vec![]))?;
    let none = state.pty_queue(&roles.terminal, &slave)?;
    same("nothing", none, crate::tty::PtyQueue::default())
}

fn message_queues(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    for step in ["unshare", "another mq_open", "mq_timedsend", "mq_notify", "dup3", "another mq_notify"] {
        scene.terminal.outcome(step)?;
    }
    let queue = |step| -> Result<_, Trouble> {
        let fd = i32::try_from(scene.terminal.outcome(step)?).unwrap_or(-1);
        Ok(state.message_queue(&roles.terminal, fd)?)
    };
    let sent = scene::MESSAGES.into_iter().enumerate();
    let mut messages: Vec<QueuedMessage> = sent
        .map(|(number, (priority, length))| QueuedMessage { priority, data: scene::message(number, length) })
        .collect();
    messages.sort_by_key(|message| std::cmp::Reverse(message.priority));
    let (signal, value) = scene::NOTIFY;
    let (pid, exec_id) = (roles.terminal.tid(), state.exec_id(&roles.terminal)?);
    let notify = QueueNotify { pid, exec_id, kind: libc::SIGEV_SIGNAL, signal, value, cookie: None };
    same("a queue", queue("mq_open")?, MessageQueue { messages, notify: Some(notify) })?;
    let socket = state.notify_socket(&roles.terminal, scene::NOTIFY_SOCKET)?;
    let cookie = Some(NotifyCookie { socket, bytes: scene::NOTIFY_COOKIE });
    // The kernel keeps neither of the others with it.
    let told = queue("a third mq_open")?.notify.map(|notify| QueueNotify { signal: 0, value: 0, ..notify });
    let notify = QueueNotify {
        pid,
        exec_id: told.map_or(0, |told| told.exec_id),
        kind: libc::SIGEV_THREAD,
        signal: 0,
        value: 0,
        cookie,
    };
    same("a queue that tells by a thread", told, Some(notify))?;
    same("an empty queue", queue("another mq_open")?, MessageQueue::default())
}

fn inotify(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.terminal.outcome("INOTIFY_IOC_SETNEXTWD")?;
    scene.terminal.outcome("another inotify_init1")?;
    let next = [5, 6].map(|fd| state.inotify_next_wd(&roles.terminal, fd));
    let [set, new] = next;
    same("the next watch", (set?, new?), (scene::NEXT_WD, 0))
}

fn fanotify(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    for (name, flags) in scene::GROUPS {
        let fd = i32::try_from(scene.terminal.outcome(name)?).unwrap_or(-1);
        same(name, state.fanotify_flags(&roles.terminal, fd)?, flags)?;
    }
    Ok(())
}
