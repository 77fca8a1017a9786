//! Every getter, on one process that comes into a state and leaves it again. Calibration compares two processes; this compares
//! one with itself, so that what is left behind by state that is gone does not pass for state.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Script, calibrated};
use crfs_kstate::{
    AltStack, Brk, Error, Itimer, KernelSigaction, PipeEnds, PosixTimerStatus, RestartBlock, SyscallDispatch,
};
use crfs_sys::puppet::Arg;
use crfs_sys::thread_area::{self, UserDesc};

#[test]
fn signals_come_and_go() {
    let state = calibrated();
    let mut s = Script::new();
    let action = s.words(&[0x4242_4241, 0x0400_0000, 0x5151_5151, 0xf0]);
    let default = s.words(&[0; 4]);
    let stack = s.words(&[0x7000_0000_1000, 0, 0x1_0000]);
    let disable = s.words(&[0, 2, 0]);
    s.call(libc::SYS_rt_sigaction, [12, action, 0, 8]);
    s.call(libc::SYS_sigaltstack, [stack, 0]);
    s.call(libc::SYS_set_tid_address, [0xabc0]);
    s.call(libc::SYS_prctl, [1, 15]);
    s.pause();
    s.call(libc::SYS_rt_sigaction, [12, default, 0, 8]);
    s.call(libc::SYS_sigaltstack, [disable, 0]);
    s.call(libc::SYS_set_tid_address, [0]);
    s.call(libc::SYS_prctl, [1, 0]);
    let mut child = s.start();
    let task = child.task(&state);
    assert_eq!((task.tid(), task.tgid()), (child.puppet.pid().as_raw(), child.puppet.pid().as_raw()));
    let actions = state.signal_actions(&task).unwrap();
    let expected = KernelSigaction { handler: 0x4242_4241, flags: 0x0400_0000, restorer: 0x5151_5151, mask: 0xf0 };
    assert_eq!(actions[11], expected);
    assert_eq!(actions[63], KernelSigaction::default());
    assert_eq!(state.alternate_stack(&task).unwrap(), AltStack { sp: 0x7000_0000_1000, flags: 0, size: 0x1_0000 });
    assert_eq!(state.clear_child_tid(&task).unwrap(), 0xabc0);
    assert_eq!(state.set_child_tid(&task).unwrap(), 0);
    assert_eq!(state.pdeath_signal(&task).unwrap(), 15);
    assert_eq!(state.exit_signal(&task).unwrap(), libc::SIGCHLD);
    child.go_on();
    assert_eq!(state.signal_actions(&task).unwrap()[11], KernelSigaction::default());
    assert_eq!(state.alternate_stack(&task).unwrap(), AltStack { sp: 0, flags: 2, size: 0 });
    assert_eq!(state.clear_child_tid(&task).unwrap(), 0);
    assert_eq!(state.pdeath_signal(&task).unwrap(), 0);
}

#[test]
fn timers_come_and_go() {
    let state = calibrated();
    let mut s = Script::new();
    let value = s.words(&[0, 250_000, 100, 0]);
    let once = s.words(&[0, 0, 500, 0]);
    let off = s.words(&[0; 4]);
    let event = s.words(&[0, 1 << 32, 0, 0, 0, 0, 0, 0]);
    let id = s.words(&[0]);
    let create = s.call(libc::SYS_timer_create, [1, event, id]);
    s.call(libc::SYS_setitimer, [0, value, 0]);
    s.call(libc::SYS_setitimer, [2, once, 0]);
    s.pause();
    let delete = s.call(libc::SYS_timer_delete, [0]);
    for which in [0, 2] {
        s.call(libc::SYS_setitimer, [which, off, 0]);
    }
    let mut child = s.start();
    child.expect(create, 0);
    let task = child.task(&state);
    let [timer] = state.posix_timers(&task).unwrap()[..] else { panic!("one timer") };
    assert_eq!((timer.id, timer.clock, timer.status), (0, 1, PosixTimerStatus::Disarmed));
    let [real, virt, prof] = state.itimers(&task).unwrap();
    assert_eq!(real.interval_ns, 250_000_000);
    assert!((80_000_000_000..=100_000_000_000).contains(&real.remaining_ns), "{real:?}");
    assert_eq!(virt, Itimer::default());
    assert_eq!((prof.interval_ns, prof.expires_ns), (0, None));
    assert!((480_000_000_000..=500_010_000_000).contains(&prof.remaining_ns), "{prof:?}");
    child.go_on();
    child.expect(delete, 0);
    assert_eq!(state.posix_timers(&task).unwrap(), []);
    let [real, virt, prof] = state.itimers(&task).unwrap();
    // When it would have expired stays.
    assert_eq!(Itimer { expires_ns: None, ..real }, Itimer::default());
    assert_eq!([virt, prof], [Itimer::default(); 2]);
}

/// Where calls are always allowed: everywhere.
const EVERYWHERE: (u64, u64) = (1, 0x7fff_ffff_0000);

#[test]
fn attributes_come_and_go() {
    let state = calibrated();
    let mut s = Script::new();
    let dispatch = s.call(libc::SYS_prctl, [59, 1, EVERYWHERE.0, EVERYWHERE.1, 0]);
    s.call(libc::SYS_prctl, [4, 0]); // PR_SET_DUMPABLE
    s.call(libc::SYS_prctl, [36, 1]); // PR_SET_CHILD_SUBREAPER
    s.call(libc::SYS_prctl, [8, 1]); // PR_SET_KEEPCAPS
    s.pause();
    let off = s.call(libc::SYS_prctl, [59, 0, 0, 0, 0]);
    s.call(libc::SYS_prctl, [4, 1]);
    s.call(libc::SYS_prctl, [36, 0]);
    s.call(libc::SYS_prctl, [8, 0]);
    let mut child = s.start();
    child.expect(dispatch, 0);
    let task = child.task(&state);
    let (offset, length) = EVERYWHERE;
    let on = SyscallDispatch { on: true, selector: 0, offset, length };
    assert_eq!(state.syscall_dispatch(&task).unwrap(), on);
    assert_eq!(state.dumpable(&task).unwrap(), 0);
    assert!(state.is_child_subreaper(&task).unwrap());
    assert_eq!(state.securebits(&task).unwrap() & 0x10, 0x10);
    assert_eq!(state.tls_array(&task).unwrap(), [0; 3]);
    thread_area::set(child.puppet.pid(), &UserDesc { entry_number: 13, base_addr: 0, limit: 0xf_ffff, flags: 0x51 })
        .unwrap();
    // A flat 4 GiB writable data segment of privilege 3: 0xf3 and 0xdf are its access and granularity bytes.
    assert_eq!(state.tls_array(&task).unwrap(), [0, 0x00df_f300_0000_ffff, 0]);
    assert!(!state.has_io_bitmap(&task).unwrap());
    assert_eq!(state.io_privilege_level(&task).unwrap(), 0);
    child.go_on();
    child.expect(off, 0);
    assert_eq!(state.syscall_dispatch(&task).unwrap(), SyscallDispatch::default());
    assert_eq!(state.dumpable(&task).unwrap(), 1);
    assert!(!state.is_child_subreaper(&task).unwrap());
    assert_eq!(state.securebits(&task).unwrap() & 0x10, 0);
}

#[test]
fn memory_state_comes_and_goes() {
    let state = calibrated();
    let mut s = Script::new();
    let context = s.words(&[0]);
    let segment =
        s.stage.place(&UserDesc { entry_number: 2, base_addr: 0x1000, limit: 0xff, flags: 0x41 }.to_bytes()).unwrap();
    let brk = s.call(libc::SYS_brk, [0]);
    s.pause();
    let setup = s.call(libc::SYS_io_setup, [4, context]);
    let ldt = s.call(libc::SYS_modify_ldt, [0x11, segment, 16]);
    s.call_with(libc::SYS_brk, [Arg::Result { step: brk, plus: 0x2000 }]);
    s.pause();
    s.call_with(libc::SYS_brk, [Arg::Result { step: brk, plus: 0 }]);
    let destroy = s.call_with(libc::SYS_io_destroy, [Arg::Word(context)]);
    let mut child = s.start();
    let task = child.task(&state);
    let start = child.puppet.result(brk).unwrap().cast_unsigned();
    assert!(!state.has_aio(&task).unwrap());
    assert!(!state.has_ldt(&task).unwrap());
    assert_eq!(state.ldt(&task).unwrap(), Vec::<u64>::new());
    assert_eq!(state.brk(&task).unwrap().brk, start);
    child.go_on();
    child.expect(setup, 0);
    child.expect(ldt, 0);
    assert!(state.has_aio(&task).unwrap());
    assert_eq!(state.aio_contexts(&task).unwrap().iter().map(|it| it.under_way).collect::<Vec<_>>(), [0]);
    assert!(state.has_ldt(&task).unwrap());
    assert_eq!(state.ldt(&task).unwrap(), [0, 0, 0x0050_f300_1000_00ff]);
    let layout = state.memory_layout(&task).unwrap();
    assert_eq!(layout.brk, start + 0x2000);
    assert_eq!(state.brk(&task).unwrap(), Brk { start_brk: layout.start_brk, brk: layout.brk });
    assert!(layout.start_brk <= start && layout.start_code < layout.end_code && layout.arg_start < layout.env_end);
    child.go_on();
    child.expect(destroy, 0);
    assert!(!state.has_aio(&task).unwrap(), "the table is still there, and empty");
    assert_eq!(state.aio_contexts(&task).unwrap(), []);
    assert_eq!(state.brk(&task).unwrap().brk, start);
}

#[test]
fn files_and_pipes_are_counted() {
    let state = calibrated();
    let mut s = Script::new();
    let ends = s.words(&[0]);
    let name = s.stage.place(b"/proc/self/fd/3\0").unwrap();
    s.call(libc::SYS_pipe2, [ends, 0]);
    // A second open file description at the end to read from, and two more descriptors of the one to write to.
    s.call(libc::SYS_open, [name, 0]);
    s.call(libc::SYS_dup, [4]);
    s.call(libc::SYS_dup3, [4, 900, u64::from(libc::O_CLOEXEC.unsigned_abs())]);
    s.pause();
    s.call(libc::SYS_close, [4]);
    s.call(libc::SYS_close, [5]);
    s.pause();
    s.call(libc::SYS_close, [6]);
    s.call(libc::SYS_close, [900]);
    let mut child = s.start();
    let task = child.task(&state);
    let address = |fd| state.file_address(&task, fd).unwrap();
    assert_eq!([3, 4, 5].map(|fd| state.was_locked(&task, address(fd)).unwrap()), [false; 3]);
    assert_eq!(state.pipe_ends(&task, 3).unwrap(), PipeEnds { readers: 2, writers: 1 });
    assert_eq!(state.pipe_ends(&task, 900).unwrap(), PipeEnds { readers: 2, writers: 1 });
    assert_eq!((address(6), address(900)), (address(4), address(4)));
    assert_ne!(address(5), address(3), "opened anew");
    let all = state.descriptors(&task).unwrap();
    let expected: Vec<_> = [3, 4, 5, 6, 200, 900].map(|fd| (fd, address(fd))).into();
    assert!(all.iter().all(|open| open.fd == 200 || open.cloexec == (open.fd == 900)), "{all:?}");
    let all = all.into_iter().filter(|open| open.fd > 2).map(|open| (open.fd, open.address));
    assert_eq!(all.collect::<Vec<_>>(), expected);
    assert!(matches!(state.file_address(&task, 7), Err(Error::NotOpen { fd: 7, .. })));
    for fd in [-1, i32::MAX] {
        assert!(matches!(state.pipe_ends(&task, fd), Err(Error::NotOpen { .. })), "{fd}");
    }
    child.go_on();
    assert_eq!(state.pipe_ends(&task, 3).unwrap(), PipeEnds { readers: 1, writers: 1 });
    child.go_on();
    assert_eq!(state.pipe_ends(&task, 3).unwrap(), PipeEnds { readers: 1, writers: 0 });
}

#[test]
fn undone_semaphores_are_told() {
    let state = calibrated();
    let mut s = Script::new();
    let up = s.stage.place(&[1, 0, 7, 0, 0, 0x10]).unwrap();
    let down = s.stage.place(&[3, 0, 2, 0, 0, 0x10]).unwrap();
    let unshare = s.call(libc::SYS_unshare, [u64::from(libc::CLONE_NEWIPC.unsigned_abs())]);
    let [one, two] = [(); 2].map(|()| s.call(libc::SYS_semget, [0, 4, 0o1600]));
    let set = |step| Arg::Result { step, plus: 0 };
    s.pause();
    let done = s.call_with(libc::SYS_semop, [set(one), up.into(), 1.into()]);
    s.call_with(libc::SYS_semop, [set(two), down.into(), 1.into()]);
    s.pause();
    let removed = s.call_with(libc::SYS_semctl, [set(one), 0.into(), 0.into()]);
    let mut child = s.start();
    child.expect(unshare, 0);
    let task = child.task(&state);
    assert!(!state.has_sem_undo(&task).unwrap(), "sets that were not touched");
    child.go_on();
    child.expect(done, 0);
    let mut read: Vec<_> = state
        .sem_undo(&task)
        .unwrap()
        .iter()
        .map(|undo| (i64::from(undo.semid), state.sem_adjustments(&task, undo, 4).unwrap()))
        .collect();
    read.sort();
    let ids = [one, two].map(|step| child.puppet.result(step).unwrap());
    assert_eq!(read, [(ids[0], vec![0, -7, 0, 0]), (ids[1], vec![0, 0, 0, -2])]);
    child.go_on();
    child.expect(removed, 0);
    let left: Vec<_> = state.sem_undo(&task).unwrap().iter().map(|undo| i64::from(undo.semid)).collect();
    assert_eq!(left, [ids[1]]);
}

#[test]
fn interrupted_calls_tell_when_they_end() {
    let state = calibrated();
    let wait = |number, args: &dyn Fn(&mut Script) -> [u64; 6]| {
        let mut s = Script::new();
        let args = args(&mut s);
        s.call(number, args);
        let before = now_ns();
        let child = s.start_in_last();
        let task = child.task(&state);
        let block = state.restart_block(&task).unwrap();
        (child, block, before..now_ns())
    };
    let seconds = 1_000_000_000;
    let ends = |at: u64, range: &std::ops::Range<u64>, after: u64| {
        // Timer slack comes on top.
        assert!(
            at >= range.start + after && at <= range.end + after + 1_000_000,
            "{at} is not {after} after {range:?}"
        );
    };

    let sleep = |s: &mut Script| [s.words(&[15, 0]), 0, 0, 0, 0, 0];
    let (_child, block, range) = wait(libc::SYS_nanosleep, &sleep);
    let RestartBlock::Nanosleep(sleep) = block else { panic!("{block:?}") };
    assert_eq!((sleep.clockid, sleep.kind, sleep.rmtp), (libc::CLOCK_MONOTONIC, 0, 0));
    ends(sleep.expires_ns, &range, 15 * seconds);

    let (_child, block, range) = wait(libc::SYS_poll, &|_| [0, 0, 12_000, 0, 0, 0]);
    let RestartBlock::Poll(poll) = block else { panic!("{block:?}") };
    let (whole, nanos) = poll.expires.unwrap();
    assert_eq!((poll.ufds, poll.nfds), (0, 0));
    ends(whole * seconds + nanos, &range, 12 * seconds);

    let futex = |s: &mut Script| [s.words(&[77]), 128, 77, s.words(&[13, 0]), 0, 0];
    let (_child, block, range) = wait(libc::SYS_futex, &futex);
    let RestartBlock::Futex(futex) = block else { panic!("{block:?}") };
    assert_eq!((futex.val, futex.flags & 0x60, futex.bitset), (77, 0x40, u32::MAX));
    ends(futex.time_ns, &range, 13 * seconds);

    // A sleep on a processor clock is none of these, a call without a time limit has no block.
    let cpu_sleep = |s: &mut Script| [libc::CLOCK_PROCESS_CPUTIME_ID as u64, 0, s.words(&[15, 0]), 0, 0, 0];
    let (_child, block, _) = wait(libc::SYS_clock_nanosleep, &cpu_sleep);
    assert!(matches!(block, RestartBlock::Other { function } if function > 1 << 63), "{block:?}");
    let (_child, block, _) = wait(libc::SYS_pause, &|_| [0; 6]);
    assert_eq!(block, RestartBlock::None);
}

fn now_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs()
}

#[test]
fn a_task_that_has_ended_has_nothing() {
    let state = calibrated();
    let child = Script::new().start();
    let task = child.task(&state);
    let pid = child.puppet.pid();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    common::wait_for("the end", || common::state_of(pid) == 'Z');
    assert!(state.tracees().unwrap().contains_key(&pid.as_raw()), "traced until it is reaped");
    assert!(matches!(state.brk(&task), Err(Error::Gone { .. })), "no address space");
    assert!(matches!(state.has_ldt(&task), Err(Error::Gone { .. })));
    assert!(matches!(state.file_address(&task, 0), Err(Error::Gone { .. })), "no files");
    assert!(matches!(state.descriptors(&task), Err(Error::Gone { .. })));
    drop(child);
    assert!(!state.tracees().unwrap().contains_key(&pid.as_raw()));
}
