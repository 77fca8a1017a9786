//! A frozen container: what it lists, and that nothing is read of tasks that ran.

use super::{PROCESS, Sleeper, World, with_directories, write_captured};
use crate::registry::State;
use crate::tree::{BLOCK_SIZE, Changes};
use nix::errno::Errno;
use std::time::{Duration, SystemTime};

#[test]
fn shows_the_image_with_exact_sizes() {
    let (world, sleeper) = (World::new(), Sleeper::start());
    sleeper.freeze(&world, "vs1");
    assert_eq!(world.names(""), ["vs1"]);
    assert_eq!(world.names("vs1"), [PROCESS, "contents.sums", "files", "manifest", "sysv.shm"]);
    let process = format!("vs1/{PROCESS}");
    assert_eq!(world.names(&process), [PROCESS, "mem.pages", "mem.segments", "mem.sums", "process"]);
    for (path, bytes) in sleeper.files() {
        let node = world.node(&format!("vs1/{path}"));
        let attr = world.tree.attr(node).unwrap().attr;
        assert_eq!((attr.size, attr.mode, attr.links, attr.directory), (bytes.len() as u64, 0o600, 1, false), "{path}");
        assert!(world.read(&format!("vs1/{path}")).unwrap() == bytes, "{path}");
    }
    let top = world.tree.attr(world.node("vs1")).unwrap();
    assert_eq!((top.attr.mode, top.attr.links, top.ttl), (0o700, 4, Duration::ZERO));
    assert_eq!(world.tree.lookup(world.node(&process), "process").unwrap().ttl, Duration::from_secs(3600));
    assert_eq!(world.tree.lookup(world.node("vs1"), "manifest").unwrap().ttl, Duration::ZERO);
    assert_eq!(BLOCK_SIZE, 1 << 20);
}

#[test]
fn pages_come_out_whole_whatever_the_size_of_reads() {
    let (world, sleeper) = (World::new(), Sleeper::start());
    sleeper.freeze(&world, "vs1");
    let path = format!("vs1/{PROCESS}/mem.pages");
    for size in [1 << 20, 10 << 10, 128 << 10, 1_000_003, 3 << 20] {
        assert!(world.read_by(&path, size).unwrap() == sleeper.pages, "by {size}");
    }
    // Out of order, across the border of two chunks, and beyond the end.
    let handle = world.open(&path).unwrap();
    for (offset, size) in
        [(2_000_000_u64, 100_000_usize), (5, 10), ((1 << 20) - 7, 14), (2_800_000, 1 << 20), (1 << 40, 1)]
    {
        let data = world.tree.read(handle, offset, size).finish().unwrap();
        let start = usize::try_from(offset).unwrap().min(sleeper.pages.len());
        let end = (start + size).min(sleeper.pages.len());
        assert!(data.as_ref() == &sleeper.pages[start..end], "{size} bytes at {offset}");
    }
    world.tree.release(handle);
}

#[test]
fn sums_are_the_same_with_and_without_a_read_of_the_pages() {
    let (mut world, sleeper) = (World::new(), Sleeper::start());
    sleeper.freeze(&world, "vs1");
    let (pages, sums) = (format!("vs1/{PROCESS}/mem.pages"), format!("vs1/{PROCESS}/mem.sums"));
    assert_eq!(world.read_by(&sums, 7).unwrap(), sleeper.sums());
    world.restart();
    world.read(&pages).unwrap();
    assert_eq!(world.read(&sums).unwrap(), sleeper.sums());
}

#[test]
fn the_decimal_process_id_leads_to_the_same_files() {
    let (world, sleeper) = (World::new(), Sleeper::start());
    sleeper.freeze(&world, "vs1");
    assert_eq!(world.read("vs1/1/process").unwrap(), world.read(&format!("vs1/{PROCESS}/process")).unwrap());
    assert_eq!(world.try_node("vs1/01"), Err(Errno::ENOENT));
    assert_eq!(world.try_node("vs1/2"), Err(Errno::ENOENT));
    assert_eq!(world.try_node(&format!("vs1/{PROCESS}/1")), Err(Errno::ENOENT));
}

#[test]
fn tasks_that_ran_are_stale_for_every_file_and_handle() {
    let (world, mut sleeper) = (World::new(), Sleeper::start());
    sleeper.freeze(&world, "vs1");
    let paths: Vec<String> = sleeper.files().keys().map(|path| format!("vs1/{path}")).collect();
    let nodes: Vec<_> = paths.iter().map(|path| world.node(path)).collect();
    let handles: Vec<_> = paths.iter().map(|path| world.open(path).unwrap()).collect();
    sleeper.run();
    for ((path, node), handle) in paths.iter().zip(nodes).zip(handles) {
        assert_eq!(world.tree.open(node, false, false).finish().map(drop), Err(Errno::ESTALE), "{path}: open");
        assert_eq!(world.tree.read(handle, 0, 100).finish().map(drop), Err(Errno::ESTALE), "{path}: read");
    }
}

#[test]
fn a_cgroup_that_was_thawed_is_stale_even_if_no_clock_moved() {
    let (world, sleeper) = (World::new(), Sleeper::start());
    sleeper.freeze(&world, "vs1");
    let pages = world.open(&format!("vs1/{PROCESS}/mem.pages")).unwrap();
    let node = world.node("vs1/manifest");
    world.fake.frozen(false);
    assert_eq!(world.tree.read(pages, 0, 1 << 20).finish().map(drop), Err(Errno::ESTALE));
    // And stays so: what happened in between is not known.
    world.fake.frozen(true);
    assert_eq!(world.tree.open(node, false, false).finish().map(drop), Err(Errno::ESTALE));
}

#[test]
fn nodes_of_an_earlier_freeze_are_stale() {
    let (world, sleeper) = (World::new(), Sleeper::start());
    sleeper.freeze(&world, "vs1");
    let before = world.node("vs1/manifest");
    let top = world.node("vs1");
    world.fake.set_state("vs1", State::Running);
    assert_eq!(world.names("vs1"), ["blockers"]);
    assert_eq!(world.tree.attr(before).map(drop), Err(Errno::ESTALE));
    sleeper.freeze(&world, "vs1");
    assert_ne!(world.node("vs1/manifest"), before);
    assert_eq!(world.tree.attr(before).map(drop), Err(Errno::ESTALE));
    assert_eq!(world.node("vs1"), top, "a shell that stands in the directory stays there");
}

#[test]
fn nothing_of_it_can_be_changed_but_what_copies_set() {
    let (world, sleeper) = (World::new(), Sleeper::start());
    sleeper.freeze(&world, "vs1");
    let (top, manifest) = (world.node("vs1"), world.node("vs1/manifest"));
    assert_eq!(world.tree.open(manifest, true, false).finish().map(drop), Err(Errno::EROFS));
    assert_eq!(world.tree.create(top, "sysv.msg", 0o600, true).map(drop), Err(Errno::EROFS));
    assert_eq!(world.tree.make_directory(top, "0x00000002", 0o700).map(drop), Err(Errno::EROFS));
    assert_eq!(world.tree.rename((top, "manifest"), (top, "sysv.msg"), false).finish(), Err(Errno::EROFS));
    let cut = Changes { size: Some(0), ..Changes::default() };
    assert_eq!(world.tree.set_attr(manifest, &cut).map(drop), Err(Errno::EROFS));
    let noted = String::from_utf8(world.read(".ctl/status").unwrap()).unwrap();
    assert!(noted.contains(r#""path":"vs1","reason":"it is frozen"#), "{noted}");

    assert_eq!(world.tree.unlink(top, "manifest"), Err(Errno::EPERM));
    assert_eq!(world.tree.remove_directory(crate::tree::NodeId::ROOT, "vs1"), Err(Errno::EPERM));
    let status = String::from_utf8(world.read("vs1/.ctl/status").unwrap()).unwrap();
    assert!(status.contains("crctl kill vs1"), "{status}");

    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let set = Changes { mode: Some(0o640), modified: Some(time), uid: Some(7), ..Changes::default() };
    for path in ["vs1", "vs1/manifest", &format!("vs1/{PROCESS}/mem.pages")] {
        world.tree.set_attr(world.node(path), &set).unwrap();
        let attr = world.tree.attr(world.node(path)).unwrap().attr;
        assert_eq!((attr.mode, attr.modified, attr.uid, attr.gid), (0o640, time, 7, 0), "{path}");
    }
}

#[test]
fn a_server_that_starts_again_shows_the_same() {
    let (mut world, sleeper) = (World::new(), Sleeper::start());
    sleeper.freeze(&world, "vs1");
    let look = |world: &World| -> Vec<_> {
        let path = |path: &String| format!("vs1/{path}");
        let entry = |path: String| (world.tree.attr(world.node(&path)).unwrap(), world.read(&path).unwrap());
        sleeper.files().keys().map(path).map(entry).collect()
    };
    let before = look(&world);
    world.restart();
    assert!(look(&world) == before);
}

#[test]
fn frozen_for_looking_has_blockers_and_no_manifest() {
    let (world, sleeper) = (World::new(), Sleeper::start());
    sleeper.freeze(&world, "vs1");
    let container = world.registry.container("vs1").unwrap();
    let mut files = with_directories(sleeper.text_files());
    let manifest = files.remove("manifest").unwrap();
    files.insert("blockers".to_owned(), manifest);
    write_captured(&container, &files);
    let record = container.existing().unwrap();
    container.write_record(&crate::registry::Record { inspect: true, ..record }).unwrap();
    assert_eq!(world.names("vs1"), [PROCESS, "blockers", "files", "sysv.shm"]);
    assert!(world.read(&format!("vs1/{PROCESS}/mem.pages")).unwrap() == sleeper.pages);
    assert_eq!(world.read("vs1/blockers").unwrap(), sleeper.text_files()["manifest"]);
}
