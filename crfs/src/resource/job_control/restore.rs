//! Stops a process that is being built, or lets one go on of which its parent does not know yet.

use crate::failure::{Doing, Failure, Kind};
use crfs_tracee::Injector;
use image_format::process::JobControl;
use image_format::{Pid, layout};
use std::collections::BTreeMap;

/// Brings all threads of a process into the state. Stop signals must have their default action. The parent gets SIGCHLD.
///
/// # Errors
/// [`Kind::BadImage`] for a stop that the kernel does not make; of the tracer.
pub fn restore(threads: &mut BTreeMap<Pid, Injector>, leader: Pid, state: JobControl) -> Result<(), Failure> {
    let path = || layout::process_file(leader, "process");
    let signal = match state {
        JobControl::Running => return Ok(()),
        JobControl::Stopped(stopped) => i32::from(stopped.signal.0),
        JobControl::Continued => libc::SIGSTOP,
    };
    let first = threads.get_mut(&leader).ok_or_else(|| Failure::new(Kind::System, path()))?;
    if !first.stop_group(signal).doing(path)? {
        let reason =
            format!("{}: job_control: signal {signal} stops no process whose process group is orphaned", path());
        return Err(Failure::new(Kind::BadImage, reason));
    }
    follow(threads, leader)?;
    if state == JobControl::Continued {
        if let Some(first) = threads.get_mut(&leader) {
            first.continue_group().doing(path)?;
        }
        follow(threads, leader)?;
    }
    Ok(())
}

fn follow(threads: &mut BTreeMap<Pid, Injector>, leader: Pid) -> Result<(), Failure> {
    for (&tid, thread) in threads.iter_mut().filter(|(tid, _)| **tid != leader) {
        thread.join_group_stop().doing(|| layout::thread_file(leader, tid, "attr"))?;
    }
    Ok(())
}

/// The call with which the parent takes note of the stop, if it had: number and arguments.
#[must_use]
pub fn told(child: Pid, state: JobControl) -> Option<(libc::c_long, [u64; 4])> {
    let JobControl::Stopped(stopped) = state else { return None };
    let options = libc::WUNTRACED | libc::WNOHANG | libc::__WALL;
    stopped.told.then(|| (libc::SYS_wait4, [child.0.into(), 0, u64::from(options.cast_unsigned()), 0]))
}
