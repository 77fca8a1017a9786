//! Which processes are to be taken in, as they are this moment.

use super::Source;
use crate::failure::{Failure, Kind};
use crate::freezer::Cgroup;
use crate::resource::proc::{Proc, Stat};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use std::collections::BTreeMap;
use std::path::Path;

/// Those that live, each after its parent; the process that was named first. None where it has ended, or the cgroup is empty.
///
/// # Errors
/// When /proc or the cgroup cannot be read.
pub(super) fn look(source: &Source) -> Result<Vec<i32>, Failure> {
    match source {
        Source::Process(pid) => descendants(*pid),
        Source::Cgroup(path) => members(path),
    }
}

fn descendants(root: i32) -> Result<Vec<i32>, Failure> {
    let mut proc = Proc::open()?;
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let mut alive = false;
    for pid in proc.numbers(format_args!(""))? {
        let Ok(stat) = Stat::read(&mut proc, &format!("{pid}/stat")) else { continue };
        if !matches!(stat.state, b'Z' | b'X') {
            alive |= pid == root;
            children.entry(stat.ppid).or_default().push(pid);
        }
    }
    let mut found: Vec<i32> = alive.then_some(root).into_iter().collect();
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        next += 1;
        found.extend(children.remove(pid).unwrap_or_default());
    }
    Ok(found)
}

fn members(path: &Path) -> Result<Vec<i32>, Failure> {
    let refuse = |why: &str| Err(Failure::new(Kind::System, format!("cgroup {}: {why}", path.display())));
    if !path.is_dir() {
        return refuse("no such directory");
    }
    if !statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC) {
        return refuse(
            "it is no directory of cgroup v2; give its path below the mount point, /sys/fs/cgroup as a rule",
        );
    }
    let cgroup = Cgroup::at(path);
    let mut proc = Proc::open()?;
    let mut found: Vec<i32> = cgroup.procs()?;
    let started =
        |pid: &i32, proc: &mut Proc| Stat::read(proc, &format!("{pid}/stat")).map_or(0, |stat| stat.start_time);
    // The oldest first: a parent before its children.
    found.sort_by_cached_key(|pid| (started(pid, &mut proc), *pid));
    Ok(found)
}
