//! Registers, and the system call a thread was in.

use crate::failure::{Failure, Kind};
use crfs_sys::ptrace::xstate_size;
use crfs_tracee::{InjectError, Injector, UserRegs};
use image_format::thread::{FpuState, Registers, Resume, Tls};
use image_format::{ThreadImage, Timespec};

/// The register set a thread goes on with.
#[must_use]
pub fn user_regs(registers: &Registers, tls: &Tls) -> UserRegs {
    UserRegs {
        r15: registers.r15.0,
        r14: registers.r14.0,
        r13: registers.r13.0,
        r12: registers.r12.0,
        rbp: registers.rbp.0,
        rbx: registers.rbx.0,
        r11: registers.r11.0,
        r10: registers.r10.0,
        r9: registers.r9.0,
        r8: registers.r8.0,
        rax: registers.rax.0,
        rcx: registers.rcx.0,
        rdx: registers.rdx.0,
        rsi: registers.rsi.0,
        rdi: registers.rdi.0,
        orig_rax: registers.orig_rax.0,
        rip: registers.rip.0,
        cs: registers.cs.0,
        eflags: registers.eflags.0,
        rsp: registers.rsp.0,
        ss: registers.ss.0,
        fs_base: tls.fs_base.0,
        gs_base: tls.gs_base.0,
        ds: registers.ds.0,
        es: registers.es.0,
        fs: registers.fs.0,
        gs: registers.gs.0,
    }
}

/// The extended state, with the room that this CPU wants: a component the CPU has beyond the image's is in its initial state.
///
/// # Errors
/// [`Kind::Incompatible`] for what this CPU has no room for.
pub fn xstate(fpu: &FpuState) -> Result<Vec<u8>, Failure> {
    let (needed, size) = (fpu.xstate.end(), xstate_size());
    if needed > size as u64 {
        let reason = format!(
            "thread: xstate goes to {needed} bytes and this CPU's extended state to {size}; it lacks registers"
        );
        return Err(Failure::new(Kind::Incompatible, reason));
    }
    Ok(fpu.xstate.area(size))
}

/// Takes up again the system call a thread was interrupted in, where the kernel needs more than registers for it. Returns the rax
/// to go on with.
///
/// # Errors
/// Of the injection.
pub fn reenter(injector: &mut Injector, thread: &ThreadImage) -> Result<u64, InjectError> {
    let regs = &thread.frame.registers;
    let Some(Resume::Remaining(remaining)) = thread.frame.syscall.as_ref().map(|call| &call.resume) else {
        return Ok(regs.rax.0);
    };
    let nr = regs.orig_rax.0.cast_signed();
    let args = [regs.rdi.0, regs.rsi.0, regs.rdx.0, regs.r10.0, regs.r8.0, regs.r9.0];
    let rax = match nr {
        libc::SYS_nanosleep => {
            let time = injector.place(&timespec(*remaining))?;
            injector.enter_and_interrupt(nr, &[time.0, args[1]], "nanosleep")?
        }
        libc::SYS_clock_nanosleep => {
            let time = injector.place(&timespec(*remaining))?;
            injector.enter_and_interrupt(nr, &[args[0], args[1], time.0, args[3]], "clock_nanosleep")?
        }
        libc::SYS_poll => {
            let ns = u64::try_from(remaining.ns()).unwrap_or(0);
            let ms = ns.div_ceil(1_000_000).min(i32::MAX.cast_unsigned().into());
            injector.enter_and_interrupt(nr, &[args[0], args[1], ms], "poll")?
        }
        libc::SYS_futex => {
            let time = injector.place(&timespec(*remaining))?;
            injector.enter_and_interrupt(nr, &[args[0], args[1], args[2], time.0, args[4], args[5]], "futex")?
        }
        // Nothing else has a restart block, and begins again from its registers.
        _ => return Ok((-514i64).cast_unsigned()),
    };
    Ok(rax.cast_unsigned())
}

pub(super) fn timespec(time: Timespec) -> [u8; 16] {
    let mut bytes = [0; 16];
    // The end may have passed while the image lay still; a negative time is refused, none is over at once.
    let time = Timespec::from_ns(time.ns().max(0));
    bytes[..8].copy_from_slice(&time.sec.to_ne_bytes());
    bytes[8..].copy_from_slice(&i64::from(time.nsec).to_ne_bytes());
    bytes
}
