//! From the links and maps of processes to the records.

use crate::failure::{Doing, Failure, Kind};
use crate::registry::Record;
use crate::resource::Findings;
use crate::resource::proc::Proc;
use crate::resource::subject::Subjects;
use crate::resource::unshared::maker::Maker;
use crfs_sys::namespaces::{of_children, owner, owner_uid, parent};
use image_format::layout::{POSIX_MQ, file_entry, process_file, thread_file};
use image_format::manifest::NamespaceKind;
use image_format::namespaces::{NamespaceContent, UnsharedNamespace};
use image_format::user_namespaces::{Hindrance, IdRange, UserNamespace};
use image_format::{Image, Pid};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

/// A namespace by the number of its inode.
type Number = u64;

/// A user namespace, as far as it was met.
struct Found {
    open: File,
    above: Number,
    /// Who is in it, as the container and the host number them.
    members: Vec<(Pid, i32)>,
    /// The lowest process that is in it, or in a namespace that belongs to it.
    lowest: Pid,
}

struct Search {
    own: Number,
    found: BTreeMap<Number, Found>,
}

/// Adds the records, outer ones first, and tells of the `namespaces` of other types which they belong to.
///
/// The caller must have one thread.
///
/// # Errors
/// When a process is gone.
pub fn capture(
    record: &Record,
    subjects: &Subjects,
    namespaces: &mut Vec<UnsharedNamespace>,
    proc: &mut Proc,
    findings: &mut Findings,
) -> Result<(), Failure> {
    // The container's own is always that of who made it.
    let path = "/proc/self/ns/user";
    let own = number(File::open(path).doing(|| format!("{path}: opening"))?.as_fd())?;
    let mut search = Search { own, found: BTreeMap::new() };
    let link = proc.link(format_args!("self/ns/user"))?;
    for process in &subjects.processes {
        let host = process.alive().host;
        if proc.link(format_args!("{host}/ns/user"))? == link {
            continue;
        }
        let user = search.note(open(host, "user")?, process.pid, findings)?;
        if let Some(found) = search.found.get_mut(&user) {
            found.members.push((process.pid, host));
        }
    }
    let threads = subjects.processes.iter().flat_map(|process| &process.threads);
    let threads = threads.filter(|thread| !thread.has_ended()).map(|thread| (thread.tid, thread.host));
    let processes = subjects.processes.iter().map(|process| (process.pid, process.alive().host));
    let hosts: BTreeMap<Pid, i32> = threads.chain(processes).collect();
    let mut owners = Vec::new();
    for namespace in namespaces.iter() {
        owners.push(match opened(namespace, &hosts)? {
            Some((pid, opened)) => {
                let owner = owner(opened.as_fd()).doing(|| "asking whose a namespace is")?;
                Some(search.note(File::from(owner), pid, findings)?)
            }
            None => None,
        });
    }
    let first = subjects.processes.iter().find(|process| process.alive().host == subjects.init);
    let first = first.map_or(Pid(1), |first| first.pid);
    let mut of_container = BTreeMap::new();
    for kind in NamespaceKind::ALL.into_iter().filter(|kind| *kind != NamespaceKind::Pid && !record.shares(*kind)) {
        let whose = owner(open(subjects.init, kind.name())?.as_fd()).doing(|| "asking whose a namespace is")?;
        of_container.insert(kind, search.note(File::from(whose), first, findings)?);
    }
    let order = search.order();
    let place = |user: &Number| order.iter().position(|known| known == user).and_then(|at| u32::try_from(at + 1).ok());
    for (namespace, owner) in namespaces.iter_mut().zip(owners) {
        namespace.user = owner.as_ref().and_then(place);
    }
    for user in &order {
        if let Some(found) = search.found.get(user) {
            let container = of_container.iter().filter(|(_, owner)| *owner == user).map(|(kind, _)| *kind).collect();
            let content = NamespaceContent::User(UserNamespace { container, ..content(found, proc)? });
            let processes = found.members.iter().map(|(pid, _)| *pid).collect();
            namespaces.push(UnsharedNamespace { content, processes, user: place(&found.above) });
        }
    }
    Ok(())
}

fn open(host: i32, name: &str) -> Result<File, Failure> {
    let path = format!("/proc/{host}/ns/{name}");
    File::open(&path).doing(|| format!("{path}: opening"))
}

fn number(namespace: BorrowedFd<'_>) -> Result<Number, Failure> {
    Ok(fstat(namespace).doing(|| "looking at a namespace")?.st_ino)
}

/// A namespace, and a task that has to do with it. None: nobody is left but zombies.
fn opened(namespace: &UnsharedNamespace, hosts: &BTreeMap<Pid, i32>) -> Result<Option<(Pid, File)>, Failure> {
    if let Some((pid, host)) = namespace.processes.first().and_then(|pid| Some((*pid, *hosts.get(pid)?))) {
        return Ok(Some((pid, open(host, namespace.kind().name())?)));
    }
    if let NamespaceContent::Time(time) = &namespace.content {
        let maker = time.for_children_of.first().and_then(|pid| Some((*pid, *hosts.get(pid)?)));
        return maker.map(|(pid, host)| Ok((pid, open(host, "time_for_children")?))).transpose();
    }
    let NamespaceContent::Pid(pids) = &namespace.content else { return Ok(None) };
    let maker = pids.for_children_of.first().and_then(|pid| Some((*pid, *hosts.get(pid)?)));
    let Some((pid, host)) = maker else { return Ok(None) };
    let pidfd = crfs_sys::pidfd::open(nix::unistd::Pid::from_raw(host), true);
    let pidfd = pidfd.doing(|| format!("/proc/{host}: opening a pidfd"))?;
    let begun = of_children(pidfd.as_fd()).doing(|| "opening a pid namespace that nobody is in")?;
    Ok(Some((pid, begun.into())))
}

impl Search {
    /// Notes one and all that it lies in, if they are below the container's. Returns its number.
    fn note(&mut self, open: File, pid: Pid, findings: &mut Findings) -> Result<Number, Failure> {
        let user = number(open.as_fd())?;
        let mut at = (user, open);
        while at.0 != self.own {
            let (number_at, open) = at;
            if let Some(found) = self.found.get_mut(&number_at) {
                found.lowest = found.lowest.min(pid);
                let above = parent(found.open.as_fd()).doing(|| "asking what a user namespace lies in")?;
                at = (found.above, above.into());
                continue;
            }
            // That of the host's first one may not be asked for.
            let Ok(above) = parent(open.as_fd()).map(File::from) else {
                findings.block(
                    thread_file(pid, pid, "attr"),
                    "is in a user namespace that does not lie below the container's, or in one of another type that belongs to such a one",
                    "Start it from inside the container",
                );
                break;
            };
            let above_at = number(above.as_fd())?;
            self.found.insert(number_at, Found { open, above: above_at, members: Vec::new(), lowest: pid });
            at = (above_at, above);
        }
        Ok(user)
    }

    /// All of them, those before others that lie in them.
    fn order(&self) -> Vec<Number> {
        let depth = |user: &Number| {
            let above = |user: &Number| self.found.get(user).map(|found| found.above);
            std::iter::successors(above(user), |user| above(user)).take(self.found.len() + 1).count()
        };
        let mut order: Vec<Number> = self.found.keys().copied().collect();
        order.sort_by_key(|user| {
            (depth(user), self.found.get(user).map(|found| (found.members.first().copied(), found.lowest)))
        });
        order
    }
}

fn content(found: &Found, proc: &mut Proc) -> Result<UserNamespace, Failure> {
    // Only who is in it shows what it is; a child of this one where nobody is.
    let visitor = match found.members.first() {
        Some(_) => None,
        None => Some(Maker::born(None, |_| {
            setns(&found.open, CloneFlags::CLONE_NEWUSER).doing(|| "joining a user namespace").map(|()| Vec::new())
        })?),
    };
    let host = match (&visitor, found.members.first()) {
        (Some(visitor), _) => visitor.pid().as_raw(),
        (None, first) => first.map_or(0, |(_, host)| *host),
    };
    let map = |proc: &mut Proc, name: &str| {
        let text = proc.text(format_args!("{host}/{name}"))?;
        let malformed = || Failure::new(Kind::Unsupported, format!("/proc/{host}/{name} is malformed"));
        ranges(text).ok_or_else(malformed)
    };
    Ok(UserNamespace {
        owner: owner_uid(found.open.as_fd()).doing(|| "asking who made a user namespace")?,
        uid_map: map(proc, "uid_map")?,
        gid_map: map(proc, "gid_map")?,
        setgroups: proc.text(format_args!("{host}/setgroups"))?.trim() == "allow",
        container: BTreeSet::new(),
    })
}

/// Lines of "inside outside count".
fn ranges(text: &str) -> Option<Vec<IdRange>> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace().map(|word| word.parse().ok());
        Some(IdRange { inside: words.next()??, outside: words.next()??, count: words.next()?? })
    };
    text.lines().map(line).collect()
}

const NOBODY_KEEPS_QUEUES: &str = "an ipc namespace belongs to a user namespace inside where root is nobody, and has message queues; that is not carried";

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
        if process.process.shares.directories.is_some() || shared.contains(&pid) {
            block(
                "is in a user namespace of its own and shares its working directory, root and umask with another process",
                "Use fork or threads",
            );
        }
    }
    if image.queues.iter().any(|queue| image.keeps_queues_out(queue.namespace)) {
        findings.block(POSIX_MQ, NOBODY_KEEPS_QUEUES, "Have the program remove them (mq_unlink) before the freeze");
    }
    for (_, user) in image.user_namespaces() {
        let owns = |kind| user.container.contains(&kind);
        let has_queues = || image.queues.iter().any(|queue| queue.namespace == 0);
        if owns(NamespaceKind::Ipc) && user.keeps_queues_out() && has_queues() {
            findings.block(POSIX_MQ, NOBODY_KEEPS_QUEUES, "Have the program remove them (mq_unlink) before the freeze");
        }
        for line in image.mounts.iter().filter(|line| line.namespace == 0 && owns(NamespaceKind::Mnt)) {
            if line.kind.is_overlay() && line.path.0 != b"/" {
                let reason = "inside the container, whose file system belongs to a user namespace inside";
                findings.block("manifest", format!("overlay is mounted on {} {reason}", line.path), "Unmount it there");
            }
        }
    }
    for pid in image.threaded_in_user_namespaces() {
        for hindrance in image.hindrances(pid) {
            let (what, remedy) = told(hindrance);
            let reason =
                format!("is in a user namespace of its own with several threads, {what}; that is not carried yet");
            findings.block(process_file(pid, "process"), reason, remedy);
        }
    }
}

fn told(hindrance: Hindrance) -> (String, &'static str) {
    let processes = "Use processes in the place of threads";
    match hindrance {
        Hindrance::FirstEnded => ("the first of which has ended".to_owned(), processes),
        Hindrance::Apart(tid) => (format!("of which {tid} has descriptors or directories of its own"), processes),
        Hindrance::OtherUser(tid) => (format!("of which {tid} is another user than the first"), processes),
        Hindrance::ForChildren => {
            ("and its children are born into another pid namespace".to_owned(), "Unshare it in a process of one thread")
        }
        Hindrance::FileOfThread(id) => (
            format!("of which a file in /proc is open ({})", file_entry(id)),
            "Try again if it is open for a moment, or have the program close it",
        ),
        Hindrance::OtherOwner(id) => (
            format!("and alone has {} open, which signals on behalf of another user", file_entry(id)),
            "Have whoever uses it say F_SETOWN",
        ),
    }
}
