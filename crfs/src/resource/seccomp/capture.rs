//! Captures what seccomp allows a thread, and the filters of all threads.

use super::super::Findings;
use super::super::kernel::Kernel;
use super::super::still::Still;
use super::super::subject::Thread;
use crate::failure::{Doing, Failure};
use image_format::Blob;
use image_format::seccomp::{Seccomp, SeccompFilter, SeccompFlags};
use std::collections::BTreeMap;

/// `Seccomp` of /proc/PID/status: SECCOMP_MODE_DISABLED, SECCOMP_MODE_STRICT, SECCOMP_MODE_FILTER.
const DISABLED: u32 = 0;
const STRICT: u32 = 1;
const FILTER: u32 = 2;

/// The filters of the threads that were read so far, each once.
#[derive(Debug, Default)]
pub struct Filters {
    lines: Vec<SeccompFilter>,
    /// Numbers by content: what a filter stands on, its flags, its program.
    numbers: BTreeMap<(Option<u32>, u64, Blob), u32>,
    /// Numbers by where the kernel keeps a filter, while all stand still.
    addresses: BTreeMap<u64, u32>,
}

impl Filters {
    /// The lines of `seccomp`.
    #[must_use]
    pub fn into_lines(self) -> Vec<SeccompFilter> {
        self.lines
    }

    /// Reads what a thread is allowed. `path` is its `attr`.
    ///
    /// # Errors
    /// When the thread is gone, or the worker may not read filters: it lacks CAP_SYS_ADMIN or is under seccomp itself.
    pub fn capture(
        &mut self,
        still: &Still,
        thread: &Thread,
        path: &str,
        kernel: &mut Kernel,
        findings: &mut Findings,
    ) -> Result<Seccomp, Failure> {
        match thread.status.seccomp {
            DISABLED => Ok(Seccomp::None),
            STRICT => Ok(Seccomp::Strict),
            FILTER => self.chain(still, thread.host, path, kernel, findings),
            mode => {
                findings.block(path, format!("is in seccomp mode {mode}, which is not known here"), "End it");
                Ok(Seccomp::None)
            }
        }
    }

    fn chain(
        &mut self,
        still: &Still,
        host: i32,
        path: &str,
        kernel: &mut Kernel,
        findings: &mut Findings,
    ) -> Result<Seccomp, Failure> {
        // Without it the report has an obstacle, and nothing is taken for known.
        let known = kernel.ask(host, path, |state, task| state.seccomp_filters(task))?.unwrap_or_default();
        if known.iter().any(|filter| filter.has_listener) {
            findings.block(
                path,
                "asks a supervisor about its system calls (a seccomp filter with a listener), which is not carried",
                "Start it without; a supervisor cannot be moved with it",
            );
        }
        let newest = known.first().map(|filter| filter.address);
        if let Some(&number) = newest.and_then(|address| self.addresses.get(&address)) {
            return Ok(Seccomp::Filter(number));
        }
        let mut after = None;
        let Some(tracee) = still.stopped() else {
            findings.block(
                path,
                "waits in vfork and has system call filters, which only a thread that stops for its tracer tells",
                "Let the process that it waits for go on to exec or exit, or end it",
            );
            return Ok(Seccomp::None);
        };
        for filter in tracee.seccomp_filters().doing(|| path.to_owned())? {
            let instructions = filter.instructions.iter();
            let program = instructions.flat_map(|instruction| {
                let ([c0, c1], [k0, k1, k2, k3]) = (instruction.code.to_ne_bytes(), instruction.k.to_ne_bytes());
                [c0, c1, instruction.jt, instruction.jf, k0, k1, k2, k3]
            });
            after = Some(self.number(after, filter.flags, Blob(program.collect())));
        }
        if let (Some(address), Some(number)) = (newest, after) {
            self.addresses.insert(address, number);
        }
        Ok(after.map_or(Seccomp::None, Seccomp::Filter))
    }

    /// The number of a filter, a new one if it was not met before.
    fn number(&mut self, after: Option<u32>, flags: u64, program: Blob) -> u32 {
        let next = u32::try_from(self.lines.len()).unwrap_or(u32::MAX).saturating_add(1);
        let number = *self.numbers.entry((after, flags, program.clone())).or_insert(next);
        if number == next {
            self.lines.push(SeccompFilter { filter: number, after, flags: SeccompFlags(flags), program });
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_on_the_same_is_there_once() {
        let mut filters = Filters::default();
        let program = |byte| Blob(vec![byte; 8]);
        let first = filters.number(None, 0, program(1));
        let second = filters.number(Some(first), 0, program(2));
        assert_eq!((first, second), (1, 2));
        assert_eq!(filters.number(None, 0, program(1)), first);
        assert_eq!(filters.number(Some(first), 0, program(2)), second);
        assert_eq!(filters.number(Some(second), 0, program(2)), 3);
        assert_eq!(filters.number(None, 2, program(1)), 4);
        assert_eq!(filters.into_lines().len(), 4);
    }
}
