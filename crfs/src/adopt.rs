//! Taking in what runs already: `crctl add`.
//!
//! The processes are moved into a cgroup of ours, also those of another cgroup, rather than that cgroup adopted where it is: so one way
//! serves both, and what is frozen, killed and removed with a container can be nothing that somebody else puts there later. Their
//! cgroup's limits hold for them no longer, which is told.
//!
//! They fork meanwhile. A child of what was moved is born in our cgroup, and the others are looked for again until none is found. What
//! left the tree before it was seen (its parent ended, so that it is a child of the host's init now) is none of it.

mod refuse;
mod root;
mod tree;

use crate::failure::{Doing, Failure, Kind};
use crate::freezer::Cgroup;
use crate::launch::Claim;
use crate::operation;
use crate::registry::{Init, Record, Registry, State, Status};
use image_format::manifest::NamespaceKind;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// For all of a tree to be moved, however fast it forks.
const DEADLINE: Duration = Duration::from_secs(10);

/// What is to be taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A process, by its pid, and all that descend from it.
    Process(i32),
    /// All processes in a cgroup and below it, by the cgroup's directory.
    Cgroup(PathBuf),
}

/// Makes a container of processes that run. An exited container of the name is replaced.
///
/// # Errors
/// [`Kind::BadName`], [`Kind::Exists`], and why they cannot be taken in. Those that were moved are back where they were then.
pub fn add(registry: &Registry, name: &str, source: &Source) -> Result<(Record, Status), Failure> {
    let claim = Claim::new(registry, name)?;
    let mut moved = Moved { to: &claim.cgroup, from: BTreeMap::new() };
    let added = take(registry, &claim, source, &mut moved);
    if added.is_err() {
        moved.put_back();
        claim.give_up();
    }
    added.map_err(|failure| failure.within(format!("{name}: adding")))
}

fn take(
    registry: &Registry,
    claim: &Claim,
    source: &Source,
    moved: &mut Moved<'_>,
) -> Result<(Record, Status), Failure> {
    let mut found = tree::look(source)?;
    let guard = refuse::Guard::new(registry)?;
    let end = Instant::now() + DEADLINE;
    found.iter().try_for_each(|&pid| guard.check(pid))?;
    let first = refuse::first(source, &found)?;
    claim.cgroup.make_anew(operation::KILL_PATIENCE)?;
    loop {
        let outside = moved.outside(found)?;
        if outside.is_empty() {
            break;
        }
        // Also what was born since.
        outside.iter().try_for_each(|&pid| guard.check(pid))?;
        for pid in outside {
            moved.take(pid)?;
        }
        if Instant::now() > end {
            let reason = format!("it makes processes faster than they can be moved, for {} s now", DEADLINE.as_secs());
            return Err(Failure::new(Kind::Deadline, format!("{reason}; stop it for a moment (SIGSTOP)")));
        }
        found =
            tree::look(source).or_else(|failure| if moved.from.is_empty() { Err(failure) } else { Ok(Vec::new()) })?;
    }
    let host_namespaces = shared(first)?;
    let root = if host_namespaces.contains(&NamespaceKind::Mnt) { None } else { root::find(first)? };
    let record = Record {
        name: claim.container.name().to_owned(),
        state: State::Running,
        generation: registry.next_generation()?,
        cgroup: claim.cgroup.path().to_owned(),
        created: operation::now(),
        command: command(first),
        root,
        host_namespaces,
        added: true,
        stub_init: None,
        init: operation::start_time(first).map(|start_time| Init { pid: first, start_time }),
        exit_status: None,
        inspect: false,
        restored: false,
    };
    let notes = moved.from.values().map(|from| from.path()).collect::<BTreeSet<_>>();
    let notes = notes.into_iter().filter_map(limits).collect();
    let status = Status { operation: "add".into(), time: operation::now(), notes, ..Status::default() };
    operation::forget_image(registry, &claim.container)?;
    // What an earlier container of the name wrote is not theirs.
    operation::ignore_missing(fs::remove_file(claim.container.log_file())).doing(|| "removing an old log")?;
    claim.container.write_record(&record)?;
    claim.container.write_status(&status)?;
    Ok((record, status))
}

/// Processes on their way into a container's cgroup, with the cgroups they came from.
struct Moved<'a> {
    to: &'a Cgroup,
    from: BTreeMap<i32, Cgroup>,
}

impl Moved<'_> {
    /// Those of them that are not in the container's cgroup.
    fn outside(&self, mut found: Vec<i32>) -> Result<Vec<i32>, Failure> {
        let inside: BTreeSet<i32> = self.to.procs()?.into_iter().collect();
        found.retain(|pid| !inside.contains(pid));
        Ok(found)
    }

    fn take(&mut self, pid: i32) -> Result<(), Failure> {
        // One that has ended meanwhile is none of it any more.
        let Some(from) = Cgroup::of_process(pid)? else { return Ok(()) };
        match self.to.take(pid) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => {
                other.doing(|| format!("process {pid}: moving it to cgroup {}", self.to.path().display()))?;
                self.from.insert(pid, from);
                Ok(())
            }
        }
    }

    /// Undoes it. What was born meanwhile goes where the first of them came from.
    fn put_back(&self) {
        let Some(home) = self.from.values().next() else { return };
        let end = Instant::now() + DEADLINE;
        loop {
            let pids = self.to.procs().unwrap_or_default();
            if pids.is_empty() || Instant::now() > end {
                return;
            }
            for pid in pids {
                // The failure that counts is told; one that cannot go back stays where it runs as well.
                let _ = self.from.get(&pid).unwrap_or(home).take(pid);
            }
        }
    }
}

/// The kinds of namespaces that a process shares with the caller.
fn shared(pid: i32) -> Result<BTreeSet<NamespaceKind>, Failure> {
    let link = |task: &str, kind: NamespaceKind| {
        let path = format!("/proc/{task}/ns/{}", kind.name());
        fs::read_link(&path).doing(|| format!("{path}: reading the link"))
    };
    let mut shared = BTreeSet::new();
    for kind in NamespaceKind::ALL {
        if link("self", kind)? == link(&pid.to_string(), kind)? {
            shared.insert(kind);
        }
    }
    Ok(shared)
}

/// What a process was executed with.
fn command(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.strip_suffix(b"\0").unwrap_or(&bytes).split(|&byte| byte == 0);
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// What of a cgroup's own settings held for the processes, in words; None where it has none.
fn limits(cgroup: &Path) -> Option<String> {
    const NONE: [(&str, &str); 7] = [
        ("cpu.max", "max 100000"),
        ("cpu.weight", "100"),
        ("cpuset.cpus", ""),
        ("io.max", ""),
        ("memory.high", "max"),
        ("memory.max", "max"),
        ("pids.max", "max"),
    ];
    let set = NONE
        .iter()
        .filter(|(file, none)| fs::read_to_string(cgroup.join(file)).is_ok_and(|text| text.trim_end() != *none));
    let set: Vec<&str> = set.map(|&(file, _)| file).collect();
    let path = cgroup.display();
    (!set.is_empty()).then(|| format!("cgroup {path}: its {} hold for the processes no longer", set.join(", ")))
}
