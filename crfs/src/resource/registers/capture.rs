//! Captures the registers of a stopped thread.

use super::super::Findings;
use super::super::container::Moment;
use super::super::kernel::Kernel;
use super::super::still::Still;
use super::restore::user_regs;
use super::resume::{self, Wait};
use super::sequence;
use crate::failure::Failure;
use crfs_kstate::RestartBlock;
use crfs_tracee::UserRegs;
use image_format::Timespec;
use image_format::thread::{FpuState, Frame, Registers, Tls};
use image_format::types::{Address, Hex};
use image_format::xstate::Xstate;

/// Code segment selectors of 64-bit and 32-bit programs (`__USER_CS`, `__USER32_CS` in `arch/x86/include/asm/segment.h`).
const USER32_CS: u64 = 0x23;
/// Set in the number of a call of the x32 ABI.
const X32_BIT: i64 = 0x4000_0000;
/// In `FLAGS_*` of `kernel/futex/futex.h`: the time is of CLOCK_REALTIME.
const FLAGS_CLOCKRT: u32 = 0x20;

/// What is captured of a thread's registers.
#[derive(Clone, Debug)]
pub struct Captured {
    /// `thread`.
    pub fpu: FpuState,
    /// `thread.frame`.
    pub frame: Frame,
    /// `tls`.
    pub tls: Tls,
}

/// Reads the registers. `object` is the thread's directory; `wait_end_ns` is when the call it is in was to end, in the host's
/// CLOCK_MONOTONIC, where that was seen before the freeze.
///
/// # Errors
/// When the thread is gone.
pub fn capture(
    still: &Still,
    object: &str,
    kernel: &mut Kernel,
    moment: &Moment,
    wait_end_ns: Option<u64>,
    findings: &mut Findings,
) -> Result<Captured, Failure> {
    let path = format!("{object}/thread");
    let xstate = still.xstate(&path, kernel)?.unwrap_or_default();
    let debug = still.debug_registers(&path, kernel)?.unwrap_or_default();
    // What cannot be told is an obstacle, and the record is of no use.
    let unknown = || user_regs(&Registers::default(), &Tls { fs_base: Address(0), gs_base: Address(0) });
    let regs = still.regs(&format!("{object}/thread.frame"), kernel)?.unwrap_or_else(unknown);
    let number = regs.orig_rax.cast_signed();
    if regs.cs == USER32_CS || (number > 0 && number & X32_BIT != 0) {
        findings.block(
            format!("{object}/thread.frame"),
            "runs 32-bit code, which has registers, system calls and structures of its own",
            "Use a 64-bit build of the program",
        );
    }
    let mut number = number;
    if number == libc::SYS_restart_syscall {
        number = restarted(still, &regs, object, kernel, findings)?;
    }
    let remaining = match resume::wait(number.cast_unsigned(), regs.rax.cast_signed(), regs.rsi) {
        Some(wait) => remaining(wait, still.tid().raw(), object, kernel, moment)?,
        None => wait_end_ns.map(|end| left(end.into(), moment.monotonic_ns)),
    };
    let (rax, syscall) = resume::decide(number, regs.rax.cast_signed(), remaining);
    // A section makes no system calls.
    let abort =
        if regs.orig_rax.cast_signed() < 0 { sequence::abort_handler(still, &path, regs.rip, kernel)? } else { None };
    let registers = Registers {
        r15: Hex(regs.r15),
        r14: Hex(regs.r14),
        r13: Hex(regs.r13),
        r12: Hex(regs.r12),
        rbp: Hex(regs.rbp),
        rbx: Hex(regs.rbx),
        r11: Hex(regs.r11),
        r10: Hex(regs.r10),
        r9: Hex(regs.r9),
        r8: Hex(regs.r8),
        rax: Hex(rax.cast_unsigned()),
        rcx: Hex(regs.rcx),
        rdx: Hex(regs.rdx),
        rsi: Hex(regs.rsi),
        rdi: Hex(regs.rdi),
        orig_rax: Hex(number.cast_unsigned()),
        rip: Hex(abort.unwrap_or(regs.rip)),
        cs: Hex(regs.cs),
        eflags: Hex(regs.eflags),
        rsp: Hex(regs.rsp),
        ss: Hex(regs.ss),
        ds: Hex(regs.ds),
        es: Hex(regs.es),
        fs: Hex(regs.fs),
        gs: Hex(regs.gs),
    };
    let [dr0, dr1, dr2, dr3, _, _, dr6, dr7] = debug;
    Ok(Captured {
        fpu: FpuState { xstate: Xstate::of(&xstate), debug: [dr0, dr1, dr2, dr3, dr6, dr7].map(Hex) },
        frame: Frame { registers, syscall },
        tls: Tls { fs_base: Address(regs.fs_base), gs_base: Address(regs.gs_base) },
    })
}

/// The call that restart_syscall(2) stands for: what the kernel enters in the place of a wait that was frozen and thawed before. A
/// new task has nothing that it could continue, but the call's own arguments are still in the registers.
fn restarted(
    still: &Still,
    regs: &UserRegs,
    object: &str,
    kernel: &mut Kernel,
    findings: &mut Findings,
) -> Result<i64, Failure> {
    let path = format!("{object}/thread.frame");
    // Clock ids are small, or negative in 32 bits for processor clocks; an address is neither.
    let is_clock = regs.rdi < 0x1000 || u32::try_from(regs.rdi).is_ok_and(|id| id.cast_signed() < 0);
    Ok(match kernel.ask(still.tid().raw(), &path, |state, task| state.restart_block(task))? {
        Some(RestartBlock::Nanosleep(_)) if is_clock => libc::SYS_clock_nanosleep,
        Some(RestartBlock::Nanosleep(_)) => libc::SYS_nanosleep,
        Some(RestartBlock::Poll(_)) => libc::SYS_poll,
        Some(RestartBlock::Futex(_)) => libc::SYS_futex,
        // The wait is over, and the call is on its way out.
        Some(RestartBlock::None) if resume::is_over(regs.rax.cast_signed()) => libc::SYS_restart_syscall,
        Some(RestartBlock::None | RestartBlock::Other { .. }) => {
            findings.block(
                path,
                "waits in a call that was interrupted before and that the kernel continues in a way not known here",
                "Freeze it again when that wait is over",
            );
            libc::SYS_restart_syscall
        }
        // The kernel state reader is off, and has said so.
        None => libc::SYS_restart_syscall,
    })
}

fn left(expires: i128, now: i64) -> Timespec {
    Timespec::from_ns((expires - i128::from(now)).max(0))
}

/// What remained of a wait at the moment of the freeze. `None` for one without end, and for one on a clock whose time
/// cannot be told from here: that call starts again in full.
fn remaining(
    wait: Wait,
    host: i32,
    object: &str,
    kernel: &mut Kernel,
    moment: &Moment,
) -> Result<Option<Timespec>, Failure> {
    let object = format!("{object}/thread.frame");
    let block = kernel.ask(host, &object, |state, task| state.restart_block(task))?;
    Ok(match (wait, block) {
        (Wait::Sleep, Some(RestartBlock::Nanosleep(sleep))) => {
            moment.of_clock(sleep.clockid).map(|now| left(i128::from(sleep.expires_ns), now))
        }
        (Wait::Poll, Some(RestartBlock::Poll(poll))) => poll.expires.map(|(seconds, nanoseconds)| {
            left(i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds), moment.monotonic_ns)
        }),
        (Wait::Futex, Some(RestartBlock::Futex(futex))) => {
            let realtime = futex.flags & FLAGS_CLOCKRT != 0;
            let now = if realtime { moment.realtime_ns } else { moment.monotonic_ns };
            Some(left(i128::from(futex.time_ns), now))
        }
        _ => None,
    })
}
