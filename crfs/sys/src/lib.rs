//! The only crate that says `unsafe`: one file per family of system calls, behind safe functions.
//!
//! What nix already wraps safely is used from there and not wrapped again. Functions here return [`nix::Result`]: an errno with
//! no story; the crates above say what was being done, and to which object.

pub mod aio;
pub mod anonymous;
pub mod bpf;
pub mod clone;
pub mod clone_fn;
pub mod close_range;
pub mod controls;
pub mod dispatch;
pub mod fanotify;
pub mod fds;
pub mod file_handle;
pub mod file_map;
pub mod handler;
pub mod inotify;
pub mod io_uring;
pub mod itimer;
pub mod kcmp;
pub mod ldt;
pub mod limits;
pub mod lock;
pub mod memory;
pub mod mount;
pub mod mqueue;
pub mod namespaces;
pub mod numa;
pub mod owner;
pub mod personality;
pub mod pid;
pub mod pidfd;
pub mod pipe;
pub mod posix_timer;
pub mod ptrace;
pub mod puppet;
pub mod rights;
pub mod robust_list;
pub mod rseq;
pub mod sched;
pub mod scm;
pub mod seccomp;
pub mod shared_memory;
pub mod signal;
pub mod signalfd;
pub mod sigqueue;
pub mod socket_options;
pub mod socket_queue;
pub mod sockets;
pub mod sysv;
pub mod thread_area;
pub mod time;
pub mod timerfd;
pub mod timerfd_time;
pub mod tty;
pub mod userfault;
pub mod vector;
pub mod wait;
pub mod waits;
pub mod xattr;
pub mod xstate;

pub use pid::HostPid;
