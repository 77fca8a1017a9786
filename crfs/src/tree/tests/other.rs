//! Running containers, and the control files.

use super::World;
use crate::registry::State;
use nix::errno::Errno;
use std::time::{Duration, Instant};

#[test]
fn a_running_container_lists_what_blocks_it() {
    let world = World::new();
    world.fake.set_state("vs1", State::Running);
    assert_eq!(world.names("vs1"), ["blockers"]);
    let text = String::from_utf8(world.read("vs1/blockers").unwrap()).unwrap();
    assert_eq!(
        text,
        "{\"object\":\"0x00000001/fds: 3\",\"reason\":\"is a socket\",\"remedy\":\"close it\"}\n{\"end\":true}\n"
    );
    let top = world.node("vs1");
    assert_eq!(world.tree.create(top, "manifest", 0o600, true).map(drop), Err(Errno::EPERM));
    assert_eq!(world.tree.unlink(top, "blockers"), Err(Errno::EPERM));
    assert_eq!(world.tree.remove_directory(crate::tree::NodeId::ROOT, "vs1"), Err(Errno::EPERM));
}

#[test]
fn the_state_is_read_and_written() {
    let world = World::new();
    world.fake.set_state("vs1", State::Running);
    assert_eq!(world.names("vs1/.ctl"), ["events", "state", "status"]);
    let state = world.node("vs1/.ctl/state");
    let write = |text: &str| {
        let handle = world.tree.open(state, true, true).finish().unwrap().handle;
        let result = world.tree.write(handle, 0, text.as_bytes()).finish();
        world.tree.release(handle);
        result
    };
    assert_eq!(write("frozen deadline=0.5\n"), Err(Errno::ETIMEDOUT));
    assert_eq!(write("melted\n"), Err(Errno::EINVAL));
    let status = String::from_utf8(world.read("vs1/.ctl/status").unwrap()).unwrap();
    assert!(status.contains("melted"), "{status}");
    assert_eq!(world.read("vs1/.ctl/state").unwrap(), b"running\n");
}

#[test]
fn events_tell_a_change_and_are_answered_without_one() {
    let world = World::new();
    world.fake.set_state("vs1", State::Running);
    let handle = world.open("vs1/.ctl/events").unwrap();
    let begun = Instant::now();
    assert_eq!(world.tree.read(handle, 0, 4096).finish().map(drop), Err(Errno::EINTR));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    world.fake.set_state("vs1", State::Exited);
    let data = world.tree.read(handle, 0, 4096).finish().unwrap();
    let event: crate::tree::Event = serde_json::from_slice(data.as_ref()).unwrap();
    assert_eq!(event.state, State::Exited);
    // The mount goes away.
    world.tree.close();
    let begun = Instant::now();
    assert_eq!(world.tree.read(handle, 0, 4096).finish().map(drop), Err(Errno::EINTR));
    assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
    // The container goes away: the end of the file.
    std::fs::remove_dir_all(world.registry.container("vs1").unwrap().dir()).unwrap();
    assert!(world.tree.read(handle, 0, 4096).finish().unwrap().as_ref().is_empty());
}
