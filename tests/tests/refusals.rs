//! What cannot be: obstacles, bad names, wrong states, no room. Each is refused with its reason, and nothing is harmed.

use crfs_tests::world::{
    Leftovers, Method, Outcome, PATIENCE, Program, SmallDisk, World, copy_tree, python, read_tree, run,
};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn running(kind: &str, arguments: &[&str]) -> (World, Program) {
    let world = World::new();
    let victim = Program::victim(&world, kind, arguments);
    world.start("vs1", &victim);
    (world, victim)
}

/// The lines of `blockers`, each with its three parts.
fn blockers(world: &World, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(world.tree(name).join("blockers")).expect("blockers");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a JSON line"));
    let found: Vec<Value> = lines.filter(|line| line.get("end").is_none()).collect();
    for line in &found {
        for part in ["object", "reason", "remedy"] {
            assert!(line[part].as_str().is_some_and(|text| !text.is_empty()), "no {part} in {line}");
        }
    }
    found
}

#[test]
fn every_obstacle_is_named_at_once() {
    let (world, victim) = running("obstacles", &[]);
    let before = read_tree(&world.tree("vs1"));
    assert_eq!(before.keys().map(PathBuf::as_path).collect::<Vec<_>>(), [Path::new("blockers")]);
    let found = blockers(&world, "vs1");
    assert!(found.len() >= 4, "four ends of sockets: {found:?}");
    let objects: Vec<&str> = found.iter().filter_map(|line| line["object"].as_str()).collect();
    let refused = world.crctl(["freeze", "vs1"]).expect_refusal(&objects);
    assert!(refused.stderr.contains("socket"), "{refused}");
    assert_eq!(world.state("vs1"), "running");
    victim.goes_on(3);
    victim.passes();
}

#[test]
fn freeze_to_inspect_shows_obstacles_in_the_place_of_the_manifest() {
    let (world, victim) = running("obstacles", &[]);
    world.crctl(["freeze", "--inspect", "vs1"]);
    assert_eq!(world.state("vs1"), "frozen");
    victim.stands_still();
    assert!(world.tree("vs1").join("0x00000001/process").exists());
    assert!(!world.tree("vs1").join("manifest").exists(), "it could pass for a checkpoint");
    assert!(blockers(&world, "vs1").len() >= 4);
    world.thaw("vs1");
    victim.goes_on(3);
    victim.passes();
}

/// Only kernel memory tells of keys: the running container shows no obstacle, and the freeze names it and lets it go on.
#[test]
fn keys_are_named() {
    let world = World::new();
    let program = Program::script(&world, python(), "keyring.py", &[]);
    world.start("vs1", &program);
    world.crctl(["freeze", "vs1"]).expect_refusal(&["0x00000001/attr", "keys in a session keyring", "keyctl clear"]);
    assert_eq!(world.state("vs1"), "running");
    program.goes_on(3);
    program.passes();
}

/// Whether a file still shows the address space of its process is seen while it stands still.
#[test]
fn a_file_of_an_address_space_left_by_execve_is_named() {
    let (world, victim) = running("pseudo_files", &["left"]);
    assert_eq!(blockers(&world, "vs1"), Vec::<Value>::new());
    let reason = "/maps of the proc file system cannot be carried: it shows the address space that the process had";
    world.crctl(["freeze", "vs1"]).expect_refusal(&["0x00000001/fds: 3: /proc/", reason, "Have the program close it"]);
    assert_eq!(world.state("vs1"), "running");
    victim.passes();
}

/// The kernel keeps the rest of a text that was begun, and nobody could put it there again.
#[test]
fn the_rest_of_what_an_ended_process_said_is_named() {
    let (world, victim) = running("ended_tasks", &["rest"]);
    assert_eq!(blockers(&world, "vs1"), Vec::<Value>::new());
    let reason =
        "/status of the proc file system cannot be carried: it holds the rest of what its process or thread said";
    world.crctl(["freeze", "vs1"]).expect_refusal(&["0x00000001/fds: ", reason, "Have the program read it to its end"]);
    assert_eq!(world.state("vs1"), "running");
    victim.goes_on(1);
    victim.passes();
}

#[test]
fn the_listing_of_descriptors_of_an_ended_process_is_named() {
    let (world, victim) = running("ended_tasks", &["listing"]);
    let reason = "what it names cannot be looked at: it lists the descriptors of a process that has ended";
    world.crctl(["freeze", "vs1"]).expect_refusal(&["0x00000001/fds: ", reason, "Have the program close it"]);
    assert_eq!(world.state("vs1"), "running");
    victim.goes_on(1);
    victim.passes();
}

/// What waits in a netlink socket is of another moment, and only the freeze looks for it.
#[test]
fn unread_netlink_messages_are_named() {
    let (world, victim) = running("netlink", &["unread"]);
    assert_eq!(blockers(&world, "vs1"), Vec::<Value>::new());
    let reason = "a netlink socket (NETLINK_SOCK_DIAG) holds messages that its program has not read";
    world.crctl(["freeze", "vs1"]).expect_refusal(&["0x00000001/fds", reason, "Try again"]);
    assert_eq!(world.state("vs1"), "running");
    victim.passes();
}

/// A request that waits for a poll never ends by itself.
#[test]
fn asynchronous_requests_under_way_are_named() {
    let (world, victim) = running("aio", &["poll"]);
    let told = ["0x00000001/aio", "requests of asynchronous I/O (io_submit) under way: 1"];
    world.crctl(["freeze", "vs1"]).expect_refusal(&told);
    victim.goes_on(1);
    victim.passes();
}

/// Nor does one of io_uring; and what belongs to a device is not made again.
#[test]
fn rings_that_are_not_carried_are_named() {
    let (world, victim) = running("io_uring", &["poll"]);
    let told = ["0x00000001/0x00000001/attr", "has requests of io_uring under way: 1"];
    world.crctl(["freeze", "vs1"]).expect_refusal(&told);
    victim.goes_on(1);
    victim.passes();
    let (world, victim) = running("io_uring_single_issuer", &["poll"]);
    world.crctl(["freeze", "vs1"]).expect_refusal(&told);
    victim.goes_on(1);
    victim.passes();
    let (world, victim) = running("io_uring", &["polled"]);
    let told = ["0x00000001/fds", "an io_uring of a kind that is not carried yet (IORING_SETUP_IOPOLL)"];
    world.crctl(["freeze", "vs1"]).expect_refusal(&told);
    victim.goes_on(1);
    victim.passes();
}

#[test]
fn rings_of_another_process_are_named() {
    let (world, victim) = running("aio", &["inherited"]);
    let told = ["/mem.segments: 0x", "maps a ring of asynchronous I/O (io_setup) that is another process's"];
    world.crctl(["freeze", "vs1"]).expect_refusal(&told);
    victim.goes_on(1);
    victim.passes();
}

/// Set through a mapping that is gone.
#[test]
fn policies_of_shared_memory_that_no_mapping_tells_are_named() {
    let (world, victim) = running("numa", &["hidden"]);
    let told = ["0x00000001/numa", "has NUMA policies that its mappings do not tell", "Have the program set them"];
    world.crctl(["freeze", "vs1"]).expect_refusal(&told);
    victim.goes_on(1);
    victim.passes();
}

#[test]
fn nothing_in_the_way_of_a_plain_program() {
    let (world, victim) = running("data", &["1"]);
    assert_eq!(blockers(&world, "vs1"), Vec::<Value>::new());
    victim.passes();
}

#[test]
fn names() {
    let world = World::new();
    let before = Leftovers::of(&world);
    let long = "x".repeat(300);
    for name in ["a/b", ".", "..", ".hidden", "-x", "a\tb", "a\u{1b}[0m", "", "ä", long.as_str()] {
        let outcome = world.crctl(["run", "--", name, "true"]);
        let direct = world.crctl(["run", name, "--", "/bin/true"]);
        assert!(!direct.success(), "run with the name {name:?}: {direct}");
        assert!(!outcome.success(), "{outcome}");
        // A directory of that name in the mount; the file system cannot even be asked for some.
        if !["", ".", ".."].contains(&name) && !name.contains('/') {
            assert!(fs::create_dir(world.tree(name)).is_err(), "mkdir of {name:?}");
        }
    }
    before.expect_again(&world);
}

#[test]
fn wrong_states() {
    let (world, victim) = running("data", &["1"]);
    world.crctl(["thaw", "vs1"]).expect_refusal(&["vs1", "running"]);
    world.crctl(["run", "vs1", "--", "/bin/true"]).expect_refusal(&["vs1"]);
    world.freeze("vs1");
    world.crctl(["freeze", "vs1"]).expect_refusal(&["vs1", "frozen"]);
    world.thaw("vs1");
    victim.goes_on(1);
    world.crctl(["rm", "vs1"]).expect_refusal(&["vs1", "kill"]);
    for verb in ["freeze", "thaw", "kill", "rm", "status", "logs"] {
        world.crctl([verb, "nobody"]).expect_refusal(&["nobody"]);
    }
    victim.passes();
}

#[test]
fn a_command_that_does_not_exist() {
    let world = World::new();
    let before = Leftovers::of(&world);
    world.crctl(["run", "vs1", "--", "/nonexistent/program"]).expect_refusal(&["/nonexistent/program"]);
    let names: Value = serde_json::from_str(&world.crctl(["ls", "--json"]).expect_success().stdout).expect("JSON");
    assert!(!names.to_string().contains("vs1"), "it is listed: {names}");
    before.expect_again(&world);
}

#[test]
fn two_freezes_at_once() {
    let (world, victim) = running("threads", &["50"]);
    for _ in 0..5 {
        let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2).map(|_| scope.spawn(|| world.crctl(["freeze", "vs1"]))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
        });
        let worked = outcomes.iter().filter(|outcome| outcome.success()).count();
        assert_eq!(worked, 1, "one freezes, the other is refused: {outcomes:?}");
        assert_eq!(world.state("vs1"), "frozen");
        world.thaw("vs1");
    }
    victim.goes_on(1);
    victim.passes();
}

#[test]
fn removing_what_lives_is_refused() {
    let (world, victim) = running("data", &["1"]);
    let rm = |world: &World| run(Command::new("rm").arg("-r").arg(world.tree("vs1")), PATIENCE);
    assert!(!rm(&world).success(), "rm -r of a running container");
    victim.goes_on(1);
    world.freeze("vs1");
    let before = read_tree(&world.tree("vs1"));
    assert!(!rm(&world).success(), "rm -r of a frozen container");
    assert!(read_tree(&world.tree("vs1")) == before, "rm -r took something away");
    world.status_says("vs1", &["crctl kill vs1"]);
    world.thaw("vs1");
    victim.goes_on(1);
    victim.passes();
}

#[test]
fn writing_into_a_frozen_tree_is_refused() {
    let (world, victim) = running("data", &["1"]);
    world.freeze("vs1");
    let tree = world.tree("vs1");
    let before = read_tree(&tree);
    assert!(fs::write(tree.join("manifest"), "{}").is_err(), "a file was replaced");
    assert!(fs::OpenOptions::new().append(true).open(tree.join("0x00000001/fds")).is_err(), "opened for appending");
    assert!(fs::write(tree.join("files/0x000000ff"), "{}").is_err(), "a file was made");
    assert!(fs::create_dir(tree.join("0x00000002")).is_err(), "a directory was made");
    assert!(fs::remove_file(tree.join("manifest")).is_err(), "a file was removed");
    assert!(fs::rename(tree.join("manifest"), tree.join("fds")).is_err(), "a file was renamed");
    assert!(read_tree(&tree) == before);
    world.thaw("vs1");
    victim.goes_on(1);
    victim.passes();
}

#[test]
fn a_full_disk_while_copying_out() {
    let (world, victim) = running("data", &["16"]);
    world.freeze("vs1");
    let small = SmallDisk::new(world.dir().join("small"), "4m");
    let copy = copy_tree(&world.tree("vs1"), &small.path().join("vs1"), Method::Cp);
    assert!(!copy.success() && copy.stderr.contains("No space left"), "{copy}");
    drop(small);
    let copy = world.copy_out("vs1", Method::Cp);
    world.kill("vs1");
    world.restore(&copy, "vs1", Method::Cp);
    world.thaw("vs1");
    victim.goes_on(2);
    victim.passes();
}

#[test]
fn a_full_run_directory() {
    let run_dir = tempfile::Builder::new().prefix("crfs-run-").tempdir().expect("a directory");
    let small = SmallDisk::new(run_dir.path().join("run"), "2m");
    {
        let world = World::with_run_dir(small.path());
        let victim = Program::victim(&world, "threads", &["20"]);
        world.start("vs1", &victim);
        let filler = small.path().join("filler");
        // Until nothing more goes in.
        run(Command::new("dd").args(["if=/dev/zero", "bs=4k", &format!("of={}", filler.display())]), PATIENCE);
        let refused = world.crctl(["freeze", "vs1"]).expect_refusal(&[]);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(said.contains("No space left") || said.contains("no room"), "{refused}");
        victim.goes_on(2);
        fs::remove_file(&filler).expect("making room");
        assert_eq!(world.state("vs1"), "running");
        world.freeze("vs1");
        world.thaw("vs1");
        victim.goes_on(2);
        victim.passes();
    }
    drop(small);
}

/// Page contents that do not fit where they are staged: told to cp, and nothing stays.
#[test]
fn no_room_for_staged_pages() {
    let (mut world, victim) = running("data", &["16"]);
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.remove("vs1");
    world.stop_server(nix::sys::signal::Signal::SIGTERM);
    let small = SmallDisk::new(world.dir().join("small"), "4m");
    world.set_environment("CRFS_STAGING_DIR", &small.path().to_string_lossy());
    world.start_server();
    let outcome = world.copy_in(&copy, "vs2", Method::Cp);
    assert!(!outcome.success() && outcome.stderr.contains("No space left"), "{outcome}");
    victim.stands_still();
    run(Command::new("rm").arg("-r").arg(world.tree("vs2")), PATIENCE).expect_success();
    assert_eq!(fs::read_dir(small.path()).map(Iterator::count).unwrap_or_default(), 0, "something stays staged");
    world.stop_server(nix::sys::signal::Signal::SIGTERM);
    drop(small);
}
