//! Builds a container from a checkpoint in a directory: checks, plan, surroundings, steps, and the freeze at the end.
//!
//! Every task is made by this worker and dies with it: they are traced with PTRACE_O_EXITKILL until the cgroup is frozen, the
//! option is cleared and the worker lets go.

mod births;
mod builder;
mod countdowns;
mod deaths;
mod memory;
mod open_late;
mod publish;
mod resume;
mod threads;
mod vfork;
mod watch;

use super::laps::Laps;
use super::{Report, settle, thaw};
use crate::console;
use crate::copy::{Contents, Copy};
use crate::failure::{Doing, Failure, Kind};
use crate::freezer::Cgroup;
use crate::launch::{ClockOffsets, Surroundings, clone_init};
use crate::operation::start_time;
use crate::plan::{self, Home};
use crate::registry::{Container, Init, Record, Registry};
use crate::resource::container::{home as container_home, restore as container_restore};
use crate::resource::descriptor;
use crate::resource::mount::{Made, restore as mount};
use crate::resource::{cgroup, pid_namespace, time_namespace, unshared, user_namespace};
use builder::{Builder, Ground};
use crfs_sys::HostPid;
use crfs_sys::close_range::close_all;
use crfs_tracee::stub;
use image_format::manifest::NamespaceKind;
use image_format::mounts::MountKind;
use image_format::{Bytes, Image, Pid, layout};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// For the freezer to stop tasks that all stand still already.
const FREEZE_DEADLINE: Duration = Duration::from_secs(10);
/// For killed tasks to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Runs the job. With `run` the container runs then, and nothing is kept of what was copied in.
pub(super) fn run(registry: &Registry, name: &str, from: &Path, run: bool) -> Report {
    let (mut report, mut laps) = (Report::default(), Laps::start());
    report.failure = build(registry, name, (from, run), &mut report, &mut laps).err();
    let thaw = std::mem::replace(&mut report.timings, laps.timings);
    report.timings.extend(thaw);
    report
}

fn build(
    registry: &Registry,
    name: &str,
    (from, run): (&Path, bool),
    report: &mut Report,
    laps: &mut Laps,
) -> Result<(), Failure> {
    let container = registry.container(name)?;
    // Never freed by pieces: the worker ends when it is done.
    let (copy, texts) =
        Copy::load_to_restore(from, !run).map(|(copy, texts)| (ManuallyDrop::new(copy), ManuallyDrop::new(texts)))?;
    let image = &copy.image;
    let contents = Contents::of(&copy, from)?;
    container_restore::check_host(&image.manifest)?;
    let notes = &mut report.notes;
    let home = container_home::choose(image, notes)?;
    let plan = plan::compute(image, &home)?;
    laps.lap("check");

    write_record(registry, name, image)?;
    // A log that is there is continued.
    let log = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(container.log_file());
    log.doing(|| format!("{}: making the container's log", container.log_file().display()))?;
    let cgroup = Cgroup::of(registry, name)?;
    cgroup.create()?;
    let (tasks, console, files) = made_or_gone(&cgroup, || {
        let link = link_to_worker(&plan)?;
        let furniture = mount::Furniture::open(image, &contents)?;
        let cgroups = cgroup::restore::Tree::make(image, &cgroup)?;
        let user_namespaces = user_namespace::UserNamespaces::make(&image.namespaces)?;
        let made = unshared::of_container(image, &cgroup, &user_namespaces)?;
        let init = first_process(image, &furniture, made, &home, (&cgroup, &link))?;
        note_stub_init(&container, &home, init)?;
        laps.lap("surroundings");
        let namespaces = unshared::Made::make(&image.namespaces, &cgroups, &user_namespaces)?;
        let pid_namespaces = pid_namespace::PidNamespaces::make(image, init, &cgroup, &user_namespaces)?;
        let time_namespaces = time_namespace::TimeNamespaces::make(image, init, &user_namespaces)?;
        let mounts = Made::make(image, &furniture, init, &cgroup, &pid_namespaces, &user_namespaces)?;
        cgroups.begin(plan.first()?, init.raw(), notes)?;
        let network = container_restore::without_loopback(&image.manifest, init)?;
        let ground = Ground {
            first: init,
            cgroups: &cgroups,
            mounts: &mounts,
            namespaces,
            pid_namespaces,
            time_namespaces,
            user_namespaces,
        };
        let builder = Builder::new(&container, (from, &contents), &copy, &plan, ground, notes)?;
        mounts.bind_terminals(&furniture, init)?;
        laps.lap("open");
        let mut built = builder.run(notes, laps)?;
        mount::settle_times(image, &mounts)?;
        network.as_ref().map_or(Ok(()), container_restore::take_down)?;
        cgroups.finish(notes)?;
        cgroup.freeze(FREEZE_DEADLINE)?;
        let (console, files) = (built.take_console(), std::mem::take(&mut built.files));
        Ok((built.let_go()?, console, files))
    })?;
    laps.lap("freeze");
    made_or_gone(&cgroup, || {
        settle::wait(tasks.iter().map(|task| task.host))?;
        let countdowns = countdowns::of(image, &tasks);
        let processes = tasks.into_iter().filter(|task| task.pid != plan::OUTSIDE).map(|task| (task.pid, task.host));
        let processes = Vec::from_iter(processes);
        let (init, record) = note_init(&container, &processes)?;
        if let Some((master, shown)) = console {
            console::start(&container, master, init.pid, &shown)?;
        }
        if run {
            // What a program closes has to be closed then, and what it unlocks unlocked.
            close_all(files.into_values());
            laps.lap("settle");
            return thaw::let_run(&record, BTreeMap::new(), &countdowns, report);
        }
        // The end of the worker closes them all.
        std::mem::forget(files);
        let mut live = settle::live(cgroup.thawed()?, processes)?;
        live.note_contents(image)?;
        publish::publish(image, texts.as_ref(), (from, &contents), &container, &live)?;
        container.write_live(&live)?;
        container.write_countdowns(&countdowns)?;
        laps.lap("publish");
        Ok(())
    })
}

/// Does a part of the build. When it fails, every task and the cgroup are gone before it returns.
fn made_or_gone<T>(cgroup: &Cgroup, part: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    part().inspect_err(|_| {
        // The failure that counts is the first; what cannot be killed is told by the next attempt.
        let _ = cgroup.write_kill();
        let end = Instant::now() + KILL_DEADLINE;
        // A traced task is gone only when its tracer has waited for it.
        while Instant::now() < end {
            match nix::sys::wait::waitpid(
                None,
                Some(nix::sys::wait::WaitPidFlag::__WALL | nix::sys::wait::WaitPidFlag::WNOHANG),
            ) {
                Ok(nix::sys::wait::WaitStatus::StillAlive) => std::thread::sleep(Duration::from_micros(200)),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        let _ = cgroup.remove(KILL_DEADLINE);
    })
}

/// Notes in the registry what the image says of the container.
fn write_record(registry: &Registry, name: &str, image: &Image) -> Result<(), Failure> {
    let container = registry.container(name)?;
    let mut record = container.existing()?;
    let options = &image.manifest.container;
    let first = image.processes.values().find(|process| process.process.parent == Pid(0));
    record.command =
        first.map_or(Vec::new(), |first| first.process.arguments.iter().map(|arg| arg.escaped()).collect());
    record.root = options.root.as_ref().map(|root| PathBuf::from(OsString::from_vec(root.0.clone())));
    record.host_namespaces.clone_from(&options.host_namespaces);
    record.cgroup = Cgroup::of(registry, name)?.path().to_owned();
    container.write_record(&record)
}

/// Notes which process is pid 1 and no part of the image, if there is one.
fn note_stub_init(container: &Container, home: &Home, first: HostPid) -> Result<(), Failure> {
    let mut record = container.existing()?;
    let start_time = start_time(first.raw()).filter(|_| *home == Home::Stub);
    record.stub_init = start_time.map(|start_time| Init { pid: first.raw(), start_time });
    container.write_record(&record)
}

/// Notes which process stands for the container: pid 1, unless the tree was taken from another namespace; then the first of them.
fn note_init(container: &Container, processes: &[(Pid, HostPid)]) -> Result<(Init, Record), Failure> {
    let missing = || Failure::new(Kind::System, format!("{}: no first process was built", container.name()));
    let by_pid = processes.iter().find(|(pid, _)| *pid == Pid(1));
    let pid = by_pid.or(processes.first()).ok_or_else(missing)?.1.raw();
    let init = Init { pid, start_time: start_time(pid).ok_or_else(missing)? };
    let record = Record { init: Some(init), ..container.existing()? };
    container.write_record(&record)?;
    Ok((init, record))
}

/// A pidfd of this worker, through which the processes being built pull descriptors.
fn link_to_worker(plan: &plan::Plan) -> Result<Link, Failure> {
    let pidfd = crfs_sys::pidfd::open(nix::unistd::getpid(), false).doing(|| "opening a pidfd of the worker")?;
    Ok(Link {
        pidfd,
        number: i32::try_from(plan.link_fd)
            .map_err(|_| Failure::new(Kind::BadImage, "fds: a descriptor is too large"))?,
    })
}

struct Link {
    pidfd: OwnedFd,
    number: i32,
}

/// The container's first process, or the stub that clones it, in its new surroundings, at the stub's first instructions.
fn first_process(
    image: &Image,
    furniture: &mount::Furniture<'_>,
    made: BTreeMap<NamespaceKind, File>,
    home: &Home,
    (cgroup, link): (&Cgroup, &Link),
) -> Result<HostPid, Failure> {
    let manifest = &image.manifest;
    let mut host_namespaces = manifest.container.host_namespaces.clone();
    if *home == Home::Stub {
        // With mounts of its own, for the /proc that shows it.
        host_namespaces.retain(|kind| !matches!(kind, NamespaceKind::Pid | NamespaceKind::Mnt));
    }
    let os = |bytes: &image_format::Bytes| OsString::from_vec(bytes.0.clone());
    let surroundings = Surroundings {
        root: manifest.container.root.as_ref().map(|root| os(root).into()),
        overlay: image.root_overlay().map(|(_, options)| options.clone()),
        own_devices: has_own_devices(image),
        host_namespaces,
        made,
        hostname: os(&manifest.container.hostname),
        domainname: os(&manifest.container.domainname),
    };
    raise_descriptor_limit(link)?;
    let offsets = ClockOffsets {
        monotonic: offset(manifest.clocks.monotonic, libc::CLOCK_MONOTONIC)?,
        boottime: offset(manifest.clocks.boottime, libc::CLOCK_BOOTTIME)?,
    };
    let program = stub::memfd().doing(|| "making the stub")?;
    let directory = cgroup.open()?;
    let newborn = clone_init(
        &surroundings,
        std::os::fd::AsFd::as_fd(&directory),
        Some(offsets),
        |alive| furniture.mount_all(alive),
        || become_stub(link, &program),
    )?;
    let pid = newborn.wait_for_exec()?;
    Ok(HostPid::from(pid))
}

/// Whether the container had another root directory, and mounts something on /dev in it before anything else there.
fn has_own_devices(image: &Image) -> bool {
    let touches = |path: &Bytes| path.0 == b"/dev" || path.0.starts_with(b"/dev/");
    let mut own = image.mounts.iter().filter(|mount| mount.namespace == 0 && mount.kind != MountKind::Host);
    let first = own.find(|mount| {
        let source = if let MountKind::Bind(bind) = &mount.kind { Some(&bind.source) } else { None };
        [Some(&mount.path), source].into_iter().flatten().any(touches)
    });
    image.manifest.container.root.is_some() && first.is_some_and(|first| first.path.0 == b"/dev")
}

/// What must be added to the host's clock for the container's to continue from where it was.
fn offset(then: image_format::Timespec, clock: libc::clockid_t) -> Result<i64, Failure> {
    let now = crfs_sys::time::clock_ns(clock).doing(|| "reading a clock")?;
    i64::try_from(then.ns() - i128::from(now))
        .map_err(|_| Failure::new(Kind::BadImage, format!("{}: clocks: out of range", layout::MANIFEST)))
}

/// Descriptors of the image may have any number, and the worker opens every file of every process.
fn raise_descriptor_limit(link: &Link) -> Result<(), Failure> {
    let hard = descriptor::limit::raise().doing(|| "raising RLIMIT_NOFILE")?;
    let highest = u64::try_from(link.number).unwrap_or(0) + 2;
    if highest > hard {
        let reason =
            format!("fds: descriptor {} is beyond this user's limit of {hard} (RLIMIT_NOFILE); raise it", highest - 2);
        return Err(Failure::new(Kind::Incompatible, reason));
    }
    Ok(())
}

/// In the new process: nothing open but the link, every signal as after boot, and death when the worker dies before it traces.
fn become_stub(link: &Link, program: &OwnedFd) -> std::io::Error {
    let set = || -> nix::Result<()> {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        crfs_sys::signal::reset_all()?;
        crfs_sys::signal::set_mask(0)?;
        crfs_sys::fds::keep(&link.pidfd, link.number, program)
    };
    if let Err(errno) = set() {
        return errno.into();
    }
    let name = [c"crfs-stub"];
    let nothing: [CString; 0] = [];
    match nix::unistd::execveat(program, c"", &name, &nothing, nix::fcntl::AtFlags::AT_EMPTY_PATH) {
        Err(errno) => errno.into(),
        Ok(never) => match never {},
    }
}
