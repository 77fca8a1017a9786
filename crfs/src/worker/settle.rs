//! After tasks were let go in a frozen cgroup: they fall back into the freezer on their own, and only then does their CPU clock stand
//! still.

use crate::failure::{Doing, Failure, Kind};
use crate::registry::{Live, LiveProcess, Thawed};
use crate::resource::proc::{Proc, Stat, Status};
use crfs_sys::HostPid;
use image_format::{Pid, layout};
use std::time::{Duration, Instant};

/// More than a freezer needs for thousands of threads.
const PATIENCE: Duration = Duration::from_secs(10);
/// A task that says it rests may still be on its way off the processor.
const ON_ITS_WAY: Duration = Duration::from_micros(200);
/// `include/linux/sched.h`, v6.18: set before a task lets go of anything.
const PF_EXITING: u32 = 0x4;

/// Waits until no thread of the processes is running or on its way out of a ptrace stop. A process that is gone has come to rest.
///
/// # Errors
/// [`Kind::Deadline`] naming the thread that is.
pub(super) fn wait(processes: impl IntoIterator<Item = HostPid>) -> Result<(), Failure> {
    let end = Instant::now() + PATIENCE;
    let mut proc = Proc::open()?;
    for process in processes {
        let tasks = format!("/proc/{}/task", process.raw());
        let entries = match std::fs::read_dir(&tasks) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.doing(|| format!("{tasks}: reading"))?,
        };
        for task in entries {
            let tid = task.doing(|| format!("{tasks}: reading"))?.file_name();
            let task = format!("{}/task/{}", process.raw(), tid.display());
            while is_moving(&mut proc, &task) {
                if Instant::now() > end {
                    return Err(Failure::new(
                        Kind::Deadline,
                        format!("/proc/{task}: does not come to rest in the freezer"),
                    ));
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }
    Ok(())
}

/// Whether a thread runs, or is about to leave a ptrace stop. One that is gone does neither.
fn is_moving(proc: &mut Proc, task: &str) -> bool {
    match Stat::read(proc, &format!("{task}/stat")) {
        Ok(Stat { state: b'R', .. }) => true,
        Ok(Stat { state: b't', .. }) => !has_tracer(proc, task),
        _ => false,
    }
}

/// Whether a tracer lives that can keep a task stopped: a debugger. A worker that was killed lets go of its tasks only after it
/// let go of its files, and so of the container's lock.
fn has_tracer(proc: &mut Proc, task: &str) -> bool {
    let tracer = Status::read(proc, &format!("{task}/status")).map_or(0, |status| status.tracer);
    tracer != 0 && Stat::read(proc, &format!("{tracer}/stat")).is_ok_and(|stat| stat.flags & PF_EXITING == 0)
}

/// What `live.json` says of tasks that have come to rest: their CPU clocks, which stand still from now on, and how long their cgroup had
/// not been frozen.
///
/// # Errors
/// When a clock cannot be read, or does not stand still.
pub(super) fn live(
    thawed: Option<Thawed>,
    processes: impl IntoIterator<Item = (Pid, HostPid)>,
) -> Result<Live, Failure> {
    let processes: Vec<(Pid, HostPid)> = processes.into_iter().collect();
    let before = at_rest(&processes)?;
    let live = |(&(pid, process), cpu_ns): (&(Pid, HostPid), u64)| LiveProcess { pid, host_pid: process.raw(), cpu_ns };
    Ok(Live { processes: processes.iter().zip(before).map(live).collect(), thawed, contents: Vec::new() })
}

/// The CPU clock of each process, once all of them stand still.
fn at_rest(processes: &[(Pid, HostPid)]) -> Result<Vec<u64>, Failure> {
    let end = Instant::now() + PATIENCE;
    let mut before = clocks(processes)?;
    loop {
        std::thread::sleep(ON_ITS_WAY);
        let now = clocks(processes)?;
        if now == before {
            return Ok(now);
        }
        if Instant::now() > end {
            return Err(Failure::new(Kind::Deadline, "the CPU clocks do not come to rest in the freezer"));
        }
        before = now;
    }
}

/// The CPU clock of each process, nanoseconds.
fn clocks(processes: &[(Pid, HostPid)]) -> Result<Vec<u64>, Failure> {
    let clock = |&(pid, process): &(Pid, HostPid)| {
        let doing = || format!("{}: reading its CPU clock", layout::process_dir(pid));
        let cpu_ns = crfs_sys::time::process_cpu_ns(process.pid()).doing(doing)?;
        u64::try_from(cpu_ns).doing(doing)
    };
    processes.iter().map(clock).collect()
}
