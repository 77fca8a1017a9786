//! Asynchronous I/O of the kernel's own: io_setup(2), io_submit(2), io_getevents(2), io_destroy(2).
//!
//! Source: the man pages; `include/uapi/linux/aio_abi.h` and `fs/aio.c`, v6.18.

use nix::Result;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// `struct iocb`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}
const _: () = assert!(size_of::<Iocb>() == 64);

/// `struct io_event`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The word that the request was given.
    pub data: u64,
    /// Where the request lay.
    pub obj: u64,
    /// What the call would have returned.
    pub res: i64,
    /// A second result.
    pub res2: i64,
}
const _: () = assert!(size_of::<Event>() == 32);

/// The number of io_pgetevents(2), `arch/x86/entry/syscalls/syscall_64.tbl`.
pub const SYS_IO_PGETEVENTS: libc::c_long = 333;

const IOCB_CMD_PREAD: u16 = 0;
const IOCB_CMD_POLL: u16 = 5;
const IOCB_FLAG_RESFD: u32 = 1;

/// A context, destroyed with the value.
#[derive(Debug)]
pub struct Context(u64);

impl Context {
    /// Makes one for so many requests at a time.
    pub fn new(requests: u32) -> Result<Self> {
        let mut id = 0u64;
        // SAFETY: the kernel writes the handle to `id`, which lives for the call.
        let result = unsafe { libc::syscall(libc::SYS_io_setup, requests, &raw mut id) };
        Errno::result(result).map(|_| Context(id))
    }

    /// The handle: the address of the ring.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0
    }

    /// Asks for a read of 8 bytes of a file at an offset, which of a file in memory completes at once. With `notify`, an eventfd is told.
    pub fn read(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        data: u64,
        into: &'static AtomicU64,
        notify: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let resfd = notify.map(number).transpose()?;
        self.submit(&Iocb {
            data,
            opcode: IOCB_CMD_PREAD,
            fd: number(file)?,
            buffer: into.as_ptr().expose_provenance() as u64,
            bytes: 8,
            offset: offset.cast_signed(),
            flags: resfd.map_or(0, |_| IOCB_FLAG_RESFD),
            resfd: resfd.unwrap_or(0),
            ..Iocb::default()
        })
    }

    /// Asks to be told when one of these poll(2) events has come. Until then the request is under way.
    pub fn poll(&self, file: BorrowedFd<'_>, events: i16, data: u64) -> Result<()> {
        let events = u64::from(events.cast_unsigned());
        self.submit(&Iocb { data, opcode: IOCB_CMD_POLL, fd: number(file)?, buffer: events, ..Iocb::default() })
    }

    fn submit(&self, request: &Iocb) -> Result<()> {
        let requests = [std::ptr::from_ref(request)];
        // SAFETY: the kernel copies the request. What it may write to later is an atomic word that is never freed.
        let result = unsafe { libc::syscall(libc::SYS_io_submit, self.0, 1i64, requests.as_ptr()) };
        Errno::result(result).map(drop)
    }

    /// Takes what has completed: waits until there are `least` events, and takes `most` at the most.
    pub fn events(&self, least: usize, most: usize) -> Result<Vec<Event>> {
        let mut events = vec![Event::default(); most];
        let forever = std::ptr::null::<libc::timespec>();
        // SAFETY: the kernel writes up to `most` events, for which there is room.
        let result =
            unsafe { libc::syscall(libc::SYS_io_getevents, self.0, least, most, events.as_mut_ptr(), forever) };
        events.truncate(usize::try_from(Errno::result(result)?).unwrap_or(0));
        Ok(events)
    }

    /// Waits for one event, for so long at the most, with io_pgetevents(2) if `masked`; returns whether there was one.
    pub fn any_within(&self, timeout: Duration, masked: bool) -> Result<bool> {
        let timeout = TimeSpec::from(timeout);
        let mut event = Event::default();
        // `struct __aio_sigset`: no mask.
        let set = [0u64, 8];
        let number = if masked { SYS_IO_PGETEVENTS } else { libc::SYS_io_getevents };
        // SAFETY: the kernel writes up to one event, and reads a timespec and, by the one call, a mask's address and size.
        let result = unsafe {
            let (event, timeout) = (&raw mut event, std::ptr::from_ref(timeout.as_ref()));
            libc::syscall(number, self.0, 1i64, 1i64, event, timeout, set.as_ptr())
        };
        Errno::result(result).map(|count| count == 1)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: only numbers; the context is this value's own.
        let _ = unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

fn number(fd: BorrowedFd<'_>) -> Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(|_| Errno::EBADF)
}
