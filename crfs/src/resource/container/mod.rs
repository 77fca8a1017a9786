//! The container as a whole: its clocks and names, the kernel and CPU it ran on, and what its namespaces hold.
//!
//! - **What:** what `manifest` says beside the list of paths; and sockets without owner, which belong to a namespace and to no process.
//! - **Where:** `struct nsproxy` and the namespaces it points to (`include/linux/nsproxy.h`, v6.18).
//! - **Read:** /proc/PID/net, /proc/PID/timens_offsets; uts by joining it for a moment
//!   (`setns` in the worker, never in a task of the container).
//! - **Made again:** by launching a fresh first process with the same surroundings, which is why whatever a fresh one would not
//!   have is refused.
//! - **Refused:** nested namespaces but those that processes may have apart ([`super::unshared`], [`super::pid_namespace`],
//!   [`super::user_namespace`]), orphaned sockets, network interfaces beside `lo`.

mod cpu;
pub mod home;
mod host;
pub(super) mod inside;
mod manifest;
mod moment;
mod namespaces;
pub(super) mod network;
mod place;
pub mod restore;
pub(super) mod uts;

pub use manifest::{Environment, manifest};
pub use moment::{Moment, Offsets};
pub use place::Place;
pub(in crate::resource) use place::other_name;

use super::Findings;
use super::proc::Proc;
use super::subject::Subjects;
use crate::failure::Failure;
use crate::registry::Record;
use image_format::manifest::NamespaceKind;

/// Obstacles that the container's namespaces hold.
///
/// # Errors
/// When the container's first process is gone.
pub fn survey(record: &Record, subjects: &Subjects, proc: &mut Proc, findings: &mut Findings) -> Result<(), Failure> {
    namespaces::survey(record, subjects, proc, findings)?;
    if !record.shares(NamespaceKind::Mnt) {
        super::mount::survey(record, subjects.init, proc, findings)?;
    }
    if !record.shares(NamespaceKind::Net) {
        network::survey(subjects.init, proc, findings)?;
    }
    Ok(())
}
