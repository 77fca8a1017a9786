//! A child that calibration reads: the calls it makes, how it is stopped, and what it wrote.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crfs_sys::puppet::{Puppet, Stage, Step};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::Trouble;
use crate::error::Error;

const DEADLINE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_micros(50);

/// A list of calls in the making. Calls are found again by name.
pub(super) struct Script {
    stage: Stage,
    steps: Vec<Step>,
    names: Vec<&'static str>,
}

impl Script {
    pub(super) fn new() -> Result<Self, Error> {
        let stage = Stage::new().map_err(|source| Error::Calibrate { doing: "mapping memory", source })?;
        let mut script = Self { stage, steps: Vec::new(), names: Vec::new() };
        // Nothing inherited stays open, so numbers and counts are known.
        script.call("close_range", libc::SYS_close_range, [3, u64::from(u32::MAX), 0]);
        Ok(script)
    }

    pub(super) fn place(&mut self, bytes: &[u8]) -> Result<u64, Error> {
        self.stage.place(bytes).map_err(|source| Error::Calibrate { doing: "writing a child's data", source })
    }

    pub(super) fn words(&mut self, words: &[u64]) -> Result<u64, Error> {
        self.place(&words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>())
    }

    pub(super) fn step(&mut self, name: &'static str, step: Step) -> usize {
        self.steps.push(step);
        self.names.push(name);
        self.steps.len() - 1
    }

    pub(super) fn call<const N: usize>(&mut self, name: &'static str, number: libc::c_long, args: [u64; N]) -> usize {
        self.step(name, Step::call(number, args))
    }

    pub(super) fn prctl(&mut self, name: &'static str, option: i32, args: [u64; 4]) {
        let [a, b, c, d] = args;
        self.call(name, libc::SYS_prctl, [u64::from(option.unsigned_abs()), a, b, c, d]);
    }

    /// Forks and seizes. The last call is the one it will wait in.
    pub(super) fn start(self, exit_signal: i32, set_child_tid: bool) -> Result<Actor, Error> {
        let failed = |doing| move |source: io::Error| Error::Calibrate { doing, source };
        let puppet = self.stage.fork(exit_signal, set_child_tid, &self.steps).map_err(failed("forking a child"))?;
        ptrace::seize(puppet.pid(), ptrace::Options::PTRACE_O_EXITKILL)
            .map_err(|errno| failed("seizing a child")(errno.into()))?;
        Ok(Actor { puppet, names: self.names })
    }
}

/// A child.
pub(super) struct Actor {
    pub(super) puppet: Puppet,
    names: Vec<&'static str>,
}

impl Actor {
    /// What a call returned. A failure is [`Trouble::Absent`] where the kernel has no such call.
    pub(super) fn outcome(&self, name: &'static str) -> Result<u64, Trouble> {
        let step = self.names.iter().position(|&own| own == name);
        let result = step.and_then(|step| self.puppet.result(step));
        let result = result.ok_or_else(|| Trouble::Wrong(format!("the child never came to {name}")))?;
        // modify_ldt returns 32 bits.
        let narrow = (result.cast_unsigned() & 0xffff_ffff) as u32;
        let errno =
            if result < 0 || (name == "modify_ldt" && narrow != 0) { narrow.cast_signed().wrapping_neg() } else { 0 };
        if errno == 0 {
            return Ok(result.cast_unsigned());
        }
        match Errno::from_raw(errno) {
            Errno::ENOSYS => Err(Trouble::Absent(format!("this kernel has no {name}(2)"))),
            errno => Err(Trouble::Wrong(format!("it cannot be tested, {name}(2) fails here: {}", errno.desc()))),
        }
    }

    /// Words that a call wrote.
    pub(super) fn words<const N: usize>(&self, address: u64) -> Result<[u64; N], Trouble> {
        let mut words = [0; N];
        for (at, word) in (address..).step_by(8).zip(&mut words) {
            let mut bytes = [0; 8];
            self.puppet
                .read(at, &mut bytes)
                .map_err(|error| Trouble::Wrong(format!("reading a child's data: {error}")))?;
            *word = u64::from_ne_bytes(bytes);
        }
        Ok(words)
    }

    /// A word of its own memory.
    pub(super) fn word(&self, address: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        File::open(format!("/proc/{}/mem", self.puppet.pid()))?.read_exact_at(&mut bytes, address)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// A file of /proc/PID.
    pub(super) fn proc(&self, file: &str) -> io::Result<String> {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.puppet.pid()))
    }

    /// The part of /proc/PID/stat from its third field on.
    pub(super) fn stat(&self) -> io::Result<Vec<String>> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.puppet.pid()))?;
        let rest = text.rsplit(')').next().unwrap_or_default();
        Ok(rest.split_whitespace().map(str::to_owned).collect())
    }

    /// Waits until it sleeps in its last call.
    pub(super) fn await_sleep(&self) -> io::Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while self.puppet.begun() < self.names.len() || self.stat()?.first().map(String::as_str) != Some("S") {
            if self.puppet.begun() > self.names.len() {
                return Err(io::Error::other("a child's last call did not wait"));
            }
            if Instant::now() > deadline {
                let step = self.puppet.begun().checked_sub(1).and_then(|step| self.names.get(step));
                return Err(io::Error::other(format!("a child still is in {}", step.unwrap_or(&"no call"))));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    pub(super) fn stop(&self) -> io::Result<()> {
        ptrace::interrupt(self.puppet.pid())?;
        self.await_event_stop()
    }

    /// From one event stop into the one that SIGSTOP makes.
    pub(super) fn stop_by_job_control(&self) -> io::Result<()> {
        kill(self.puppet.pid(), Signal::SIGSTOP)?;
        ptrace::cont(self.puppet.pid(), None)?;
        self.await_event_stop()
    }

    fn await_event_stop(&self) -> io::Result<()> {
        let pid = self.puppet.pid();
        let deadline = Instant::now() + DEADLINE;
        loop {
            match waitpid(pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL))? {
                WaitStatus::PtraceEvent(..) => return Ok(()),
                WaitStatus::StillAlive if Instant::now() <= deadline => std::thread::sleep(PAUSE),
                WaitStatus::StillAlive => return Err(io::Error::from(io::ErrorKind::TimedOut)),
                // A signal from outside: the event stop follows.
                WaitStatus::Stopped(pid, signal) => pass_on(pid, signal)?,
                other => return Err(io::Error::other(format!("a child ended: {other:?}"))),
            }
        }
    }
}

fn pass_on(pid: Pid, signal: Signal) -> io::Result<()> {
    Ok(ptrace::cont(pid, signal)?)
}
