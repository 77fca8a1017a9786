//! Pipes, with and without names (FIFOs), with what is in them.
//!
//! **What it is.** A queue of bytes with open file descriptions that read from it and others that write to it, usually one each.
//! When the last of one side goes, the other side is told (end of file, SIGPIPE).
//!
//! **Where the kernel keeps it.** `struct pipe_inode_info`: <https://elixir.bootlin.com/linux/v6.18/source/fs/pipe.c>.
//!
//! **How it is read.** Ends belong together by inode. Capacity and queued bytes are asked through a duplicate of an end; the
//! bytes are tee(2)d into a pipe of our own, which consumes nothing and keeps packets (`O_DIRECT`) apart: a read there ends with
//! a packet, and throws away what it has no room for. Where only writers are left but bytes are queued, the pipe is
//! opened for reading through /proc for that moment: every task stands still meanwhile, and all that can be seen afterwards is
//! that an edge-triggered epoll is told again. How many ends there are in the whole system is read from kernel memory.
//!
//! **How it is made again.** pipe2(2), capacity, owner, bytes; then each description: the two that pipe2 made for
//! those without `O_LARGEFILE` (open(2) always sets it), any others by opening /proc/self/fd. Ends that nobody has in the image are
//! closed last. The owner is the user of the first process that holds an end, as it is when a shell makes one: a program that
//! opens /dev/stdout again needs that. A FIFO must stand under its path, as files do, with nobody but us: it is opened for reading
//! and writing for a moment, filled, and its ends opened by their paths. A reader whom no writer has met yet is not told that there is none
//! (`f_pipe` in `fifo_open`), so such ends are opened last, when our writer is gone. Who waits in open(2) for the other side
//! holds nothing yet, and opens again.
//!
//! **What is refused.** "The other end is held outside the container"; packets and other bytes in one pipe; a FIFO that was deleted. At
//! the restore, a FIFO that is not there, or that somebody else has open.

mod capture;
mod fifo;
mod restore;

pub(super) use capture::{Contents, Scratch, capture, check_ends, held_outside, is_end, is_silent, is_unnamed};
pub(super) use fifo::restore_fifo;
pub(super) use restore::{End, restore};
