//! What needs a second program: many threads, and the environment. The second program is this test, told by its arguments what to be.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crfs_kstate::{Error, FAULT_VARIABLE, Feature, KernelState};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

const THREADS: usize = 1000;

/// Runs one of the ignored tests below in a process of its own.
fn helper(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// A helper that does not outlive its test.
struct Running {
    program: Child,
    /// Threads that the test traces.
    traced: Vec<Pid>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        Self { program: command.spawn().unwrap(), traced: Vec::new() }
    }

    fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        BufReader::new(self.program.stdout.take().unwrap()).lines().map(Result::unwrap)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; there is nothing to do about any failure.
        let _ = self.program.kill();
        // A leader can be reaped only after every traced thread was, by its tracer.
        let deadline = Instant::now() + Duration::from_secs(10);
        let leader = Pid::from_raw(self.program.id().cast_signed());
        for &tid in self.traced.iter().filter(|&&tid| tid != leader).chain([&leader]) {
            while let Ok(status) = waitpid(tid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                let ended = matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
                if ended || Instant::now() > deadline {
                    break;
                }
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }
}

#[test]
#[ignore = "not a test: the program of a thousand threads that another test looks at"]
fn be_many_threads() {
    let all_here = Arc::new(Barrier::new(THREADS));
    for _ in 1..THREADS {
        let all_here = Arc::clone(&all_here);
        std::thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(move || {
                all_here.wait();
                std::thread::park();
            })
            .unwrap();
    }
    all_here.wait();
    println!("\nready");
    // Until the other side goes away.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
#[ignore = "not a test: a program that calibrates with the environment that another test gives it"]
fn be_calibrated() {
    match KernelState::open(None) {
        Ok(mut state) => {
            state.calibrate().unwrap();
            for &feature in Feature::ALL {
                if let Err(why) = state.feature(feature) {
                    println!("\noff: {why}");
                }
            }
        }
        Err(error) => println!("\nerror: {error}"),
    }
    println!("\ndone");
}

#[test]
fn a_thousand_threads_are_walked() {
    let mut state = KernelState::open(None).unwrap();
    state.calibrate().unwrap();
    let mut helper = Running::start(&mut helper("be_many_threads"));
    assert!(helper.lines().any(|line| line == "ready"));
    let pid = helper.program.id().cast_signed();
    let mut tids: Vec<i32> = std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    tids.sort_unstable();
    assert!(tids.len() > THREADS, "and the test's own main thread: {}", tids.len());
    for &tid in &tids {
        ptrace::seize(Pid::from_raw(tid), ptrace::Options::empty()).unwrap();
        helper.traced.push(Pid::from_raw(tid));
    }
    let start = Instant::now();
    let tasks = state.tracees().unwrap();
    println!("{} tasks walked in {:?}", tasks.len(), start.elapsed());
    assert_eq!(tasks.keys().copied().collect::<Vec<_>>(), tids);
    let start = Instant::now();
    for (&tid, task) in &tasks {
        assert_eq!((task.tid(), task.tgid()), (tid, pid));
        let leader = tid == pid;
        assert_eq!(state.exit_signal(task).unwrap(), if leader { libc::SIGCHLD } else { -1 });
        assert_ne!(state.clear_child_tid(task).unwrap(), 0, "glibc asks for it in every thread");
        assert_eq!(state.alternate_stack(task).unwrap().size == 0, state.alternate_stack(task).unwrap().sp == 0);
    }
    println!("and five reads of each in {:?}", start.elapsed());
    // Threads share an undo list that nobody used.
    assert!(!state.has_sem_undo(&tasks[&pid]).unwrap());
    assert!(matches!(state.pipe_ends(&tasks[&pid], 0), Ok(ends) if ends.readers == 1 && ends.writers == 1));
}

fn output_with_fault(value: &str) -> Vec<String> {
    let lines: Vec<String> = Running::start(helper("be_calibrated").env(FAULT_VARIABLE, value)).lines().collect();
    assert!(lines.iter().any(|line| line == "done"), "{lines:?}");
    lines.into_iter().filter(|line| line.starts_with("off: ") || line.starts_with("error: ")).collect()
}

#[test]
fn the_fault_variable_switches_off_what_it_names() {
    let lines = output_with_fault("signal_actions");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("off: signal_actions is switched off: a handler: "), "{lines:?}");
    let lines = output_with_fault("nonsense");
    assert_eq!(lines, ["error: ".to_owned() + &Error::UnknownFault { value: "nonsense".to_owned() }.to_string()]);
}

#[test]
fn the_threads_of_a_process_are_found_without_a_tracer() {
    let mut state = KernelState::open(None).unwrap();
    state.calibrate().unwrap();
    let barrier = Arc::new(Barrier::new(3));
    let (told, tids) = std::sync::mpsc::channel();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (barrier, told) = (barrier.clone(), told.clone());
            std::thread::spawn(move || {
                told.send(nix::unistd::gettid().as_raw()).unwrap();
                barrier.wait();
            })
        })
        .collect();
    let started: Vec<i32> = tids.iter().take(2).collect();
    let own = Pid::this();
    let pidfd = crfs_sys::pidfd::open(own, false).unwrap();
    // Other tests begin and end threads meanwhile.
    let deadline = Instant::now() + Duration::from_secs(10);
    let found = loop {
        match state.keep_threads(pidfd.as_fd(), own.as_raw()) {
            Err(Error::List { .. }) if Instant::now() < deadline => {}
            found => break found.unwrap(),
        }
    };
    assert!(started.iter().all(|tid| found.get(tid).is_some_and(|task| task.tgid() == own.as_raw())), "{found:?}");
    let names: Vec<_> = started.iter().map(|tid| state.thread_record(&found[tid]).unwrap().ids).collect();
    assert!(names.iter().zip(&started).all(|(ids, &tid)| ids[0] == tid.unsigned_abs()), "{names:?}");
    assert!(matches!(state.threads(pidfd.as_fd(), own.as_raw() + 1), Err(Error::List { .. })), "another process");
    barrier.wait();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
