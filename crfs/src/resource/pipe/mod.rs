//! Pipes, with what is in them.
//!
//! **What it is.** A queue of bytes with open file descriptions that read from it and others that write to it, usually one each.
//! When the last of one side goes, the other side is told (end of file, SIGPIPE).
//!
//! **Where the kernel keeps it.** `struct pipe_inode_info`: <https://elixir.bootlin.com/linux/v6.18/source/fs/pipe.c>.
//!
//! **How it is read.** Ends belong together by inode. Capacity and queued bytes are asked through a duplicate of an end; the
//! bytes are tee(2)d into a pipe of our own, which consumes nothing. Where only writers are left but bytes are queued, the pipe is
//! opened for reading through /proc for that moment: every task stands still meanwhile, and all that can be seen afterwards is
//! that an edge-triggered epoll is told again. How many ends there are in the whole system is read from kernel memory.
//!
//! **How it is made again.** pipe2(2), capacity, owner, bytes; then each description: the two that pipe2 made for
//! those without `O_LARGEFILE` (open(2) always sets it), any others by opening /proc/self/fd. Ends that nobody has in the image are
//! closed last. The owner is the user of the first process that holds an end, as it is when a shell makes one: a program that
//! opens /dev/stdout again needs that.
//!
//! **What is refused.** "Keeps packets apart" (`O_DIRECT`); "the other end is held outside the container"; an owner that is to be
//! signalled; a pipe with a name (FIFO), in [`crate::resource::descriptor`].

mod capture;
mod restore;

pub(super) use capture::{Contents, capture, check, check_ends, held_outside, is_end};
pub(super) use restore::{End, restore};
