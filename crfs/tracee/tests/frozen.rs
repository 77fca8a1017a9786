//! Stopping what the freezer holds, and many threads at once.
#![allow(clippy::unwrap_used, clippy::cast_sign_loss)]

mod common;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{Child, gone, soon, state, stopped, until};
use crfs_sys::clone::CloneArgs;
use crfs_sys::signal::KernelSigaction;
use crfs_tracee::{Batch, Exit, HostPid, Injector, Scratch, SeizeOptions, Spawn, Stop, Tracee, Waited, stop_all, stub};
use nix::sys::signal::{Signal, kill};

const SA_RESTORER: u64 = 0x0400_0000;

/// A cgroup of its own, removed when the test is over. Only one at a time: removing it waits for whatever this process traces, and would
/// take the stops of another test's tracees.
struct Cgroup(PathBuf, #[expect(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

static ALONE: Mutex<()> = Mutex::new(());

impl Cgroup {
    fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("cgroup v2 is mounted");
        let root = line.split(' ').nth(4).unwrap();
        let path = PathBuf::from(root).join(format!("crfs-tracee-{name}-{}", std::process::id()));
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        fs::create_dir(&path).unwrap();
        Self(path, alone)
    }

    fn freeze(&self, frozen: bool) {
        fs::write(self.0.join("cgroup.freeze"), if frozen { "1" } else { "0" }).unwrap();
        let wanted = format!("frozen {}", u8::from(frozen));
        until(&wanted, || fs::read_to_string(self.0.join("cgroup.events")).unwrap().contains(&wanted));
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        let deadline = soon();
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            // Tracees stay members until their tracer has reaped them.
            let _ = crfs_sys::wait::try_wait_any();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A process in the cgroup with this many threads, which all pause, traced by nobody.
fn threads(cgroup: &Cgroup, count: usize) -> (Child, Vec<HostPid>) {
    let directory = File::open(&cgroup.0).unwrap();
    let args = CloneArgs { cgroup: Some(directory.as_fd()), exit_signal: libc::SIGCHLD, ..CloneArgs::default() };
    let tracee = stub::spawn(&args, SeizeOptions::BUILD, soon(), || Ok(())).unwrap();
    let start = tracee.regs().unwrap();
    let child = Child(tracee.tid());
    let mut leader = Injector::bootstrap(tracee, stub::GADGET, None, Scratch::DEFAULT_LEN).unwrap();
    // A handler for SIGUSR1, which never returns: the stub's own code.
    let mut batch = Batch::new();
    let action = KernelSigaction { handler: start.rip, flags: SA_RESTORER, restorer: start.rip, mask: 0 };
    let action = [action.handler, action.flags, action.restorer, action.mask].map(u64::to_ne_bytes);
    let action = batch.data(action.as_flattened());
    batch.call(libc::SYS_rt_sigaction, &[libc::SIGUSR1.into(), action.into(), 0.into(), 8.into()], "handle SIGUSR1");
    leader.run(&batch).unwrap();
    let flags = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
    let spawn = Spawn { flags: flags as u64, ..Spawn::default() };
    let mut threads = vec![child.0];
    for _ in 1..count {
        let thread = leader.spawn(&spawn, "make a thread").unwrap();
        threads.push(thread.tid());
        thread.set_regs(&start).unwrap();
        thread.set_sigmask(0).unwrap();
        thread.set_options(SeizeOptions::default()).unwrap();
        thread.detach().unwrap();
    }
    let leader = leader.release().unwrap();
    leader.set_options(SeizeOptions::default()).unwrap();
    leader.detach().unwrap();
    until("all threads pause", || threads.iter().all(|tid| state(*tid) == 'S'));
    (child, threads)
}

#[test]
fn a_thousand_threads_stop_in_a_moment() {
    let cgroup = Cgroup::new("thousand");
    let (_child, tids) = threads(&cgroup, 1000);
    for frozen in [false, true] {
        cgroup.freeze(frozen);
        let begun = Instant::now();
        let all = stop_all(tids.clone(), soon());
        let took = begun.elapsed();
        println!("frozen {frozen}: 1000 threads in {took:?}");
        assert_eq!(all.stopped.len(), 1000);
        assert!(all.stopped.iter().all(|tracee| tracee.stop() == Stop::Event { signal: libc::SIGTRAP }));
        for tracee in all.stopped {
            tracee.detach().unwrap();
        }
    }
}

#[test]
fn the_first_stop_in_a_frozen_cgroup_is_an_event_stop() {
    let cgroup = Cgroup::new("first");
    let (child, tids) = threads(&cgroup, 2);
    cgroup.freeze(true);
    // Signals that came since stay queued: the freezer comes before them.
    kill(child.0.pid(), Signal::SIGUSR1).unwrap();
    let mut all = stop_all(tids, soon());
    assert_eq!(all.stopped.len(), 2);
    for tracee in &all.stopped {
        assert_eq!(tracee.stop(), Stop::Event { signal: libc::SIGTRAP });
        assert_eq!(tracee.pending(true).unwrap().len(), 1);
    }
    // Let go of, it does not run, but can be had again, in the same place.
    let tracee = all.stopped.remove(0);
    let regs = tracee.regs().unwrap();
    let running = tracee.cont(None).unwrap();
    let Waited::Running(running) = running.wait(Instant::now() + Duration::from_millis(30)).unwrap() else {
        panic!("it is frozen")
    };
    running.interrupt().unwrap();
    let tracee = stopped(running.wait(soon()).unwrap());
    assert_eq!(tracee.regs().unwrap(), regs);
    tracee.detach().unwrap();
    for tracee in all.stopped {
        tracee.detach().unwrap();
    }
    cgroup.freeze(false);
    // Now it is delivered, to the one thread that is free for it.
    until("it is delivered", || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.0)).unwrap();
        status.contains("ShdPnd:\t0000000000000000") && state(child.0) == 'S'
    });
}

#[test]
fn a_signal_that_is_being_delivered_is_passed_on() {
    // The stop of a delivery, caught before the freeze, by a tracer that then comes for the event stop as stop_all does.
    let cgroup = Cgroup::new("signal");
    let (child, _) = threads(&cgroup, 1);
    let tracee = Tracee::seize(child.0, SeizeOptions::default()).unwrap();
    kill(child.0.pid(), Signal::SIGURG).unwrap();
    let delivery = stopped(tracee.wait(soon()).unwrap());
    assert_eq!(delivery.stop(), Stop::Signal(libc::SIGURG));
    cgroup.freeze(true);
    delivery.interrupt().unwrap();
    let running = delivery.cont(Some(libc::SIGURG)).unwrap();
    let event = stopped(running.wait(soon()).unwrap());
    assert_eq!(event.stop(), Stop::Event { signal: libc::SIGTRAP });
    // SIGURG is ignored by default, so the pause goes on: the restart is still due.
    assert_eq!(event.regs().unwrap().rax.cast_signed(), -514);
    event.detach().unwrap();
}

#[test]
fn the_end_reaches_what_is_stopped_and_frozen() {
    let cgroup = Cgroup::new("end");
    let (_child, tids) = threads(&cgroup, 3);
    cgroup.freeze(true);
    let all = stop_all(tids, soon());
    assert_eq!(all.stopped.len(), 3);
    fs::write(cgroup.0.join("cgroup.kill"), "1").unwrap();
    // The leader, which is the first as it was in the list, is reported when its threads are reaped.
    for tracee in all.stopped.into_iter().rev() {
        let exit = gone(Tracee::adopt(tracee.tid()).wait(soon()).unwrap());
        assert_eq!(exit, Exit::Signal { number: libc::SIGKILL, core: false });
    }
}
