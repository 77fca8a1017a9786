//! What inotify instances watch: found by path, under the same number again, or refused.

use crate::world::{FIRST, Script, World, holding};
use crfs::failure::{Failure, Kind};
use crfs::resource::descriptor::Descriptors;
use crfs::resource::inotify::watch_all;
use crfs::resource::mount::Roots;
use image_format::files::{File, FileKind, Inotify, InotifyWatch, OpenFlags};
use image_format::{FileId, Hex};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

const ID: FileId = FileId(0);

fn watch(wd: u32, path: &Path) -> InotifyWatch {
    InotifyWatch { wd, path: path.to_str().unwrap().into(), mask: Hex(libc::IN_ATTRIB.into()) }
}

/// Makes an instance of these watches in this process.
fn made(world: &World, record: &Inotify, notes: &mut Vec<String>) -> Result<OwnedFd, Failure> {
    let kind = FileKind::Inotify(record.clone());
    let file = File { flags: OpenFlags::O_NONBLOCK, position: 0, owner: None, kind };
    let image = world.image(&Descriptors { files: BTreeMap::from([(ID, file)]), ..Descriptors::default() });
    let mut open = world.open_all(&image, notes)?;
    let root = fs::File::open("/").unwrap();
    watch_all(&image, &Roots::only(root.as_fd()), &open, notes)?;
    Ok(open.remove(&ID).unwrap())
}

#[test]
fn an_instance_is_made_as_it_was() {
    let world = World::new();
    let file = world.file("file", b"");
    for unread in [false, true] {
        let record = Inotify { watches: vec![watch(9, &file), watch(300, world.dir.path())], next_wd: 301, unread };
        let mut notes = Vec::new();
        let instance = made(&world, &record, &mut notes).unwrap();
        assert_eq!(notes.len(), usize::from(unread), "{notes:?}");
        let puppet = holding([instance.as_raw_fd()]);
        let captured = world.capture_all(&[&puppet]);
        let entry = captured.fds[&FIRST][0].file;
        assert_eq!(captured.files[&entry].kind, FileKind::Inotify(record));
        assert!(captured.files[&entry].flags.contains(OpenFlags::O_NONBLOCK));
    }
}

#[test]
fn a_watch_of_a_deleted_file_is_named() {
    let world = World::new();
    let path = world.file("file", b"");
    let mut script = Script::new();
    let text = script.place(format!("{}\0", path.display()).as_bytes());
    script
        .open(&path, libc::O_RDWR)
        .call(libc::SYS_inotify_init1, [0])
        .call(libc::SYS_inotify_add_watch, [1, text, libc::IN_MODIFY.into()])
        .call(libc::SYS_unlink, [text]);
    let puppet = script.start();
    let (captured, findings) = world.capture(&[&puppet]);
    let [blocker] = &findings.blockers[..] else { panic!("{findings:#?}") };
    assert_eq!(blocker.object, "0x00000001/fds: 1");
    assert!(blocker.reason.contains("to which no path inside the container leads"), "{blocker:?}");
    assert_eq!(captured.files.len(), 1, "the file itself is carried");
    assert_eq!(world.survey(&[&puppet]), findings);
}

#[test]
fn without_the_kernel_nothing_tells_the_next_number() {
    let world = World::new();
    let mut script = Script::new();
    script.call(libc::SYS_inotify_init1, [0]);
    let puppet = script.start();
    let (_, findings) = world.capture_blind(&[&puppet]);
    let [blocker] = &findings.blockers[..] else { panic!("{findings:#?}") };
    assert!(blocker.reason.contains("the number of the next watch cannot be told"), "{blocker:?}");
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let world = World::new();
    let path = world.file("file", b"");
    let refused = |watches| {
        let record = Inotify { watches, next_wd: 3, unread: false };
        let failure = made(&world, &record, &mut Vec::new()).unwrap_err();
        assert_eq!(failure.kind, Kind::Incompatible);
        failure.chain.join(": ")
    };
    let said = refused(vec![watch(1, &path), watch(2, &path)]);
    assert!(said.ends_with("watch 2: watch 1 has the same file"), "{said}");
    let said = refused(vec![watch(1, &world.path("nowhere"))]);
    assert!(said.starts_with("files/0x00000000: ") && said.contains("not found"), "{said}");
}
