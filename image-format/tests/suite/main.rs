//! The crate seen from outside: what it writes, what it reads, what it refuses.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_possible_wrap)]

mod arbitrary;
mod check;
mod check_aio;
mod check_cgroups;
mod check_files;
mod check_io_uring;
mod check_memory;
mod check_mounts;
mod check_mqueue;
mod check_namespaces;
mod check_pid_namespaces;
mod check_sockets;
mod check_sysv;
mod check_threads;
mod check_time_namespaces;
mod check_ttys;
mod check_unnamed;
mod check_user_namespaces;
mod convert;

mod golden;
mod hostile;
mod round_trip;
mod seekable;
mod text;
