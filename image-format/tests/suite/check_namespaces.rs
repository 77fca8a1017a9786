//! The checks of namespaces that some processes are in, each against the golden image with exactly that wrong.

use crate::check::each_is_told;
use crate::golden;
use image_format::cgroups::Cgroup;
use image_format::files::{FileKind, Namespace, NamespaceType};
use image_format::mounts::{BindMount, Mount, MountKind};
use image_format::namespaces::{CgroupRoot, MountNamespace, NamespaceContent, UnsharedNamespace, UtsNames};
use image_format::sysv::SysV;
use image_format::{Bytes, FileId, Image, Pid};

#[test]
fn members() {
    each_is_told(&[
        (|i| i.namespaces[0].processes = vec![], "namespaces: line 1: processes: nobody is in it"),
        (|i| i.namespaces[0].processes.push(Pid(7)), "namespaces: line 1: processes: 7 is no process of the image"),
        (
            |i| i.namespaces[0].processes.push(Pid(1)),
            "namespaces: line 1: processes: 1 is the first process, whose namespaces are the container's own",
        ),
        (
            |i| i.namespaces.push(i.namespaces[0].clone()),
            "namespaces: line 2: processes: 12290 is in another of its type too",
        ),
    ]);
}

#[test]
fn adjustments() {
    each_is_told(&[(
        |i| i.namespaces[0].content = NamespaceContent::Ipc(SysV::default()),
        "0x00003002/sysv.semadj: line 1: there is no semaphore set 32769",
    )]);
}

/// Gives the child an ipc namespace apart with what the container's own has, and edits it.
fn with_objects(image: &mut Image, edit: impl FnOnce(&mut SysV)) {
    let mut objects = image.sysv.clone();
    edit(&mut objects);
    image.namespaces[0].content = NamespaceContent::Ipc(objects);
    image.manifest.paths = image.paths();
}

#[test]
fn objects_of_ipc_namespaces() {
    let mut sound = golden::image();
    with_objects(&mut sound, |_| {});
    assert_eq!(image_format::check::image(&sound, &golden::sizes(&sound)), []);
    let names: Vec<String> = sound.paths().into_iter().map(|entry| entry.path).collect();
    for name in ["sysv.shm.3", "sysv.shm.1.3", "sysv.msg.0", "sysv.msg.1.0"] {
        assert!(names.iter().any(|known| known == name), "{name} is missing");
        assert_eq!(image_format::layout::kind(name), Some(image_format::manifest::PathKind::Raw), "{name}");
    }
    for name in ["sysv.shm.0.3", "sysv.shm.01.3", "sysv.shm.1.03", "sysv.shm.1.", "sysv.sem.1.3", "posix.mq.1.3"] {
        assert_eq!(image_format::layout::kind(name), None, "{name}");
    }
    each_is_told(&[
        (
            |i| with_objects(i, |objects| objects.segments[0].id = 1 << 31),
            "namespaces: line 1: segments: number 1: id 2147483648: ids are below 2^31",
        ),
        (
            |i| with_objects(i, |objects| objects.queues[0].messages[0].kind = 0),
            "namespaces: line 1: queues: number 1: messages: type 0 is not from 1 to 2^63 - 1",
        ),
        (
            |i| with_objects(i, |objects| objects.semaphores[0].values.truncate(1)),
            "0x00003002/sysv.semadj: line 1: 3 adjustments of set 32769, which has 1 semaphores",
        ),
    ]);
}

fn rooted(image: &mut Image, root: &str) {
    image.namespaces[0].content = NamespaceContent::Cgroup(CgroupRoot { root: root.into() });
}

#[test]
fn cgroup_roots() {
    each_is_told(&[
        (|i| rooted(i, "nowhere"), "namespaces: line 1: root: no line of cgroups has \"nowhere\", or it is threaded"),
        (
            |i| {
                rooted(i, "aside");
                let aside = Cgroup { path: "aside".into(), threaded: true, processes: vec![], ..i.cgroups[0].clone() };
                i.cgroups.push(aside);
            },
            "namespaces: line 1: root: no line of cgroups has \"aside\", or it is threaded",
        ),
    ]);
}

/// Gives a process a mount namespace apart, with something of the container's own bound elsewhere, and edits it.
fn apart(image: &mut Image, edit: impl FnOnce(&mut MountNamespace)) {
    let mut content = MountNamespace { number: 1, files: vec![FileId(0)], ..MountNamespace::default() };
    edit(&mut content);
    let processes = vec![Pid(12290)];
    image.namespaces.push(UnsharedNamespace { content: NamespaceContent::Mnt(content), processes, user: None });
    let kind = MountKind::Taken(BindMount { source: "/srv".into() });
    let number = 4;
    image.mounts.push(Mount { number, namespace: 1, kind, ..image.mounts[0].clone() });
}

#[test]
fn mount_namespaces() {
    let mut sound = golden::image();
    apart(&mut sound, |_| {});
    assert_eq!(image_format::check::image(&sound, &golden::sizes(&sound)), []);
    each_is_told(&[
        (
            |i| {
                apart(i, |content| content.number = 2);
                i.mounts[3].namespace = 2;
            },
            "namespaces: line 2: number 2 stands where 1 belongs",
        ),
        (|i| apart(i, |content| content.base = 1), "namespaces: line 2: base 1: no line before has that number"),
        (
            |i| apart(i, |content| content.files = vec![FileId(99)]),
            "namespaces: line 2: files: 0x00000063 is no file of the image",
        ),
        (
            |i| apart(i, |content| content.files = vec![FileId(0), FileId(0)]),
            "namespaces: line 2: files: 0x00000000 is listed twice",
        ),
        (
            |i| apart(i, |content| content.files = vec![FileId(1), FileId(0)]),
            "namespaces: line 2: files: they are not in order",
        ),
        (
            |i| {
                apart(i, |_| {});
                i.processes.get_mut(&Pid(12290)).unwrap().process.shares.directories = Some(Pid(1));
            },
            "0x00003002/process: shares: directories: 1 is in another mount namespace",
        ),
        (
            |i| {
                apart(i, |_| {});
                i.mounts[3].namespace = 7;
            },
            "mounts: line 4: namespace 7: no line of namespaces has that number",
        ),
        (
            |i| {
                apart(i, |_| {});
                i.mounts[3].namespace = 0;
            },
            "mounts: line 4: namespace 0: there is no mount of this kind in it",
        ),
    ]);
}

fn called(image: &mut Image, hostname: Bytes, domainname: Bytes) {
    image.namespaces[0].content = NamespaceContent::Uts(UtsNames { hostname, domainname });
}

#[test]
fn names() {
    each_is_told(&[
        (
            |i| called(i, "a".repeat(65).as_str().into(), "".into()),
            "namespaces: line 1: hostname: \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\" is not at most 64 bytes without NUL",
        ),
        (
            |i| called(i, "".into(), Bytes(b"a\0b".to_vec())),
            "namespaces: line 1: domainname: \"a\\\\x00b\" is not at most 64 bytes without NUL",
        ),
    ]);
}

fn opened(image: &mut Image, kind: NamespaceType, process: u32) {
    let record = Namespace { kind, process: Some(Pid(process)) };
    if let Some(file) = image.files.get_mut(&FileId(0)) {
        file.kind = FileKind::Namespace(record);
    }
}

#[test]
fn descriptors() {
    each_is_told(&[
        (
            |i| opened(i, NamespaceType::Uts, 1),
            "files/0x00000000: process: no line of namespaces has process 1 in one of type uts",
        ),
        (
            |i| opened(i, NamespaceType::Net, 12290),
            "files/0x00000000: process: no line of namespaces has process 12290 in one of type net",
        ),
    ]);
}

#[test]
fn message_queues_of_ipc_namespaces() {
    let mut sound = golden::image();
    with_objects(&mut sound, |_| {});
    sound.queues[0].namespace = 1;
    assert_eq!(image_format::check::image(&sound, &golden::sizes(&sound)), []);
    each_is_told(&[(
        |i| i.queues[0].namespace = 1,
        "posix.mq: line 1: namespace 1: namespaces has no such line of type ipc",
    )]);
}
