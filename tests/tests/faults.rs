//! Workers that die at random moments, and kernel state that reads back wrong.

use crfs_tests::world::{Leftovers, Method, PATIENCE, Program, World, binary, copy_tree, run, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const TIMES: u32 = 200;

/// Moments in the life of workers: the same sequence in every run, but without order.
///
/// How long a worker lives is not told from outside, and differs from one machine and hour to the next: the range of the
/// moments grows with every worker that was met alive and shrinks with every miss.
struct Moments {
    random: u64,
    span: Duration,
}

impl Moments {
    const SHORTEST: Duration = Duration::from_micros(500);

    fn new(seed: u64, span: Duration) -> Self {
        Moments { random: seed, span }
    }

    fn next(&mut self) -> Duration {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let below = u64::try_from(self.span.as_micros()).expect("a short time");
        Duration::from_micros((self.random >> 33) % below)
    }

    fn was(&mut self, met: bool) {
        self.span = if met { self.span * 21 / 20 } else { (self.span * 9 / 10).max(Self::SHORTEST) };
    }
}

/// The worker among the children of a process.
fn worker_of(parent: u32) -> Option<Pid> {
    for task in fs::read_dir(format!("/proc/{parent}/task")).ok()?.flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            let name = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            if name.split(|&byte| byte == 0).next() == Some(b"crfs-worker") {
                return Some(Pid::from_raw(child.parse().ok()?));
            }
        }
    }
    None
}

/// Kills the worker of `parent` `after` it is first seen; false when there was none, or it had ended.
fn kill_worker(parent: u32, child: &mut Child, after: Duration) -> bool {
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end && child.try_wait().expect("waiting").is_none() {
        if let Some(worker) = worker_of(parent) {
            let due = Instant::now() + after;
            while Instant::now() < due {
                std::hint::spin_loop();
            }
            return worker_of(parent) == Some(worker) && kill(worker, Signal::SIGKILL).is_ok();
        }
    }
    false
}

fn end(mut child: Child) -> bool {
    let mut status = None;
    wait_for(PATIENCE, || {
        status = child.try_wait().expect("waiting");
        status.is_some()
    });
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    status.expect("it did not end in time").success()
}

fn captures_die(kind: &str, arguments: &[&str]) {
    let world = World::new();
    let victim = Program::victim(&world, kind, arguments);
    world.start("vs1", &victim);
    // As long as the freeze itself takes: later there is no worker to be met.
    let times = (0..3).map(|_| {
        let took = world.crctl(["freeze", "vs1"]).expect_success().took;
        world.thaw("vs1");
        took
    });
    let mut moments = Moments::new(1, times.max().expect("three freezes"));
    let (mut killed, mut tries) = (0, 0);
    while killed < TIMES {
        tries += 1;
        assert!(tries < 10 * TIMES, "only {killed} workers were met alive");
        let mut freeze = world.command(binary("crctl")).args(["freeze", "vs1"]).spawn().expect("crctl");
        let id = freeze.id();
        let met = kill_worker(id, &mut freeze, moments.next());
        let froze = end(freeze);
        killed += u32::from(met);
        moments.was(met);
        // It died before its report was read, or after: either is right, but the state must say which.
        let state = world.state("vs1");
        let told = || format!("after death {killed}: {:?} {:#}", victim.result(), world.status("vs1"));
        assert_eq!(state, if froze { "frozen" } else { "running" }, "{}", told());
        if froze {
            world.thaw("vs1");
        }
        if tries % 10 == 0 {
            victim.goes_on(1);
        }
        assert!(victim.result().is_none(), "after death {killed}: {:?}", victim.result());
    }
    victim.goes_on(2);
    world.freeze("vs1");
    world.thaw("vs1");
    victim.passes();
}

#[test]
fn a_capture_dies_at_any_moment_and_registers_are_as_before() {
    captures_die("avx", &[]);
}

#[test]
fn a_capture_dies_at_any_moment_and_waits_are_as_before() {
    captures_die("waits", &[]);
}

#[test]
fn a_build_dies_at_any_moment_and_nothing_is_left() {
    let world = World::new();
    let victim = Program::victim(&world, "tree", &["10"]);
    world.start("vs1", &victim);
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.remove("vs1");
    let discard = || {
        if world.tree("vs2").exists() && world.crctl(["status", "vs2"]).success() {
            if ["frozen", "running", "exited"].contains(&world.state("vs2").as_str()) {
                world.remove("vs2");
            } else {
                run(Command::new("rm").arg("-r").arg(world.tree("vs2")), PATIENCE).expect_success();
            }
        }
    };
    let before = Leftovers::of(&world);
    // Everything but one file stands ready, so that writing that one is the build.
    let last = "0x00000001/fds";
    let part = world.place("vs2");
    copy_tree(&copy, &part, Method::Cp).expect_success();
    fs::remove_file(part.join(last)).expect("a file of the copy");
    let prepare = || {
        world.copy_in(&part, "vs2", Method::Cp).expect_success();
        assert_eq!(world.state("vs2"), "incoming");
    };
    let build = || Command::new("cp").arg(copy.join(last)).arg(world.tree("vs2").join(last)).spawn().expect("cp");
    prepare();
    let start = Instant::now();
    assert!(end(build()), "an undisturbed build");
    let mut moments = Moments::new(2, start.elapsed());
    discard();
    let (mut killed, mut tries) = (0, 0);
    while killed < TIMES {
        tries += 1;
        assert!(tries < 10 * TIMES, "only {killed} workers were met alive");
        prepare();
        let mut cp = build();
        let met = kill_worker(world.server_pid(), &mut cp, moments.next());
        let built = end(cp);
        killed += u32::from(met);
        moments.was(met);
        let state = world.state("vs2");
        assert_eq!(state, if built { "frozen" } else { "failed" }, "after death {killed}");
        victim.stands_still_briefly();
        discard();
        before.expect_again(&world);
    }
    world.restore(&copy, "vs2", Method::Cp);
    world.thaw("vs2");
    victim.goes_on(2);
    victim.passes();
}

/// A reader that calibration finds wrong is switched off, named, and a blocker where it is needed.
#[test]
fn calibration_that_fails_is_a_blocker() {
    let mut world = World::without_server();
    world.set_environment("CRFS_KSTATE_FAULT", "signal_actions");
    world.start_server();
    let victim = Program::victim(&world, "altstack", &[]);
    world.start("vs1", &victim);
    world.crctl(["freeze", "vs1"]).expect_refusal(&["signal_actions"]);
    let blockers = fs::read_to_string(world.tree("vs1").join("blockers")).expect("blockers");
    assert!(blockers.contains("signal_actions"), "{blockers}");
    assert_eq!(world.state("vs1"), "running");
    victim.goes_on(2);
    victim.passes();
}
