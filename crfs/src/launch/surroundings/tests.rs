//! Detaching crfs, in a mount namespace of the test's thread.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use std::os::fd::AsRawFd;

fn mounted(path: &Path) -> bool {
    mounts(&fs::read("/proc/thread-self/mountinfo").unwrap()).iter().any(|mount| mount.path == path)
}

#[test]
fn crfs_is_detached_though_its_server_is_dead() {
    let dir = tempfile::Builder::new().prefix("crfs mount ").tempdir().unwrap();
    let own = dir.path().join("own");
    let other = dir.path().join("other");
    fs::create_dir(&own).unwrap();
    fs::create_dir(&other).unwrap();
    let (own_path, other_path) = (own.clone(), other.clone());
    // The namespace ends with the thread, and the mounts with it.
    let test = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).unwrap();
        // A connection that nobody answers.
        let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        mount(Some("crfs"), &own_path, Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
        mount(Some("tmpfs"), &other_path, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        assert!(mounted(&own_path) && mounted(&other_path));
        detach_crfs().unwrap();
        assert!(!mounted(&own_path), "crfs is still there");
        assert!(mounted(&other_path), "another file system was detached");
    });
    test.join().unwrap();
    assert!(!mounted(&own) && !mounted(&other), "the mounts were seen outside");
}
