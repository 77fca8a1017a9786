//! What fanotify groups watch: found by path, marked again, or refused.

use crate::world::{FIRST, Script, World, holding};
use crfs::failure::{Failure, Kind};
use crfs::resource::descriptor::Descriptors;
use crfs::resource::fanotify::mark_all;
use crfs::resource::mount::Roots;
use image_format::fanotify::{Fanotify, FanotifyMark, Marked};
use image_format::files::{File, FileKind, OpenFlags};
use image_format::{FileId, Hex};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

const ID: FileId = FileId(0);

fn mark(on: Marked, path: &Path, mask: u64, ignored_mask: u64, flags: u64) -> FanotifyMark {
    let (mask, ignored_mask, flags) = (Hex(mask), Hex(ignored_mask), Hex(flags));
    FanotifyMark { on, path: path.to_str().unwrap().into(), mask, ignored_mask, flags }
}

fn group(flags: u64, marks: Vec<FanotifyMark>) -> Fanotify {
    Fanotify { flags: Hex(flags), event_flags: Hex(0x8000), unprivileged: false, marks, unread: false }
}

/// Makes a group in this process.
fn made(world: &World, record: &Fanotify, notes: &mut Vec<String>) -> Result<OwnedFd, Failure> {
    let kind = FileKind::Fanotify(record.clone());
    let file = File { flags: OpenFlags(OpenFlags::O_RDWR.0), position: 0, owner: None, kind };
    let image = world.image(&Descriptors { files: BTreeMap::from([(ID, file)]), ..Descriptors::default() });
    let mut open = world.open_all(&image, notes)?;
    let root = fs::File::open("/").unwrap();
    mark_all(&image, &Roots::only(root.as_fd()), &open, notes)?;
    Ok(open.remove(&ID).unwrap())
}

#[test]
fn a_group_is_made_as_it_was() {
    let world = World::new();
    let (file, directory) = (world.file("file", b""), world.dir.path());
    let (attributes, on_child) = (0x4, 0x0800_0000);
    let marks = vec![
        mark(Marked::Inode, directory, 0x8 | on_child, 0, 0),
        mark(Marked::Inode, &file, 0, 0x8, 0x240),
        mark(Marked::Mount, Path::new("/proc"), 0x2, 0x8, 0x440),
    ];
    let unread = Fanotify { unread: true, ..group(0x1, marks.clone()) };
    let by_handle = vec![mark(Marked::Inode, directory, attributes | on_child, 0, 0x200)];
    let unprivileged = Fanotify { unprivileged: true, ..group(0x200, by_handle) };
    for record in [group(0x30, marks), unread, unprivileged] {
        let mut notes = Vec::new();
        let group = made(&world, &record, &mut notes).unwrap();
        assert_eq!(notes.len(), usize::from(record.unread), "{notes:?}");
        let puppet = holding([group.as_raw_fd()]);
        let captured = world.capture_all(&[&puppet]);
        let entry = captured.fds[&FIRST][0].file;
        assert_eq!(captured.files[&entry].kind, FileKind::Fanotify(record));
    }
}

/// What is told of a group with this mark of a file, which is removed if `deleted`.
fn refused(flags: u64, mask: u64, deleted: bool) -> String {
    let world = World::new();
    let path = world.file("file", b"");
    let mut script = Script::new();
    let text = script.place(format!("{}\0", path.display()).as_bytes());
    let here = u64::from(libc::AT_FDCWD.cast_unsigned());
    script
        .call(libc::SYS_fanotify_init, [flags, 0])
        .call(libc::SYS_fanotify_mark, [0, libc::FAN_MARK_ADD.into(), mask, here, text])
        .open(&path, libc::O_RDWR);
    if deleted {
        script.call(libc::SYS_unlink, [text]);
    }
    let puppet = script.start();
    let (_, findings) = world.capture(&[&puppet]);
    let [blocker] = &findings.blockers[..] else { panic!("{findings:#?}") };
    assert_eq!(blocker.object, "0x00000001/fds: 0");
    blocker.reason.clone()
}

#[test]
fn what_cannot_be_carried_is_named() {
    let said = refused(0, 0x8, true);
    assert!(said.contains("to which no path inside the container leads"), "{said}");
    // FAN_CLASS_CONTENT, and who may execute.
    let said = refused(0x4, 0x4_0000, false);
    assert!(said.starts_with("a fanotify group decides on accesses"), "{said}");
    // FAN_UNLIMITED_QUEUE, and an event.
    let said = refused(0x10, 0x20, false);
    assert!(said.starts_with("events wait in a fanotify group without limit"), "{said}");
}

#[test]
fn without_the_kernel_nothing_tells_of_privileges() {
    let world = World::new();
    let mut script = Script::new();
    script.call(libc::SYS_fanotify_init, [0, 0]);
    let puppet = script.start();
    let (_, findings) = world.capture_blind(&[&puppet]);
    let [blocker] = &findings.blockers[..] else { panic!("{findings:#?}") };
    assert!(blocker.reason.contains("whether its maker had privileges"), "{blocker:?}");
}

#[test]
fn what_cannot_be_marked_is_refused() {
    let world = World::new();
    let refused = |flags, mark| {
        let failure = made(&world, &group(flags, vec![mark]), &mut Vec::new()).unwrap_err();
        assert_eq!(failure.kind, Kind::Incompatible);
        failure.chain.join(": ")
    };
    let said = refused(0, mark(Marked::Inode, &world.path("nowhere"), 0x8, 0, 0));
    assert!(said.starts_with("files/0x00000000: ") && said.contains("not found"), "{said}");
    // FAN_DELETE, of which only a group with handles is told.
    let said = refused(0, mark(Marked::Inode, world.dir.path(), 0x200, 0, 0));
    assert!(said.ends_with("it cannot be marked for fanotify: Invalid argument"), "{said}");
}
