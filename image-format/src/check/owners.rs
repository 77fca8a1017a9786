//! Who is signalled about a description: somebody who is there, told by somebody who has it.

use super::Findings;
use crate::files::OwnerKind;
use crate::image::Image;
use crate::layout::file_entry;
use crate::types::{FileId, Pid};
use std::collections::BTreeSet;

pub(super) fn check(image: &Image, findings: &mut Findings) {
    let held: BTreeSet<FileId> = image.tables().flat_map(|table| table.fds).map(|fd| fd.file).collect();
    for (&id, file) in &image.files {
        let Some(owner) = &file.owner else { continue };
        let path = file_entry(id);
        let (what, there) = match owner.kind {
            OwnerKind::Process => ("process", image.processes.contains_key(&owner.id)),
            OwnerKind::Thread => {
                ("thread", image.processes.values().any(|process| process.threads.contains_key(&owner.id)))
            }
            OwnerKind::Group => {
                ("process group", image.processes.values().any(|process| process.process.group == owner.id))
            }
        };
        if owner.id != Pid(0) && !there {
            findings.add(&path, format!("owner: there is no {what} {}", owner.id));
        }
        if owner.id == Pid(0) && (owner.uid, owner.euid) != (0, 0) {
            findings.add(&path, "owner: nobody is signalled, so nobody said so: uid and euid are 0");
        }
        if !held.contains(&id) {
            findings.add(&path, "owner: no process has it open");
        }
    }
}
