//! With real cgroups, each under a name of its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::directory::base;
use super::*;
use std::process::{Child, Command, Stdio};

const PATIENCE: Duration = Duration::from_secs(10);

/// A cgroup that is killed and removed whatever the test does.
struct Guard {
    cgroup: Cgroup,
    children: Vec<Child>,
}

impl Guard {
    fn new(name: &str) -> Self {
        let cgroup = Cgroup::at(base().unwrap().join(format!("crfs-test-{name}-{}", std::process::id())));
        cgroup.create().unwrap();
        Guard { cgroup, children: Vec::new() }
    }

    fn spawn(&mut self, within: &Path, shell: &str) -> i32 {
        let child = Command::new("/bin/sh").args(["-c", shell]).stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        self.children.push(child);
        fs::write(within.join("cgroup.procs"), pid.to_string()).unwrap();
        i32::try_from(pid).unwrap()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.cgroup.kill(PATIENCE).unwrap();
        for child in &mut self.children {
            child.wait().unwrap();
        }
        self.cgroup.remove(PATIENCE).unwrap();
        assert!(!self.cgroup.exists());
    }
}

#[test]
fn freezes_and_thaws_with_nested_groups() {
    let mut guard = Guard::new("nested");
    let cgroup = guard.cgroup.clone();
    assert!(!cgroup.is_populated().unwrap());
    let nested = cgroup.path().join("inner");
    fs::create_dir(&nested).unwrap();
    let mut pids = vec![guard.spawn(cgroup.path(), "exec sleep 100"), guard.spawn(&nested, "while :; do :; done")];
    pids.sort_unstable();
    assert_eq!(cgroup.procs().unwrap(), pids);
    assert!(cgroup.is_populated().unwrap() && !cgroup.is_frozen().unwrap());

    cgroup.freeze(PATIENCE).unwrap();
    assert!(cgroup.is_frozen().unwrap());
    // A task counts as frozen a moment before it leaves the processor, and its last microseconds are counted after that.
    std::thread::sleep(Duration::from_millis(20));
    let spun = |pid: i32| fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    let before: Vec<_> = pids.iter().map(|&pid| spun(pid)).collect();
    std::thread::sleep(Duration::from_millis(20));
    let after: Vec<_> = pids.iter().map(|&pid| spun(pid)).collect();
    assert_eq!(before, after, "a frozen task ran");

    cgroup.thaw().unwrap();
    std::thread::sleep(Duration::from_millis(2));
    cgroup.freeze(PATIENCE).unwrap();
    assert!(cgroup.is_frozen().unwrap());
    let between: Vec<_> = pids.iter().map(|&pid| spun(pid)).collect();
    assert_ne!(after, between, "nothing ran in a brief thaw");

    cgroup.thaw().unwrap();
    assert!(!cgroup.is_frozen().unwrap());
}

#[test]
fn kills_while_frozen() {
    let mut guard = Guard::new("kill");
    let cgroup = guard.cgroup.clone();
    guard.spawn(cgroup.path(), "exec sleep 100");
    cgroup.freeze(PATIENCE).unwrap();
    cgroup.kill(PATIENCE).unwrap();
    assert!(!cgroup.is_populated().unwrap());
    assert_eq!(cgroup.procs().unwrap(), Vec::<i32>::new());
}

#[test]
fn a_missed_deadline_thaws_and_says_so() {
    let mut guard = Guard::new("deadline");
    let cgroup = guard.cgroup.clone();
    for _ in 0..8 {
        guard.spawn(cgroup.path(), "while :; do :; done");
    }
    // Eight spinning tasks on fewer processors are hardly ever stopped at the first look.
    let failure = (0..1000).find_map(|_| {
        let failure = cgroup.freeze(Duration::ZERO).err();
        cgroup.thaw().unwrap();
        failure
    });
    let failure = failure.unwrap();
    assert_eq!(failure.kind, Kind::Deadline);
    assert!(failure.to_string().contains("runs on"), "{failure}");
    assert_eq!(fs::read_to_string(cgroup.path().join("cgroup.freeze")).unwrap().trim(), "0");
}

#[test]
fn a_task_that_does_not_stop_is_named() {
    let mut guard = Guard::new("stuck");
    let cgroup = guard.cgroup.clone();
    let pid = guard.spawn(cgroup.path(), "while :; do :; done");
    let text = stuck::describe(&[pid]);
    assert!(text.contains(&format!("thread {pid} (sh) of process {pid}")), "{text}");
    cgroup.freeze(PATIENCE).unwrap();
    // A task counts as frozen a moment before it leaves the processor.
    let end = Instant::now() + PATIENCE;
    let mut text = stuck::describe(&[pid]);
    while !text.contains("no task was seen running") && Instant::now() < end {
        text = stuck::describe(&[pid]);
    }
    assert!(text.contains("no task was seen running"), "{text}");
}

#[test]
fn one_that_is_used_or_missing() {
    let mut guard = Guard::new("busy");
    let cgroup = guard.cgroup.clone();
    assert_eq!(cgroup.create().unwrap_err().kind, Kind::Exists);
    let pid = guard.spawn(cgroup.path(), "exec sleep 100");
    let failure = cgroup.remove(Duration::from_millis(5)).unwrap_err();
    assert_eq!(failure.kind, Kind::Deadline);
    assert!(failure.to_string().contains(&pid.to_string()), "{failure}");

    let missing = Cgroup::at("/nonexistent/cgroup");
    missing.remove(PATIENCE).unwrap();
    assert!(!missing.is_populated().unwrap());
    assert!(missing.freeze(PATIENCE).is_err());
}
