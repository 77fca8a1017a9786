//! System V IPC: shared memory, semaphores and message queues.
//!
//! **What it is.** Objects of an ipc namespace, found by a key or handed on by their id, which live until they are removed. A segment is
//! attached by shmat(2); a semaphore operation with SEM_UNDO leaves an adjustment that the end of the process applies.
//!
//! **Where the kernel keeps it.** `struct ipc_namespace`, `sem_undo_list`: <https://elixir.bootlin.com/linux/v6.18/source/ipc>.
//!
//! **How it is read.** The worker joins the container's ipc namespace for a moment: /proc/sysvipc, GETALL, MSG_COPY (which takes no
//! message away). Contents of segments that a process has attached stay where they are and are read through
//! /proc/PID/map_files while the container stands still; those nobody has attached are copied. Whether pages are huge the file
//! system of a mapping tells. Adjustments come from kernel memory.
//!
//! **How it is made again.** The worker joins the new namespace, asks for each id (/proc/sys/kernel/shm_next_id and its like) and makes
//! the objects with their contents, as the users that had made them. It keeps the segments attached until every process has, so
//! that those removed already (SHM_DEST) do not go. Adjustments are made by the processes themselves, by two operations that
//! leave the value as it was. Those of a namespace that some processes have apart are made likewise, in it; the processes join it when they
//! are born, so that their threads share a list of adjustments.
//!
//! **What is refused.** Attachments of which a part was unmapped, adjustments shared between processes
//! (CLONE_SYSVSEM), limits of the namespace that were changed; attachments of a namespace that the process has left for one that has an
//! object of the same id: mappings tell no more than the id, and two that have it are told apart by a lock on them. What starts anew: times, and who used an object last.

mod attachment;
mod capture;
pub mod restore;
mod undo;

pub use attachment::{report as report_attachments, report_others};
pub(super) use capture::changed;
pub use capture::{Contents, capture, limits};
pub use undo::{capture as adjustments, restore as adjust};
