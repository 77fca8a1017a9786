//! io_uring_setup(2), io_uring_enter(2), and the memory that a ring shares with its program.
//!
//! Source: the man pages; `include/uapi/linux/io_uring.h` and `io_uring/io_uring.c`, v6.18.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use nix::Result;
use nix::errno::Errno;

/// `struct io_sqring_offsets`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct SqOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    reserved: u32,
    user_addr: u64,
}

/// `struct io_cqring_offsets`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct CqOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    overflow: u32,
    cqes: u32,
    flags: u32,
    reserved: u32,
    user_addr: u64,
}

/// `struct io_uring_params`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    reserved: [u32; 3],
    sq_off: SqOffsets,
    cq_off: CqOffsets,
}
const _: () = assert!(size_of::<Params>() == 120);

const SETUP_CQSIZE: u32 = 1 << 3;
/// The rings of both queues.
const OFF_RINGS: libc::off_t = 0;
const OFF_SQES: libc::off_t = 0x1000_0000;
/// Where `struct io_rings` has the ends of both queues.
const SQ_HEAD: usize = 0;
const SQ_TAIL: usize = 4;
const CQ_HEAD: usize = 8;
const CQ_TAIL: usize = 12;
/// `IOSQE_CQE_SKIP_SUCCESS`, and where an entry has its flags.
const SKIP_SUCCESS: u8 = 1 << 6;
const SQE_FLAGS: usize = 1;

/// Where `struct io_rings` has the completions, and bytes of one (`struct io_uring_cqe`).
const CQES: usize = 64;
const CQE: usize = 16;
const ENTER_GETEVENTS: u32 = 1;

const REGISTER_ENABLE_RINGS: u32 = 12;

/// `IORING_SETUP_` flags: of a ring that takes nothing yet, of one that belongs to the thread that makes or enables it, and of one whose
/// thread is told of completions when it asks.
pub const SETUP_R_DISABLED: u32 = 1 << 6;
/// See [`SETUP_R_DISABLED`].
pub const SETUP_SINGLE_ISSUER: u32 = 1 << 12;
/// See [`SETUP_R_DISABLED`].
pub const SETUP_DEFER_TASKRUN: u32 = 1 << 13;

/// `IORING_OP_` of requests.
const OP_FSYNC: u8 = 3;
const OP_POLL_ADD: u8 = 6;
const OP_READ: u8 = 22;
const OP_SPLICE: u8 = 30;

/// `struct io_uring_sqe`, as far as requests here use it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Sqe {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    offset: u64,
    address: u64,
    length: u32,
    op_flags: u32,
    data: u64,
    rest: [u64; 3],
}
const _: () = assert!(size_of::<Sqe>() == 64);

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The word that the request was given.
    pub data: u64,
    /// What the call would have returned: bytes, or a negated errno.
    pub res: i32,
}

/// What a ring is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `IORING_SETUP_` flags.
    pub flags: u32,
    /// Entries to be submitted.
    pub sq_entries: u32,
    /// Entries of what has completed.
    pub cq_entries: u32,
    /// Bytes of the rings, in whole pages.
    pub rings: usize,
    /// Bytes of the entries to be submitted, in whole pages.
    pub sqes: usize,
    /// Bytes of one of them.
    pub sqe: usize,
}

/// A mapping, unmapped with the value.
#[derive(Debug)]
struct Shared {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to the process, and its address and length never change.
unsafe impl Send for Shared {}
// SAFETY: as above; it is read and written by atomic operations alone.
unsafe impl Sync for Shared {}

impl Shared {
    fn map(ring: BorrowedFd<'_>, length: usize, offset: libc::off_t) -> Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { libc::mmap(null_mut(), length, protection, libc::MAP_SHARED, ring.as_raw_fd(), offset) };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Shared { start: NonNull::new(start.cast()).ok_or(Errno::ENOMEM)?, length })
    }

    /// One byte, which the kernel and other processes may read and write meanwhile.
    fn byte(&self, at: usize) -> &AtomicU8 {
        assert!(at < self.length);
        // SAFETY: inside of the mapping, which lives as long as self; an atomic byte has no requirement on its place.
        unsafe { AtomicU8::from_ptr(self.start.as_ptr().add(at)) }
    }

    /// Four aligned bytes.
    fn word(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.length);
        // SAFETY: inside of the mapping, which begins with a page, and aligned as asserted.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(at).cast()) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no reference into it outlives self. A failure would leave it mapped, harmlessly.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// A ring with its memory mapped.
#[derive(Debug)]
pub struct Ring {
    fd: OwnedFd,
    shape: Shape,
    rings: Shared,
    sqes: Shared,
}

impl Ring {
    /// Makes a ring; of the shape, `flags` and both numbers of entries count, and the sizes must be those that the kernel gives it.
    ///
    /// # Errors
    /// Of io_uring_setup(2) and mmap(2); `EMEDIUMTYPE` where this kernel gives a ring another shape.
    pub fn new(shape: Shape) -> Result<Self> {
        let mut params =
            Params { flags: shape.flags | SETUP_CQSIZE, cq_entries: shape.cq_entries, ..Params::default() };
        // SAFETY: the kernel reads and writes `params`, which lives for the call.
        let result = unsafe { libc::syscall(libc::SYS_io_uring_setup, shape.sq_entries, &raw mut params) };
        let fd = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
        // SAFETY: a descriptor that the call has just made, which nobody else knows.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let offset = |offset: u32| usize::try_from(offset).unwrap_or(usize::MAX);
        let ends = [params.sq_off.head, params.sq_off.tail, params.cq_off.head, params.cq_off.tail].map(offset);
        let array = offset(params.sq_off.array).saturating_add(offset(params.sq_entries) * 4);
        let is_it = ends == [SQ_HEAD, SQ_TAIL, CQ_HEAD, CQ_TAIL]
            && (params.sq_entries, params.cq_entries) == (shape.sq_entries, shape.cq_entries)
            && (params.sq_off.array == 0 || array.next_multiple_of(4096) == shape.rings);
        if !is_it {
            return Err(Errno::EMEDIUMTYPE);
        }
        Ring::attach(fd, shape)
    }

    /// The ring behind a descriptor.
    ///
    /// # Errors
    /// Of mmap(2).
    pub fn attach(fd: OwnedFd, shape: Shape) -> Result<Self> {
        let rings = Shared::map(fd.as_fd(), shape.rings, OFF_RINGS)?;
        let sqes = Shared::map(fd.as_fd(), shape.sqes, OFF_SQES)?;
        Ok(Ring { fd, shape, rings, sqes })
    }

    /// The rings, and behind them the entries to be submitted.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let parts = [&self.rings, &self.sqes];
        let bytes = parts.into_iter().flat_map(|part| (0..part.length).map(|at| part.byte(at)));
        bytes.map(|byte| byte.load(Ordering::Relaxed)).collect()
    }

    /// Writes what [`Ring::bytes`] gave.
    ///
    /// # Errors
    /// `EMSGSIZE` for another number of bytes.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        if bytes.len() != self.rings.length + self.sqes.length {
            return Err(Errno::EMSGSIZE);
        }
        let (rings, sqes) = bytes.split_at(self.rings.length);
        for (part, bytes) in [(&self.rings, rings), (&self.sqes, sqes)] {
            bytes.iter().enumerate().for_each(|(at, &byte)| part.byte(at).store(byte, Ordering::Relaxed));
        }
        Ok(())
    }

    /// How many entries were taken and how many completions were given, as the kernel has written it into the rings.
    #[must_use]
    pub fn ends(&self) -> (u32, u32) {
        (self.rings.word(SQ_HEAD).load(Ordering::Acquire), self.rings.word(CQ_TAIL).load(Ordering::Acquire))
    }

    /// Submits a request that does nothing. Of a ring made here each request lies in the first place for one.
    ///
    /// # Errors
    /// Of io_uring_enter(2); `EIO` when it is not taken.
    pub fn nop(&self, data: u64) -> Result<()> {
        self.submit(Sqe { data, ..Sqe::default() })
    }

    /// Submits a read of eight bytes at an offset of a file.
    ///
    /// # Errors
    /// As [`Ring::nop`].
    pub fn read(&self, file: BorrowedFd<'_>, at: u64, data: u64, into: &'static AtomicU64) -> Result<()> {
        let address = into.as_ptr() as u64;
        let (opcode, fd) = (OP_READ, file.as_raw_fd());
        self.submit(Sqe { opcode, fd, offset: at, address, length: 8, data, ..Sqe::default() })
    }

    /// Submits a read of eight bytes from a pipe, which waits until they come.
    ///
    /// # Errors
    /// As [`Ring::nop`].
    pub fn read_pipe(&self, pipe: BorrowedFd<'_>, data: u64, into: &'static AtomicU64) -> Result<()> {
        let address = into.as_ptr() as u64;
        let (opcode, fd) = (OP_READ, pipe.as_raw_fd());
        self.submit(Sqe { opcode, fd, offset: u64::MAX, address, length: 8, data, ..Sqe::default() })
    }

    /// Submits a splice(2) of eight bytes from pipe to pipe, for which a thread of the kernel's waits until they come.
    ///
    /// # Errors
    /// As [`Ring::nop`].
    pub fn splice(&self, from: BorrowedFd<'_>, into: BorrowedFd<'_>, data: u64) -> Result<()> {
        // Both are at no offset; the descriptor to be read stands behind the data (`splice_fd_in`).
        let (opcode, fd, offset, address) = (OP_SPLICE, into.as_raw_fd(), u64::MAX, u64::MAX);
        let rest = [u64::from(from.as_raw_fd().unsigned_abs()) << 32, 0, 0];
        self.submit(Sqe { opcode, fd, offset, address, length: 8, data, rest, ..Sqe::default() })
    }

    /// Submits an fsync(2), which a thread of the kernel's carries out.
    ///
    /// # Errors
    /// As [`Ring::nop`].
    pub fn sync(&self, file: BorrowedFd<'_>, data: u64) -> Result<()> {
        self.submit(Sqe { opcode: OP_FSYNC, fd: file.as_raw_fd(), data, ..Sqe::default() })
    }

    /// Submits a wait for events of poll(2).
    ///
    /// # Errors
    /// As [`Ring::nop`].
    pub fn poll(&self, file: BorrowedFd<'_>, events: u16, data: u64) -> Result<()> {
        let (opcode, fd, op_flags) = (OP_POLL_ADD, file.as_raw_fd(), events.into());
        self.submit(Sqe { opcode, fd, op_flags, data, ..Sqe::default() })
    }

    fn submit(&self, request: Sqe) -> Result<()> {
        let Sqe { opcode, flags, priority, fd, offset, address, length, op_flags, data, rest } = request;
        let start = [opcode, flags].into_iter().chain(priority.to_ne_bytes()).chain(fd.to_ne_bytes());
        let middle = [offset, address].into_iter().flat_map(u64::to_ne_bytes);
        let numbers = [length, op_flags].into_iter().flat_map(u32::to_ne_bytes);
        let end = [data].into_iter().chain(rest).flat_map(u64::to_ne_bytes);
        let bytes = start.chain(middle).chain(numbers).chain(end);
        bytes.enumerate().for_each(|(at, byte)| self.sqes.byte(at).store(byte, Ordering::Relaxed));
        if self.enter(1)? == 1 { Ok(()) } else { Err(Errno::EIO) }
    }

    /// The oldest completion that was not taken yet. The ring's completions have sixteen bytes.
    #[must_use]
    pub fn next(&self) -> Option<Completion> {
        let head = self.rings.word(CQ_HEAD);
        let taken = head.load(Ordering::Relaxed);
        if taken == self.ends().1 {
            return None;
        }
        let at = CQES + (taken & (self.shape.cq_entries - 1)) as usize * CQE;
        let word = |at| self.rings.word(at).load(Ordering::Relaxed);
        let data = u64::from(word(at + 4)) << 32 | u64::from(word(at));
        let res = word(at + 8).cast_signed();
        head.store(taken.wrapping_add(1), Ordering::Release);
        Some(Completion { data, res })
    }

    /// Waits until so many completions can be taken.
    ///
    /// # Errors
    /// Of io_uring_enter(2), among them `EINTR`.
    pub fn wait(&self, count: u32) -> Result<()> {
        let none = null_mut::<libc::c_void>();
        let (fd, flags) = (self.fd.as_raw_fd(), ENTER_GETEVENTS);
        // SAFETY: without a signal mask and without IORING_ENTER_EXT_ARG it takes no pointer.
        let waited = unsafe { libc::syscall(libc::SYS_io_uring_enter, fd, 0u32, count, flags, none, 0usize) };
        Errno::result(waited).map(drop)
    }

    /// Lets a ring take requests that was made with [`SETUP_R_DISABLED`]. It then belongs to the calling thread, if it belongs to one.
    ///
    /// # Errors
    /// Of io_uring_register(2), among them `EBADFD`: it takes them already.
    pub fn enable(&self) -> Result<()> {
        let (fd, none) = (self.fd.as_raw_fd(), null_mut::<libc::c_void>());
        // SAFETY: this registration takes no pointer.
        let enabled = unsafe { libc::syscall(libc::SYS_io_uring_register, fd, REGISTER_ENABLE_RINGS, none, 0u32) };
        Errno::result(enabled).map(drop)
    }

    fn enter(&self, count: u32) -> Result<u32> {
        self.offer(count);
        self.take(count)
    }

    /// Says that so many entries more are to be submitted.
    fn offer(&self, count: u32) {
        let tail = self.rings.word(SQ_TAIL);
        tail.store(tail.load(Ordering::Relaxed).wrapping_add(count), Ordering::Release);
    }

    /// Has the kernel take entries.
    fn take(&self, count: u32) -> Result<u32> {
        let none = null_mut::<libc::c_void>();
        // SAFETY: the kernel reads entries from the ring alone; without IORING_ENTER_GETEVENTS it takes no further argument.
        let taken =
            unsafe { libc::syscall(libc::SYS_io_uring_enter, self.fd.as_raw_fd(), count, 0u32, 0u32, none, 0usize) };
        u32::try_from(Errno::result(taken)?).map_err(|_| Errno::EIO)
    }

    /// Brings a new ring to where the kernel has taken so many entries and given so many completions, by requests that do nothing.
    /// Takes 0.1 us each, and completions may not be more than entries.
    ///
    /// # Errors
    /// `EIO` when the ring does not take them; of io_uring_enter(2).
    pub fn advance(&self, submitted: u32, completed: u32) -> Result<()> {
        let take = |count| self.take(count).map(|taken| taken == count);
        if self.advance_by(submitted, completed, take)? { Ok(()) } else { Err(Errno::EIO) }
    }

    /// [`Ring::advance`] where somebody else must have the kernel take the entries: `take` calls io_uring_enter(2) for so many, and says
    /// whether it took them all. False: the ring is not where it is to be.
    ///
    /// # Errors
    /// Of `take`.
    pub fn advance_by<E>(
        &self,
        submitted: u32,
        completed: u32,
        mut take: impl FnMut(u32) -> std::result::Result<bool, E>,
    ) -> std::result::Result<bool, E> {
        let completes = self.pass(completed, &mut take)?;
        self.sqe_flags(SKIP_SUCCESS);
        let ends = completes && self.pass(submitted.wrapping_sub(completed), &mut take)?;
        self.sqe_flags(0);
        Ok(ends && self.ends() == (submitted, completed))
    }

    fn sqe_flags(&self, flags: u8) {
        let slots = (0..self.shape.sq_entries as usize).map(|slot| slot * self.shape.sqe + SQE_FLAGS);
        slots.for_each(|at| self.sqes.byte(at).store(flags, Ordering::Relaxed));
    }

    fn pass<E>(
        &self,
        count: u32,
        take: &mut impl FnMut(u32) -> std::result::Result<bool, E>,
    ) -> std::result::Result<bool, E> {
        let mut left = count;
        while left > 0 {
            let some = left.min(self.shape.sq_entries);
            self.offer(some);
            if !take(some)? {
                return Ok(false);
            }
            // All that has completed was seen.
            let tail = self.rings.word(CQ_TAIL).load(Ordering::Acquire);
            self.rings.word(CQ_HEAD).store(tail, Ordering::Release);
            left -= some;
        }
        Ok(true)
    }

    /// The descriptor, and the mappings gone.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { flags: 0, sq_entries: 8, cq_entries: 32, rings: 4096, sqes: 4096, sqe: 64 };

    #[test]
    fn a_ring_is_brought_to_where_another_was() {
        let ring = Ring::new(SHAPE).unwrap();
        ring.advance(1003, 1000).unwrap();
        assert_eq!(ring.ends(), (1003, 1000));
        let mut bytes = ring.bytes();
        bytes[4096 + 9] = 7;
        ring.write(&bytes).unwrap();
        assert_eq!(ring.bytes(), bytes);
        let again = Ring::attach(ring.into_fd(), SHAPE).unwrap();
        assert_eq!(again.bytes(), bytes);
        again.nop(42).unwrap();
        assert_eq!(again.ends(), (1004, 1001));
        assert_eq!(again.next(), Some(Completion { data: 42, res: 0 }));
        assert_eq!(again.next(), None);
    }

    #[test]
    fn a_ring_belongs_to_the_thread_that_enables_it() {
        let flags = SETUP_R_DISABLED | SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN;
        let ring = Ring::new(Shape { flags, ..SHAPE }).unwrap();
        assert_eq!(ring.nop(1), Err(Errno::EBADFD));
        // What was offered in vain.
        std::thread::scope(|scope| scope.spawn(|| ring.enable().unwrap()).join().unwrap());
        assert_eq!(ring.enable(), Err(Errno::EEXIST));
        assert_eq!(ring.nop(1), Err(Errno::EEXIST));
    }

    #[test]
    fn another_shape_is_told() {
        let ring = Ring::new(Shape { rings: 8192, ..SHAPE });
        assert_eq!(ring.err(), Some(Errno::EMEDIUMTYPE));
    }
}
