//! Containers that others made (runc, crun, podman): taken in with their own root directory, and restored without who made them.

use crfs_tests::world::{Leftovers, Method, PATIENCE, World, binary, copy_tree, python, run, wait_for};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use serde_json::{Value, json};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Shows progress in /data, and compares all that it sees of its container with how that was, whenever it is asked to.
const PROGRAM: &str = "
import os, select, sys, termios, time
def mounts():
    for line in open('/proc/self/mountinfo'):
        left, right = line.split(' - ')
        yield tuple(left.split()[4:6]) + (right.split()[0],)
def text(path):
    with open(path) as file:
        return file.read()
def terminal():
    if not os.isatty(0):
        return None
    return [os.ttyname(0), os.fstat(0).st_rdev == os.stat('/dev/console').st_rdev, termios.tcgetattr(0), tuple(os.get_terminal_size(0)),
        os.tcgetpgrp(0) == os.getpgrp(), os.fstat(os.open('/dev/tty', os.O_RDWR)).st_rdev,
        os.fstat(console).st_rdev, os.isatty(console)]
def look():
    files = ['/in-upper', '/dev/shm/mine', '/run/mine', '/etc/given']
    devices = [os.stat('/dev/' + name).st_rdev for name in ('null', 'zero', 'tty')]
    return [sorted(mounts()), sorted(os.listdir('/')), [text(file) for file in files], devices, os.uname().nodename, terminal()]
for path, word in ('/in-upper', 'upper'), ('/dev/shm/mine', 'shm'), ('/run/mine', 'run'):
    with open(path, 'w') as file:
        file.write(word)
console = os.open('/dev/console', os.O_RDWR | os.O_NOCTTY) if os.isatty(0) else None
first, count = look(), 0
os.write(1, b'out\\n')
os.write(2, b'err\\n')
with open('/data/progress', 'w') as progress:
    while True:
        count += 1
        progress.write('%d\\n' % count)
        progress.flush()
        if os.path.exists('/data/watch'):
            watching = select.epoll()
            watching.register(1, select.EPOLLERR)
            os.rename('/data/watch', '/data/watched')
        if os.path.exists('/data/forget'):
            watching.close()
            os.rename('/data/forget', '/data/forgotten')
        if os.path.exists('/data/check'):
            now = look()
            os.write(1, b'out\\n')
            os.write(2, b'err\\n')
            os.rename('/data/check', '/data/checked')
            with open('/data/verdict', 'w') as verdict:
                verdict.write('ok' if now == first else repr([first, now]))
        time.sleep(0.02)
";

/// Who makes a container.
#[derive(Clone, Copy, PartialEq)]
enum Runtime {
    Runc,
    /// With nothing but cgroup v2 in sight, beside which it wants no other hierarchy.
    Crun,
}

/// How a runtime names the directories of an overlay.
#[derive(Clone, Copy, PartialEq)]
enum Layers {
    One,
    /// So many that their paths are too long for mount(2), and begin at a directory that the runtime stands in.
    Many,
}

/// A container whose root is an overlay over a directory that has next to nothing; /usr is the host's.
struct Container {
    world: World,
    runtime: Runtime,
    /// The terminal that it was given, as who made it has it.
    terminal: Option<OwnedFd>,
}

impl Container {
    fn new(streams: impl Fn() -> Stdio) -> Self {
        Container::with(Runtime::Runc, Layers::One, false, streams)
    }

    fn with(runtime: Runtime, layers: Layers, terminal: bool, streams: impl Fn() -> Stdio) -> Self {
        let mut container = Container { world: World::new(), runtime, terminal: None };
        let [lower, root, data] = ["lower", "root", "data"].map(|name| container.at(name));
        furnish(&lower);
        fs::write(container.at("given"), "given").expect("a file to mount");
        for path in [&root, &data, &container.at("upper"), &container.at("work")] {
            fs::create_dir(path).expect("a directory");
        }
        let [mut below, upper, work] = ["lower", "upper", "work"].map(|name| container.at(name).display().to_string());
        if layers == Layers::Many {
            let names: Vec<String> = (100..350).map(|number| format!("layers/{number}")).collect();
            for name in &names {
                fs::create_dir_all(container.at(name)).expect("a layer");
            }
            below = names.join(":") + ":lower";
        }
        let options = format!("lowerdir={below},upperdir={upper},workdir={work}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(&root);
        must(mount.current_dir(container.world.dir()));
        fs::write(container.at("config.json"), container.config(terminal).to_string()).expect("the bundle");
        let mut command = container.command();
        command
            .args(["run", "-d", "--pid-file"])
            .arg(container.at("pid"))
            .arg("-b")
            .arg(container.world.dir())
            .arg(container.id());
        let listener =
            terminal.then(|| UnixListener::bind(container.at("console")).expect("a socket for the terminal"));
        if terminal {
            command.arg("--console-socket").arg(container.at("console"));
        }
        let started = command.stdin(Stdio::null()).stdout(streams()).stderr(streams()).status().expect("the runtime");
        assert!(started.success(), "the runtime: {started}");
        container.terminal = listener.map(|listener| {
            let (sent, _) = listener.accept().expect("runc has connected");
            let (_, terminal) = crfs_sys::rights::receive(sent.as_fd(), &mut [0; 4096]).expect("what runc has sent");
            terminal.expect("a terminal")
        });
        container.goes_on();
        container
    }

    fn at(&self, name: &str) -> PathBuf {
        self.world.dir().join(name)
    }

    /// runc makes a cgroup of this name.
    fn id(&self) -> String {
        self.world.dir().file_name().expect("a name").to_string_lossy().into_owned()
    }

    fn command(&self) -> Command {
        let mut command = match self.runtime {
            Runtime::Runc => Command::new("runc"),
            Runtime::Crun => {
                let alone =
                    "all=/sys/fs/cgroup/unified; ! [ -d $all ] || mount --rbind $all /sys/fs/cgroup; exec \"$@\"";
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", alone, "sh", "crun", "--cgroup-manager=disabled"]);
                command
            }
        };
        command.arg("--root").arg(self.at("runtime"));
        command
    }

    fn config(&self, terminal: bool) -> Value {
        let mount = |path: &str, kind: &str, source: &Path, options: &[&str]| json!({"destination": path, "type": kind, "source": source, "options": options});
        let fresh = |path: &str, kind: &str, options: &[&str]| mount(path, kind, Path::new(kind), options);
        let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({"type": kind}));
        let capabilities = json!(["CAP_KILL", "CAP_CHOWN"]);
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": terminal, "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/usr/bin"], "args": [python(), "/program.py"],
                "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
                "noNewPrivileges": true
            },
            "root": {"path": "root"},
            "hostname": "inside",
            "mounts": [
                // Older than what every container gets for itself.
                fresh("/run", "tmpfs", &["size=64k"]),
                fresh("/proc", "proc", &[]),
                fresh("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=64k"]),
                fresh("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
                fresh("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=64k"]),
                fresh("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
                fresh("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
                fresh("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
                mount("/usr", "bind", Path::new("/usr"), &["rbind", "ro"]),
                mount("/data", "bind", &self.at("data"), &["rbind", "nosuid"]),
                mount("/etc/given", "bind", &self.at("given"), &["bind", "ro"]),
            ],
            "linux": {
                "namespaces": namespaces,
                "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/sys"]
            }
        })
    }

    fn pid(&self) -> String {
        fs::read_to_string(self.at("pid")).expect("the pid of the first process")
    }

    fn progress(&self) -> u64 {
        let text = fs::read_to_string(self.at("data/progress")).unwrap_or_default();
        text.lines().last().and_then(|line| line.parse().ok()).unwrap_or(0)
    }

    #[track_caller]
    fn goes_on(&self) {
        let from = self.progress();
        assert!(wait_for(PATIENCE, || self.progress() > from + 2), "it stands at {from}");
    }

    /// Lets it compare what it sees.
    #[track_caller]
    fn is_as_it_was(&self) {
        fs::write(self.at("data/check"), "").expect("asking");
        let verdict = || fs::read_to_string(self.at("data/verdict")).unwrap_or_default();
        assert!(wait_for(PATIENCE, || !verdict().is_empty()), "no answer");
        assert_eq!(verdict(), "ok");
        fs::remove_file(self.at("data/verdict")).expect("removing the answer");
    }

    /// Asks for something, and waits until it is done.
    #[track_caller]
    fn does(&self, what: &str, done: &str) {
        fs::write(self.at("data").join(what), "").expect("asking");
        assert!(wait_for(PATIENCE, || self.at("data").join(done).exists()), "it does not {what}");
    }

    /// Ends it, and who made it unmounts its root.
    fn is_gone(&self) {
        self.world.kill("vs1");
        must(self.command().args(["delete", "--force", &self.id()]));
        must(Command::new("umount").arg(self.at("root")));
    }

    fn copy(&self) -> PathBuf {
        self.world.freeze("vs1");
        self.world.copy_out("vs1", Method::Cp)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // After a test that failed.
        let _ = self.command().args(["delete", "--force", &self.id()]).stderr(Stdio::null()).status();
        let _ = Command::new("umount").arg(self.at("root")).stderr(Stdio::null()).status();
    }
}

/// Makes what a root directory has to have.
fn furnish(root: &Path) {
    for name in ["usr", "proc", "dev", "sys", "etc", "data", "run"] {
        fs::create_dir_all(root.join(name)).expect("a directory of the root");
    }
    for name in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name)).expect("a link of the root");
    }
    fs::write(root.join("program.py"), PROGRAM).expect("the program");
    fs::write(root.join("etc/given"), "").expect("a file to mount over");
}

#[track_caller]
fn must(command: &mut Command) {
    run(command, PATIENCE).expect_success();
}

fn lines(copy: &Path) -> Vec<Value> {
    let text = fs::read_to_string(copy.join("mounts")).expect("mounts");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Puts another text in the place of one in `mounts`.
fn edit(copy: &Path, from: &Path, to: &Path) {
    let text = fs::read_to_string(copy.join("mounts")).expect("mounts");
    let quoted = |path: &Path| format!("\"{}\"", path.display());
    assert!(text.contains(&quoted(from)), "{} is not in {text}", from.display());
    fs::write(copy.join("mounts"), text.replace(&quoted(from), &quoted(to))).expect("mounts");
}

#[test]
fn one_of_runc_comes_back_with_its_overlay_and_its_volumes() {
    let container = Container::new(Stdio::null);
    let world = &container.world;
    world.crctl(["add", "vs1", "--pid", &container.pid()]).expect_success();
    let copy = container.copy();
    container.is_gone();
    world.must("rm", "vs1");
    let before = Leftovers::of(world);
    let verify = || world.crctl(["verify".as_ref(), copy.as_os_str()]);
    verify().expect_success();
    world.restore(&copy, "vs1", Method::Cp);
    world.thaw("vs1");
    container.goes_on();
    container.is_as_it_was();
    let second = container.copy();
    assert_eq!(lines(&second), lines(&copy));
    world.remove("vs1");

    // Another volume, by an edit.
    let data = container.at("data");
    let other = container.at("other");
    copy_tree(&data, &other, Method::Cp).expect_success();
    fs::rename(&data, container.at("gone")).expect("renaming");
    verify().expect_refusal(&["mounts: line", "No such file or directory", "put it back, or edit the source"]);
    assert!(!world.copy_in(&copy, "vs1", Method::Cp).success(), "it was restored without its volume");
    world.status_says("vs1", &["mounts: line", "/data", "of the host, which may be edited"]);
    world.must("rm", "vs1");
    edit(&copy, &data, &other);
    verify().expect_success();
    world.restore(&copy, "vs1", Method::Cp);
    world.thaw("vs1");
    fs::write(other.join("check"), "").expect("asking");
    assert!(wait_for(PATIENCE, || fs::read_to_string(other.join("verdict")).is_ok_and(|text| text == "ok")));
    world.remove("vs1");

    // Without what its root is made of.
    fs::rename(container.at("lower"), container.at("elsewhere")).expect("renaming");
    verify().expect_refusal(&["mounts: line 1: /:", "put it back, or edit the options"]);
    assert!(!world.copy_in(&copy, "vs1", Method::Cp).success(), "it was restored without its root");
    world.status_says("vs1", &["mounts: /: mounting the overlay lowerdir="]);
    world.must("rm", "vs1");
    before.expect_again(world);
}

#[test]
fn one_of_crun_comes_back() {
    comes_back(&Container::with(Runtime::Crun, Layers::One, false, Stdio::null));
}

#[test]
fn an_overlay_of_more_layers_than_mount_takes_comes_back() {
    let container = Container::with(Runtime::Runc, Layers::Many, false, Stdio::null);
    let shown = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let root = container.at("root").display().to_string();
    assert!(shown.lines().any(|line| line.contains(&root) && line.contains("lowerdir=layers/100:")), "{shown}");
    comes_back(&container);
}

/// Takes it in, and restores it twice without its runtime.
fn comes_back(container: &Container) {
    let world = &container.world;
    world.crctl(["add", "vs1", "--pid", &container.pid()]).expect_success();
    let mut copy = container.copy();
    container.is_gone();
    for _ in 0..2 {
        world.must("rm", "vs1");
        world.crctl(["verify".as_ref(), copy.as_os_str()]).expect_success();
        world.restore(&copy, "vs1", Method::Cp);
        world.thaw("vs1");
        container.goes_on();
        container.is_as_it_was();
        let next = container.copy();
        assert_eq!(lines(&next), lines(&copy));
        copy = next;
        world.kill("vs1");
    }
    world.must("rm", "vs1");
}

#[test]
fn the_overlay_that_is_still_mounted_is_used() {
    let container = Container::new(Stdio::null);
    let world = &container.world;
    world.crctl(["add", "vs1", "--pid", &container.pid()]).expect_success();
    let copy = container.copy();
    world.kill("vs1");
    fs::write(container.at("root/through"), "the host").expect("writing to the overlay");
    world.restore(&copy, "vs1", Method::Cp);
    world.thaw("vs1");
    container.goes_on();
    // Another overlay of the same directories would not have to show it.
    let seen =
        world.crctl(["exec", "vs1", "--", python(), "-c", "import os; print(os.stat('/').st_dev)"]).expect_success();
    let expected = std::os::unix::fs::MetadataExt::dev(&fs::metadata(container.at("root")).expect("the overlay"));
    assert_eq!(seen.stdout.trim(), expected.to_string());
    world.remove("vs1");
}

#[test]
fn streams_that_lead_outside_become_the_log() {
    let streams = Streams::new();
    let container = Container::new(|| streams.writer());
    let world = &container.world;
    world.crctl(["add", "vs1", "--pid", &container.pid()]).expect_success();
    world.crctl(["freeze", "vs1"]).expect_refusal(&["fds: 1", "held outside the container", "--external stdio"]);
    world.crctl(["freeze", "vs1", "--external", "stdio"]).expect_success();
    let copy = world.copy_out("vs1", Method::Cp);
    container.is_gone();
    world.restore(&copy, "vs1", Method::Cp);
    world.thaw("vs1");
    container.goes_on();
    container.is_as_it_was();
    assert_eq!(streams.said(), "out\nerr\n");
    let logged = world.crctl(["logs", "vs1"]).expect_success();
    assert_eq!(logged.stdout, "out\nerr\n");
    // From now on they are the container's.
    world.freeze("vs1");
    world.remove("vs1");
}

#[test]
fn a_terminal_that_is_shown_outside_becomes_the_console() {
    let container = Container::with(Runtime::Runc, Layers::One, true, Stdio::null);
    let world = &container.world;
    world.crctl(["add", "vs1", "--pid", &container.pid()]).expect_success();
    world.crctl(["freeze", "vs1"]).expect_refusal(&["the program that shows it is outside", "--external stdio"]);
    world.crctl(["attach", "vs1"]).expect_refusal(&["it has no terminal to attach to"]);
    world.crctl(["freeze", "vs1", "--external", "stdio"]).expect_success();
    let copy = world.copy_out("vs1", Method::Cp);
    container.is_gone();
    world.must("rm", "vs1");
    for _ in 0..2 {
        world.restore(&copy, "vs1", Method::Cp);
        world.thaw("vs1");
        container.goes_on();
        container.is_as_it_was();
        attaches(world, "out\r\nerr\r\n");
        // From now on it is the container's.
        world.freeze("vs1");
        world.remove("vs1");
    }
}

/// Attaches, and waits until this is shown.
#[track_caller]
fn attaches(world: &World, text: &str) {
    let pair = openpty(None, None).expect("a terminal");
    fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a terminal that is not waited for");
    let slave = || Stdio::from(pair.slave.try_clone().expect("another handle"));
    let mut command = world.command("setsid");
    command.args(["--ctty", "--wait"]).arg(binary("crctl")).args(["attach", "vs1"]).env("TERM", "xterm");
    let mut attached = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().expect("starting crctl");
    let mut shown = Vec::new();
    let is_shown = wait_for(PATIENCE, || {
        let mut part = [0; 4096];
        let length = nix::unistd::read(&pair.master, &mut part).unwrap_or(0);
        shown.extend_from_slice(&part[..length]);
        String::from_utf8_lossy(&shown).contains(text)
    });
    // ^P^Q
    nix::unistd::write(&pair.master, b"\x10\x11").expect("typing");
    let ends = wait_for(PATIENCE, || attached.try_wait().expect("waiting for crctl").is_some());
    let _ = attached.kill();
    assert!(ends, "crctl does not end");
    assert!(is_shown, "{:?} is shown", String::from_utf8_lossy(&shown));
}

#[test]
fn a_stream_that_is_waited_for_cannot_become_a_log() {
    let streams = Streams::new();
    let container = Container::new(|| streams.writer());
    let world = &container.world;
    world.crctl(["add", "vs1", "--pid", &container.pid()]).expect_success();
    container.does("watch", "watched");
    let freeze = || world.crctl(["freeze", "vs1", "--external", "stdio"]);
    freeze()
        .expect_refusal(&["an epoll instance watches descriptor 1, a standard stream that would be joined to a file"]);
    container.goes_on();
    container.does("forget", "forgotten");
    freeze().expect_success();
    container.is_gone();
    world.must("rm", "vs1");
}

#[test]
fn a_file_that_its_root_does_not_show_becomes_the_log() {
    let output = tempfile::NamedTempFile::new().expect("a file of the host");
    let container = Container::new(|| fs::File::create(output.path()).expect("opening it").into());
    let world = &container.world;
    world.crctl(["add", "vs1", "--pid", &container.pid()]).expect_success();
    let output_file = output.path().display().to_string();
    world.crctl(["freeze", "vs1"]).expect_refusal(&["fds: 1", &output_file, "; or freeze with `--external stdio`"]);
    world.crctl(["freeze", "vs1", "--external", "stdio"]).expect_success();
    let copy = world.copy_out("vs1", Method::Cp);
    container.is_gone();
    // Each of its two descriptions has a position of its own.
    assert_eq!(fs::read_to_string(output.path()).expect("the file"), "err\n");
    world.restore(&copy, "vs1", Method::Cp);
    world.thaw("vs1");
    container.goes_on();
    container.is_as_it_was();
    let logged = world.crctl(["logs", "vs1"]).expect_success();
    assert_eq!(logged.stdout, "out\nerr\n");
    world.freeze("vs1");
    world.remove("vs1");
}

/// Who holds the other end of a container's streams.
struct Streams {
    reader: std::cell::RefCell<std::io::PipeReader>,
    writer: std::cell::RefCell<Option<std::io::PipeWriter>>,
}

impl Streams {
    fn new() -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        Streams { reader: reader.into(), writer: Some(writer).into() }
    }

    fn writer(&self) -> Stdio {
        self.writer.borrow().as_ref().expect("open").try_clone().expect("a duplicate").into()
    }

    /// All of it, once the container has ended.
    fn said(&self) -> String {
        self.writer.take();
        let mut said = String::new();
        std::io::Read::read_to_string(&mut *self.reader.borrow_mut(), &mut said).expect("reading");
        said
    }
}
