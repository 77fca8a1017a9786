//! The checks of the container's own mounts and their files, each against the golden image with exactly that wrong.

use crate::check::each_is_told;
use image_format::manifest::NamespaceKind;
use image_format::mounts::{
    BindMount, DeviceNumber, ExtendedAttribute, FileContent, FilePart, HostPath, Master, MountFlags, MountKind, Node,
    TreeEntry,
};
use image_format::{Blob, Bytes, Image, Octal};

/// The tree of the golden image's tmpfs.
fn tree(image: &mut Image) -> &mut Vec<TreeEntry> {
    image.trees.get_mut(&1).unwrap()
}

/// The regular file in it.
fn content(image: &mut Image) -> &mut FileContent {
    match &mut tree(image)[2].node {
        Node::File(content) => content,
        other => panic!("{other:?}"),
    }
}

#[test]
fn mounts() {
    each_is_told(&[
        (
            |i| {
                i.manifest.container.root = None;
                i.manifest.container.host_namespaces.insert(NamespaceKind::Mnt);
            },
            "mounts: a container that shares the host's mounts has none of its own",
        ),
        (|i| i.mounts[2].number = 4, "mounts: line 3: number 4 stands where 3 belongs"),
        (
            |i| i.mounts[1].path = "/srv/../x".into(),
            "mounts: line 2: path: \"/srv/../x\" is not a path from / without . and ..",
        ),
        (|i| i.mounts[1].path = "/".into(), "mounts: line 2: path: \"/\" is not a path from / without . and .."),
        (
            |i| {
                // What is on / may be changed, and only its flags are wrong.
                i.mounts[2].kind = MountKind::Host;
                i.mounts[2].path = "/".into();
                i.mounts[2].flags = MountFlags(0x1_0001);
            },
            "mounts: line 3: flags: 0x10000 is not known here",
        ),
        (|i| i.mounts[1].path = "srv".into(), "mounts: line 2: path: \"srv\" is not an absolute path"),
        (|i| i.mounts[1].flags = MountFlags(0x1_0001), "mounts: line 2: flags: 0x10000 is not known here"),
        (
            |i| i.mounts[1].kind = MountKind::Bind(BindMount { source: "a".into() }),
            "mounts: line 2: source: \"a\" is not an absolute path",
        ),
        (
            |i| i.mounts[1].kind = MountKind::HostPath(HostPath { source: "/srv/../a".into() }),
            "mounts: line 2: source: \"/srv/../a\" is not a path from / without . and ..",
        ),
        (
            // Without another root directory none is an overlay.
            |i| {
                i.mounts[2].path = "/".into();
                let MountKind::Fresh(fresh) = &mut i.mounts[2].kind else { panic!() };
                fresh.file_system = "overlay".to_owned();
                i.manifest.container.root = None;
            },
            "mounts: line 3: path: \"/\" is not a path from / without . and ..",
        ),
        (
            |i| {
                let MountKind::Tmpfs(system) = &mut i.mounts[0].kind else { panic!() };
                system.options = "size=1k,context=x".into();
            },
            "mounts: line 1: options: \"context\" is not known here",
        ),
        (
            |i| {
                let MountKind::Fresh(fresh) = &mut i.mounts[2].kind else { panic!() };
                fresh.file_system = "ext4".to_owned();
            },
            "mounts: line 3: file_system: \"ext4\" is none that is mounted here",
        ),
        (
            |i| {
                let MountKind::Fresh(fresh) = &mut i.mounts[2].kind else { panic!() };
                fresh.options.source = Bytes(vec![0]);
            },
            "mounts: line 3: source: \"\\\\x00\" is not at most 4095 bytes without NUL",
        ),
        (
            |i| i.mounts[0].propagation.unbindable = true,
            "mounts: line 1: propagation: what cannot be bound has no peers and no master",
        ),
        (
            |i| i.mounts[1].propagation.master = Some(Master::Peers(2)),
            "mounts: line 2: propagation: master: no other mount has the peers 2",
        ),
        (|i| i.mounts[0].kind = MountKind::Host, "mounts.1: mount 1 of mounts is no tmpfs"),
    ]);
}

#[test]
fn files_of_a_tmpfs() {
    each_is_told(&[
        (|i| tree(i)[0].path = "top".into(), "mounts.1: line 1: path: \"top\" stands where the top, \".\", belongs"),
        (|i| tree(i)[0].node = Node::Fifo, "mounts.1: line 1: the top is no directory"),
        (
            |i| tree(i)[6].path = "../queue".into(),
            "mounts.1: line 7: path: \"../queue\" does not lead straight down from the top",
        ),
        (|i| tree(i)[6].path = "null".into(), "mounts.1: line 7: path: \"null\" is there already"),
        (
            |i| tree(i)[6].path = "null/queue".into(),
            "mounts.1: line 7: path: \"null/queue\" has no directory before it",
        ),
        (|i| tree(i)[6].mode = Octal(0o10_000), "mounts.1: line 7: mode 010000: permissions are twelve bits"),
        (
            |i| tree(i)[6].modified.nsec = 1_000_000_000,
            "mounts.1: line 7: modified: 1000000000 nanoseconds are a second or more",
        ),
        (
            |i| tree(i)[3].node = Node::Symlink("".into()),
            "mounts.1: line 4: symlink: \"\" is not 1 to 4095 bytes without NUL",
        ),
        (|i| tree(i)[4].node = Node::Link("notes".into()), "mounts.1: line 5: link: \"notes\" is no file before it"),
        (
            |i| tree(i)[5].node = Node::BlockDevice(DeviceNumber { major: 4096, minor: 0 }),
            "mounts.1: line 6: device 4096:0: no device has that number",
        ),
        (|i| content(i).size = 1 << 63, "mounts.1: line 3: size 9223372036854775808: no file has that"),
        (|i| content(i).size = 4100, "mounts.1: line 3: parts: 5 bytes at 4096 do not follow"),
        (
            |i| content(i).parts.push(FilePart { offset: 4100, length: 1 }),
            "mounts.1: line 3: parts: 1 bytes at 4100 do not follow",
        ),
        (
            |i| {
                let xattr = ExtendedAttribute { name: "".into(), value: Blob(vec![]) };
                tree(i)[1].xattrs.push(xattr);
            },
            "mounts.1: line 2: xattrs: \"\" is not 1 to 255 bytes without NUL",
        ),
        (
            |i| tree(i)[2].xattrs[0].value = Blob(vec![0; 65537]),
            "mounts.1: line 3: xattrs: \"user.kind\" has more than 65536 bytes",
        ),
    ]);
}
