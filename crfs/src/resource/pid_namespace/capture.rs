//! From the ids and links of processes to the records.

use crate::failure::{Doing, Failure};
use crate::resource::Findings;
use crate::resource::container::Place;
use crate::resource::mount::Views;
use crate::resource::proc::Proc;
use crate::resource::subject::{InnerIds, Process, Subjects, Thread};
use crate::resource::zombie::Inside;
use crfs_sys::namespaces::{of_children, parent};
use crfs_sys::pidfd;
use image_format::files::NamespaceType;
use image_format::layout::{file_entry, process_file, thread_file};
use image_format::mounts::{Mount, MountKind};
use image_format::namespaces::{NamespaceContent, UnsharedNamespace};
use image_format::pid_namespaces::{PidNamespace, PidSpaces};
use image_format::process::Zombie;
use image_format::{Bytes, Image, Pid};
use nix::sys::stat::fstat;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// A namespace by the number of its inode.
type Number = u64;

/// What tells one that nobody was born into from others.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Unborn {
    Numbered(Number),
    /// Where the kernel shows no number (before Linux 6.11) no second thread can get at one, which is that of this thread.
    Of(Pid),
}

/// A pid namespace, as far as it was met.
#[derive(Default)]
struct Found {
    depth: usize,
    pids: PidNamespace,
    processes: Vec<Pid>,
}

#[derive(Default)]
struct Search {
    own: Number,
    found: BTreeMap<Number, Found>,
    /// Those that nobody was born into yet, by whose children will be.
    unborn: BTreeMap<Unborn, Vec<Pid>>,
}

/// The records, outer namespaces first. `dead` are the zombies in them; `lines` are those of `mounts`, below the container's root and those of
/// mount namespaces apart.
///
/// # Errors
/// When a process is gone.
pub fn capture(
    subjects: &Subjects,
    dead: &[Inside],
    (lines, place, views): (&[Mount], &Place, &Views),
    proc: &mut Proc,
    findings: &mut Findings,
) -> Result<Vec<UnsharedNamespace>, Failure> {
    let own = open(subjects.init)?;
    let [pid, for_children] = links(format_args!("{}", subjects.init), proc)?;
    let plain = pid == for_children;
    let mut search = Search { own: number(own.as_fd())?, ..Search::default() };
    for process in subjects.processes.iter().filter(|process| !process.leader().inner.task.is_empty()) {
        search.process(process, findings)?;
    }
    // After a restore it would be the first, whose namespaces are the container's own.
    if let Some(lowest) = subjects.processes.first().filter(|lowest| !lowest.leader().inner.task.is_empty()) {
        let kind = NamespaceType::Pid.name();
        findings.block(
            thread_file(lowest.pid, lowest.pid, "attr"),
            format!("is in another namespace of kind {kind} than the container's first process, and has a lower id"),
            "Start all of it anew, by `crctl run`",
        );
    }
    for Inside { host, inner, ids } in dead {
        // What is told of the living is told of those too that they left.
        if let Some(chain) = search.chain(*host, inner)? {
            search.note(&chain, inner, *ids);
        }
    }
    let of_init = subjects.of_init().filter(|_| plain);
    for process in &subjects.processes {
        for thread in process.threads.iter().filter(|thread| !thread.has_ended()) {
            if !thread.has_namespaces_of(of_init) || !process.leader().inner.task.is_empty() {
                search.for_children(process, thread, proc, findings)?;
            }
        }
    }
    search.shown(lines, place, views, findings);
    let mut found: Vec<Found> = search.found.into_values().collect();
    found.sort_by_key(|found| (found.depth, found.pids.ids.keys().next().copied()));
    let record = |pids, processes| UnsharedNamespace { content: NamespaceContent::Pid(pids), processes, user: None };
    let mut unborn: Vec<Vec<Pid>> = search.unborn.into_values().collect();
    unborn.sort_unstable();
    let unborn = unborn.into_iter();
    let unborn = unborn.map(|for_children_of| PidNamespace { for_children_of, ..PidNamespace::default() });
    let born = found.into_iter().map(|found| record(found.pids, found.processes));
    Ok(born.chain(unborn.map(|pids| record(pids, Vec::new()))).collect())
}

fn open(host: i32) -> Result<File, Failure> {
    let path = format!("/proc/{host}/ns/pid");
    File::open(&path).doing(|| format!("{path}: opening"))
}

/// What the links say to a task's own and to that of its children; of one that nobody was born into yet, nothing.
fn links(task: fmt::Arguments<'_>, proc: &mut Proc) -> Result<[Vec<u8>; 2], Failure> {
    let links = proc.links(format_args!("{task}/ns"), &["pid", "pid_for_children"])?;
    let mut links = links.into_iter();
    Ok([links.next().unwrap_or_default(), links.next().unwrap_or_default()])
}

fn number(namespace: BorrowedFd<'_>) -> Result<Number, Failure> {
    Ok(fstat(namespace).doing(|| "looking at a pid namespace")?.st_ino)
}

impl Search {
    fn process(&mut self, process: &Process, findings: &mut Findings) -> Result<(), Failure> {
        let leader = process.leader();
        let object = || thread_file(process.pid, process.pid, "attr");
        let Some(chain) = self.chain(process.alive().host, &leader.inner)? else {
            findings.block(
                object(),
                "is in a pid namespace that does not lie below the container's",
                "Start it from inside the container",
            );
            return Ok(());
        };
        let Some(&innermost) = chain.last() else { return Ok(()) };
        let id = |ids: &[u32]| Pid(ids.last().copied().unwrap_or(0));
        let ids = [process.pid, id(&leader.status.ns_pgid), id(&leader.status.ns_sid)];
        self.note(&chain, &leader.inner, ids);
        for thread in &process.threads {
            self.note(&chain, &InnerIds { task: thread.inner.task.clone(), ..InnerIds::default() }, [thread.tid; 3]);
        }
        if let Some(found) = self.found.get_mut(&innermost) {
            found.processes.push(process.pid);
        }
        Ok(())
    }

    /// The namespaces that a task is in below the container's, the outermost first. None: they are not below.
    fn chain(&self, host: i32, inner: &InnerIds) -> Result<Option<Vec<Number>>, Failure> {
        let mut chain = Vec::new();
        let mut at: OwnedFd = open(host)?.into();
        for _ in &inner.task {
            chain.push(number(at.as_fd())?);
            at = parent(at.as_fd()).doing(|| "asking what a pid namespace lies in")?;
        }
        chain.reverse();
        Ok((number(at.as_fd())? == self.own).then_some(chain))
    }

    /// Notes the ids of a task, its group and its session: those in the container, and further in.
    fn note(&mut self, chain: &[Number], inner: &InnerIds, ids: [Pid; 3]) {
        for (depth, namespace) in chain.iter().enumerate() {
            let found = self.found.entry(*namespace).or_insert_with(|| Found { depth, ..Found::default() });
            for (id, inner) in ids.into_iter().zip([&inner.task, &inner.group, &inner.session]) {
                if let Some(&inner) = inner.get(depth).filter(|&&inner| inner != 0) {
                    found.pids.ids.insert(id, Pid(inner));
                }
            }
        }
    }

    /// Which namespace the children of a thread are born into.
    fn for_children(
        &mut self,
        process: &Process,
        thread: &Thread,
        proc: &mut Proc,
        findings: &mut Findings,
    ) -> Result<(), Failure> {
        let task = format!("{}/task/{}", process.host, thread.host);
        let [pid, for_children] = links(format_args!("{task}"), proc)?;
        if pid == for_children {
            return Ok(());
        }
        if for_children.is_empty() {
            let numbered =
                pidfd::open(nix::unistd::Pid::from_raw(thread.host), true).and_then(|pidfd| of_children(pidfd.as_fd()));
            let unborn = match numbered {
                Ok(open) => Unborn::Numbered(number(open.as_fd())?),
                Err(_) => Unborn::Of(thread.tid),
            };
            self.unborn.entry(unborn).or_default().push(thread.tid);
            return Ok(());
        }
        let path = format!("/proc/{task}/ns/pid_for_children");
        let target = File::open(&path).doing(|| format!("{path}: opening"))?;
        match self.found.get_mut(&number(target.as_fd())?) {
            Some(found) => found.pids.for_children_of.push(thread.tid),
            None => findings.block(
                thread_file(process.pid, thread.tid, "attr"),
                "would have its next child in a pid namespace whose processes have all ended, which takes none any more",
                "End it, or have it begin another one (unshare)",
            ),
        }
        Ok(())
    }

    /// Which of them the file systems of /proc show that programs mounted.
    fn shown(&mut self, lines: &[Mount], own: &Place, views: &Views, findings: &mut Findings) {
        let is_proc = |mount: &&Mount| matches!(&mount.kind, MountKind::Fresh(fresh) if fresh.file_system == "proc");
        for mount in lines.iter().filter(is_proc) {
            let place = views.place(mount.namespace).unwrap_or(own);
            // The one that begins with this process 1.
            let first = Bytes([&mount.path.0[..], b"/1/ns/pid"].concat());
            let shown = fs::metadata(place.reach(&first)).map(|shown| shown.ino()).ok();
            if shown == Some(self.own) {
                continue;
            }
            let found = shown.and_then(|shown| self.found.get_mut(&shown));
            let refused = match found {
                None => "whose processes have all ended",
                Some(found) if found.depth > 0 => "inside of another below the container's",
                Some(found) => {
                    found.pids.shown_by.push(mount.number);
                    continue;
                }
            };
            findings.block(
                "mounts",
                format!("{} shows a pid namespace {refused}, which is not carried", mount.path),
                "Unmount it before the freeze",
            );
        }
    }
}

/// Obstacles of other records, once all are known.
pub fn report(image: &Image, findings: &mut Findings) {
    let spaces = PidSpaces::of(&image.namespaces);
    if spaces.all().next().is_none() {
        return;
    }
    for (&pid, process) in &image.processes {
        let record = &process.process;
        let is_unknown = |id: Pid| spaces.seen_by(pid, id).is_none();
        let parent = image.processes.get(&record.parent).map(|parent| &parent.process);
        let inherited = |is_same: bool, id: Pid| {
            // Its parent has it still, or, outside as it is, can put it there.
            parent.is_some_and(|parent| is_same || spaces.seen_by(parent.pid, id).is_some())
        };
        let (group, session) = (record.group, record.session);
        let has_group = parent.is_some_and(|parent| parent.group == group);
        let has_session = parent.is_some_and(|parent| parent.session == session);
        let torn = |what: &str, id: Pid| {
            format!("is in the {what} {id} of processes outside its pid namespace, and its parent is not")
        };
        if is_unknown(session) && !has_session {
            findings.block(process_file(pid, "process"), torn("session", session), SETSID);
        } else if is_unknown(group) && !inherited(has_group, group) {
            findings.block(process_file(pid, "process"), torn("process group", group), SETSID);
        }
        for zombie in process.threads.values().flat_map(|thread| &thread.zombies) {
            self::zombie(pid, zombie, &spaces, image, findings);
        }
    }
    for (&id, file) in &image.files {
        let Some(owner) = &file.owner else { continue };
        let mut holders = image.tables().filter(|table| table.fds.iter().any(|fd| fd.file == id));
        if !holders.any(|table| spaces.seen_by(table.process, owner.id).is_some()) {
            findings.block(
                file_entry(id),
                format!("signals process {}, which is in no pid namespace of those that have it open", owner.id),
                "Have the program close it before the freeze.",
            );
        }
    }
}

const SETSID: &str = "Start it under setsid";
const SIGKILL: u32 = 9;

fn zombie(parent: Pid, zombie: &Zombie, spaces: &PidSpaces<'_>, image: &Image, findings: &mut Findings) {
    let object = || thread_file(parent, parent, "wait.zombies");
    if spaces.is_first(zombie.pid) && !matches!(zombie.status & 0x7f, 0 | SIGKILL) {
        findings.block(
            object(),
            format!(
                "process {} was the first of a pid namespace and ended by a fault of its own (signal {})",
                zombie.pid,
                zombie.status & 0x7f
            ),
            "Have its parent wait for it",
        );
    }
    let parent = image.processes.get(&parent).map(|parent| (parent.process.group, parent.process.session));
    let torn = spaces.seen_by(zombie.pid, zombie.group).is_none()
        && parent.map(|parent| parent.0) != Some(zombie.group)
        || spaces.seen_by(zombie.pid, zombie.session).is_none()
            && parent.map(|parent| parent.1) != Some(zombie.session);
    if torn {
        findings.block(
            object(),
            format!(
                "process {} was in a process group or session outside its pid namespace, and its parent is not",
                zombie.pid
            ),
            "Have its parent wait for it",
        );
    }
}
