//! bpf(2): copying bytes out of kernel memory, by a program of a few instructions and without a compiler.
//!
//! A program of type `BPF_PROG_TYPE_SYSCALL` (Linux 5.14) runs in the context of the thread that asks for it, so
//! `bpf_get_current_task` is that thread, which is where every walk starts. Its only means are `bpf_probe_read_kernel`,
//! which answers `EFAULT` or `ERANGE` where a plain access would crash, and one memory-mapped array that holds the
//! request and takes the reply. The context cannot be the destination: the verifier refuses it.
//!
//! Source: bpf(2), bpf-helpers(7), include/uapi/linux/bpf.h and net/bpf/test_run.c (`bpf_prog_test_run_syscall`), v6.18.

mod per_cpu;
mod program;

use std::fmt;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;

pub use per_cpu::PerCpu;
use program::{Insn, program};

/// How many pointers one [`KernelReader::read`] can follow.
pub const MAX_HOPS: usize = 4;
/// How many bytes one run of the program copies; longer reads are cut into several runs.
pub const CAPACITY: usize = 64 * 1024;

// The array: the request and the reply's status in the first page, the bytes after it.
const AT_ADDRESS: i16 = 0;
const AT_LENGTH: i16 = 8;
const AT_HOPS: i16 = 16;
const AT_FINAL: i16 = 24;
const AT_STATUS: i16 = 32;
const AT_POINTER: i16 = 40;
const AT_OFFSETS: i16 = 48;
/// The offset that is added at the end of the walk.
const AT_LAST: i16 = 48 + 8 * 4;
const HEADER: usize = 48 + 8 * (MAX_HOPS + 1);
const DATA: usize = 4096;
const MAPPED: usize = DATA + CAPACITY;

/// What the program writes to the status when a pointer on the way is null (errors of the helper are negative).
const STATUS_NULL: i32 = 1;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_MMAPABLE: u32 = 1 << 10;
const BPF_PROG_TYPE_SYSCALL: u32 = 31;
/// The type SYSCALL is accepted only as sleepable.
const BPF_F_SLEEPABLE: u32 = 1 << 4;

/// Which call of [`KernelReader::load`] failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadStep {
    /// `BPF_MAP_CREATE` of the array.
    CreateArray,
    /// mmap(2) of the array.
    MapArray,
    /// `BPF_PROG_LOAD` of the program.
    LoadProgram,
}

/// The reader cannot be had on this kernel, or by this caller.
#[derive(Debug)]
pub struct LoadError {
    /// The call that failed.
    pub step: LoadStep,
    /// Its errno. `EPERM`: no CAP_SYS_ADMIN (or CAP_BPF and CAP_PERFMON), or a kernel lockdown in confidentiality mode.
    /// `ENOSYS`: no CONFIG_BPF_SYSCALL. `EINVAL` from the load: older than Linux 5.14, or bpf_probe_read_kernel is locked down.
    pub source: io::Error,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.step {
            LoadStep::CreateArray => "creating the BPF array",
            LoadStep::MapArray => "mapping the BPF array",
            LoadStep::LoadProgram => "loading the BPF program that reads kernel memory",
        })
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A read of kernel memory did not happen. Nothing was changed, and nothing crashed.
#[derive(Debug)]
pub enum ReadError {
    /// A pointer on the way is null.
    Null {
        /// Where that pointer lies.
        at: u64,
    },
    /// The kernel cannot read there.
    Fault {
        /// The address that could not be read.
        address: u64,
        /// `EFAULT` (nothing mapped) or `ERANGE` (not a kernel address).
        source: io::Error,
    },
    /// The program could not be run at all.
    Run(io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null { at } => write!(f, "the pointer at {at:#x} is null"),
            Self::Fault { address, .. } => write!(f, "kernel address {address:#x} cannot be read"),
            Self::Run(_) => f.write_str("running the BPF program"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Null { .. } => None,
            Self::Fault { source, .. } | Self::Run(source) => Some(source),
        }
    }
}

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    // data_size_in .. batch_size: all must be zero for this program type.
    unused: [u64; 9],
}

// Offsets of include/uapi/linux/bpf.h, union bpf_attr.
const _: () = assert!(size_of::<MapCreate>() == 20);
const _: () = assert!(size_of::<ProgLoad>() == 48 && std::mem::offset_of!(ProgLoad, prog_flags) == 44);
const _: () = assert!(size_of::<TestRun>() == 80 && std::mem::offset_of!(TestRun, retval) == 4);

/// Reads kernel memory on behalf of the calling thread.
///
/// Loading takes well below a millisecond and leaves two descriptors (close-on-exec) and one mapping, which go with
/// the value. Reads share one buffer: the value may move to another thread and is not to be used by two.
#[derive(Debug)]
pub struct KernelReader {
    program: OwnedFd,
    area: NonNull<u8>,
    array: OwnedFd,
}

// SAFETY: the mapping belongs to this value alone and every access goes through `&self` of a type that is not Sync.
unsafe impl Send for KernelReader {}

impl KernelReader {
    /// Loads the program.
    ///
    /// # Errors
    /// [`LoadError`] names the call and its errno; see there for what each means.
    pub fn load() -> Result<Self, LoadError> {
        let fail = |step| move |source| LoadError { step, source };
        let mapped = u32::try_from(MAPPED).map_err(|_| fail(LoadStep::CreateArray)(libc::ENOMEM.into_error()))?;
        let create = MapCreate {
            map_type: BPF_MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: mapped,
            max_entries: 1,
            map_flags: BPF_F_MMAPABLE,
        };
        // SAFETY: `create` is a plain-data attribute without pointers.
        let array = unsafe { bpf_fd(BPF_MAP_CREATE, &create) }.map_err(fail(LoadStep::CreateArray))?;
        // SAFETY: a new shared mapping of a descriptor we own, at an address the kernel chooses.
        let area = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                MAPPED,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                array.as_raw_fd(),
                0,
            )
        };
        if area == libc::MAP_FAILED {
            return Err(fail(LoadStep::MapArray)(io::Error::last_os_error()));
        }
        let area =
            NonNull::new(area.cast::<u8>()).ok_or_else(|| fail(LoadStep::MapArray)(libc::EFAULT.into_error()))?;
        let program = load_program(&program(array.as_raw_fd())).map_err(|source| {
            // SAFETY: the mapping made above, which nobody else knows.
            unsafe { libc::munmap(area.as_ptr().cast(), MAPPED) };
            fail(LoadStep::LoadProgram)(source)
        })?;
        Ok(Self { program, area, array })
    }

    /// Copies `buf.len()` bytes of kernel memory and returns the address they were read from.
    ///
    /// The walk starts at `address`, or at the `task_struct` of the calling thread when that is 0. Every offset but the
    /// last is added and the pointer that lies there followed; the last is added to give the final address. So
    /// `read(task, &[sighand, action], buf)` is `task->sighand->action`. At most [`MAX_HOPS`] pointers are followed. An
    /// empty `buf` only computes the address.
    ///
    /// # Errors
    /// [`ReadError`]; `buf` then holds nothing of meaning.
    pub fn read(&self, address: u64, offsets: &[u64], buf: &mut [u8]) -> Result<u64, ReadError> {
        let (head, tail) = buf.split_at_mut(buf.len().min(CAPACITY));
        let found = self.run(address, offsets, head)?;
        let mut next = found;
        for chunk in tail.chunks_mut(CAPACITY) {
            next = next.wrapping_add(CAPACITY as u64);
            self.run(next, &[0], chunk)?;
        }
        Ok(found)
    }

    fn run(&self, address: u64, offsets: &[u64], buf: &mut [u8]) -> Result<u64, ReadError> {
        let invalid = || ReadError::Run(libc::EINVAL.into_error());
        let hops = offsets.len().checked_sub(1).filter(|&hops| hops <= MAX_HOPS).ok_or_else(invalid)?;
        let mut header = [0u8; HEADER];
        put(&mut header, AT_ADDRESS, address);
        put(&mut header, AT_LENGTH, buf.len() as u64);
        put(&mut header, AT_HOPS, hops as u64);
        // The last offset has a place of its own, so that the program finds it whatever the number of pointers.
        for (slot, &offset) in (0i16..).zip(&offsets[..hops]) {
            put(&mut header, AT_OFFSETS + 8 * slot, offset);
        }
        put(&mut header, AT_LAST, offsets[hops]);
        self.exchange(&self.program, &mut header).map_err(ReadError::Run)?;
        let reached = get(&header, AT_FINAL);
        match get(&header, AT_STATUS).cast_signed() {
            0 => {
                debug_assert!(buf.len() <= CAPACITY);
                // SAFETY: buf is at most CAPACITY long (`read` cuts it, and the program refuses more), so the range lies
                // in the mapping after DATA.
                unsafe {
                    std::ptr::copy_nonoverlapping(self.area.as_ptr().add(DATA), buf.as_mut_ptr(), buf.len());
                }
                Ok(reached)
            }
            status if status == i64::from(STATUS_NULL) => Err(ReadError::Null { at: reached }),
            status => {
                let errno = i32::try_from(status.wrapping_neg()).unwrap_or(libc::EIO);
                Err(ReadError::Fault { address: reached, source: errno.into_error() })
            }
        }
    }

    /// Hands a program its request, runs it, and takes what it has written there.
    fn exchange(&self, program: &OwnedFd, header: &mut [u8; HEADER]) -> io::Result<()> {
        // SAFETY: HEADER < DATA <= MAPPED, so both ranges lie in our mapping; source and destination do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(header.as_ptr(), self.area.as_ptr(), HEADER) };
        let mut attr = TestRun { prog_fd: program.as_raw_fd().cast_unsigned(), ..TestRun::default() };
        // SAFETY: the attribute is valid and holds no pointers; the kernel writes `retval` in it, and our mapping.
        unsafe { bpf(BPF_PROG_TEST_RUN, &mut attr) }?;
        // SAFETY: as above, the other way.
        unsafe { std::ptr::copy_nonoverlapping(self.area.as_ptr(), header.as_mut_ptr(), HEADER) };
        Ok(())
    }
}

impl Drop for KernelReader {
    fn drop(&mut self) {
        // SAFETY: the mapping of `load`, which ends with this value; nobody else knows its address.
        unsafe { libc::munmap(self.area.as_ptr().cast(), MAPPED) };
    }
}

const _: () = assert!(AT_LAST as usize == 48 + 8 * MAX_HOPS && HEADER == AT_LAST as usize + 8 && HEADER <= DATA);

trait IntoError {
    fn into_error(self) -> io::Error;
}

impl IntoError for i32 {
    fn into_error(self) -> io::Error {
        io::Error::from_raw_os_error(self)
    }
}

fn put(header: &mut [u8; HEADER], at: i16, value: u64) {
    let at = usize::from(at.unsigned_abs());
    header[at..at + 8].copy_from_slice(&value.to_ne_bytes());
}

fn get(header: &[u8; HEADER], at: i16) -> u64 {
    let at = usize::from(at.unsigned_abs());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&header[at..at + 8]);
    u64::from_ne_bytes(bytes)
}

/// # Safety
/// `attr` must be the attribute of `command`, and what it points to must be valid for it.
unsafe fn bpf<T>(command: libc::c_long, attr: *mut T) -> io::Result<libc::c_long> {
    // SAFETY: promised by the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// # Safety
/// As [`bpf`]; and `command` must be one that returns a new descriptor and does not write to `attr`.
unsafe fn bpf_fd<T>(command: libc::c_long, attr: *const T) -> io::Result<OwnedFd> {
    // SAFETY: promised by the caller.
    let fd = unsafe { bpf(command, attr.cast_mut()) }?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn load_program(instructions: &[Insn]) -> io::Result<OwnedFd> {
    let count = u32::try_from(instructions.len()).map_err(io::Error::other)?;
    // bpf_probe_read_kernel is offered only to programs that say they may be used under the GPL.
    let license = c"Dual MIT/GPL";
    let attr = ProgLoad {
        prog_type: BPF_PROG_TYPE_SYSCALL,
        insn_cnt: count,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        prog_flags: BPF_F_SLEEPABLE,
        ..ProgLoad::default()
    };
    // SAFETY: both pointers are valid for the call, and the kernel only reads through them.
    unsafe { bpf_fd(BPF_PROG_LOAD, &attr) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_calling_task_and_nothing_else() {
        let reader = KernelReader::load().expect("root on a kernel with BPF");
        let mut first = [0; 64];
        let task = reader.read(0, &[0], &mut first).expect("current");
        assert!(task >= 0xffff_0000_0000_0000, "a kernel address: {task:#x}");
        let mut second = [0; 64];
        assert_eq!(reader.read(task, &[0], &mut second).expect("the same, by address"), task);
        assert_eq!(first[8..], second[8..], "thread_info.flags may change, the stack pointer does not");
        let mut long = vec![0; 9];
        assert_eq!(reader.read(task, &[16], &mut long).expect("by offset"), task + 16);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let reader = KernelReader::load().expect("root on a kernel with BPF");
        let mut buf = [0xaa; 16];
        let here = std::ptr::from_ref(&buf) as u64;
        for address in [1, here, 0xdead_0000_0000_0000, u64::MAX - 20] {
            match reader.read(address, &[0], &mut buf) {
                Err(ReadError::Fault { address: told, source }) => {
                    assert_eq!(told, address);
                    assert!(matches!(source.raw_os_error(), Some(libc::EFAULT | libc::ERANGE)), "{source}");
                }
                other => panic!("{address:#x}: {other:?}"),
            }
        }
        assert!(matches!(reader.read(0, &[], &mut buf), Err(ReadError::Run(_))), "no offset at all");
        assert!(matches!(reader.read(0, &[0; MAX_HOPS + 2], &mut buf), Err(ReadError::Run(_))), "too many pointers");
    }

    #[test]
    fn follows_pointers_and_stops_at_null() {
        let reader = KernelReader::load().expect("root on a kernel with BPF");
        // A word of the task that points into the kernel can be followed; a word of zeros is a null pointer.
        let mut words = [0u8; 4096];
        let task = reader.read(0, &[0], &mut words).expect("current");
        let word = |n: usize| u64::from_ne_bytes(words[n * 8..n * 8 + 8].try_into().expect("eight bytes"));
        let null = (0..512).find(|&n| word(n) == 0).expect("some null") as u64 * 8;
        match reader.read(task, &[null, 8], &mut [0; 8]) {
            Err(ReadError::Null { at }) => assert_eq!(at, task + null),
            other => panic!("{other:?}"),
        }
        // An empty list points to itself, which makes a chain as long as wanted.
        let (at, own) = (0..512)
            .map(|n| (n as u64 * 8, word(n)))
            .find(|&(at, value)| value == task + at)
            .expect("an empty list in the task");
        for hops in 1..=MAX_HOPS {
            let mut offsets = vec![0; hops + 1];
            offsets[0] = at;
            let mut buf = [0; 8];
            assert_eq!(reader.read(task, &offsets, &mut buf).expect("a chain"), own, "{hops} hops");
            assert_eq!(u64::from_ne_bytes(buf), own);
        }
    }

    #[test]
    fn long_reads_are_cut() {
        let reader = KernelReader::load().expect("root on a kernel with BPF");
        // Of a task that runs anything may change between two reads.
        let same = (0..1000).any(|_| {
            let mut whole = vec![0; 3000];
            let task = reader.read(0, &[0], &mut whole).expect("current");
            // Whether what follows the task is mapped is the kernel's business: either all of it comes, or an error.
            let mut long = vec![0; CAPACITY + 512];
            match reader.read(task & !0xfff, &[0], &mut long) {
                Ok(at) => {
                    let start = usize::try_from(task - at).expect("small");
                    long[start + 1000..start + 1040] == whole[1000..1040]
                }
                Err(ReadError::Fault { .. }) => true,
                Err(other) => panic!("{other:?}"),
            }
        });
        assert!(same, "what is read in two parts is something else");
    }
}
