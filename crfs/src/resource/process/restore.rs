//! What a process is beside its memory and descriptors: directories, limits, and what /proc lets be set from outside.

use crate::failure::{Doing, Failure, Kind};
use crate::resource::directory;
use crate::resource::ended_task;
use crate::resource::mount::Roots;
use crfs_tracee::{Arg, Batch, HostPid};
use image_format::files::DeletedDirectory;
use image_format::process::{Limit, ProcessAttr, Shares};
use image_format::thread::Directories as OwnDirectories;
use image_format::{Bytes, Image, Octal, Pid, ProcessImage, layout};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Opens a directory as a place; one that was deleted is made again.
fn open(root: BorrowedFd<'_>, path: &Bytes, deleted: Option<&DeletedDirectory>) -> std::io::Result<OwnedFd> {
    if let Some(deleted) = deleted {
        return directory::make(root, path, deleted, OFlag::O_PATH);
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    Ok(openat2(root, path.0.as_slice(), how)?)
}

/// The directories that processes stand in, opened once by the worker.
#[derive(Debug, Default)]
pub struct Directories {
    open: BTreeMap<Place, OwnedFd>,
    /// The number of the mount namespace that each process is in.
    namespaces: BTreeMap<Pid, u32>,
    /// The processes in whose /proc directories some stand, which are to end.
    ending: Vec<ended_task::Task>,
}

/// A directory by the mount namespace that it is seen in, its path, and whether it was deleted: then it is not what stands there.
type Place = (u32, Bytes, bool);

impl Directories {
    /// Opens every working and root directory below the root of the mount namespace that its process is in. The calling process must have one
    /// thread; `first` is the container's first process, as the host numbers it, and the only one yet.
    ///
    /// # Errors
    /// [`Kind::Incompatible`], naming every one that is not there.
    pub fn open(image: &Image, roots: &Roots<'_>, first: HostPid) -> Result<Self, Failure> {
        let mut directories = Directories::default();
        let mut missing = Vec::new();
        let mut used = image.ids_in_use();
        for (&pid, process) in &image.processes {
            let record = &process.process;
            let (namespace, above) = (image.mounts_of_process(pid), roots.of_process(pid));
            directories.namespaces.insert(pid, namespace);
            let own = process.threads.values().filter_map(|thread| thread.attr.directories.as_ref());
            let places = own.flat_map(|own| [(&own.cwd, &own.cwd_deleted), (&own.root, &None)]);
            for (path, deleted) in places.chain([(&record.cwd, &record.cwd_deleted), (&record.root, &None)]) {
                let place = (namespace, path.clone(), deleted.is_some());
                if directories.open.contains_key(&place) {
                    continue;
                }
                if let Some(entry) = image.ended_directory(path) {
                    let entered = ended_task::enter(first.raw(), &entry, above, &mut used);
                    let (opened, task) = entered.map_err(|failure| {
                        failure.within(format!("{}: directory {path}", layout::process_file(pid, "process")))
                    })?;
                    directories.open.insert(place, opened);
                    directories.ending.push(task);
                    continue;
                }
                match open(above, path, deleted.as_ref()) {
                    Ok(fd) => {
                        directories.open.insert(place, fd);
                    }
                    Err(error) => {
                        missing.push(format!("{}: directory {path}: {error}", layout::process_file(pid, "process")));
                    }
                }
            }
        }
        if missing.is_empty() {
            return Ok(directories);
        }
        Err(Failure::new(Kind::Incompatible, missing.join("; ")))
    }

    /// Ends the processes that directories were made of, when everybody stands in them.
    ///
    /// # Errors
    /// When one cannot be waited for.
    pub fn settle(&mut self) -> Result<(), Failure> {
        let mut ending = std::mem::take(&mut self.ending).into_iter();
        ending.try_for_each(|task| task.end().doing(|| "ending a process"))
    }

    fn pull(&self, batch: &mut Batch, link: u32, place: &Place) -> Result<Arg, Failure> {
        let fd = self.open.get(place).and_then(|fd| u64::try_from(fd.as_raw_fd()).ok());
        let fd = fd.ok_or_else(|| Failure::new(Kind::System, format!("{}: was not opened", place.1)))?;
        Ok(Arg::Result(batch.call(
            libc::SYS_pidfd_getfd,
            &[u64::from(link).into(), fd.into(), 0u64.into()],
            "pidfd_getfd",
        )))
    }

    fn place(&self, pid: Pid, path: &Bytes, deleted: bool) -> Place {
        (self.namespaces.get(&pid).copied().unwrap_or(0), path.clone(), deleted)
    }

    /// The calls that put a process into its root and working directory and set its umask.
    ///
    /// # Errors
    /// When a directory was not opened, which is a mistake of the caller.
    pub fn enter(&self, batch: &mut Batch, process: &ProcessImage, link: u32) -> Result<(), Failure> {
        let record = &process.process;
        let place = |path, deleted| self.place(record.pid, path, deleted);
        let (cwd, root) = (place(&record.cwd, record.cwd_deleted.is_some()), place(&record.root, false));
        self.go(batch, link, &cwd, &root, record.umask)
    }

    /// The same for a thread that leaves those of its process.
    ///
    /// # Errors
    /// As [`Directories::enter`].
    pub fn leave(&self, batch: &mut Batch, pid: Pid, own: &OwnDirectories, link: u32) -> Result<(), Failure> {
        let alone = u64::from(libc::CLONE_FS.cast_unsigned());
        batch.call(libc::SYS_unshare, &[alone.into()], "unshare(CLONE_FS)");
        let place = |path, deleted| self.place(pid, path, deleted);
        self.go(batch, link, &place(&own.cwd, own.cwd_deleted.is_some()), &place(&own.root, false), own.umask)
    }

    fn go(&self, batch: &mut Batch, link: u32, cwd: &Place, root: &Place, umask: Octal) -> Result<(), Failure> {
        let cwd = self.pull(batch, link, cwd)?;
        if root.1.0 != b"/" {
            let root = self.pull(batch, link, root)?;
            let here = batch.data(b".\0");
            batch.call(libc::SYS_fchdir, &[root], "fchdir");
            batch.call(libc::SYS_chroot, &[here.into()], "chroot");
            batch.call(libc::SYS_close, &[root], "close");
        }
        batch.call(libc::SYS_fchdir, &[cwd], "fchdir");
        batch.call(libc::SYS_close, &[cwd], "close");
        batch.call(libc::SYS_umask, &[u64::from(umask.0).into()], "umask");
        Ok(())
    }
}

/// The flags of clone(2) by which a process has these from its maker, and becomes its sibling rather than its child.
#[must_use]
pub fn clone_flags(shares: Shares, sibling: bool) -> u64 {
    let Shares { memory, descriptors, directories, signal_actions } = shares;
    let flags = [
        (memory.is_some(), libc::CLONE_VM),
        (descriptors.is_some(), libc::CLONE_FILES),
        (directories.is_some(), libc::CLONE_FS),
        (signal_actions.is_some(), libc::CLONE_SIGHAND),
        (sibling, libc::CLONE_PARENT),
    ];
    flags.into_iter().filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | u64::from(flag.cast_unsigned()))
}

/// The kernel's numbers of the limits (include/uapi/asm-generic/resource.h, v6.18).
pub const LIMITS: [(&str, u32); 16] = [
    ("RLIMIT_CPU", 0),
    ("RLIMIT_FSIZE", 1),
    ("RLIMIT_DATA", 2),
    ("RLIMIT_STACK", 3),
    ("RLIMIT_CORE", 4),
    ("RLIMIT_RSS", 5),
    ("RLIMIT_NPROC", 6),
    ("RLIMIT_NOFILE", 7),
    ("RLIMIT_MEMLOCK", 8),
    ("RLIMIT_AS", 9),
    ("RLIMIT_LOCKS", 10),
    ("RLIMIT_SIGPENDING", 11),
    ("RLIMIT_MSGQUEUE", 12),
    ("RLIMIT_NICE", 13),
    ("RLIMIT_RTPRIO", 14),
    ("RLIMIT_RTTIME", 15),
];

/// Sets resource limits from outside. Raising a hard limit takes CAP_SYS_RESOURCE: without it the limit stays lower, and a
/// note says so.
///
/// # Errors
/// When a limit is refused for another reason.
pub fn limits(host_pid: HostPid, process: &ProcessImage, notes: &mut Vec<String>) -> Result<(), Failure> {
    let path = layout::process_file(process.process.pid, "process");
    for (name, limit) in &process.process.limits {
        let number = LIMITS.iter().find(|(known, _)| known == name).map(|&(_, number)| number);
        let number =
            number.ok_or_else(|| Failure::new(Kind::BadImage, format!("{path}: limits: unknown limit {name:?}")))?;
        let Limit { soft, hard } = limit;
        let (soft, hard) = (soft.unwrap_or(u64::MAX), hard.unwrap_or(u64::MAX));
        let set = crfs_sys::limits::set(host_pid.pid(), number, crfs_sys::limits::Limit { soft, hard });
        match set {
            Ok(_) => {}
            Err(nix::errno::Errno::EPERM) => {
                let now = crfs_sys::limits::get(host_pid.pid(), number).doing(|| format!("{path}: reading {name}"))?;
                let lower = crfs_sys::limits::Limit { soft: soft.min(now.hard), hard: now.hard };
                crfs_sys::limits::set(host_pid.pid(), number, lower).doing(|| format!("{path}: setting {name}"))?;
                notes.push(format!("{path}: {name} stays at {} (raising it takes CAP_SYS_RESOURCE)", show(now.hard)));
            }
            Err(errno) => return Err(errno).doing(|| format!("{path}: setting {name}")),
        }
    }
    Ok(())
}

/// Lets as many signals and timers wait for a process as may be, until [`limits`]: the kernel counts those of all processes of a user
/// (setrlimit(2), RLIMIT_SIGPENDING), and others may have used what is left. Without CAP_SYS_RESOURCE the hard limit stays.
pub fn lift_signal_limit(host_pid: HostPid) {
    use crfs_sys::limits::{INFINITY, Limit, get, set};
    let Some(&(_, number)) = LIMITS.iter().find(|(name, _)| *name == "RLIMIT_SIGPENDING") else { return };
    let to = |most| set(host_pid.pid(), number, Limit { soft: most, hard: most });
    // What waits may fit in as it is.
    let _ = to(INFINITY).or_else(|_| to(get(host_pid.pid(), number)?.hard));
}

fn show(limit: u64) -> String {
    if limit == u64::MAX { "unlimited".to_owned() } else { limit.to_string() }
}

/// Sets what /proc/PID takes from outside. Lowering oom_score_adj takes CAP_SYS_RESOURCE: without it a note says so.
///
/// # Errors
/// When /proc refuses for another reason.
pub fn attributes(host_pid: HostPid, process: &ProcessImage, notes: &mut Vec<String>) -> Result<(), Failure> {
    let ProcessAttr { oom_score_adj, coredump_filter, .. } = &process.attr;
    let path = layout::process_file(process.process.pid, "attr");
    let file = |name: &str| format!("/proc/{}/{name}", host_pid.raw());
    match std::fs::write(file("oom_score_adj"), oom_score_adj.to_string()) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            notes.push(format!(
                "{path}: oom_score_adj {oom_score_adj} could not be set (lowering it takes CAP_SYS_RESOURCE)"
            ));
        }
        other => other.doing(|| format!("{path}: setting oom_score_adj"))?,
    }
    std::fs::write(file("coredump_filter"), coredump_filter.to_string())
        .doing(|| format!("{path}: setting coredump_filter"))
}
