//! The empty process that every restored process tree begins as.
//!
//! A static ELF of one page of text that calls pause(2) for ever, no heap, no C library (a restartable sequences area inherited from
//! one kills a task whose memory is unmapped). It has a second entry: an init that waits for children until there are none.

use std::ffi::CStr;
use std::io::{Read, Write, pipe};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_sys::{HostPid, signal};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{execveat, write};
use thiserror::Error;

use crate::{Error, Exit, Gadget, RemoteAddress, SeizeOptions, Stop, Stopped, Tracee, Waited};

/// Where its text page lies: between what is linked at fixed addresses and where the kernel puts everything else.
pub const TEXT: RemoteAddress = RemoteAddress(0x1_0000_0000);

/// The `syscall` instruction in its text.
pub const GADGET: Gadget = Gadget(RemoteAddress(TEXT.0 + HEADERS as u64 + 5));

const HEADERS: usize = 64 + 2 * 56;

/// Where it waits for whatever child ends and exits when it has none: the life of an init that is there for the reaping.
pub const REAP: RemoteAddress = RemoteAddress(TEXT.0 + HEADERS as u64 + 9);

#[rustfmt::skip]
const CODE: [u8; 45] = [
    // again:
    0xb8, 0x22, 0x00, 0x00, 0x00,   // mov  eax, 34   pause
    0x0f, 0x05,                     // syscall
    0xeb, 0xf7,                     // jmp  again
    // reap:
    0xb8, 0x3d, 0x00, 0x00, 0x00,   // mov  eax, 61   wait4
    0xbf, 0xff, 0xff, 0xff, 0xff,   // mov  edi, -1   any child
    0x31, 0xf6,                     // xor  esi, esi
    0xba, 0x00, 0x00, 0x00, 0x40,   // mov  edx, __WALL
    0x45, 0x31, 0xd2,               // xor  r10d, r10d
    0x0f, 0x05,                     // syscall
    0x83, 0xf8, 0xf6,               // cmp  eax, -ECHILD
    0x75, 0xe5,                     // jne  reap
    0xb8, 0xe7, 0x00, 0x00, 0x00,   // mov  eax, 231  exit_group
    0x31, 0xff,                     // xor  edi, edi
    0x0f, 0x05,                     // syscall
];

const LEN: usize = HEADERS + CODE.len();

/// The file.
pub const ELF: [u8; LEN] = elf();

const fn put(file: &mut [u8; LEN], at: usize, bytes: &[u8]) {
    let mut i = 0;
    while i < bytes.len() {
        file[at + i] = bytes[i];
        i += 1;
    }
}

/// See elf(5).
const fn elf() -> [u8; LEN] {
    let mut file = [0u8; LEN];
    let size = (LEN as u64).to_le_bytes();
    let text = TEXT.0.to_le_bytes();
    // e_ident: magic, 64 bits, little endian, version 1.
    put(&mut file, 0, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    put(&mut file, 16, &[2, 0, 62, 0, 1]); // e_type ET_EXEC, e_machine EM_X86_64, e_version
    put(&mut file, 24, &(TEXT.0 + HEADERS as u64).to_le_bytes()); // e_entry
    put(&mut file, 32, &[64]); // e_phoff
    put(&mut file, 52, &[64, 0, 56, 0, 2, 0, 64]); // e_ehsize, e_phentsize, e_phnum, e_shentsize
    // PT_LOAD, read and execute: the whole file.
    put(&mut file, 64, &[1, 0, 0, 0, 5]);
    put(&mut file, 64 + 16, &text); // p_vaddr
    put(&mut file, 64 + 24, &text); // p_paddr
    put(&mut file, 64 + 32, &size); // p_filesz
    put(&mut file, 64 + 40, &size); // p_memsz
    put(&mut file, 64 + 48, &[0, 0x10]); // p_align
    // PT_GNU_STACK, read and write: no executable stack.
    put(&mut file, 120, &[0x51, 0xe5, 0x74, 0x64, 6]);
    put(&mut file, HEADERS, &CODE);
    file
}

/// What went wrong while a stub was made.
#[derive(Debug, Error)]
pub enum StubError {
    /// The file in memory could not be made.
    #[error("cannot make the stub's program: {0}")]
    Program(#[source] Errno),
    /// The process could not be made.
    #[error("cannot fork a process for the stub: {0}")]
    Fork(#[source] Errno),
    /// What the caller wanted done in the new process, or its exec, failed.
    #[error("the new process {tid} could not become a stub: {source}")]
    Prepare {
        /// The process, which has exited.
        tid: HostPid,
        /// What it told.
        source: Errno,
    },
    /// It died.
    #[error("the new process {tid} died before it was a stub: {exit}")]
    Died {
        /// The process.
        tid: HostPid,
        /// How.
        exit: Exit,
    },
    /// It did not get there in time.
    #[error("the new process {tid} did not become a stub in time")]
    TimedOut {
        /// The process, which dies with the tracer.
        tid: HostPid,
    },
    /// It could not be traced.
    #[error(transparent)]
    Tracee(#[from] Error),
}

/// The stub's program as a file in memory, to be executed with execveat(2) and `AT_EMPTY_PATH`.
///
/// # Errors
/// What memfd_create(2) or write(2) says.
pub fn memfd() -> Result<OwnedFd, Errno> {
    let name = c"crfs-stub";
    // MFD_EXEC says what has always been meant, and is needed where vm.memfd_noexec is set; kernels before 6.3 do not know it.
    let executable = MFdFlags::MFD_CLOEXEC | MFdFlags::from_bits_retain(libc::MFD_EXEC);
    let fd = match memfd_create(name, executable) {
        Err(Errno::EINVAL) => memfd_create(name, MFdFlags::MFD_CLOEXEC)?,
        other => other?,
    };
    if write(&fd, &ELF)? == ELF.len() { Ok(fd) } else { Err(Errno::EIO) }
}

/// Makes a process that stands at the first instruction of the stub, traced with `options`.
///
/// `prepare` runs in the new process before its exec, on a copy of the caller's memory: for what is easier done by a program than
/// by injected calls, such as entering namespaces. Signal actions and the mask are reset by this function. Descriptors that are not
/// close-on-exec stay open in it. A panic in `prepare` is told as `ENOTRECOVERABLE`.
///
/// The caller must have one thread, see [`fork_into`].
///
/// # Errors
/// [`StubError`] says how far it came. Nothing of the process is left, except after [`StubError::TimedOut`].
pub fn spawn(
    args: &CloneArgs<'_>,
    options: SeizeOptions,
    deadline: Instant,
    prepare: impl FnOnce() -> Result<(), Errno>,
) -> Result<Tracee<Stopped>, StubError> {
    let program = memfd().map_err(StubError::Program)?;
    let as_errno = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let (mut go_ahead, mut go) = pipe().map_err(|error| StubError::Program(as_errno(error)))?;
    let child = match fork_into(args).map_err(StubError::Fork)? {
        Forked::Parent { child, .. } => HostPid::from(child),
        Forked::Child => {
            drop(go);
            // Without the tracer's word nothing happens: should it die, the pipe ends and so does this process.
            let told = go_ahead.read_exact(&mut [0]).map_err(as_errno);
            // A panic must not unwind into a second copy of the caller.
            let prepare = || catch_unwind(AssertUnwindSafe(prepare)).unwrap_or(Err(Errno::ENOTRECOVERABLE));
            let errno = told.and_then(|()| prepare()).and_then(|()| become_stub(&program));
            exit_now(errno.map_or_else(|errno| errno as i32, |never| match never {}))
        }
    };
    drop(go_ahead);
    let tracee = Tracee::seize(child, SeizeOptions { trace_exec: true, ..options })?;
    // Should it be dead already, waiting tells.
    let _ = go.write_all(&[0]);
    let mut running = tracee;
    loop {
        let stopped = match running.wait(deadline)? {
            Waited::Stopped(stopped) => stopped,
            Waited::Gone(Exit::Code(code)) if code != 0 => {
                return Err(StubError::Prepare { tid: child, source: Errno::from_raw(code) });
            }
            Waited::Gone(exit) => return Err(StubError::Died { tid: child, exit }),
            Waited::Running(_) => return Err(StubError::TimedOut { tid: child }),
        };
        running = match stopped.stop() {
            Stop::Exec { .. } => return settle(stopped, options, deadline),
            Stop::Signal(number) => stopped.cont(Some(number))?,
            _ => stopped.cont(None)?,
        };
    }
}

/// From the stop in the middle of exec to an event stop before the first instruction.
fn settle(stopped: Tracee<Stopped>, options: SeizeOptions, deadline: Instant) -> Result<Tracee<Stopped>, StubError> {
    let tid = stopped.tid();
    stopped.set_options(options)?;
    stopped.interrupt()?;
    let mut running = stopped.cont(None)?;
    loop {
        let stopped = match running.wait(deadline)? {
            Waited::Stopped(stopped) => stopped,
            Waited::Gone(exit) => return Err(StubError::Died { tid, exit }),
            Waited::Running(_) => return Err(StubError::TimedOut { tid }),
        };
        if matches!(stopped.stop(), Stop::Event { .. }) {
            return Ok(stopped);
        }
        running = stopped.cont(None)?;
    }
}

fn become_stub(program: &OwnedFd) -> Result<std::convert::Infallible, Errno> {
    signal::reset_all()?;
    signal::set_mask(0)?;
    let name: [&CStr; 1] = [c"crfs-stub"];
    let nothing: [&CStr; 0] = [];
    execveat(program, c"", &name, &nothing, AtFlags::AT_EMPTY_PATH)
}

/// How long a stub takes to be made is milliseconds; this is what callers without a deadline of their own may use.
pub const PATIENCE: Duration = Duration::from_secs(10);
