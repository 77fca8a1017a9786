//! What a test could leave behind, to be compared and to be removed.

use super::{World, cgroup_parent, run, wait_for};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What exists on the machine because of one world, as text that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftovers {
    /// Processes in its cgroups, its workers and their tracees, and whatever runs a program from its directory or was given a path
    /// in it, but for the server.
    pub processes: BTreeSet<String>,
    /// Its cgroups, but for the parent of all, which stays.
    pub cgroups: BTreeSet<PathBuf>,
    /// Mounts under its directory.
    pub mounts: Vec<String>,
    /// Namespaces that its processes are in and the harness is not.
    pub namespaces: BTreeSet<String>,
    /// What descriptors its server holds.
    pub server_descriptors: Vec<String>,
}

impl Leftovers {
    /// Looks around.
    #[must_use]
    pub fn of(world: &World) -> Self {
        let server = world.server.as_ref().map(std::process::Child::id);
        // A server lets go of what is gone when it is asked, and need not watch.
        let _ = fs::read_dir(world.mount()).map(Iterator::count);
        let tag = cgroup_parent(world.run_dir());
        let (mut processes, mut namespaces) = (BTreeSet::new(), BTreeSet::new());
        let me = std::process::id();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if Some(pid) == server || pid == me || !belongs(&entry.path(), world.dir(), &tag, server) {
                continue;
            }
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            processes.insert(format!("{pid} {}", String::from_utf8_lossy(&command).replace('\0', " ")));
            for namespace in fs::read_dir(entry.path().join("ns")).into_iter().flatten().flatten() {
                let own = fs::read_link(Path::new("/proc/self/ns").join(namespace.file_name()));
                let its = fs::read_link(namespace.path());
                if let (Ok(own), Ok(its)) = (own, its)
                    && own != its
                {
                    namespaces.insert(its.to_string_lossy().into_owned());
                }
            }
        }
        Leftovers {
            processes,
            cgroups: cgroups(&tag).into_iter().filter(|cgroup| !cgroup.ends_with(&tag)).collect(),
            mounts: mounts_under(world.dir()),
            namespaces,
            server_descriptors: server.map(descriptors).unwrap_or_default(),
        }
    }

    /// Waits until the world is again as it was: what dies needs a moment.
    ///
    /// # Panics
    /// When it is not within five seconds, with the difference.
    #[track_caller]
    pub fn expect_again(&self, world: &World) {
        let mut now = Leftovers::of(world);
        wait_for(Duration::from_secs(5), || {
            now = Leftovers::of(world).without_released(self);
            now == *self
        });
        assert_eq!(now, *self, "something was left behind (left: now, right: before)");
    }

    /// Descriptors that the server had before and has let go of since were of containers that were gone already.
    fn without_released(mut self, before: &Leftovers) -> Leftovers {
        let mut allowed = before.server_descriptors.iter();
        // Both are sorted.
        let within = self.server_descriptors.iter().all(|now| allowed.by_ref().any(|before| before == now));
        if within {
            self.server_descriptors.clone_from(&before.server_descriptors);
        }
        self
    }
}

/// What the descriptors of a process lead to, sorted; sockets and the like without their numbers.
fn descriptors(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    let mut names: Vec<String> =
        links.map(|link| link.to_string_lossy().split(":[").next().unwrap_or_default().to_owned()).collect();
    names.sort();
    names
}

fn belongs(proc: &Path, dir: &Path, tag: &str, server: Option<u32>) -> bool {
    let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
    let mut fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ')).into_iter().flatten();
    let (state, parent) = (fields.next(), fields.next().and_then(|parent| parent.parse::<u32>().ok()));
    if state == Some("Z") && parent == Some(1) {
        // Dead, and the machine's init takes its time.
        return false;
    }
    let named = |command: &Vec<u8>| String::from_utf8_lossy(command).contains(&*dir.to_string_lossy());
    // A zombie has neither exe nor command line; its cgroup or its parent tells.
    fs::read_link(proc.join("exe")).is_ok_and(|exe| exe.starts_with(dir))
        || fs::read(proc.join("cmdline")).is_ok_and(|command| named(&command))
        || fs::read_to_string(proc.join("cgroup")).is_ok_and(|cgroup| cgroup.contains(tag))
        || server.is_some() && parent == server
}

/// Where cgroup v2 is mounted.
pub(super) fn cgroup_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

/// The cgroups with this name and all below them, the deepest first.
fn cgroups(tag: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Some(mount) = cgroup_mount() {
        collect(&mount, tag, false, &mut found);
    }
    found
}

fn collect(dir: &Path, tag: &str, inside: bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let inside = inside || entry.file_name() == *tag;
            collect(&entry.path(), tag, inside, found);
            if inside {
                found.push(entry.path());
            }
        }
    }
}

fn mounts_under(dir: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| Path::new(point).starts_with(dir)).map(str::to_owned).collect()
}

/// Whether something is mounted at exactly this path.
pub(super) fn is_mounted(path: &Path) -> bool {
    mounts_under(path).iter().any(|point| Path::new(point) == path)
}

/// Unmounts whatever is mounted at the path.
pub(super) fn unmount(path: &Path) {
    for _ in 0..5 {
        if !is_mounted(path) || nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH).is_err() {
            return;
        }
    }
}

/// Ends servers that went to the background, by unmounting what they serve.
pub(super) fn end_background_servers(world: &World) {
    for mount in mounts_under(world.dir()) {
        unmount(Path::new(&mount));
    }
    wait_for(Duration::from_secs(5), || Leftovers::of(world).processes.is_empty());
}

/// Kills and removes every container by the product's own means.
pub(super) fn remove_containers(world: &World) {
    for entry in fs::read_dir(world.run_dir()).into_iter().flatten().flatten() {
        if entry.path().join("container.json").exists() {
            let name = entry.file_name();
            for verb in ["kill", "rm"] {
                run(world.command(super::binary("crctl")).arg(verb).arg(&name), Duration::from_secs(10));
            }
        }
    }
}

/// Kills what is left in the world's cgroups, and removes these, whatever the product did.
pub(super) fn remove_cgroups(world: &World) {
    let tag = cgroup_parent(world.run_dir());
    for cgroup in cgroups(&tag) {
        let _ = fs::write(cgroup.join("cgroup.kill"), "1");
        let empty = || fs::read_to_string(cgroup.join("cgroup.events")).map_or(true, |e| e.contains("populated 0"));
        wait_for(Duration::from_secs(5), empty);
        let _ = fs::remove_dir(&cgroup);
    }
}
