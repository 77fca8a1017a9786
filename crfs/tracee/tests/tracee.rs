//! Tracees: seizing, registers, stops, many at once.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::{Child, gone, seize_and_stop, soon, state, stopped, until};
use crfs_sys::clone::CloneArgs;
use crfs_tracee::{Exit, HostPid, InjectError, Injector, Scratch, SeizeOptions, Stop, Tracee, Waited, stop_all, stub};
use nix::sys::signal::{Signal, kill};

fn sleeper() -> Child {
    Child::fork(|| std::thread::sleep(Duration::from_secs(60)))
}

fn spinner() -> Child {
    Child::fork(|| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            std::hint::spin_loop();
        }
    })
}

#[test]
fn registers_and_masks_come_back_as_they_were_set() {
    let child = spinner();
    let tracee = seize_and_stop(child.0, SeizeOptions::default());
    assert_eq!(tracee.stop(), Stop::Event { signal: libc::SIGTRAP });

    let regs = tracee.regs().unwrap();
    let mut changed = regs;
    changed.rbx = 0x1234_5678_9abc_def0;
    changed.r15 = 42;
    tracee.set_regs(&changed).unwrap();
    assert_eq!(tracee.regs().unwrap(), changed);
    tracee.set_regs(&regs).unwrap();

    let state = tracee.xstate().unwrap();
    assert!(state.len() >= 576, "{}", state.len());
    let mut changed = state.clone();
    changed[160..176].copy_from_slice(&[0xa5; 16]); // xmm0
    changed[512] |= 2; // which is in use
    tracee.set_xstate(&changed).unwrap();
    assert_eq!(tracee.xstate().unwrap()[160..176], [0xa5; 16]);
    tracee.set_xstate(&state).unwrap();

    let mask = tracee.sigmask().unwrap();
    tracee.set_sigmask(0x8000_0000_0000_0200).unwrap();
    assert_eq!(tracee.sigmask().unwrap(), 0x8000_0000_0000_0200);
    tracee.set_sigmask(mask).unwrap();

    let breakpoint = [0x1000, 0, 0, 0, 0, 0, 0, 1];
    tracee.set_debug_registers(&breakpoint).unwrap();
    let read = tracee.debug_registers().unwrap();
    assert_eq!((read[0], read[7] & 1), (0x1000, 1));
    tracee.set_debug_registers(&[0; 8]).unwrap();
    assert_eq!(tracee.debug_registers().unwrap()[0], 0);

    // A forked child of a Rust program has the C library's registration.
    let rseq = tracee.rseq().unwrap().expect("the C library registers one");
    assert_eq!((rseq.size, rseq.signature), (32, 0x5305_3053));
    assert_eq!(tracee.seccomp_filters().unwrap().len(), 0);
    tracee.detach().unwrap();
    until("it spins", || common::state(child.0) == 'R');
}

#[test]
fn pending_signals_are_read_and_left() {
    let child = sleeper();
    let tracee = seize_and_stop(child.0, SeizeOptions::default());
    tracee.set_sigmask(u64::MAX).unwrap();
    for value in 0..100 {
        // Realtime signals queue, so that there is more than one piece to read.
        let result = std::process::Command::new("/bin/kill")
            .args(["-s", "RTMIN+2", "-q", &value.to_string(), &child.0.to_string()])
            .status();
        if !result.is_ok_and(|status| status.success()) {
            panic!("kill -q failed");
        }
    }
    let shared = tracee.pending(true).unwrap();
    assert_eq!(shared.len(), 100);
    for (value, info) in shared.iter().enumerate() {
        assert_eq!(i32::from_ne_bytes(info[0..4].try_into().unwrap()), libc::SIGRTMIN() + 2);
        assert_eq!(u32::from_ne_bytes(info[24..28].try_into().unwrap()), value as u32);
    }
    assert_eq!(tracee.pending(true).unwrap().len(), 100);
    assert_eq!(tracee.pending(false).unwrap().len(), 0);
}

#[test]
fn the_end_is_a_result() {
    let child = sleeper();
    let tracee = seize_and_stop(child.0, SeizeOptions::default());
    kill(child.0.pid(), Signal::SIGKILL).unwrap();
    until("it is dead", || state(child.0) == 'Z');
    assert!(tracee.regs().unwrap_err().is_gone());
    let running = Tracee::adopt(child.0);
    let exit = gone(running.wait(soon()).unwrap());
    assert_eq!(exit, Exit::Signal { number: libc::SIGKILL, core: false });
    assert!(Tracee::seize(child.0, SeizeOptions::default()).unwrap_err().is_gone());
}

#[test]
fn a_wait_that_times_out_gives_the_handle_back() {
    let child = sleeper();
    let tracee = Tracee::seize(child.0, SeizeOptions::default()).unwrap();
    let begun = Instant::now();
    let Waited::Running(tracee) = tracee.wait(begun + Duration::from_millis(30)).unwrap() else {
        panic!("nothing has happened to it");
    };
    assert!(begun.elapsed() >= Duration::from_millis(30));
    tracee.interrupt().unwrap();
    stopped(tracee.wait(soon()).unwrap()).detach().unwrap();
}

#[test]
fn exit_kill_kills_with_the_tracer() {
    let victim = sleeper();
    let tid = victim.0;
    let tracer = Child::fork(move || {
        let _stopped = seize_and_stop(tid, SeizeOptions::BUILD);
    });
    tracer.end();
    let end = victim.end();
    assert_eq!(end, crfs_sys::wait::Status::Signaled { signal: libc::SIGKILL, core: false });
}

#[test]
fn without_exit_kill_it_goes_on() {
    let victim = sleeper();
    let tid = victim.0;
    let tracer = Child::fork(move || {
        let _stopped = seize_and_stop(tid, SeizeOptions::default());
    });
    tracer.end();
    until("it sleeps again", || state(victim.0) == 'S');
}

#[test]
fn stopping_keeps_signals_and_job_control() {
    let held = sleeper();
    kill(held.0.pid(), Signal::SIGSTOP).unwrap();
    until("it is stopped", || state(held.0) == 'T');
    let free = sleeper();
    let dead = sleeper();
    kill(dead.0.pid(), Signal::SIGKILL).unwrap();
    dead.end();
    let all = stop_all(vec![held.0, free.0, dead.0], soon());
    let stops: Vec<_> = all.stopped.iter().map(|tracee| (tracee.tid(), tracee.stop().group_stop())).collect();
    assert_eq!(stops, [(held.0, Some(libc::SIGSTOP)), (free.0, None)]);
    assert_eq!(all.gone.iter().map(|(tid, _)| *tid).collect::<Vec<_>>(), [dead.0]);
    assert!(all.late.is_empty());
    for tracee in all.stopped {
        tracee.detach().unwrap();
    }
    until("job control holds it again", || state(held.0) == 'T');
    until("it sleeps again", || state(free.0) == 'S');
}

#[test]
fn what_somebody_else_traces_is_refused() {
    let victim = sleeper();
    let tid = victim.0;
    let (mut ready, mut tell) = std::io::pipe().unwrap();
    let tracer = Child::fork(move || {
        let _stopped = seize_and_stop(tid, SeizeOptions::default());
        tell.write_all(b"x").unwrap();
        std::thread::sleep(Duration::from_secs(60));
    });
    ready.read_exact(&mut [0]).unwrap();
    let all = stop_all(vec![tid], soon());
    assert_eq!(all.refused.len(), 1);
    assert_eq!(all.refused[0].1.to_string(), format!("cannot seize task {tid}: EPERM: Operation not permitted"));
    drop(tracer);
}

#[test]
fn the_parent_of_a_vfork_is_late_and_stops_when_it_can() {
    let (mut ready, mut tell) = std::io::pipe().unwrap();
    // Somebody else makes it, so that nobody traces it afterwards.
    let maker = Child::fork(move || {
        let options = SeizeOptions { exit_kill: false, ..SeizeOptions::BUILD };
        let tracee = stub::spawn(&CloneArgs::default(), options, soon(), || Ok(())).unwrap();
        let start = tracee.regs().unwrap();
        let mut injector = Injector::bootstrap(tracee, stub::GADGET, None, Scratch::DEFAULT_LEN).unwrap();
        injector.set_timeout(Duration::from_millis(100));
        let flags = (libc::CLONE_VFORK | libc::CLONE_VM) as u64;
        let error = injector.attempt(libc::SYS_clone, &[flags], "vfork").unwrap_err();
        assert!(matches!(error, InjectError::TimedOut { .. }), "{error}");
        let child = injector.children()[0];
        let stopped = stopped(Tracee::adopt(child).wait(soon()).unwrap());
        stopped.set_regs(&start).unwrap();
        stopped.detach().unwrap();
        tell.write_all(&injector.tid().raw().to_ne_bytes()).unwrap();
        tell.write_all(&child.raw().to_ne_bytes()).unwrap();
    });
    let mut pids = [[0u8; 4]; 2];
    ready.read_exact(pids.as_flattened_mut()).unwrap();
    let [parent, child] = pids.map(|pid| Orphan(HostPid::new(i32::from_ne_bytes(pid))));
    maker.end();
    until("it waits", || state(parent.0) == 'D');

    let mut all = stop_all(vec![parent.0], Instant::now() + Duration::from_millis(50));
    assert!(all.stopped.is_empty());
    let late = all.late.pop().expect("it cannot stop");
    assert_eq!(late.tid(), parent.0);
    kill(child.0.pid(), Signal::SIGKILL).unwrap();
    let late = stopped(late.wait(soon()).unwrap());
    assert_eq!(late.stop(), Stop::Event { signal: libc::SIGTRAP });
}

/// Somebody else's child, killed when the test is over.
struct Orphan(HostPid);

impl Drop for Orphan {
    fn drop(&mut self) {
        let _ = kill(self.0.pid(), Signal::SIGKILL);
    }
}
