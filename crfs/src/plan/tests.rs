//! Plans of small trees, and what must hold of every plan.

use super::order::{AFTER, Action};
use super::*;
use image_format::controls::{MemoryPolicy, ThreadControls};
use image_format::manifest::{Clocks, Container, Cpu, Kernel, Manifest};
use image_format::memory::{Backing, PageRange, Protection, Segment, SegmentFlags, Source};
use image_format::namespaces::{MountNamespace, NamespaceContent, UnsharedNamespace};
use image_format::pid_namespaces::PidSpaces;
use image_format::process::{JobControl, MemoryLayout, Process, ProcessAttr, Shares, Zombie};
use image_format::seccomp::{Seccomp, SeccompFilter, SeccompFlags};
use image_format::signal::{AltStack, AltStackFlags, Signal, SignalMask, SignalSet};
use image_format::sysv::SysV;
use image_format::thread::{
    Credentials, FpuState, Frame, Registers, RobustList, Scheduling, SecureBits, ThreadAttr, Tls,
};
use image_format::user_namespaces::UserNamespace;
use image_format::xstate::Xstate;
use image_format::{Blob, Bytes, Hex, Octal, ProcessImage, ThreadImage, Timespec};
use tree::births;

/// An image of processes given as (pid, parent, group, session), without memory.
pub(super) fn image(processes: &[(u32, u32, u32, u32)]) -> Image {
    let zero = Timespec::default();
    let manifest = Manifest {
        format: image_format::manifest::FORMAT_VERSION,
        generator: "test".into(),
        name: "test".into(),
        architecture: "x86_64".into(),
        page_size: 4096,
        kernel: Kernel { release: "6.18".into(), vdso: Hex(0), vdso_size: 0 },
        cpu: Cpu { xfeatures: Hex(0), xsave_size: 0, flags: vec![] },
        clocks: Clocks { realtime: zero, monotonic: zero, boottime: zero },
        container: Container {
            root: None,
            host_namespaces: BTreeSet::new(),
            hostname: "h".into(),
            domainname: "".into(),
            loopback: true,
        },
        parent: None,
        paths: vec![],
    };
    let processes =
        processes.iter().map(|&(pid, parent, group, session)| (Pid(pid), process(pid, parent, group, session)));
    Image {
        manifest,
        processes: processes.collect(),
        files: BTreeMap::new(),
        stdios: vec![],
        locks: vec![],
        unnamed: vec![],
        sysv: SysV::default(),
        queues: vec![],
        seccomp: vec![],
        ttys: BTreeMap::new(),
        mounts: vec![],
        trees: BTreeMap::new(),
        cgroups: vec![],
        namespaces: vec![],
    }
}

fn process(pid: u32, parent: u32, group: u32, session: u32) -> ProcessImage {
    ProcessImage {
        process: Process {
            pid: Pid(pid),
            parent: Pid(parent),
            parent_thread: None,
            group: Pid(group),
            session: Pid(session),
            exit_signal: Some(Signal(17)),
            shares: Shares::default(),
            job_control: JobControl::Running,
            first_thread_ended: None,
            tty: None,
            exe: "/bin/true".into(),
            cwd: "/".into(),
            cwd_deleted: None,
            root: "/".into(),
            umask: Octal(0o22),
            limits: BTreeMap::new(),
            arguments: vec![],
            environment: vec![],
            layout: MemoryLayout::default(),
        },
        attr: ProcessAttr {
            dumpable: 1,
            child_subreaper: false,
            oom_score_adj: 0,
            coredump_filter: Hex(0x33),
            memory: MemoryPolicy::default(),
            autogroup_nice: None,
        },
        fds: vec![],
        aio: vec![],
        ldt: vec![],
        numa: vec![],
        segments: vec![],
        actions: vec![],
        pending: vec![],
        semadj: vec![],
        threads: BTreeMap::from([(Pid(pid), thread())]),
    }
}

fn thread() -> ThreadImage {
    let none = Hex(0);
    ThreadImage {
        fds: None,
        attr: ThreadAttr {
            name: "test".into(),
            credentials: Credentials {
                uid: [0; 4],
                gid: [0; 4],
                groups: vec![],
                inheritable: none,
                permitted: none,
                effective: none,
                bounding: none,
                ambient: none,
                securebits: SecureBits(0),
            },
            scheduling: Scheduling {
                policy: 0,
                flags: none,
                nice: 0,
                priority: 0,
                runtime_ns: 0,
                deadline_ns: 0,
                period_ns: 0,
                io_priority: 0,
            },
            affinity: vec![0],
            timer_slack_ns: 50_000,
            personality: none,
            tid_address: Address(0),
            robust_list: RobustList::default(),
            rseq: None,
            pdeath_signal: None,
            no_new_privs: false,
            seccomp: Seccomp::None,
            controls: ThreadControls::default(),
            login_uid: None,
            directories: None,
        },
        mask: SignalMask { blocked: SignalSet(0) },
        altstack: AltStack { sp: Address(0), size: 0, flags: AltStackFlags(2) },
        pending: vec![],
        fpu: FpuState { xstate: Xstate::default(), debug: [none; 6] },
        frame: Frame { registers: Registers::default(), syscall: None },
        timers: vec![],
        tls: Tls { fs_base: Address(0), gs_base: Address(0) },
        zombies: vec![],
    }
}

fn zombie(pid: u32, group: u32, session: u32) -> Zombie {
    Zombie {
        pid: Pid(pid),
        group: Pid(group),
        session: Pid(session),
        name: Bytes::from("z"),
        uid: [0; 4],
        gid: [0; 4],
        exit_signal: Some(Signal(17)),
        status: 0x300,
    }
}

fn anonymous(start: u64, end: u64, pages: &[(u64, u64, Source)]) -> Segment {
    let pages = pages.iter().map(|(start, count, source)| PageRange {
        start: Address(*start),
        count: *count,
        source: source.clone(),
    });
    Segment {
        start: Address(start),
        end: Address(end),
        protection: Protection(3),
        shared: false,
        flags: SegmentFlags::accounted,
        backing: Backing::Anonymous,
        pages: pages.collect(),
    }
}

/// Plays a plan's tree steps on a model of the kernel's rules and compares what comes out with the image.
pub(super) fn simulate(image: &Image) {
    simulate_in(image, &Home::Own);
}

fn simulate_in(image: &Image, home: &Home) {
    #[derive(Clone, Debug, PartialEq)]
    struct Task {
        parent: Pid,
        group: Pid,
        session: Pid,
        /// Who began its descriptor table.
        table: Pid,
        dead: bool,
    }
    let plan = compute(image, home).expect("a plan");
    let spaces = PidSpaces::of(&image.namespaces);
    let reaper = if *home == Home::Own { Pid(1) } else { OUTSIDE };
    let mut tasks: BTreeMap<Pid, Task> = BTreeMap::new();
    for step in &plan.steps {
        let birth = &plan.births[&step.process];
        match step.action {
            Action::Spawn => {
                let task = match birth.creator {
                    None => {
                        let pid = birth.pid;
                        Task { parent: Pid(0), group: pid, session: pid, table: pid, dead: false }
                    }
                    Some(creator) => {
                        let creator_task = &tasks[&creator];
                        assert!(!creator_task.dead, "{creator} clones {} after its death", birth.pid);
                        let parent = if birth.clone_parent { creator_task.parent } else { creator };
                        let table = birth.shares.descriptors.map_or(birth.pid, |_| creator_task.table);
                        Task { parent, table, ..creator_task.clone() }
                    }
                };
                assert!(tasks.insert(birth.pid, task).is_none(), "{} is born twice", birth.pid);
            }
            Action::Session if birth.own_session && birth.creator.is_some() => {
                let task = tasks.get_mut(&birth.pid).expect("born");
                assert_ne!(task.group, birth.pid, "setsid of a group leader is EPERM");
                (task.session, task.group) = (birth.pid, birth.pid);
            }
            Action::Group => {
                let Some(group) = birth.group else { continue };
                let by = birth.creator.filter(|_| birth.group_by_creator).unwrap_or(birth.pid);
                assert!(spaces.seen_by(by, group).is_some(), "{by} knows no group {group}");
                let session = tasks[&birth.pid].session;
                let exists =
                    group == birth.pid || tasks.values().any(|t| t.group == group && t.session == session && !t.dead);
                assert!(exists, "setpgid({}, {group}) is EPERM: no such group in session {session}", birth.pid);
                tasks.get_mut(&birth.pid).expect("born").group = group;
            }
            Action::Die => tasks.get_mut(&birth.pid).expect("born").dead = true,
            Action::Dismiss => {
                tasks.remove(&birth.pid);
                let reaper = spaces.space(birth.pid).and_then(|space| spaces.first(space)).unwrap_or(reaper);
                let orphans = tasks.values_mut().filter(|task| task.parent == birth.pid);
                orphans.for_each(|orphan| orphan.parent = reaper);
            }
            _ => {}
        }
    }
    let mut expected = BTreeMap::new();
    for (&pid, p) in &image.processes {
        let p = &p.process;
        let table = p.shares.descriptors.unwrap_or(pid);
        expected.insert(pid, Task { parent: p.parent, group: p.group, session: p.session, table, dead: false });
        for z in &image.processes[&pid].threads[&pid].zombies {
            expected.insert(z.pid, Task { parent: pid, group: z.group, session: z.session, table: z.pid, dead: true });
        }
    }
    assert_eq!(tasks.remove(&OUTSIDE).is_some(), *home == Home::Stub, "who stays as pid 1");
    assert_eq!(tasks, expected);
}

#[test]
fn a_shell_with_a_pipeline_and_a_background_job() {
    simulate(&image(&[(1, 0, 1, 1), (7, 1, 7, 1), (8, 1, 7, 1), (9, 1, 7, 1), (10, 1, 10, 1)]));
}

#[test]
fn nested_sessions() {
    simulate(&image(&[(1, 0, 1, 1), (5, 1, 5, 5), (6, 5, 5, 5), (7, 5, 7, 7), (8, 7, 8, 7)]));
}

#[test]
fn child_born_before_its_parent_started_a_session() {
    simulate(&image(&[(1, 0, 1, 1), (5, 1, 5, 5), (6, 5, 1, 1)]));
}

#[test]
fn orphans_of_a_living_and_of_a_dead_session_leader() {
    simulate(&image(&[(1, 0, 1, 1), (5, 1, 5, 5), (7, 1, 5, 5)]));
    simulate(&image(&[(1, 0, 1, 1), (7, 1, 5, 5), (8, 1, 8, 5)]));
}

#[test]
fn group_whose_leader_is_dead() {
    simulate(&image(&[(1, 0, 1, 1), (7, 1, 6, 1), (8, 1, 6, 1)]));
}

#[test]
fn daemons_that_forked_twice() {
    let daemons: Vec<_> = (0..50).map(|n| (100 + n * 2, 1, 99 + n * 2, 99 + n * 2)).collect();
    let mut all = vec![(1, 0, 1, 1)];
    all.extend(daemons);
    simulate(&image(&all));
}

#[test]
fn zombies_that_lead_groups_and_follow_them() {
    let mut tree = image(&[(1, 0, 1, 1), (5, 1, 4, 1)]);
    let own = tree.processes.get_mut(&Pid(1)).expect("1");
    own.threads.get_mut(&Pid(1)).expect("leader").zombies = vec![zombie(4, 4, 1), zombie(6, 4, 1), zombie(9, 9, 9)];
    simulate(&tree);
}

#[test]
fn trees_without_an_init_in_place_and_under_a_stub() {
    // A shell with a pipeline; a daemon whose parent and session leader are dead; what a living leader's dead child left.
    let tree = image(&[
        (500, 0, 500, 500),
        (501, 500, 501, 500),
        (502, 500, 501, 500),
        (620, 0, 610, 610),
        (630, 0, 630, 500),
    ]);
    let taken = BTreeSet::from([Pid(1), Pid(2), Pid(3)]);
    for home in [Home::Host(taken.clone()), Home::Stub] {
        simulate_in(&tree, &home);
    }
    let plan = compute(&tree, &Home::Host(taken.clone())).expect("a plan");
    assert!(plan.births.keys().all(|pid| !taken.contains(pid)), "a helper takes an id of the host's");
}

#[test]
fn siblings_made_by_clone_parent() {
    // By a session leader that lives, and by one that is dead.
    simulate(&image(&[(1, 0, 1, 1), (5, 1, 5, 5), (6, 5, 6, 6), (7, 5, 6, 6), (8, 5, 8, 6)]));
    simulate(&image(&[(1, 0, 1, 1), (5, 1, 5, 5), (7, 5, 6, 6), (8, 5, 8, 6)]));
}

#[test]
fn who_shares_with_others_than_its_parent() {
    // 6 and 7 are siblings of 5, 8 is in a session of its own, and 9 was adopted; 10 has it from its parent.
    let mut tree = image(&[
        (1, 0, 1, 1),
        (2, 1, 1, 1),
        (5, 2, 1, 1),
        (6, 2, 1, 1),
        (7, 2, 1, 1),
        (8, 2, 8, 8),
        (9, 1, 1, 1),
        (10, 9, 1, 1),
    ]);
    for pid in [6, 7, 8, 9, 10] {
        tree.processes.get_mut(&Pid(pid)).expect("one of them").process.shares.descriptors = Some(Pid(5));
    }
    simulate(&tree);
    // Its parent adopts nobody, and it has another exit signal than the others.
    tree.processes.get_mut(&Pid(6)).expect("6").process.exit_signal = None;
    assert!(compute(&tree, &Home::Own).is_err());
}

#[test]
fn who_shares_is_done_before_whose_it_is() {
    let mut tree = image(&[(1, 0, 1, 1), (5, 1, 1, 1), (6, 5, 1, 1)]);
    let all = Shares {
        memory: Some(Pid(1)),
        descriptors: Some(Pid(1)),
        directories: Some(Pid(1)),
        signal_actions: Some(Pid(1)),
    };
    tree.processes.get_mut(&Pid(5)).expect("5").process.shares = all;
    tree.processes.get_mut(&Pid(1)).expect("1").segments =
        vec![anonymous(0x10000, 0x20000, &[(0x10000, 4, Source::Own(0))])];
    let child = anonymous(0x10000, 0x20000, &[(0x10000, 4, Source::Process(Pid(1)))]);
    tree.processes.get_mut(&Pid(6)).expect("6").segments = vec![child];
    let plan = compute(&tree, &Home::Own).expect("a plan");
    let at = |action, pid| plan.steps.iter().position(|step| *step == Step { action, process: Pid(pid) });
    for action in [Action::Memory, Action::Fill, Action::Advice, Action::Descriptors, Action::Directories] {
        assert_eq!(at(action, 5), None, "{action} is the first one's");
    }
    assert!(at(Action::Fill, 1) < at(Action::Spawn, 5) && at(Action::Spawn, 6) < at(Action::Advice, 1));
    for action in [Action::Credentials, Action::Resume] {
        assert!(at(action, 5) < at(action, 1), "{action}");
    }
    let memory = &plan.memory[&Pid(6)];
    assert_eq!((memory.inherited_from, memory.keep.as_slice(), memory.fill.len()), (Some(Pid(1)), [0].as_slice(), 0));
}

#[test]
fn who_is_born_elsewhere_joins_its_mount_namespace_first() {
    // 5 left, and 6 lives there too; 7 and the orphan 8 went back.
    let mut tree = image(&[(1, 0, 1, 1), (5, 1, 1, 1), (6, 5, 1, 1), (7, 5, 1, 1), (8, 1, 8, 1)]);
    let content = NamespaceContent::Mnt(MountNamespace { number: 1, ..MountNamespace::default() });
    tree.namespaces = vec![UnsharedNamespace { content, processes: vec![Pid(5), Pid(6)], user: None }];
    let plan = compute(&tree, &Home::Own).expect("a plan");
    let at = |action, pid| plan.steps.iter().position(|step| *step == Step { action, process: Pid(pid) });
    let joining = [1, 5, 6, 7, 8].map(|pid| at(Action::Mounts, pid).is_some());
    assert_eq!(joining, [false, true, false, true, false]);
    assert!(at(Action::Mounts, 5) < at(Action::Spawn, 6) && at(Action::Mounts, 5) < at(Action::Spawn, 7));
    assert!(at(Action::Mounts, 7) < at(Action::Directories, 7) && at(Action::Mounts, 7) < at(Action::Threads, 7));
    assert_eq!(at(Action::Namespaces, 5), None, "it has no other namespace apart");
}

#[test]
fn children_of_a_thread_are_cloned_by_it() {
    let mut tree = image(&[(1, 0, 1, 1), (5, 1, 1, 1), (6, 1, 1, 1)]);
    tree.processes
        .get_mut(&Pid(1))
        .expect("1")
        .threads
        .insert(Pid(9), ThreadImage { zombies: vec![zombie(4, 1, 1)], ..thread() });
    tree.processes.get_mut(&Pid(5)).expect("5").process.parent_thread = Some(Pid(9));
    let plan = compute(&tree, &Home::Own).expect("a plan");
    let creators = [4, 5, 6].map(|pid| plan.births[&Pid(pid)].creator_thread);
    assert_eq!(creators, [Some(Pid(9)), Some(Pid(9)), None]);
    let at =
        |action, pid| plan.steps.iter().position(|step| *step == Step { action, process: Pid(pid) }).expect("a step");
    assert!(at(Action::Spawn, 6) < at(Action::Threads, 1), "a fork of the leader comes before it has threads");
    assert!(at(Action::Threads, 1) < at(Action::Spawn, 5) && at(Action::Threads, 1) < at(Action::Spawn, 4));
    assert!(at(Action::Spawn, 5) < at(Action::Advice, 1) && at(Action::Die, 4) < at(Action::Signals, 1));
}

#[test]
fn threads_in_a_user_namespace_are_born_there() {
    let mut tree = image(&[(1, 0, 1, 1), (5, 1, 1, 1), (6, 5, 1, 1)]);
    tree.processes.get_mut(&Pid(5)).expect("5").threads.insert(Pid(9), thread());
    tree.processes.get_mut(&Pid(6)).expect("6").process.parent_thread = Some(Pid(9));
    let user = |processes: Vec<Pid>| UnsharedNamespace {
        content: NamespaceContent::User(UserNamespace::default()),
        processes,
        user: None,
    };
    tree.namespaces = vec![user(vec![Pid(5)])];
    let plan = compute(&tree, &Home::Own).expect("a plan");
    let at =
        |action, pid| plan.steps.iter().position(|step| *step == Step { action, process: Pid(pid) }).expect("a step");
    assert_eq!(plan.births[&Pid(6)].creator_thread, None, "a thread there may choose no id");
    for earlier in [at(Action::Spawn, 6), at(Action::OpenLate, 1), at(Action::Descriptors, 5), at(Action::Advice, 5)] {
        assert!(earlier < at(Action::Enter, 5));
    }
    assert!(at(Action::Enter, 5) < at(Action::Threads, 5) && at(Action::Threads, 5) < at(Action::Credentials, 5));
    // With one thread it joins last of all.
    tree.namespaces = vec![user(vec![Pid(6)])];
    let plan = compute(&tree, &Home::Own).expect("a plan");
    assert!(!plan.steps.iter().any(|step| step.action == Action::Enter));
}

#[test]
fn a_parent_that_adopts_nobody_is_refused_by_name() {
    let failure =
        compute(&image(&[(1, 0, 1, 1), (5, 1, 5, 5), (6, 5, 5, 5), (7, 6, 1, 1)]), &Home::Own).expect_err("impossible");
    assert!(failure.to_string().contains("0x00000007/process"), "{failure}");
}

#[test]
fn every_plan_respects_every_dependency() {
    let tree = image(&[(1, 0, 1, 1), (5, 1, 5, 5), (6, 5, 1, 1), (7, 1, 5, 5), (8, 5, 8, 5)]);
    let plan = compute(&tree, &Home::Own).expect("a plan");
    let at = |action, process| plan.steps.iter().position(|step| *step == Step { action, process });
    for birth in plan.births.values() {
        let related = |of| match of {
            order::Of::Itself => Some(birth.pid),
            order::Of::Creator => birth.creator,
            order::Of::GroupLeader => birth.group,
            _ => None,
        };
        for &(later, of, earlier) in AFTER {
            let (Some(later_at), Some(other)) = (at(later, birth.pid), related(of)) else { continue };
            let Some(earlier_at) = at(earlier, other) else { continue };
            assert!(
                earlier_at < later_at || other == birth.pid && earlier == later,
                "{later} of {} before {earlier}",
                birth.pid
            );
        }
    }
}

#[test]
fn children_inherit_what_they_share_and_drop_what_they_have_not() {
    let mut tree = image(&[(1, 0, 1, 1), (5, 1, 1, 1)]);
    let parent = anonymous(0x10000, 0x20000, &[(0x10000, 4, Source::Own(0)), (0x18000, 2, Source::Own(4))]);
    let child = anonymous(0x10000, 0x20000, &[(0x10000, 1, Source::Process(Pid(1))), (0x11000, 1, Source::Own(0))]);
    tree.processes.get_mut(&Pid(1)).expect("1").segments = vec![parent, anonymous(0x50000, 0x60000, &[])];
    let moved = anonymous(0x50000, 0x58000, &[]);
    tree.processes.get_mut(&Pid(5)).expect("5").segments = vec![child, moved];
    let plan = memory::plan(&tree, &births(&tree, &Home::Own).expect("births"));
    let own = &plan[&Pid(5)];
    assert_eq!(own.inherited_from, Some(Pid(1)));
    assert_eq!(own.keep, [0]);
    assert_eq!(own.unmap, [(0x50000, 0x60000)]);
    assert_eq!(own.map, [1]);
    assert_eq!(own.drop, [(0x12000, 0x14000), (0x18000, 0x1a000)]);
    assert_eq!(own.fill, [memory::Fill { address: 0x11000, length: 4096, from: Pid(5), offset: 0 }]);
    assert!(!own.new_exe);
}

#[test]
fn what_cannot_be_inherited_is_written_from_where_it_lies() {
    let mut tree = image(&[(1, 0, 1, 1), (5, 1, 1, 1)]);
    let parent = anonymous(0x10000, 0x20000, &[(0x10000, 4, Source::Own(3))]);
    // The child's mapping has grown, so it is made anew.
    let child = anonymous(0x10000, 0x30000, &[(0x11000, 2, Source::Process(Pid(1)))]);
    tree.processes.get_mut(&Pid(1)).expect("1").segments = vec![parent];
    tree.processes.get_mut(&Pid(5)).expect("5").segments = vec![child];
    let plan = memory::plan(&tree, &births(&tree, &Home::Own).expect("births"));
    assert_eq!(plan[&Pid(5)].fill, [memory::Fill { address: 0x11000, length: 0x2000, from: Pid(1), offset: 0x4000 }]);
}

#[test]
fn scratch_is_apart_from_every_mapping() {
    let mut tree = image(&[(1, 0, 1, 1)]);
    tree.processes.get_mut(&Pid(1)).expect("1").segments = vec![anonymous(0x10_0000, 0x60_0000, &[])];
    let plan = compute(&tree, &Home::Own).expect("a plan");
    assert_eq!(plan.scratch, Address(0x60_0000));
}

/// The filters each thread has when the steps are played, each filter by the number of its installation, so that what is shared
/// differs from what is equal.
fn play(leader: u32, steps: &[ThreadStep]) -> BTreeMap<Pid, Vec<(u32, usize)>> {
    let mut threads = BTreeMap::from([(Pid(leader), Vec::new())]);
    for (number, step) in steps.iter().enumerate() {
        match *step {
            ThreadStep::Filter { thread, filter } => {
                threads.get_mut(&thread).expect("a thread that is there").push((filter, number));
            }
            ThreadStep::Clone { by, thread } => {
                let inherited = threads.get(&by).expect("a thread that is there").clone();
                assert_eq!(threads.insert(thread, inherited), None, "made twice");
            }
        }
    }
    threads
}

#[test]
fn threads_share_the_filters_they_have_in_common() {
    let filter = |filter, after| SeccompFilter { filter, after, flags: SeccompFlags(0), program: Blob(vec![]) };
    // 1 is everybody's, 2 on it that of three threads, 4 on that of one of them; 3 is another's.
    let filters = [filter(1, None), filter(2, Some(1)), filter(3, Some(1)), filter(4, Some(2))];
    let seccomp = [(1, 3), (2, 2), (3, 4), (4, 1), (5, 2), (6, 0)];
    let mut made = process(1, 0, 1, 1);
    for (tid, newest) in seccomp {
        let mut thread = thread();
        thread.attr.seccomp = if newest == 0 { Seccomp::Strict } else { Seccomp::Filter(newest) };
        made.threads.insert(Pid(tid), thread);
    }
    let threads = play(1, &threads::steps(&made, &filters));
    let numbers = |tid| threads[&Pid(tid)].iter().map(|&(filter, _)| filter).collect::<Vec<_>>();
    let expected: [&[u32]; 6] = [&[1, 3], &[1, 2], &[1, 2, 4], &[1], &[1, 2], &[]];
    assert_eq!((1..=6).map(numbers).collect::<Vec<_>>(), expected);
    let shared = |a: u32, b: u32| {
        let common = threads[&Pid(a)].iter().zip(&threads[&Pid(b)]).take_while(|(a, b)| a == b);
        common.count()
    };
    assert_eq!([shared(1, 2), shared(2, 3), shared(2, 5), shared(3, 5), shared(1, 4)], [1, 2, 2, 2, 1]);
}

#[test]
fn threads_without_filters_are_all_made_by_the_first() {
    let mut made = process(1, 0, 1, 1);
    made.threads.extend((2..5).map(|tid| (Pid(tid), thread())));
    let expected: Vec<ThreadStep> = (2..5).map(|tid| ThreadStep::Clone { by: Pid(1), thread: Pid(tid) }).collect();
    assert_eq!(threads::steps(&made, &[]), expected);
}
