//! From the links and maps of processes to the records.

use crate::failure::{Doing, Failure, Kind};
use crate::resource::Findings;
use crate::resource::proc::Proc;
use crate::resource::subject::Subjects;
use crfs_sys::namespaces::{owner, owner_uid, parent};
use image_format::files::NamespaceType;
use image_format::layout::{process_file, thread_file};
use image_format::namespaces::{NamespaceContent, UnsharedNamespace};
use image_format::user_namespaces::{IdRange, UserNamespace};
use image_format::{Image, Pid};
use nix::sys::stat::fstat;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

/// Types that belong to a user namespace, by their links' names; those of pid namespaces are looked at with these.
const OWNED: [&str; 6] = ["cgroup", "ipc", "mnt", "net", "time", "uts"];

/// The records, by the first process that is in each.
///
/// # Errors
/// When a process is gone.
pub fn capture(
    subjects: &Subjects,
    proc: &mut Proc,
    findings: &mut Findings,
) -> Result<Vec<UnsharedNamespace>, Failure> {
    let own = proc.link(format_args!("{}/ns/user", subjects.init))?;
    let mut others: BTreeMap<Vec<u8>, (Vec<Pid>, i32)> = BTreeMap::new();
    for process in &subjects.processes {
        let host = process.alive().host;
        let its = proc.link(format_args!("{host}/ns/user"))?;
        if its != own {
            others.entry(its).or_insert_with(|| (Vec::new(), host)).0.push(process.pid);
        }
    }
    owned(subjects, proc, findings)?;
    let mut others: Vec<(Vec<Pid>, i32)> = others.into_values().collect();
    others.sort_unstable();
    let container = open(subjects.init, "user")?;
    let mut records = Vec::new();
    for (processes, host) in others {
        let object = || thread_file(processes[0], processes[0], "attr");
        let namespace = open(host, "user")?;
        // That of the host's first one may not be asked for.
        let above = parent(namespace.as_fd()).and_then(|above| Ok(fstat(above)?.st_ino));
        if above != Ok(number(container.as_fd())?) {
            findings.block(
                object(),
                "is in a user namespace that does not lie directly below the container's",
                "Do not nest user namespaces; that is not carried yet",
            );
            continue;
        }
        if subjects.processes.first().is_some_and(|lowest| processes.contains(&lowest.pid)) {
            let kind = NamespaceType::User.name();
            findings.block(
                object(),
                format!(
                    "is in another namespace of kind {kind} than the container's first process, and has a lower id"
                ),
                "Start all of it anew, by `crctl run`",
            );
        }
        let map = |proc: &mut Proc, name: &str| {
            let text = proc.text(format_args!("{host}/{name}"))?;
            let malformed = || Failure::new(Kind::Unsupported, format!("/proc/{host}/{name} is malformed"));
            ranges(text).ok_or_else(malformed)
        };
        let content = NamespaceContent::User(UserNamespace {
            owner: owner_uid(namespace.as_fd()).doing(|| "asking who made a user namespace")?,
            uid_map: map(proc, "uid_map")?,
            gid_map: map(proc, "gid_map")?,
            setgroups: proc.text(format_args!("{host}/setgroups"))?.trim() == "allow",
        });
        records.push(UnsharedNamespace { content, processes });
    }
    Ok(records)
}

fn open(host: i32, name: &str) -> Result<File, Failure> {
    let path = format!("/proc/{host}/ns/{name}");
    File::open(&path).doing(|| format!("{path}: opening"))
}

fn number(namespace: BorrowedFd<'_>) -> Result<u64, Failure> {
    Ok(fstat(namespace).doing(|| "looking at a namespace")?.st_ino)
}

/// Lines of "inside outside count".
fn ranges(text: &str) -> Option<Vec<IdRange>> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace().map(|word| word.parse().ok());
        Some(IdRange { inside: words.next()??, outside: words.next()??, count: words.next()?? })
    };
    text.lines().map(line).collect()
}

/// Namespaces apart that belong to another user namespace than the container's first process is in: a restore would make them in that.
fn owned(subjects: &Subjects, proc: &mut Proc, findings: &mut Findings) -> Result<(), Failure> {
    let of_init = subjects.of_init();
    let expected = proc.links(format_args!("{}/ns", subjects.init), &OWNED)?;
    let user = number(open(subjects.init, "user")?.as_fd())?;
    let mut looked = BTreeSet::new();
    for process in subjects.processes.iter().filter(|process| !process.alive().has_namespaces_of(of_init)) {
        let host = process.alive().host;
        let links = proc.links(format_args!("{host}/ns"), &OWNED)?;
        for ((name, link), expected) in OWNED.iter().zip(links).zip(&expected) {
            if link == *expected || !looked.insert(link) {
                continue;
            }
            let owner = owner(open(host, name)?.as_fd()).doing(|| "asking whose a namespace is")?;
            if number(owner.as_fd())? != user {
                findings.block(
                    thread_file(process.pid, process.pid, "attr"),
                    format!("is in another {name} namespace than the container's first process, which belongs to a user namespace inside"),
                    "Unshare it before the user namespace, as root; this is not carried yet",
                );
            }
        }
    }
    Ok(())
}

/// Obstacles of other records, once all are known.
pub fn report(image: &Image, findings: &mut Findings) {
    let directories = image.processes.values().filter_map(|process| process.process.shares.directories);
    let shared: BTreeSet<Pid> = directories.collect();
    let mut inside = BTreeSet::new();
    for namespace in &image.namespaces {
        if let NamespaceContent::User(_) = &namespace.content {
            inside.extend(namespace.processes.iter().copied());
        }
    }
    for (&pid, process) in image.processes.iter().filter(|(pid, _)| inside.contains(*pid)) {
        let mut block = |reason: &str, remedy: &str| findings.block(process_file(pid, "process"), reason, remedy);
        if process.threads.len() > 1 || process.process.first_thread_ended.is_some() {
            block(
                "is in a user namespace of its own with several threads, which is not carried yet",
                "Use processes in the place of threads",
            );
        }
        if process.process.shares.directories.is_some() || shared.contains(&pid) {
            block(
                "is in a user namespace of its own and shares its working directory, root and umask with another process",
                "Use fork or threads",
            );
        }
        let is_unborn = |namespace: &UnsharedNamespace| match &namespace.content {
            NamespaceContent::Pid(pids) => pids.ids.is_empty() && pids.for_children_of.contains(&pid),
            _ => false,
        };
        if image.namespaces.iter().any(is_unborn) {
            block(
                "is in a user namespace of its own and began a pid namespace that nobody was born into yet",
                "Have it make a child first, or unshare it before the user namespace, as root",
            );
        }
    }
}
