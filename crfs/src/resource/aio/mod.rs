//! Asynchronous I/O of the kernel's own (io_setup(2), libaio).
//!
//! - **What:** contexts of an address space, each with a ring of events that is mapped into it; the address of the ring is the handle.
//! - **Where:** `mm_struct.ioctx_table`, `struct kioctx` and `struct aio_ring`: <https://elixir.bootlin.com/linux/v6.18/source/fs/aio.c>.
//! - **Read:** how many requests are under way from kernel memory; what has completed and was not read from the ring. Requests of
//!   files end soon: they are waited for, while all tasks stand still.
//! - **Made again:** io_setup(2) maps a ring of the same length somewhere, and mremap(2) moves it to its old address, which becomes the
//!   handle. Requests that complete at once bring the kernel's count of events to where it was; the events are then written over theirs.
//! - **Refused:** requests that stay under way (they wait for a poll, or for a disk that does not answer), and rings of other processes.

mod capture;
pub mod restore;

pub use capture::capture;
