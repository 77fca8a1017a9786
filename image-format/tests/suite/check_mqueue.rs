//! The checks of POSIX message queues, each against the golden image with exactly that wrong.

use crate::check::{Defect, FIRST, each_is_told, file};
use image_format::files::{FileKind, OpenQueue};
use image_format::manifest::NamespaceKind;
use image_format::mqueue::{QueueNotify, QueueThread};
use image_format::signal::Signal;
use image_format::socket::{NetlinkDestination, NetlinkProtocol, NetlinkSocket, SocketOptions};
use image_format::{FileId, Hex, Image, Octal, Pid};

/// Lets descriptor 6 of the first process, an eventfd, name a queue.
fn open(image: &mut Image, queue: u32) {
    file(image, 6).kind = FileKind::MessageQueue(OpenQueue { queue });
}

fn notify(image: &mut Image, process: Pid, signal: Option<Signal>, value: u64) {
    image.queues[0].notify = Some(QueueNotify { process, signal, value: Hex(value), thread: None });
}

fn by_thread(image: &mut Image, signal: Option<Signal>, socket: FileId, cookie: &str) {
    open(image, 1);
    let thread = Some(QueueThread { socket, cookie: cookie.into() });
    image.queues[0].notify = Some(QueueNotify { process: FIRST, signal, value: Hex(0), thread });
}

#[test]
fn queues() {
    let defects: &[Defect] = &[
        (|i| i.queues[0].number = 2, "posix.mq: line 1: number 2 stands where 1 belongs"),
        (|i| i.queues[0].name = Some("a/b".into()), "posix.mq: line 1: name: \"a/b\" is no name of a queue"),
        (|i| i.queues[0].name = Some("..".into()), "posix.mq: line 1: name: \"..\" is no name of a queue"),
        (
            |i| {
                let mut twin = i.queues[0].clone();
                twin.number = 2;
                i.queues.push(twin);
            },
            "posix.mq: line 2: name jobs: another has it",
        ),
        (|i| i.queues[0].name = None, "posix.mq: line 1: name: it has none, and nobody has it open"),
        (|i| i.queues[0].mode = Octal(0o10000), "posix.mq: line 1: mode 010000: permissions are twelve bits"),
        (|i| i.queues[0].capacity = 65537, "posix.mq: line 1: capacity 65537: a queue holds 1 to 65536"),
        (|i| i.queues[0].capacity = 1, "posix.mq: line 1: messages: 2 are more than its capacity of 1"),
        (
            |i| i.queues[0].message_size = 0x0100_0001,
            "posix.mq: line 1: message_size 16777217: messages have 1 to 16777216 bytes",
        ),
        (|i| i.queues[0].message_size = 5, "posix.mq: line 1: messages: one of 6 bytes, above the 5 of the queue"),
        (|i| i.queues[0].messages[0].priority = 32768, "posix.mq: line 1: messages: priority 32768 is not below 32768"),
        (
            |i| i.queues[0].messages[1].priority = 10,
            "posix.mq: line 1: messages: they do not stand by descending priority",
        ),
        (
            |i| _ = i.manifest.container.host_namespaces.insert(NamespaceKind::Ipc),
            "manifest: container.host_namespaces: ipc: POSIX message queues take a namespace of their own",
        ),
    ];
    // System V objects take one too.
    let (last, defects) = defects.split_last().unwrap();
    each_is_told(defects);
    each_is_told(&[(
        |i| {
            i.sysv = Default::default();
            i.manifest.container.host_namespaces.insert(NamespaceKind::Ipc);
            for process in i.processes.values_mut() {
                process.semadj.clear();
            }
        },
        last.1,
    )]);
}

#[test]
fn who_uses_them() {
    let defects: &[Defect] = &[
        (|i| open(i, 2), "files/0x00000006: there is no queue 2 in posix.mq"),
        (
            |i| notify(i, FIRST, Some(Signal(10)), 1),
            "posix.mq: line 1: notify: process 1 is not there, or does not have it open",
        ),
        (
            |i| {
                open(i, 1);
                notify(i, Pid(77), None, 0);
            },
            "posix.mq: line 1: notify: process 77 is not there, or does not have it open",
        ),
        (
            |i| {
                open(i, 1);
                notify(i, FIRST, None, 1);
            },
            "posix.mq: line 1: notify: value: it comes with a signal",
        ),
        (
            |i| by_thread(i, Some(Signal(10)), FileId(6), "x"),
            "posix.mq: line 1: notify: thread: it stands in the place of a signal",
        ),
        (
            |i| by_thread(i, None, FileId(6), "x"),
            "posix.mq: line 1: notify: thread: files/0x00000006 is no netlink socket that process 1 has open",
        ),
        (
            |i| {
                let options = SocketOptions::default();
                let destination = NetlinkDestination { port: 0, groups: 0 };
                let protocol = NetlinkProtocol::Route;
                let netlink = NetlinkSocket {
                    protocol,
                    raw: true,
                    port: 0,
                    groups: vec![],
                    destination,
                    uid: 0,
                    gid: 0,
                    options,
                };
                file(i, 2).kind = FileKind::NetlinkSocket(netlink.into());
                by_thread(i, None, FileId(2), "x");
            },
            "posix.mq: line 1: notify: thread: cookie: it has 32 bytes",
        ),
    ];
    each_is_told(defects);
}
