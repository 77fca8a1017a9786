//! Server, states, and who may die when.

use crfs_tests::world::{
    Leftovers, Method, Outcome, PATIENCE, Program, SmallDisk, World, binary, files_of, read_tree, run, wait_for,
};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

fn mounted(world: &World) -> bool {
    let at = world.mount();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    mounts.lines().any(|line| line.split(' ').nth(4) == at.to_str())
}

#[test]
fn the_background_server() {
    let world = World::without_server();
    let before = Leftovers::of(&world);
    run(world.command(binary("crfs")).arg(world.mount()), PATIENCE).expect_success();
    assert!(mounted(&world), "crfs returned and nothing is mounted");
    assert_eq!(fs::read_dir(world.mount()).expect("the mount").count(), 0);
    let again = run(world.command(binary("crfs")).arg(world.mount()), PATIENCE);
    again.expect_refusal(&[&world.mount().to_string_lossy()]);
    assert!(mounted(&world), "the second instance took the first one's mount away");
    run(Command::new("umount").arg(world.mount()), PATIENCE).expect_success();
    before.expect_again(&world);
    run(world.command(binary("crfs")).arg(world.mount()), PATIENCE).expect_success();
    assert!(mounted(&world), "mounting once more");
    run(Command::new("umount").arg(world.mount()), PATIENCE).expect_success();
    before.expect_again(&world);
}

#[test]
fn a_mount_point_that_is_none() {
    let world = World::without_server();
    let before = Leftovers::of(&world);
    let nowhere = world.dir().join("nowhere/at/all");
    run(world.command(binary("crfs")).arg(&nowhere), PATIENCE).expect_refusal(&["nowhere/at/all"]);
    let file = world.dir().join("file");
    fs::write(&file, "").expect("a file");
    run(world.command(binary("crfs")).arg(&file), PATIENCE).expect_refusal(&[&file.to_string_lossy()]);
    before.expect_again(&world);
}

/// In a mount namespace of its own, so that only this server misses it.
fn without(world: &World, take_away: &str) -> Outcome {
    let script = format!("{take_away} && exec \"$0\" \"$1\"");
    let mut unshare = world.command("unshare");
    run(unshare.args(["--mount", "sh", "-c", &script]).arg(binary("crfs")).arg(world.mount()), PATIENCE)
}

#[test]
fn a_machine_that_lacks_something_is_told_in_one_sentence() {
    let world = World::without_server();
    let before = Leftovers::of(&world);
    for (take_away, word) in [
        ("mount -t tmpfs none /dev && mknod /dev/null c 1 3", "/dev/fuse"),
        ("umount --lazy --all --types cgroup2", "cgroup v2"),
    ] {
        let refused = without(&world, take_away).expect_refusal(&[word]);
        assert_eq!(refused.stderr.trim().lines().count(), 1, "{refused}");
    }
    before.expect_again(&world);
}

/// An image holds every secret the process had.
#[test]
fn nobody_else_sees_the_mount() {
    let world = World::new();
    let victim = Program::victim(&world, "data", &["1"]);
    world.start("vs1", &victim);
    world.freeze("vs1");
    let as_nobody = |command: &str, path: PathBuf| {
        let mut setpriv = world.command("setpriv");
        run(setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups", command]).arg(path), PATIENCE)
    };
    assert!(as_nobody("ls", world.out()).success(), "nobody sees the world at all: the test proves nothing");
    as_nobody("ls", world.mount()).expect_refusal(&[]);
    as_nobody("cat", world.tree("vs1").join("manifest")).expect_refusal(&[]);
}

#[test]
fn sigterm_unmounts() {
    let mut world = World::new();
    let status = world.stop_server(Signal::SIGTERM);
    assert!(status.success(), "{status}");
    assert!(!mounted(&world));
    world.start_server();
    assert!(mounted(&world));
}

#[test]
fn states_from_run_to_rm() {
    let world = World::new();
    let victim = Program::victim(&world, "data", &["1"]);
    world.start("vs1", &victim);
    let list = || {
        let mut names: Vec<_> =
            fs::read_dir(world.tree("vs1")).expect("the tree").flatten().map(|e| e.file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(list(), ["blockers"]);
    assert_eq!(fs::read_to_string(world.tree("vs1").join(".ctl/state")).expect("state").trim(), "running");
    fs::write(world.tree("vs1").join(".ctl/state"), "frozen\n").expect("freezing through the tree");
    assert_eq!(world.state("vs1"), "frozen");
    victim.stands_still();
    let names = list();
    for name in ["manifest", "files", "0x00000001", "sysv.msg", "af_inet_listening"] {
        assert!(names.iter().any(|listed| listed == name), "{name} is not in {names:?}");
    }
    assert!(!names.iter().any(|listed| listed == "blockers" || listed == ".ctl"), "{names:?}");
    fs::write(world.tree("vs1").join(".ctl/state"), "running\n").expect("thawing through the tree");
    victim.goes_on(2);
    world.kill("vs1");
    assert_eq!(world.state("vs1"), "exited");
    assert!(list().is_empty(), "an exited container lists {:?}", list());
    world.must("rm", "vs1");
    assert!(!world.tree("vs1").exists());
}

/// Whatever its threads are at.
#[test]
fn frozen_at_any_moment() {
    let world = World::new();
    let victim = Program::victim(&world, "busy", &[]);
    world.start("vs1", &victim);
    for _ in 0..40 {
        world.freeze("vs1");
        world.thaw("vs1");
    }
    victim.goes_on(2);
    victim.passes();
}

#[test]
fn a_program_that_ends() {
    let world = World::new();
    let script = "echo to the log; echo complaints >&2; exit 7";
    world.crctl(["run", "vs1", "--", "/bin/sh", "-c", script]).expect_success();
    assert!(wait_for(PATIENCE, || world.state("vs1") == "exited"), "it is {}", world.state("vs1"));
    let logs = world.crctl(["logs", "vs1"]).expect_success();
    assert!(logs.stdout.contains("to the log\n") && logs.stdout.contains("complaints\n"), "{logs}");
    world.must("rm", "vs1");
}

#[test]
fn the_log_goes_on_after_a_restore() {
    let world = World::new();
    let script = "n=0; while :; do echo line $n; n=$((n + 1)); sleep 0.03; done";
    world.crctl(["run", "vs1", "--", "/bin/bash", "-c", script]).expect_success();
    let lines = || world.crctl(["logs", "vs1"]).expect_success().stdout.lines().count();
    assert!(wait_for(PATIENCE, || lines() > 3), "no output");
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    let before = lines();
    world.kill("vs1");
    world.restore(&copy, "vs1", Method::Cp);
    world.thaw("vs1");
    assert!(wait_for(PATIENCE, || lines() > before + 3), "no output after the restore");
    let text = world.crctl(["logs", "vs1"]).expect_success().stdout;
    for (number, line) in text.lines().enumerate() {
        assert_eq!(line, format!("line {number}"));
    }
}

#[test]
fn tables_and_help() {
    let world = World::new();
    let victim = Program::victim(&world, "data", &["1"]);
    world.start("vs1", &victim);
    let table = world.crctl(["ls"]).expect_success();
    assert!(table.stdout.contains("vs1") && table.stdout.contains("running"), "{table}");
    let json = world.crctl(["ls", "--json"]).expect_success();
    serde_json::from_str::<serde_json::Value>(&json.stdout).expect("ls --json prints JSON");
    let help = world.crctl(["--help"]).expect_success();
    assert!(help.stdout.contains("cp -r"), "the help teaches with an example: {help}");
    world.crctl(["nonsense"]).expect_refusal(&["nonsense"]);
    victim.passes();
}

/// SIGKILL of the server: containers running, frozen and incoming are still there, the tree is the same byte for byte.
#[test]
fn the_server_is_killed_and_started_again() {
    let mut world = World::new();
    let (sleeper, runner) = (Program::victim(&world, "data", &["8"]), Program::victim(&world, "avx", &[]));
    world.start("frozen", &sleeper);
    world.start("running", &runner);
    world.freeze("frozen");
    let attributes = |world: &World| -> Vec<(PathBuf, u64, u64, i64)> {
        let tree = world.tree("frozen");
        let of = |file: &PathBuf| fs::metadata(tree.join(file)).expect("attributes");
        files_of(&tree).into_iter().map(|f| (f.clone(), of(&f).ino(), of(&f).len(), of(&f).mtime())).collect()
    };
    let (tree, then) = (read_tree(&world.tree("frozen")), attributes(&world));
    let copy = world.copy_out("frozen", Method::Cp);
    fs::create_dir(world.tree("incoming")).expect("a new container");
    fs::copy(copy.join("manifest"), world.tree("incoming/manifest")).expect("its first file");
    world.stop_server(Signal::SIGKILL);
    runner.goes_on(3);
    sleeper.stands_still();
    world.start_server();
    assert_eq!(attributes(&world), then);
    assert!(read_tree(&world.tree("frozen")) == tree, "the tree is another after the restart");
    assert_eq!(["frozen", "running", "incoming"].map(|name| world.state(name)), ["frozen", "running", "incoming"]);
    world.restore(&copy, "incoming", Method::Rsync);
    world.remove("incoming");
    world.thaw("frozen");
    sleeper.goes_on(2);
    sleeper.passes();
    runner.passes();
}

#[test]
fn thaw_and_kill_need_no_server() {
    let mut world = World::new();
    let victim = Program::victim(&world, "data", &["1"]);
    world.start("vs1", &victim);
    world.freeze("vs1");
    world.stop_server(Signal::SIGKILL);
    world.thaw("vs1");
    victim.goes_on(2);
    world.kill("vs1");
    victim.stands_still();
    assert_eq!(world.state("vs1"), "exited");
}

/// A frozen container with much memory, and its cgroup's switch.
fn frozen_with_switch(world: &World) -> (Program, PathBuf) {
    let victim = Program::victim(world, "data", &["60"]);
    world.start("vs1", &victim);
    world.freeze("vs1");
    let record = fs::read(world.run_dir().join("vs1/container.json")).expect("the record");
    let record: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
    let cgroup = PathBuf::from(record["cgroup"].as_str().expect("a path"));
    (victim, cgroup.join("cgroup.freeze"))
}

/// Somebody thaws the cgroup while a copy is being taken: the copy fails, and is not torn.
#[test]
fn thawed_during_a_copy() {
    let world = World::new();
    let (victim, switch) = frozen_with_switch(&world);
    // tar stands still as long as nobody takes what it writes.
    let mut tar = world.command("tar");
    tar.arg("-C").arg(world.mount()).args(["-cf", "-", "vs1"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tar = tar.spawn().expect("tar");
    let mut stream = tar.stdout.take().expect("its output");
    // Into the page contents, which come early and are most of it.
    std::io::copy(&mut (&mut stream).take(4 << 20), &mut std::io::sink()).expect("the first part");
    fs::write(&switch, "0").expect("thawing it behind its back");
    victim.goes_on(2);
    std::io::copy(&mut stream, &mut std::io::sink()).expect("the rest");
    drop(stream);
    let ended = tar.wait_with_output().expect("tar's end");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && said.contains("Stale file handle"), "{}: {said}", ended.status);
    victim.goes_on(2);
    victim.passes();
}

/// What was opened while frozen is stale once it ran, also when it stands still again; and no later copy can pass for a checkpoint.
#[test]
fn thawed_behind_our_back() {
    let world = World::new();
    let (victim, switch) = frozen_with_switch(&world);
    let mut pages = fs::File::open(world.tree("vs1").join("0x00000001/mem.pages")).expect("the pages");
    pages.read_exact(&mut vec![0; 1 << 20]).expect("the first chunk");
    for freeze in ["0", "1"] {
        fs::write(&switch, freeze).expect("switching behind its back");
        std::thread::sleep(Duration::from_millis(100));
        pages.seek(SeekFrom::Start(40 << 20)).expect("seeking");
        let read = pages.read_exact(&mut vec![0; 4 << 20]);
        let errno = read.expect_err("reading pages of a container that ran").raw_os_error();
        assert_eq!(errno, Some(nix::libc::ESTALE));
        let to = world.place("vs1");
        let copy = crfs_tests::world::copy_tree(&world.tree("vs1"), &to, Method::Cp);
        assert!(!copy.success() || !to.join("manifest").exists(), "a checkpoint of what ran: {copy}");
    }
    fs::write(&switch, "0").expect("letting it go on");
    victim.goes_on(2);
    victim.passes();
}

/// Where mounts of the host are not shared a container keeps those that it was born with.
#[test]
fn what_the_host_has_unmounted_since_is_not_the_containers_own() {
    let world = World::new();
    let disk = SmallDisk::new(world.dir().join("small"), "4m");
    let victim = Program::victim(&world, "data", &["1"]);
    world.start("vs1", &victim);
    drop(disk);
    world.freeze("vs1");
    let mounts = fs::read_to_string(world.tree("vs1").join("mounts")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "more than the line that ends it: {mounts}");
    let copy = world.copy_out("vs1", Method::Cp);
    world.kill("vs1");
    world.restore(&copy, "vs1", Method::Cp);
    world.thaw("vs1");
    victim.goes_on(1);
    victim.passes();
}
