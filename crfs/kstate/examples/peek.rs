//! Prints what the kernel keeps about a process: seizes its threads, stops them for the moment of reading, and lets them go.
//!
//! `peek` alone lists the features and how long it takes to be ready; `peek PID` looks at a process.

use std::error::Error;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use crfs_kstate::{KernelState, OpenDescriptor, Task};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let mut state = KernelState::open(None)?;
    let opened = start.elapsed();
    state.calibrate()?;
    println!("opened in {opened:?}, calibrated in {:?}", start.elapsed() - opened);
    let Some(pid) = std::env::args().nth(1) else {
        for (feature, status) in state.features() {
            println!("{feature:18} {status:?}");
        }
        return Ok(());
    };
    let mut threads = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let tid = Pid::from_raw(entry?.file_name().to_string_lossy().parse()?);
        ptrace::seize(tid, ptrace::Options::empty())?;
        threads.push(tid);
    }
    for &tid in &threads {
        stop(tid)?;
    }
    let start = Instant::now();
    let tasks = state.tracees()?;
    println!("{} threads found in {:?}", tasks.len(), start.elapsed());
    for task in tasks.values() {
        show(&state, task);
    }
    // Ending lets go of them all.
    Ok(())
}

fn stop(tid: Pid) -> Result<(), Box<dyn Error>> {
    ptrace::interrupt(tid)?;
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match waitpid(tid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL))? {
            WaitStatus::PtraceEvent(..) => return Ok(()),
            WaitStatus::Stopped(_, signal) => ptrace::cont(tid, signal)?,
            WaitStatus::StillAlive if Instant::now() < deadline => std::thread::sleep(Duration::from_micros(100)),
            other => return Err(format!("{tid} does not stop: {other:?}").into()),
        }
    }
}

fn line(name: &str, value: Result<impl Debug, crfs_kstate::Error>) {
    match value {
        Ok(value) => println!("  {name:16} {value:x?}"),
        Err(error) => println!("  {name:16} ! {error}"),
    }
}

fn show(state: &KernelState, task: &Task) {
    println!("thread {} of process {} at {:#x}", task.tid(), task.tgid(), task.address());
    line("alternate stack", state.alternate_stack(task));
    line("clear_child_tid", state.clear_child_tid(task));
    line("set_child_tid", state.set_child_tid(task));
    line("exit signal", state.exit_signal(task));
    line("pdeath signal", state.pdeath_signal(task));
    line("restart block", state.restart_block(task));
    line("securebits", state.securebits(task));
    line("user dispatch", state.syscall_dispatch(task));
    line("tls", state.tls_array(task));
    line("io bitmap", state.has_io_bitmap(task));
    line("io level", state.io_privilege_level(task));
    if task.tid() != task.tgid() {
        return;
    }
    match state.signal_actions(task) {
        Ok(actions) => {
            for (signal, action) in (1..).zip(actions).filter(|(_, action)| action.handler != 0) {
                println!("  signal {signal:2}        {action:x?}");
            }
        }
        Err(error) => println!("  signal actions   ! {error}"),
    }
    line("interval timers", state.itimers(task));
    line("posix timers", state.posix_timers(task));
    line("semaphore undo", state.sem_undo(task));
    line("ldt", state.ldt(task));
    line("aio", state.has_aio(task));
    line("layout", state.memory_layout(task));
    line("dumpable", state.dumpable(task));
    line("subreaper", state.is_child_subreaper(task));
    match state.descriptors(task) {
        Ok(files) => {
            for OpenDescriptor { fd, address, cloexec } in files {
                let pipe = state.pipe_ends(task, fd).ok();
                let locked = state.was_locked(task, address);
                println!("  fd {fd:3}           {address:x} close-on-exec {cloexec} locked {locked:?} {pipe:?}");
            }
        }
        Err(error) => println!("  files            ! {error}"),
    }
}
