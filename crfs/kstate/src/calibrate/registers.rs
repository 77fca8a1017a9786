//! Registers: read from the kernel's memory, and told by ptrace of the same stopped child.

use crfs_sys::{pidfd, ptrace as sys};
use nix::errno::Errno;
use nix::sys::ptrace;
use std::fs;
use std::os::fd::AsFd;

use super::Trouble;
use super::actor::Actor;
use super::checks::same;
use super::scene::{self, Roles, Scene};
use crate::extended::ExtendedLayout;
use crate::feature::Feature;
use crate::paths::Path;
use crate::registers::{RseqArea, WORDS};
use crate::state::KernelState;
use crate::tasks::Task;

/// Where `struct pt_regs` may end below the end of a stack: TOP_OF_KERNEL_STACK_PADDING, with CONFIG_X86_FRED.
const PADDINGS: [u64; 2] = [0, 16];
/// THREAD_SIZE, with CONFIG_KASAN.
const STACKS: [u64; 2] = [16 << 10, 32 << 10];
/// Components of the extended state that any program may use, where the processor has them: x87, SSE, AVX, AVX-512.
const COMPONENTS: u64 = 0b1110_0111;
/// Of these, those behind the first 512 bytes.
const EXTENDED: [u32; 4] = [2, 5, 6, 7];
/// Addresses, status and control of the debug registers: four breakpoints on writes of a byte.
const DEBUG: [u64; 8] = [0x1000, 0x2001, 0x3002, 0x4003, 0, 0, 0xffff_0ff0, 0x1111_00aa];
const AT_HWCAP2: u64 = 26;
/// The kernel lets programs use wrfsbase, and so keeps what they wrote.
const HWCAP2_FSGSBASE: u64 = 2;

/// Gives a stopped child a value of its own in each register. It never runs again. None: there are no breakpoints here.
pub(super) fn dress(actor: &Actor) -> nix::Result<Option<Errno>> {
    let pid = actor.puppet.pid();
    let mut regs = ptrace::getregs(pid)?;
    for (value, register) in (0x0123_4567_89ab_cd00..).zip([
        &mut regs.r15,
        &mut regs.r14,
        &mut regs.r13,
        &mut regs.r12,
        &mut regs.rbp,
        &mut regs.rbx,
        &mut regs.r11,
        &mut regs.r10,
        &mut regs.r9,
        &mut regs.r8,
        &mut regs.rcx,
        &mut regs.rdx,
        &mut regs.rsi,
        &mut regs.rdi,
    ]) {
        *register = value;
    }
    (regs.fs_base, regs.gs_base) = (0x7123_4567_8000, 0x7123_4567_9000);
    ptrace::setregs(pid, regs)?;
    sys::set_xstate(pid, &patterned(sys::xstate(pid)?))?;
    Ok(sys::set_debug_registers(pid, &DEBUG).err())
}

/// A byte of its own at each place where a register is.
fn patterned(mut area: Vec<u8>) -> Vec<u8> {
    let number = |area: &[u8], at: usize| crate::tasks::word(area, at);
    let has = COMPONENTS & number(&area, 464);
    let header = (number(&area, 512) | has).to_ne_bytes();
    let extended = EXTENDED.into_iter().filter(|number| has >> number & 1 != 0).map(crfs_sys::xstate::component);
    let places: Vec<_> = std::iter::once(32..416)
        .chain(extended.map(|found| found.offset as usize..(found.offset + found.size) as usize))
        .collect();
    for place in places {
        for (byte, value) in area.get_mut(place).unwrap_or_default().iter_mut().zip((1..=251).cycle()) {
            *byte = value;
        }
    }
    // FCW and MXCSR with rounding of their own.
    for (at, bytes) in [(0, &0x0b7fu16.to_ne_bytes()[..]), (24, &0x7f80u32.to_ne_bytes()[..]), (512, &header[..])] {
        area.get_mut(at..at + bytes.len()).unwrap_or_default().copy_from_slice(bytes);
    }
    area
}

fn unread(what: &str) -> impl Fn(Errno) -> Trouble {
    move |errno| Trouble::Wrong(format!("reading {what} of a child by ptrace: {}", errno.desc()))
}

fn children<'a>(scene: &'a Scene, roles: &'a Roles) -> [(&'a Actor, &'a Task); 6] {
    [
        (&scene.full, &roles.full),
        (&scene.bare, &roles.bare),
        (&scene.poll, &roles.poll),
        (&scene.poll_forever, &roles.poll_forever),
        (&scene.futex, &roles.futex),
        (&scene.terminal, &roles.terminal),
    ]
}

/// As `struct pt_regs` has them, and then what it has not.
fn words(regs: &sys::UserRegs) -> [u64; WORDS + 6] {
    [
        regs.r15,
        regs.r14,
        regs.r13,
        regs.r12,
        regs.rbp,
        regs.rbx,
        regs.r11,
        regs.r10,
        regs.r9,
        regs.r8,
        regs.rax,
        regs.rcx,
        regs.rdx,
        regs.rsi,
        regs.rdi,
        regs.orig_rax,
        regs.rip,
        regs.cs,
        regs.eflags,
        regs.rsp,
        regs.ss,
        regs.fs_base,
        regs.gs_base,
        regs.ds,
        regs.es,
        regs.fs,
        regs.gs,
    ]
}

/// Where the registers stand in a stack, and how the extended state is laid out.
pub(super) fn learn(state: &mut KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    let told = words(&ptrace::getregs(scene.full.puppet.pid()).map_err(unread("the registers"))?);
    let places = STACKS.iter().flat_map(|stack| PADDINGS.map(|padding| stack - padding - WORDS as u64 * 8));
    let place = places.into_iter().find(|&place| {
        // Behind a stack nothing may lie.
        state.stack_words(&roles.full, place).is_ok_and(|words| told.starts_with(&words))
    });
    state.known.bits.registers =
        place.ok_or_else(|| Trouble::Wrong("a child's registers are not at the end of its kernel stack".to_owned()))?;
    Ok(())
}

/// How the extended state is laid out.
pub(super) fn learn_extended(state: &mut KernelState, scene: &Scene) -> Result<(), Trouble> {
    let told = sys::xstate(scene.bare.puppet.pid()).map_err(unread("the extended state"))?;
    state.known.extended = ExtendedLayout::learn(&told);
    Ok(())
}

pub(super) fn general(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    if !has_fsgsbase() {
        return Err(Trouble::Wrong("processor or kernel lack FSGSBASE".to_owned()));
    }
    scene.dressed.as_ref().map_err(|&errno| unread("and setting the registers")(errno))?;
    for (actor, task) in children(scene, roles) {
        let told = ptrace::getregs(actor.puppet.pid()).map_err(unread("the registers"))?;
        same("the registers", words(&state.registers(task)?), words(&told))?;
    }
    Ok(())
}

fn has_fsgsbase() -> bool {
    let auxiliary = fs::read("/proc/self/auxv").unwrap_or_default();
    let mut entries = auxiliary.chunks_exact(16).map(|entry| [0, 8].map(|at| crate::tasks::word(entry, at)));
    entries.any(|[kind, value]| kind == AT_HWCAP2 && value & HWCAP2_FSGSBASE != 0)
}

pub(super) fn extended(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.dressed.as_ref().map_err(|&errno| unread("and setting the registers")(errno))?;
    for (actor, task) in children(scene, roles) {
        let told = sys::xstate(actor.puppet.pid()).map_err(unread("the extended state"))?;
        let read = state.extended_registers(task)?;
        if let Some(at) = (0..told.len().max(read.len())).find(|&at| told.get(at) != read.get(at)) {
            same(&format!("byte {at} of the extended state"), read.get(at), told.get(at))?;
        }
    }
    Ok(())
}

pub(super) fn debug(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    if let Ok(Some(errno)) | Err(errno) = scene.dressed {
        return Err(Trouble::Wrong(format!("it cannot be tested, setting breakpoints fails here: {}", errno.desc())));
    }
    same("breakpoints", state.debug_registers(&roles.full)?, DEBUG)?;
    let told = sys::debug_registers(scene.full.puppet.pid()).map_err(unread("the debug registers"))?;
    same("breakpoints as ptrace tells them", told, DEBUG)?;
    same("no breakpoints", state.debug_registers(&roles.bare)?, [0; 8])
}

/// One child blocks a signal, another waits with a mask for the wait alone.
pub(super) fn signal_mask(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    for (actor, task) in children(scene, roles) {
        let told = sys::sigmask(actor.puppet.pid()).map_err(unread("the signal mask"))?;
        same("the signal mask", state.signal_mask(task)?, told)?;
    }
    let waiting = state.view(Feature::SignalMask, &roles.bare)?.u64(&[Path::TaskBlocked])?;
    same("the mask of a wait", waiting, scene::WAIT_MASK)?;
    same("the mask behind it", state.signal_mask(&roles.bare)?, 0)
}

/// One child has a signal of its own, which its process has too.
pub(super) fn pending_signals(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.full.outcome("tgkill")?;
    scene.full.outcome("kill")?;
    for (actor, task) in children(scene, roles) {
        for shared in [false, true] {
            let told = sys::peek_siginfo(actor.puppet.pid(), shared).map_err(unread("the pending signals"))?;
            let expected = usize::from(task == &roles.full);
            // SIGCONT waits too where it was sent.
            same("pending signals", told.len().max(expected), told.len())?;
            same("the pending signals", state.pending_signals(task, shared)?, told)?;
        }
    }
    Ok(())
}

pub(super) fn rseq(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.full.outcome("another rseq")?;
    scene.bare.outcome("rseq")?;
    for (actor, task) in children(scene, roles) {
        let told = sys::rseq(actor.puppet.pid()).map_err(unread("the rseq registration"))?;
        let told = told.map(|told| RseqArea { address: told.address, size: told.size, signature: told.signature });
        same("the area", state.rseq(task)?, told)?;
    }
    let read = state.rseq(&roles.full)?.map(|area| (area.address, area.size, area.signature));
    let (size, signature) = scene::RSEQ;
    same("an area", read, Some((scene.at.rseq, size, signature)))?;
    same("no area", state.rseq(&roles.bare)?, None)
}

/// The children have one thread each.
pub(super) fn threads(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    for (actor, task) in children(scene, roles) {
        let pid = actor.puppet.pid();
        let process = pidfd::open(pid, false)
            .map_err(|errno| Trouble::Wrong(format!("opening a pidfd of a child: {}", errno.desc())))?;
        let found = state.threads(process.as_fd(), pid.as_raw())?;
        let found: Vec<_> = found.values().map(|task| (task.tid(), task.tgid(), task.address())).collect();
        same("the threads", found, vec![(pid.as_raw(), pid.as_raw(), task.address())])?;
        same("a stopped one on a processor", state.view(Feature::Threads, task)?.u32(&[Path::TaskOnCpu])?, 0)?;
        same("a traced one in the freezer", state.is_in_freezer(task)?, false)?;
        same("its being there", state.is_there(task), true)?;
    }
    let caller = Task::caller(0);
    same("the caller on a processor", state.view(Feature::Threads, &caller)?.u32(&[Path::TaskOnCpu])?, 1)?;
    Ok(())
}
