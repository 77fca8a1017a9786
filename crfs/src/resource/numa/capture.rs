//! Captures `numa`.

use super::super::Findings;
use super::super::kernel::Kernel;
use super::super::subject::Process;
use super::shared::Objects;
use crate::failure::Failure;
use crfs_kstate::{Mapped, NumaPolicy as Read};
use image_format::memory::Backing;
use image_format::numa::{NumaFlags, NumaMode, NumaOwner, NumaPolicy};
use image_format::{Pid, ProcessImage, layout};
use std::collections::BTreeMap;

/// Reads the policies of all processes, whose mappings and threads are known.
///
/// # Errors
/// When a process is gone.
pub fn capture(
    subjects: &[Process],
    images: &mut BTreeMap<Pid, ProcessImage>,
    kernel: &mut Kernel,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let mut objects = Objects::default();
    for process in subjects {
        let Some(image) = images.get_mut(&process.pid) else { continue };
        let path = layout::process_file(process.pid, "numa");
        let mut lines = Vec::new();
        for thread in process.threads.iter().filter(|thread| image.threads.contains_key(&thread.tid)) {
            let read = kernel.ask(thread.host, &path, |state, task| state.thread_policy(task))?.flatten();
            lines.extend(read.and_then(|read| line(&path, NumaOwner::Thread(thread.tid), read, findings)));
        }
        let host = process.alive().host;
        // A process with another's memory has no mappings in the image.
        let mapped = match image.segments.is_empty() {
            true => Vec::new(),
            false => kernel.ask(host, &path, |state, task| state.mapped(task))?.unwrap_or_default(),
        };
        let at: BTreeMap<u64, &Mapped> = mapped.iter().map(|mapped| (mapped.start, mapped)).collect();
        for segment in &image.segments {
            let Some(&mapped) = at.get(&segment.start.0) else { continue };
            let owner = NumaOwner::Mapping(segment.start);
            let mut own = None;
            if mapped.has_policy() {
                own = kernel.ask(host, &path, |state, task| state.mapping_policy(task, mapped))?.flatten();
                lines.extend(own.clone().and_then(|read| line(&path, owner, read, findings)));
            }
            // The policies of a file with a name stay with it.
            let carried =
                matches!(segment.backing, Backing::SharedAnonymous(_) | Backing::Unnamed(_) | Backing::SysvShm(_));
            if segment.shared && carried {
                objects.meet(host, &path, mapped, own, kernel)?;
            }
        }
        lines.sort_by_key(|line| line.of);
        image.numa = lines;
    }
    objects.report(findings);
    Ok(())
}

/// None, and an obstacle, for a mode that is not known.
fn line(path: &str, of: NumaOwner, read: Read, findings: &mut Findings) -> Option<NumaPolicy> {
    let Some(mode) = NumaMode::from_number(read.mode) else {
        findings.block(
            path,
            format!("has a NUMA policy of mode {}, which is not known here", read.mode),
            "Use another",
        );
        return None;
    };
    // Of those that are kept with the mode local, none counts.
    let nodes = if mode == NumaMode::Local { Vec::new() } else { read.nodes };
    Some(NumaPolicy { of, mode, flags: NumaFlags(read.flags.into()), nodes, home_node: read.home_node })
}
