//! After tasks were let go in a frozen cgroup: they fall back into the freezer on their own, and only then does their CPU clock stand
//! still.

use crate::failure::{Doing, Failure, Kind};
use crate::freezer::Cgroup;
use crate::registry::{Live, LiveProcess};
use crfs_sys::HostPid;
use image_format::{Pid, layout};
use std::time::{Duration, Instant};

/// More than a freezer needs for thousands of threads.
const PATIENCE: Duration = Duration::from_secs(10);
/// A task that says it rests may still be on its way off the processor.
const ON_ITS_WAY: Duration = Duration::from_micros(200);

/// Waits until no thread of the processes is running or in a ptrace stop. A process that is gone has come to rest.
///
/// # Errors
/// [`Kind::Deadline`] naming the thread that is.
pub(super) fn wait(processes: impl IntoIterator<Item = HostPid>) -> Result<(), Failure> {
    let end = Instant::now() + PATIENCE;
    for process in processes {
        let tasks = format!("/proc/{}/task", process.raw());
        let entries = match std::fs::read_dir(&tasks) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.doing(|| format!("{tasks}: reading"))?,
        };
        for task in entries {
            let path = task.doing(|| format!("{tasks}: reading"))?.path().join("stat");
            while moving(&path) {
                if Instant::now() > end {
                    return Err(Failure::new(
                        Kind::Deadline,
                        format!("{}: does not come to rest in the freezer", path.display()),
                    ));
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }
    Ok(())
}

/// Whether a thread runs or stands in a ptrace stop. One that is gone does neither.
fn moving(stat: &std::path::Path) -> bool {
    let text = std::fs::read(stat).unwrap_or_default();
    // The name is in parentheses and may hold any byte; the state follows the last one.
    let after = text.iter().rposition(|&byte| byte == b')').and_then(|at| text.get(at + 2));
    matches!(after, Some(b'R' | b't'))
}

/// What `live.json` says of tasks that have come to rest: their CPU clocks, which stand still from now on.
///
/// # Errors
/// When a clock cannot be read, or does not stand still.
pub(super) fn live(cgroup: &Cgroup, processes: impl IntoIterator<Item = (Pid, HostPid)>) -> Result<Live, Failure> {
    let processes: Vec<(Pid, HostPid)> = processes.into_iter().collect();
    let end = Instant::now() + PATIENCE;
    let mut before = clocks(&processes)?;
    loop {
        std::thread::sleep(ON_ITS_WAY);
        let now = clocks(&processes)?;
        if now == before {
            break;
        }
        if Instant::now() > end {
            return Err(Failure::new(Kind::Deadline, "the CPU clocks do not come to rest in the freezer"));
        }
        before = now;
    }
    let live = |(&(pid, process), cpu_ns): (&(Pid, HostPid), u64)| LiveProcess { pid, host_pid: process.raw(), cpu_ns };
    Ok(Live {
        processes: processes.iter().zip(before).map(live).collect(),
        thawed: cgroup.thawed()?,
        contents: Vec::new(),
    })
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
