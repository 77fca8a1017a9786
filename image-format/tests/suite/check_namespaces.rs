//! The checks of namespaces that some processes are in, each against the golden image with exactly that wrong.

use crate::check::each_is_told;
use image_format::cgroups::Cgroup;
use image_format::files::{FileKind, Namespace, NamespaceType};
use image_format::namespaces::{CgroupRoot, NamespaceContent, UtsNames};
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
        |i| i.namespaces[0].content = NamespaceContent::Ipc,
        "namespaces: line 1: processes: 12290 has adjustments of semaphores, of which there are none here",
    )]);
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
