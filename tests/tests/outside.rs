//! Connections to Unix sockets outside of the container: refused unless they are declared, and made anew by a restore.

use crfs_tests::world::{Method, PATIENCE, Program, World, edit_object, files_of};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;

/// What stands outside, and a program inside that is connected to both.
struct Outside {
    world: World,
    victim: Program,
    stream: PathBuf,
    datagram: PathBuf,
    listener: UnixListener,
    datagrams: UnixDatagram,
}

impl Outside {
    fn new() -> Self {
        let world = World::new();
        let (stream, datagram) = (world.out().join("stream"), world.out().join("datagram"));
        let listener = UnixListener::bind(&stream).expect("a listening socket");
        let datagrams = UnixDatagram::bind(&datagram).expect("a datagram socket");
        datagrams.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let paths = [&stream, &datagram].map(|path| path.to_str().expect("UTF-8"));
        let victim = Program::victim(&world, "outside", &paths);
        world.start("vs1", &victim);
        Outside { world, victim, stream, datagram, listener, datagrams }
    }

    fn declared(&self) -> [String; 2] {
        [&self.stream, &self.datagram].map(|path| format!("unix:{}", path.display()))
    }

    /// The next connection. One must wait or be about to.
    fn accept(&self) -> UnixStream {
        let (connection, _) = self.listener.accept().expect("a connection");
        connection.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        connection
    }

    fn expect_datagram(&self, word: &[u8]) {
        let mut data = [0; 16];
        let length = self.datagrams.recv(&mut data).expect("a datagram");
        assert_eq!(&data[..length], word);
    }
}

fn expect_word(connection: &mut UnixStream, word: &[u8]) {
    let mut data = vec![0; word.len()];
    connection.read_exact(&mut data).expect("a word");
    assert_eq!(data, word);
}

#[test]
fn what_is_declared_is_joined_again() {
    let outside = Outside::new();
    let mut connection = outside.accept();
    expect_word(&mut connection, b"before");
    outside.expect_datagram(b"before");
    let [stream, datagram] = outside.declared();
    let world = &outside.world;
    world.crctl(["freeze", "vs1"]).expect_refusal(&[&stream, &datagram, "--external", "held outside the container"]);
    world.crctl(["freeze", "vs1", "--external", &stream]).expect_refusal(&[&datagram]);
    world.crctl(["freeze", "vs1", "--external", &stream, "--external", &datagram]).expect_success();
    let copy = world.copy_out("vs1", Method::Cp);
    world.kill("vs1");
    // In the copy one of them is another, and nobody listens there.
    let elsewhere = world.out().join("elsewhere");
    let (from, to) = (json!(outside.stream.to_str()), json!(elsewhere.to_str()));
    for file in files_of(&copy.join("files")).iter().filter(|file| file.to_string_lossy().starts_with("0x")) {
        edit_object(&copy.join("files").join(file), |entry| {
            if let Some(path) = entry.pointer_mut("/kind/unix_socket/link/external/path").filter(|path| **path == from)
            {
                *path = to.clone();
            }
        });
    }
    assert!(!world.copy_in(&copy, "vs1", Method::Cp).success(), "it was restored with nobody to connect to");
    world.status_says("vs1", &["elsewhere", "cannot be joined here"]);
    world.must("rm", "vs1");
    fs::rename(&outside.stream, &elsewhere).expect("moving the socket");
    world.restore(&copy, "vs1", Method::Cp);
    world.status_says("vs1", &["elsewhere", "anew"]);
    let victim = world.first_process("vs1");
    world.thaw("vs1");
    outside.victim.goes_on(2);
    outside.victim.passes();
    connection = outside.accept();
    let client = getsockopt(&connection, PeerCredentials).expect("whose connection it is");
    assert_eq!(client.pid(), victim.as_raw(), "the connection is not that of the program");
    expect_word(&mut connection, b"after");
    outside.expect_datagram(b"after");
}

/// The name space belongs to the network, which the container has in common with the host.
#[test]
fn an_abstract_name_is_joined_again() {
    let world = World::new();
    let names = ["stream", "datagram"].map(|kind| format!("@{}-{kind}", world.out().display()));
    let address = |name: &str| SocketAddr::from_abstract_name(&name[1..]).expect("a name");
    let listener = UnixListener::bind_addr(&address(&names[0])).expect("a listening socket");
    let datagrams = UnixDatagram::bind_addr(&address(&names[1])).expect("a datagram socket");
    let victim = Program::victim(&world, "outside", &[&names[0], &names[1]]);
    world.start_with("vs1", &victim, &["--host-net"]);
    world.crctl(["freeze", "vs1"]).expect_refusal(&[&names[0], &names[1], "--external unix:@"]);
    let declared = names.each_ref().map(|name| format!("unix:{name}"));
    world.crctl(["freeze", "vs1", "--external", &declared[0], "--external", &declared[1]]).expect_success();
    let copy = world.copy_out("vs1", Method::Cp);
    world.kill("vs1");
    world.restore(&copy, "vs1", Method::Cp);
    world.status_says("vs1", &[&names[0], "anew"]);
    world.thaw("vs1");
    victim.goes_on(2);
    victim.passes();
    let [mut before, mut after] = [(); 2].map(|()| listener.accept().expect("a connection").0);
    before.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    after.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    expect_word(&mut before, b"before");
    expect_word(&mut after, b"after");
    datagrams.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    for word in [b"before".as_slice(), b"after"] {
        let mut data = [0; 16];
        let length = datagrams.recv(&mut data).expect("a datagram");
        assert_eq!(&data[..length], word);
    }
}

/// What came from outside and was not read cannot be put into a new connection; nor is one carried that nobody has accepted, unless
/// it is declared.
#[test]
fn what_was_not_read_is_named() {
    let outside = Outside::new();
    let [stream, datagram] = outside.declared();
    let freeze = ["freeze", "vs1", "--external", &datagram, "--external", &stream];
    outside.world.crctl(["freeze", "vs1", "--external", &datagram]).expect_refusal(&[&stream]);
    let mut connection = outside.accept();
    connection.write_all(b"word").expect("sending");
    outside.world.crctl(freeze).expect_refusal(&["holds data from", "Try again when the program has read it"]);
    outside.victim.goes_on(2);
    outside.victim.passes();
}

#[test]
fn only_paths_can_be_declared() {
    let world = World::without_server();
    for bad in ["/dev/log", "unix:dev/log", "tcp:127.0.0.1:80"] {
        let outcome = world.crctl(["freeze", "vs1", "--external", bad]);
        assert!(!outcome.success() && outcome.stderr.contains("absolute path"), "{outcome}");
    }
}
