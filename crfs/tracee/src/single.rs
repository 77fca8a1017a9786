//! Calls made one by one in a program that lives already and is to notice nothing of them.
//!
//! Nothing is mapped: data stands below the stack while they are made, beyond the 128 bytes that a function may use without moving its
//! stack pointer (System V ABI, 3.2.2), and what stood there before is put back.

use crfs_sys::memory;
use libc::c_long;

use crate::{Batch, Gadget, InjectError, Injector, RemoteAddress, Scratch, Stopped, Tracee};

/// What a function may use below its stack pointer.
const RED_ZONE: u64 = 128;
/// `syscall`
const INSTRUCTION: [u8; 2] = [0x0f, 0x05];

impl Gadget {
    /// A `syscall` instruction that the program has anyway: that of the call it is in, or one of the vDSO, which makes a call where the
    /// processor's clock will not do. `None` for a program that computes and has unmapped its vDSO.
    #[must_use]
    pub fn of_program(tracee: &Tracee<Stopped>) -> Option<Self> {
        Self::of_blocked_call(tracee).or_else(|| of_vdso(tracee))
    }
}

fn of_vdso(tracee: &Tracee<Stopped>) -> Option<Gadget> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", tracee.tid().raw())).ok()?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]"))?;
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    let mut code = vec![0; usize::try_from(end.checked_sub(start)?).ok()?];
    memory::read(tracee.tid().pid(), start, &mut code).ok()?;
    let offset = code.windows(INSTRUCTION.len()).position(|bytes| bytes == INSTRUCTION)?;
    Some(Gadget(RemoteAddress(start + offset as u64)))
}

/// A call as registers hold it.
#[derive(Debug)]
pub(crate) struct Plain {
    pub(crate) nr: c_long,
    pub(crate) args: [u64; 6],
    pub(crate) must_succeed: bool,
}

impl Injector {
    /// Takes over a tracee without mapping anything in it: for [`Injector::run_singly`] and calls without data.
    ///
    /// # Errors
    /// When its registers cannot be read.
    pub fn without_scratch(tracee: Tracee<Stopped>, gadget: Gadget) -> Result<Self, InjectError> {
        Self::begin(tracee, Scratch { base: RemoteAddress(0), len: 0 }, gadget)
    }

    /// Makes the calls of a batch one by one, with its data below the stack. What calls write there is not told.
    ///
    /// # Errors
    /// [`InjectError::Call`] names the first call that must succeed and did not; [`InjectError::Memory`] when there is no room below
    /// the stack, and nothing has been done then.
    pub fn run_singly(&mut self, batch: &Batch) -> Result<(), InjectError> {
        let mut data = batch.bytes().to_vec();
        let at = RemoteAddress(self.stack_pointer().wrapping_sub(RED_ZONE + data.len() as u64) & !15);
        batch.relocate(&mut data, &(0..batch.bytes().len()), at);
        let mut before = vec![0; data.len()];
        self.read(at, &mut before)?;
        self.write(at, &data)?;
        let ran = self.run_each(batch, at);
        let put_back = self.write(at, &before);
        ran.and(put_back)
    }

    fn run_each(&mut self, batch: &Batch, data: RemoteAddress) -> Result<(), InjectError> {
        let mut results = Vec::with_capacity(batch.len());
        for index in 0..batch.len() {
            let Plain { nr, args, must_succeed } = batch.plain(index, data, &results)?;
            let label = batch.label(index);
            results.push(if must_succeed { self.call(nr, &args, label)? } else { self.attempt(nr, &args, label)? });
        }
        Ok(())
    }
}
