//! A container's surroundings: its first process is born into its cgroup and new namespaces, and sets them up.
//!
//! The same code serves `crctl run` and the restore of an image, so that a container finds again what it had.

use super::overlay;
use crate::failure::{Doing, Failure, Kind};
use crate::mountinfo::mounts;
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_sys::namespaces::CLONE_NEWTIME;
use image_format::manifest::NamespaceKind;
use image_format::mounts::FileSystem;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, chdir, chroot, pipe2, pivot_root, sethostname, setsid};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// For the surroundings to stand, and for the program to be executed: a slow network file system is waited for, one that
/// hangs is not.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// The namespaces that a flag of clone3(2) makes.
const BORN_INTO: [(NamespaceKind, CloneFlags); 5] = [
    (NamespaceKind::Pid, CloneFlags::CLONE_NEWPID),
    (NamespaceKind::Mnt, CloneFlags::CLONE_NEWNS),
    (NamespaceKind::Uts, CloneFlags::CLONE_NEWUTS),
    (NamespaceKind::Ipc, CloneFlags::CLONE_NEWIPC),
    (NamespaceKind::Net, CloneFlags::CLONE_NEWNET),
];
/// What the child writes once its surroundings stand. A failure is a JSON object and starts otherwise.
const READY: u8 = b'+';
/// What it writes now and then before that, while something long goes on.
const ALIVE: u8 = b'.';
/// How often.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// How a container's surroundings differ from the host's.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// The directory that becomes its `/`; the host's own root when None.
    pub root: Option<PathBuf>,
    /// The overlay that has to be there; it is mounted where the host does not have it.
    pub overlay: Option<FileSystem>,
    /// Something else is mounted on its /dev later: it gets none of the host's devices there, and no terminals.
    pub own_devices: bool,
    /// The namespaces that it shares with the host. A network of its own holds `lo` alone.
    pub host_namespaces: BTreeSet<NamespaceKind>,
    /// Those of its own that are made already, with nothing in them yet: they belong to a user namespace inside.
    pub made: BTreeMap<NamespaceKind, File>,
    /// Its host name.
    pub hostname: OsString,
    /// Its NIS domain name.
    pub domainname: OsString,
}

impl Surroundings {
    fn has_own(&self, kind: NamespaceKind) -> bool {
        !self.host_namespaces.contains(&kind)
    }
}

/// How far a container's clocks are from the host's, in nanoseconds: time_namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffsets {
    /// Added to the host's `CLOCK_MONOTONIC`.
    pub monotonic: i64,
    /// Added to the host's `CLOCK_BOOTTIME`.
    pub boottime: i64,
}

/// A first process whose surroundings stand.
#[derive(Debug)]
pub struct Newborn {
    /// As the host numbers it. It is the caller's child, with SIGCHLD.
    pub pid: Pid,
    report: OwnedFd,
}

impl Newborn {
    /// Waits until it has executed a program. On failure the process is gone and reaped.
    ///
    /// # Errors
    /// What its `child` returned, or [`Kind::Deadline`].
    pub fn wait_for_exec(self) -> Result<Pid, Failure> {
        // The pipe is close-on-exec: its end is the exec, or the process died.
        match read_report(&self.report, Instant::now() + PATIENCE) {
            Ok(bytes) if bytes.is_empty() => Ok(self.pid),
            Ok(bytes) => Err(self.end(parse_report(&bytes))),
            Err(failure) => Err(self.end(failure)),
        }
    }

    fn end(self, failure: Failure) -> Failure {
        end(self.pid);
        failure
    }
}

/// Makes the first process of a container: in the cgroup from its first instruction, in a new time namespace and in new ones of every
/// other kind that is not shared with the host (pid 1 in a new pid namespace), leader of its own session. The function returns when the surroundings stand, and the process goes on with `child`, which executes a program and returns only the
/// error that kept it from that. Where it has mounts of its own, `furnish` adds to them before the function returns; it may take as long as
/// it tells now and then that it goes on.
///
/// Standard streams, descriptors, signal actions and masks are the caller's: `child` is free to set them. The working
/// directory is the caller's by name, or `/` where there is no such directory.
///
/// The caller must have one thread (the child runs Rust code between clone and exec).
///
/// # Errors
/// What could not be set up, in the parent or in the child; nothing of the child is left then.
pub fn clone_init(
    surroundings: &Surroundings,
    cgroup: BorrowedFd<'_>,
    clock_offsets: Option<ClockOffsets>,
    furnish: impl FnOnce(&mut dyn FnMut()) -> Result<(), Failure>,
    child: impl FnOnce() -> std::io::Error,
) -> Result<Newborn, Failure> {
    let (report, mut child_report) = {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).doing(|| "making a pipe")?;
        (read, File::from(write))
    };
    let directory = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let time = TimeNamespace::prepare(clock_offsets)?;
    let is_new = |kind| surroundings.has_own(kind) && !surroundings.made.contains_key(&kind);
    let flags = BORN_INTO.iter().filter(|(kind, _)| is_new(*kind)).map(|&(_, flag)| flag);
    let flags: CloneFlags = flags.collect();
    let arguments = CloneArgs {
        flags: u64::from(flags.bits().cast_unsigned()),
        exit_signal: libc::SIGCHLD,
        cgroup: Some(cgroup),
        ..CloneArgs::default()
    };
    let pid = match fork_into(&arguments).doing(|| "making the first process with clone3(2)")? {
        Forked::Child => live(surroundings, &directory, &mut child_report, furnish, child),
        Forked::Parent { child, .. } => child,
    };
    drop(child_report);
    let stands = time.leave().and_then(|()| wait_until_ready(&report));
    match stands {
        Ok(()) => Ok(Newborn { pid, report }),
        Err(failure) => {
            end(pid);
            Err(failure.within("setting up the container"))
        }
    }
}

/// The child's life until exec.
fn live(
    surroundings: &Surroundings,
    directory: &Path,
    report: &mut File,
    furnish: impl FnOnce(&mut dyn FnMut()) -> Result<(), Failure>,
    child: impl FnOnce() -> std::io::Error,
) -> ! {
    let mut told = Instant::now();
    let mut alive = || {
        if told.elapsed() >= ALIVE_EVERY {
            told = Instant::now();
            let _ = report.write_all(&[ALIVE]);
        }
    };
    let entered = enter(surroundings, directory, || furnish(&mut alive));
    let failure = match entered {
        Ok(()) => {
            // If nobody reads, the parent is gone and the exec is still right: the container was wanted.
            let _ = report.write_all(&[READY]);
            let error = child();
            let kind = match error.raw_os_error() {
                Some(libc::ENOENT) => Kind::NotFound,
                _ => Kind::System,
            };
            Failure { kind, chain: vec![error.to_string()] }
        }
        Err(failure) => failure,
    };
    if let Ok(bytes) = serde_json::to_vec(&failure) {
        // Without a reader there is nobody to tell.
        let _ = report.write_all(&bytes);
    }
    exit_now(127)
}

/// Sets up everything a container has of its own.
fn enter(
    surroundings: &Surroundings,
    directory: &Path,
    furnish: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    setsid().doing(|| "setsid(2)")?;
    for (kind, made) in &surroundings.made {
        setns(made, CloneFlags::empty()).doing(|| format!("joining its {} namespace", kind.name()))?;
    }
    // Here and not by a flag of clone3(2): that takes the caller's cgroup for the namespace's root, not the one born into.
    if surroundings.has_own(NamespaceKind::Cgroup) && !surroundings.made.contains_key(&NamespaceKind::Cgroup) {
        unshare(CloneFlags::CLONE_NEWCGROUP).doing(|| "making a cgroup namespace")?;
    }
    if surroundings.has_own(NamespaceKind::Uts) {
        set_names(&surroundings.hostname, &surroundings.domainname)?;
    }
    if surroundings.has_own(NamespaceKind::Net) {
        crfs_sys::sockets::bring_loopback_up().doing(|| "bringing up lo")?;
    }
    if surroundings.has_own(NamespaceKind::Mnt) {
        change_mounts(surroundings)?;
        furnish()?;
    }
    if chdir(directory).is_err() {
        chdir("/").doing(|| "changing to /")?;
    }
    Ok(())
}

/// Sets the names of the calling process's uts namespace.
///
/// # Errors
/// Names the one that the kernel refuses.
pub(crate) fn set_names(hostname: &OsStr, domainname: &OsStr) -> Result<(), Failure> {
    sethostname(hostname).doing(|| format!("host name {}", hostname.display()))?;
    // nix has no setdomainname(2); the file is the same setting of the writer's uts namespace.
    let domain = domainname.as_bytes();
    fs::write("/proc/sys/kernel/domainname", if domain.is_empty() { b"\n" } else { domain })
        .doing(|| format!("domain name {}", domainname.display()))
}

/// In a mount namespace of its own.
fn change_mounts(surroundings: &Surroundings) -> Result<(), Failure> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
        .doing(|| "keeping mounts from the host: mount / as a slave")?;
    detach_crfs()?;
    match &surroundings.root {
        Some(root) => {
            let overlay =
                surroundings.overlay.as_ref().map(|overlay| overlay::find_or_mount(overlay, root)).transpose()?;
            change_root(overlay.as_ref().unwrap_or(root), surroundings.own_devices)?;
        }
        None if surroundings.has_own(NamespaceKind::Pid) => fresh_proc(Path::new("/proc"))?,
        None => {}
    }
    if surroundings.own_devices { Ok(()) } else { fresh_devpts(Path::new("/dev/pts")) }
}

/// Takes the mounts of crfs out of this mount namespace: a task of a container that waits for the server could neither be
/// frozen nor stopped, and the copied mount would keep the file system alive after the host's umount.
fn detach_crfs() -> Result<(), Failure> {
    // This /proc is still the host's, where this process goes by the host's number. A mount namespace is a thread's.
    let text = fs::read("/proc/thread-self/mountinfo").doing(|| "/proc/thread-self/mountinfo: reading")?;
    // Last mounted first, since one may hide another.
    for mount in mounts(&text).iter().rev().filter(|mount| mount.is_crfs()) {
        umount2(&mount.path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .doing(|| format!("{}: detaching crfs from the container", mount.path.display()))?;
    }
    Ok(())
}

/// A /proc that shows the new pid namespace, over what is there.
fn fresh_proc(path: &Path) -> Result<(), Failure> {
    let none: Option<&str> = None;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), path, Some("proc"), flags, none).doing(|| format!("{}: mounting proc", path.display()))
}

/// Terminals of the container's own, over what is there: /dev/ptmx, opened beside it, leads to this one (`devpts_mntget`,
/// fs/devpts/inode.c). A container whose root has no such directory has no terminals.
fn fresh_devpts(path: &Path) -> Result<(), Failure> {
    if !fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("devpts"), path, Some("devpts"), flags, Some("newinstance,ptmxmode=0666,mode=0620,gid=5"))
        .doing(|| format!("{}: mounting devpts", path.display()))
}

/// Makes a directory the root. What it has for /proc and /dev gets a fresh proc and, where it has no devices, the host's.
fn change_root(root: &Path, own_devices: bool) -> Result<(), Failure> {
    let none: Option<&str> = None;
    let root = fs::canonicalize(root).doing(|| format!("{}: finding the container's root", root.display()))?;
    // pivot_root(2) wants a mount, and one whose parent is not shared (it is a slave since above).
    mount(Some(&root), &root, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .doing(|| format!("{}: binding the container's root", root.display()))?;
    let inside = |name: &str| root.join(name);
    // A symbolic link would lead out of the directory, into the host's own tree.
    let is_directory = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    if is_directory(&inside("proc")) {
        fresh_proc(&inside("proc"))?;
    }
    let dev = inside("dev");
    if !own_devices && is_directory(&dev) && !dev.join("null").exists() {
        mount(Some("/dev"), &dev, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
            .doing(|| format!("{}: binding the host's devices", dev.display()))?;
    }
    chdir(&root).doing(|| format!("{}: changing to the container's root", root.display()))?;
    if pivot_root(".", ".").is_ok() {
        // The old root now lies over the new one, at the same place.
        return umount2(".", MntFlags::MNT_DETACH).doing(|| "detaching the host's root");
    }
    // pivot_root(2) refuses when the host's root is the initial ramfs.
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none)
        .doing(|| format!("{}: moving the container's root to /", root.display()))?;
    chroot(".").doing(|| format!("{}: making it the root", root.display()))
}

/// The namespace that the next child is born into; the caller stays where it is.
struct TimeNamespace {
    own: File,
}

impl TimeNamespace {
    /// Gives the next child a new time namespace, with these offsets.
    fn prepare(offsets: Option<ClockOffsets>) -> Result<Self, Failure> {
        let own = File::open("/proc/self/ns/time").doing(|| "/proc/self/ns/time: opening")?;
        unshare(CLONE_NEWTIME).doing(|| "making a time namespace")?;
        let prepared = TimeNamespace { own };
        if let Some(offsets) = offsets {
            // Offsets can be set until the first task enters, and only by writing this file.
            let line = |clock: &str, ns: i64| {
                format!("{clock} {} {}\n", ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000))
            };
            let text = line("monotonic", offsets.monotonic) + &line("boottime", offsets.boottime);
            let written = fs::write("/proc/self/timens_offsets", &text)
                .doing(|| format!("clock offsets {:?}: writing /proc/self/timens_offsets", text.trim_end()));
            if let Err(failure) = written {
                prepared.leave()?;
                return Err(failure);
            }
        }
        Ok(prepared)
    }

    /// Later children of the caller are born into its own namespace again.
    fn leave(self) -> Result<(), Failure> {
        setns(self.own.as_fd(), CLONE_NEWTIME).doing(|| "going back to the own time namespace")
    }
}

/// Waits for the child's word that its surroundings stand.
fn wait_until_ready(report: &OwnedFd) -> Result<(), Failure> {
    let mut first = [ALIVE];
    let mut read = 1;
    let mut end = Instant::now() + PATIENCE;
    while (read, first) == (1, [ALIVE]) {
        end = Instant::now() + PATIENCE;
        wait_readable(report, end)?;
        read = nix::unistd::read(report, &mut first).doing(|| "reading the child's report")?;
    }
    match read {
        1 if first[0] == READY => Ok(()),
        1 => {
            let mut bytes = first.to_vec();
            bytes.extend(read_report(report, end)?);
            Err(parse_report(&bytes))
        }
        _ => Err(Failure::new(Kind::System, "the first process ended before its surroundings stood")),
    }
}

/// All that is written to the pipe until its other end is closed.
pub(super) fn read_report(report: &OwnedFd, end: Instant) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut file = File::from(report.try_clone().doing(|| "duplicating a pipe")?);
    let mut part = [0u8; 4096];
    loop {
        wait_readable(report, end)?;
        match file.read(&mut part).doing(|| "reading the child's report")? {
            0 => return Ok(bytes),
            length => bytes.extend_from_slice(&part[..length]),
        }
    }
}

fn wait_readable(fd: &OwnedFd, end: Instant) -> Result<(), Failure> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => {
                return Err(Failure::new(
                    Kind::Deadline,
                    format!("the first process did not get to its program within {} s", PATIENCE.as_secs()),
                ));
            }
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).doing(|| "waiting for the child's report"),
        }
    }
}

pub(super) fn parse_report(bytes: &[u8]) -> Failure {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Failure::new(Kind::System, String::from_utf8_lossy(bytes).into_owned()))
}

/// Kills and reaps a child. Bounded: a process that hangs in the kernel is left to its parent's end.
fn end(pid: Pid) {
    // ESRCH cannot be (it is our child, not yet reaped), and nothing else can be refused to root.
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(nix::sys::wait::WaitStatus::StillAlive) => std::thread::sleep(Duration::from_micros(200)),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests;
