//! Files that the kernel makes up: those of /proc, sysfs and control groups, which a program reads in passing or keeps open and reads again
//! and again, as top does; and their directories.
//!
//! **What it is.** An open file description whose content the kernel makes while it is read.
//!
//! **Where the kernel keeps it.** `struct proc_dir_entry` and, for files of a process, `struct proc_inode`
//! (<https://elixir.bootlin.com/linux/v6.18/source/fs/proc/internal.h>); sysfs and control groups: `struct kernfs_node`
//! (<https://elixir.bootlin.com/linux/v6.18/source/include/linux/kernfs.h>). How far it was read: `struct seq_file`.
//!
//! **How it is read.** As a regular file: the link in /proc/PID/fd, looked up again, and the offset. No content is recorded; whether its end
//! was reached is asked by pread(2), which moves nothing.
//!
//! A place in the listing of a directory is a number of a process, thread or descriptor, or of an entry, or is made of an entry's name
//! (`kernfs_fop_readdir`, fs/kernfs/dir.c, v6.18); all stay what they are.
//!
//! **How it is made again.** Its path is opened below the container's own root, when all processes and threads are there. At the end of the
//! build the offset is set; where the end had been reached, it is read to its end, which may be elsewhere now. What is read from there on is
//! as it is at that time, as it always was. A parameter below /proc/sys, which may be one of several namespaces, is opened by a process of the container.
//! One of a descriptor (fdinfo) is there while its number is taken, so the number is taken before.
//!
//! **What is refused.** Those open for writing, which count with the credentials of who opened them. Those of an address space that the
//! process has left by execve(2), and those of which that cannot be told. Those of processes and threads that have ended: `ended_task`.

mod capture;
mod restore;

pub(super) use capture::capture;
pub(super) use restore::restore_all;
pub use restore::{read_on, restore_inside, take_numbers};

use crate::resource::descriptor::refused::PSEUDO;
use image_format::files::PseudoFileSystem;

/// Those whose files are carried.
const CARRIED: [PseudoFileSystem; 4] =
    [PseudoFileSystem::Proc, PseudoFileSystem::Sysfs, PseudoFileSystem::Cgroup2, PseudoFileSystem::Cgroup];

/// As /proc/filesystems calls it.
fn name(file_system: PseudoFileSystem) -> &'static str {
    match file_system {
        PseudoFileSystem::Proc => "proc",
        PseudoFileSystem::Sysfs => "sysfs",
        PseudoFileSystem::Cgroup2 => "cgroup2",
        PseudoFileSystem::Cgroup => "cgroup",
    }
}

/// By the magic number of statfs(2). None for every other file system.
pub(super) fn file_system(magic: i64) -> Option<PseudoFileSystem> {
    let (_, found) = PSEUDO.iter().find(|(known, _)| *known == magic)?;
    CARRIED.into_iter().find(|&carried| name(carried) == *found)
}
