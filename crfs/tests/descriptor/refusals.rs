//! Images that cannot be opened here: what is not as it was, and records that cannot be true.

use crate::world::World;
use crfs::failure::{Failure, Kind};
use crfs::resource::descriptor::Descriptors;
use crfs::resource::mount::Roots;
use image_format::files::{
    Device, Directory, Epoll, EpollTarget, Eventfd, Fifo, File, FileKind, IfChanged, Listing, OpenFlags, PathOnly,
    PathType, Pipe, PseudoFile, PseudoFileSystem, RegularFile, Replacement, Stdio, Stream, Timerfd,
};
use image_format::locks::{Lock, LockKind};
use image_format::{Bytes, FileId, Hex, Pid, Timespec};
use std::collections::BTreeMap;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

const WRONLY: u64 = 1;
const RDWR: u64 = 2;

fn bytes(path: &Path) -> Bytes {
    path.to_str().unwrap().into()
}

/// A record of the file as it is now.
fn regular(path: &Path, flags: u64) -> File {
    let metadata = std::fs::metadata(path).unwrap();
    let modified = metadata.modified().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let modified = Timespec::from_ns(modified.as_nanos().try_into().unwrap());
    let record = RegularFile { path: bytes(path), size: metadata.len(), modified, if_changed: IfChanged::Default };
    File { flags: OpenFlags(flags), position: 3, owner: None, kind: FileKind::Regular(record) }
}

fn pipe(flags: u64, pipe: Pipe) -> File {
    File { flags: OpenFlags(flags), position: 0, owner: None, kind: FileKind::Pipe(pipe) }
}

/// Opens an image of these files, numbered from 0.
fn open(world: &World, files: &[File], notes: &mut Vec<String>) -> Result<(), Failure> {
    let files: BTreeMap<FileId, File> = (0..).map(FileId).zip(files.iter().cloned()).collect();
    let image = world.image(&Descriptors { files, ..Descriptors::default() });
    world.open_all(&image, notes).map(drop)
}

fn refused(world: &World, files: &[File]) -> Failure {
    open(world, files, &mut Vec::new()).unwrap_err()
}

fn touch(path: &Path) {
    let later = SystemTime::now() + Duration::from_secs(10);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(later).unwrap();
}

#[test]
fn files_that_changed_are_told_all_at_once() {
    let world = World::new();
    let names = ["vanished", "shrunk", "read", "touched", "fifo", "same"];
    let [vanished, shrunk, read, touched, fifo, same] = names.map(|name| world.file(name, b"0123456789"));
    let files = [
        regular(&vanished, RDWR),
        regular(&shrunk, WRONLY),
        regular(&read, 0),
        regular(&touched, RDWR),
        regular(&fifo, WRONLY),
        regular(&same, 0),
    ];
    open(&world, &files, &mut Vec::new()).unwrap();
    std::fs::remove_file(&vanished).unwrap();
    std::fs::write(&shrunk, "1234").unwrap();
    std::fs::write(&read, "0123456789+").unwrap();
    touch(&touched);
    std::fs::remove_file(&fifo).unwrap();
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();

    let failure = refused(&world, &files);
    assert_eq!(failure.kind, Kind::Incompatible);
    let expected = [
        ("files/0x00000000: ", "not found"),
        ("files/0x00000001: ", "has shrunk from 10 to 4 bytes"),
        ("files/0x00000002: ", "has grown from 10 to 11 bytes since the checkpoint, and the program reads it"),
        ("files/0x00000003: ", "was modified since the checkpoint, and the program reads it"),
        ("files/0x00000004: ", "it is no regular file here"),
    ];
    assert_eq!(failure.chain.len(), expected.len(), "{failure:#?}");
    for (entry, (object, words)) in failure.chain.iter().zip(expected) {
        assert!(entry.starts_with(object) && entry.contains(words), "{entry:?} does not say {words:?}");
    }
}

#[test]
fn a_file_that_has_grown_under_a_writer_is_a_note() {
    let world = World::new();
    let [append, write, touched] = ["append", "write", "touched"].map(|name| world.file(name, b"0123456789"));
    let files = [regular(&append, WRONLY | OpenFlags::O_APPEND.0), regular(&write, RDWR), regular(&touched, WRONLY)];
    for path in [&append, &write] {
        std::fs::File::options().append(true).open(path).unwrap().write_all(b"0123456789").unwrap();
    }
    touch(&touched);
    let mut notes = Vec::new();
    open(&world, &files, &mut notes).unwrap();
    let since = "has grown from 10 to 20 bytes since the checkpoint";
    let expected = [
        format!("files/0x00000000: {} {since}; writing goes on at its end", append.display()),
        format!("files/0x00000001: {} {since}; writing goes on at offset 3", write.display()),
        format!(
            "files/0x00000002: {} was modified since the checkpoint; its size is still 10 bytes",
            touched.display()
        ),
    ];
    assert_eq!(notes, expected);
}

/// The record with another policy.
fn policy(file: &File, policy: IfChanged) -> File {
    let mut file = file.clone();
    let FileKind::Regular(record) = &mut file.kind else { panic!("no file") };
    record.if_changed = policy;
    file
}

#[test]
fn a_file_that_changed_is_treated_as_its_record_says() {
    let world = World::new();
    let path = world.file("data", b"0123456789");
    let writer = regular(&path, RDWR);
    let open_one = |if_changed| {
        let image = world.image(&Descriptors {
            files: BTreeMap::from([(FileId(0), policy(&writer, if_changed))]),
            ..Descriptors::default()
        });
        let mut notes = Vec::new();
        let opened = world.open_all(&image, &mut notes)?;
        let mut file = std::fs::File::from(opened[&FileId(0)].try_clone().unwrap());
        Ok::<_, Failure>((file.stream_position().unwrap(), notes))
    };
    // As it was: nobody is told anything.
    let replace = |from: &Path| IfChanged::Replace(Replacement { from: bytes(from) });
    let saved = world.file("saved", b"9876543210");
    let policies = [IfChanged::Strict, IfChanged::Ignore, IfChanged::Append, replace(&saved)];
    for if_changed in policies {
        assert_eq!(open_one(if_changed).unwrap(), (3, Vec::new()));
    }
    std::fs::write(&path, "0123456789+").unwrap();
    let failure = open_one(IfChanged::Strict).unwrap_err();
    assert!(failure.chain[0].contains("it had 10 bytes, and has 11"), "{failure:?}");
    let (position, notes) = open_one(IfChanged::Ignore).unwrap();
    assert!(position == 3 && notes[0].contains("which its `if_changed` ignores"), "{position} {notes:?}");
    let (position, notes) = open_one(IfChanged::Append).unwrap();
    assert!(position == 11 && notes[0].contains("writing goes on at its end"), "{position} {notes:?}");
    // Another content takes its place; what is no such content does not.
    for (from, words) in [(world.file("short", b"1"), "has 1 bytes"), (world.path("nowhere"), "not found")] {
        let failure = open_one(replace(&from)).unwrap_err();
        assert!(failure.kind == Kind::Incompatible && failure.chain[0].contains(words), "{failure:?}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"0123456789+");
    let (position, notes) = open_one(replace(&saved)).unwrap();
    assert!(position == 3 && notes[0].contains("and replaced by"), "{position} {notes:?}");
    assert_eq!(std::fs::read(&path).unwrap(), b"9876543210");
    // From now on it is as it was.
    assert_eq!(open_one(IfChanged::Strict).unwrap(), (3, Vec::new()));
}

#[test]
fn directories_and_devices_that_are_something_else() {
    let world = World::new();
    let plain = world.file("plain", b"");
    let file = |kind| File { flags: OpenFlags(0), position: 0, owner: None, kind };
    let directory =
        |path: &Path| file(FileKind::Directory(Directory { path: bytes(path), listing: None, deleted: None }));
    let device = |path: &str, major, minor| file(FileKind::Device(Device { path: path.into(), major, minor }));
    let failure = refused(
        &world,
        &[
            directory(&plain),
            directory(&world.path("nowhere")),
            device("/dev/null", 1, 5),
            device(plain.to_str().unwrap(), 1, 3),
        ],
    );
    assert_eq!(failure.kind, Kind::Incompatible);
    let words =
        ["it is no directory here", "not found", "is not the character device 1:5", "is not the character device 1:3"];
    assert_eq!(failure.chain.len(), words.len(), "{failure:#?}");
    for (entry, words) in failure.chain.iter().zip(words) {
        assert!(entry.contains(words), "{entry:?} does not say {words:?}");
    }
    // A device whose opening can do something is not even looked at.
    let failure = refused(&world, &[device("/dev/watchdog", 10, 130)]);
    assert_eq!(failure.kind, Kind::BadImage);
}

#[test]
fn files_of_the_kernel_that_are_none_here() {
    let world = World::new();
    let plain = world.file("plain", b"");
    for (path, file_system, words) in [
        (plain.as_path(), PseudoFileSystem::Proc, "it is no file of the proc file system here"),
        ("/proc/nothing".as_ref(), PseudoFileSystem::Proc, "not found"),
        ("/proc/stat".as_ref(), PseudoFileSystem::Cgroup2, "it is no file of the cgroup2 file system here"),
    ] {
        let kind = FileKind::Pseudo(PseudoFile { file_system, path: bytes(path), at_end: false });
        let files = BTreeMap::from([(FileId(0), File { flags: OpenFlags(0), position: 0, owner: None, kind })]);
        let image = world.image(&Descriptors { files, ..Descriptors::default() });
        let root = std::fs::File::open("/").unwrap();
        let mut open = BTreeMap::new();
        let root = std::os::fd::AsFd::as_fd(&root);
        let failure = crfs::resource::descriptor::open_pseudo_files(&image, &Roots::only(root), &mut open).unwrap_err();
        assert_eq!(failure.kind, Kind::Incompatible);
        assert!(failure.chain[0].contains(words), "{failure:?}");
    }
}

#[test]
fn no_path_leads_out_of_the_root() {
    let world = World::new();
    let inside = world.path("root");
    std::fs::create_dir(&inside).unwrap();
    world.file("secret", b"0123456789");
    std::os::unix::fs::symlink("../../../secret", inside.join("link")).unwrap();
    let mut file = regular(&world.path("secret"), 0);
    for path in ["/../secret", "/link"] {
        let FileKind::Regular(record) = &mut file.kind else { panic!() };
        record.path = path.into();
        let files = BTreeMap::from([(FileId(0), file.clone())]);
        let image = world.image(&Descriptors { files, ..Descriptors::default() });
        let root = std::fs::File::open(&inside).unwrap();
        let failure = crfs::resource::descriptor::open_all(
            &image,
            world.dir.path(),
            &Roots::only(std::os::fd::AsFd::as_fd(&root)),
            &world.log(),
            &crfs::resource::unnamed::Made::default(),
            &mut Vec::new(),
        );
        let failure = failure.unwrap_err();
        assert!(failure.chain[0].contains("not found"), "{failure:?}");
    }
}

#[test]
fn pipes_that_cannot_be() {
    let world = World::new();
    let good = Pipe { pipe: 1, capacity: 65536, queued: 3, packets: Vec::new() };
    let ends = |record: &Pipe| [pipe(0, record.clone()), pipe(WRONLY, record.clone())];
    let says = |files: &[File], words: &str| {
        let failure = refused(&world, files);
        assert_eq!(failure.kind, Kind::BadImage, "{failure:?}");
        assert!(failure.chain.iter().any(|entry| entry.contains(words)), "{failure:?} does not say {words:?}");
    };
    std::fs::create_dir_all(world.path("files")).unwrap();
    says(&ends(&good), "files/pipe.1: missing");
    world.file("files/pipe.1", b"abcd");
    says(&ends(&good), "it has 4 bytes, and the record says 3");
    world.file("files/pipe.1", b"abc");
    open(&world, &ends(&good), &mut Vec::new()).unwrap();
    says(&ends(&Pipe { capacity: 2, ..good.clone() }), "3 bytes do not fit into a pipe of 2");
    says(&ends(&Pipe { capacity: 5000, ..good.clone() }), "capacity 5000 is none that a pipe can have");
    says(&ends(&Pipe { capacity: 1 << 40, ..good.clone() }), "is none that a pipe can have");
    let [reader, _] = ends(&good);
    let other = pipe(WRONLY, Pipe { capacity: 4096, ..good.clone() });
    says(&[reader.clone(), other], "capacity and queued differ");
    says(&[reader.clone(), pipe(3, good.clone())], "exclude each other");
    says(&[reader, pipe(1 << 40, good)], "cannot be restored");
}

#[test]
fn fifos_that_are_not_as_they_were() {
    let world = World::new();
    let [good, path, other] = ["good", "fifo", "other"].map(|name| world.path(name));
    for path in [&good, &path, &other] {
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let plain = world.file("plain", b"");
    std::fs::create_dir_all(world.path("files")).unwrap();
    world.file("files/pipe.1", b"abc");
    let end = |path: &Path, flags| {
        let pipe = Pipe { pipe: 1, capacity: 65536, queued: 3, packets: Vec::new() };
        let kind = FileKind::Fifo(Fifo { path: bytes(path), awaits_writer: false, pipe });
        File { flags: OpenFlags(flags), position: 0, owner: None, kind }
    };
    let says = |files: &[File], words: &str| {
        let failure = refused(&world, files);
        assert_eq!((failure.kind, failure.chain.len()), (Kind::Incompatible, 1), "{failure:?}");
        assert!(failure.chain[0].starts_with("files/0x0000000") && failure.chain[0].contains(words), "{failure:?}");
    };
    open(&world, &[end(&good, 0), end(&good, WRONLY)], &mut Vec::new()).unwrap();
    says(&[end(&world.path("vanished"), 0)], "not found");
    says(&[end(&plain, 0)], "it is no FIFO here");
    says(&[end(&path, 0), end(&other, RDWR)], "it is another FIFO than");
    // Somebody reads, writes, or left something.
    let mut both = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    says(&[end(&path, 0)], "somebody else has it open");
    let opened = |read| std::fs::File::options().read(read).write(!read).open(&path).unwrap();
    let (reader, writer) = (opened(true), opened(false));
    both.write_all(b"x").unwrap();
    drop((both, reader));
    says(&[end(&path, 0)], "somebody else has it open");
    drop(writer);
    // A process that another test forks meanwhile has it too, until it has closed what it inherited.
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(failure) = open(&world, &[end(&path, 0)], &mut Vec::new()) {
        assert!(Instant::now() < until, "{failure:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn records_that_cannot_be_true() {
    let world = World::new();
    let data = world.file("data", b"0123456789");
    let time = |sec| Timespec { sec, nsec: 0 };
    let timer = Timerfd { clock: 1, settime_flags: 0, remaining: time(0), interval: time(0), ticks: Hex(0) };
    let timerfd = |record| File { flags: OpenFlags(RDWR), position: 0, owner: None, kind: FileKind::Timerfd(record) };
    let full = Eventfd { count: Hex(u64::MAX), semaphore: false };
    let mut far = regular(&data, 0);
    far.position = u64::MAX;
    let files = [
        timerfd(Timerfd { clock: 3, ..timer.clone() }),
        timerfd(Timerfd { settime_flags: 4, ..timer.clone() }),
        timerfd(Timerfd { remaining: time(-1), ..timer }),
        File { flags: OpenFlags(RDWR), position: 0, owner: None, kind: FileKind::Eventfd(full) },
        far,
        regular(&data, 0o100),
    ];
    let failure = refused(&world, &files);
    assert_eq!((failure.kind, failure.chain.len()), (Kind::BadImage, files.len()), "{failure:#?}");
}

#[test]
fn a_directory_that_changed_in_the_middle_of_its_listing() {
    let world = World::new();
    let path = world.path("many");
    std::fs::create_dir(&path).unwrap();
    let found = std::fs::metadata(&path).unwrap();
    let modified = found.modified().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let modified = Timespec::from_ns(modified.as_nanos().try_into().unwrap());
    let listing = Some(Listing { inode: std::os::unix::fs::MetadataExt::ino(&found), modified });
    let kind = FileKind::Directory(Directory { path: bytes(&path), listing, deleted: None });
    let file = File { flags: OpenFlags(0), position: 9, owner: None, kind };
    open(&world, std::slice::from_ref(&file), &mut Vec::new()).unwrap();
    let later = SystemTime::now() + Duration::from_secs(10);
    std::fs::File::open(&path).unwrap().set_modified(later).unwrap();
    let failure = refused(&world, &[file]);
    assert_eq!(failure.kind, Kind::Incompatible);
    assert!(failure.chain[0].contains("in the middle of listing it"), "{failure:?}");
}

#[test]
fn a_place_where_something_else_stands() {
    let world = World::new();
    let path = world.file("plain", b"");
    let kind = FileKind::PathOnly(PathOnly { path: bytes(&path), file_type: PathType::SymbolicLink });
    let flags = OpenFlags(OpenFlags::O_PATH.0 | OpenFlags::O_NOFOLLOW.0);
    let failure = refused(&world, &[File { flags, position: 0, owner: None, kind }]);
    assert_eq!(failure.kind, Kind::Incompatible);
    assert!(failure.chain[0].contains("it is no symbolic link here"), "{failure:?}");
}

#[test]
fn a_lease_on_a_file_that_is_open_elsewhere() {
    let world = World::new();
    let path = world.file("leased", b"");
    let files = BTreeMap::from([(FileId(0), regular(&path, 0))]);
    let lock = Lock { file: FileId(0), kind: LockKind::Lease, process: Pid(1), exclusive: false, start: 0, end: None };
    let image = world.image(&Descriptors { files, locks: vec![lock], ..Descriptors::default() });
    let writer = std::fs::File::options().write(true).open(&path).unwrap();
    let failure = world.open_all(&image, &mut Vec::new()).unwrap_err();
    assert_eq!(failure.kind, Kind::Incompatible);
    assert!(failure.chain[0].contains("somebody else holds a lock on what files/0x00000000 names"), "{failure:?}");
    drop(writer);
    world.open_all(&image, &mut Vec::new()).unwrap();
}

#[test]
fn an_epoll_instance_where_nothing_is_open() {
    let world = World::new();
    let target = EpollTarget { fd: 7, file: FileId(0), events: Hex(1), data: Hex(0) };
    let epoll = FileKind::Epoll(Epoll { targets: vec![target] });
    let files = BTreeMap::from([(FileId(0), File { flags: OpenFlags(RDWR), position: 0, owner: None, kind: epoll })]);
    let image = world.image(&Descriptors { files, ..Descriptors::default() });
    let failure = crfs::resource::epoll::registrations(&image).unwrap_err();
    assert_eq!(failure.kind, Kind::BadImage);
    assert!(failure.chain[0].starts_with("files/0x00000000: no process has any descriptor"), "{failure:?}");
}

#[test]
fn the_log_is_joined_again() {
    let world = World::new();
    let old = world.file("the log of another container", b"before\n");
    let mut file = regular(&old, RDWR);
    std::fs::remove_file(&old).unwrap();
    file.position = 0;
    let stdios = vec![Stdio { file: FileId(0), stream: Stream::Log }];
    let files = BTreeMap::from([(FileId(0), file)]);
    let image = world.image(&Descriptors { files, stdios: stdios.clone(), ..Descriptors::default() });
    std::fs::write(world.log(), "here\n").unwrap();
    let open = world.open_all(&image, &mut Vec::new()).unwrap();
    let mut log = std::fs::File::from(open[&FileId(0)].try_clone().unwrap());
    log.write_all(b"goes on\n").unwrap();
    log.rewind().unwrap();
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    assert_eq!(text, "here\ngoes on\n");

    let nobody = world.image(&Descriptors { stdios, ..Descriptors::default() });
    assert_eq!(world.open_all(&nobody, &mut Vec::new()).unwrap_err().kind, Kind::BadImage);
}
