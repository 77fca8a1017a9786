//! Autogroups: the nice value of a session as a whole.
//!
//! - **What:** the scheduler weighs the sessions of a machine against each other.
//! - **Where:** `signal_struct.autogroup` (`kernel/sched/autogroup.c`, v6.18).
//! - **Read:** /proc/PID/autogroup, `/autogroup-NUMBER nice N`. Its number is the kernel's.
//! - **Made again:** setsid(2) makes the group; its nice value is written from outside.
//! - **Refused:** nothing.

use super::proc::Proc;
use crate::failure::{Doing, Failure};
use crfs_tracee::HostPid;

/// Reads it; None where the kernel has no such groups or the process is in none.
#[must_use]
pub fn capture(proc: &mut Proc, host: i32) -> Option<i32> {
    parse(proc.text(format_args!("{host}/autogroup")).ok()?)
}

fn parse(text: &str) -> Option<i32> {
    text.trim().rsplit_once(" nice ")?.1.parse().ok()
}

/// Sets it where it is another. On a host without autogroups there is nothing to set: a note says so. `path` is the process's
/// `attr`.
///
/// # Errors
/// When the kernel refuses.
pub fn restore(host: HostPid, path: &str, nice: Option<i32>, notes: &mut Vec<String>) -> Result<(), Failure> {
    let Some(nice) = nice else { return Ok(()) };
    let file = format!("/proc/{}/autogroup", host.raw());
    match std::fs::read_to_string(&file).ok().as_deref().and_then(parse) {
        Some(now) if now == nice => Ok(()),
        Some(_) => std::fs::write(&file, nice.to_string()).doing(|| format!("{path}: setting autogroup_nice")),
        None if nice == 0 => Ok(()),
        None => {
            notes.push(format!("{path}: autogroup_nice {nice} is not set (this host has no autogroups)"));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nice_value_is_the_last_word() {
        assert_eq!(parse("/autogroup-1234 nice -5\n"), Some(-5));
        assert_eq!(parse(""), None);
    }
}
