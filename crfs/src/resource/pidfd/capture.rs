//! From fdinfo to the record.

use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::seen::Seen;
use crate::resource::proc::{Proc, Stat, Status};
use crate::resource::subject::depth;
use image_format::Pid;
use image_format::files::{OpenFlags, Pidfd};
use std::path::Path;

const REMEDY: &str = "Have the program close it before the freeze.";
/// PIDFD_THREAD, which is O_EXCL and stays among the flags.
const THREAD: u64 = 0o200;

/// Captures a pidfd. `processes` are the container's, as it and as the host numbers them; `init` is the first, as the host does.
pub(in crate::resource) fn capture(seen: &Seen, processes: &[(Pid, i32)], init: i32) -> Result<Pidfd, Refusal> {
    let host = seen.info.value("Pid").and_then(|pid| pid.parse::<i32>().ok());
    let host = host.ok_or_else(|| Refusal::unknown_fdinfo("a pidfd", "Pid"))?;
    let OpenFlags(flags) = seen.flags();
    let thread = flags & THREAD != 0;
    // It was waited for.
    if host < 0 {
        return Ok(Pidfd { pid: None, thread });
    }
    if let Some(pid) = inside(host, processes, init) {
        return Ok(Pidfd { pid: Some(pid), thread });
    }
    let is_thread = processes.iter().any(|(_, process)| Path::new(&format!("/proc/{process}/task/{host}")).exists());
    Err(Refusal::new(
        if is_thread {
            "a pidfd of a thread that is not the first of its process cannot be carried".to_owned()
        } else {
            format!("a pidfd of process {host} of the host, which is outside the container, cannot be carried")
        },
        REMEDY,
    ))
}

/// The id in the container of a process that lives there, or of a zombie whose parent does.
fn inside(host: i32, processes: &[(Pid, i32)], init: i32) -> Option<Pid> {
    let known = |host: i32| processes.iter().find(|(_, process)| *process == host).map(|&(pid, _)| pid);
    if let Some(pid) = known(host) {
        return Some(pid);
    }
    let mut proc = Proc::open().ok()?;
    let stat = Stat::read(&mut proc, &format!("{host}/stat")).ok()?;
    if stat.state != b'Z' {
        return None;
    }
    known(stat.ppid)?;
    let depth = depth(&mut proc, init).ok()?;
    Status::read(&mut proc, &format!("{host}/status")).ok()?.ns_pid.get(depth).copied().map(Pid)
}
