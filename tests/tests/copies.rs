//! Copying out and in: by which tool, in which order, how often, under which name.

use crfs_tests::world::{Leftovers, Method, PATIENCE, Program, World, copy_tree, files_of, read_tree, run, wait_for};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A frozen container that holds a little memory.
fn frozen() -> (World, Program) {
    let world = World::new();
    let victim = Program::victim(&world, "data", &["8"]);
    world.start("vs1", &victim);
    world.freeze("vs1");
    (world, victim)
}

fn there_and_back(method: Method) {
    let (world, victim) = frozen();
    let copy = world.copy_out("vs1", method);
    world.kill("vs1");
    world.restore(&copy, "vs1", method);
    world.thaw("vs1");
    victim.goes_on(3);
    // And under a name that no directory stands for yet.
    world.remove("vs1");
    world.restore(&copy, "vs2", method);
    world.thaw("vs2");
    victim.goes_on(3);
    victim.passes();
}

#[test]
fn cp() {
    there_and_back(Method::Cp);
}

#[test]
fn cp_archive() {
    there_and_back(Method::CpArchive);
}

#[test]
fn tar() {
    there_and_back(Method::Tar);
}

#[test]
fn rsync() {
    there_and_back(Method::Rsync);
}

#[test]
fn copies_of_one_freeze_are_identical() {
    let (world, _victim) = frozen();
    let first = world.copy_out("vs1", Method::Cp);
    for method in [Method::Cp, Method::CpArchive, Method::Tar, Method::Rsync] {
        let second = world.copy_out("vs1", method);
        let diff = run(Command::new("diff").arg("-r").arg(&first).arg(&second), PATIENCE);
        assert!(diff.success() && diff.stdout.is_empty(), "{method:?}: {diff}");
    }
    let mount = run(Command::new("diff").arg("-r").arg(&first).arg(world.tree("vs1")), PATIENCE);
    assert!(mount.success(), "{mount}");
}

/// Whatever a reader's way of reading, it reads the same.
#[test]
fn readers_of_all_kinds_see_the_same() {
    let (world, _victim) = frozen();
    let copy = world.copy_out("vs1", Method::Cp);
    for file in ["0x00000001/mem.pages", "0x00000001/mem.sums", "manifest"] {
        let expected = fs::read(copy.join(file)).expect("the copy");
        for block in ["777", "10240", "65536", "3145728"] {
            let dd = world.dir().join("dd");
            let from = format!("if={}", world.tree("vs1").join(file).display());
            let to = format!("of={}", dd.display());
            run(Command::new("dd").args([from, to, format!("bs={block}")]), PATIENCE).expect_success();
            assert!(fs::read(&dd).expect("what dd wrote") == expected, "{file} in blocks of {block}");
        }
    }
}

#[test]
fn attributes_are_exact_and_private() {
    let (world, _victim) = frozen();
    let tree = world.tree("vs1");
    let look = || -> Vec<_> {
        let of = |file: &Path| fs::symlink_metadata(tree.join(file)).expect("attributes");
        files_of(&tree).iter().map(|file| (file.clone(), of(file).ino(), of(file).len(), of(file).mtime())).collect()
    };
    let first = look();
    let inodes: std::collections::BTreeSet<u64> = first.iter().map(|entry| entry.1).collect();
    assert_eq!(inodes.len(), first.len(), "an inode number stands for two files");
    for (file, ..) in &first {
        let mode = fs::metadata(tree.join(file)).expect("attributes").mode() & 0o7777;
        assert_eq!(mode, 0o600, "{}", file.display());
    }
    assert_eq!(fs::metadata(&tree).expect("attributes").mode() & 0o7777, 0o700);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(look(), first, "attributes changed while frozen");
}

/// An address as the tree writes it.
fn address(value: &Value) -> u64 {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x")).expect("an address");
    u64::from_str_radix(digits, 16).expect("hex digits")
}

/// Where in memory a byte of `mem.pages` belongs.
fn address_of(segments: &[Value], at: u64) -> u64 {
    let ranges = segments.iter().filter_map(|segment| segment["pages"].as_array()).flatten();
    let mut own = ranges.filter_map(|range| Some((range, range["source"]["own"].as_u64()?)));
    let (range, first) = own
        .find(|(range, first)| (*first..first + range["count"].as_u64().expect("a count")).contains(&(at / 4096)))
        .expect("a range for every page");
    address(&range["start"]) + at - first * 4096
}

/// The tree of what was just restored is the copy it came from. The one thing that may differ is what the kernel itself writes into
/// the memory of a task that is stopped: the CPU number in its rseq area, and with it the checksum of that chunk.
#[test]
fn what_was_restored_reads_as_the_copy() {
    let world = World::new();
    // Spinning: into a sleep that is entered anew, the kernel writes the time that remains.
    let victim = Program::victim(&world, "avx", &[]);
    world.start("vs1", &victim);
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.remove("vs1");
    world.restore(&copy, "vs1", Method::Cp);
    let (restored, original) = (read_tree(&world.tree("vs1")), read_tree(&copy));
    assert_eq!(restored.keys().collect::<Vec<_>>(), original.keys().collect::<Vec<_>>());
    let (pages, sums) = (Path::new("0x00000001/mem.pages"), Path::new("0x00000001/mem.sums"));
    for (file, content) in original.iter().filter(|(file, _)| *file != pages && *file != sums) {
        assert!(restored[file] == *content, "{} is another", file.display());
    }
    let lines = |file: &str| -> Vec<Value> {
        let text = fs::read_to_string(copy.join(file)).expect("a text file");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let segments = lines("0x00000001/mem.segments");
    let attr: Value = serde_json::from_slice(&original[Path::new("0x00000001/0x00000001/attr")]).expect("JSON");
    let rseq = address(&attr["rseq"]["address"])..address(&attr["rseq"]["address"]) + 32;
    assert_eq!(restored[pages].len(), original[pages].len());
    for (at, _) in (0u64..).zip(restored[pages].iter().zip(&original[pages])).filter(|(_, (new, old))| new != old) {
        let address = address_of(&segments, at);
        assert!(rseq.contains(&address), "the byte at {address:#x} is another");
    }
}

#[test]
fn often_from_one_copy() {
    let (world, victim) = frozen();
    let copy = world.copy_out("vs1", Method::Cp);
    let before = read_tree(&copy);
    world.remove("vs1");
    // Three of them at once, one after the other awake.
    for name in ["a", "b", "c"] {
        world.restore(&copy, name, Method::Cp);
    }
    for name in ["a", "b", "c"] {
        victim.stands_still();
        world.thaw(name);
        victim.goes_on(2);
        if name == "c" {
            victim.passes();
        } else {
            world.remove(name);
        }
    }
    assert!(read_tree(&copy) == before, "restoring changed the copy");
}

/// Files in an order nobody would choose, the manifest last; then first.
#[test]
fn any_order_of_files() {
    let (world, victim) = frozen();
    let copy = world.copy_out("vs1", Method::Cp);
    world.remove("vs1");
    let mut files = files_of(&copy);
    files.sort_by_key(|file| file.to_string_lossy().bytes().rev().collect::<Vec<u8>>());
    for manifest_first in [false, true] {
        files.sort_by_key(|file| (file.as_os_str() == "manifest") != manifest_first);
        let name = if manifest_first { "first" } else { "last" };
        fs::create_dir(world.tree(name)).expect("creating the container's directory");
        for (number, file) in files.iter().enumerate() {
            assert_eq!(world.state(name), "incoming", "after {number} of {} files", files.len());
            let to = world.tree(name).join(file);
            fs::create_dir_all(to.parent().expect("a parent")).expect("creating directories");
            // In two pieces, with a flush between: not complete because a file was closed once.
            let content = fs::read(copy.join(file)).expect("reading the copy");
            let (head, tail) = content.split_at(content.len() / 2);
            fs::write(&to, head).expect("writing the first half");
            let mut rest = fs::OpenOptions::new().append(true).open(&to).expect("opening it again");
            rest.write_all(tail).expect("writing the second half");
        }
        assert_eq!(world.state(name), "frozen");
        world.thaw(name);
        victim.goes_on(2);
        world.remove(name);
    }
}

/// ^C in the middle of a copy in, then resumed by rsync; and another one removed.
#[test]
fn interrupted_then_resumed_then_removed() {
    let (world, victim) = frozen();
    let copy = world.copy_out("vs1", Method::Cp);
    world.remove("vs1");
    let before = Leftovers::of(&world);
    let files = files_of(&copy);
    let interrupted = |name: &str| {
        // What cp leaves behind when it is interrupted: whole files, then half of one.
        fs::create_dir(world.tree(name)).expect("creating the container's directory");
        for (number, file) in files.iter().take(6).enumerate() {
            let to = world.tree(name).join(file);
            fs::create_dir_all(to.parent().expect("a parent")).expect("creating directories");
            let content = fs::read(copy.join(file)).expect("reading the copy");
            let end = if number == 5 { content.len() / 2 } else { content.len() };
            fs::write(&to, &content[..end]).expect("writing it");
        }
        assert_eq!(world.state(name), "incoming");
    };
    interrupted("thrown");
    run(Command::new("rm").arg("-r").arg(world.tree("thrown")), PATIENCE).expect_success();
    assert!(!world.tree("thrown").exists());
    before.expect_again(&world);
    interrupted("resumed");
    world.restore(&copy, "resumed", Method::Rsync);
    world.thaw("resumed");
    victim.goes_on(3);
    victim.passes();
}

/// A log that has grown since is what a log is for; the container goes on at its end.
#[test]
fn a_file_that_grew_is_accepted_and_told() {
    let world = World::new();
    let files = Program::victim(&world, "files", &[]);
    world.start("vs1", &files);
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.kill("vs1");
    let appended = crfs_tests::victim::suffixed(&files.path, "log");
    fs::OpenOptions::new().append(true).open(&appended).expect("the log").write_all(b"more\n").expect("growing it");
    world.restore(&copy, "vs1", Method::Cp);
    world.status_says("vs1", &[&appended.to_string_lossy()]);
    world.thaw("vs1");
    files.goes_on(2);
    let mut text = String::new();
    fs::File::open(&appended).expect("the log").read_to_string(&mut text).expect("reading it");
    assert!(text.contains("more\nline "), "the container appends behind what came in between: {text}");
}

#[test]
fn a_file_that_shrank_or_vanished_is_refused() {
    let world = World::new();
    let files = Program::victim(&world, "files", &[]);
    world.start("vs1", &files);
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.remove("vs1");
    let before = Leftovers::of(&world);
    let data = crfs_tests::victim::suffixed(&files.path, "data");
    let content = fs::read(&data).expect("the data");
    fs::write(&data, &content[..1000]).expect("cutting it");
    assert!(!world.copy_in(&copy, "short", Method::Cp).success(), "a file that shrank was accepted");
    world.status_says("short", &[&data.to_string_lossy()]);
    fs::remove_file(&data).expect("removing it");
    assert!(!world.copy_in(&copy, "gone", Method::Cp).success(), "a file that vanished was accepted");
    world.status_says("gone", &[&data.to_string_lossy()]);
    for name in ["short", "gone"] {
        run(Command::new("rm").arg("-r").arg(world.tree(name)), PATIENCE).expect_success();
    }
    before.expect_again(&world);
}

/// Two copies into one name at once: one container at most, and no mixture.
#[test]
fn two_copies_into_one_name() {
    let (world, victim) = frozen();
    let copy = world.copy_out("vs1", Method::Cp);
    world.remove("vs1");
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let copy_once = || copy_tree(&copy, &world.tree("vs2"), Method::Rsync);
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(copy_once)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
    });
    let settled = wait_for(PATIENCE, || !["building"].contains(&world.state("vs2").as_str()));
    assert!(settled, "still building");
    if outcomes.iter().any(crfs_tests::world::Outcome::success) {
        assert_eq!(world.state("vs2"), "frozen", "{outcomes:?}");
        world.thaw("vs2");
        victim.goes_on(2);
        victim.passes();
    } else {
        // Both were refused: then the name must be free to be thrown away.
        run(Command::new("rm").arg("-r").arg(world.tree("vs2")), PATIENCE).expect_success();
    }
}
