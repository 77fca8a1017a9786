//! Puts threads under seccomp again. PTRACE_O_SUSPEND_SECCOMP lets them make calls nevertheless, until it is cleared.

use crate::failure::{Failure, Kind};
use crfs_tracee::{Batch, SeizeOptions};
use image_format::seccomp::{Seccomp, SeccompFilter};
use image_format::{Image, layout};

const PR_SET_SECCOMP: u64 = 22;
const SECCOMP_MODE_STRICT: u64 = 1;
const SECCOMP_SET_MODE_FILTER: u64 = 1;
/// SECCOMP_FILTER_FLAG_SPEC_ALLOW: no filter changes how the CPU speculates, which is restored by itself.
const SPEC_ALLOW: u64 = 4;

/// How the tasks of this image are traced while it is built. Filters are suspended only where there are any: the option is not on
/// every kernel (CONFIG_CHECKPOINT_RESTORE), nor for a worker that is itself under seccomp.
#[must_use]
pub fn seize_options(image: &Image) -> SeizeOptions {
    let threads = image.processes.values().flat_map(|process| process.threads.values());
    let suspend_seccomp = threads.into_iter().any(|thread| thread.attr.seccomp != Seccomp::None);
    SeizeOptions { suspend_seccomp, ..SeizeOptions::BUILD }
}

/// The filter of this number.
///
/// # Errors
/// [`Kind::BadImage`] when there is none.
pub fn find(filters: &[SeccompFilter], number: u32) -> Result<&SeccompFilter, Failure> {
    let found = filters.iter().find(|filter| filter.filter == number);
    found.ok_or_else(|| Failure::new(Kind::BadImage, format!("{}: there is no filter {number}", layout::SECCOMP)))
}

/// The call that puts a filter on top of those a thread has. It wants CAP_SYS_ADMIN or no_new_privs, so it comes before credentials.
pub fn install(batch: &mut Batch, filter: &SeccompFilter) {
    let instructions = filter.program.0.len() / size_of::<libc::sock_filter>();
    let program = batch.data(&filter.program.0);
    // struct sock_fprog: a length of 16 bits, padded, and the address of the instructions.
    let descriptor = batch.data(&[instructions as u64, 0].map(u64::to_ne_bytes).concat());
    batch.point(descriptor.from(8), program);
    let args = [SECCOMP_SET_MODE_FILTER.into(), (filter.flags.0 | SPEC_ALLOW).into(), descriptor.into()];
    batch.call(libc::SYS_seccomp, &args, "seccomp");
}

/// The call that leaves a thread read, write, exit and sigreturn, if it had no more. It also takes the time stamp counter away.
pub fn strict(batch: &mut Batch, seccomp: Seccomp) {
    if seccomp == Seccomp::Strict {
        batch.call(libc::SYS_prctl, &[PR_SET_SECCOMP.into(), SECCOMP_MODE_STRICT.into()], "prctl(PR_SET_SECCOMP)");
    }
}
