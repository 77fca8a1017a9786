//! The container's own mounts: what its programs mounted, and what they changed of the host's mounts that a container is given.
//!
//! **What it is.** A mount shows a part of a file system at a place, with attributes and peers of its own. Of the file systems a tmpfs
//! lives with its mounts: its files are nowhere else, so the image has them.
//!
//! **Where the kernel keeps it.** `struct mount` and `struct mnt_namespace` (`fs/mount.h`), tmpfs in `mm/shmem.c`:
//! <https://elixir.bootlin.com/linux/v6.18/source/fs/namespace.c>.
//!
//! **How it is read.** /proc/PID/mountinfo, compared with the host's. A tmpfs is read through a copy of its mount that is attached
//! nowhere (open_tree(2)), which also shows what is hidden below other mounts. The freeze lists the files; whoever copies reads their
//! contents.
//!
//! **How it is made again.** In order, by the first process in its new mount namespace, before anything opens a path: so a pid or ipc
//! namespace that a file system shows is the container's, and the memory of a tmpfs is charged to it. All are made private and get
//! their peers when the last one stands, since a mount under a shared one would appear among all its peers.
//!
//! **Namespaces apart.** One that some processes made by unshare(2) began as a copy of another, and is recorded as what differs from that: lines
//! of what was unmounted, changed and added. It is made again by a child of the worker, in a copy of its own, before any process is there but
//! the first. One that belongs to a user namespace inside is a copy of that copy, made by who joined that; what it has from outside
//! cannot be unmounted there any more, so that is done before.
//!
//! **What is refused.** File systems that are neither in memory nor made by options alone; mounts that are hidden by others; bind
//! mounts of what no path leads to any more.

pub mod apart;
mod capture;
mod cgroup_mounts;
mod contents;
mod difference;
mod fill;
mod given;
mod lowered;
mod own;
pub mod restore;
mod tree;
mod views;

pub use apart::{Made, Roots};
pub use capture::{Mounts, capture};
pub use contents::{Contents, MountPlace};
pub(crate) use own::mount_of;
pub(super) use own::survey;
pub use views::{View, Views};
