//! Captures `ldt`.

use super::super::kernel::Kernel;
use super::super::subject::Process;
use crate::failure::Failure;
use image_format::layout;
use image_format::ldt::LdtEntry;

/// Reads the entries that are in use.
///
/// # Errors
/// When the process is gone.
pub fn capture(process: &Process, kernel: &mut Kernel) -> Result<Vec<LdtEntry>, Failure> {
    let path = layout::process_file(process.pid, "ldt");
    let table = kernel.ask(process.alive().host, &path, |state, task| state.ldt(task))?.unwrap_or_default();
    Ok((0..).zip(table).filter_map(|(entry, descriptor)| LdtEntry::from_descriptor(entry, descriptor)).collect())
}
