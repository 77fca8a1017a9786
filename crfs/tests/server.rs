//! The server as a program: how it starts, what it refuses, how it ends.
#![allow(clippy::unwrap_used)]

use crfs::registry::{Server, read_json};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A run directory and a mount point of its own; whatever is mounted or running is gone afterwards.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        World { dir }
    }

    fn mnt(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn crfs(&self, run_dir: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crfs"));
        command.args(arguments).arg(self.mnt()).stdin(Stdio::null());
        command.env("CRFS_RUN_DIR", run_dir).env("CRFS_STAGING_DIR", self.dir.path().join("pages"));
        command.output().unwrap()
    }

    fn start(&self) -> Output {
        self.crfs(&self.run_dir(), &[])
    }

    fn server(&self) -> Option<Server> {
        read_json(&self.run_dir().join("server.json")).unwrap()
    }

    fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.lines().any(|line| line.split(' ').nth(1) == self.mnt().to_str())
    }

    fn signal(&self, signal: Signal) -> Pid {
        let pid = Pid::from_raw(self.server().unwrap().pid);
        kill(pid, signal).unwrap();
        pid
    }
}

fn within_seconds(seconds: u64, what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !is() {
        assert!(Instant::now() < end, "{what}: not within {seconds} s");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Gone, or a zombie that nobody here can reap.
fn has_ended(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z') || rest.starts_with('X'))
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = self.server() {
            let _ = kill(Pid::from_raw(server.pid), Signal::SIGKILL);
        }
        while self.is_mounted() && nix::mount::umount2(&self.mnt(), nix::mount::MntFlags::MNT_DETACH).is_ok() {}
        for run_dir in [self.run_dir(), self.dir.path().join("run2")] {
            if let Ok(group) = crfs::freezer::Cgroup::of(&crfs::registry::Registry::at(run_dir, ""), "x") {
                let _ = fs::remove_dir(group.path().parent().unwrap());
            }
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn it_goes_to_the_background_and_ends_with_the_mount() {
    let world = World::new();
    let output = world.start();
    assert!(output.status.success(), "{output:?}");
    assert_eq!((said(&output).as_str(), output.stdout.as_slice()), ("", &b""[..]));
    // It answers from the moment the command has returned.
    fs::create_dir(world.mnt().join("vs1")).unwrap();
    assert!(fs::read_to_string(world.mnt().join(".ctl/features")).unwrap().contains("task_struct"));
    let server = world.server().unwrap();
    assert_eq!(server.mountpoint, world.mnt());
    assert!(Command::new("umount").arg(world.mnt()).status().unwrap().success());
    within_seconds(5, "the server ends", || has_ended(Pid::from_raw(server.pid)));
    assert!(world.server().is_none());
}

#[test]
fn sigterm_unmounts_even_while_the_mount_is_in_use() {
    let world = World::new();
    assert!(world.start().status.success());
    fs::create_dir(world.mnt().join("vs1")).unwrap();
    let open = fs::File::open(world.mnt().join("vs1/.ctl/state")).unwrap();
    let pid = world.signal(Signal::SIGTERM);
    within_seconds(5, "the server ends", || has_ended(pid));
    assert!(!world.is_mounted());
    assert!(world.server().is_none());
    drop(open);
}

#[test]
fn a_second_server_is_refused_in_one_sentence() {
    let world = World::new();
    assert!(world.start().status.success());
    let same_run_dir = world.start();
    assert_eq!(same_run_dir.status.code(), Some(1));
    let text = said(&same_run_dir);
    assert!(text.lines().count() == 1 && text.contains("CRFS_RUN_DIR") && text.contains("mounted on"), "{text}");
    let same_mount = world.crfs(&world.dir.path().join("run2"), &[]);
    assert_eq!(same_mount.status.code(), Some(1));
    let text = said(&same_mount);
    assert!(
        text.lines().count() == 1 && text.contains("another server is mounted here") && text.contains("umount"),
        "{text}"
    );
}

#[test]
fn killed_and_started_again_it_shows_what_was_there() {
    let world = World::new();
    assert!(world.start().status.success());
    fs::create_dir_all(world.mnt().join("vs1/files")).unwrap();
    fs::write(world.mnt().join("vs1/files/stdios"), "{\"end\":true}\n").unwrap();
    fs::create_dir(world.mnt().join("vs1/0x00000001")).unwrap();
    fs::write(world.mnt().join("vs1/0x00000001/mem.pages"), vec![7; 3 << 20]).unwrap();
    let pid = world.signal(Signal::SIGKILL);
    within_seconds(5, "the server ends", || has_ended(pid));
    // ECONNABORTED until the last of its threads has let go of the connection.
    within_seconds(5, "the mount is dead", || {
        fs::metadata(world.mnt()).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
    });

    let output = world.start();
    assert!(output.status.success(), "{output:?}");
    let text = said(&output);
    assert!(text.lines().count() == 1 && text.contains("took over"), "{text}");
    assert_eq!(fs::read_to_string(world.mnt().join("vs1/.ctl/state")).unwrap(), "incoming\n");
    assert_eq!(fs::read(world.mnt().join("vs1/files/stdios")).unwrap(), b"{\"end\":true}\n");
    assert!(fs::read(world.mnt().join("vs1/0x00000001/mem.pages")).unwrap() == vec![7; 3 << 20]);
    assert!(Command::new("rm").arg("-r").arg(world.mnt().join("vs1")).status().unwrap().success());
    assert_eq!(fs::read_dir(world.mnt()).unwrap().count(), 0);
    assert!(!world.run_dir().join("vs1").exists());
}

#[test]
fn a_bad_mount_point_is_told() {
    let world = World::new();
    fs::remove_dir(world.mnt()).unwrap();
    fs::write(world.mnt(), "").unwrap();
    let output = world.start();
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.lines().count() == 1 && text.contains("is no directory"), "{text}");
    assert_eq!(world.crfs(&world.run_dir(), &["--no-such-option"]).status.code(), Some(2));
}

#[test]
fn what_keeps_kernel_state_from_being_read_is_told() {
    let world = World::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_crfs"));
    command.arg(world.mnt()).env("CRFS_RUN_DIR", world.run_dir()).env(crfs_kstate::FAULT_VARIABLE, "no such feature");
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output).contains("reading kernel state"), "{output:?}");
    assert!(!world.is_mounted());
}
