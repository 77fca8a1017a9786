//! Copying in: files in any order and by any program's way, and one build when the last is there.

use super::{PROCESS, Sleeper, World};
use crate::registry::State;
use crate::tree::{Changes, NodeId};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// A world with a container that takes files, and an image for it.
fn begin() -> (World, Sleeper, BTreeMap<String, Vec<u8>>) {
    let (world, sleeper) = (World::new(), Sleeper::start());
    world.make_directory("vs1").unwrap();
    for directory in ["files", PROCESS, &format!("{PROCESS}/{PROCESS}")] {
        world.make_directory(&format!("vs1/{directory}")).unwrap();
    }
    // What the build finds out.
    let live = world.registry.container("vs1").unwrap().dir().join("live.new");
    crate::registry::write_json(&live, &sleeper.live()).unwrap();
    let files = sleeper.files();
    (world, sleeper, files)
}

fn is_frozen_with(world: &World, files: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(world.read("vs1/.ctl/state").unwrap(), b"frozen\n");
    for (path, bytes) in files {
        assert!(world.read(&format!("vs1/{path}")).unwrap() == *bytes, "{path}");
    }
}

#[test]
fn files_in_any_order_make_one_build() {
    for turn in 0..10 {
        let (world, _sleeper, files) = begin();
        let mut order: Vec<&String> = files.keys().collect();
        let count = order.len();
        order.rotate_left(turn % count);
        if turn % 2 == 0 {
            order.reverse();
        }
        for (done, path) in order.iter().enumerate() {
            assert_eq!(world.fake.builds(), 0, "{done} of {count}");
            world.put(&format!("vs1/{path}"), &files[*path]).unwrap();
        }
        assert_eq!(world.fake.builds(), 1);
        is_frozen_with(&world, &files);
    }
}

#[test]
fn ids_and_what_was_set_stay_over_the_build() {
    let (world, _sleeper, files) = begin();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_234_567);
    let set = Changes { mode: Some(0o640), modified: Some(time), ..Changes::default() };
    let (last, first) = files.iter().next_back().unwrap();
    for (path, bytes) in files.iter().filter(|(path, _)| *path != last) {
        world.put(&format!("vs1/{path}"), bytes).unwrap();
        world.tree.set_attr(world.node(&format!("vs1/{path}")), &set).unwrap();
    }
    let ids: Vec<(String, NodeId)> = files
        .keys()
        .filter(|path| *path != last)
        .map(|path| format!("vs1/{path}"))
        .chain(["vs1".to_owned(), format!("vs1/{PROCESS}"), "vs1/files".to_owned()])
        .map(|path| (path.clone(), world.node(&path)))
        .collect();
    world.put(&format!("vs1/{last}"), first).unwrap();
    assert_eq!(world.fake.builds(), 1);
    for (path, id) in ids {
        assert_eq!(world.node(&path), id, "{path}");
        let attr = world.tree.attr(id).unwrap().attr;
        if !attr.directory {
            assert_eq!((attr.mode, attr.modified), (0o640, time), "{path}");
        }
    }
    // As cp -a does last.
    world.tree.set_attr(world.node("vs1"), &set).unwrap();
    assert_eq!(world.tree.attr(world.node("vs1")).unwrap().attr.modified, time);
}

#[test]
fn under_other_names_and_renamed() {
    let (world, _sleeper, files) = begin();
    for (path, bytes) in &files {
        let (directory, name) = path
            .rsplit_once('/')
            .map_or(("vs1".to_owned(), path.as_str()), |(directory, name)| (format!("vs1/{directory}"), name));
        let temporary = format!(".{name}.Xa81Zq");
        assert_eq!(world.fake.builds(), 0);
        world.put(&format!("{directory}/{temporary}"), bytes).unwrap();
        let parent = world.node(&directory);
        world.tree.rename((parent, &temporary), (parent, name), false).finish().unwrap();
    }
    assert_eq!(world.fake.builds(), 1);
    is_frozen_with(&world, &files);
}

#[test]
fn a_descriptor_closed_early_completes_nothing() {
    let (world, _sleeper, files) = begin();
    let pages = format!("{PROCESS}/mem.pages");
    for (path, bytes) in files.iter().filter(|(path, _)| **path != pages) {
        world.put(&format!("vs1/{path}"), bytes).unwrap();
    }
    let (entry, opened) = world.tree.create(world.node(&format!("vs1/{PROCESS}")), "mem.pages", 0o600, true).unwrap();
    // The shell's redirection: a duplicate is closed before anything is written.
    world.tree.flush(opened.handle).finish().unwrap();
    // Somebody makes the room first, and another file is closed meanwhile.
    let size = Changes { size: Some(files[&pages].len() as u64), ..Changes::default() };
    world.tree.set_attr(entry.attr.node, &size).unwrap();
    world.put("vs1/sysv.shm", &files["sysv.shm"]).unwrap();
    assert_eq!(world.fake.builds(), 0);
    for (at, part) in (0..).zip(files[&pages].chunks(1 << 20)) {
        world.tree.write(opened.handle, at << 20, part).finish().unwrap();
    }
    world.tree.flush(opened.handle).finish().unwrap();
    assert_eq!(world.fake.builds(), 1);
    // Its descriptor is still open: nothing can be written through it into what was built.
    assert_eq!(world.tree.write(opened.handle, 0, b"x").finish(), Err(Errno::EROFS));
    is_frozen_with(&world, &files);
}

#[test]
fn a_refused_build_keeps_the_files_and_a_better_one_tries_again() {
    let (world, _sleeper, files) = begin();
    let process = format!("vs1/{PROCESS}/process");
    for (path, bytes) in &files {
        let path = format!("vs1/{path}");
        let bytes: &[u8] = if path == process { b"\"refuse\"\n" } else { bytes };
        let last = files.keys().next_back().is_some_and(|last| path.ends_with(last));
        assert_eq!(world.put(&path, bytes), if last { Err(Errno::EINVAL) } else { Ok(()) }, "{path}");
    }
    assert_eq!(world.read("vs1/.ctl/state").unwrap(), b"failed\n");
    assert_eq!(world.read(&process).unwrap(), b"\"refuse\"\n");
    assert_eq!(world.fake.builds(), 1);
    world.put(&process, &files[&format!("{PROCESS}/process")]).unwrap();
    assert_eq!(world.fake.builds(), 2);
    is_frozen_with(&world, &files);
}

#[test]
fn a_file_on_its_way_under_another_name_does_not_build() {
    let (world, _sleeper, files) = begin();
    let good = &files[&format!("{PROCESS}/process")];
    for (path, bytes) in &files {
        let refused = path == &format!("{PROCESS}/process");
        // What the last one is answered is another test's.
        let _ = world.put(&format!("vs1/{path}"), if refused { b"\"refuse\"\n" } else { bytes });
    }
    assert_eq!((world.fake.builds(), world.read("vs1/.ctl/state").unwrap()), (1, b"failed\n".to_vec()));
    let directory = format!("vs1/{PROCESS}");
    for name in [".process.YZLWGj", "sedUlp9Bv", "process~"] {
        assert_eq!(world.put(&format!("{directory}/{name}"), good), Ok(()), "{name}");
    }
    assert_eq!(world.fake.builds(), 1, "nothing of the image has changed yet");
    let at = world.node(&directory);
    world.tree.rename((at, "sedUlp9Bv"), (at, "process"), false).finish().unwrap();
    assert_eq!(world.fake.builds(), 2);
    is_frozen_with(&world, &files);
}

#[test]
fn a_manifest_that_is_not_understood_is_for_the_build_to_refuse() {
    let (world, _sleeper, _files) = begin();
    world.put(&format!("vs1/{PROCESS}/process"), b"\"refuse\"\n").unwrap();
    assert_eq!(world.put("vs1/manifest", b"{ \"format\": 1"), Ok(()), "cut: it may still come");
    assert_eq!(world.fake.builds(), 0);
    assert_eq!(world.put("vs1/manifest", b"{ \"format\" 1 }\n"), Err(Errno::EINVAL));
    assert_eq!(world.fake.builds(), 1);
}

#[test]
fn a_server_that_starts_again_finds_what_was_staged() {
    let (mut world, _sleeper, files) = begin();
    let mut rest = files.iter();
    for (path, bytes) in rest.by_ref().take(5) {
        world.put(&format!("vs1/{path}"), bytes).unwrap();
    }
    world.restart();
    for (path, bytes) in files.iter().take(5) {
        assert!(world.read(&format!("vs1/{path}")).unwrap() == *bytes, "{path}");
    }
    for (path, bytes) in rest {
        world.put(&format!("vs1/{path}"), bytes).unwrap();
    }
    assert_eq!(world.fake.builds(), 1);
    is_frozen_with(&world, &files);
}

#[test]
fn removed_file_by_file_it_is_gone_with_its_pages() {
    let (world, _sleeper, files) = begin();
    for (path, bytes) in files.iter().filter(|(path, _)| *path != "manifest") {
        world.put(&format!("vs1/{path}"), bytes).unwrap();
    }
    let staged = |world: &World| std::fs::read_dir(world.path().join("pages/vs1")).unwrap().count();
    assert_eq!(staged(&world), 1);
    assert_eq!(world.tree.remove_directory(NodeId::ROOT, "vs1"), Err(Errno::ENOTEMPTY));
    for path in files.keys().filter(|path| *path != "manifest") {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        world.tree.unlink(world.node(&format!("vs1/{directory}")), name).unwrap();
    }
    assert_eq!(staged(&world), 0);
    world.tree.remove_directory(world.node(&format!("vs1/{PROCESS}")), PROCESS).unwrap();
    for directory in [PROCESS, "files"] {
        world.tree.remove_directory(world.node("vs1"), directory).unwrap();
    }
    world.tree.remove_directory(NodeId::ROOT, "vs1").unwrap();
    assert!(world.names("").is_empty());
}

#[test]
fn an_exited_container_takes_files() {
    let world = World::new();
    world.fake.set_state("vs1", State::Exited);
    assert!(world.names("vs1").is_empty());
    let top = world.node("vs1");
    world.make_directory("vs1/files").unwrap();
    assert_eq!(world.read("vs1/.ctl/state").unwrap(), b"incoming\n");
    assert_eq!((world.names("vs1"), world.node("vs1")), (vec!["files".to_owned()], top));
}

#[test]
fn names_that_cannot_be_are_refused_and_noted() {
    let world = World::new();
    for name in [".hidden", "a/b", "", "x y", &"n".repeat(64), "tab\t"] {
        assert_eq!(world.tree.make_directory(NodeId::ROOT, name, 0o700).map(drop), Err(Errno::EINVAL), "{name:?}");
    }
    assert_eq!(world.tree.create(NodeId::ROOT, "file", 0o600, true).map(drop), Err(Errno::EPERM));
    world.make_directory("vs1").unwrap();
    assert_eq!(world.make_directory("vs1"), Err(Errno::EEXIST));
    assert_eq!(world.put("vs1/blockers", b""), Err(Errno::EINVAL));
    let noted = String::from_utf8(world.read(".ctl/status").unwrap()).unwrap();
    for part in
        ["\"path\":\".hidden\"", "\"path\":\"vs1/blockers\"", "must start with a letter or digit", "{\"end\":true}\n"]
    {
        assert!(noted.contains(part), "{part} in {noted}");
    }
}
