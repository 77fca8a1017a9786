//! Captures what job control made of a process.

use super::super::kernel::Kernel;
use super::super::signal;
use super::super::still::Still;
use crate::failure::Failure;
use crfs_kstate::GroupStop;
use image_format::process::{JobControl, Stopped};

/// Reads it. `thread` is any thread of the process, `object` the process's directory.
///
/// # Errors
/// When the process is gone.
pub fn capture(thread: &Still, host: i32, object: &str, kernel: &mut Kernel) -> Result<JobControl, Failure> {
    let state = kernel.ask(host, &format!("{object}/process"), |state, task| state.group_stop(task))?;
    let signal = thread.stopped().and_then(|tracee| tracee.stop().group_stop()).and_then(signal::from_number);
    Ok(match (signal, state) {
        // A stop that is under way when the freezer comes is as good as done.
        (Some(signal), state) => {
            JobControl::Stopped(Stopped { signal, told: state == Some(GroupStop::Stopped { told: true }) })
        }
        (None, Some(GroupStop::Continued)) => JobControl::Continued,
        (None, _) => JobControl::Running,
    })
}
