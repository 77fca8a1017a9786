//! Carries out the steps of a plan on traced processes.

use super::vfork;
use crate::copy::{Contents, Copy};
use crate::failure::{Doing, Failure, Kind};
use crate::plan::{Action, Birth, Plan, Role, SCRATCH_SIZE, Step};
use crate::registry::Container;
use crate::resource::memory::fill::PageFiles;
use crate::resource::memory::opened::Backings;
use crate::resource::memory::restore as memory;
use crate::resource::mount::{Made, Roots};
use crate::resource::process::restore::{self as process, Directories};
use crate::resource::{
    aio, autogroup, cgroup, descriptor, ended_task, epoll, interval_timer, job_control, ldt, lock, memory_policy,
    mqueue, numa, owner, pid_namespace, posix_timer, pseudo_file, seccomp, signal, sysv, thread, time_namespace,
    unnamed, unshared, user_namespace,
};
use crate::worker::laps::Laps;
use crfs_sys::HostPid;
use crfs_sys::sysv::Attachment;
use crfs_tracee::{Batch, Injector, OneCpu, RemoteAddress, SeizeOptions, Stopped, Tracee, Waited, stub};
use image_format::process::{Fd, Zombie};
use image_format::signal::{PendingSignal, Signal};
use image_format::{FileId, Pid, ProcessImage, layout};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A stop that was asked for comes within microseconds.
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(10);
pub(super) const PR_SET_PDEATHSIG: u64 = 1;

/// Of each a file is open while it is filled.
const MOST_FILLED: usize = 256;

/// What stands before the first step.
pub(super) struct Ground<'a> {
    /// The stub that becomes the first process.
    pub(super) first: HostPid,
    /// Where processes are placed.
    pub(super) cgroups: &'a cgroup::restore::Tree<'a>,
    /// The mount namespaces.
    pub(super) mounts: &'a Made,
    /// Namespaces of other types that processes join.
    pub(super) namespaces: unshared::Made,
    /// Those of pids below the container's own.
    pub(super) pid_namespaces: pid_namespace::PidNamespaces<'a>,
    /// Those of clocks.
    pub(super) time_namespaces: time_namespace::TimeNamespaces<'a>,
    /// Those of users.
    pub(super) user_namespaces: user_namespace::UserNamespaces<'a>,
}

/// The container while it is being built.
pub(super) struct Builder<'a> {
    pub(super) copy: &'a Copy,
    pub(super) plan: &'a Plan,
    pub(super) cpu: OneCpu,
    pub(super) backings: Backings,
    pub(super) directories: Directories,
    pub(super) opened: descriptor::Opened,
    pub(super) registrations: epoll::Registrations,
    pub(super) pages: PageFiles<'a>,
    pub(super) policies: numa::restore::Policies,
    pub(super) notes: Vec<String>,
    cores: PathBuf,
    pub(super) own_capabilities: u64,
    pub(super) tasks: BTreeMap<Pid, Task>,
    unnamed: unnamed::Made,
    pub(super) cgroups: &'a cgroup::restore::Tree<'a>,
    pub(super) namespaces: unshared::Made,
    pub(super) ipc: unshared::IpcNamespaces<'a>,
    pub(super) pid_namespaces: pid_namespace::PidNamespaces<'a>,
    pub(super) time_namespaces: time_namespace::TimeNamespaces<'a>,
    pub(super) user_namespaces: user_namespace::UserNamespaces<'a>,
    /// Who joins a user namespace before it has its threads.
    pub(super) entering: BTreeSet<Pid>,
    /// Kept until every process has attached its own.
    _segments: Vec<Attachment>,
    /// A plain directory with the image's files: what was staged, or a checkpoint that stays where it is.
    pub(super) from: &'a Path,
    mounts: &'a Made,
    pub(super) roots: Roots<'a>,
}

/// A process being built: its threads, the leader among them, while calls are injected; then as they stand.
pub(super) struct Task {
    /// The process, as the host numbers it.
    host: HostPid,
    pub(super) injected: BTreeMap<Pid, Injector>,
    /// Its threads, as the container numbers them, in their final state.
    pub(super) finished: Vec<(Pid, Tracee<Stopped>)>,
    /// Those that stand in their vfork.
    pub(super) waiting: BTreeMap<Pid, Tracee<Stopped>>,
    /// Zombies and helpers of its own that died, and children that job control stopped: what sent it a signal.
    deaths: usize,
}

/// A container whose tasks all have their final state and stand in ptrace stops.
pub(super) struct Built {
    /// The master of the console, and the last it showed.
    console: Option<(OwnedFd, Vec<u8>)>,
    tasks: Vec<(Pid, Task)>,
    /// Every description, for whoever lets the container run in this worker's life: not before they are closed.
    pub(super) files: BTreeMap<FileId, OwnedFd>,
}

/// A process that lives without the worker.
pub(super) struct LetGo {
    /// As the container numbers it.
    pub(super) pid: Pid,
    /// As the host numbers it.
    pub(super) host: HostPid,
    /// Its threads, as both number them.
    pub(super) threads: BTreeMap<Pid, HostPid>,
}

impl Task {
    pub(super) fn new(pid: Pid, leader: Injector) -> Self {
        Task {
            host: leader.tid(),
            injected: BTreeMap::from([(pid, leader)]),
            finished: Vec::new(),
            waiting: BTreeMap::new(),
            deaths: 0,
        }
    }
}

impl Built {
    /// The master of the console, for its holder, and the last it showed.
    pub(super) fn take_console(&mut self) -> Option<(OwnedFd, Vec<u8>)> {
        self.console.take()
    }

    /// Lets go of every task, in a frozen cgroup: they stay where they are. From here on they live without the worker.
    pub(super) fn let_go(self) -> Result<Vec<LetGo>, Failure> {
        for (_, tracee) in self.tasks.iter().flat_map(|(_, task)| &task.finished) {
            tracee.set_options(SeizeOptions::default()).doing(|| "letting the tasks outlive the worker")?;
        }
        let mut live = Vec::new();
        for (pid, task) in self.tasks {
            let threads = task.finished.iter().map(|(tid, tracee)| (*tid, tracee.tid())).collect();
            live.push(LetGo { pid, host: task.host, threads });
            for (_, tracee) in task.finished {
                tracee.detach().doing(|| format!("{}: letting go", layout::process_dir(pid)))?;
            }
        }
        Ok(live)
    }
}

fn described(steps: &[Step]) -> String {
    match steps {
        [step] => format!("{} of process {}", step.action, step.process),
        [first, .., last] => format!("{} of processes {} to {}", first.action, first.process, last.process),
        [] => String::new(),
    }
}

impl<'a> Builder<'a> {
    /// Takes over the stub, and opens everything the processes will need.
    pub(super) fn new(
        container: &Container,
        (from, contents): (&'a Path, &Contents<'_>),
        copy: &'a Copy,
        plan: &'a Plan,
        Ground { first, cgroups, mounts, namespaces, pid_namespaces, time_namespaces, user_namespaces }: Ground<'a>,
        notes: &mut Vec<String>,
    ) -> Result<Self, Failure> {
        let image = &copy.image;
        let roots = mounts.roots(image);
        let unnamed = unnamed::Made::make(image, &roots, contents)?;
        let mut backings = Backings::open(image, plan, roots.own(), &unnamed)?;
        let mut pages = PageFiles::new(from, copy);
        backings.fill_objects(plan, &mut pages)?;
        let opened = descriptor::open_all(image, from, &roots, &container.log_file(), &unnamed, notes)?;
        backings.add_rings(image, &opened.files)?;
        let ipc = unshared::IpcNamespaces::open(image, &namespaces, first)?;
        let mut segments = sysv::restore::make(first.raw(), &image.sysv, from, contents)?;
        segments.extend(ipc.fill(from, contents)?);
        let mut builder = Builder {
            copy,
            plan,
            backings,
            directories: Directories::open(image, &roots, first)?,
            opened,
            unnamed,
            cgroups,
            namespaces,
            ipc,
            pid_namespaces,
            time_namespaces,
            user_namespaces,
            entering: image.threaded_in_user_namespaces(),
            registrations: epoll::registrations(image)?,
            pages,
            policies: numa::restore::Policies::of(image, notes),
            notes: Vec::new(),
            cores: container.dir().join("cores"),
            own_capabilities: thread::restore::own_capabilities()?,
            tasks: BTreeMap::new(),
            _segments: segments,
            from,
            mounts,
            roots,
            // After what several CPUs share.
            cpu: OneCpu::stay().doing(|| "keeping the worker on one CPU")?,
        };
        builder.opened.files.extend(mqueue::restore::make(first.raw(), image, from)?);
        builder.opened.files.extend(builder.ipc.queues(from)?);
        ended_task::restore_all(first.raw(), image, &builder.roots, &mut builder.opened.files)?;
        let pid = plan.first()?;
        builder.cpu.bring(first).doing(|| "keeping the stub on one CPU")?;
        let tracee = Tracee::seize(first, seccomp::restore::seize_options(image)).doing(|| "tracing the stub")?;
        tracee.interrupt().doing(|| "stopping the stub")?;
        let stopped = match tracee.wait(Instant::now() + STOP_PATIENCE).doing(|| "stopping the stub")? {
            Waited::Stopped(stopped) => stopped,
            Waited::Gone(exit) => return Err(Failure::new(Kind::System, format!("the stub died: {exit}"))),
            Waited::Running(_) => return Err(Failure::new(Kind::Deadline, "the stub does not stop")),
        };
        let scratch = Some(RemoteAddress(plan.scratch.0));
        let injector =
            Injector::bootstrap(stopped, stub::GADGET, scratch, SCRATCH_SIZE).doing(|| "mapping the scratch memory")?;
        builder.tasks.insert(pid, Task::new(pid, injector));
        if image.user_of_mounts(0).is_some() {
            let mut batch = Batch::new();
            mounts.join(&mut batch, 0, plan.link_fd);
            builder.inject(pid, &batch)?;
        }
        Ok(builder)
    }

    /// Runs every step. `spent` learns how long each kind took.
    pub(super) fn run(mut self, notes: &mut Vec<String>, laps: &mut Laps) -> Result<Built, Failure> {
        let plan = self.plan;
        // The contents of many processes are written at once.
        let together = plan.steps.chunk_by(|one, next| one.action == Action::Fill && next.action == Action::Fill);
        for steps in together.flat_map(|steps| steps.chunks(MOST_FILLED)) {
            self.step(steps).map_err(|failure| failure.within(described(steps)))?;
            if let Some(step) = steps.first() {
                laps.lap(&step.action.to_string().to_lowercase());
            }
        }
        self.directories.settle()?;
        self.unnamed.seal()?;
        pseudo_file::read_on(&self.copy.image, &self.opened.files)?;
        notes.append(&mut self.notes);
        let console = self.opened.terminals.take_console();
        let live = self.tasks.into_iter().filter(|(_, task)| !task.finished.is_empty());
        Ok(Built { console, tasks: live.collect(), files: self.opened.files })
    }

    /// Carries out one step, or one of each of several processes.
    fn step(&mut self, steps: &[Step]) -> Result<(), Failure> {
        let Some(step) = steps.first() else { return Ok(()) };
        let pid = step.process;
        match step.action {
            Action::Spawn => self.spawn(pid),
            Action::Mounts => {
                let mut batch = Batch::new();
                self.mounts.join(&mut batch, self.copy.image.mounts_of_process(pid), self.plan.link_fd);
                self.inject(pid, &batch)
            }
            Action::Session => self.session(pid),
            Action::Terminal => self.terminal(pid),
            Action::Group => self.group(pid),
            Action::Memory => self.memory(pid),
            Action::Fill => self.fill(steps),
            Action::Namespaces => {
                for tid in self.image(pid)?.threads.keys() {
                    self.pid_namespaces.of_children(*tid).map_or(Ok(()), |space| self.begin_late(space))?;
                }
                self.each_thread(pid, |builder, tid, injector, _| {
                    let mut batch = Batch::new();
                    builder.namespaces.join(&mut batch, pid, builder.plan.link_fd);
                    builder.pid_namespaces.aim_later(&mut batch, tid, builder.plan.link_fd)?;
                    injector.run(&batch).map(drop).doing(|| thread::restore::path(pid, tid))
                })
            }
            Action::OpenLate => self.open_late(pid),
            Action::Descriptors => self.descriptors(pid),
            Action::Directories => {
                let mut batch = Batch::new();
                self.directories.enter(&mut batch, self.image(pid)?, self.plan.link_fd)?;
                self.inject(pid, &batch)
            }
            Action::Foreground => self.foreground(pid),
            Action::Enter => self.enter(pid),
            Action::Threads => self.threads(pid),
            Action::ThreadDescriptors => self.thread_descriptors(pid),
            Action::Adjustments => {
                let mut batch = Batch::new();
                sysv::adjust(&mut batch, &self.image(pid)?.semadj);
                self.inject(pid, &batch)
            }
            Action::Advice => {
                let (host, link) = (self.host(pid)?, self.link());
                let mut batch = Batch::new();
                let image = self.image(pid)?;
                aio::restore::complete(pid, host, &image.aio, link, |batch| self.inject(pid, batch))?;
                memory::advise_late(&mut batch, image);
                ldt::restore::restore(&mut batch, &image.ldt);
                memory_policy::restore::restore(&mut batch, &image.attr.memory);
                self.inject(pid, &batch)
            }
            Action::Die => self.die(pid),
            Action::Dismiss => self.dismiss(pid),
            Action::JobControl => self.job_control(pid),
            // They are set as it enters.
            Action::Limits if self.entering.contains(&pid) => Ok(()),
            Action::Limits => self.limits(pid),
            Action::Signals => self.signals(pid),
            Action::ThreadState => self.thread_state(pid),
            Action::Owners => self.owners(),
            Action::Credentials => self.credentials(pid),
            Action::Resume => self.resume(pid),
        }
    }

    pub(super) fn limits(&mut self, pid: Pid) -> Result<(), Failure> {
        let (host, image) = (self.host(pid)?, self.image(pid)?);
        process::attributes(host, image, &mut self.notes)?;
        let path = layout::process_file(pid, "attr");
        autogroup::restore(host, &path, image.attr.autogroup_nice, &mut self.notes)?;
        process::limits(host, image, &mut self.notes)
    }

    pub(super) fn image(&self, pid: Pid) -> Result<&'a ProcessImage, Failure> {
        let missing = || Failure::new(Kind::System, format!("process {pid}: not in the image"));
        self.copy.image.processes.get(&pid).ok_or_else(missing)
    }

    pub(super) fn leader(&mut self, pid: Pid) -> Result<&mut Injector, Failure> {
        self.thread(pid, pid)
    }

    pub(super) fn thread(&mut self, pid: Pid, tid: Pid) -> Result<&mut Injector, Failure> {
        let injector = self.tasks.get_mut(&pid).and_then(|task| task.injected.get_mut(&tid));
        let missing = || Failure::new(Kind::System, format!("thread {tid} of process {pid}: not there yet"));
        injector.ok_or_else(missing)
    }

    pub(super) fn host(&mut self, pid: Pid) -> Result<HostPid, Failure> {
        let missing = || Failure::new(Kind::System, format!("process {pid}: not there yet"));
        self.tasks.get(&pid).map(|task| task.host).ok_or_else(missing)
    }

    pub(super) fn inject(&mut self, pid: Pid, batch: &Batch) -> Result<(), Failure> {
        self.leader(pid)?.run(batch).map(drop).doing(|| layout::process_dir(pid))
    }

    /// What a task is called by another. A helper that the image does not know has one id everywhere.
    pub(super) fn seen_by(&self, viewer: Pid, id: Pid) -> Result<Pid, Failure> {
        match self.plan.births.get(&id) {
            Some(Birth { role: Role::Helper { .. }, ids, .. }) if ids.iter().all(|own| *own == id) => Ok(id),
            _ => self.pid_namespaces.seen_by(viewer, id),
        }
    }

    /// A zombie and whose child it is.
    pub(super) fn zombie(&self, pid: Pid) -> Option<(Pid, &'a Zombie)> {
        let parent = self.plan.births.get(&pid)?.parent;
        let threads = self.copy.image.processes.get(&parent)?.threads.values();
        threads.flat_map(|thread| &thread.zombies).find(|zombie| zombie.pid == pid).map(|zombie| (parent, zombie))
    }

    pub(super) fn role(&self, pid: Pid) -> Option<Role> {
        self.plan.births.get(&pid).map(|birth| birth.role.clone())
    }

    /// Where core dumps go that zombies leave.
    pub(super) fn cores(&self) -> &Path {
        &self.cores
    }

    pub(super) fn link(&self) -> u32 {
        self.plan.link_fd
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Gives a process that dies out of the hand: what is left of it is the injector of its first thread.
    pub(super) fn forget(&mut self, pid: Pid) -> Option<Injector> {
        self.tasks.remove(&pid)?.injected.remove(&pid)
    }

    fn descriptors(&mut self, pid: Pid) -> Result<(), Failure> {
        self.watch_early(pid, pid)?;
        let mut batch = Batch::new();
        self.fill_table(&mut batch, pid, &self.image(pid)?.fds)?;
        self.inject(pid, &batch)
    }

    fn thread_descriptors(&mut self, pid: Pid) -> Result<(), Failure> {
        let image = self.image(pid)?;
        let apart = image.threads.iter().filter_map(|(&tid, thread)| Some((tid, thread.fds.as_deref()?)));
        for (tid, fds) in apart {
            let mut batch = Batch::new();
            descriptor::inject::leave(&mut batch);
            self.thread(pid, tid)?.run(&batch).doing(|| layout::table_file(pid, tid))?;
            self.watch_early(pid, tid)?;
            let mut batch = Batch::new();
            self.fill_table(&mut batch, tid, fds)?;
            self.thread(pid, tid)?.run(&batch).doing(|| layout::table_file(pid, tid))?;
        }
        Ok(())
    }

    /// The calls that make a table hold what it is to hold, with what belongs to the table.
    fn fill_table(&self, batch: &mut Batch, owner: Pid, fds: &[Fd]) -> Result<(), Failure> {
        descriptor::inject::place_all(batch, fds, &self.opened.files, self.plan.link_fd)?;
        lock::inject(batch, &self.copy.image.locks, owner, fds);
        Ok(())
    }

    /// Has threads enable the rings of io_uring that belong to them, and says again what epoll instances watch, whom descriptions signal, and whom message queues tell.
    fn owners(&mut self) -> Result<(), Failure> {
        self.enable_rings()?;
        self.watch()?;
        for setting in owner::settings(&self.copy.image, &self.pid_namespaces)? {
            let mut batch = Batch::new();
            owner::apply(&mut batch, &setting);
            let thread = self.thread(setting.process, setting.thread)?;
            thread.run(&batch).doing(|| layout::table_file(setting.process, setting.thread))?;
        }
        mqueue::restore::notify(&self.copy.image, |process, batch| self.inject(process, batch))
    }

    pub(super) fn count_death(&mut self, parent: Option<Pid>) {
        if let Some(task) = parent.and_then(|parent| self.tasks.get_mut(&parent)) {
            task.deaths += 1;
        }
    }

    /// Stops a process, or stops it and lets it go on; its parent learns as much of it as it had.
    fn job_control(&mut self, pid: Pid) -> Result<(), Failure> {
        let record = &self.image(pid)?.process;
        let path = || layout::process_file(pid, "process");
        let Some(mut injected) = self.tasks.get_mut(&pid).map(|task| std::mem::take(&mut task.injected)) else {
            return Ok(());
        };
        job_control::restore::restore(&mut injected, pid, record.job_control)?;
        if let Some(task) = self.tasks.get_mut(&pid) {
            task.injected = injected;
        }
        if record.parent.0 != 0 {
            let seen = self.seen_by(record.parent, pid)?;
            if let Some((call, args)) = job_control::restore::told(seen, record.job_control) {
                self.leader(record.parent)?.call(call, &args, "wait4 for a stopped child").doing(path)?;
            }
            self.count_death(Some(record.parent));
        }
        Ok(())
    }

    fn signals(&mut self, pid: Pid) -> Result<(), Failure> {
        let image = self.image(pid)?;
        // Of one that enters they are set already.
        if !self.entering.contains(&pid) {
            process::lift_signal_limit(self.host(pid)?);
        }
        // Its first thread has queued what waits for the process.
        let waits = self.waits(pid, pid);
        let mut batch = Batch::new();
        if waits {
            if !vfork::is_told(pid, image) {
                signal::restore::action(&mut batch, &image.actions, Signal::SIGCHLD);
            }
            // Sent meanwhile by a child that stopped.
            if !image.pending.iter().any(|pending| pending.signal == Signal::SIGCHLD) {
                signal::restore::take(&mut batch, Signal::SIGCHLD, 1);
            }
        } else {
            let deaths = self.tasks.get(&pid).map_or(0, |task| task.deaths);
            signal::restore::forget_children(&mut batch, deaths);
            // Listed with the process that they are shared with, if they are.
            signal::restore::actions(&mut batch, &image.actions);
        }
        let timers = image.timers();
        let clocks = &self.copy.image.clocks_of(pid);
        let seen = |thread| self.seen_by(pid, thread);
        posix_timer::restore::create(&mut batch, &timers.posix, pid, seen, clocks)?;
        let once = |signal: &&PendingSignal| !posix_timer::restore::sends_again(&timers.posix, signal);
        let own = self.seen_by(pid, pid)?;
        let queued = image.pending.iter().filter(once).filter(|_| !waits);
        signal::restore::pending(&mut batch, queued, own, None);
        interval_timer::restore::arm(&mut batch, &timers.interval);
        self.inject(pid, &batch)?;
        self.each_thread(pid, |builder, tid, injector, thread| {
            let mut batch = Batch::new();
            let own_tid = builder.seen_by(pid, tid)?;
            signal::restore::pending(&mut batch, thread.pending.iter().filter(once), own, Some(own_tid));
            injector.run(&batch).map(drop).doing(|| layout::thread_file(pid, tid, "signal.pending"))
        })?;
        let mut batch = Batch::new();
        posix_timer::restore::expire(&mut batch, &timers.posix, clocks);
        self.inject(pid, &batch)
    }
}
