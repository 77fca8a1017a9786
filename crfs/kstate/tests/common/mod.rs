//! A traced child that goes from state to state at our word.

use std::io::{PipeReader, PipeWriter, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crfs_kstate::{KernelState, Task};
use crfs_sys::puppet::{Arg, Puppet, Stage, Step};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

pub(crate) fn calibrated() -> KernelState {
    let mut state = KernelState::open(None).unwrap();
    state.calibrate().unwrap();
    state
}

/// Stops a task that the calling thread has seized.
pub(crate) fn stop(pid: Pid) {
    ptrace::interrupt(pid).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::PtraceEvent(..) => return,
            WaitStatus::StillAlive => assert!(Instant::now() < deadline, "{pid} does not stop"),
            other => panic!("{other:?}"),
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "waiting for {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

pub(crate) struct Script {
    pub(crate) stage: Stage,
    pub(crate) steps: Vec<Step>,
    pauses: Vec<usize>,
    gate: (PipeReader, PipeWriter),
    byte: u64,
}

/// Where the child has its end of the gate; below it is free.
const GATE: u64 = 200;

impl Script {
    pub(crate) fn new() -> Self {
        let mut stage = Stage::new().unwrap();
        let byte = stage.place(&[0; 8]).unwrap();
        let gate = std::io::pipe().unwrap();
        let own = u64::try_from(gate.0.as_raw_fd()).unwrap();
        let mut script = Self { stage, steps: Vec::new(), pauses: Vec::new(), gate, byte };
        script.call(libc::SYS_dup2, [own, GATE]);
        script.call(libc::SYS_close_range, [3, GATE - 1, 0]);
        script.call(libc::SYS_close_range, [GATE + 1, u64::from(u32::MAX), 0]);
        script
    }

    pub(crate) fn words(&mut self, words: &[u64]) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.stage.place(&bytes).unwrap()
    }

    pub(crate) fn call<const N: usize>(&mut self, number: i64, args: [u64; N]) -> usize {
        self.steps.push(Step::call(number, args));
        self.steps.len() - 1
    }

    pub(crate) fn call_with<const N: usize>(&mut self, number: i64, args: [Arg; N]) -> usize {
        self.steps.push(Step::call_with(number, args));
        self.steps.len() - 1
    }

    /// The child waits here until [`Child::go_on`].
    pub(crate) fn pause(&mut self) {
        self.pauses.push(self.steps.len());
        self.call(libc::SYS_read, [GATE, self.byte, 1]);
    }

    pub(crate) fn start(mut self) -> Child {
        self.pause();
        self.start_in_last()
    }

    /// The last call is the pause: one that waits.
    pub(crate) fn start_in_last(mut self) -> Child {
        let last = self.steps.len() - 1;
        if self.pauses.last() != Some(&last) {
            self.pauses.push(last);
        }
        let puppet = self.stage.fork(libc::SIGCHLD, false, &self.steps).unwrap();
        ptrace::seize(puppet.pid(), ptrace::Options::PTRACE_O_EXITKILL).unwrap();
        let child = Child { puppet, pauses: self.pauses, at: 0, gate: self.gate.1 };
        child.arrive();
        child
    }
}

/// The letter of /proc/PID/stat.
pub(crate) fn state_of(pid: Pid) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().chars().next().unwrap()
}

pub(crate) struct Child {
    pub(crate) puppet: Puppet,
    pauses: Vec<usize>,
    at: usize,
    gate: PipeWriter,
}

impl Child {
    fn arrive(&self) {
        wait_for("the next pause", || self.puppet.begun() == self.pauses[self.at] + 1);
        wait_for("the child to wait", || state_of(self.puppet.pid()) == 'S');
        stop(self.puppet.pid());
    }

    /// Lets it run to the next pause and stops it there.
    pub(crate) fn go_on(&mut self) {
        self.at += 1;
        ptrace::cont(self.puppet.pid(), None).unwrap();
        self.gate.write_all(&[1]).unwrap();
        self.arrive();
    }

    pub(crate) fn task(&self, state: &KernelState) -> Task {
        state.tracees().unwrap()[&self.puppet.pid().as_raw()]
    }

    #[track_caller]
    pub(crate) fn expect(&self, step: usize, result: i64) {
        assert_eq!(self.puppet.result(step), Some(result), "step {step}");
    }
}
