//! The files of a thread.

use crate::controls::ThreadControls;
use crate::files::DeletedDirectory;
use crate::flags;
use crate::seccomp::Seccomp;
use crate::signal::Signal;
use crate::types::{Address, Bytes, Hex, Octal, Pid, Timespec};
use crate::xstate::Xstate;
use serde::{Deserialize, Serialize};

/// `attr` of a thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThreadAttr {
    /// Its name: /proc/PID/comm, at most 15 bytes.
    pub name: Bytes,
    /// Who it is.
    pub credentials: Credentials,
    /// How it is scheduled.
    pub scheduling: Scheduling,
    /// CPUs it may run on, in ascending order.
    pub affinity: Vec<u32>,
    /// /proc/PID/timerslack_ns.
    pub timer_slack_ns: u64,
    /// personality(2).
    pub personality: Hex,
    /// set_tid_address(2): cleared and woken when the thread ends.
    pub tid_address: Address,
    /// set_robust_list(2).
    pub robust_list: RobustList,
    /// rseq(2); null when not registered.
    pub rseq: Option<Rseq>,
    /// PR_SET_PDEATHSIG; null for none.
    pub pdeath_signal: Option<Signal>,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// What else it told the kernel by prctl(2).
    pub controls: ThreadControls,
    /// /proc/PID/loginuid; null for a user that never logged in.
    pub login_uid: Option<u32>,
    /// Directories of its own, by unshare(2); null for those of the process, as the first thread always has them.
    pub directories: Option<Directories>,
}

/// Where a thread stands in the file system (CLONE_FS).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directories {
    /// Working directory, inside the container.
    pub cwd: Bytes,
    /// That the working directory was deleted.
    pub cwd_deleted: Option<DeletedDirectory>,
    /// Root directory, inside the container.
    pub root: Bytes,
    /// File mode creation mask.
    pub umask: Octal,
}

/// Credentials, as /proc/PID/status shows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// Real, effective, saved and file system user id.
    pub uid: [u32; 4],
    /// Real, effective, saved and file system group id.
    pub gid: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Inheritable capabilities.
    pub inheritable: Hex,
    /// Permitted capabilities.
    pub permitted: Hex,
    /// Effective capabilities.
    pub effective: Hex,
    /// Bounding set.
    pub bounding: Hex,
    /// Ambient capabilities.
    pub ambient: Hex,
    /// PR_SET_SECUREBITS.
    pub securebits: SecureBits,
}

flags! {
    /// `SECBIT_` flags.
    SecureBits {
        SECBIT_NOROOT = 1, SECBIT_NOROOT_LOCKED = 2, SECBIT_NO_SETUID_FIXUP = 4, SECBIT_NO_SETUID_FIXUP_LOCKED = 8,
        SECBIT_KEEP_CAPS = 0x10, SECBIT_KEEP_CAPS_LOCKED = 0x20, SECBIT_NO_CAP_AMBIENT_RAISE = 0x40,
        SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED = 0x80,
    }
}

/// sched_getattr(2) and ioprio_get(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scheduling {
    /// `SCHED_OTHER` and so on, by its number in the kernel: 0 OTHER, 1 FIFO, 2 RR, 3 BATCH, 5 IDLE, 6 DEADLINE.
    pub policy: u32,
    /// `SCHED_FLAG_` bits.
    pub flags: Hex,
    /// Nice value.
    pub nice: i32,
    /// Static priority of FIFO and RR.
    pub priority: u32,
    /// Nanoseconds of DEADLINE.
    pub runtime_ns: u64,
    /// Nanoseconds of DEADLINE.
    pub deadline_ns: u64,
    /// Nanoseconds of DEADLINE.
    pub period_ns: u64,
    /// ioprio_get(2): class in bits 13 to 15, level below.
    pub io_priority: u32,
}

/// Head and length of the robust futex list.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RobustList {
    /// `struct robust_list_head` of the thread.
    pub head: Address,
    /// Its size.
    pub length: u64,
}

/// A registered rseq area.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rseq {
    /// `struct rseq` of the thread.
    pub address: Address,
    /// Bytes registered.
    pub size: u32,
    /// The signature before each abort handler.
    pub signature: u32,
    /// Flags of the registration.
    pub flags: u32,
}

/// `thread`: FPU and extended state, debug registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FpuState {
    /// FPU, vector and further registers.
    pub xstate: Xstate,
    /// Debug registers 0 to 3, 6 and 7.
    pub debug: [Hex; 6],
}

/// `thread.frame`: general registers and the system call the thread was in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    /// General registers.
    pub registers: Registers,
    /// The system call that was interrupted by the freeze; null when the thread ran in user mode.
    pub syscall: Option<InterruptedSyscall>,
}

/// `struct user_regs_struct` without the segment bases, which stand in `tls`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the registers' own names
pub struct Registers {
    pub r15: Hex,
    pub r14: Hex,
    pub r13: Hex,
    pub r12: Hex,
    pub rbp: Hex,
    pub rbx: Hex,
    pub r11: Hex,
    pub r10: Hex,
    pub r9: Hex,
    pub r8: Hex,
    /// In an interrupted system call, what the kernel left there: -512 ERESTARTSYS and the like.
    pub rax: Hex,
    pub rcx: Hex,
    pub rdx: Hex,
    pub rsi: Hex,
    pub rdi: Hex,
    /// The interrupted system call's number; -1 outside of one.
    pub orig_rax: Hex,
    pub rip: Hex,
    pub cs: Hex,
    pub eflags: Hex,
    pub rsp: Hex,
    pub ss: Hex,
    pub ds: Hex,
    pub es: Hex,
    pub fs: Hex,
    pub gs: Hex,
}

/// A system call in progress at the freeze. Its arguments are in the registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterruptedSyscall {
    /// The call's name, for people; the number in `orig_rax` counts.
    pub name: String,
    /// How it is taken up again.
    pub resume: Resume,
}

/// How an interrupted system call goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Resume {
    /// The kernel restarts it from the registers alone, with the arguments it had.
    Again,
    /// It is entered anew with the time that remained: the kernel kept the end in a restart block.
    Remaining(Timespec),
    /// It had ended by the time of the freeze, with the result in `rax`.
    Ended,
    /// It has made this process and waits until that calls exec or ends (vfork(2), CLONE_VFORK); its result will be the process's id.
    Vfork(Pid),
}

/// `tls`: the segment bases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Base of FS: libc's thread pointer.
    pub fs_base: Address,
    /// Base of GS.
    pub gs_base: Address,
}
