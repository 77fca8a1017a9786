//! Children for the tests, which die with their handles.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of this")]

use std::time::{Duration, Instant};

use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_sys::wait;
use crfs_tracee::{Exit, HostPid, Injector, Scratch, SeizeOptions, Stopped, Tracee, Waited, stub};
use nix::sys::signal::{Signal, kill};

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// A child that is killed and reaped when the test is over, also when it fails.
pub struct Child(pub HostPid);

impl Child {
    pub fn fork(body: impl FnOnce()) -> Self {
        let args = CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() };
        match fork_into(&args).unwrap() {
            Forked::Parent { child, .. } => Self(child.into()),
            Forked::Child => {
                body();
                exit_now(0)
            }
        }
    }

    /// Waits for its end.
    pub fn end(&self) -> wait::Status {
        wait::wait_until(self.0.pid(), soon()).unwrap().expect("the child does not end")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A pid that was reaped already could only be reused by somebody else after 32768 forks.
        if matches!(wait::try_wait(self.0.pid()), Err(nix::errno::Errno::ECHILD)) {
            return;
        }
        let _ = kill(self.0.pid(), Signal::SIGKILL);
        // Its traced threads, and as an init its traced descendants, come first: until they are reaped it is not reported.
        let deadline = soon();
        while Instant::now() < deadline {
            match wait::try_wait_any() {
                Ok(Some((pid, wait::Status::Exited { .. } | wait::Status::Signaled { .. }))) if pid == self.0.pid() => {
                    break;
                }
                Ok(Some(_)) => {}
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Err(_) => break,
            }
        }
    }
}

/// Seizes, interrupts and waits for the event stop.
pub fn seize_and_stop(tid: HostPid, options: SeizeOptions) -> Tracee<Stopped> {
    let tracee = Tracee::seize(tid, options).unwrap();
    tracee.interrupt().unwrap();
    stopped(tracee.wait(soon()).unwrap())
}

pub fn stopped(waited: Waited) -> Tracee<Stopped> {
    match waited {
        Waited::Stopped(tracee) => tracee,
        other => panic!("not stopped: {other:?}"),
    }
}

pub fn gone(waited: Waited) -> Exit {
    match waited {
        Waited::Gone(exit) => exit,
        other => panic!("not gone: {other:?}"),
    }
}

/// A stub with scratch memory, in an injector's hand.
pub fn stub_with(args: &CloneArgs<'_>) -> (Child, Injector) {
    let tracee = stub::spawn(args, SeizeOptions::BUILD, soon(), || Ok(())).unwrap();
    let child = Child(tracee.tid());
    let injector = Injector::bootstrap(tracee, stub::GADGET, None, Scratch::DEFAULT_LEN).unwrap();
    (child, injector)
}

pub fn stub_injector() -> (Child, Injector) {
    stub_with(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })
}

/// The state letter of a task.
pub fn state(tid: HostPid) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{tid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

/// Waits until a condition holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = soon();
    while !holds() {
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
