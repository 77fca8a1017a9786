//! Reads the records of a container whose threads all stand still.

use super::{Job, queues};
use crate::console::Pause;
use crate::failure::Doing;
use crate::failure::{Failure, Kind};
use crate::resource::container::{Environment, Moment, Place, manifest};
use crate::resource::descriptor::{self, Descriptors};
use crate::resource::met::Met;
use crate::resource::mount::Views;
use crate::resource::process::Sharers;
use crate::resource::security::Confinement;
use crate::resource::still::Still;
use crate::resource::subject::{Process, Subjects, Thread};
use crate::resource::sysv::{self, Contents};
use crate::resource::{
    Findings, aio, cgroup, contents, ended_task, io_uring, job_control, ldt, memory, mount, mqueue, numa,
    pid_namespace, process, registers, signal, thread, time_namespace, tty, unshared, user_namespace, zombie,
};
use crate::worker::laps::Laps;
use image_format::manifest::NamespaceKind;
use image_format::memory::Segment;
use image_format::namespaces::{ipc_namespaces, namespace_of_segment};
use image_format::process::Shares;
use image_format::sysv::SysV;
use image_format::thread::Resume;
use image_format::{Image, Pid, ProcessImage, ThreadImage, layout, parallel};
use std::collections::BTreeMap;

/// The tree's content.
pub(super) struct Records {
    pub(super) image: Image,
    /// Raw files of the image that were read, by path.
    pub(super) contents: Contents,
}

/// By their ids on the host.
pub(super) type Threads = BTreeMap<i32, Still>;

/// Of fewer tasks the memory is looked at in less than it takes to start a thread.
const FEWEST_FOR_TWO: usize = 16;

/// Reads everything.
pub(super) fn read(
    job: &mut Job,
    subjects: &Subjects,
    sharing: &[Sharers],
    moment: &Moment,
    threads: &Threads,
    findings: &mut Findings,
    laps: &mut Laps,
) -> Result<Records, Failure> {
    let place = Place::of(&job.record, subjects.init, &mut job.proc)?;
    let views = Views::look(&job.record, subjects, &mut job.proc, findings)?;
    let environment = Environment::read(&job.record, subjects.init, moment, &mut job.proc)?;
    laps.lap("surroundings");
    // What shares the memory of another is not looked at twice.
    let looked_at: Vec<&Process> =
        subjects.processes.iter().filter(|process| !process::has_memory_of_another(sharing, process.pid)).collect();
    let (looks, read) = parallel::both(
        subjects.ids.len() > FEWEST_FOR_TWO,
        || memory::look(&looked_at),
        || each_process(job, subjects, threads, moment, (&place, &views), findings),
    );
    let Read { mut processes, made_by, dead_inside } = read?;
    for process in &subjects.processes {
        let thread = made_by.get(&process.host).copied();
        if let Some(record) = processes.get_mut(&process.pid).map(|image: &mut ProcessImage| &mut image.process) {
            record.parent_thread = thread.filter(|&thread| thread != record.parent);
        }
    }
    process::share(sharing, subjects, &mut processes, findings);
    laps.lap("threads");
    let shared: BTreeMap<Pid, Shares> = processes.iter().map(|(&pid, image)| (pid, image.process.shares)).collect();
    let shares = |pid: Pid| shared.get(&pid).copied().unwrap_or_default();
    let parents = processes.iter().map(|(&pid, image): (_, &ProcessImage)| {
        let parent = image.process.parent;
        (pid, shares(parent).memory.unwrap_or(parent))
    });
    let with_memory: Vec<&Process> =
        subjects.processes.iter().filter(|process| shares(process.pid).memory.is_none()).collect();
    let mut met = Met::new();
    let segments: BTreeMap<Pid, Vec<Segment>> =
        memory::capture(&with_memory, looks, &parents.collect(), &place, &mut job.proc, &mut met, findings)?;
    for (pid, segments) in segments {
        if let Some(image) = processes.get_mut(&pid) {
            image.segments = segments;
        }
    }
    for process in with_memory {
        if let Some(image) = processes.get_mut(&process.pid) {
            image.aio = aio::capture(process, &image.segments, &mut job.kernel, findings)?;
        }
    }
    laps.lap("memory");
    numa::capture(&subjects.processes, &mut processes, &mut job.kernel, findings)?;
    laps.lap("numa");
    let ids: Vec<(Pid, i32)> = subjects.processes.iter().map(|process| (process.pid, process.alive().host)).collect();
    let host = |pid: Pid| ids.iter().find(|(known, _)| *known == pid).map(|(_, host)| *host);
    let cgroups = cgroup::capture(&job.cgroup, subjects)?;
    laps.lap("cgroups");
    let mut contents = Contents::new();
    let mut namespaces =
        unshared::capture(subjects, (&processes, &mut contents), &job.cgroup, &cgroups, &mut job.proc, findings)?;
    laps.lap("namespaces");
    let with_ipc: Vec<i32> =
        ipc_namespaces(&namespaces).filter_map(|(_, _, members)| members.first().and_then(|&pid| host(pid))).collect();
    let mut tables = process::tables(subjects);
    tables.retain(|table| shares(table.process).descriptors.is_none());
    tables.extend(process::own_tables(subjects, findings)?);
    // What it shows must not be read meanwhile.
    let console = Pause::begin(&job.container)?;
    let Descriptors {
        mut files,
        stdios,
        locks,
        mut fds,
        pipes,
        unnamed: in_messages,
        sockets,
        queues: message_queues,
        queued,
        mut ttys,
        elsewhere,
        networks,
    } = descriptor::capture(
        descriptor::Whose {
            tables: &tables,
            processes: &subjects.numbers(),
            init: subjects.init,
            ipc: &with_ipc,
            external: &job.external,
            views: &views,
        },
        Some(job.kernel.parts()),
        place.root(),
        &job.container.log_file(),
        console.as_ref(),
        &mut met,
        findings,
    )?;
    drop(console);
    io_uring::name_issuers(subjects, &met.rings, &job.kernel, &mut files);
    io_uring::report(subjects, &processes, &met.rings, &mut job.kernel, findings)?;
    // Timers ran on while this read: they are told as of the moment whose clocks the manifest has.
    let now = crfs_sys::time::clock_ns(libc::CLOCK_MONOTONIC).doing(|| "reading CLOCK_MONOTONIC")?;
    descriptor::timers_at_moment(&mut files, now - moment.monotonic_ns);
    for (pid, image) in &mut processes {
        image.fds = fds.remove(pid).unwrap_or_default();
        for (tid, thread) in &mut image.threads {
            thread.fds = fds.remove(tid);
        }
    }
    tty::relate(subjects, &mut processes, &mut ttys, findings);
    laps.lap("descriptors");
    let own_ipc = !job.record.shares(NamespaceKind::Ipc);
    let mut sysv = SysV::default();
    if own_ipc {
        sysv::limits(subjects.init, findings)?;
        let is_there = |pid, id| namespace_of_segment(&namespaces, pid, id) == 0;
        let (objects, read) = sysv::capture((0, subjects.init), &contents::attached(&processes, host, is_there)?)?;
        contents.extend(read);
        sysv = objects;
    }
    let sets = |pid: Pid| {
        let mut apart = ipc_namespaces(&namespaces).filter(|(_, _, members)| members.contains(&pid));
        let own = own_ipc.then_some(&sysv);
        apart.next().map(|(_, objects, _)| objects).or(own).map(|objects| &objects.semaphores[..])
    };
    let mut adjustments = sysv::adjustments(subjects, sets, &mut job.kernel, findings)?;
    for (pid, image) in &mut processes {
        image.semadj = adjustments.remove(pid).unwrap_or_default();
    }
    // Last, since the kernel goes on to send signals of timers, and of what comes through descriptors.
    for process in &subjects.processes {
        if let Some(image) = processes.get_mut(&process.pid) {
            queues::read(job, subjects, process, threads, moment, image, findings)?;
        }
    }
    contents.extend(sockets.into_iter().map(|(id, bytes)| (layout::socket_data(id), bytes)));
    contents.extend(in_messages.into_iter().map(|(file, bytes)| (layout::unnamed_data(file), bytes)));
    contents.extend(pipes.into_iter().map(|(pipe, bytes)| (layout::pipe_data(pipe), bytes)));
    contents.extend(queued.into_iter().map(|(queue, bytes)| (layout::posix_queue_data(queue), bytes)));
    laps.lap("ipc");
    let own_mounts = !job.record.shares(NamespaceKind::Mnt);
    let mount::Mounts { mounts, trees, namespaces: with_mounts } = if own_mounts {
        mount::capture(&job.record, subjects.init, &views, &mut job.proc, findings)?
    } else {
        Default::default()
    };
    laps.lap("mounts");
    namespaces.extend(pid_namespace::capture(
        subjects,
        &dead_inside,
        (&mounts, &place, &views),
        &mut job.proc,
        findings,
    )?);
    namespaces.extend(time_namespace::capture(subjects, &mut job.proc, findings)?);
    namespaces.extend(with_mounts);
    user_namespace::capture(&job.record, subjects, &mut namespaces, &mut job.proc, findings)?;
    for namespace in &mut namespaces {
        namespace.add_files(&elsewhere);
        namespace.add_sockets(&networks);
    }
    laps.lap("spaces");
    let manifest = manifest(&job.record, environment, &processes, host)?;
    let seccomp = std::mem::take(&mut job.filters).into_lines();
    let mut image = Image {
        manifest,
        processes,
        files,
        stdios,
        locks,
        unnamed: met.unnamed.into_records(),
        sysv,
        queues: message_queues,
        seccomp,
        ttys,
        mounts,
        trees,
        cgroups,
        namespaces,
    };
    sysv::report_attachments(&image, findings);
    sysv::report_others(&image, subjects.init, host, findings)?;
    mqueue::report(&image, findings);
    unshared::report(&image, findings);
    pid_namespace::report(&image, findings);
    time_namespace::report(&image, findings);
    ended_task::report_directories(&image, subjects, findings);
    user_namespace::report(&image, findings);
    process::vfork::report(&image, findings);
    image.manifest.paths = image.paths();
    job.kernel.report(findings);
    laps.lap("manifest");
    Ok(Records { image, contents })
}

/// What is read of all processes and threads one by one.
struct Read {
    processes: BTreeMap<Pid, ProcessImage>,
    /// [`Family::made_by`] of all.
    made_by: BTreeMap<i32, Pid>,
    dead_inside: Vec<zombie::Inside>,
}

fn each_process(
    job: &mut Job,
    subjects: &Subjects,
    threads: &Threads,
    moment: &Moment,
    places: (&Place, &Views),
    findings: &mut Findings,
) -> Result<Read, Failure> {
    let mut read = Read { processes: BTreeMap::new(), made_by: BTreeMap::new(), dead_inside: Vec::new() };
    for process in &subjects.processes {
        let (image, family) = process_image(job, subjects, process, threads, moment, places, findings)?;
        read.made_by.extend(family.made_by);
        read.dead_inside.extend(family.dead_inside);
        if read.processes.insert(process.pid, image).is_some() {
            return Err(Failure::new(
                Kind::Unsupported,
                format!(
                    "{}: two processes have this id: they live in different pid namespaces",
                    layout::process_dir(process.pid)
                ),
            ));
        }
    }
    Ok(read)
}

/// What is learnt of a process's children while its threads are read.
#[derive(Default)]
struct Family {
    /// Which of its threads each living child (as the host numbers them) has as its parent.
    made_by: Vec<(i32, Pid)>,
    /// Zombies of pid namespaces below the container's.
    dead_inside: Vec<zombie::Inside>,
}

/// The records of a process, and what they do not tell of its children.
fn process_image(
    job: &mut Job,
    subjects: &Subjects,
    subject: &Process,
    stand: &Threads,
    moment: &Moment,
    (place, views): (&Place, &Views),
    findings: &mut Findings,
) -> Result<(ProcessImage, Family), Failure> {
    let object = layout::process_dir(subject.pid);
    let directories = views.of_process(subject.pid).map_or(place, |(_, view)| &view.place);
    let places = process::Places { executable: place, directories };
    let (mut record, attr) = process::capture(subject, subjects, places, &mut job.proc, &mut job.kernel, findings)?;
    let ldt = ldt::capture(subject, &mut job.kernel)?;
    let mut threads = BTreeMap::new();
    let mut family = Family::default();
    // Of the thread that it was read of last: threads have most things in common.
    let mut confined: Option<(&Thread, Confinement)> = None;
    for thread in subject.threads.iter().filter(|thread| stand.contains_key(&thread.host)) {
        let found = zombie::capture(subject, thread, subjects, &mut job.proc, findings)?;
        family.made_by.extend(found.living.into_iter().map(|child| (child, thread.tid)));
        family.dead_inside.extend(found.inside);
        let same = confined.take().filter(|(first, _): &(&Thread, _)| first.shares_all_with(thread));
        let path = || layout::thread_file(subject.pid, thread.tid, "attr");
        let known = match same {
            Some(known) => known,
            None => (thread, Confinement::read(thread.host, &path(), &mut job.kernel)?),
        };
        let mut image = thread_image(job, subjects, (subject, thread), &known.1, stand, moment, findings)?;
        confined = Some(known);
        image.attr.directories = process::own_directories(subject, thread, directories, &mut job.proc, findings)?;
        threads.insert(thread.tid, ThreadImage { zombies: found.zombies, ..image });
    }
    let first = subject.alive();
    // One that waits in vfork knows of no stop.
    let threads_of = || subject.threads.iter().filter_map(|thread| stand.get(&thread.host));
    let still = threads_of().find(|still| still.stopped().is_some()).or(threads_of().next());
    let still = still.ok_or_else(|| ended(&object))?;
    record.job_control = job_control::capture(still, first.host, &object, &mut job.kernel)?;
    let actions = signal::actions(first.host, &object, &mut job.kernel)?;
    let image = ProcessImage {
        process: record,
        attr,
        fds: Vec::new(),
        aio: Vec::new(),
        ldt,
        numa: Vec::new(),
        segments: Vec::new(),
        actions,
        pending: Vec::new(),
        semadj: Vec::new(),
        threads,
    };
    Ok((image, family))
}

fn ended(object: &str) -> Failure {
    Failure::new(Kind::Stale, format!("{object}: the thread ended; freeze again"))
}

fn thread_image(
    job: &mut Job,
    subjects: &Subjects,
    (process, subject): (&Process, &Thread),
    confinement: &Confinement,
    stand: &Threads,
    moment: &Moment,
    findings: &mut Findings,
) -> Result<ThreadImage, Failure> {
    let object = layout::process_file(process.pid, &layout::id_name(subject.tid.0));
    let Some(still) = stand.get(&subject.host) else {
        return Err(ended(&object));
    };
    let path = format!("{object}/attr");
    let seccomp = job.filters.capture(still, subject, &path, &mut job.kernel, findings)?;
    confinement.report(&path, findings);
    let given = (confinement.securebits, seccomp);
    let attr = thread::capture(still, process.host, subject, &object, given, &mut job.proc, &mut job.kernel)?;
    thread::kernel_blockers(subject.host, &object, &mut job.kernel, findings)?;
    let signals = signal::thread(still, &object, &mut job.kernel)?;
    let wait_end = job.waits.get(&subject.host).copied();
    let mut registers = registers::capture(still, &object, &mut job.kernel, moment, wait_end, findings)?;
    let child = job.waiting.get(&subject.host).and_then(|child| subjects.ids.get(child));
    if let (Some(&child), Some(call)) = (child, &mut registers.frame.syscall) {
        call.resume = Resume::Vfork(child);
    }
    Ok(ThreadImage {
        attr,
        fds: None,
        mask: signals.mask,
        altstack: signals.altstack,
        pending: Vec::new(),
        fpu: registers.fpu,
        frame: registers.frame,
        timers: Vec::new(),
        tls: registers.tls,
        zombies: Vec::new(),
    })
}
