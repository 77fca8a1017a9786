//! From the namespaces of processes to the records.

use super::{CARRIED, cgroup, empty};
use crate::failure::{Doing, Failure};
use crate::freezer;
use crate::resource::container::inside::{NET, inside};
use crate::resource::container::uts;
use crate::resource::contents;
use crate::resource::proc::Proc;
use crate::resource::subject::Subjects;
use crate::resource::{Findings, sysv};
use crfs_sys::sockets::loopback_is_up;
use image_format::cgroups::Cgroup;
use image_format::files::NamespaceType;
use image_format::layout::thread_file;
use image_format::namespaces::{NamespaceContent, NetworkNamespace, UnsharedNamespace};
use image_format::{Image, Pid, ProcessImage};
use std::collections::BTreeMap;

/// The records of those that are not the container's first process's, by type and by the first process that is in each. That all threads
/// of a process are in the same is looked at elsewhere ([`crate::resource::container`]). `read` gets what no process has mapped of System V
/// objects. `cgroups` are the container's, which lie below `own`.
///
/// The caller must have one thread.
///
/// # Errors
/// When a process is gone, or a namespace cannot be joined.
pub fn capture(
    subjects: &Subjects,
    (processes, read): (&BTreeMap<Pid, ProcessImage>, &mut sysv::Contents),
    own: &freezer::Cgroup,
    cgroups: &[Cgroup],
    proc: &mut Proc,
    findings: &mut Findings,
) -> Result<Vec<UnsharedNamespace>, Failure> {
    let mut records: Vec<UnsharedNamespace> = Vec::new();
    let mut ipc = 0;
    for kind in CARRIED {
        for members in apart(kind, subjects, proc, findings)? {
            let (first, host) = members[0];
            if matches!(kind, NamespaceType::Ipc | NamespaceType::Net) {
                empty::survey(kind, (first, host), subjects.init, proc, findings)?;
            }
            let content = match kind {
                NamespaceType::Cgroup => match cgroup::root((first, host), own, cgroups, findings)? {
                    Some(root) => NamespaceContent::Cgroup(root),
                    None => continue,
                },
                NamespaceType::Ipc => {
                    ipc += 1;
                    let number = |pid: Pid| members.iter().find(|(known, _)| *known == pid).map(|(_, host)| *host);
                    let attached = contents::attached(processes, number, |_, _| true)?;
                    let (objects, unattached) = sysv::capture((ipc, host), &attached)?;
                    read.extend(unattached);
                    NamespaceContent::Ipc(objects)
                }
                NamespaceType::Net => {
                    let is_up = || loopback_is_up().doing(|| "looking at lo");
                    let loopback = inside(host, &[NET], is_up)?;
                    // Those are known with the descriptors.
                    NamespaceContent::Net(NetworkNamespace { loopback, sockets: Vec::new() })
                }
                NamespaceType::Uts => NamespaceContent::Uts(uts::names(host)?),
                _ => continue,
            };
            let processes = members.into_iter().map(|(pid, _)| pid).collect();
            records.push(UnsharedNamespace { content, processes, user: None });
        }
    }
    Ok(records)
}

/// The processes that are in another namespace of a type than the container's first process, as the container and the host number them: a list
/// a namespace, ordered by the first in each.
///
/// # Errors
/// When a process is gone.
pub(in crate::resource) fn apart(
    kind: NamespaceType,
    subjects: &Subjects,
    proc: &mut Proc,
    findings: &mut Findings,
) -> Result<Vec<Vec<(Pid, i32)>>, Failure> {
    let name = kind.name();
    let own = proc.link(format_args!("{}/ns/{name}", subjects.init))?;
    let mut others: BTreeMap<Vec<u8>, Vec<(Pid, i32)>> = BTreeMap::new();
    let init = subjects.of_init();
    for process in subjects.processes.iter().filter(|process| !process.alive().has_namespaces_of(init)) {
        let (pid, host) = (process.pid, process.alive().host);
        let its = proc.link(format_args!("{host}/ns/{name}"))?;
        if its == own {
            continue;
        }
        // After a restore it would be the first, whose namespaces are the container's own.
        if subjects.processes.first().is_some_and(|lowest| lowest.pid == pid) {
            findings.block(
                thread_file(pid, pid, "attr"),
                format!(
                    "is in another namespace of kind {name} than the container's first process, and has a lower id"
                ),
                "Start all of it anew, by `crctl run`",
            );
        }
        others.entry(its).or_default().push((pid, host));
    }
    let mut others: Vec<Vec<(Pid, i32)>> = others.into_values().collect();
    others.sort_unstable();
    Ok(others)
}

/// Obstacles of other records, once all are known.
pub fn report(image: &Image, findings: &mut Findings) {
    empty::report(image, findings);
}
