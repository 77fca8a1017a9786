//! Every check against the golden image with exactly one thing wrong in it: that, and nothing else, is told.

use crate::golden;
use image_format::contents::ContentSum;
use image_format::files::{File, FileKind, OpenFlags, RegularFile, Stdio, Stream};
use image_format::image::ImageError;
use image_format::manifest::{NamespaceKind, PathEntry, PathKind};
use image_format::memory::{CHUNK_SIZE, ChunkSum, Fixed};
use image_format::process::{EndedThread, Fd, JobControl, Limit, Process, Shares, Stopped, Zombie};
use image_format::signal::Signal;
use image_format::thread::{Directories, Registers, ThreadAttr};
use image_format::{Address, Blob, Bytes, FileId, Image, Octal, Pid, ProcessImage, ThreadImage, Timespec, check};

/// An edit of the golden image, and all of what must be said about it.
pub(crate) type Defect = (fn(&mut Image), &'static str);

pub(crate) const FIRST: Pid = Pid(1);
pub(crate) const CHILD: Pid = Pid(0x3002);
pub(crate) const THREAD: Pid = Pid(0x3003);

pub(crate) fn process(image: &mut Image, pid: Pid) -> &mut ProcessImage {
    image.processes.get_mut(&pid).unwrap()
}
pub(crate) fn record(image: &mut Image) -> &mut Process {
    &mut process(image, CHILD).process
}
pub(crate) fn thread(image: &mut Image) -> &mut ThreadImage {
    process(image, FIRST).threads.get_mut(&FIRST).unwrap()
}
pub(crate) fn attr(image: &mut Image) -> &mut ThreadAttr {
    &mut thread(image).attr
}
pub(crate) fn registers(image: &mut Image) -> &mut Registers {
    &mut thread(image).frame.registers
}
pub(crate) fn zombie(image: &mut Image) -> &mut Zombie {
    &mut thread(image).zombies[0]
}
pub(crate) fn file(image: &mut Image, id: u32) -> &mut File {
    image.files.get_mut(&FileId(id)).unwrap()
}

/// Applies each defect to a fresh golden image whose manifest then lists what the records need, and compares.
pub(crate) fn each_is_told(defects: &[Defect]) {
    for (edit, expected) in defects {
        let mut image = golden::image();
        edit(&mut image);
        image.manifest.paths = image.paths();
        let told = check::image(&image, &golden::sizes(&image));
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert_eq!(told, [*expected]);
    }
}

#[test]
fn manifest_paths() {
    let entry = |path: &str, kind, size| PathEntry { path: path.to_owned(), kind, size };
    let at = |paths: &[PathEntry], path: &str| paths.iter().position(|entry| entry.path == path).unwrap();
    type Edit<'a> = &'a dyn Fn(&mut Vec<PathEntry>);
    let edits: [(Edit, &str); 14] = [
        (&|p| drop(p.remove(at(p, "files/0x00000003"))), "\"files/0x00000003\" is missing"),
        (&|p| drop(p.remove(at(p, "0x00003002/0x00003003"))), "\"0x00003002/0x00003003\" is missing"),
        (&|p| p.insert(0, p[0].clone()), "\"0x00000001\" is listed twice"),
        (&|p| p.swap(3, 4), "\"0x00000001/0x00000001/signal\" is not in its sorted place"),
        (
            &|p| p.insert(at(p, "mounts"), entry("manifest", PathKind::Object, None)),
            "\"manifest\" is no path of an image",
        ),
        (
            &|p| p.push(entry("zz/../../etc/passwd", PathKind::Raw, Some(1))),
            "\"zz/../../etc/passwd\" is no path of an image",
        ),
        (&|p| p.insert(1, entry("0x00000001/", PathKind::Raw, Some(1))), "\"0x00000001/\" is no path of an image"),
        (
            &|p| p.insert(1, entry("0x00000001/0x00000000", PathKind::Directory, None)),
            "\"0x00000001/0x00000000\" is a file that no record leads to",
        ),
        (
            &|p| p.insert(at(p, "files/stdios"), entry("files/pipe.2", PathKind::Raw, Some(0))),
            "\"files/pipe.2\" is a file that no record leads to",
        ),
        (
            &|p| {
                let n = at(p, "sysv.sem");
                p[n].kind = PathKind::Object;
            },
            "\"sysv.sem\" is of kind Lines, listed as Object",
        ),
        (
            &|p| {
                let n = at(p, "sysv.sem");
                p[n].size = Some(12);
            },
            "\"sysv.sem\" has a size, which only raw files have",
        ),
        (
            &|p| {
                let n = at(p, "files/pipe.1");
                p[n].size = None;
            },
            "\"files/pipe.1\" is a raw file and has no size",
        ),
        (
            &|p| {
                let n = at(p, "files/pipe.1");
                p[n].size = Some(11);
            },
            "\"files/pipe.1\" has 11 bytes, but its records need 12",
        ),
        (
            &|p| {
                let n = at(p, "0x00000001/mem.pages");
                p[n].size = Some(1 << 60);
            },
            "\"0x00000001/mem.pages\" has 1152921504606846976 bytes, but its records need 16384",
        ),
    ];
    for (edit, expected) in edits {
        let mut image = golden::image();
        edit(&mut image.manifest.paths);
        let told = check::image(&image, &golden::sizes(&golden::image()));
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert_eq!(told, [format!("manifest: paths: {expected}")]);
    }
}

#[test]
fn raw_files() {
    let image = golden::image();
    let golden = golden::sizes(&image);
    let with = |size| move |path: &str| if path == "files/pipe.1" { size } else { golden(path) };
    let path = "files/pipe.1".to_owned();
    assert_eq!(check::image(&image, &with(None)), [ImageError::Missing { path: path.clone() }]);
    let golden = golden::sizes(&image);
    let with = |size| move |path: &str| if path == "files/pipe.1" { size } else { golden(path) };
    let reason = "holds 11 bytes where the manifest says 12".to_owned();
    assert_eq!(check::image(&image, &with(Some(11))), [ImageError::Content { path, reason }]);
}

#[test]
fn manifest_fields() {
    each_is_told(&[
        (
            |i| i.manifest.format = 3,
            "manifest: format 3 is not known here: this program reads format 2; use one that reads format 3",
        ),
        (
            |i| i.manifest.clocks.realtime.nsec = 1_000_000_000,
            "manifest: clocks.realtime: 1000000000 nanoseconds are a second or more",
        ),
        (
            |i| i.manifest.clocks.monotonic.nsec = u32::MAX,
            "manifest: clocks.monotonic: 4294967295 nanoseconds are a second or more",
        ),
        (
            |i| i.manifest.clocks.boottime.nsec = 1_000_000_000,
            "manifest: clocks.boottime: 1000000000 nanoseconds are a second or more",
        ),
        (
            |i| i.manifest.container.root = Some("srv".into()),
            "manifest: container.root: \"srv\" is not an absolute path",
        ),
        (
            |i| {
                i.mounts.clear();
                i.trees.clear();
                i.manifest.container.root = Some("/srv".into());
                i.manifest.container.host_namespaces.insert(NamespaceKind::Mnt);
            },
            "manifest: container.host_namespaces: mnt: with a root of its own it must have mounts of its own",
        ),
        (
            |i| i.manifest.container.hostname = vec![b'h'; 65].into(),
            concat!(
                "manifest: container.hostname: \"hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh\"",
                " is not at most 64 bytes without NUL"
            ),
        ),
        (
            |i| i.manifest.container.domainname = vec![0].into(),
            "manifest: container.domainname: \"\\\\x00\" is not at most 64 bytes without NUL",
        ),
        (
            |i| {
                i.manifest.container.host_namespaces.insert(NamespaceKind::Net);
                i.manifest.container.loopback = false;
            },
            "manifest: container.loopback: false, and `net` is shared with the host",
        ),
    ]);
}

#[test]
fn ids() {
    each_is_told(&[
        (|i| record(i).pid = Pid(7), "0x00003002/process: pid: 7 in the directory of process 12290"),
        (
            |i| {
                let leader = process(i, CHILD).threads.remove(&CHILD).unwrap();
                process(i, CHILD).threads.insert(Pid(0x3004), leader);
            },
            "0x00003002/thread.list: thread 12290, the group leader, is missing",
        ),
        (
            |i| {
                let thread = process(i, CHILD).threads[&THREAD].clone();
                process(i, CHILD).threads.insert(Pid(1 << 22), thread);
            },
            "0x00003002: thread 4194304: ids are 1 to 4194303",
        ),
        (
            |i| {
                let thread = process(i, CHILD).threads[&THREAD].clone();
                process(i, CHILD).threads.insert(Pid(0), thread);
            },
            "0x00003002: thread 0: ids are 1 to 4194303",
        ),
        (
            |i| {
                let thread = process(i, CHILD).threads[&THREAD].clone();
                process(i, CHILD).threads.insert(Pid(1), thread);
            },
            "0x00003002: thread 1 has the id of a thread of 0x00000001",
        ),
    ]);
}

#[test]
fn zombies() {
    each_is_told(&[
        (|i| zombie(i).pid = Pid(0), "0x00000001/0x00000001/wait.zombies: line 1: pid 0: ids are 1 to 4194303"),
        (
            |i| zombie(i).pid = THREAD,
            "0x00000001/0x00000001/wait.zombies: line 1: pid 12291 is taken by a task of 0x00003002",
        ),
        (
            |i| {
                let twin = zombie(i).clone();
                thread(i).zombies.push(twin);
            },
            "0x00000001/0x00000001/wait.zombies: line 2: pid 5 is taken by a task of 0x00000001/0x00000001/wait.zombies",
        ),
        (
            |i| zombie(i).name = "sixteen bytes ab".into(),
            "0x00000001/0x00000001/wait.zombies: line 1: name: \"sixteen bytes ab\" is not at most 15 bytes without NUL",
        ),
        (
            |i| zombie(i).status = 0x137f,
            "0x00000001/0x00000001/wait.zombies: line 1: status 0x137f is none that wait(2) gives for an end",
        ),
        (
            |i| zombie(i).status = 0x1_0000,
            "0x00000001/0x00000001/wait.zombies: line 1: status 0x10000 is none that wait(2) gives for an end",
        ),
    ]);
}

#[test]
fn ends_that_wait_tells() {
    for status in [0, 0xff00, 9, 64, 0x8b] {
        let mut image = golden::image();
        zombie(&mut image).status = status;
        assert_eq!(check::image(&image, &golden::sizes(&image)), [], "{status:#x}");
    }
}

#[test]
fn parents() {
    each_is_told(&[
        (|i| record(i).parent = Pid(99), "0x00003002/process: parent: there is no process 99"),
        (
            |i| record(i).parent = Pid(0),
            "0x00003002/process: parent: 0, which is already said by process 1: there is one root",
        ),
        (
            |i| _ = i.manifest.container.host_namespaces.insert(NamespaceKind::Pid),
            "0x00000001/process: pid: 1 in a pid namespace shared with the host is the host's",
        ),
        (|i| record(i).parent = CHILD, "0x00003002/process: parent: it is its own ancestor"),
        (|i| process(i, FIRST).process.parent = CHILD, "0x00000001/process: parent: it is its own ancestor"),
        (
            |i| {
                i.processes.clear();
                i.cgroups.clear();
                i.namespaces.clear();
                i.files.values_mut().for_each(|file| file.owner = None);
                i.locks.clear();
                i.stdios = i.files.keys().map(|&file| Stdio { file, stream: Stream::Log }).collect();
            },
            "manifest: paths: an image has at least one process",
        ),
    ]);
}

#[test]
fn parents_by_thread() {
    each_is_told(&[
        (|i| record(i).parent_thread = Some(Pid(88)), "0x00003002/process: parent_thread: process 1 has no thread 88"),
        (|i| record(i).parent_thread = Some(FIRST), "0x00003002/process: parent_thread: 1, which null stands for"),
    ]);
}

#[test]
fn sharing() {
    fn sharer(image: &mut Image) -> &mut ProcessImage {
        let ProcessImage { process: first, ldt, attr, .. } = image.processes[&FIRST].clone();
        let child = process(image, CHILD);
        (child.ldt, child.attr.memory) = (ldt, attr.memory);
        let all = Some(FIRST);
        child.process.shares = Shares { memory: all, descriptors: all, directories: all, signal_actions: all };
        (child.process.exe, child.process.layout) = (first.exe, first.layout);
        (child.process.cwd, child.process.root, child.process.umask) = (first.cwd, first.root, first.umask);
        (child.segments, child.fds, child.actions) = (vec![], vec![], vec![]);
        child
    }
    let told = |edit: fn(&mut Image)| {
        let mut image = golden::image();
        edit(&mut image);
        image.manifest.paths = image.paths();
        let told = check::image(&image, &golden::sizes(&image));
        told.iter().map(ToString::to_string).filter(|told| told.contains("0x00003002")).collect::<Vec<_>>()
    };
    let right = |image: &mut Image| {
        sharer(image);
    };
    assert_eq!(told(right), [""; 0]);
    let umask = "0x00003002/process: umask: process 1 has another, and they share it";
    assert_eq!(told(|i| sharer(i).process.umask = Octal(0o11)), [umask]);
    let missing = "0x00003002/process: shares.memory: there is no process 9";
    assert_eq!(told(|i| sharer(i).process.shares.memory = Some(Pid(9))), [missing]);
    let own = "0x00003002/process: shares.memory: process 12290 says itself that it is another's";
    assert_eq!(told(|i| sharer(i).process.shares.memory = Some(CHILD)), [own]);
    let without = "0x00003002/process: shares.signal_actions: only processes with the same memory share them";
    assert_eq!(told(|i| sharer(i).process.shares.memory = None), [without]);
    let made = "0x00003002/process: shares: neither its parent, nor who has all of it, can have made the process";
    let unmakeable = |image: &mut Image| {
        let child = sharer(image);
        (child.process.exit_signal, child.process.session) = (None, Pid(77));
    };
    assert!(told(unmakeable).contains(&made.to_owned()));
    let policy = "0x00003002/attr: memory: process 1 has another, and they share memory";
    assert_eq!(told(|i| sharer(i).attr.memory.merge ^= true), [policy]);
    let lines = "0x00003002/fds: has lines, which stand with process 1";
    assert_eq!(
        told(|i| {
            let fds = process(i, CHILD).fds.clone();
            sharer(i).fds = fds;
        }),
        [lines]
    );
}

#[test]
fn descriptors_of_a_thread() {
    fn own(image: &mut Image, tid: Pid) -> &mut Fd {
        let fds = process(image, CHILD).threads.get_mut(&tid).unwrap().fds.insert(vec![]);
        fds.push(Fd { fd: 3, file: FileId(0), cloexec: false });
        &mut fds[0]
    }
    let mut image = golden::image();
    own(&mut image, THREAD);
    image.manifest.paths = image.paths();
    assert_eq!(check::image(&image, &golden::sizes(&image)), []);
    each_is_told(&[
        (
            |i| drop(own(i, CHILD).clone()),
            "0x00003002/0x00003002/fds: the first thread has the descriptors of its process",
        ),
        (|i| own(i, THREAD).file = FileId(99), "0x00003002/0x00003003/fds: line 1: there is no files/0x00000063"),
        (
            |i| own(i, THREAD).fd = 1 << 30,
            "0x00003002/0x00003003/fds: line 1: descriptor 1073741824 is beyond 1073741823",
        ),
    ]);
    image.manifest.paths.retain(|entry| entry.path != "0x00003002/0x00003003/fds");
    let told: Vec<String> = check::image(&image, &golden::sizes(&image)).iter().map(ToString::to_string).collect();
    assert_eq!(told, ["manifest: paths: \"0x00003002/0x00003003/fds\" is missing"]);
}

#[test]
fn a_first_thread_that_has_ended() {
    fn ended(image: &mut Image) -> &mut EndedThread {
        process(image, CHILD).threads.remove(&CHILD);
        let ended = EndedThread { name: Bytes::from("first"), uid: [0; 4], gid: [0; 4], status: 0x300 };
        record(image).first_thread_ended.insert(ended)
    }
    each_is_told(&[
        (
            |i| ended(i).status = 9,
            "0x00003002/process: first_thread_ended: status 0x9 is none of a thread that has called exit",
        ),
        (
            |i| ended(i).name = Bytes::from("longer than any name"),
            "0x00003002/process: first_thread_ended: name: \"longer than any name\" is not at most 15 bytes without NUL",
        ),
        (
            |i| {
                let leader = process(i, CHILD).threads[&CHILD].clone();
                ended(i);
                process(i, CHILD).threads.insert(CHILD, leader);
            },
            "0x00003002/thread.list: thread 12290 is listed, and process says that it has ended (first_thread_ended)",
        ),
    ]);
}

#[test]
fn job_control() {
    fn stopped_by(process: &mut Process, signal: u8) {
        process.job_control = JobControl::Stopped(Stopped { signal: Signal(signal), told: false });
    }
    each_is_told(&[
        (|i| stopped_by(record(i), 15), "0x00003002/process: job_control: SIGTERM stops no process"),
        (
            |i| stopped_by(&mut process(i, FIRST).process, 20),
            "0x00000001/process: job_control: SIGTSTP does not stop the first process",
        ),
    ]);
}

#[test]
fn groups_and_sessions() {
    each_is_told(&[
        (
            |i| record(i).group = Pid(0),
            "0x00003002/process: group, session: 0 is one that lies outside of the container",
        ),
        (
            |i| record(i).session = Pid(0),
            "0x00003002/process: group, session: 0 is one that lies outside of the container",
        ),
        (|i| record(i).session = CHILD, "0x00003002/process: group: 1, but a session leader leads its own group"),
        (
            |i| zombie(i).session = CHILD,
            "0x00000001/0x00000001/wait.zombies: line 1: session: 12290, but process 12290 is in session 1",
        ),
        (
            |i| record(i).session = Pid(77),
            "0x00003002/process: session: 77, but its group 1 is in session 1 by process 1",
        ),
        (
            |i| (record(i).group, record(i).session) = (Pid(5), Pid(77)),
            "0x00003002/process: session: 77, but its group 5 is in session 1 by process 5",
        ),
        (
            |i| {
                let mut other = zombie(i).clone();
                (other.pid, other.group, other.session) = (Pid(6), Pid(70), Pid(71));
                thread(i).zombies.push(other);
                record(i).group = Pid(70);
            },
            "0x00000001/0x00000001/wait.zombies: line 2: session: 71, but its group 70 is in session 1 by process 12290",
        ),
        (|i| record(i).group = THREAD, "0x00003002/process: group: 12291 is the id of a thread of process 12290"),
        (
            |i| (zombie(i).group, zombie(i).session) = (Pid(70), THREAD),
            "0x00000001/0x00000001/wait.zombies: line 1: session: 12291 is the id of a thread of process 12290",
        ),
        (|i| record(i).group = Pid(1 << 22), "0x00003002/process: group: 4194304: ids are 1 to 4194303"),
    ]);
}

#[test]
fn trees_that_programs_make() {
    let edits: [fn(&mut Image); 4] = [
        // A session of its own, and one whose leader is dead.
        |i| (record(i).group, record(i).session) = (CHILD, CHILD),
        |i| (record(i).group, record(i).session) = (Pid(70), Pid(71)),
        // The leader of a group that moved on to another: its group lives without it.
        |i| zombie(i).group = CHILD,
        // A group of a dead child.
        |i| record(i).group = Pid(5),
    ];
    for edit in edits {
        let mut image = golden::image();
        edit(&mut image);
        assert_eq!(check::image(&image, &golden::sizes(&image)), []);
    }
}

#[test]
fn process_values() {
    each_is_told(&[
        (|i| record(i).exe = "worker".into(), "0x00003002/process: exe: \"worker\" is not an absolute path"),
        (
            |i| record(i).cwd = "(unreachable)/srv".into(),
            "0x00003002/process: cwd: \"(unreachable)/srv\" is not an absolute path",
        ),
        (|i| record(i).root = vec![b'/', 0].into(), "0x00003002/process: root: \"/\\\\x00\" holds a NUL"),
        (|i| record(i).umask = Octal(0o1000), "0x00003002/process: umask: 01000 is beyond 0777"),
        (
            |i| assert!(record(i).limits.insert("RLIMIT_FILES".into(), Limit { soft: None, hard: None }).is_none()),
            "0x00003002/process: limits.RLIMIT_FILES: no such limit",
        ),
        (
            |i| assert!(record(i).limits.remove("RLIMIT_CORE").is_some()),
            "0x00003002/process: limits.RLIMIT_CORE: missing: a process has all of them",
        ),
        (
            |i| record(i).limits.get_mut("RLIMIT_NOFILE").unwrap().soft = Some(4097),
            "0x00003002/process: limits.RLIMIT_NOFILE: the soft limit is above the hard one",
        ),
        (
            |i| record(i).limits.get_mut("RLIMIT_NOFILE").unwrap().soft = None,
            "0x00003002/process: limits.RLIMIT_NOFILE: the soft limit is above the hard one",
        ),
        (|i| process(i, CHILD).attr.dumpable = 3, "0x00003002/attr: dumpable 3: it is 0, 1 or 2"),
        (|i| process(i, CHILD).attr.oom_score_adj = -1001, "0x00003002/attr: oom_score_adj -1001: it is -1000 to 1000"),
    ]);
}

#[test]
fn memory_layout() {
    each_is_told(&[
        (
            |i| record(i).layout.start_stack = Address(check::ADDRESS_LIMIT),
            "0x00003002/process: layout.start_stack: 0x7ffffffff000 is no user space address",
        ),
        (
            |i| record(i).layout.env_end = Address(u64::MAX),
            "0x00003002/process: layout.env_end: 0xffffffffffffffff is no user space address",
        ),
        (
            |i| record(i).layout.end_code = Address(0x400000),
            "0x00003002/process: layout.end_code: the start 0x400000 is not before the end 0x400000",
        ),
        (
            |i| record(i).layout.start_data = Address(0x401201),
            "0x00003002/process: layout.end_data: the start 0x401201 is not before the end 0x401200",
        ),
        (
            |i| record(i).layout.brk = Address(0x601fff),
            "0x00003002/process: layout.brk: the start 0x602000 is not before the end 0x601fff",
        ),
        (
            |i| record(i).layout.arg_end = Address(0x5000),
            "0x00003002/process: layout.arg_end: the start 0x7ffc00002f00 is not before the end 0x5000",
        ),
        (
            |i| record(i).layout.env_end = Address(0x5000),
            "0x00003002/process: layout.env_end: the start 0x7ffc00002f11 is not before the end 0x5000",
        ),
        (
            |i| record(i).layout.auxv.0.truncate(24),
            "0x00003002/process: layout.auxv: 24 bytes are no auxiliary vector: pairs of 8 bytes, below 4096",
        ),
        (
            |i| record(i).layout.auxv = Blob(vec![0; 4096]),
            "0x00003002/process: layout.auxv: 4096 bytes are no auxiliary vector: pairs of 8 bytes, below 4096",
        ),
    ]);
}

#[test]
fn directories_of_threads() {
    fn own(image: &mut Image) -> &mut Directories {
        let threads = process(image, CHILD).threads.values_mut();
        threads.filter_map(|thread| thread.attr.directories.as_mut()).next().unwrap()
    }
    each_is_told(&[
        (|i| own(i).umask = Octal(0o1000), "0x00003002/0x00003003/attr: directories.umask: 01000 is beyond 0777"),
        (
            |i| attr(i).directories = Some(own(i).clone()),
            "0x00000001/0x00000001/attr: directories: those of the first thread are the process's",
        ),
    ]);
    let mut image = golden::image();
    own(&mut image).cwd = "relative".into();
    let told = check::image(&image, &golden::sizes(&image));
    assert!(told.iter().any(|told| told.to_string().contains("directories.cwd: ")), "{told:?}");
}

#[test]
fn everything_is_told_at_once() {
    let mut image = golden::image();
    attr(&mut image).affinity.clear();
    record(&mut image).umask = Octal(0o1000);
    file(&mut image, 3).kind = FileKind::Regular(RegularFile {
        path: "relative".into(),
        size: 0,
        modified: Timespec { sec: 0, nsec: 2_000_000_000 },
        if_changed: image_format::files::IfChanged::Default,
    });
    file(&mut image, 3).flags = OpenFlags::default();
    assert_eq!(check::image(&image, &golden::sizes(&image)).len(), 4);
}

#[test]
fn sums_follow_the_pages() {
    let sum = |n| ChunkSum { chunk: Fixed(n), xxh3: Fixed(0) };
    let told = |chunks: &[u64], size| -> Vec<String> {
        let sums: Vec<_> = chunks.iter().map(|&n| sum(n)).collect();
        check::sums(CHILD, &sums, size).iter().map(ToString::to_string).collect()
    };
    assert!(told(&[], 0).is_empty());
    assert!(told(&[0], 1).is_empty());
    assert!(told(&[0, 1], CHUNK_SIZE + 1).is_empty());
    assert_eq!(
        told(&[0, 2], 2 * CHUNK_SIZE),
        ["0x00003002/mem.sums: line 2: chunk 0x2 stands where chunk 0x1 belongs"]
    );
    assert_eq!(told(&[0], 2 * CHUNK_SIZE), ["0x00003002/mem.sums: 1 chunks, but mem.pages has 2: 2097152 bytes"]);
    assert_eq!(told(&[0, 1], CHUNK_SIZE), ["0x00003002/mem.sums: 2 chunks, but mem.pages has 1: 1048576 bytes"]);
}

#[test]
fn content_sums_follow_the_files() {
    let sum = |path: &str, n| ContentSum { path: path.to_owned(), chunk: Fixed(n), xxh3: Fixed(0) };
    let told = |sums: &[ContentSum]| -> Vec<String> {
        check::content_sums(&golden::image(), sums).iter().map(ToString::to_string).collect()
    };
    let (data, segment) = (sum("mounts.1.data", 0), sum("sysv.shm.3", 0));
    assert!(told(&[data.clone(), segment.clone()]).is_empty());
    assert_eq!(
        told(&[segment.clone(), data.clone()]),
        ["contents.sums: line 1: chunk 0x0 of \"sysv.shm.3\" stands where chunk 0x0 of \"mounts.1.data\" belongs"]
    );
    assert_eq!(told(std::slice::from_ref(&data)), ["contents.sums: chunk 0x0 of \"sysv.shm.3\" is missing"]);
    assert_eq!(
        told(&[data.clone(), sum("sysv.shm.3", 7)]),
        ["contents.sums: line 2: chunk 0x7 of \"sysv.shm.3\" stands where chunk 0x0 of \"sysv.shm.3\" belongs"]
    );
    assert_eq!(
        told(&[data, segment, sum("files/pipe.1", 0)]),
        ["contents.sums: line 3: chunk 0x0 of \"files/pipe.1\", which the image has not"]
    );
}

#[test]
fn what_is_shown_lies_in_memory() {
    const PAGE: usize = 4096;
    let files = golden::files();
    let told = |edit: fn(&mut Image, &mut Vec<u8>)| -> Vec<String> {
        let mut image = golden::image();
        let mut pages = files["0x00003002/mem.pages"].clone();
        edit(&mut image, &mut pages);
        let page = |pid: Pid, n: u64| {
            let pages = if pid == CHILD { &pages } else { &files["0x00000001/mem.pages"] };
            pages.chunks(PAGE).nth(n as usize).map(<[u8]>::to_vec)
        };
        check::shown(&image, CHILD, &page).iter().map(ToString::to_string).collect()
    };
    let refused = |name| {
        vec![format!(
            "0x00003002/process: {name}: not as in memory, where it lies: it is shown here and cannot be edited"
        )]
    };
    assert!(told(|_, _| {}).is_empty());
    assert_eq!(told(|i, _| record(i).arguments[0] = "walker".into()), refused("arguments"));
    assert_eq!(told(|i, _| record(i).arguments.clear()), refused("arguments"));
    assert_eq!(told(|i, _| record(i).environment[1] = "LANG=de".into()), refused("environment"));
    assert_eq!(told(|i, _| record(i).environment.push("A=1".into())), refused("environment"));
    assert_eq!(told(|_, pages| pages[PAGE + 0xf00] = b'W'), refused("arguments"));
    // By way of another process: its arguments are others.
    assert_eq!(
        told(|i, _| process(i, CHILD).segments[5].pages[0].source = image_format::memory::Source::Process(FIRST)),
        [refused("arguments"), refused("environment")].concat()
    );
    // Memory the image does not hold is not compared.
    assert!(
        told(|i, pages| {
            pages.truncate(PAGE);
            record(i).arguments.clear();
        })
        .is_empty()
    );
    assert!(
        told(|i, _| {
            record(i).arguments.clear();
            record(i).layout.arg_start = Address(0);
        })
        .is_empty()
    );
    // A title written over the end of the arguments is one string, up to its NUL.
    assert!(
        told(|i, pages| {
            let end = (record(i).layout.arg_end.0 & 0xfff) as usize;
            pages[PAGE + 0xf00..PAGE + end].fill(b'x');
            pages[PAGE + end] = 0;
            record(i).arguments = vec!["x".repeat(end - 0xf00).as_str().into()];
            record(i).environment = vec!["".into(), "ATH=/bin".into(), "LANG=C".into()];
        })
        .is_empty()
    );
}
