//! io_uring_setup(2): a ring that nothing is under way in.
//!
//! - **What:** two queues in memory that the kernel shares with the program: entries to be submitted, and completions. Both count what has
//!   passed through them for ever, and the program keeps copies of these counts in memory of its own.
//! - **Where:** `struct io_ring_ctx`, `struct io_uring_task`: <https://elixir.bootlin.com/linux/v6.18/source/io_uring/io_uring.c>.
//! - **Read:** the counts and what is registered from kernel memory; the shared memory through a duplicate of the descriptor. Requests of
//!   files end soon: they are waited for while all tasks stand still, out of the tracer's hands, since a task is told of an end while it is in the freezer.
//! - **Made again:** a ring of the same shape, through which requests pass that do nothing until its counts are as they were; then the
//!   shared memory is written over. It is mapped where it was when all other mappings are there. One that belongs to a thread
//!   (`IORING_SETUP_SINGLE_ISSUER`) is made disabled; the thread, when it is there, enables it and has the requests pass.
//! - **Refused:** requests that stay under way (they wait for a socket, a pipe, a timeout), what io_uring_register(2) registers, and kinds of rings
//!   that belong to a thread of the kernel's or a device (`SQPOLL`, `IOPOLL` ...).

mod capture;
pub mod issuer;
pub mod map;
mod requests;
pub mod restore;
mod rings;

pub(super) use capture::{capture, memory};
pub use requests::{name_issuers, report, under_way};
pub use rings::Rings;

use image_format::io_uring::IoUring;

/// What a ring is made with, and how its memory lies.
fn shape(ring: &IoUring) -> crfs_sys::io_uring::Shape {
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    crfs_sys::io_uring::Shape {
        flags: u32::try_from(ring.flags.0).unwrap_or(u32::MAX),
        sq_entries: ring.sq_entries,
        cq_entries: ring.cq_entries,
        rings: bytes(ring.rings_size()),
        sqes: bytes(ring.sqes_size()),
        sqe: bytes(ring.sqe_size()),
    }
}
