//! A look at what runs: the same obstacles, nothing read, nothing stopped.

use crate::world::{FIRST, Script, World, look};
use crfs::resource::Findings;
use image_format::Pid;
use std::path::Path;

#[test]
fn obstacles_of_running_tasks() {
    let world = World::new();
    let mut script = Script::new();
    let pair = script.place(&[0; 8]);
    let event = script.place(&[1u32.to_ne_bytes().as_slice(), &[0; 8]].concat());
    script
        .call(libc::SYS_userfaultfd, [1])
        .call(libc::SYS_dup, [0])
        .call(libc::SYS_pipe2, [pair, 0])
        .call(libc::SYS_epoll_create1, [0])
        .call(libc::SYS_epoll_ctl, [4, 1, 2, event]);
    let puppet = script.start();
    let findings = world.survey(&[&puppet]);
    // One for the description, not one for each of its descriptors.
    assert_eq!(findings.blockers.len(), 1, "{findings:#?}");
    assert_eq!(findings.blockers[0].object, "0x00000001/fds: 0");
    assert_eq!(puppet.begun(), 7, "the puppet still waits in its last call");
}

#[test]
fn a_process_that_ended_is_passed_over() {
    let world = World::new();
    let mut script = Script::new();
    script.call(libc::SYS_userfaultfd, [1]);
    let puppet = script.start();
    let gone = Script::new().start().pid().as_raw();
    let root = Path::new("/proc/self/root");
    let (_, findings) = look(&[(FIRST, puppet.pid().as_raw()), (Pid(9), gone)], root, &world.log());
    assert_eq!(findings.blockers.len(), 1);

    let (nobody, findings) = look(&[(FIRST, gone)], root, &world.log());
    assert_eq!((nobody.files.len(), findings), (0, Findings::default()));
}
