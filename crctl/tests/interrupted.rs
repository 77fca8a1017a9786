//! No call returns EINTR because of a freeze and a thaw.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test uses a part of it")]
mod world;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::time::Duration;
use world::{PATIENCE, World, until};

const EINTR: i32 = -4;
/// Its sister io_getevents(2) does not start again by itself.
const STARTS_AGAIN: &str = "io_pgetevents";

/// Starts the program, and waits until all its threads wait. Returns the names of the calls.
fn start(world: &World) -> Vec<String> {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interrupted.py");
    world.ok(&["run", "v", "--", "python3", program]);
    let log = world.wait_for_log("v", "waiting ");
    let line = log.lines().find_map(|line| line.strip_prefix("waiting ")).unwrap();
    let calls: Vec<String> = line.split(' ').skip(1).map(str::to_owned).collect();
    let pid = world.record("v").init.unwrap().pid;
    // Each, and the main thread, in a call that is not a futex (which is Python's lock).
    until("all threads waiting", || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let calls_now = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("syscall")).ok());
        let waiting = calls_now.filter(|call| !call.starts_with("running") && !call.starts_with("202 ")).count();
        (waiting == calls.len() + 1).then_some(())
    });
    calls
}

/// What has returned so far.
fn returned(world: &World) -> BTreeMap<String, i32> {
    let log = world.log("v");
    let lines = log.lines().filter_map(|line| line.split_once(' '));
    lines.filter_map(|(name, result)| Some((name.to_owned(), result.parse().ok()?))).collect()
}

#[test]
fn without_the_repair_all_of_them_would_return_eintr() {
    let world = World::new();
    let calls = start(&world);
    let cgroup = world.cgroup("v");
    cgroup.freeze(PATIENCE).unwrap();
    cgroup.thaw().unwrap();
    let leaking: Vec<_> =
        calls.iter().map(String::as_str).filter(|call| *call != STARTS_AGAIN).chain(["handled"]).collect();
    let returned = until("the calls to return", || Some(returned(&world)).filter(|all| all.len() >= leaking.len()));
    assert_eq!(returned.get(STARTS_AGAIN), None, "it belongs into the worker's table");
    for call in leaking {
        assert_eq!(returned.get(call), Some(&EINTR), "{call}: it need not be in the worker's table");
    }
}

#[test]
fn a_thaw_leaks_no_eintr() {
    let world = World::new();
    let calls = start(&world);
    for _ in 0..3 {
        world.cgroup("v").freeze(PATIENCE).unwrap();
        world.ok(&["thaw", "v"]);
        std::thread::sleep(Duration::from_millis(50));
        let early = returned(&world);
        assert!(early.keys().all(|call| call == "epoll_wait_short"), "returned early: {early:?}");
    }
    // A time that ends still ends the wait, and is no interruption.
    let after = until("the short wait", || Some(returned(&world)).filter(|all| !all.is_empty()));
    assert_eq!(after, BTreeMap::from([("epoll_wait_short".to_owned(), 0)]));
    assert!(calls.len() >= 14, "{calls:?}");
}

#[test]
fn a_handler_that_ran_is_still_told() {
    let world = World::new();
    start(&world);
    let pid = Pid::from_raw(world.record("v").init.unwrap().pid);
    world.cgroup("v").freeze(PATIENCE).unwrap();
    // Only the main thread does not block it.
    kill(pid, Signal::SIGUSR1).unwrap();
    world.ok(&["thaw", "v"]);
    let handled = until("the interrupted call", || returned(&world).get("handled").copied());
    assert_eq!(handled, EINTR);
}
