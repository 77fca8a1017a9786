//! Containers with a terminal: `crctl run -it` and `crctl attach`, driven as a user would, through a terminal of the test's own.

use crfs_sys::tty;
use crfs_tests::world::{Method, World, binary, python, wait_for};
use nix::errno::Errno;
use nix::pty::Winsize;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const DETACH: &str = "\x10\x11";

/// A terminal in which crctl runs.
struct Screen {
    master: OwnedFd,
    child: Child,
    shown: String,
    /// What was expected so far ended here.
    seen: usize,
}

impl Screen {
    fn open(world: &World, arguments: &[&str]) -> Self {
        let mut command = world.command("setsid");
        command.args(["--ctty", "--wait"]).arg(binary("crctl")).args(arguments);
        Screen::of(command)
    }

    /// Not as the controlling terminal, so that no signal tells of its end.
    fn of(mut command: Command) -> Self {
        let open = |path: &str, flags: i32| {
            let flags = libc::O_NOCTTY | flags;
            File::options().read(true).write(true).custom_flags(flags).open(path).expect("a side of a terminal")
        };
        // Nobody inherits it.
        let master = open("/dev/ptmx", libc::O_NONBLOCK);
        tty::set_lock(master.as_fd(), false).expect("unlocking a terminal");
        let size = Winsize { ws_row: 30, ws_col: 90, ws_xpixel: 0, ws_ypixel: 0 };
        tty::set_window_size(master.as_fd(), &size).expect("a size");
        let number = tty::number(master.as_fd()).expect("the number of a terminal");
        let slave = open(&format!("/dev/pts/{number}"), 0);
        let slave = || Stdio::from(slave.try_clone().expect("another handle"));
        let child = command.env("TERM", "xterm").stdin(slave()).stdout(slave()).stderr(slave()).spawn();
        Screen { master: master.into(), child: child.expect("starting crctl"), shown: String::new(), seen: 0 }
    }

    fn type_in(&self, text: &str) {
        let written = nix::unistd::write(&self.master, text.as_bytes()).expect("typing");
        assert_eq!(written, text.len(), "the terminal takes no more");
    }

    fn look(&mut self) {
        let mut part = [0; 4096];
        loop {
            match nix::unistd::read(&self.master, &mut part) {
                Ok(0) | Err(Errno::EAGAIN | Errno::EIO) => return,
                Ok(length) => self.shown.push_str(&String::from_utf8_lossy(&part[..length])),
                Err(errno) => panic!("reading the terminal: {errno}"),
            }
        }
    }

    /// Waits until this is shown, after what was expected before.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let shown = wait_for(PATIENCE, || {
            self.look();
            self.shown[self.seen..].contains(text)
        });
        assert!(shown, "{text:?} is not shown: {:?}", &self.shown[self.seen..]);
        self.seen += self.shown[self.seen..].find(text).map_or(0, |at| at + text.len());
    }

    /// Closes the other side.
    fn hang_up(&mut self) {
        self.master = File::open("/dev/null").expect("/dev/null").into();
    }

    #[track_caller]
    fn ends(mut self) -> ExitStatus {
        let mut status = None;
        wait_for(PATIENCE, || {
            self.look();
            status = self.child.try_wait().expect("waiting for crctl");
            status.is_some()
        });
        status.unwrap_or_else(|| panic!("crctl does not end: {:?}", self.shown))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Freeze, copy, kill, copy back, thaw.
fn through_a_copy(world: &World) {
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.kill("vs1");
    world.restore(&copy, "vs1", Method::Cp);
    world.thaw("vs1");
}

const BASH: [&str; 8] = ["run", "-it", "vs1", "--", "/bin/bash", "--norc", "--noprofile", "-i"];

#[test]
fn a_shell_with_jobs_goes_on_after_a_restore() {
    let world = World::new();
    let mut screen = Screen::open(&world, &BASH);
    screen.type_in("PS1='>> '; x=forty\r");
    screen.expect(">> ");
    screen.type_in("sleep 1000 &\r");
    screen.expect("[1]");
    screen.type_in("sh -c 'echo re\"\"ady; exec sed -u s/call/answer/'\r");
    screen.expect("ready\r\n");
    screen.type_in("call\n");
    screen.expect("answer\r\n");
    screen.type_in("\x1a");
    screen.expect("Stopped");
    screen.expect(">> ");
    screen.type_in("stty -a | head -1\r");
    screen.expect("rows 30; columns 90");
    screen.type_in("begun");
    screen.expect("begun");
    screen.type_in(DETACH);
    screen.expect("detached");
    assert_eq!(screen.ends().code(), Some(0));
    for _ in 0..2 {
        through_a_copy(&world);
        let mut screen = Screen::open(&world, &["attach", "vs1"]);
        // What was shown before is there.
        screen.expect("Stopped");
        screen.expect("begun");
        // ^U: what was begun to be typed is still in the line, and is taken back.
        screen.type_in("\x15echo $x-two; jobs\r");
        screen.expect("forty-two");
        screen.expect("Running");
        screen.expect("sleep 1000");
        screen.expect("Stopped");
        screen.type_in("fg %2\r");
        // Echoed only once the shell has handed the terminal over.
        screen.type_in("call\n");
        screen.expect("answer\r\n");
        screen.type_in("\x1a");
        screen.expect("Stopped");
        screen.expect(">> ");
        screen.type_in("begun");
        screen.expect("begun");
        screen.type_in(DETACH);
        screen.expect("detached");
        assert_eq!(screen.ends().code(), Some(0));
    }
    let mut screen = Screen::open(&world, &["attach", "vs1"]);
    screen.expect("begun");
    screen.type_in("\x15echo $((6*7)); fg %1\r");
    screen.expect("42\r\nsleep 1000\r\n");
    // Until the shell has handed the terminal over, ^C is for nobody.
    let ended = wait_for(PATIENCE, || {
        screen.type_in("\x03");
        std::thread::sleep(Duration::from_millis(100));
        screen.look();
        screen.shown[screen.seen..].contains(">> ")
    });
    assert!(ended, "{:?}", screen.shown);
    screen.type_in("exit\r");
    screen.expect("stopped jobs");
    screen.type_in("exit 7\r");
    assert_eq!(screen.ends().code(), Some(7));
}

#[test]
fn a_python_prompt_goes_on_after_a_restore() {
    let world = World::new();
    let mut screen = Screen::open(&world, &["run", "-it", "vs1", "--", python(), "-q"]);
    screen.expect(">>> ");
    screen.type_in("x = 41\r");
    screen.expect(">>> ");
    screen.type_in(DETACH);
    screen.expect("detached");
    through_a_copy(&world);
    let mut screen = Screen::open(&world, &["attach", "vs1"]);
    screen.expect(">>> ");
    screen.type_in("print('it is', x + 1)\r");
    screen.expect("it is 42");
    screen.type_in("raise SystemExit(3)\r");
    assert_eq!(screen.ends().code(), Some(3));
}

#[test]
fn two_see_the_same_and_a_new_size_reaches_the_program() {
    let world = World::new();
    world.crctl(["run", "-t", "vs1", "--", "/bin/bash", "--norc", "--noprofile", "-i"]).expect_success();
    let mut one = Screen::open(&world, &["attach", "vs1"]);
    let mut other = Screen::open(&world, &["attach", "vs1"]);
    one.type_in("echo $((6*7))\r");
    one.expect("\r42");
    other.expect("\r42");
    let size = Winsize { ws_row: 41, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
    crfs_sys::tty::set_window_size(std::os::fd::AsFd::as_fd(&other.master), &size).expect("another size");
    let changed = wait_for(PATIENCE, || {
        one.type_in("stty size\r");
        std::thread::sleep(Duration::from_millis(100));
        one.look();
        one.shown.contains("41 101")
    });
    assert!(changed, "{:?}", one.shown);
    // What is typed while it is frozen waits.
    world.freeze("vs1");
    one.type_in("echo $((7*7))\r");
    world.thaw("vs1");
    one.expect("\r49");
    let log = world.crctl(["logs", "vs1"]).expect_success().stdout;
    assert!(log.contains("\r42") && log.contains("\r49"), "{log:?}");
    other.type_in(DETACH);
    assert_eq!(other.ends().code(), Some(0));
    one.type_in("exit 5\r");
    assert_eq!(one.ends().code(), Some(5));
}

#[test]
fn without_a_terminal_there_is_nothing_to_attach_to() {
    let world = World::new();
    world.crctl(["run", "vs1", "--", "/bin/sleep", "1000"]).expect_success();
    world.crctl(["attach", "vs1"]).expect_refusal(&["it has no terminal to attach to", "crctl run -t"]);
    world.crctl(["attach", "vs2"]).expect_refusal(&["no such container"]);
}

#[test]
fn tmux_with_an_editor_a_monitor_and_a_shell() {
    let world = World::new();
    let socket = world.dir().join("tmux");
    let text = world.dir().join("text");
    let settings = world.dir().join("tmux.conf");
    // Or what comes quickly counts as pasted, in which no key commands tmux.
    std::fs::write(&settings, "set -g assume-paste-time 0\n").expect("settings");
    let (at, from) = (socket.to_string_lossy(), settings.to_string_lossy());
    let tmux = ["tmux", "-S", &at, "-f", &from, "new-session"].map(str::to_owned);
    let run = ["run", "-it", "vs1", "--"].map(str::to_owned);
    let mut screen = Screen::open(&world, &run.iter().chain(&tmux).map(String::as_str).collect::<Vec<_>>());
    screen.expect("[0]");
    screen.type_in("PS1='>> '; x=forty; clear\r");
    screen.expect(">> ");
    let socket = socket.to_string_lossy();
    let tmux =
        |words: &[&str]| world.crctl([&["exec", "vs1", "--", "tmux", "-S", &socket], words].concat()).expect_success();
    tmux(&["new-window", &format!("vim.tiny -u NONE -n {}", text.display())]);
    screen.expect("1:vim.tiny*");
    screen.type_in("ibefore");
    screen.expect("before");
    tmux(&["new-window", "top"]);
    screen.expect("2:top*");
    screen.expect("load average");
    screen.type_in(DETACH);
    screen.expect("detached");
    screen.ends();
    through_a_copy(&world);
    let mut screen = Screen::open(&world, &["attach", "vs1"]);
    screen.expect("load average");
    screen.type_in("\x021");
    screen.expect("1:vim.tiny*");
    screen.type_in(" and after\x1b:wq\r");
    assert!(wait_for(PATIENCE, || std::fs::read_to_string(&text).is_ok_and(|text| text == "before and after\n")));
    screen.type_in("\x020");
    screen.expect("0:bash*");
    screen.type_in("echo $x-two\r");
    screen.expect("forty-two");
    tmux(&["kill-server"]);
    screen.expect("server exited");
    assert_eq!(screen.ends().code(), Some(1));
}

/// The swap file holds what is not in the text yet; who deletes it takes the name and leaves the file.
#[test]
fn an_editor_whose_swap_file_was_deleted_goes_on_after_a_restore() {
    let world = World::new();
    let text = world.dir().join("text");
    let swap = world.dir().join(".text.swp");
    let file = text.to_string_lossy();
    let mut screen = Screen::open(&world, &["run", "-it", "vs1", "--", "vim.tiny", "-u", "NONE", &file]);
    // What it says of the file is lost where it has to draw everything again.
    screen.expect("~  ");
    screen.type_in("ibefore\x1b:preserve\r");
    screen.expect("preserved");
    std::fs::remove_file(&swap).expect("deleting the swap file");
    screen.type_in(DETACH);
    screen.expect("detached");
    screen.ends();
    through_a_copy(&world);
    assert!(!swap.exists(), "the restore has put it back");
    let mut screen = Screen::open(&world, &["attach", "vs1"]);
    screen.type_in("A and after\x1b:preserve\r");
    screen.expect("preserved");
    screen.type_in(":wq\r");
    assert_eq!(screen.ends().code(), Some(0));
    assert_eq!(std::fs::read_to_string(&text).expect("what was written"), "before and after\n");
}

/// As a terminal whose window is closed, or whose connection is lost.
#[test]
fn who_is_attached_by_a_terminal_that_is_hung_up_is_detached() {
    let world = World::new();
    let mut screen = Screen::open(&world, &BASH);
    screen.type_in("PS1='>> '; x=forty\r");
    screen.type_in("echo $x-one\r");
    screen.expect("forty-one");
    screen.hang_up();
    screen.ends();
    let mut attach = world.command(binary("crctl"));
    attach.args(["attach", "vs1"]);
    let mut screen = Screen::of(attach);
    screen.expect("forty-one");
    screen.type_in("echo $x-two\r");
    screen.expect("forty-two");
    screen.hang_up();
    screen.ends();
    let mut screen = Screen::open(&world, &["attach", "vs1"]);
    screen.expect("forty-two");
    screen.type_in("exit 7\r");
    assert_eq!(screen.ends().code(), Some(7));
}
