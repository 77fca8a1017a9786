//! What clumsy users met: every test here was a failure once.

use crfs_tests::world::{Method, PATIENCE, Program, World, binary, copy_program, python, run, wait_for};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A root directory with nothing but a shell, what it is linked with, and a /dev of its own.
fn small_root(world: &World) -> std::path::PathBuf {
    let root = world.dir().join("root");
    for dir in ["proc", "dev", "bin"] {
        fs::create_dir_all(root.join(dir)).expect("a directory of the root");
    }
    let put = |path: &str| {
        let to = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a parent")).expect("a directory of the root");
        copy_program(Path::new(path), &to);
    };
    put("/bin/dash");
    let linked = run(Command::new("ldd").arg("/bin/dash"), PATIENCE).expect_success().stdout;
    linked.split_whitespace().filter(|word| word.starts_with('/')).for_each(put);
    let null = root.join("dev/null");
    run(Command::new("mknod").args(["-m", "666"]).arg(null).args(["c", "1", "3"]), PATIENCE).expect_success();
    root
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[test]
fn a_root_with_device_nodes_of_its_own() {
    let world = World::new();
    let root = small_root(&world);
    let count = "i=0; while :; do i=$((i+1)); echo $i >> /count; n=0; while [ $n -lt 9999 ]; do n=$((n+1)); done; done";
    let arguments = ["run", "vs1", "--root", root.to_str().expect("UTF-8"), "--", "/bin/dash", "-c", count];
    world.crctl(arguments).expect_success();
    let out = root.join("count");
    assert!(wait_for(PATIENCE, || lines(&out) > 3), "{}", world.told("vs1"));
    for _ in 0..2 {
        world.freeze("vs1");
        let copy = world.copy_out("vs1", Method::Cp);
        world.kill("vs1");
        world.restore(&copy, "vs1", Method::Cp);
        let before = lines(&out);
        world.thaw("vs1");
        assert!(wait_for(PATIENCE, || lines(&out) > before + 3), "{}", world.told("vs1"));
    }
    world.kill("vs1");
    let text = fs::read_to_string(&out).expect("what it wrote");
    assert!(text.lines().enumerate().all(|(index, line)| line == (index + 1).to_string()), "{text}");
}

#[test]
fn what_a_copy_lacks_is_told_with_and_without_the_server() {
    let mut world = World::new();
    world.crctl(["run", "vs1", "--", "sleep", "1000"]).expect_success();
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.remove("vs1");
    let fds = copy.join("0x00000001/fds");
    let whole = fs::read(&fds).expect("the copy's descriptors");
    fs::write(&fds, &whole[..whole.len() - 3]).expect("cutting a file");
    let line = whole.iter().filter(|byte| **byte == b'\n').count();
    let cut = format!("0x00000001/fds: line {line}: the file ends too early");
    world.copy_in(&copy, "vs1", Method::Cp).expect_success();
    assert_eq!(world.state("vs1"), "incoming");
    let status = fs::read_to_string(world.tree("vs1").join(".ctl/status")).expect("the status file");
    assert!(status.contains(&cut), "{status}");
    world.crctl(["thaw", "vs1"]).expect_refusal(&["crctl status vs1"]);
    world.stop_server(Signal::SIGTERM);
    let told = world.crctl(["status", "vs1"]).expect_success().stdout;
    assert!(told.contains(&cut), "{told}");
    world.start_server();
    fs::write(world.tree("vs1").join("0x00000001/fds"), whole).expect("completing the copy");
    assert!(wait_for(Duration::from_secs(10), || world.state("vs1") == "frozen"), "{}", world.told("vs1"));
}

/// Freezes, and sends `crctl` a signal at some moment of it. Whether it was done before the signal came.
fn freeze_under_signal(world: &World, signal: Signal, after: Duration) -> bool {
    let mut child =
        world.command(binary("crctl")).args(["freeze", "vs1"]).stdout(Stdio::null()).spawn().expect("crctl");
    std::thread::sleep(after);
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    // Not waited for yet: the pid is its own, whether or not it has ended.
    nix::sys::signal::kill(pid, signal).expect("signalling crctl");
    let status = child.wait().expect("waiting for crctl");
    if !status.success() {
        // One that comes before crctl looks out for it ends it like any program, with nothing begun.
        let ended = status.signal() == Some(signal as i32);
        assert!(ended || (signal != Signal::SIGKILL && status.code() == Some(130)), "{status}");
    }
    status.success()
}

#[test]
fn a_freeze_that_is_broken_off_leaves_the_container_running() {
    let world = World::new();
    let program = Program::script(&world, python(), "counter.py", &[]);
    world.start("vs1", &program);
    let (mut broken_off, mut done) = (0, 0);
    for round in 0..36 {
        let signal = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL][round % 3];
        if freeze_under_signal(&world, signal, Duration::from_millis(2 + 2 * round as u64)) {
            done += 1;
        } else {
            broken_off += 1;
        }
        if world.state("vs1") == "frozen" {
            world.thaw("vs1");
        } else if signal == Signal::SIGKILL {
            // The worker finds that nobody takes its report, and thaws. It cannot know of a crctl that took the report and was
            // killed before it wrote that down: then a thaw is what helps.
            let before = program.progress();
            if !wait_for(Duration::from_secs(5), || program.progress() > before) {
                world.thaw("vs1");
            }
        }
        program.goes_on(1);
    }
    assert!(broken_off > 0, "no freeze was broken off ({done} were done)");
}
