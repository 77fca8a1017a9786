//! Whether a tree that lived in the host's pid namespace can come back there.

use super::super::proc::{Proc, Stat};
use crate::failure::Failure;
use crate::plan::Home;

use image_format::manifest::NamespaceKind;
use image_format::{Image, Pid, layout};
use std::collections::BTreeMap;

/// Where the image goes, with what the user should know of that among the notes. An id that is taken after this look fails the build.
///
/// # Errors
/// When /proc cannot be listed.
pub fn choose(image: &Image, notes: &mut Vec<String>) -> Result<Home, Failure> {
    if !image.manifest.container.shares(NamespaceKind::Pid) {
        return Ok(Home::Own);
    }
    let used = ids_in_use()?;
    let taken = ids(image).into_iter().find_map(|(id, pid)| Some((id, pid, used.get(&id)?)));
    let adopts = if let Some((id, pid, user)) = taken {
        let path = layout::process_file(pid, "process");
        notes.push(format!(
            "{path}: id {id} is in use on this host (by process {user}), so all of it runs in a pid namespace of its own"
        ));
        "process 1, which is no part of the image"
    } else {
        "the host's init or subreaper"
    };
    for process in image.processes.values().filter(|process| process.process.parent == Pid(0)) {
        let path = layout::process_file(process.process.pid, "process");
        notes.push(format!("{path}: its parent was outside of the container; now it is {adopts}"));
    }
    Ok(if taken.is_some() { Home::Stub } else { Home::Host(used.into_keys().collect()) })
}

/// Every id that a restore asks the kernel for, with the process it is told of.
fn ids(image: &Image) -> BTreeMap<Pid, Pid> {
    let mut ids = BTreeMap::new();
    for (&pid, process) in &image.processes {
        let threads = process.threads.keys().copied();
        let zombies = process.threads.values().flat_map(|thread| &thread.zombies);
        let zombies = zombies.flat_map(|zombie| [zombie.pid, zombie.group, zombie.session]);
        let own = threads.chain(zombies).chain([process.process.group, process.process.session]);
        ids.extend(own.map(|id| (id, pid)));
    }
    ids
}

/// Every id that some task of this pid namespace has, or is in the group or session of; with such a process.
fn ids_in_use() -> Result<BTreeMap<Pid, i32>, Failure> {
    let mut proc = Proc::open()?;
    let mut used = BTreeMap::new();
    for pid in proc.numbers(format_args!(""))? {
        // Gone since it was listed.
        let Ok(stat) = Stat::read(&mut proc, &format!("{pid}/stat")) else { continue };
        let threads = proc.numbers(format_args!("{pid}/task")).unwrap_or_default();
        for id in threads.into_iter().chain([pid, stat.group, stat.session]) {
            used.insert(Pid(id.unsigned_abs()), pid);
        }
    }
    Ok(used)
}
