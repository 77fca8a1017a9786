//! The directory of a cgroup: found in the hierarchy, made, and removed.

use super::{Cgroup, is_gone, pause};
use crate::failure::{Doing, Failure, Kind};
use crate::registry::Registry;
use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a parent may vanish between its making and its use.
const ATTEMPTS: usize = 10;

impl Cgroup {
    /// The cgroup a container of this name gets: below the registry's parent, at the root of the cgroup v2 hierarchy, or where
    /// the caller itself stands if the root is not ours to write (a delegated subtree).
    ///
    /// # Errors
    /// [`Kind::Unsupported`] where cgroup v2 is not mounted.
    pub fn of(registry: &Registry, name: &str) -> Result<Self, Failure> {
        let base = base()?;
        Ok(Cgroup { path: base.join(registry.cgroup_parent()).join(name) })
    }

    /// The cgroup that a process is in; None for one that is gone.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] where cgroup v2 is not mounted, or not that part of it.
    pub fn of_process(pid: i32) -> Result<Option<Self>, Failure> {
        let (mount, mounted_root) = mount_point()?;
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let Some(own) = text.lines().find_map(|line| line.strip_prefix("0::")) else { return Ok(None) };
        // Above the root of the caller's cgroup namespace it begins with `/..`.
        match Path::new(own).strip_prefix(&mounted_root) {
            Ok(below) if !below.starts_with("..") => Ok(Some(Cgroup { path: mount.join(below) })),
            _ => Err(Failure::new(
                Kind::Unsupported,
                format!("process {pid}: its cgroup {own} is outside of what is mounted on {}", mount.display()),
            )),
        }
    }

    /// Makes it, and its parent where that is missing.
    ///
    /// # Errors
    /// [`Kind::Exists`] when it is there, [`Kind::Unsupported`] when the kernel has no cgroup v2 freezer.
    pub fn create(&self) -> Result<(), Failure> {
        self.create_directory()?;
        if !self.path.join("cgroup.freeze").exists() {
            // The one failure from here on; an empty directory that stays would only be in the way of the next attempt.
            let _ = fs::remove_dir(&self.path);
            return Err(Failure::new(
                Kind::Unsupported,
                format!("cgroup {}: no cgroup.freeze in it; Linux 5.2 or later is needed", self.path.display()),
            ));
        }
        Ok(())
    }

    /// Makes it in the place of what an earlier container of the name left.
    ///
    /// # Errors
    /// As [`Cgroup::create`]; [`Kind::Deadline`] where there are tasks in it.
    pub fn make_anew(&self, deadline: Duration) -> Result<(), Failure> {
        self.remove(deadline)?;
        self.create()
    }

    fn create_directory(&self) -> Result<(), Failure> {
        let build = |path: &Path| fs::DirBuilder::new().mode(0o755).create(path);
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        // More than once, since whoever removes the last container of a registry removes the parent too.
        for _ in 0..ATTEMPTS {
            match build(&self.path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    return Err(Failure::new(Kind::Exists, format!("cgroup {}: there already", self.path.display())));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => match build(parent) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                        return Err(error).doing(|| format!("cgroup {}: creating", parent.display()));
                    }
                    _ => {}
                },
                other => return other.doing(|| format!("cgroup {}: creating", self.path.display())),
            }
        }
        Err(Failure::new(Kind::Busy, format!("cgroup {}: removed while it was used; try again", parent.display())))
    }

    /// Removes the registry's parent of it, if this was the last cgroup there.
    pub fn remove_parent_if_empty(&self) {
        if let Some(parent) = self.path.parent() {
            // Not empty is the usual case, and an empty directory that stays costs nothing.
            let _ = fs::remove_dir(parent);
        }
    }

    /// Removes it with all cgroups below it. Nothing to do where it does not exist.
    ///
    /// # Errors
    /// [`Kind::Deadline`] while tasks keep it busy: [`Cgroup::kill`] first.
    pub fn remove(&self, deadline: Duration) -> Result<(), Failure> {
        let end = Instant::now() + deadline;
        let mut looks = 0;
        loop {
            let mut busy = None;
            for path in self.with_descendants()?.iter().rev() {
                match fs::remove_dir(path) {
                    Ok(()) => {}
                    Err(error) if is_gone(&error) => {}
                    Err(error) if error.kind() == ErrorKind::ResourceBusy => busy = Some(path.clone()),
                    Err(error) => return Err(error).doing(|| format!("cgroup {}: removing", path.display())),
                }
            }
            let Some(path) = busy else { return Ok(()) };
            if Instant::now() >= end {
                return Err(Failure::new(
                    Kind::Deadline,
                    format!(
                        "cgroup {}: still busy after {} ms; processes in it: {:?}",
                        path.display(),
                        deadline.as_millis(),
                        self.procs().unwrap_or_default()
                    ),
                ));
            }
            pause(&mut looks);
        }
    }

    /// Has those above it offer it controllers, where they have them. What they do not is missing from its cgroup.controllers.
    pub(crate) fn ask_for(&self, controllers: &BTreeSet<&str>) {
        let Some(parent) = self.path.parent() else { return };
        for above in parent.parent().into_iter().chain([parent]) {
            let words = |file: &str| fs::read_to_string(above.join(file)).unwrap_or_default();
            let (has, offers) = (words("cgroup.controllers"), words("cgroup.subtree_control"));
            for name in controllers {
                let is_in = |text: &str| text.split_whitespace().any(|word| word == *name);
                if is_in(&has) && !is_in(&offers) {
                    // One that is not ours to change says no, and whoever asked finds out.
                    let _ = fs::OpenOptions::new()
                        .write(true)
                        .open(above.join("cgroup.subtree_control"))
                        .and_then(|mut file| file.write_all(format!("+{name}").as_bytes()));
                }
            }
        }
    }
}

/// Where containers' cgroups may be made: the root of the hierarchy, or our own cgroup where the root cannot be written.
pub(super) fn base() -> Result<PathBuf, Failure> {
    let (mount, mounted_root) = mount_point()?;
    if nix::unistd::access(&mount, nix::unistd::AccessFlags::W_OK).is_ok() {
        return Ok(mount);
    }
    let text = fs::read_to_string("/proc/self/cgroup").doing(|| "/proc/self/cgroup: reading")?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let below = Path::new(own).strip_prefix(&mounted_root).unwrap_or_else(|_| Path::new(""));
    Ok(mount.join(below))
}

/// The first mount of cgroup v2, and which part of the hierarchy it shows.
fn mount_point() -> Result<(PathBuf, PathBuf), Failure> {
    let text = fs::read("/proc/self/mountinfo").doing(|| "/proc/self/mountinfo: reading")?;
    crate::mountinfo::mounts(&text)
        .into_iter()
        .find(|mount| mount.kind == "cgroup2")
        .map(|mount| (mount.path, mount.root))
        .ok_or_else(|| {
            Failure::new(
                Kind::Unsupported,
                "cgroup v2 is not mounted, and containers are frozen through it; \
                 mount -t cgroup2 none /sys/fs/cgroup/unified",
            )
        })
}
