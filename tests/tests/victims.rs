//! The victims themselves, without any checkpoint: each passes by itself, and each kind of damage is seen.

use crfs_tests::victim::suffixed;
use crfs_tests::world::{python, wait_for};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

const SECONDS: Duration = Duration::from_secs(30);

struct Running {
    child: Child,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Running {
    fn victim(program: &str) -> Self {
        Running::start(&mut Command::new(program))
    }

    fn start(command: &mut Command) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        // One of them gives up root.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(dir.path(), open).expect("opening the directory");
        let path = dir.path().join("progress");
        let child = command.arg(&path).spawn().expect("starting the victim");
        let running = Running { child, path, _dir: dir };
        let text = || fs::read_to_string(&running.path).unwrap_or_default();
        let started =
            wait_for(SECONDS, || text().parse::<u64>().is_ok_and(|round| round >= 3) || text().lines().count() >= 3);
        assert!(started, "no progress: {:?} {:?}", text(), running.result());
        running
    }

    fn result(&self) -> Option<String> {
        fs::read_to_string(suffixed(&self.path, "result")).ok().filter(|text| !text.is_empty())
    }

    fn verdict(&mut self) -> String {
        fs::write(suffixed(&self.path, "check"), "").expect("asking for the verdict");
        assert!(wait_for(SECONDS, || self.result().is_some()), "no verdict");
        let verdict = self.result().unwrap_or_default();
        assert!(wait_for(SECONDS, || self.child.try_wait().expect("waiting").is_some()), "it does not end");
        verdict.trim().to_owned()
    }

    fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has no children of its own left unless the test failed; these end with their pipes or parents.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

macro_rules! passes_alone {
    ($($kind:ident)*) => { $(
        #[test]
        fn $kind() {
            assert_eq!(Running::victim(env!(concat!("CARGO_BIN_EXE_victim_", stringify!($kind)))).verdict(), "ok");
        }
    )* };
}
passes_alone! {
    aio altstack arguments avx brk controls credentials data epoll epoll_numbers eventfd expiries files fork_sharing
    inotify io_uring io_uring_single_issuer itimer limits masks obstacles owner pending pidfd pipe posix_timers protnone rseq seccomp shared signalfd
    sparse terminal threads time_limits timerfd tree waits zombie
}

#[test]
fn scripts() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("victims");
    let scripts = [
        (python(), "counter.py"),
        (python(), "sandboxed.py"),
        ("bash", "loop.sh"),
        ("bash", "pipeline.sh"),
        ("node", "timers.js"),
        ("perl", "counter.pl"),
    ];
    for (interpreter, script) in scripts {
        let verdict = Running::start(Command::new(interpreter).arg(dir.join(script))).verdict();
        assert_eq!(verdict, "ok", "{script}");
    }
}

/// Changes a byte of the victim's biggest private mapping.
fn damage_memory(victim: &Running) {
    let maps = fs::read_to_string(format!("/proc/{}/maps", victim.pid())).expect("maps");
    let ranges = maps.lines().filter(|line| line.contains(" rw-p 00000000 00:00 0")).filter_map(|line| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
    });
    let (start, end) = ranges.max_by_key(|(start, end)| end - start).expect("a mapping");
    let middle = (start + (end - start) / 2) & !4095;
    crfs_sys::memory::write(victim.pid(), middle + 64, &[0xa5; 8]).expect("damaging it");
}

#[test]
fn damaged_data_is_seen() {
    let mut victim = Running::victim(env!("CARGO_BIN_EXE_victim_data"));
    damage_memory(&victim);
    assert!(victim.verdict().contains("changed"), "{:?}", victim.result());
}

#[test]
fn a_signal_too_many_is_seen() {
    let mut victim = Running::victim(env!("CARGO_BIN_EXE_victim_pending"));
    crfs_sys::sigqueue::queue(victim.pid(), 37, 5).expect("sending it");
    let verdict = victim.verdict();
    assert!(verdict.contains("more signals are pending"), "{verdict}");
}

#[test]
fn another_limit_is_seen() {
    let mut victim = Running::victim(env!("CARGO_BIN_EXE_victim_limits"));
    let prlimit = Command::new("prlimit").args([format!("--pid={}", victim.pid()), "--nofile=100:300".into()]).status();
    assert!(prlimit.expect("prlimit").success());
    let verdict = victim.verdict();
    assert!(verdict.contains("nofile=100/300"), "{verdict}");
}

#[test]
fn a_child_that_is_gone_is_seen() {
    let mut victim = Running::victim(env!("CARGO_BIN_EXE_victim_tree"));
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", victim.pid())).expect("children");
    let child: i32 = children.split_whitespace().nth(2).expect("a child").parse().expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), nix::sys::signal::Signal::SIGKILL).expect("killing it");
    let verdict = victim.verdict();
    assert_ne!(verdict, "ok");
    // What it left of its tree counts on: end it too.
    let rest = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    for pid in rest {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

#[test]
fn bytes_taken_from_the_pipe_are_seen() {
    let mut victim = Running::victim(env!("CARGO_BIN_EXE_victim_pipe"));
    let pidfd = crfs_sys::pidfd::open(victim.pid(), false).expect("a pidfd");
    let pipe = (3..10)
        .filter_map(|fd| crfs_sys::pidfd::getfd(std::os::fd::AsFd::as_fd(&pidfd), fd).ok())
        .find(|fd| nix::unistd::read(fd, &mut [0; 10]) == Ok(10));
    assert!(pipe.is_some(), "the victim has no pipe");
    let verdict = victim.verdict();
    // Whichever is seen first: other bytes than were written, or fewer.
    assert!(verdict.contains("of the stream is wrong") || verdict.contains("bytes and not"), "{verdict}");
}
