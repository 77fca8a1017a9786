//! A capture changes nothing, however often it is done and wherever it is cut off.

use super::world::World;
use image_format::thread::Resume;
use std::time::{Duration, Instant};

/// Sleeps without end in every thread, so that no capture finds another time to wait than the one before.
const STILL: &str = "
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, 40])
for i in range(4):
    threading.Thread(target=libc.pause, daemon=True).start()
os.kill(os.getpid(), signal.SIGUSR2)
ready()
libc.pause()
";

#[test]
fn capturing_twice_gives_the_same_files() {
    let world = World::python("twice", STILL).at_rest();
    let first = world.capture();
    assert!(world.is_frozen());
    let second = world.capture();
    first.assert_same(&second);
    let process = first.process(1);
    assert_eq!(process.threads.len(), 5);
    let leader = &process.threads[&image_format::Pid(1)];
    assert_eq!(leader.mask.blocked.0, 1 << (libc::SIGUSR2 - 1) | 1 << 39);
    assert_eq!(process.pending.len(), 1);
    world.thaw();
    // It ran on, and went back to where it was: the same call, entered again.
    std::thread::sleep(Duration::from_millis(20));
    let third = world.capture();
    first.assert_same(&third);
    world.thaw();
}

#[test]
fn a_tracer_is_told_what_is_read_in_the_freezer() {
    let world = World::python("told", STILL).at_rest();
    let read = world.capture();
    // Without the registers from the kernel's memory everybody is stopped for ptrace.
    let report = world.try_capture_with(&[("CRFS_KSTATE_FAULT", "registers")]);
    assert_eq!((&report.failure, &report.blockers[..]), (&None, &[][..]));
    read.assert_same(&world.tree());
    world.thaw();
}

#[test]
fn a_worker_killed_at_any_moment_leaves_the_tasks_as_they_were() {
    let world = World::python("killed", STILL).at_rest();
    let before = world.capture();
    let whole = std::time::Instant::now();
    world.capture();
    let whole = whole.elapsed();
    for round in 0..40u32 {
        let mut worker = world.worker(&world.capture_job(false), &[]);
        std::thread::sleep(whole * round / 40);
        worker.kill().unwrap();
        worker.wait().unwrap();
        assert!(world.is_frozen(), "round {round}");
    }
    let after = world.capture();
    before.assert_same(&after);
    world.thaw();
}

#[test]
fn a_running_program_goes_on_after_its_worker_was_killed_in_the_middle() {
    let world = World::python(
        "counting",
        "
ready()
n = 0
while True:
    n += 1
    print('count', n, flush=True)
    time.sleep(0.001)
",
    );
    for round in 0..20u64 {
        let mut worker = world.worker(&world.capture_job(false), &[]);
        std::thread::sleep(Duration::from_micros(round * 500));
        worker.kill().unwrap();
        worker.wait().unwrap();
        // What the operation does for a worker without a report.
        std::fs::write(world.cgroup().join("cgroup.freeze"), "0").unwrap();
        let lines = world.log().lines().count();
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while world.log().lines().count() < lines + 3 {
            assert!(std::time::Instant::now() < end, "it stands still after round {round}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let log = world.log();
    let counts: Vec<u64> = log.lines().filter_map(|line| line.strip_prefix("count ")?.parse().ok()).collect();
    assert!(counts.windows(2).all(|pair| pair[1] == pair[0] + 1), "a count is missing or doubled");
}

#[test]
fn a_worker_whose_report_nobody_takes_thaws() {
    let world = World::python("orphan", STILL).at_rest();
    let mut worker = world.worker(&world.capture_job(false), &[]);
    drop(worker.stdout.take());
    assert!(!worker.wait().unwrap().success());
    assert!(!world.is_frozen());
    assert!(!world.dir().join("image").exists());
}

#[test]
fn processor_time_stands_still_behind_a_tree() {
    let world = World::python("still", "ready()\nwhile True: pass\n");
    world.capture();
    let recorded = world.live();
    assert_eq!(recorded.processes.len(), 1);
    std::thread::sleep(Duration::from_millis(50));
    for process in recorded.processes {
        let pid = nix::unistd::Pid::from_raw(process.host_pid);
        assert_eq!(crfs_sys::time::process_cpu_ns(pid).unwrap().cast_unsigned(), process.cpu_ns);
    }
}

#[test]
fn a_parent_of_vfork_is_let_go_on_until_its_child_has_done() {
    // posix_spawn waits in vfork until the child's exec; a pipe without a reader holds the child up in its file actions.
    let world = World::python(
        "vfork",
        "
ready()
while True:
    pid = os.posix_spawn('/bin/true', ['true'], {})
    os.waitpid(pid, 0)
",
    );
    for _ in 0..10 {
        let report = world.try_capture(false);
        assert_eq!((report.failure, report.blockers), (None, vec![]));
        world.thaw();
    }
}

/// A program that waits in vfork for a child that waits for a writer to open the FIFO.
fn waits_in_vfork(name: &'static str, before: &str, fifo: &std::path::Path) -> World {
    let program = format!(
        "
fifo = {fifo:?}
os.mkfifo(fifo)
{before}
ready()
pid = os.posix_spawn('/bin/true', ['true'], {{}}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, fifo, os.O_RDONLY, 0)])
os.waitpid(pid, 0)
libc.pause()
"
    );
    World::python(name, &program)
}

#[test]
fn a_parent_of_vfork_without_all_capabilities_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let world = waits_in_vfork("vfork-gid", "os.setgid(1)", &directory.path().join("fifo"));
    let end = Instant::now() + Duration::from_secs(30);
    let report = loop {
        let report = world.try_capture(false);
        if !report.blockers.is_empty() || Instant::now() > end {
            break report;
        }
        world.thaw();
    };
    assert_eq!(report.failure, None);
    let told: Vec<_> = report.blockers.iter().map(|blocker| blocker.reason.as_str()).collect();
    let expected = |reason: &str| {
        reason.starts_with("waits in vfork for process ") && reason.ends_with(" and is not root with all capabilities")
    };
    assert!(matches!(told[..], [reason] if expected(reason)), "{told:?}");
    assert!(!world.is_frozen());
}

#[test]
fn a_parent_of_vfork_whose_child_waits_is_read_where_it_stands() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    let world = waits_in_vfork("vfork-waits", "", &fifo);
    let end = Instant::now() + Duration::from_secs(30);
    // The first freeze may come before it has forked.
    loop {
        let waits =
            world.capture().process(1).threads.values().any(|thread| {
                thread.frame.syscall.as_ref().is_some_and(|call| matches!(call.resume, Resume::Vfork(_)))
            });
        world.thaw();
        if waits {
            break;
        }
        assert!(Instant::now() < end, "it does not wait");
    }
    // It has not been harmed: once somebody writes it goes on to its exec.
    let mut writer = std::fs::OpenOptions::new();
    drop(writer.write(true).open(&fifo).unwrap());
    let carried = || {
        let report = world.try_capture(false);
        report.failure.is_none() && report.blockers.is_empty()
    };
    while !carried() {
        assert!(Instant::now() < end, "it is refused although its child has ended");
    }
    world.thaw();
}
