//! The ways past the mount: `crctl checkpoint` and `restore`, `pack` and `unpack`, and what looks at a checkpoint: `verify`, `inspect`,
//! `diff`.

use crfs_tests::world::{
    Method, PATIENCE, Program, SmallDisk, World, copy_tree, edit_object, read_tree, run, wait_for,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A running container that holds a little memory.
fn running() -> (World, Program) {
    let world = World::new();
    let victim = Program::victim(&world, "data", &["24"]);
    world.start("vs1", &victim);
    (world, victim)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of this test")
}

/// `crctl checkpoint` of a container, which must succeed.
fn checkpoint(world: &World, name: &str, options: &[&str]) -> PathBuf {
    let place = world.place(name);
    let arguments: Vec<&str> = ["checkpoint", name, text(&place)].iter().chain(options).copied().collect();
    let taken = json(world, &arguments);
    let stored: usize = read_tree(&place).values().map(Vec::len).sum();
    assert_eq!(taken["stored"], stored);
    assert_eq!(taken["stored"] == taken["bytes"], !options.contains(&"--compress"), "{taken}");
    place
}

fn json(world: &World, arguments: &[&str]) -> Value {
    let outcome = world.crctl(arguments.iter().chain(&["--json"]));
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
}

#[test]
fn a_checkpoint_is_what_cp_makes_and_comes_back() {
    let (world, victim) = running();
    world.freeze("vs1");
    let by_cp = world.copy_out("vs1", Method::Cp);
    let direct = checkpoint(&world, "vs1", &[]);
    assert_eq!(read_tree(&direct), read_tree(&by_cp));
    assert_eq!(world.state("vs1"), "frozen", "it was frozen before, and is");
    let again = world.crctl(["checkpoint", "vs1", text(&direct)]);
    // Made inside the directory, as cp would.
    again.expect_success();
    assert_eq!(read_tree(&direct.join("vs1")), read_tree(&by_cp));
    fs::remove_dir_all(direct.join("vs1")).unwrap();

    world.kill("vs1");
    world.crctl(["restore", text(&direct)]).expect_success();
    assert_eq!(world.state("vs1"), "frozen");
    // The copy may go: nothing of the container lies in it.
    fs::remove_dir_all(&direct).unwrap();
    world.thaw("vs1");
    victim.goes_on(3);
    victim.passes();
}

#[test]
fn a_thousand_processes_come_back() {
    let world = World::new();
    let victim = Program::victim(&world, "processes", &["999", "1"]);
    world.start("vs1", &victim);
    let direct = checkpoint(&world, "vs1", &[]);
    world.kill("vs1");
    world.crctl(["restore", text(&direct), "--run"]).expect_success();
    victim.goes_on(3);
    victim.passes();
}

/// What waits in sockets, pipes and queues, and files without a name, lies in files of the checkpoint, which is not staged.
#[test]
fn what_lies_in_files_of_its_own_comes_back() {
    for (kind, file) in [
        ("unix_socket", ".queue"),
        ("inet_socket", ".queue"),
        ("pipe", "pipe."),
        ("unnamed", "unnamed."),
        ("sysv_msg", "sysv.msg."),
        ("mqueue", "posix.mq."),
    ] {
        let world = World::new();
        let victim = Program::victim(&world, kind, &[]);
        world.start("vs1", &victim);
        world.freeze("vs1");
        let copy = checkpoint(&world, "vs1", &[]);
        let there = read_tree(&copy).into_keys().any(|path| path.to_string_lossy().contains(file));
        assert!(there, "{kind}: no {file} in the checkpoint");
        world.kill("vs1");
        world.crctl(["restore", text(&copy)]).expect_success();
        world.thaw("vs1");
        victim.goes_on(3);
        victim.passes();
    }
}

#[test]
fn a_running_container_runs_on_and_its_twin_beside_it() {
    let (world, victim) = running();
    let copy = checkpoint(&world, "vs1", &["--sync"]);
    assert_eq!(world.state("vs1"), "running");
    victim.goes_on(3);
    world.kill("vs1");
    world.crctl(["restore", text(&copy), "--name", "vs2", "--run"]).expect_success();
    assert_eq!(world.state("vs2"), "running");
    victim.goes_on(3);
    let kept = checkpoint(&world, "vs2", &["--leave-frozen"]);
    assert_eq!(world.state("vs2"), "frozen");
    world.crctl(["restore", text(&kept), "--name", "vs2"]).expect_refusal(&["it is frozen"]);
    world.thaw("vs2");
    victim.passes();
}

#[test]
fn progress_is_told_to_programs() {
    let (world, _victim) = running();
    let place = world.place("vs1");
    let outcome = world.crctl(["checkpoint", "vs1", text(&place), "--progress", "json"]).expect_success();
    let last: Value = serde_json::from_str(outcome.stderr.lines().last().unwrap_or_default()).unwrap();
    let total: u64 = read_tree(&place).values().map(|content| content.len() as u64).sum();
    assert_eq!((last["done"].as_u64(), last["total"].as_u64()), (Some(total), Some(total)), "{outcome}");
}

#[test]
fn a_disk_that_is_full_leaves_nothing_and_the_container_runs_on() {
    let (world, victim) = running();
    let disk = SmallDisk::new(world.dir().join("small"), "2m");
    let outcome = world.crctl(["checkpoint", "vs1", text(&disk.path().join("copy"))]);
    let left: Vec<_> = fs::read_dir(disk.path()).unwrap().collect();
    assert_eq!(outcome.code(), Some(12), "{outcome}");
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(world.state("vs1"), "running");
    victim.goes_on(3);
}

#[test]
fn interrupted_it_leaves_nothing_and_the_container_runs_on() {
    let world = World::new();
    let victim = Program::victim(&world, "data", &["400"]);
    world.start("vs1", &victim);
    let place = world.place("vs1");
    let crctl = world.command(crfs_tests::world::binary("crctl")).args(["checkpoint", "vs1", text(&place)]).spawn();
    let mut crctl = crctl.unwrap();
    let parent = place.parent().unwrap();
    let begun = wait_for(Duration::from_secs(20), || fs::read_dir(parent).unwrap().count() > 0);
    let pid = nix::unistd::Pid::from_raw(crctl.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let status = crctl.wait().unwrap();
    assert!(begun, "the copy never began");
    assert_eq!(status.code(), Some(130));
    assert_eq!(fs::read_dir(parent).unwrap().count(), 0);
    assert_eq!(world.state("vs1"), "running");
    victim.goes_on(3);
}

#[test]
fn a_stream_through_a_pipe_is_the_same_checkpoint() {
    let (world, victim) = running();
    let copy = checkpoint(&world, "vs1", &["--leave-frozen"]);
    let (crctl, unpacked) = (crfs_tests::world::binary("crctl"), world.place("vs1"));
    let script = r#"set -o pipefail; "$0" pack "$1" | gzip | gzip -d | "$0" unpack "$2""#;
    let pipe =
        |from: &str, to: &Path| run(world.command("bash").args(["-c", script]).arg(&crctl).arg(from).arg(to), PATIENCE);
    pipe(text(&copy), &unpacked).expect_success();
    assert_eq!(read_tree(&unpacked), read_tree(&copy));
    // From a frozen container too, without a copy.
    let direct = world.place("vs1");
    pipe("vs1", &direct).expect_success();
    assert_eq!(read_tree(&direct), read_tree(&copy));
    pipe(text(&copy), &unpacked).expect_refusal(&["exists already"]);
    world.kill("vs1");
    world.crctl(["restore", text(&unpacked), "--run"]).expect_success();
    victim.goes_on(3);
    victim.passes();
}

#[test]
fn a_flipped_bit_is_found_and_named() {
    let (world, _victim) = running();
    let copy = checkpoint(&world, "vs1", &["--leave-frozen"]);
    world.crctl(["verify", text(&copy)]).expect_success();
    let pages = copy.join("0x00000001/mem.pages");
    let file = fs::OpenOptions::new().read(true).write(true).open(&pages).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, (5 << 20) + 77).unwrap();
    file.write_all_at(&[byte[0] ^ 4], (5 << 20) + 77).unwrap();
    let words = ["0x00000001/mem.pages: chunk 5 (memory from 0x", "line 6 of 0x00000001/mem.sums"];
    let outcome = world.crctl(["verify", text(&copy)]).expect_refusal(&words);
    assert_eq!(outcome.code(), Some(9));
    world.kill("vs1");
    // And nothing of it is restored: no new name, and one that exists keeps its state.
    world.crctl(["restore", text(&copy)]).expect_refusal(&["chunk 5"]);
    assert_eq!(world.state("vs1"), "exited");
    assert_eq!(world.crctl(["restore", text(&copy), "--name", "vs2"]).code(), Some(9));
    assert_eq!(world.crctl(["status", "vs2"]).code(), Some(4), "nothing is left of it");
}

/// Victims, and files of theirs that are neither records nor page contents.
const CONTENTS: [(&str, &str); 4] =
    [("sysv_shm", "sysv.shm."), ("unnamed", "files/unnamed."), ("memfd", "files/unnamed."), ("mounts", ".data")];

/// The largest file of such a name in a checkpoint.
fn content_of(copy: &Path, name: &str) -> String {
    let files = read_tree(copy).into_iter().map(|(path, content)| (content.len(), text(&path).to_owned()));
    let largest = files.filter(|(size, path)| *size > 0 && path.contains(name)).max();
    largest.unwrap_or_else(|| panic!("no {name} in the checkpoint")).1
}

/// `crctl verify` finds no damage. What is opened in the container's own mounts it does not find.
fn is_sound(world: &World, copy: &Path) {
    let outcome = world.crctl(["verify", text(copy)]);
    assert!(outcome.success() || outcome.code() == Some(10), "{outcome}");
}

/// Neither verified nor restored, with these words, and nothing is left.
fn refused(world: &World, copy: &Path, words: &[&str]) {
    for arguments in [vec!["verify", text(copy)], vec!["restore", text(copy), "--name", "vs2"]] {
        let outcome = world.crctl(&arguments).expect_refusal(words);
        assert_eq!(outcome.code(), Some(9), "{arguments:?}: {outcome}");
    }
    assert_eq!(world.crctl(["status", "vs2"]).code(), Some(4), "nothing is left of it");
}

#[test]
fn a_flipped_bit_in_contents_is_found_and_named() {
    for (kind, name) in CONTENTS {
        let world = World::new();
        let victim = Program::victim(&world, kind, &[]);
        world.start("vs1", &victim);
        let copy = checkpoint(&world, "vs1", &["--leave-frozen"]);
        is_sound(&world, &copy);
        world.kill("vs1");
        let path = content_of(&copy, name);
        let file = fs::OpenOptions::new().read(true).write(true).open(copy.join(&path)).unwrap();
        let place = file.metadata().unwrap().len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, place).unwrap();
        file.write_all_at(&[byte[0] ^ 4], place).unwrap();
        refused(&world, &copy, &[&format!("{path}: chunk {} (1 MiB)", place >> 20), "of contents.sums"]);
        file.write_all_at(&byte, place).unwrap();
        world.crctl(["restore", text(&copy), "--name", "vs2", "--run"]).expect_success();
        victim.goes_on(3);
        victim.passes();
    }
}

#[test]
fn contents_that_are_kept_compressed_come_back() {
    for (kind, name) in CONTENTS {
        let world = World::new();
        let victim = Program::victim(&world, kind, &[]);
        world.start("vs1", &victim);
        let (plain, compressed) = both(&world);
        let path = content_of(&plain, name);
        let (with, without) = (read_tree(&compressed), read_tree(&plain));
        assert!(differing(&with, &without).contains(&path.as_str()), "{kind}: {path} is not compressed");
        is_sound(&world, &compressed);
        world.crctl(["diff", text(&plain), text(&compressed)]).expect_success();
        let unpacked = world.place("vs1");
        let script = r#""$0" pack "$1" | "$0" unpack "$2""#;
        let crctl = crfs_tests::world::binary("crctl");
        let mut piped = world.command("bash");
        run(piped.args(["-c", script]).args([&crctl, &compressed, &unpacked]), PATIENCE).expect_success();
        assert_eq!(read_tree(&unpacked), without);
        world.kill("vs1");

        let file = fs::OpenOptions::new().read(true).write(true).open(compressed.join(&path)).unwrap();
        let size = file.metadata().unwrap().len();
        // The magic number that the first frame begins with.
        let mut byte = [0];
        file.read_exact_at(&mut byte, 1).unwrap();
        file.write_all_at(&[byte[0] ^ 4], 1).unwrap();
        refused(&world, &compressed, &[&format!("{path}: chunk 0 is damaged")]);
        file.write_all_at(&byte, 1).unwrap();
        for (wrong, words) in [(size - 1, "its table of chunks"), (size + 1, "its table of chunks")] {
            file.set_len(wrong).unwrap();
            refused(&world, &compressed, &[&path, words]);
            file.set_len(size - 1).unwrap();
            file.set_len(size).unwrap();
            file.write_all_at(&[0x8f], size - 1).unwrap();
        }

        world.crctl(["restore", text(&compressed)]).expect_success();
        world.thaw("vs1");
        victim.goes_on(3);
        world.kill("vs1");
        world.restore(&compressed, "vs2", Method::CpArchive);
        let restored = read_tree(&world.copy_out("vs2", Method::Cp));
        let differ = differing(&restored, &without);
        let contents = |file: &&str| *file == "contents.sums" || CONTENTS.iter().any(|(_, name)| file.contains(name));
        assert!(!differ.iter().any(contents), "{kind}: {differ:?}");
        world.thaw("vs2");
        victim.goes_on(3);
        victim.passes();
    }
}

#[test]
fn everything_that_is_missing_is_told_at_once() {
    let world = World::new();
    let victim = Program::victim(&world, "files", &[]);
    world.start("vs1", &victim);
    let copy = checkpoint(&world, "vs1", &["--leave-frozen"]);
    let mut moved = Vec::new();
    for entry in fs::read_dir(world.out()).unwrap().flatten() {
        let place = world.dir().join("backup").join(entry.file_name());
        fs::rename(entry.path(), &place).unwrap();
        moved.push((entry.path(), place));
    }
    let outcome = world.crctl(["verify", text(&copy)]);
    assert_eq!(outcome.code(), Some(10), "{outcome}");
    assert!(outcome.stderr.matches("put it back").count() > 1, "{outcome}");
    for (from, to) in moved {
        fs::rename(to, from).unwrap();
    }
    world.crctl(["verify", text(&copy)]).expect_success();
}

/// The log, and what lies in file systems of the container's own or only a mount namespace apart shows.
#[test]
fn what_a_restore_makes_itself_is_not_missing() {
    let world = World::new();
    let script = "mount -t tmpfs t /mnt && exec 5>/mnt/file && cd /mnt && \
        unshare --mount bash -c 'mount -t tmpfs t /opt && cd /opt && exec 6>/opt/other && echo up && exec sleep 1000' & wait";
    world.crctl(["run", "vs1", "--", "bash", "-c", script]).expect_success();
    assert!(wait_for(PATIENCE, || world.crctl(["logs", "vs1"]).stdout.contains("up")));
    let copy = checkpoint(&world, "vs1", &[]);
    world.kill("vs1");
    world.crctl(["rm", "vs1"]).expect_success();
    world.crctl(["verify", text(&copy)]).expect_success();
    world.crctl(["restore", text(&copy), "--name", "vs1", "--run"]).expect_success();
}

#[test]
fn a_checkpoint_can_be_looked_into() {
    let (world, _victim) = running();
    let copy = checkpoint(&world, "vs1", &["--leave-frozen"]);
    let (of_copy, of_container) = (json(&world, &["inspect", text(&copy)]), json(&world, &["inspect", "vs1"]));
    assert_eq!(of_copy, of_container);
    assert_eq!(of_copy["name"], "vs1");
    assert_eq!(of_copy["processes"][0]["pid"], 1);
    assert!(of_copy["page_bytes"].as_u64() > Some(24 << 20), "{of_copy}");
    let log = of_copy["files"].as_array().unwrap().iter().find(|file| file["open"][0] == serde_json::json!([1, 1]));
    assert_eq!(log.unwrap()["kind"], "regular");
    let shown = world.crctl(["inspect", text(&copy)]).expect_success().stdout;
    assert!(shown.contains("container   vs1") && shown.contains("/bin/data "), "{shown}");
}

#[test]
fn what_differs_is_told() {
    let (world, victim) = running();
    let monday = checkpoint(&world, "vs1", &[]);
    victim.goes_on(3);
    let tuesday = checkpoint(&world, "vs1", &["--leave-frozen"]);
    let same = world.crctl(["diff", text(&tuesday), "vs1"]).expect_success();
    assert_eq!(same.stdout, "");
    let outcome = world.crctl(["diff", text(&monday), text(&tuesday)]);
    assert_eq!(outcome.code(), Some(1), "{outcome}");
    assert!(
        outcome.stdout.contains("process 1: ") && outcome.stdout.contains(" of memory changed, from 0x"),
        "{outcome}"
    );
    // One page and a umask.
    let edited = world.place("vs1");
    copy_tree(&tuesday, &edited, Method::Cp).expect_success();
    crfs_tests::world::edit_object(&edited.join("0x00000001/process"), |process| process["umask"] = "0077".into());
    let outcome = world.crctl(["diff", text(&tuesday), text(&edited)]);
    assert_eq!(outcome.stdout.lines().count(), 1, "{outcome}");
    assert!(outcome.stdout.contains("umask was"), "{outcome}");
}

#[test]
fn bad_arguments_are_told() {
    let (world, _victim) = running();
    world.crctl(["checkpoint", "nobody", "x"]).expect_refusal(&["no such container"]);
    world.crctl(["pack", "vs1"]).expect_refusal(&["only a frozen container has a tree"]);
    world.crctl(["inspect", "/nowhere"]).expect_refusal(&["manifest: missing"]);
    world.crctl(["restore", "/nowhere/vs1"]).expect_refusal(&["/nowhere/vs1"]);
    world.crctl(["checkpoint", "vs1", "/nowhere/below/vs1"]).expect_refusal(&["/nowhere/below"]);
    assert_eq!(world.state("vs1"), "running");
}

#[test]
fn a_core_file_is_one_for_a_debugger() {
    let world = World::new();
    let victim = Program::victim(&world, "threads", &["3"]);
    world.start("vs1", &victim);
    let copy = checkpoint(&world, "vs1", &["--leave-frozen"]);
    let core = world.dir().join("core");
    world.crctl(["core", text(&copy), "1", "-o", text(&core)]).expect_success();
    world.crctl(["core", "vs1", "-o", text(&core)]).expect_refusal(&["exists already"]);
    world.crctl(["core", "vs1", "77", "-o", text(&world.dir().join("x"))]).expect_refusal(&["no process 77"]);
    let program = world.dir().join("bin/threads");
    let mut gdb = Command::new("gdb");
    gdb.args(["-batch", "-nx", "-ex", "thread apply all bt"]).arg(&program).arg(&core).env_remove("DEBUGINFOD_URLS");
    let said = run(&mut gdb, PATIENCE).expect_success();
    let threads = json(&world, &["inspect", "vs1"])["processes"][0]["threads"].as_u64().unwrap();
    assert!(threads > 3, "{threads}");
    assert_eq!(said.stdout.lines().filter(|line| line.starts_with("Thread ")).count() as u64, threads, "{said}");
    // The stacks are whole down to where the program and its threads begin.
    assert!(said.stdout.contains(" in main") && said.stdout.contains("start_thread"), "{said}");
}

#[test]
fn memory_is_shown_searched_and_written_out() {
    let (world, _victim) = running();
    let copy = checkpoint(&world, "vs1", &["--leave-frozen"]);
    let shown = json(&world, &["mem", text(&copy)]);
    assert_eq!(shown, json(&world, &["mem", "vs1", "--pid", "1"]));
    let stored: u64 = shown.as_array().unwrap().iter().map(|mapping| mapping["stored"].as_u64().unwrap()).sum();
    assert_eq!(stored, fs::metadata(copy.join("0x00000001/mem.pages")).unwrap().len());
    let name = "CRFS_RUN_DIR=";
    let found = json(&world, &["mem", "vs1", "--find", name]);
    let address = found[0]["address"].as_str().unwrap_or_else(|| panic!("{found}")).to_owned();
    let start = u64::from_str_radix(&address[2..], 16).unwrap();
    let range = format!("{start:#x}-{:#x}", start + name.len() as u64);
    assert_eq!(world.crctl(["mem", text(&copy), "--dump", &range]).expect_success().stdout, name);
    world.crctl(["mem", "vs1", "--dump", "0x10-0x20"]).expect_refusal(&["nothing is mapped at 0x10"]);
    world.crctl(["mem", "vs1", "--pid", "5"]).expect_refusal(&["no process 5"]);
}

/// Makes of a copy what a program of format 1 wrote before there were mounts and message queues.
fn age(copy: &Path) {
    let newer = ["contents.sums", "mounts", "posix.mq"];
    newer.iter().for_each(|path| fs::remove_file(copy.join(path)).expect("as it was written"));
    edit_object(&copy.join("manifest"), |manifest| {
        manifest["format"] = 1.into();
        manifest["paths"]
            .as_array_mut()
            .expect("as it was written")
            .retain(|entry| newer.iter().all(|path| entry["path"] != *path));
    });
    edit_object(&copy.join("0x00000001/process"), |process| {
        drop(process.as_object_mut().expect("as it was written").remove("shares"))
    });
}

#[test]
fn a_checkpoint_of_an_older_format_is_converted_and_comes_back() {
    let (world, victim) = running();
    let copy = checkpoint(&world, "vs1", &["--leave-frozen"]);
    let today = read_tree(&copy);
    age(&copy);
    let old = read_tree(&copy);
    world.kill("vs1");
    let told = ["format 1 is older", "crctl convert"];
    for command in ["verify", "inspect", "restore"] {
        world.crctl([command, text(&copy)]).expect_refusal(&told);
    }
    // By way of the mount it stays incoming, and says why.
    let outcome = world.copy_in(&copy, "vs2", Method::Cp);
    assert!(outcome.success() || outcome.code() == Some(1), "{outcome}");
    assert!(told.iter().all(|word| world.told("vs2").contains(word)), "{}", world.told("vs2"));
    world.must("rm", "vs2");
    // A packed stream of it is one of the older format too.
    let unpacked = world.place("vs1");
    let script = r#""$0" pack "$1" | "$0" unpack "$2""#;
    let crctl = crfs_tests::world::binary("crctl");
    run(world.command("bash").args(["-c", script]).args([&crctl, &copy, &unpacked]), PATIENCE).expect_success();
    assert_eq!(read_tree(&unpacked), old);

    let new = world.place("vs1");
    world.crctl(["convert", text(&unpacked), text(&new)]).expect_success();
    assert_eq!(read_tree(&new), today);
    assert_eq!(read_tree(&unpacked), old, "the source is as it was");
    world.crctl(["convert", text(&unpacked), text(&new)]).expect_refusal(&["exists already"]);
    world.crctl(["verify", text(&new)]).expect_success();
    world.crctl(["restore", text(&new), "--run"]).expect_success();
    victim.goes_on(3);
    victim.passes();
}

#[test]
fn what_cannot_be_converted_is_refused_and_nothing_is_left() {
    let (world, _victim) = running();
    let copy = checkpoint(&world, "vs1", &[]);
    let new = world.place("vs1");
    let refused = |words: &[&str]| {
        let outcome = world.crctl(["convert", text(&copy), text(&new)]).expect_refusal(words);
        assert_eq!(outcome.code(), Some(9), "{outcome}");
        assert_eq!(fs::read_dir(new.parent().unwrap()).unwrap().count(), 0);
    };
    refused(&["format 2 is that of this program"]);
    age(&copy);
    edit_object(&copy.join("0x00000001/process"), |process| process["parent"] = 78.into());
    refused(&["0x00000001/process", "no process 78"]);
    let pages = fs::OpenOptions::new().write(true).open(copy.join("0x00000001/mem.pages")).unwrap();
    pages.set_len(4096).unwrap();
    refused(&["0x00000001/mem.pages", "no process 78"]);
    edit_object(&copy.join("manifest"), |manifest| manifest["format"] = 99.into());
    refused(&["format 99 is not known here"]);
}

/// A freeze of a container, plain and compressed.
fn both(world: &World) -> (PathBuf, PathBuf) {
    let plain = checkpoint(world, "vs1", &["--leave-frozen"]);
    let compressed = checkpoint(world, "vs1", &["--compress", "--leave-frozen"]);
    (plain, compressed)
}

/// The files that two trees have and that are not the same in both.
fn differing<'a>(one: &'a BTreeMap<PathBuf, Vec<u8>>, other: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<&'a str> {
    assert!(one.keys().eq(other.keys()));
    one.iter().filter(|(path, content)| other.get(*path) != Some(content)).map(|(path, _)| text(path)).collect()
}

/// A container that was restored and never ran has the records it had. Of its memory, which the victim compares, the kernel writes to some
/// pages by itself (which processor a thread is on, for one).
fn has_the_records_of(restored: &Path, before: &BTreeMap<PathBuf, Vec<u8>>) {
    let restored = read_tree(restored);
    let differ = differing(&restored, before);
    assert!(differ.iter().all(|path| path.contains("/mem.pages") || path.contains("/mem.sums")), "{differ:?}");
}

#[test]
fn a_compressed_checkpoint_is_read_and_restored_as_any_other() {
    let (world, victim) = running();
    let (plain, compressed) = both(&world);
    let (with, without) = (read_tree(&compressed), read_tree(&plain));
    assert_ne!(with, without);
    assert_eq!(differing(&with, &without), ["0x00000001/mem.pages", "manifest"]);

    world.crctl(["verify", text(&compressed)]).expect_success();
    world.crctl(["diff", text(&plain), text(&compressed)]).expect_success();
    for command in ["inspect", "mem"] {
        let [one, other] = [&plain, &compressed].map(|copy| json(&world, &[command, text(copy)]));
        assert_eq!(one, other, "{command}");
    }
    let unpacked = world.place("vs1");
    let script = r#""$0" pack "$1" | "$0" unpack "$2""#;
    let crctl = crfs_tests::world::binary("crctl");
    run(world.command("bash").args(["-c", script]).args([&crctl, &compressed, &unpacked]), PATIENCE).expect_success();
    assert_eq!(read_tree(&unpacked), without);

    world.kill("vs1");
    world.crctl(["restore", text(&compressed)]).expect_success();
    has_the_records_of(&world.copy_out("vs1", Method::Cp), &without);
    world.thaw("vs1");
    victim.goes_on(3);
    world.kill("vs1");
    for (name, method) in [("vs2", Method::CpArchive), ("vs3", Method::Rsync)] {
        world.restore(&compressed, name, method);
        has_the_records_of(&world.copy_out(name, Method::Cp), &without);
        world.thaw(name);
        victim.goes_on(3);
        world.kill(name);
    }
    world.restore(&compressed, "vs4", Method::Tar);
    world.thaw("vs4");
    victim.passes();
}

#[test]
fn damage_of_a_compressed_checkpoint_is_found_and_named() {
    let (world, _victim) = running();
    let (_, copy) = both(&world);
    world.kill("vs1");
    let refused = |words: &[&str]| {
        for command in ["verify", "restore"] {
            let outcome = world.crctl([command, text(&copy)]).expect_refusal(words);
            assert_eq!(outcome.code(), Some(9), "{outcome}");
        }
    };
    let pages = fs::OpenOptions::new().read(true).write(true).open(copy.join("0x00000001/mem.pages")).unwrap();
    let size = pages.metadata().unwrap().len();
    // The magic number that the first frame begins with.
    let mut byte = [0];
    pages.read_exact_at(&mut byte, 1).unwrap();
    pages.write_all_at(&[byte[0] ^ 4], 1).unwrap();
    refused(&["0x00000001/mem.pages: chunk 0 is damaged"]);
    pages.write_all_at(&byte, 1).unwrap();
    // Of the pages themselves, or of how they are compressed: one or the other tells.
    pages.read_exact_at(&mut byte, size / 2).unwrap();
    pages.write_all_at(&[byte[0] ^ 4], size / 2).unwrap();
    refused(&["0x00000001/mem.pages: chunk "]);
    pages.write_all_at(&byte, size / 2).unwrap();

    pages.set_len(size - 1).unwrap();
    refused(&["0x00000001/mem.pages: its table of chunks is missing"]);
    pages.set_len(size).unwrap();
    pages.write_all_at(&[0x8f], size - 1).unwrap();
    world.crctl(["verify", text(&copy)]).expect_success();
    let listed = |edit: fn(&mut Value)| {
        edit_object(&copy.join("manifest"), |manifest| {
            let entries = manifest["paths"].as_array_mut().unwrap().iter_mut();
            entries.filter(|entry| entry["kind"] == "zstd").for_each(edit);
        });
    };
    listed(|entry| entry["size"] = 4096.into());
    refused(&[&format!("0x00000001/mem.pages: holds {size} bytes where the manifest says 4096")]);
    listed(|entry| entry["kind"] = "raw".into());
    refused(&["manifest: paths: \"0x00000001/mem.pages\" has 4096 bytes, but its records need"]);
}
