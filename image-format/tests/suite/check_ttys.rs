//! The checks of terminals, each against the golden image with a sound pair and exactly that wrong.

use crate::check::{FIRST, file, process};
use crate::golden;
use image_format::files::{File, FileKind, OpenFlags, Stdio, Stream};
use image_format::process::Fd;
use image_format::tty::*;
use image_format::{Blob, FileId, Image, Octal, Pid, check};

const MASTER: u32 = 0x20;
const SLAVE: u32 = 0x21;

fn side(path: &str, side: TtySide) -> File {
    let kind = FileKind::Tty(Tty { path: path.into(), number: 3, side, hung_up: false });
    File { flags: OpenFlags(2), position: 0, owner: None, kind }
}

fn queue(bytes: &[u8], line_ends: &[u32]) -> TtyQueue {
    TtyQueue { bytes: Blob(bytes.to_vec()), line_ends: line_ends.to_vec(), behind: Blob(vec![]) }
}

/// The golden image with a terminal that its first process has.
fn sound() -> Image {
    let mut image = golden::image();
    for (id, file) in [(MASTER, side("/dev/ptmx", TtySide::Master)), (SLAVE, side("/dev/pts/3", TtySide::Slave))] {
        image.files.insert(FileId(id), file);
        process(&mut image, FIRST).fds.push(Fd { fd: id, file: FileId(id), cloexec: false });
    }
    let termios = Termios {
        iflag: Octal(0),
        oflag: Octal(0),
        cflag: Octal(0),
        lflag: Octal(2),
        line: 0,
        cc: Blob(vec![0; 19]),
        ispeed: 38400,
        ospeed: 38400,
    };
    let pty = Pty {
        slave: SlaveState::Open,
        locked: false,
        packet: false,
        master_exclusive: false,
        exclusive: false,
        flow: Flow::On,
        uid: 0,
        gid: 5,
        mode: Octal(0o620),
        termios,
        size: WindowSize::default(),
        foreground: Some(FIRST),
        input: queue(b"a\nb", &[1]),
        output: queue(b"", &[]),
        console: None,
    };
    image.ttys.insert(3, pty);
    process(&mut image, FIRST).process.tty = Some(3);
    image
}

fn told(mut image: Image) -> Vec<String> {
    image.manifest.paths = image.paths();
    check::image(&image, &golden::sizes(&image)).iter().map(ToString::to_string).collect()
}

fn pty(image: &mut Image) -> &mut Pty {
    image.ttys.get_mut(&3).unwrap()
}

fn tty(image: &mut Image, id: u32) -> &mut Tty {
    match &mut file(image, id).kind {
        FileKind::Tty(tty) => tty,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sound_one_is_clean() {
    assert_eq!(told(sound()), Vec::<String>::new());
}

#[test]
fn what_is_wrong_is_told() {
    type Defect = (fn(&mut Image), &'static [&'static str]);
    let defects: &[Defect] = &[
        (
            |i| tty(i, MASTER).hung_up = true,
            &["files/0x00000020: hung_up: a master is never hung up", "files/tty.3: no process has its master open"],
        ),
        (
            |i| tty(i, SLAVE).side = TtySide::Master,
            &[
                "files/0x00000021: the master of terminal 3 is open twice",
                "files/tty.3: slave: Open, but it is not open",
            ],
        ),
        (
            |i| tty(i, SLAVE).number = 4,
            &["files/0x00000021: number 4: there is no files/tty.4", "files/tty.3: slave: Open, but it is not open"],
        ),
        (|i| tty(i, SLAVE).path = "pts/3".into(), &["files/0x00000021: path: \"pts/3\" is not an absolute path"]),
        (|i| pty(i).slave = SlaveState::Closed, &["files/tty.3: slave: Closed, but it is open"]),
        (|i| pty(i).termios.line = 2, &["files/tty.3: termios.line 2: only the usual line discipline (0) is carried"]),
        (|i| pty(i).termios.cc.0.push(0), &["files/tty.3: termios.cc: 20 bytes, and there are 19 control characters"]),
        (|i| pty(i).mode = Octal(0o10000), &["files/tty.3: mode: 010000 is beyond 07777"]),
        (
            |i| pty(i).input.bytes.0.resize(4096, b'x'),
            &["files/tty.3: input.bytes: 4096, and a line discipline holds 4095"],
        ),
        (|i| pty(i).output.behind.0.resize(65537, b'x'), &["files/tty.3: output.behind: 65537 bytes, more than 65536"]),
        (
            |i| pty(i).termios.lflag = Octal(0),
            &["files/tty.3: input.line_ends: there are lines in canonical mode alone"],
        ),
        (|i| pty(i).input.line_ends = vec![1, 1], &["files/tty.3: input.line_ends: not in ascending order"]),
        (|i| pty(i).input.line_ends = vec![3], &["files/tty.3: input.line_ends: beyond the 3 bytes"]),
        (
            |i| pty(i).foreground = Some(Pid(77)),
            &["files/tty.3: foreground: 77 is no group of a session that has this terminal"],
        ),
        (
            |i| process(i, FIRST).process.tty = Some(5),
            &[
                "0x00000001/process: tty: there is no files/tty.5 that was opened",
                "files/tty.3: foreground: 1 is no group of a session that has this terminal",
            ],
        ),
        (
            |i| pty(i).console = Some(Console { shown: Blob(vec![]) }),
            &["files/tty.3: console: its master is open in the container"],
        ),
        (
            |i| i.stdios.push(Stdio { file: FileId(SLAVE), stream: Stream::Console }),
            &["files/stdios: line 2: files/0x00000021 is not open on a console"],
        ),
    ];
    for (edit, expected) in defects {
        let mut image = sound();
        edit(&mut image);
        assert_eq!(told(image), *expected);
    }
}

#[test]
fn a_slave_that_was_never_opened_holds_nothing() {
    let mut image = sound();
    process(&mut image, FIRST).fds.pop();
    image.files.remove(&FileId(SLAVE));
    process(&mut image, FIRST).process.tty = None;
    pty(&mut image).foreground = None;
    pty(&mut image).slave = SlaveState::Unopened;
    assert_eq!(told(image), ["files/tty.3: input: bytes for a slave that was never opened"]);
}

#[test]
fn a_console_has_its_master_outside_and_streams_that_lead_to_it() {
    let console = |shown: usize| {
        let mut image = sound();
        image.files.remove(&FileId(MASTER));
        process(&mut image, FIRST).fds.retain(|fd| fd.fd != MASTER);
        pty(&mut image).console = Some(Console { shown: Blob(vec![b'x'; shown]) });
        image.stdios.push(Stdio { file: FileId(SLAVE), stream: Stream::Console });
        image
    };
    assert_eq!(told(console(SHOWN_SIZE)), Vec::<String>::new());
    assert_eq!(told(console(SHOWN_SIZE + 1)), ["files/tty.3: console.shown: 65537 bytes, more than 65536"]);
}
