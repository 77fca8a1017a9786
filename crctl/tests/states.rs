//! What each state allows, and what crctl says of what it does not.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test uses a part of it")]
mod world;

use crfs::registry::State;
use std::process::Stdio;
use world::{PATIENCE, World, until};

/// Makes the container look as a capture leaves it.
fn frozen(world: &World, name: &str) {
    world.cgroup(name).freeze(PATIENCE).unwrap();
    let mut record = world.record(name);
    record.state = State::Frozen;
    world.write_record(&record);
    crfs::captured::write(&world.run_dir().join(name).join("image"), std::iter::empty()).unwrap();
}

#[test]
fn from_run_to_rm() {
    let world = World::new();
    world.ok(&["run", "v", "--", "sleep", "1000"]);
    assert_eq!(world.state("v"), "running");
    world.refused(5, &["v", "it runs already"], &["thaw", "v"]);
    world.refused(5, &["v", "crctl kill v"], &["rm", "v"]);
    world.refused(6, &["v", "running", "another name"], &["run", "v", "--", "true"]);

    frozen(&world, "v");
    assert_eq!(world.state("v"), "frozen");
    world.refused(5, &["frozen already", "crctl thaw v"], &["freeze", "v"]);
    world.ok(&["thaw", "v"]);
    assert_eq!(world.state("v"), "running");
    assert!(!world.run_dir().join("v/image").exists(), "a running container has no tree");

    frozen(&world, "v");
    world.ok(&["kill", "v"]);
    assert_eq!(world.state("v"), "exited");
    assert!(!world.cgroup("v").exists() && !world.run_dir().join("v/image").exists());
    world.refused(5, &["ended", "crctl rm v"], &["kill", "v"]);
    world.refused(5, &["ended"], &["freeze", "v"]);
    world.refused(5, &["ended"], &["thaw", "v"]);
    let cgroup = world.cgroup("v");
    world.ok(&["rm", "v"]);
    assert!(!world.run_dir().join("v").exists());
    assert!(!cgroup.path().parent().unwrap().exists(), "the registry's cgroup outlived its last container");
    for command in ["freeze", "thaw", "kill", "rm", "status", "logs"] {
        world.refused(4, &["v: no such container"], &[command, "v"]);
        world.refused(2, &["name \"../x\""], &[command, "../x"]);
    }
    assert!(!world.run_dir().join("v").exists(), "a refused command made something");
}

#[test]
fn the_cgroup_has_the_last_word() {
    let world = World::new();
    world.ok(&["run", "v", "--", "sleep", "1000"]);
    // Somebody else freezes it: there is no tree, so it is not frozen, and a thaw is what helps.
    world.cgroup("v").freeze(PATIENCE).unwrap();
    assert_eq!(world.state("v"), "running");
    world.ok(&["thaw", "v"]);
    assert!(!world.cgroup("v").is_frozen().unwrap());
    // Somebody else thaws it.
    frozen(&world, "v");
    world.cgroup("v").thaw().unwrap();
    assert_eq!(world.state("v"), "running");
    world.refused(5, &["it runs already"], &["thaw", "v"]);
    // Somebody else ends it.
    world.cgroup("v").kill(PATIENCE).unwrap();
    assert_eq!(world.state("v"), "exited");
}

#[test]
fn an_exited_container_is_replaced_unless_the_new_one_cannot_start() {
    let world = World::new();
    world.ok(&["run", "v", "--", "sh", "-c", "echo first; exit 3"]);
    until("its end", || (world.state("v") == "exited").then_some(()));
    assert_eq!(world.log("v"), "first\n");
    world.refused(127, &["nosuch", "not found"], &["run", "v", "--", "nosuch"]);
    assert_eq!(world.log("v"), "first\n", "a failed start took the log of the container before");
    world.ok(&["run", "v", "--", "echo", "second"]);
    assert_eq!(world.wait_for_log("v", "second"), "second\n");
}

#[test]
fn incoming_and_failed_are_removed_with_their_pages() {
    let world = World::new();
    world.ok(&["run", "model", "--", "true"]);
    let mut record = world.record("model");
    let pages = world.dir.path().join("pages");
    for (name, state) in [("incoming", State::Incoming), ("failed", State::Failed), ("building", State::Building)] {
        record.name = name.to_owned();
        record.state = state;
        record.cgroup = record.cgroup.with_file_name(name);
        world.write_record(&record);
        let staged = world.run_dir().join(name).join("staging/0x00000001");
        std::fs::create_dir_all(&staged).unwrap();
        std::fs::create_dir_all(&pages).unwrap();
        std::fs::write(pages.join(format!("page-{name}")), "contents").unwrap();
        std::os::unix::fs::symlink(pages.join(format!("page-{name}")), staged.join("mem.pages")).unwrap();
        // Nobody holds its lock, so whoever was building is dead.
        let shown = if name == "building" { "failed" } else { name };
        assert_eq!(world.state(name), shown);
        world.refused(5, &["freeze"], &["freeze", name]);
        world.refused(5, &["crctl rm"], &["kill", name]);
        world.refused(6, &["crctl rm"], &["run", name, "--", "true"]);
        world.ok(&["rm", name]);
        assert!(!pages.join(format!("page-{name}")).exists());
    }
}

#[test]
fn two_operations_wait_for_each_other() {
    let world = World::new();
    world.ok(&["run", "v", "--", "sleep", "1000"]);
    let kills: Vec<_> = (0..4)
        .map(|_| world.command(&["kill", "v"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
        .collect();
    let codes: Vec<_> = kills.into_iter().map(|mut kill| kill.wait().unwrap().code().unwrap()).collect();
    let mut sorted = codes.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [0, 5, 5, 5]);
}

#[test]
fn json_for_programs() {
    let world = World::new();
    world.ok(&["run", "v", "--", "sleep", "1000"]);
    let list: serde_json::Value = serde_json::from_str(&world.ok(&["ls", "--json"])).unwrap();
    assert_eq!(list[0]["name"], "v");
    assert_eq!(list[0]["state"], "running");
    assert_eq!(list[0]["processes"], 1);
    assert!(list[0]["memory"].as_u64().unwrap() > 0);
    let refused = world.crctl(&["thaw", "--json", "v"]);
    let object: serde_json::Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(object["exit_code"], 5);
    assert_eq!(object["failure"]["kind"], "wrong_state");
}

#[test]
fn the_plan_of_a_copy() {
    let world = World::new();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../image-format/tests/golden");
    let text = world.ok(&["plan", golden]);
    let steps: Vec<serde_json::Value> = serde_json::from_str(&world.ok(&["plan", "--json", golden])).unwrap();
    // The text has one line on top for what is not a step.
    assert_eq!(text.lines().count(), steps.len() + 1, "{text}");
    assert_eq!((&steps[0]["process"], &steps[0]["action"]), (&1.into(), &"spawn".into()));
    assert_eq!(steps.last().unwrap()["action"], "resume");
    world.refused(9, &["manifest: missing"], &["plan", world.dir.path().to_str().unwrap()]);
}
