//! clone3(2) as a fork with everything fork(2) has not: chosen pids, a cgroup to be born in, new namespaces, a pidfd.
//!
//! Source: clone(2); `include/uapi/linux/sched.h`, v6.18.

use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;
use nix::unistd::Pid;

/// `struct clone_args` as the kernel takes it, version 2: 88 bytes.
///
/// It is public so that the same call can be laid out in the memory of another task.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawCloneArgs {
    /// `CLONE_*`, without an exit signal in the low byte.
    pub flags: u64,
    /// Where to store the pidfd, for `CLONE_PIDFD`.
    pub pidfd: u64,
    /// Where the child stores its tid or has it cleared, for `CLONE_CHILD_SETTID` and `CLONE_CHILD_CLEARTID`.
    pub child_tid: u64,
    /// Where the parent stores the child's tid, for `CLONE_PARENT_SETTID`.
    pub parent_tid: u64,
    /// The signal the parent gets when the child dies; 0 for none.
    pub exit_signal: u64,
    /// Lowest address of the child's stack; 0 to go on on a copy of (or the same) stack pointer.
    pub stack: u64,
    /// Size of that stack.
    pub stack_size: u64,
    /// The new fs base, for `CLONE_SETTLS`.
    pub tls: u64,
    /// Address of an array of `pid_t`, the innermost namespace first.
    pub set_tid: u64,
    /// Its length.
    pub set_tid_size: u64,
    /// A directory of cgroup v2, for `CLONE_INTO_CGROUP`.
    pub cgroup: u64,
}
const _: () = assert!(size_of::<RawCloneArgs>() == 88);
const _: () = assert!(offset_of!(RawCloneArgs, set_tid) == 64);
const _: () = assert!(offset_of!(RawCloneArgs, cgroup) == 80);

impl RawCloneArgs {
    /// Where [`RawCloneArgs::set_tid`] stands, for callers who only know the address later.
    pub const SET_TID_OFFSET: usize = offset_of!(Self, set_tid);

    /// The structure as it lies in memory.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 88] {
        // In the order of the fields, which the assertions above pin down.
        let words = [
            self.flags,
            self.pidfd,
            self.child_tid,
            self.parent_tid,
            self.exit_signal,
            self.stack,
            self.stack_size,
            self.tls,
            self.set_tid,
            self.set_tid_size,
            self.cgroup,
        ];
        let mut bytes = [0; 88];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// `CLONE_INTO_CGROUP`
pub const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `CLONE_CLEAR_SIGHAND`: all dispositions back to default, except that ignored ones stay ignored.
pub const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// What [`fork_into`] is to make.
#[derive(Clone, Debug, Default)]
pub struct CloneArgs<'a> {
    /// `CLONE_*` flags. Those that would share memory, a thread group or a thread pointer with the caller are refused.
    pub flags: u64,
    /// Signal for the parent when the child dies, usually SIGCHLD; 0 for none.
    pub exit_signal: i32,
    /// Whether to return a pidfd.
    pub pidfd: bool,
    /// The pids to take, the innermost namespace first; empty for any.
    pub set_tid: &'a [i32],
    /// The cgroup v2 directory to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// On which side of the fork one is.
#[derive(Debug)]
pub enum Forked {
    /// The caller.
    Parent {
        /// The child's pid in the caller's namespace.
        child: Pid,
        /// Its pidfd, if it was asked for.
        pidfd: Option<OwnedFd>,
    },
    /// The new process.
    Child,
}

/// Forks with clone3(2).
///
/// # Contract
/// Call it from a process with one thread. With more, the child is what it is after fork(2) in such a process: locks that other
/// threads held stay held for ever, so that it should do nothing but system calls until exec or exit. Also, the C library is not
/// told: no atfork handler runs, and the thread id it keeps of the main thread is the parent's (raise(3) and robust mutexes are
/// off limits; getpid(2) and gettid(2) are right).
///
/// # Errors
/// `EINVAL` for a flag that shares memory with the caller, and as clone3(2): `EEXIST` for a pid in use.
pub fn fork_into(args: &CloneArgs<'_>) -> Result<Forked> {
    let shared = libc::CLONE_VM
        | libc::CLONE_THREAD
        | libc::CLONE_SETTLS
        | libc::CLONE_SIGHAND
        | libc::CLONE_PIDFD
        | libc::CLONE_CHILD_SETTID
        | libc::CLONE_CHILD_CLEARTID
        | libc::CLONE_PARENT_SETTID;
    if args.flags & u64::from(shared.cast_unsigned()) != 0 {
        return Err(Errno::EINVAL);
    }
    let mut raw = RawCloneArgs {
        flags: args.flags,
        exit_signal: u64::try_from(args.exit_signal).map_err(|_| Errno::EINVAL)?,
        ..RawCloneArgs::default()
    };
    let mut pidfd: i32 = -1;
    if args.pidfd {
        raw.flags |= u64::from(libc::CLONE_PIDFD.cast_unsigned());
        raw.pidfd = (&raw mut pidfd).expose_provenance() as u64;
    }
    if !args.set_tid.is_empty() {
        raw.set_tid = args.set_tid.as_ptr().expose_provenance() as u64;
        raw.set_tid_size = args.set_tid.len() as u64;
    }
    if let Some(cgroup) = args.cgroup {
        raw.flags |= CLONE_INTO_CGROUP;
        raw.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    }
    // SAFETY: no memory is shared with the child, so this returns twice as fork does; the pointers in `raw` outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const raw, size_of::<RawCloneArgs>()) };
    match Errno::result(result)? {
        0 => Ok(Forked::Child),
        child => Ok(Forked::Parent {
            child: Pid::from_raw(i32::try_from(child).map_err(|_| Errno::EOVERFLOW)?),
            // SAFETY: the kernel stored a new descriptor that nobody else owns.
            pidfd: (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) }),
        }),
    }
}

/// Ends the calling thread alone, at once: nothing that it owns is dropped.
pub fn exit_thread(code: i32) -> ! {
    loop {
        // SAFETY: exit(2) ends the thread and touches no memory of ours: its stack and what it owns stay as they are.
        unsafe { libc::syscall(libc::SYS_exit, code) };
    }
}

/// Leaves the process at once, without running destructors or flushing what the parent had buffered: for the child of a fork.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit touches no memory of ours.
    unsafe { libc::_exit(code) }
}
