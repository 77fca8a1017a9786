//! The checks of sockets, each against the golden image with a few of them added and exactly that wrong.

use crate::check::{FIRST, process};
use crate::golden;
use image_format::files::{File, FileKind, OpenFlags};
use image_format::namespaces::{NamespaceContent, NetworkNamespace, UnsharedNamespace};
use image_format::process::Fd;
use image_format::socket::*;
use image_format::{Blob, FileId, Image, Octal, Pid, check};

const PAIR: [FileId; 2] = [FileId(0x20), FileId(0x21)];
const LISTENER: FileId = FileId(0x22);
const SERVED: [FileId; 2] = [FileId(0x23), FileId(0x24)];
const INET: [FileId; 3] = [FileId(0x25), FileId(0x26), FileId(0x27)];
const NETLINK: [FileId; 2] = [FileId(0x28), FileId(0x29)];

fn waiting(client: Option<FileId>) -> UnixPending {
    UnixPending { client, connected: SocketCredentials { pid: Pid(0), uid: 0, gid: 0 }, queued: vec![] }
}

fn unix(link: UnixLink) -> UnixSocket {
    UnixSocket {
        style: SocketStyle::Stream,
        name: None,
        link,
        receive_shut: false,
        send_shut: false,
        peer: None,
        uid: 0,
        gid: 0,
        options: SocketOptions::default(),
        queued: Vec::new(),
    }
}

fn inet(local: &str, link: InetLink) -> InetSocket {
    InetSocket {
        style: SocketStyle::Stream,
        ipv6: false,
        local: Some(local.parse().unwrap()),
        link,
        uid: 0,
        gid: 0,
        options: SocketOptions::default(),
        congestion: Some("cubic".to_owned()),
        received: 0,
        unsent: 0,
        datagrams: Vec::new(),
    }
}

fn connected(remote: &str, peer: FileId) -> InetLink {
    InetLink::Connected(TcpConnection {
        remote: remote.parse().unwrap(),
        peer: Some(peer),
        send_shut: false,
        receive_shut: false,
        advertised_mss: 65483,
        window_scale: Some(7),
        sack: true,
        timestamps: true,
    })
}

fn netlink(port: u32) -> NetlinkSocket {
    NetlinkSocket {
        protocol: NetlinkProtocol::Route,
        raw: true,
        port,
        groups: vec![1, 33],
        destination: NetlinkDestination { port: 0, groups: 0 },
        uid: 0,
        gid: 0,
        options: SocketOptions::default(),
    }
}

/// The golden image with a pair, a listening socket and a connection of each family, and two netlink sockets.
fn image() -> Image {
    let mut image = golden::image();
    let mut pair = unix(UnixLink::Connected(PAIR[1]));
    let carried = UnixMessage { length: 3, from: None, credentials: None, files: vec![FileId(6)] };
    pair.queued.push(carried);
    let mut listener = unix(UnixLink::Listening(UnixListening { backlog: 5, pending: vec![] }));
    let file = UnixFile { mode: Octal(0o755), uid: 0, gid: 0 };
    listener.name = Some(UnixName::Path(UnixPath { path: "/run/x".into(), directory: None, file }));
    let mut accepted = unix(UnixLink::Connected(SERVED[1]));
    accepted.name = Some(UnixName::Accepted(LISTENER));
    let listening = InetLink::Listening(InetListening { backlog: 5, pending: vec![] });
    let kinds = [
        (PAIR[0], FileKind::UnixSocket(pair.into())),
        (PAIR[1], FileKind::UnixSocket(unix(UnixLink::Connected(PAIR[0])).into())),
        (LISTENER, FileKind::UnixSocket(listener.into())),
        (SERVED[0], FileKind::UnixSocket(accepted.into())),
        (SERVED[1], FileKind::UnixSocket(unix(UnixLink::Connected(SERVED[0])).into())),
        (INET[0], FileKind::InetSocket(inet("0.0.0.0:80", listening).into())),
        (INET[1], FileKind::InetSocket(inet("127.0.0.1:80", connected("127.0.0.1:4000", INET[2])).into())),
        (INET[2], FileKind::InetSocket(inet("127.0.0.1:4000", connected("127.0.0.1:80", INET[1])).into())),
        (NETLINK[0], FileKind::NetlinkSocket(netlink(7).into())),
        (NETLINK[1], FileKind::NetlinkSocket(netlink(0).into())),
    ];
    for (fd, (id, kind)) in (40..).zip(kinds) {
        image.files.insert(id, File { flags: OpenFlags(2), position: 0, owner: None, kind });
        process(&mut image, FIRST).fds.push(Fd { fd, file: id, cloexec: false });
    }
    image.manifest.paths = image.paths();
    image
}

fn told(image: &mut Image) -> Vec<String> {
    image.manifest.paths = image.paths();
    check::image(image, &golden::sizes(image)).iter().map(ToString::to_string).collect()
}

type Case<'a> = (fn(&mut Image), &'a str);

/// Each edit is told in these words, and perhaps in others for the sockets it leaves alone.
fn each_is_told(cases: &[Case<'_>]) {
    for (edit, expected) in cases {
        let mut image = image();
        edit(&mut image);
        let told = told(&mut image);
        assert!(told.iter().any(|problem| problem == expected), "{expected:?} is not among {told:#?}");
    }
}

macro_rules! socket {
    ($image:expr, $id:expr, $kind:ident) => {
        match &mut $image.files.get_mut(&$id).unwrap().kind {
            FileKind::$kind(record) => record,
            other => panic!("{other:?}"),
        }
    };
}

#[test]
fn sound_sockets_are_sound() {
    let mut image = image();
    assert_eq!(told(&mut image), Vec::<String>::new());
    let data = image.manifest.paths.iter().find(|entry| entry.path == "files/0x00000020.queue").unwrap();
    assert_eq!(data.size, Some(3));
}

#[test]
fn what_is_only_under_way_is_held_by_the_message() {
    let mut image = image();
    let eventfd = FileId(6);
    for process in image.processes.values_mut() {
        process.fds.retain(|fd| fd.file != eventfd);
    }
    assert!(told(&mut image).iter().all(|problem| !problem.contains("files/0x00000006")));
    socket!(image, PAIR[0], UnixSocket).queued.clear();
    assert!(told(&mut image).contains(&"files/0x00000006: no process has it open".to_owned()));
}

#[test]
fn unix_sockets() {
    each_is_told(&[
        (
            |i| socket!(i, PAIR[1], UnixSocket).link = UnixLink::Unconnected,
            "files/0x00000020: link: connected: files/0x00000021 is not connected to it",
        ),
        (
            |i| socket!(i, PAIR[1], UnixSocket).style = SocketStyle::Datagram,
            "files/0x00000020: link: connected: files/0x00000021 is no Unix socket of its style",
        ),
        (
            |i| socket!(i, LISTENER, UnixSocket).name = None,
            "files/0x00000022: link: listening takes a stream or seqpacket socket with a name",
        ),
        (
            |i| {
                let pending = vec![waiting(Some(PAIR[0]))];
                socket!(i, LISTENER, UnixSocket).link = UnixLink::Listening(UnixListening { backlog: 5, pending });
            },
            "files/0x00000022: pending: files/0x00000020 is no Unix socket that is connected to it",
        ),
        (
            |i| {
                let pending = vec![waiting(Some(SERVED[1])), waiting(Some(SERVED[1]))];
                socket!(i, LISTENER, UnixSocket).link = UnixLink::Listening(UnixListening { backlog: 5, pending });
            },
            "files/0x00000022: pending: files/0x00000024 stands there twice",
        ),
        (
            |i| {
                let message = UnixMessage { length: 1, from: None, credentials: None, files: vec![FileId(99)] };
                let pending = vec![UnixPending { queued: vec![message], ..waiting(None) }];
                socket!(i, LISTENER, UnixSocket).link = UnixLink::Listening(UnixListening { backlog: 5, pending });
            },
            "files/0x00000022: queued: there is no files/0x00000063",
        ),
        (
            |i| socket!(i, SERVED[0], UnixSocket).name = Some(UnixName::Accepted(PAIR[0])),
            "files/0x00000023: name: accepted: files/0x00000020 is no listening Unix socket of its style",
        ),
        (
            |i| socket!(i, PAIR[0], UnixSocket).name = Some(UnixName::FormerPath(vec![b'x'; 108].into())),
            &format!("files/0x00000020: name: path: {:?} is not 1 to 107 bytes without NUL", "x".repeat(108)),
        ),
        (
            |i| {
                let file = UnixFile { mode: Octal(0o755), uid: 0, gid: 0 };
                let path = UnixPath { path: "x".into(), directory: None, file };
                socket!(i, PAIR[0], UnixSocket).name = Some(UnixName::Path(path));
            },
            "files/0x00000020: name: path: \"x\" is relative, and there is no directory",
        ),
        (
            |i| {
                let name = socket!(i, LISTENER, UnixSocket).name.clone();
                socket!(i, SERVED[1], UnixSocket).name = name;
            },
            "files/0x00000024: name: \"/run/x\" is that of files/0x00000022 too",
        ),
        (
            |i| socket!(i, PAIR[0], UnixSocket).queued[0].files = vec![FileId(99)],
            "files/0x00000020: queued: there is no files/0x00000063",
        ),
        (
            |i| socket!(i, PAIR[0], UnixSocket).queued[0].files = vec![FileId(6); 254],
            "files/0x00000020: queued: a message carries 253 descriptors at most",
        ),
        (
            |i| socket!(i, PAIR[0], UnixSocket).queued[0].from = Some(LISTENER),
            "files/0x00000020: queued: from: files/0x00000022 is no datagram socket with a name",
        ),
        (
            |i| {
                let link = UnixLink::External(UnixExternal { path: "log".into() });
                socket!(i, PAIR[1], UnixSocket).link = link;
            },
            "files/0x00000021: link: external: \"log\" is not absolute",
        ),
        (
            |i| {
                let link = UnixLink::External(UnixExternal { path: "@".into() });
                socket!(i, PAIR[1], UnixSocket).link = link;
            },
            "files/0x00000021: link: external: \"@\" is no abstract name",
        ),
        (
            |i| {
                let link = UnixLink::External(UnixExternal { path: "/dev/log".into() });
                socket!(i, PAIR[0], UnixSocket).link = link;
            },
            "files/0x00000020: queued: nothing can be put into a connection to the outside",
        ),
        (
            |i| {
                let option = SocketOption { name: "SO_UNHEARD_OF".to_owned(), value: 1 };
                socket!(i, PAIR[0], UnixSocket).options.numbers.push(option);
            },
            "files/0x00000020: options: \"SO_UNHEARD_OF\" is none that is carried",
        ),
    ]);
}

#[test]
fn inet_sockets() {
    each_is_told(&[
        (
            |i| socket!(i, INET[1], InetSocket).local = Some("127.0.0.1:81".parse().unwrap()),
            "files/0x00000026: link: connected: its addresses are not those of files/0x00000027, turned round",
        ),
        (
            |i| socket!(i, INET[1], InetSocket).link = InetLink::Ended,
            "files/0x00000027: link: connected: files/0x00000026 is not connected to it",
        ),
        (
            |i| socket!(i, INET[0], InetSocket).local = None,
            "files/0x00000025: local: it is connected or listens, and has no address",
        ),
        (|i| socket!(i, INET[0], InetSocket).ipv6 = true, "files/0x00000025: 0.0.0.0:80 is of the other version of IP"),
        (
            |i| socket!(i, INET[0], InetSocket).received = 1,
            "files/0x00000025: received, unsent, datagrams: more than a socket of this kind can hold",
        ),
        (
            |i| socket!(i, INET[0], InetSocket).style = SocketStyle::Datagram,
            "files/0x00000025: link: TCP sockets are streams and listen or connect, UDP sockets are datagram sockets",
        ),
        (
            |i| {
                let pending = vec![InetPending { client: InetClient::Open(INET[2]), received: 0 }];
                socket!(i, INET[0], InetSocket).link = InetLink::Listening(InetListening { backlog: 1, pending });
            },
            "files/0x00000025: pending: files/0x00000027 is no TCP socket that is connected to it",
        ),
        (
            |i| {
                let InetLink::Connected(connection) = &mut socket!(i, INET[1], InetSocket).link else { panic!() };
                connection.window_scale = Some(15);
            },
            "files/0x00000026: window_scale: the largest is 14",
        ),
        (
            |i| {
                let datagram = Datagram { length: 1 << 16, from: "127.0.0.1:1".parse().unwrap() };
                let socket = socket!(i, INET[0], InetSocket);
                (socket.style, socket.link) = (SocketStyle::Datagram, InetLink::Unconnected);
                socket.datagrams.push(datagram);
            },
            "files/0x00000025: datagrams: 65536 bytes: the largest has 65535",
        ),
        (
            |i| socket!(i, INET[0], InetSocket).options.linger = Some(u32::MAX),
            "files/0x00000025: options: linger: it is below 2^31 seconds",
        ),
    ]);
}

#[test]
fn netlink_sockets() {
    let order = "files/0x00000028: groups: they are counted from 1, each once and in ascending order";
    each_is_told(&[
        (|i| socket!(i, NETLINK[0], NetlinkSocket).groups = vec![0, 1], order),
        (|i| socket!(i, NETLINK[0], NetlinkSocket).groups = vec![2, 2], order),
        (
            |i| socket!(i, NETLINK[1], NetlinkSocket).port = 7,
            "files/0x00000029: port: 7 is that of files/0x00000028 too",
        ),
        (
            |i| socket!(i, NETLINK[1], NetlinkSocket).destination.groups = 3,
            "files/0x00000029: destination: groups: a socket sends to one group",
        ),
        (
            |i| socket!(i, NETLINK[1], NetlinkSocket).destination.groups = 1,
            "files/0x00000029: destination: only a socket that is bound to a port has one",
        ),
        (
            |i| socket!(i, NETLINK[1], NetlinkSocket).options.linger = Some(u32::MAX),
            "files/0x00000029: options: linger: it is below 2^31 seconds",
        ),
        (
            |i| socket!(i, NETLINK[1], NetlinkSocket).options.filter = Some(Blob(vec![6; 15])),
            "files/0x00000029: options: filter: 15 bytes are not 1 to 4096 instructions of 8",
        ),
        (
            |i| socket!(i, NETLINK[1], NetlinkSocket).options.filter = Some(Blob(vec![])),
            "files/0x00000029: options: filter: 0 bytes are not 1 to 4096 instructions of 8",
        ),
    ]);
}

/// Has sockets made in a network namespace apart.
fn apart(image: &mut Image, sockets: &[FileId]) {
    let content = NamespaceContent::Net(NetworkNamespace { loopback: true, sockets: sockets.to_vec() });
    image.namespaces.push(UnsharedNamespace { content, processes: vec![Pid(12290)], user: None });
}

fn abstract_names(image: &mut Image) {
    for id in [LISTENER, PAIR[0]] {
        socket!(image, id, UnixSocket).name = Some(UnixName::Abstract("x".into()));
    }
}

#[test]
fn networks() {
    let sound: [fn(&mut Image); 3] = [
        // What is accepted, and its client; the socket that listens has a path.
        |i| apart(i, &SERVED),
        |i| {
            abstract_names(i);
            apart(i, &PAIR);
        },
        |i| {
            socket!(i, NETLINK[1], NetlinkSocket).port = 7;
            apart(i, &NETLINK[1..]);
        },
    ];
    for sound in sound {
        let mut image = image();
        sound(&mut image);
        assert_eq!(told(&mut image), Vec::<String>::new());
    }
    each_is_told(&[
        (abstract_names, "files/0x00000022: name: \"x\" is that of files/0x00000020 too"),
        (|i| apart(i, &PAIR[1..]), "files/0x00000020: link: connected: files/0x00000021 is in another net namespace"),
        (|i| apart(i, &INET[1..2]), "files/0x00000026: link: connected: files/0x00000027 is in another net namespace"),
        (
            |i| {
                socket!(i, LISTENER, UnixSocket).name = Some(UnixName::Abstract("x".into()));
                apart(i, &SERVED);
            },
            "files/0x00000023: name: accepted: files/0x00000022 is in another net namespace",
        ),
        (
            |i| {
                for id in PAIR {
                    socket!(i, id, UnixSocket).style = SocketStyle::Datagram;
                }
                socket!(i, PAIR[0], UnixSocket).queued[0].from = Some(PAIR[1]);
                socket!(i, PAIR[1], UnixSocket).name = Some(UnixName::Abstract("x".into()));
                apart(i, &PAIR[..1]);
            },
            "files/0x00000020: queued: from: files/0x00000021 is in another net namespace",
        ),
        (|i| apart(i, &[FileId(6)]), "namespaces: line 2: sockets: 0x00000006 is no socket of the image"),
        (|i| apart(i, &[PAIR[1], PAIR[0]]), "namespaces: line 2: sockets: they are not in order"),
        (|i| apart(i, &[PAIR[0], PAIR[0]]), "namespaces: line 2: sockets: 0x00000020 is listed twice"),
    ]);
}
