//! System V IPC in the caller's ipc namespace: shared memory, semaphores, message queues.
//!
//! Ids are asked for by writing /proc/sys/kernel/{shm,sem,msg}_next_id before the object is made; that is the caller's.
//!
//! Source: sysvipc(7), shmget(2), semget(2), msgget(2); `ipc/` in the kernel, v6.18. MSG_COPY needs CONFIG_CHECKPOINT_RESTORE.

use nix::Result;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use std::ptr::{NonNull, null};
use std::time::Duration;

/// The nine permission bits of a mode.
const MODE: u32 = 0o777;

/// What IPC_SET can set of every object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The nine permission bits.
    pub mode: u32,
}

fn apply(owner: Owner, to: &mut libc::ipc_perm) -> Result<()> {
    to.uid = owner.uid;
    to.gid = owner.gid;
    to.mode = u16::try_from(owner.mode & MODE).map_err(|_| Errno::EINVAL)?;
    Ok(())
}

fn flags(mode: u32) -> i32 {
    libc::IPC_CREAT | libc::IPC_EXCL | (mode & MODE).cast_signed()
}

/// Makes a segment of `size` bytes, all zero, and returns its id. `EEXIST` when the key is taken.
pub fn make_segment(key: i32, size: u64, mode: u32) -> Result<i32> {
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    // SAFETY: numbers only.
    Errno::result(unsafe { libc::shmget(key, size, flags(mode)) })
}

/// As [`make_segment`], of huge pages of `page_size` bytes, a power of two; the pool must have as many. `EPERM` for who has neither
/// CAP_IPC_LOCK nor the group that vm.hugetlb_shm_group names.
pub fn make_huge_segment(key: i32, size: u64, mode: u32, page_size: u64) -> Result<i32> {
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    let exponent = i32::try_from(page_size.trailing_zeros()).map_err(|_| Errno::EINVAL)?;
    let flags = flags(mode) | libc::SHM_HUGETLB | exponent << libc::MAP_HUGE_SHIFT;
    // SAFETY: numbers only.
    Errno::result(unsafe { libc::shmget(key, size, flags) })
}

fn segment_status(id: i32) -> Result<libc::shmid_ds> {
    // SAFETY: a structure of numbers, for which all zeros is a value.
    let mut status: libc::shmid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one shmid_ds.
    Errno::result(unsafe { libc::shmctl(id, libc::IPC_STAT, &raw mut status) })?;
    Ok(status)
}

/// Sets owner and mode of a segment.
pub fn own_segment(id: i32, owner: Owner) -> Result<()> {
    let mut status = segment_status(id)?;
    apply(owner, &mut status.shm_perm)?;
    // SAFETY: the kernel reads one shmid_ds.
    Errno::result(unsafe { libc::shmctl(id, libc::IPC_SET, &raw mut status) }).map(drop)
}

/// Keeps a segment in memory (SHM_LOCK).
pub fn lock_segment(id: i32) -> Result<()> {
    // SAFETY: this command takes no argument.
    Errno::result(unsafe { libc::shmctl(id, libc::SHM_LOCK, std::ptr::null_mut()) }).map(drop)
}

/// Removes a segment; while it is attached it goes on under its id (SHM_DEST).
pub fn remove_segment(id: i32) -> Result<()> {
    // SAFETY: this command takes no argument.
    Errno::result(unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) }).map(drop)
}

/// A segment attached to this process, until it is dropped.
#[derive(Debug)]
pub struct Attachment {
    start: NonNull<u8>,
    size: usize,
    writable: bool,
}

impl Attachment {
    /// Attaches a segment, for reading alone or for writing too. It stays when the caller joins another namespace.
    pub fn new(id: i32, writable: bool) -> Result<Self> {
        let size = segment_status(id)?.shm_segsz;
        let flags = if writable { 0 } else { libc::SHM_RDONLY };
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { libc::shmat(id, null(), flags) };
        if start.addr() == usize::MAX {
            return Err(Errno::last());
        }
        Ok(Attachment { start: NonNull::new(start.cast()).ok_or(Errno::EFAULT)?, size, writable })
    }

    /// The address of the first byte.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.start.addr().get() as u64
    }

    /// The segment's bytes as they are now. Whoever else has it attached should stand still.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size];
        // SAFETY: the mapping is ours, readable, and at least this long; the vector is new.
        unsafe { self.start.copy_to_nonoverlapping(NonNull::from(&mut bytes[..]).cast(), self.size) };
        bytes
    }

    /// Reads bytes at an offset. `EINVAL` beyond the end.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        if offset.checked_add(bytes.len()).is_none_or(|end| end > self.size) {
            return Err(Errno::EINVAL);
        }
        // SAFETY: inside the mapping, which is readable; the slice is the caller's.
        unsafe { self.start.add(offset).copy_to_nonoverlapping(NonNull::from(&mut *bytes).cast(), bytes.len()) };
        Ok(())
    }

    /// Writes bytes at an offset. `EINVAL` beyond the end, `EACCES` where it was attached for reading.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        if !self.writable {
            return Err(Errno::EACCES);
        }
        if offset.checked_add(bytes.len()).is_none_or(|end| end > self.size) {
            return Err(Errno::EINVAL);
        }
        // SAFETY: inside the mapping, which is writable and no Rust object.
        unsafe { self.start.add(offset).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        Ok(())
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers to it.
        unsafe { libc::shmdt(self.start.as_ptr().cast()) };
    }
}

/// Makes a set of `count` semaphores of value 0 and returns its id.
pub fn make_semaphores(key: i32, count: usize, mode: u32) -> Result<i32> {
    let count = i32::try_from(count).map_err(|_| Errno::EINVAL)?;
    // SAFETY: numbers only.
    Errno::result(unsafe { libc::semget(key, count, flags(mode)) })
}

/// The values of a set of `count` semaphores. A wrong count gives `EINVAL`.
pub fn semaphore_values(id: i32, count: usize) -> Result<Vec<u16>> {
    // SAFETY: a structure of numbers, for which all zeros is a value.
    let mut status: libc::semid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one semid_ds.
    Errno::result(unsafe { libc::semctl(id, 0, libc::IPC_STAT, &raw mut status) })?;
    if u64::try_from(count) != Ok(status.sem_nsems) {
        return Err(Errno::EINVAL);
    }
    let mut values = vec![0u16; count];
    // SAFETY: the kernel writes as many numbers as the set has semaphores, which never changes.
    Errno::result(unsafe { libc::semctl(id, 0, libc::GETALL, values.as_mut_ptr()) })?;
    Ok(values)
}

/// Sets all values of a set, which forgets every adjustment (SEM_UNDO) to it. A wrong count gives `EINVAL`.
pub fn set_semaphore_values(id: i32, values: &[u16]) -> Result<()> {
    semaphore_values(id, values.len())?;
    // SAFETY: the kernel reads as many numbers as the set has semaphores, which was just compared and never changes.
    Errno::result(unsafe { libc::semctl(id, 0, libc::SETALL, values.as_ptr()) }).map(drop)
}

/// Sets owner and mode of a set of semaphores.
pub fn own_semaphores(id: i32, owner: Owner) -> Result<()> {
    // SAFETY: a structure of numbers, for which all zeros is a value.
    let mut status: libc::semid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one semid_ds.
    Errno::result(unsafe { libc::semctl(id, 0, libc::IPC_STAT, &raw mut status) })?;
    apply(owner, &mut status.sem_perm)?;
    // SAFETY: the kernel reads one semid_ds.
    Errno::result(unsafe { libc::semctl(id, 0, libc::IPC_SET, &raw mut status) }).map(drop)
}

/// Adds to a semaphore, without waiting, and has the end of the calling process take it back if `undo`.
pub fn change_semaphore(id: i32, index: u16, change: i16, undo: bool) -> Result<()> {
    let undo = if undo { libc::SEM_UNDO } else { 0 };
    let flags = i16::try_from(undo | libc::IPC_NOWAIT).map_err(|_| Errno::EINVAL)?;
    let mut operation = libc::sembuf { sem_num: index, sem_op: change, sem_flg: flags };
    // SAFETY: the kernel reads one sembuf.
    Errno::result(unsafe { libc::semop(id, &raw mut operation, 1) }).map(drop)
}

/// Waits until a semaphore can be lowered by one, and does it.
pub fn take_semaphore(id: i32, index: u16) -> Result<()> {
    let mut operation = libc::sembuf { sem_num: index, sem_op: -1, sem_flg: 0 };
    // SAFETY: the kernel reads one sembuf.
    Errno::result(unsafe { libc::semop(id, &raw mut operation, 1) }).map(drop)
}

/// The same, for so long at the most: `EAGAIN` then.
pub fn take_semaphore_within(id: i32, index: u16, timeout: Duration) -> Result<()> {
    let operation = libc::sembuf { sem_num: index, sem_op: -1, sem_flg: 0 };
    let timeout = TimeSpec::from(timeout);
    // SAFETY: the kernel reads one sembuf and a timespec.
    let result = unsafe {
        let (operation, timeout) = (std::ptr::from_ref(&operation), std::ptr::from_ref(timeout.as_ref()));
        libc::syscall(libc::SYS_semtimedop, id, operation, 1, timeout)
    };
    Errno::result(result).map(drop)
}

/// Makes an empty message queue and returns its id.
pub fn make_queue(key: i32, mode: u32) -> Result<i32> {
    // SAFETY: numbers only.
    Errno::result(unsafe { libc::msgget(key, flags(mode)) })
}

fn queue_status(id: i32) -> Result<libc::msqid_ds> {
    // SAFETY: a structure of numbers, for which all zeros is a value.
    let mut status: libc::msqid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one msqid_ds.
    Errno::result(unsafe { libc::msgctl(id, libc::IPC_STAT, &raw mut status) })?;
    Ok(status)
}

/// How many bytes a queue may hold (`msg_qbytes`).
pub fn queue_capacity(id: i32) -> Result<u64> {
    queue_status(id).map(|status| status.msg_qbytes)
}

/// Sets owner, mode and capacity of a queue. `EPERM` for a capacity above /proc/sys/kernel/msgmnb without CAP_SYS_RESOURCE.
pub fn own_queue(id: i32, owner: Owner, capacity: u64) -> Result<()> {
    let mut status = queue_status(id)?;
    apply(owner, &mut status.msg_perm)?;
    status.msg_qbytes = capacity;
    // SAFETY: the kernel reads one msqid_ds.
    Errno::result(unsafe { libc::msgctl(id, libc::IPC_SET, &raw mut status) }).map(drop)
}

/// `struct msgbuf`: the type, then the bytes.
const TYPE: usize = size_of::<i64>();

/// The message at a place in the queue, counted from 0, which stays there: its type and bytes. None past the last. `room`: bytes that
/// the longest message may have; `E2BIG` beyond.
pub fn copy_message(id: i32, place: usize, room: usize) -> Result<Option<(i64, Vec<u8>)>> {
    /// include/uapi/linux/msg.h
    const MSG_COPY: i32 = 0o40000;
    let place = libc::c_long::try_from(place).map_err(|_| Errno::EINVAL)?;
    // Of longs, for their alignment.
    let mut buffer = vec![0i64; 1 + room.div_ceil(TYPE)];
    let room = (buffer.len() - 1) * TYPE;
    // SAFETY: the kernel writes the type and at most `room` bytes.
    let got = unsafe { libc::msgrcv(id, buffer.as_mut_ptr().cast(), room, place, MSG_COPY | libc::IPC_NOWAIT) };
    let length = match Errno::result(got) {
        Err(Errno::ENOMSG) => return Ok(None),
        other => usize::try_from(other?).map_err(|_| Errno::EOVERFLOW)?,
    };
    let mut bytes: Vec<u8> = buffer[1..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.truncate(length);
    Ok(Some((buffer[0], bytes)))
}

/// Appends a message, without waiting: `EAGAIN` when the queue is full.
pub fn send_message(id: i32, kind: i64, bytes: &[u8]) -> Result<()> {
    let mut buffer = vec![0i64; 1 + bytes.len().div_ceil(TYPE)];
    buffer[0] = kind;
    for (word, chunk) in buffer[1..].iter_mut().zip(bytes.chunks(TYPE)) {
        let mut padded = [0; TYPE];
        padded[..chunk.len()].copy_from_slice(chunk);
        *word = i64::from_ne_bytes(padded);
    }
    // SAFETY: the kernel reads the type and as many bytes as were copied.
    Errno::result(unsafe { libc::msgsnd(id, buffer.as_ptr().cast(), bytes.len(), libc::IPC_NOWAIT) }).map(drop)
}

/// Takes the first message off a queue, waiting for one: its type and bytes. `E2BIG` when it has more than `room`.
pub fn take_message(id: i32, room: usize) -> Result<(i64, Vec<u8>)> {
    let mut buffer = vec![0i64; 1 + room.div_ceil(TYPE)];
    // SAFETY: the kernel writes the type and at most `room` bytes.
    let got = unsafe { libc::msgrcv(id, buffer.as_mut_ptr().cast(), room, 0, 0) };
    let length = usize::try_from(Errno::result(got)?).map_err(|_| Errno::EOVERFLOW)?;
    let mut bytes: Vec<u8> = buffer[1..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.truncate(length);
    Ok((buffer[0], bytes))
}

/// The id of the segment with this key.
pub fn find_segment(key: i32) -> Result<i32> {
    // SAFETY: numbers only.
    Errno::result(unsafe { libc::shmget(key, 0, 0) })
}

/// Removes a set of semaphores.
pub fn remove_semaphores(id: i32) -> Result<()> {
    // SAFETY: this command takes no argument.
    Errno::result(unsafe { libc::semctl(id, 0, libc::IPC_RMID) }).map(drop)
}

/// Removes a queue.
pub fn remove_queue(id: i32) -> Result<()> {
    // SAFETY: this command takes no argument.
    Errno::result(unsafe { libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_keeps_what_is_written() {
        let id = make_segment(libc::IPC_PRIVATE, 5000, 0o600).expect("made");
        let attached = Attachment::new(id, true).expect("attached");
        remove_segment(id).expect("removed");
        attached.write(4990, b"ten bytes!").expect("written");
        assert_eq!(attached.write(4991, b"ten bytes!"), Err(Errno::EINVAL));
        assert_eq!(&attached.bytes()[4990..], b"ten bytes!");
    }

    #[test]
    fn semaphores_keep_their_values() {
        let id = make_semaphores(libc::IPC_PRIVATE, 3, 0o600).expect("made");
        set_semaphore_values(id, &[1, 2, 3]).expect("set");
        let (values, wrong) = (semaphore_values(id, 3), semaphore_values(id, 2));
        let taken = change_semaphore(id, 1, -2, false).and_then(|()| change_semaphore(id, 1, -1, true));
        remove_semaphores(id).expect("removed");
        assert_eq!(values, Ok(vec![1, 2, 3]));
        assert_eq!((wrong, taken), (Err(Errno::EINVAL), Err(Errno::EAGAIN)));
    }

    #[test]
    fn messages_are_copied_and_stay() {
        let id = make_queue(libc::IPC_PRIVATE, 0o600).expect("made");
        let sent = send_message(id, 7, b"nine byte").and_then(|()| send_message(id, 8, b""));
        let copies = [0, 1, 2, 0].map(|place| copy_message(id, place, 100));
        remove_queue(id).expect("removed");
        assert_eq!(sent, Ok(()));
        let [first, second, none, again] = copies;
        assert_eq!(first, Ok(Some((7, b"nine byte".to_vec()))));
        assert_eq!(second, Ok(Some((8, Vec::new()))));
        assert_eq!(none, Ok(None));
        assert_eq!(again, first);
    }
}
