//! `namespaces`: who is in which, and what they hold; and descriptors of them.

use super::Findings;
use super::manifest::node_name;
use crate::files::{FileKind, NamespaceType};
use crate::image::Image;
use crate::layout::{CGROUPS, NAMESPACES, file_entry, id_name, process_file};
use crate::manifest::NamespaceKind;
use crate::namespaces::{CgroupRoot, MountNamespace, NamespaceContent, NetworkNamespace};
use crate::types::{FileId, Pid};
use std::collections::BTreeSet;

pub(super) fn check(image: &Image, findings: &mut Findings) {
    let mut placed: BTreeSet<(NamespaceType, Pid)> = BTreeSet::new();
    let (mut numbers, mut files, mut users) = (0, BTreeSet::new(), 0);
    let mut sockets = BTreeSet::new();
    for (index, namespace) in (0..).zip(&image.namespaces) {
        let may_be_empty = match namespace.content {
            NamespaceContent::Pid(_) => true,
            NamespaceContent::Time(ref time) => !time.for_children_of.is_empty(),
            NamespaceContent::User(ref user) => {
                users += 1;
                !user.container.is_empty() || image.namespaces.iter().any(|other| other.user == Some(users))
            }
            _ => false,
        };
        if namespace.processes.is_empty() && !may_be_empty {
            findings.line(NAMESPACES, index, "processes: nobody is in it");
        }
        if let Some((&first, _)) = image.processes.first_key_value()
            && namespace.processes.contains(&first)
            // That one is joined last of all.
            && namespace.kind() != NamespaceType::User
        {
            let reason = format!("processes: {first} is the first process, whose namespaces are the container's own");
            findings.line(NAMESPACES, index, reason);
        }
        for &pid in &namespace.processes {
            let unknown = !image.processes.contains_key(&pid);
            if unknown || !placed.insert((namespace.kind(), pid)) {
                let reason = if unknown { "is no process of the image" } else { "is in another of its type too" };
                findings.line(NAMESPACES, index, format!("processes: {pid} {reason}"));
            }
        }
        match &namespace.content {
            NamespaceContent::Cgroup(CgroupRoot { root }) => {
                if !image.cgroups.iter().any(|cgroup| cgroup.path == *root && !cgroup.threaded) {
                    let reason = format!("root: no line of {CGROUPS} has {root:?}, or it is threaded");
                    findings.line(NAMESPACES, index, reason);
                }
            }
            NamespaceContent::Ipc(objects) => super::sysv::apart(objects, index, findings),
            NamespaceContent::Mnt(content) => {
                for problem in self::mounts(image, content, &mut numbers, &mut files) {
                    findings.line(NAMESPACES, index, problem);
                }
            }
            NamespaceContent::Net(content) => {
                for problem in network(image, content, &mut sockets) {
                    findings.line(NAMESPACES, index, problem);
                }
            }
            // Others are looked at elsewhere.
            NamespaceContent::Pid(_) | NamespaceContent::Time(_) | NamespaceContent::User(_) => {}
            NamespaceContent::Uts(names) => {
                for (field, name) in [("hostname", &names.hostname), ("domainname", &names.domainname)] {
                    if let Some(problem) = node_name(name) {
                        findings.line(NAMESPACES, index, format!("{field}: {problem}"));
                    }
                }
            }
        }
    }
    for (&pid, process) in &image.processes {
        // Whoever makes a mount namespace, or joins one, gets directories of its own.
        if let Some(other) = process.process.shares.directories
            && image.mounts_of_process(pid) != image.mounts_of_process(other)
        {
            let reason = format!("shares: directories: {other} is in another mount namespace");
            findings.add(&process_file(pid, "process"), reason);
        }
    }
    for (&id, file) in &image.files {
        if let FileKind::Namespace(record) = &file.kind
            && let Some(process) = record.process
            && !placed.contains(&(record.kind, process))
        {
            let kind = record.kind.name();
            let reason = format!("process: no line of {NAMESPACES} has process {process} in one of type {kind}");
            findings.add(&file_entry(id), reason);
        }
    }
}

/// What is wrong with a mount namespace. `numbers` have been given, and `files` are those of earlier lines.
fn mounts(image: &Image, content: &MountNamespace, numbers: &mut u32, files: &mut BTreeSet<FileId>) -> Vec<String> {
    let mut problems = Vec::new();
    *numbers += 1;
    if content.number != *numbers {
        problems.push(format!("number {} stands where {numbers} belongs", content.number));
    }
    if content.base >= content.number {
        problems.push(format!("base {}: no line before has that number", content.base));
    }
    if image.manifest.container.shares(NamespaceKind::Mnt) {
        problems.push("a container that shares the host's mounts has no mount namespace apart".to_owned());
    }
    if !content.files.is_sorted() {
        problems.push("files: they are not in order".to_owned());
    }
    for &file in &content.files {
        let unknown = !image.files.contains_key(&file);
        if unknown || !files.insert(file) {
            let reason = if unknown { "is no file of the image" } else { "is listed twice" };
            problems.push(format!("files: {} {reason}", id_name(file.0)));
        }
    }
    problems
}

/// What is wrong with a network namespace. `sockets` are those of earlier lines.
fn network(image: &Image, content: &NetworkNamespace, sockets: &mut BTreeSet<FileId>) -> Vec<String> {
    let mut problems = Vec::new();
    if !content.sockets.is_sorted() {
        problems.push("sockets: they are not in order".to_owned());
    }
    for &id in &content.sockets {
        let kind = image.files.get(&id).map(|file| &file.kind);
        let unknown = !kind.is_some_and(FileKind::is_socket);
        if unknown || !sockets.insert(id) {
            let reason = if unknown { "is no socket of the image" } else { "is listed twice" };
            problems.push(format!("sockets: {} {reason}", id_name(id.0)));
        }
    }
    problems
}
