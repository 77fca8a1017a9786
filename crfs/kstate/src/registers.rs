//! What ptrace(2) tells of a stopped thread's registers and signal mask, of one that merely does not run: frozen, or waiting in the kernel.
//!
//! The answers are those of PTRACE_GETREGS, PTRACE_PEEKUSER of the debug registers, PTRACE_GETSIGMASK and
//! PTRACE_GET_RSEQ_CONFIGURATION, word for word. Of a thread that runs meanwhile they are of no moment at all.
//!
//! Source: arch/x86/include/asm/ptrace.h (`struct pt_regs`), arch/x86/include/asm/processor.h (`task_pt_regs`),
//! arch/x86/kernel/ptrace.c, kernel/ptrace.c, v6.18.

use crfs_sys::ptrace::UserRegs;

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::KernelState;
use crate::tasks::{Task, word};

/// Words of `struct pt_regs`.
pub(crate) const WORDS: usize = 21;
/// Bits of DR6 that are 1 in the processor and 0 in the kernel's copy (`DR6_RESERVED`, arch/x86/include/uapi/asm/debugreg.h).
const DR6_RESERVED: u64 = 0xffff_0ff0;

/// Where a thread registered its restartable sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RseqArea {
    /// The area's address.
    pub address: u64,
    /// Its size in bytes, as registered.
    pub size: u32,
    /// The signature that precedes every abort handler.
    pub signature: u32,
}

impl KernelState {
    /// The general registers.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Gone`], [`Error::Read`].
    pub fn registers(&self, task: &Task) -> Result<UserRegs, Error> {
        let view = self.view(Feature::Registers, task)?;
        let stack = view.u64(&[Path::TaskStack])?;
        let mut bytes = [0; WORDS * 8];
        view.bytes_at(stack.wrapping_add(self.known.bits.registers), Path::PtRegs, &mut bytes)?;
        let selector = |path| -> Result<u64, Error> {
            let mut selector = [0; 2];
            view.bytes(&[path], &mut selector)?;
            Ok(u16::from_ne_bytes(selector).into())
        };
        let at = |index: usize| word(&bytes, index * 8);
        Ok(UserRegs {
            r15: at(0),
            r14: at(1),
            r13: at(2),
            r12: at(3),
            rbp: at(4),
            rbx: at(5),
            r11: at(6),
            r10: at(7),
            r9: at(8),
            r8: at(9),
            rax: at(10),
            rcx: at(11),
            rdx: at(12),
            rsi: at(13),
            rdi: at(14),
            orig_rax: at(15),
            rip: at(16),
            cs: at(17),
            eflags: at(18),
            rsp: at(19),
            ss: at(20),
            fs_base: view.u64(&[Path::FsBase])?,
            gs_base: view.u64(&[Path::GsBase])?,
            ds: selector(Path::SelectorDs)?,
            es: selector(Path::SelectorEs)?,
            fs: selector(Path::SelectorFs)?,
            gs: selector(Path::SelectorGs)?,
        })
    }

    /// What stands at a place of the kernel stack where `struct pt_regs` may begin.
    pub(crate) fn stack_words(&self, task: &Task, place: u64) -> Result<[u64; WORDS], Error> {
        let view = self.view(Feature::Registers, task)?;
        let mut bytes = [0; WORDS * 8];
        let stack = view.u64(&[Path::TaskStack])?;
        view.bytes_at(stack.wrapping_add(place), Path::PtRegs, &mut bytes)?;
        Ok(std::array::from_fn(|index| word(&bytes, index * 8)))
    }

    /// DR0 to DR7 as a tracer set them; all 0 where DR7 enables none.
    ///
    /// # Errors
    /// As [`KernelState::registers`].
    pub fn debug_registers(&self, task: &Task) -> Result<[u64; 8], Error> {
        let view = self.view(Feature::DebugRegisters, task)?;
        let mut registers = [0; 8];
        registers[7] = view.u64(&[Path::DebugControl])?;
        if registers[7] == 0 {
            return Ok(registers);
        }
        let mut events = [0; 32];
        view.bytes(&[Path::Breakpoints], &mut events)?;
        for (register, event) in registers.iter_mut().zip((0..4).map(|index| word(&events, index * 8))) {
            if event != 0 {
                *register = view.u64_from(event, &[Path::BreakpointAddress])?;
            }
        }
        registers[6] = view.u64(&[Path::DebugStatus])? ^ DR6_RESERVED;
        Ok(registers)
    }

    /// The signals that the thread blocks, signal 1 in bit 0; while it waits with another mask, as in ppoll(2), those that it returns to.
    ///
    /// # Errors
    /// As [`KernelState::registers`].
    pub fn signal_mask(&self, task: &Task) -> Result<u64, Error> {
        let view = self.view(Feature::SignalMask, task)?;
        let shift = view.resolved(Path::RestoresMask)?.field.bits.map_or(0, |(shift, _)| shift);
        let mut flags = [0];
        view.bytes(&[Path::RestoresMask], &mut flags)?;
        let waits = flags[0] >> shift & 1 != 0;
        view.u64(&[if waits { Path::SavedMask } else { Path::TaskBlocked }])
    }

    /// The thread's area of restartable sequences, None where it registered none.
    ///
    /// # Errors
    /// As [`KernelState::registers`].
    pub fn rseq(&self, task: &Task) -> Result<Option<RseqArea>, Error> {
        let view = self.view(Feature::Rseq, task)?;
        let (size, signature) = (view.u32(&[Path::RseqLength])?, view.u32(&[Path::RseqSignature])?);
        let area = RseqArea { address: view.u64(&[Path::RseqArea])?, size, signature };
        Ok((area.address != 0).then_some(area))
    }
}
