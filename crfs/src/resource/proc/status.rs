//! /proc/PID/status: `proc_pid_status` in `fs/proc/array.c`, v6.18.

use super::{Proc, malformed};
use crate::failure::Failure;

/// The fields of /proc/PID/status that are used. What threads of one process may differ in without showing it in
/// `crfs_kstate::Shared` is also set by `subject::Thread::sibling`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // proc_pid_status(5) has them by these names
pub struct Status {
    pub umask: Option<u32>,
    pub tracer: i32,
    pub uid: [u32; 4],
    pub gid: [u32; 4],
    pub groups: Vec<u32>,
    /// In each pid namespace from the reader's to the task's own.
    pub ns_pid: Vec<u32>,
    pub ns_pgid: Vec<u32>,
    pub ns_sid: Vec<u32>,
    /// False after PR_SET_THP_DISABLE. True for a task without memory.
    pub thp_enabled: bool,
    pub pending: u64,
    pub shared_pending: u64,
    pub blocked: u64,
    pub ignored: u64,
    pub caught: u64,
    pub cap_inheritable: u64,
    pub cap_permitted: u64,
    pub cap_effective: u64,
    pub cap_bounding: u64,
    pub cap_ambient: u64,
    pub no_new_privs: bool,
    pub seccomp: u32,
    /// The line as it is: what PR_SET_SPECULATION_CTRL decided.
    pub store_bypass: String,
    /// The line as it is.
    pub indirect_branch: String,
    /// Control-flow protection in force (`shstk`), empty for none.
    pub thread_features: String,
}

impl Status {
    /// Reads `path`, which is `PID/status` or `PID/task/TID/status`.
    ///
    /// # Errors
    /// When it cannot be read: the task is gone.
    pub fn read(proc: &mut Proc, path: &str) -> Result<Self, Failure> {
        let bytes = proc.record(format_args!("{path}"))?;
        Status::parse(bytes).map_err(|what| malformed(path, what))
    }

    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut status = Status { thp_enabled: true, ..Status::default() };
        for line in bytes.split(|&b| b == b'\n') {
            // Names need not be UTF-8; every line that counts is.
            let Some((key, value)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once(":\t")) else {
                continue;
            };
            let mask = |what| u64::from_str_radix(value.trim(), 16).map_err(|_| what);
            match key {
                "Umask" => status.umask = u32::from_str_radix(value, 8).ok(),
                "TracerPid" => status.tracer = value.trim().parse().map_err(|_| "TracerPid")?,
                "Uid" => status.uid = four(value).ok_or("Uid")?,
                "Gid" => status.gid = four(value).ok_or("Gid")?,
                "Groups" => status.groups = numbers(value),
                "NSpid" => status.ns_pid = numbers(value),
                "NSpgid" => status.ns_pgid = numbers(value),
                "NSsid" => status.ns_sid = numbers(value),
                "THP_enabled" => status.thp_enabled = value.trim() != "0",
                "SigPnd" => status.pending = mask("SigPnd")?,
                "ShdPnd" => status.shared_pending = mask("ShdPnd")?,
                "SigBlk" => status.blocked = mask("SigBlk")?,
                "SigIgn" => status.ignored = mask("SigIgn")?,
                "SigCgt" => status.caught = mask("SigCgt")?,
                "CapInh" => status.cap_inheritable = mask("CapInh")?,
                "CapPrm" => status.cap_permitted = mask("CapPrm")?,
                "CapEff" => status.cap_effective = mask("CapEff")?,
                "CapBnd" => status.cap_bounding = mask("CapBnd")?,
                "CapAmb" => status.cap_ambient = mask("CapAmb")?,
                "NoNewPrivs" => status.no_new_privs = value.trim() == "1",
                "Seccomp" => status.seccomp = value.trim().parse().map_err(|_| "Seccomp")?,
                "Speculation_Store_Bypass" => value.trim().clone_into(&mut status.store_bypass),
                "SpeculationIndirectBranch" => value.trim().clone_into(&mut status.indirect_branch),
                "x86_Thread_features" => value.trim().clone_into(&mut status.thread_features),
                _ => {}
            }
        }
        if status.ns_pid.is_empty() {
            return Err("NSpid");
        }
        Ok(status)
    }

    /// The id in the task's own pid namespace.
    #[must_use]
    pub fn own_pid(&self) -> u32 {
        self.ns_pid.last().copied().unwrap_or(0)
    }
}

fn numbers(text: &str) -> Vec<u32> {
    text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn four(text: &str) -> Option<[u32; 4]> {
    numbers(text).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_a_strange_name_does_no_harm() {
        let text = b"Name:\tU\xffid:\nUmask:\t0022\nTracerPid:\t7\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nNSpid:\t500\t7\nNSpgid:\t500\t7\nNSsid:\t1\t0\nTHP_enabled:\t0\nSigBlk:\t0000000000010000\nSeccomp:\t2\nNoNewPrivs:\t1\nx86_Thread_features:\tshstk \n";
        let status = Status::parse(text).expect("well formed");
        assert_eq!(status.umask, Some(0o22));
        assert_eq!((status.tracer, status.own_pid(), status.seccomp), (7, 7, 2));
        assert_eq!((status.uid, status.gid), ([1, 2, 3, 4], [5, 6, 7, 8]));
        assert_eq!((status.groups.as_slice(), status.ns_sid.as_slice()), ([9, 10].as_slice(), [1, 0].as_slice()));
        assert_eq!(status.blocked, 0x10000);
        assert!(!status.thp_enabled && status.no_new_privs);
        assert_eq!(status.thread_features, "shstk");
    }

    #[test]
    fn a_kernel_without_the_namespace_fields_is_refused() {
        assert_eq!(Status::parse(b"Uid:\t0\t0\t0\t0\n"), Err("NSpid"));
    }
}
