//! Numbers that the kernel keeps for each processor by itself.
//!
//! A pointer to such a number is an offset into the memory of each processor. Where these lie is told by an array of our own that the kernel
//! keeps in the same way: the addresses of its parts are known from inside, and its pointer from the structure around it.

use crate::error::Error;
use crate::files;
use crate::paths::Path;
use crate::state::{KernelState, View};
use crate::tasks::Task;
use std::os::fd::AsRawFd;

impl KernelState {
    /// The four bytes that each processor has behind this pointer; `what` names them in an error.
    ///
    /// # Errors
    /// [`Error::FeatureOff`] where the memory of the processors cannot be found; [`Error::Read`].
    pub(crate) fn of_each_processor(&self, view: &View<'_>, pointer: u64, what: Path) -> Result<Vec<[u8; 4]>, Error> {
        let off = |error: std::io::Error| Error::FeatureOff { feature: view.feature(), why: error.to_string() };
        let per_cpu = self.reader.per_cpu().map_err(off)?;
        let own = self.view(view.feature(), &Task::caller(0))?;
        let array = files::file(&own, per_cpu.array().as_raw_fd())?;
        let template = own.u64_from(array, &[Path::FilePrivate, Path::ArrayPerCpu])?;
        let read = |address: &u64| {
            let mut number = [0; 4];
            view.bytes_at(pointer.wrapping_add(address.wrapping_sub(template)), what, &mut number)?;
            Ok(number)
        };
        per_cpu.addresses().iter().map(read).collect()
    }
}
