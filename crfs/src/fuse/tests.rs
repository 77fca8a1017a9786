//! The tree through a real mount, with the programs people copy with.
#![allow(clippy::unwrap_used)]

use super::{Mounted, mount};
use crate::registry::{State, write_json};
use crate::tree::Tree;
use crate::tree::tests::{PROCESS, Sleeper, World};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A world whose tree is mounted.
struct Mount {
    world: World,
    at: PathBuf,
    mounted: Option<Mounted>,
}

impl Mount {
    fn new() -> Self {
        let world = World::new();
        let at = world.path().join("mnt");
        fs::create_dir(&at).unwrap();
        let tree = Tree::new(world.registry.clone(), world.fake.clone());
        let mounted = Some(mount(tree, &at, false).unwrap());
        Mount { world, at, mounted }
    }

    /// What a build will find out of the tasks.
    fn expect(&self, sleeper: &Sleeper, name: &str) {
        let container = self.world.registry.container(name).unwrap();
        fs::create_dir_all(container.dir()).unwrap();
        write_json(&container.dir().join("live.new"), &sleeper.live()).unwrap();
    }

    fn state(&self, name: &str) -> String {
        fs::read_to_string(self.at.join(name).join(".ctl/state")).unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(self.mounted.take());
    }
}

fn sh(script: &str, arguments: &[&Path]) -> Output {
    Command::new("sh").arg("-euc").arg(script).arg("sh").args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Runs a script that must succeed and say nothing.
fn quiet(script: &str, arguments: &[&Path]) {
    let output = sh(script, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{script}: {}: {said}", output.status);
}

fn has(tool: &str) -> bool {
    Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Writes an image as a plain directory.
fn plain(sleeper: &Sleeper, directory: &Path) {
    for (path, bytes) in sleeper.files() {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn read_all(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut below = vec![directory.to_owned()];
    while let Some(next) = below.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    files
}

#[test]
fn every_program_copies_a_frozen_container_out_alike() {
    let (mount, sleeper) = (Mount::new(), Sleeper::start());
    sleeper.freeze(&mount.world, "vs1");
    let mut tools = vec![
        ("cp", "cp -r \"$1/vs1\" \"$2\""),
        ("cp", "cp -a \"$1/vs1\" \"$2\""),
        ("tar", "mkdir \"$2\"; tar -C \"$1/vs1\" -cf - . | tar -C \"$2\" -xf -"),
        ("find", "cp -r \"$1/vs1\" \"$2\"; diff -r \"$1/vs1\" \"$2\""),
    ];
    if has("rsync") {
        tools.push(("rsync", "rsync -a \"$1/vs1/\" \"$2\""));
    }
    for (number, (_, script)) in tools.into_iter().enumerate() {
        let copy = mount.world.path().join(format!("copy{number}"));
        quiet(script, &[&mount.at, &copy]);
        assert!(read_all(&copy) == sleeper.files(), "{script}");
    }
    let pages = fs::metadata(mount.at.join("vs1").join(PROCESS).join("mem.pages")).unwrap();
    assert_eq!(pages.blksize(), 1 << 20);
    assert_eq!(pages.blocks(), pages.size().div_ceil(512));
    let sums = fs::metadata(mount.at.join("vs1").join(PROCESS).join("mem.sums")).unwrap();
    assert!(pages.ino() < sums.ino(), "cp reads in the order of inode numbers");
}

#[test]
fn every_program_copies_a_container_in() {
    let (mount, sleeper) = (Mount::new(), Sleeper::start());
    let image = mount.world.path().join("image");
    plain(&sleeper, &image);
    let mut scripts = vec![
        "cp -r \"$1\" \"$2\"",
        "cp -a \"$1\" \"$2\"",
        "mkdir \"$2\"; tar -C \"$1\" -cf - . | tar -C \"$2\" -xf -",
        // The other way round.
        "mkdir \"$2\"; cd \"$1\"; find . -mindepth 1 -type d | while read d; do mkdir -p \"$2/$d\"; done; \
         find . -type f | sort -r | while read f; do cat \"$f\" > \"$2/$f\"; done",
        // By the way of temporary names, as rsync does, with the times set last.
        "mkdir \"$2\"; cd \"$1\"; find . -mindepth 1 -type d | while read d; do mkdir -p \"$2/$d\"; done; \
         find . -type f | while read f; do t=\"$2/$(dirname $f)/.$(basename $f).Xz81\"; cp -p \"$f\" \"$t\"; mv \"$t\" \"$2/$f\"; done; \
         touch -r . \"$2\"",
    ];
    if has("rsync") {
        scripts.extend(["rsync -a \"$1/\" \"$2\"", "rsync -a --inplace \"$1/\" \"$2\""]);
    }
    for (number, script) in scripts.into_iter().enumerate() {
        let name = format!("vs{number}");
        mount.expect(&sleeper, &name);
        let target = mount.at.join(&name);
        quiet(script, &[&image, &target]);
        assert_eq!(mount.world.fake.builds(), number + 1, "{script}");
        assert_eq!(mount.state(&name), "frozen\n", "{script}");
        assert!(read_all(&target) == sleeper.files(), "{script}");
        quiet("diff -r \"$1\" \"$2\"", &[&image, &target]);
    }
}

#[test]
fn the_errno_of_a_build_reaches_the_copying_program() {
    let (mount, sleeper) = (Mount::new(), Sleeper::start());
    let image = mount.world.path().join("image");
    plain(&sleeper, &image);
    fs::write(image.join(PROCESS).join("process"), "\"refuse\"\n").unwrap();
    let output = sh("cp -r \"$1\" \"$2\"", &[&image, &mount.at.join("vs1")]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("Invalid argument"), "{output:?}");
    assert_eq!(mount.state("vs1"), "failed\n");
    quiet("rm -r \"$1\"", &[&mount.at.join("vs1")]);
    assert!(!mount.at.join("vs1").exists());
    assert!(!mount.world.registry.container("vs1").unwrap().dir().exists());
}

#[test]
fn a_copy_fails_when_the_tasks_run_meanwhile() {
    let (mount, mut sleeper) = (Mount::new(), Sleeper::start());
    sleeper.freeze(&mount.world, "vs1");
    let (pages, copy) = (mount.at.join("vs1").join(PROCESS).join("mem.pages"), mount.world.path().join("copy"));
    // Some of it is read before they run, the rest after.
    let mut reader = fs::File::open(&pages).unwrap();
    let mut half = vec![0; 1 << 20];
    std::io::Read::read_exact(&mut reader, &mut half).unwrap();
    sleeper.run();
    let rest = std::io::copy(&mut reader, &mut std::io::sink()).unwrap_err();
    assert_eq!(rest.raw_os_error(), Some(libc::ESTALE));
    let output = sh("cp -r \"$1\" \"$2\"", &[&mount.at.join("vs1"), &copy]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("Stale file handle"), "{output:?}");
}

#[test]
fn a_live_container_is_neither_removed_nor_written() {
    let (mount, sleeper) = (Mount::new(), Sleeper::start());
    sleeper.freeze(&mount.world, "vs1");
    mount.world.fake.set_state("vs2", State::Running);
    for name in ["vs1", "vs2"] {
        let output = sh("rm -rf \"$1\"", &[&mount.at.join(name)]);
        assert!(!output.status.success());
        let status = fs::read_to_string(mount.at.join(name).join(".ctl/status")).unwrap();
        assert!(status.contains(&format!("crctl kill {name}")), "{status}");
    }
    assert!(read_all(&mount.at.join("vs1")) == sleeper.files());
    let error = fs::write(mount.at.join("vs1/manifest"), "x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    let error = std::os::unix::fs::symlink("x", mount.at.join("vs1/link")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    assert_eq!(fs::read_to_string(mount.at.join("vs2/blockers")).unwrap().lines().count(), 2);
}

#[test]
fn who_waits_for_events_can_be_killed_and_does_not_hold_the_mount() {
    let mount = Mount::new();
    mount.world.fake.set_state("vs1", State::Running);
    let events = mount.at.join("vs1/.ctl/events");
    let mut child = Command::new("cat").arg(&events).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    // The loop serves others meanwhile.
    assert_eq!(mount.state("vs1"), "running\n");
    mount.world.fake.set_state("vs1", State::Exited);
    let mut line = String::new();
    let output = child.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
    assert!(line.contains("\"state\":\"exited\""), "{line}");
    assert!(child.try_wait().unwrap().is_none(), "it waits for the next");
    child.kill().unwrap();
    let begun = Instant::now();
    child.wait().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[test]
fn two_copies_into_one_name_at_once_make_one_build() {
    let (mount, sleeper) = (Mount::new(), Sleeper::start());
    let image = mount.world.path().join("image");
    plain(&sleeper, &image);
    mount.expect(&sleeper, "vs1");
    let target = mount.at.join("vs1");
    fs::create_dir(&target).unwrap();
    let copy = || {
        let mut command = Command::new("cp");
        command.arg("-r").arg(image.join(".")).arg(&target).stdin(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    // One of them may be told that the container is built already.
    let ends: Vec<bool> = [copy(), copy()].into_iter().map(|mut child| child.wait().unwrap().success()).collect();
    assert!(ends.contains(&true) || mount.state("vs1") == "frozen\n", "{ends:?}");
    assert_eq!((mount.world.fake.builds(), mount.state("vs1").as_str()), (1, "frozen\n"));
    assert!(read_all(&target) == sleeper.files());
}

#[test]
fn a_copy_that_was_broken_off_is_resumed_by_rsync() {
    if !has("rsync") {
        // The same by temporary names is tested without it.
        return;
    }
    let (mount, sleeper) = (Mount::new(), Sleeper::start());
    let (image, target) = (mount.world.path().join("image"), mount.at.join("vs1"));
    plain(&sleeper, &image);
    mount.expect(&sleeper, "vs1");
    fs::create_dir_all(target.join(PROCESS)).unwrap();
    fs::copy(image.join("manifest"), target.join("manifest")).unwrap();
    let pages = Path::new(PROCESS).join("mem.pages");
    let half = fs::read(image.join(&pages)).unwrap();
    fs::write(target.join(&pages), &half[..half.len() / 2]).unwrap();
    assert_eq!(mount.state("vs1"), "incoming\n");
    let status = fs::read_to_string(target.join(".ctl/status")).unwrap();
    assert!(status.contains("missing or not whole"), "{status}");
    quiet("rsync -a \"$1/\" \"$2\"", &[&image, &target]);
    assert_eq!((mount.world.fake.builds(), mount.state("vs1").as_str()), (1, "frozen\n"));
    assert!(read_all(&target) == sleeper.files());
}

#[test]
fn a_full_disk_is_told_and_the_copy_can_be_removed() {
    let (mount, sleeper) = (Mount::new(), Sleeper::start());
    let (image, staging) = (mount.world.path().join("image"), mount.world.registry.staging_dir().to_owned());
    plain(&sleeper, &image);
    fs::create_dir_all(&staging).unwrap();
    quiet("mount -t tmpfs -o size=1m crfs-test \"$1\"", &[&staging]);
    let output = sh("cp -r \"$1\" \"$2\"", &[&image, &mount.at.join("vs1")]);
    let state = mount.state("vs1");
    let removed = sh("rm -r \"$1\"", &[&mount.at.join("vs1")]);
    quiet("umount \"$1\"", &[&staging]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"), "{output:?}");
    assert_eq!((mount.world.fake.builds(), state.as_str()), (0, "incoming\n"));
    assert!(removed.status.success(), "{removed:?}");
}

#[test]
fn the_end_of_a_first_process_is_recorded() {
    use crate::registry::{Init, Record};
    let world = World::new();
    let mut child = Command::new("sh").args(["-c", "read line; exit 3"]).stdin(Stdio::piped()).spawn().unwrap();
    let pid = child.id().cast_signed();
    let init = Some(Init { pid, start_time: crate::operation::start_time(pid).unwrap() });
    let container = world.registry.container("vs1").unwrap();
    container.write_record(&Record { init, ..world.fake.record("vs1", State::Running) }).unwrap();
    let monitor = super::Monitor::start(world.registry.clone(), || ()).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(container.existing().unwrap().exit_status, None);
    drop(child.stdin.take());
    child.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    while container.existing().unwrap().exit_status.is_none() {
        assert!(Instant::now() < end, "the exit status is not recorded");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(monitor);
    assert_eq!(container.existing().unwrap().exit_status, Some(3 << 8));
}
