//! What cannot be taken in, by name, before anything is moved.

use super::Source;
use crate::failure::{Failure, Kind};
use crate::freezer::Cgroup;
use crate::registry::Registry;
use crate::resource::proc::{Proc, Stat, Status};
use std::collections::BTreeSet;
use std::fs;

/// `PF_KTHREAD`, `include/linux/sched.h`, v6.18.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// What a container must not hold.
pub(super) struct Guard {
    /// The caller and all that it descends from: frozen, they could thaw nothing.
    own: BTreeSet<i32>,
    server: Option<i32>,
    /// The containers there are, with their cgroups.
    containers: Vec<(String, Cgroup)>,
}

impl Guard {
    /// Looks who is who.
    ///
    /// # Errors
    /// When /proc or the registry cannot be read.
    pub(super) fn new(registry: &Registry) -> Result<Self, Failure> {
        let mut proc = Proc::open()?;
        let mut own = BTreeSet::new();
        let mut at = nix::unistd::getpid().as_raw();
        while at != 0 && own.insert(at) {
            at = Stat::read(&mut proc, &format!("{at}/stat"))?.ppid;
        }
        let mut containers = Vec::new();
        for name in registry.names()? {
            if let Some(record) = registry.container(&name)?.record()? {
                containers.push((name, Cgroup::at(record.cgroup)));
            }
        }
        Ok(Guard { own, server: registry.server().map(|server| server.pid), containers })
    }

    /// Whether a process may be moved; one that is gone may.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&self, pid: i32) -> Result<(), Failure> {
        let refuse = |why: &str| Err(Failure::new(Kind::System, format!("process {pid}: {why}")));
        let Ok(stat) = Proc::open().and_then(|mut proc| Stat::read(&mut proc, &format!("{pid}/stat"))) else {
            return Ok(());
        };
        if pid == 1 {
            return refuse("it is the init of this pid namespace, which everything else depends on");
        }
        if stat.flags & KERNEL_THREAD != 0 {
            return refuse("it is a thread of the kernel");
        }
        if self.own.contains(&pid) {
            return refuse(
                "this command descends from it, and could not thaw what it is frozen with; run it elsewhere",
            );
        }
        if self.server == Some(pid) {
            return refuse("it is the server of the mount, which shows what is frozen");
        }
        let cgroup = Cgroup::of_process(pid)?;
        let within = |other: &Cgroup| cgroup.as_ref().is_some_and(|cgroup| cgroup.path().starts_with(other.path()));
        if let Some((name, _)) = self.containers.iter().find(|(_, other)| within(other)) {
            let reason = format!("process {pid}: it is in the container {name} already");
            return Err(Failure::new(Kind::Exists, reason));
        }
        Ok(())
    }
}

/// The process whose namespaces are the container's: the one that was named, or in a cgroup the init of a pid namespace, else the oldest.
///
/// # Errors
/// [`Kind::System`]: it is not there, or lives in a pid namespace of which it is not the first.
pub(super) fn first(source: &Source, found: &[i32]) -> Result<i32, Failure> {
    let mut proc = Proc::open()?;
    let mut first = match (source, found.first()) {
        (_, Some(&first)) => first,
        (Source::Process(pid), None) => {
            return Err(Failure::new(Kind::System, format!("process {pid}: there is none of that number that lives")));
        }
        (Source::Cgroup(path), None) => {
            return Err(Failure::new(Kind::System, format!("cgroup {}: it has no processes", path.display())));
        }
    };
    if matches!(source, Source::Cgroup(_)) {
        first = found.iter().copied().find(|&pid| is_init(pid, &mut proc)).unwrap_or(first);
    }
    if namespace(first) != namespace(std::process::id().cast_signed()) && !is_init(first, &mut proc) {
        let init = proc
            .numbers(format_args!(""))?
            .into_iter()
            .find(|&pid| namespace(pid) == namespace(first) && is_init(pid, &mut proc));
        let which = init.map_or_else(String::new, |init| format!(": process {init}"));
        return Err(Failure::new(
            Kind::System,
            format!("process {first}: it lives in a pid namespace of its own; add the first process of that{which}"),
        ));
    }
    Ok(first)
}

/// Whether a process is pid 1 of a pid namespace below ours.
fn is_init(pid: i32, proc: &mut Proc) -> bool {
    Status::read(proc, &format!("{pid}/status")).is_ok_and(|status| status.ns_pid.len() > 1 && status.own_pid() == 1)
}

fn namespace(pid: i32) -> Option<std::path::PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}
