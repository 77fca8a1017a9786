//! Edits in a copy: the good ones take effect, the bad ones are refused with file, line and reason.

use crfs_tests::victim::suffixed;
use crfs_tests::world::{
    Leftovers, Method, PATIENCE, Program, World, copy_tree, edit_line, edit_object, files_of, read_tree, run, wait_for,
};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PROCESS: &str = "0x00000001";

#[test]
fn names_limits_and_places_take_effect() {
    let world = World::new();
    let victim = Program::victim(&world, "limits", &["edited"]);
    world.start("vs1", &victim);
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.kill("vs1");
    let elsewhere = world.out().join("elsewhere");
    fs::create_dir(&elsewhere).expect("a directory");
    edit_object(&copy.join("manifest"), |manifest| manifest["container"]["hostname"] = json!("renamed"));
    edit_object(&copy.join(PROCESS).join("process"), |process| {
        process["umask"] = json!("0077");
        process["cwd"] = json!(elsewhere.to_str());
        process["limits"]["RLIMIT_NOFILE"]["soft"] = json!(150);
    });
    world.restore(&copy, "vs1", Method::Cp);
    world.thaw("vs1");
    let state = || fs::read_to_string(suffixed(&victim.path, "state")).unwrap_or_default();
    let expected = [
        "umask=077".to_owned(),
        "nofile=150/300".to_owned(),
        format!("cwd={}", elsewhere.display()),
        "hostname=renamed".to_owned(),
    ];
    let so = wait_for(Duration::from_secs(10), || expected.iter().all(|word| state().contains(word)));
    assert!(so, "{expected:?} is not in {:?}", state());
    victim.passes();
    let made = fs::read_to_string(suffixed(&victim.path, "made")).expect("what it made");
    assert_eq!(made, format!("{}:600", elsewhere.join("here").display()));
}

/// Lines of `cgroups` of a container with two cgroups inside.
fn with_cgroups(copy: &Path, edit: impl FnOnce(&mut Vec<Value>)) {
    let path = copy.join("cgroups");
    let text = fs::read_to_string(&path).expect("the cgroups of a copy");
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    let end = lines.pop().expect("the line that ends it");
    edit(&mut lines);
    lines.push(end);
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    fs::write(path, lines.join("\n") + "\n").expect("writing it");
}

/// Limits and places of cgroups are those of the edited copy; what this host has no controller for is told, and what it refuses is
/// refused with its line.
#[test]
fn cgroups_are_as_the_copy_says() {
    let world = World::new();
    let victim = Program::victim(&world, "tree", &["2"]);
    world.start("vs1", &victim);
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.remove("vs1");
    let setting = |file: &str, value: &str| json!({"file": file, "value": value});
    with_cgroups(&copy, |lines| {
        let mut inside = lines[0].clone();
        inside["path"] = json!("inside");
        inside["processes"] = json!([2]);
        inside["settings"] = json!([setting("cgroup.max.depth", "nonsense"), setting("nonesuch.max", "7")]);
        lines[0]["settings"] = json!([setting("cgroup.max.descendants", "1")]);
        lines.push(inside);
    });
    let before = Leftovers::of(&world);
    assert!(!world.copy_in(&copy, "vs1", Method::Cp).success(), "a limit that is none was accepted");
    world.status_says("vs1", &["cgroups: line 2: inside", "cgroup.max.depth: writing", "nonsense"]);
    run(Command::new("rm").arg("-r").arg(world.tree("vs1")), PATIENCE).expect_success();
    before.expect_again(&world);
    with_cgroups(&copy, |lines| lines[1]["settings"][0]["value"] = json!("3"));
    world.restore(&copy, "vs1", Method::Cp);
    world.status_says("vs1", &["cgroups: line 2: inside: nonesuch.max is lost"]);
    world.thaw("vs1");
    let cgroup = world.cgroup("vs1");
    let read = |file: &str| fs::read_to_string(cgroup.join(file)).expect("a file of the cgroup");
    assert_eq!([read("cgroup.max.descendants"), read("inside/cgroup.max.depth")], ["1\n", "3\n"]);
    assert_eq!(read("inside/cgroup.procs").lines().count(), 1);
    assert!(fs::create_dir(cgroup.join("another")).is_err(), "there are more cgroups than the limit allows");
    victim.goes_on(2);
    victim.passes();
}

/// What this machine's root may not do is told, and the container comes back.
#[test]
fn what_cannot_be_set_is_told() {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let world = World::new();
    let victim = Program::victim(&world, "data", &["1"]);
    world.start("vs1", &victim);
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.kill("vs1");
    edit_object(&copy.join(PROCESS).join("0x00000001/attr"), |attr| attr["controls"]["io_flusher"] = json!(true));
    world.restore(&copy, "vs1", Method::Cp);
    let status = fs::read_to_string("/proc/self/status").expect("our own status");
    let own = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
    let own = own.and_then(|mask| u64::from_str_radix(mask, 16).ok()).expect("our capabilities");
    if own & CAP_SYS_RESOURCE == 0 {
        world.status_says("vs1", &["io_flusher could not be set"]);
    }
    world.thaw("vs1");
    victim.goes_on(2);
    victim.passes();
}

/// Policies of nodes that this machine lacks: what is left of them holds.
#[test]
fn nodes_that_a_host_lacks_are_told() {
    let world = World::new();
    let victim = Program::victim(&world, "data", &["1"]);
    world.start("vs1", &victim);
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.kill("vs1");
    let lines = r#"{"of":{"thread":1},"mode":"bind","flags":[],"nodes":[0,1023],"home_node":null}"#;
    fs::write(copy.join(PROCESS).join("numa"), format!("{lines}\n{{\"end\":true}}\n")).expect("writing policies");
    world.restore(&copy, "vs1", Method::Cp);
    world.status_says("vs1", &["numa: line 1: names nodes that this host does not have; the others are kept"]);
    world.thaw("vs1");
    victim.goes_on(2);
    world.freeze("vs1");
    let policies = read_tree(&world.tree("vs1")).remove(&Path::new(PROCESS).join("numa")).expect("numa");
    assert_eq!(String::from_utf8_lossy(&policies), lines.replace(",1023", "") + "\n{\"end\":true}\n");
    world.thaw("vs1");
    victim.passes();
}

/// A file that changed is refused, unless its record is edited to say what takes its place.
#[test]
fn a_file_that_changed_is_replaced_by_what_was_saved() {
    let world = World::new();
    let victim = Program::victim(&world, "files", &[]);
    world.start("vs1", &victim);
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.remove("vs1");
    let data = suffixed(&victim.path, "data");
    let saved = suffixed(&victim.path, "saved");
    fs::copy(&data, &saved).expect("saving it");
    fs::write(&data, "another content").expect("changing it");
    assert!(!world.copy_in(&copy, "vs2", Method::Cp).success(), "a file that has shrunk was accepted");
    world.status_says("vs2", &["has shrunk"]);
    run(Command::new("rm").arg("-r").arg(world.tree("vs2")), PATIENCE).expect_success();
    for (entry, text) in read_tree(&copy.join("files")) {
        let record: Value = serde_json::from_slice(&text).unwrap_or_default();
        if record["kind"]["regular"]["path"].as_str() == data.to_str() {
            edit_object(&copy.join("files").join(entry), |file| {
                file["kind"]["regular"]["if_changed"] = json!({"replace": {"from": saved.to_str()}});
            });
        }
    }
    // As a restore leaves it that was killed while it wrote this.
    let half = data.with_file_name(format!("{}.crfs-new", data.file_name().unwrap_or_default().to_string_lossy()));
    fs::write(&half, "half").expect("a leftover");
    world.restore(&copy, "vs2", Method::Cp);
    world.status_says("vs2", &["was modified since the checkpoint, and replaced by"]);
    assert!(!half.exists());
    world.thaw("vs2");
    victim.goes_on(2);
    victim.passes();
}

/// An edit that must be refused: which file, how it is changed, what the reason says.
struct Broken {
    what: &'static str,
    file: PathBuf,
    edit: Box<dyn Fn(&Path)>,
    says: Vec<&'static str>,
}

fn broken(
    what: &'static str,
    file: impl Into<PathBuf>,
    edit: impl Fn(&Path) + 'static,
    says: &[&'static str],
) -> Broken {
    Broken { what, file: file.into(), edit: Box::new(edit), says: says.to_vec() }
}

fn object(edit: impl Fn(&mut Value) + 'static) -> impl Fn(&Path) + 'static {
    move |path| edit_object(path, &edit)
}

fn cut_last_line(path: &Path) {
    let text = fs::read_to_string(path).expect("a text file");
    let end = text.trim_end().rfind('\n').map_or(0, |at| at + 1);
    fs::write(path, &text[..end]).expect("writing it");
}

fn flip_a_byte(path: &Path) {
    let mut bytes = fs::read(path).expect("page contents");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("writing them");
}

fn broken_edits() -> Vec<Broken> {
    let process = |name: &str| Path::new(PROCESS).join(name);
    let thread = |name: &str| Path::new(PROCESS).join(PROCESS).join(name);
    vec![
        broken("format", "manifest", object(|m| m["format"] = json!(99)), &["manifest", "format 99"]),
        broken("architecture", "manifest", object(|m| m["architecture"] = json!("riscv64")), &["manifest", "riscv64"]),
        broken("page size", "manifest", object(|m| m["page_size"] = json!(16384)), &["manifest", "16384"]),
        broken(
            "CPU feature",
            "manifest",
            object(|m| m["cpu"]["flags"].as_array_mut().expect("a list").push(json!("nonesuch_isa"))),
            &["nonesuch_isa"],
        ),
        broken("vDSO", "manifest", object(|m| m["kernel"]["vdso"] = json!("0x1234")), &["vDSO"]),
        broken("parent", "manifest", object(|m| m["parent"] = json!("earlier")), &["parent"]),
        broken(
            "umask",
            process("process"),
            object(|p| p["umask"] = json!("abc")),
            &["0x00000001/process", "line", "abc"],
        ),
        broken(
            "unknown field",
            process("process"),
            object(|p| p["colour"] = json!(1)),
            &["0x00000001/process", "colour"],
        ),
        broken("another pid", process("process"), object(|p| p["pid"] = json!(77)), &["0x00000001/process", "77"]),
        broken(
            "a parent that is not there",
            process("process"),
            object(|p| p["parent"] = json!(78)),
            &["no process 78"],
        ),
        broken("its own parent", process("process"), object(|p| p["parent"] = json!(1)), &["its own ancestor"]),
        broken(
            "a thread that is not there",
            process("thread.list"),
            |path| {
                let text = fs::read_to_string(path).expect("a list of threads");
                fs::write(path, text.replace("{\"end\"", "{\"tid\":99}\n{\"end\"")).expect("writing it");
            },
            &["0x00000063"],
        ),
        broken("arguments", process("process"), object(|p| p["arguments"][0] = json!("x")), &["argument"]),
        broken("environment", process("process"), object(|p| p["environment"] = json!(["A=B"])), &["environment"]),
        broken("cwd", process("process"), object(|p| p["cwd"] = json!("/nonexistent/place")), &["/nonexistent/place"]),
        broken("fds", process("fds"), |path| edit_line(path, 2, "{\"fd\":1,"), &["0x00000001/fds", "line 2"]),
        broken(
            "a policy without nodes",
            process("numa"),
            |path| {
                let line = r#"{"of":{"thread":1},"mode":"bind","flags":[],"nodes":[],"home_node":null}"#;
                fs::write(path, format!("{line}\n{{\"end\":true}}\n")).expect("writing it");
            },
            &["0x00000001/numa", "line 1: nodes: none is left"],
        ),
        broken("cut fds", process("fds"), cut_last_line, &["0x00000001/fds", "line"]),
        broken("cut segments", process("mem.segments"), cut_last_line, &["0x00000001/mem.segments", "line"]),
        broken("pages", process("mem.pages"), flip_a_byte, &["0x00000001/mem.pages"]),
        broken("signal", thread("signal"), object(|s| s["blocked"] = json!(["SIGNONE"])), &["signal", "SIGNONE"]),
        broken(
            "registers",
            thread("thread.frame"),
            object(|f| f["registers"]["cs"] = json!("0x10")),
            &["thread.frame"],
        ),
    ]
}

#[test]
fn broken_edits_are_refused_and_leave_nothing() {
    let world = World::new();
    let victim = Program::victim(&world, "data", &["4"]);
    world.start("vs1", &victim);
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.remove("vs1");
    let before = Leftovers::of(&world);
    for case in broken_edits() {
        eprintln!("case: {}", case.what);
        let edited = world.place("vs2");
        copy_tree(&copy, &edited, Method::Cp).expect_success();
        (case.edit)(&edited.join(&case.file));
        let outcome = world.copy_in(&edited, "vs2", Method::Cp);
        let state = world.state("vs2");
        // A file that looks cut is not complete: the container waits for the rest of it, and says so.
        let refused = !outcome.success() && state == "failed" || state == "incoming";
        assert!(refused, "{}: {state}, {outcome}", case.what);
        world.status_says("vs2", &case.says);
        assert!(!victim.path.with_extension("new").exists());
        run(Command::new("rm").arg("-r").arg(world.tree("vs2")), PATIENCE).expect_success();
        before.expect_again(&world);
        victim.stands_still();
    }
    // The copy itself is still good.
    world.restore(&copy, "vs2", Method::Cp);
    world.thaw("vs2");
    victim.goes_on(2);
    victim.passes();
}

#[test]
fn a_missing_file_keeps_it_incoming() {
    let world = World::new();
    let victim = Program::victim(&world, "data", &["2"]);
    world.start("vs1", &victim);
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.remove("vs1");
    let missing = Path::new(PROCESS).join("signal.action");
    let kept = fs::read(copy.join(&missing)).expect("a file of the copy");
    fs::remove_file(copy.join(&missing)).expect("removing it from the copy");
    world.copy_in(&copy, "vs2", Method::Cp).expect_success();
    assert_eq!(world.state("vs2"), "incoming");
    world.status_says("vs2", &["0x00000001/signal.action"]);
    world.crctl(["thaw", "vs2"]).expect_refusal(&["incoming"]);
    fs::write(world.tree("vs2").join(&missing), kept).expect("bringing the missing file");
    assert_eq!(world.state("vs2"), "frozen");
    world.thaw("vs2");
    victim.goes_on(2);
    victim.passes();
}

#[test]
fn a_corrected_file_tries_again() {
    let world = World::new();
    let victim = Program::victim(&world, "data", &["2"]);
    world.start("vs1", &victim);
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.remove("vs1");
    let process = Path::new(PROCESS).join("process");
    let good = fs::read(copy.join(&process)).expect("a file of the copy");
    edit_object(&copy.join(&process), |process| process["cwd"] = json!("/nonexistent"));
    assert!(!world.copy_in(&copy, "vs2", Method::Cp).success(), "a bad directory was accepted");
    assert_eq!(world.state("vs2"), "failed");
    assert!(!files_of(&world.tree("vs2")).is_empty(), "what was staged is kept");
    fs::write(world.tree("vs2").join(&process), good).expect("the correction is accepted, and builds");
    assert_eq!(world.state("vs2"), "frozen");
    world.thaw("vs2");
    victim.goes_on(2);
    victim.passes();
}

#[test]
fn names_no_image_has_are_refused() {
    let world = World::new();
    fs::create_dir(world.tree("vs2")).expect("a new container");
    for name in ["nonsense", "0x1", "manifest.old", "files.old", "0x0000000G"] {
        let made = fs::write(world.tree("vs2").join(name), "x");
        assert!(made.is_err(), "{name} was accepted");
    }
    run(Command::new("rm").arg("-r").arg(world.tree("vs2")), PATIENCE).expect_success();
}
