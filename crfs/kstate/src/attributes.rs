//! Attributes of a thread or process that were set by a call and can be asked only from inside.
//!
//! Source: include/linux/sched.h, include/linux/cred.h, arch/x86/include/asm/processor.h, kernel/entry/syscall_user_dispatch.c, v6.18;
//! set_tid_address(2), prctl(2), ioperm(2), set_thread_area(2).

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::KernelState;
use crate::tasks::{Task, word};

/// Syscall user dispatch (PR_SET_SYSCALL_USER_DISPATCH).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyscallDispatch {
    /// Whether it is on.
    pub on: bool,
    /// Address of the byte that allows or blocks.
    pub selector: u64,
    /// Where the range begins from which calls are always allowed.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

impl KernelState {
    /// Where the kernel writes 0 when the thread ends (set_tid_address(2), CLONE_CHILD_CLEARTID), 0 for nowhere.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`].
    pub fn clear_child_tid(&self, task: &Task) -> Result<u64, Error> {
        self.view(Feature::TidAddresses, task)?.u64(&[Path::ClearChildTid])
    }

    /// Where the kernel wrote the thread's id when it began (CLONE_CHILD_SETTID), 0 for nowhere.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`].
    pub fn set_child_tid(&self, task: &Task) -> Result<u64, Error> {
        self.view(Feature::TidAddresses, task)?.u64(&[Path::SetChildTid])
    }

    /// The thread's SECBIT_* flags.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Gone`], [`Error::Read`].
    pub fn securebits(&self, task: &Task) -> Result<u32, Error> {
        self.view(Feature::Securebits, task)?.u32(&[Path::TaskCred, Path::Securebits])
    }

    /// Whether orphans below the process become its children (PR_SET_CHILD_SUBREAPER).
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Gone`], [`Error::Read`].
    pub fn is_child_subreaper(&self, task: &Task) -> Result<bool, Error> {
        let view = self.view(Feature::Subreaper, task)?;
        let shift = view.resolved(Path::Subreaper)?.field.bits.map_or(0, |(shift, _)| shift);
        let mut byte = [0];
        view.bytes(&[Path::TaskSignal, Path::Subreaper], &mut byte)?;
        Ok((byte[0] >> (shift & 7)) & 1 != 0)
    }

    /// The thread's syscall user dispatch.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`].
    pub fn syscall_dispatch(&self, task: &Task) -> Result<SyscallDispatch, Error> {
        if self.absent(Feature::SyscallDispatch) {
            return Ok(SyscallDispatch::default());
        }
        let view = self.view(Feature::SyscallDispatch, task)?;
        let bit = self.known.dispatch_bit.unwrap_or(0) & 63;
        Ok(SyscallDispatch {
            on: (view.u64(&[Path::SyscallWork])? >> bit) & 1 != 0,
            selector: view.u64(&[Path::DispatchSelector])?,
            offset: view.u64(&[Path::DispatchOffset])?,
            length: view.u64(&[Path::DispatchLength])?,
        })
    }

    /// The thread's three segment descriptors of set_thread_area(2), as the processor has them; 0 for an empty one.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`].
    pub fn tls_array(&self, task: &Task) -> Result<[u64; 3], Error> {
        if self.absent(Feature::TlsArray) {
            return Ok([0; 3]);
        }
        let mut bytes = [0; 24];
        self.view(Feature::TlsArray, task)?.bytes(&[Path::TlsArray], &mut bytes)?;
        Ok([word(&bytes, 0), word(&bytes, 8), word(&bytes, 16)])
    }

    /// Whether the thread has an I/O permission bitmap (ioperm(2)).
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`].
    pub fn has_io_bitmap(&self, task: &Task) -> Result<bool, Error> {
        if self.absent(Feature::IoPermission) {
            return Ok(false);
        }
        Ok(self.view(Feature::IoPermission, task)?.u64(&[Path::IoBitmap])? != 0)
    }

    /// The thread's I/O privilege level (iopl(2)), 0 to 3.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`].
    pub fn io_privilege_level(&self, task: &Task) -> Result<u64, Error> {
        if self.absent(Feature::IoPermission) {
            return Ok(0);
        }
        self.view(Feature::IoPermission, task)?.u64(&[Path::IoLevel])
    }
}
