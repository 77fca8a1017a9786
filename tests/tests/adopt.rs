//! Taking in what runs, `crctl add`; and running a command in what is there, `crctl exec`.

use crfs_tests::compare::differences;
use crfs_tests::world::{Leftovers, Method, Outcome, PATIENCE, Program, World, binary, python, run, wait_for};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Becomes a program as a service manager would start it: a session of its own, and nothing open that is the harness's.
const DAEMON: &str = "import os, sys; os.closerange(3, 65536); os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])";

/// A process of the host, which is ended with the test.
struct Host(Child);

impl Host {
    fn start(world: &World, wrapper: &[&str], program: &[String]) -> Self {
        let mut words: Vec<String> = wrapper.iter().map(|&word| word.to_owned()).collect();
        words.extend([python(), "-c", DAEMON].map(str::to_owned));
        words.extend_from_slice(program);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(world.dir());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Host(command.spawn().expect("a process"))
    }

    /// A program that shows progress.
    fn program(world: &World, program: &Program) -> Self {
        Host::program_under(world, &[], program)
    }

    fn program_under(world: &World, wrapper: &[&str], program: &Program) -> Self {
        let host = Host::start(world, wrapper, &program.command);
        assert!(wait_for(PATIENCE, || program.progress() > 0), "{:?} does not start", program.command);
        host
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    /// Lets go of its id, once it was killed.
    fn reap(&mut self) {
        let ended = wait_for(PATIENCE, || self.0.try_wait().expect("waiting").is_some());
        assert!(ended, "process {} lives", self.pid());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Frozen, as a test that failed may have left it, it dies as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn counter(world: &World) -> Program {
    Program::script(world, python(), "counter.py", &[])
}

/// Waits until nobody has a pid of the image: who adopted its orphans may take a while to wait for them.
#[track_caller]
fn expect_free(copy: &Path) {
    let names = fs::read_dir(copy).expect("a copy").flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let pids = names.filter_map(|name| u32::from_str_radix(name.strip_prefix("0x")?, 16).ok());
    for pid in pids.collect::<Vec<_>>() {
        assert!(wait_for(PATIENCE, || !Path::new(&format!("/proc/{pid}")).exists()), "process {pid} is there");
    }
}

fn init(world: &World, name: &str) -> String {
    world.first_process(name).to_string()
}

fn namespace(pid: &str, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace")
}

/// The ids of a process in each pid namespace from the host's to its own.
fn ids(pid: &str) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).expect("NSpid");
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_process_of_the_host_comes_back_in_its_place() {
    let world = World::new();
    let before = Leftovers::of(&world);
    let program = counter(&world);
    let mut host = Host::program(&world, &program);
    let pid = host.pid();
    world.crctl(["add", "vs1", "--pid", &pid]).expect_success();
    program.goes_on(2);
    assert!(fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroup").contains("/vs1"));
    world.freeze("vs1");
    program.stands_still();
    let copy = world.copy_out("vs1", Method::Cp);
    world.kill("vs1");
    host.reap();
    world.restore(&copy, "vs1", Method::Cp);
    world.status_says("vs1", &["its parent was outside of the container; now it is the host's init or subreaper"]);
    world.thaw("vs1");
    program.goes_on(2);
    assert_eq!((init(&world, "vs1"), ids(&pid)), (pid.clone(), vec![pid.clone()]));
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        assert_eq!(namespace(&pid, kind), namespace("self", kind), "{kind} namespace");
    }
    assert_ne!(namespace(&pid, "time"), namespace("self", "time"), "its clocks would not go on");
    program.passes();
    assert!(wait_for(PATIENCE, || world.state("vs1") == "exited"));
    world.must("rm", "vs1");
    before.expect_again(&world);
}

/// The host's root directory once more, below a directory.
struct OtherRoot(PathBuf);

impl OtherRoot {
    fn new(world: &World) -> Self {
        let path = world.dir().join("root");
        fs::create_dir(&path).expect("a directory");
        let root = OtherRoot(path);
        run(Command::new("mount").args(["--bind", "/"]).arg(&root.0), PATIENCE).expect_success();
        root
    }
}

impl Drop for OtherRoot {
    fn drop(&mut self) {
        // Lazily: after a test that failed a process may be there.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).stderr(Stdio::null()).status();
    }
}

#[test]
fn one_with_another_root_by_chroot_comes_back_with_that() {
    let world = World::new();
    let before = Leftovers::of(&world);
    let root = OtherRoot::new(&world);
    let program = counter(&world);
    let mut host = Host::program_under(&world, &["chroot", &root.0.display().to_string()], &program);
    let pid = host.pid();
    let link = || fs::read_link(format!("/proc/{pid}/root")).expect("a root directory");
    assert_eq!(link(), root.0);
    world.crctl(["add", "vs1", "--pid", &pid]).expect_success();
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.kill("vs1");
    host.reap();
    world.restore(&copy, "vs1", Method::Cp);
    world.thaw("vs1");
    program.goes_on(2);
    assert_eq!((init(&world, "vs1"), link()), (pid.clone(), root.0.clone()));
    assert_eq!(namespace(&pid, "mnt"), namespace("self", "mnt"));
    // Without its root.
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.remove("vs1");
    run(Command::new("umount").arg(&root.0), PATIENCE).expect_success();
    assert!(!world.copy_in(&copy, "vs1", Method::Cp).success(), "it was restored without its root");
    world.must("rm", "vs1");
    before.expect_again(&world);
}

#[test]
fn while_an_id_is_taken_it_comes_back_in_a_pid_namespace_of_its_own() {
    let world = World::new();
    let before = Leftovers::of(&world);
    let program = counter(&world);
    let mut host = Host::program(&world, &program);
    let pid = host.pid();
    world.crctl(["add", "vs1", "--pid", &pid]).expect_success();
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.kill("vs1");
    // Nobody has waited for it: its id is in use.
    world.restore(&copy, "vs1", Method::Cp);
    world
        .status_says("vs1", &[&format!("id {pid} is in use on this host"), "process 1, which is no part of the image"]);
    world.thaw("vs1");
    program.goes_on(2);
    let inner = init(&world, "vs1");
    assert_eq!(ids(&inner), [inner.clone(), pid.clone()]);
    assert_ne!(namespace(&inner, "pid"), namespace("self", "pid"));
    assert_eq!(namespace(&inner, "net"), namespace("self", "net"));
    let listed: Value = serde_json::from_str(&world.crctl(["ls", "--json"]).expect_success().stdout).expect("JSON");
    assert_eq!(listed[0]["processes"], 1, "pid 1 is none of them: {listed}");
    // What is taken of it there comes back in its place once its id is free.
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.kill("vs1");
    host.reap();
    world.restore(&copy, "vs1", Method::Cp);
    world.thaw("vs1");
    program.goes_on(2);
    assert_eq!(init(&world, "vs1"), pid);
    world.remove("vs1");
    before.expect_again(&world);
}

/// Processes with threads, zombies and signals, none of which runs: all of them is the same in their place and elsewhere.
#[test]
fn the_image_taken_after_a_restore_is_the_same() {
    let world = World::new();
    let program = Program::script(&world, python(), "still.py", &["threads", "zombies", "signals"]);
    let mut host = Host::program(&world, &program);
    world.crctl(["add", "vs1", "--pid", &host.pid()]).expect_success();
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.kill("vs1");
    for in_place in [false, true] {
        if in_place {
            host.reap();
            expect_free(&copy);
        }
        world.restore(&copy, "vs1", Method::Cp);
        assert_eq!(world.status("vs1")["record"]["stub_init"].is_null(), in_place);
        world.thaw("vs1");
        world.freeze("vs1");
        let again = world.copy_out("vs1", Method::Cp);
        let mut found = differences(&copy, &again);
        // Clocks go on.
        found.retain(|difference| !difference.place.contains("manifest:0.clocks."));
        assert!(found.is_empty(), "in its place: {in_place}: {found:#?}");
        world.kill("vs1");
    }
}

#[test]
fn the_init_that_was_made_for_it_ends_with_it() {
    let world = World::new();
    let before = Leftovers::of(&world);
    let program = Program::script(&world, "/bin/bash", "pipeline.sh", &[]);
    let host = Host::program(&world, &program);
    world.crctl(["add", "vs1", "--pid", &host.pid()]).expect_success();
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.kill("vs1");
    world.restore(&copy, "vs2", Method::Cp);
    world.thaw("vs2");
    program.goes_on(2);
    program.passes();
    assert!(wait_for(PATIENCE, || world.state("vs2") == "exited"), "{}", world.told("vs2"));
    world.must("rm", "vs1");
    world.must("rm", "vs2");
    drop(host);
    before.expect_again(&world);
}

#[test]
fn a_storm_of_forks_is_taken_in_whole() {
    let world = World::new();
    let script = world.dir().join("bin/storm.py");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/victims/storm.py"), &script).expect("the script");
    let script = script.to_string_lossy().into_owned();
    let storm = || {
        let all = fs::read_dir("/proc").expect("/proc").flatten().filter(|entry| {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            // The dead have none.
            command.split(|&byte| byte == 0).any(|word| word == script.as_bytes())
        });
        all.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let host = Host::start(&world, &[], &[python().to_owned(), script.clone()]);
    assert!(wait_for(PATIENCE, || storm().len() > 8), "no storm");
    world.crctl(["add", "vs1", "--pid", &host.pid()]).expect_success();
    for process in storm() {
        // Empty: it has ended since.
        let cgroup = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        assert!(cgroup.is_empty() || cgroup.contains("/vs1"), "{} is outside: {cgroup}", process.display());
    }
    world.freeze("vs1");
    world.thaw("vs1");
    world.kill("vs1");
    assert!(wait_for(PATIENCE, || storm().is_empty()), "some were not in the container: {:?}", storm());
}

#[test]
fn a_tree_in_its_own_namespaces() {
    let world = World::new();
    let program = counter(&world);
    // The first process is to die with its parent, who makes the namespaces, and not with who restores it.
    let unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "--ipc"];
    let mut host = Host::start(&world, &unshare, &program.command);
    assert!(wait_for(PATIENCE, || program.progress() > 0));
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", host.pid())).expect("its child");
    let pid = children.trim();
    world.crctl(["add", "vs1", "--pid", pid]).expect_success();
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    world.kill("vs1");
    host.reap();
    world.restore(&copy, "vs1", Method::Cp);
    world.status_says("vs1", &["pdeath_signal: its parent was outside of the container"]);
    world.thaw("vs1");
    program.goes_on(2);
    let inner = init(&world, "vs1");
    assert_eq!(ids(&inner).last().map(String::as_str), Some("1"));
    for (kind, own) in [("pid", true), ("mnt", true), ("uts", true), ("ipc", true), ("net", false), ("cgroup", false)] {
        assert_eq!(namespace(&inner, kind) != namespace("self", kind), own, "{kind} namespace");
    }
    program.passes();
}

/// A cgroup beside the world's, without processes at its end.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(world: &World, name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("cgroup v2");
        let mount = mount.split(' ').nth(4).expect("a mount point");
        let own = world.dir().file_name().expect("a name").to_string_lossy().into_owned();
        let path = Path::new(mount).join(format!("{own}-{name}"));
        fs::create_dir(&path).expect("a cgroup");
        Cgroup(path)
    }

    /// A program that is in it from before its first instruction on, as are its children.
    fn start(&self, world: &World, program: &Program) -> Host {
        let members = self.0.join("cgroup.procs");
        let wrapper = ["sh", "-c", "echo $$ > \"$0\" && exec \"$@\"", &members.to_string_lossy()];
        Host::program_under(world, &wrapper, program)
    }

    fn add(&self, world: &World, name: &str) -> Outcome {
        world.crctl(["add", name, "--cgroup", &self.0.to_string_lossy()])
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = wait_for(Duration::from_secs(5), || fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn all_that_is_in_a_cgroup() {
    let world = World::new();
    let (one, two) = (counter(&world), Program::script(&world, "/bin/bash", "pipeline.sh", &[]));
    let cgroup = Cgroup::new(&world, "service");
    let mut hosts = [cgroup.start(&world, &one), cgroup.start(&world, &two)];
    cgroup.add(&world, "vs1").expect_success();
    assert_eq!(fs::read_to_string(cgroup.0.join("cgroup.procs")).expect("a cgroup"), "");
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Tar);
    world.kill("vs1");
    hosts.iter_mut().for_each(Host::reap);
    expect_free(&copy);
    world.restore(&copy, "vs1", Method::Tar);
    world.thaw("vs1");
    for host in &hosts {
        assert_eq!(ids(&host.pid()).len(), 1, "in its place");
    }
    for program in [&one, &two] {
        program.goes_on(2);
        program.passes();
    }
}

#[test]
fn what_names_somebody_outside_is_an_obstacle() {
    let world = World::new();
    let program = counter(&world);
    let host = Host::program(&world, &program);
    // In the session of the one that is added.
    let sleeper = ["sh", "-c", "sleep 1000 & exec sleep 1000"].map(str::to_owned);
    let outside = Host::start(&world, &[], &sleeper);
    let child = || fs::read_to_string(format!("/proc/{0}/task/{0}/children", outside.pid())).unwrap_or_default();
    assert!(wait_for(PATIENCE, || !child().trim().is_empty()));
    world.crctl(["add", "vs1", "--pid", child().trim()]).expect_success();
    let refused = world.crctl(["freeze", "vs1"]).expect_refusal(&[&format!("is in the session {}", outside.pid())]);
    assert_eq!(refused.code(), Some(3));
    world.remove("vs1");
    assert_eq!(namespace(&outside.pid(), "pid"), namespace("self", "pid"), "what was not added lives on");
    world.crctl(["add", "vs2", "--pid", &host.pid()]).expect_success();
    world.freeze("vs2");
}

#[test]
fn what_cannot_be_taken_in_is_refused_and_stays_where_it_is() {
    let world = World::new();
    let program = counter(&world);
    let host = Host::program(&world, &program);
    let before = Leftovers::of(&world);
    let refused = |arguments: &[&str], code: i32, words: &[&str]| {
        let outcome = world.crctl([&["add"], arguments].concat()).expect_refusal(words);
        assert_eq!(outcome.code(), Some(code), "{outcome}");
    };
    refused(&["vs1", "--pid", "4194303"], 1, &["process 4194303", "none of that number"]);
    refused(&["vs1", "--pid", "1"], 1, &["process 1:", "init"]);
    refused(&["vs1", "--pid", "2"], 1, &["process 2:", "thread of the kernel"]);
    let own = std::process::id().to_string();
    refused(&["vs1", "--pid", &own], 1, &["this command descends from it"]);
    refused(&["vs1", "--pid", &world.server_pid().to_string()], 1, &["the server of the mount"]);
    refused(&["../vs1", "--pid", &host.pid()], 2, &["vs1"]);
    refused(&["vs1", "--cgroup", "/tmp"], 1, &["no directory of cgroup v2"]);
    refused(&["vs1", "--cgroup", "/nowhere"], 1, &["no such directory"]);
    refused(&["vs1"], 2, &["--pid"]);
    let cgroup = Cgroup::new(&world, "mixed");
    refused(&["vs1", "--cgroup", &cgroup.0.to_string_lossy()], 1, &["no processes"]);
    // One that may be moved beside one that may not: neither is.
    let server = world.server_pid().to_string();
    let home = fs::read_to_string(format!("/proc/{server}/cgroup")).expect("its cgroup");
    for pid in [&host.pid(), &server] {
        fs::write(cgroup.0.join("cgroup.procs"), pid).expect("moving a process");
    }
    refused(&["vs1", "--cgroup", &cgroup.0.to_string_lossy()], 1, &["the server of the mount"]);
    assert!(fs::read_to_string(cgroup.0.join("cgroup.procs")).expect("a cgroup").contains(&host.pid()));
    let home = home.lines().find_map(|line| line.strip_prefix("0::/")).expect("cgroup v2");
    let root = cgroup.0.parent().expect("a hierarchy").join(home).join("cgroup.procs");
    fs::write(&root, &server).expect("moving the server back");
    fs::write(&root, host.pid()).expect("moving the program back");
    drop(cgroup);
    before.expect_again(&world);

    world.crctl(["add", "vs1", "--pid", &host.pid()]).expect_success();
    refused(&["vs2", "--pid", &host.pid()], 6, &["in the container vs1 already"]);
    refused(&["vs1", "--pid", &host.pid()], 6, &["vs1", "in use"]);
    program.goes_on(2);
}

#[test]
fn a_process_of_another_pid_namespace_is_added_by_its_first() {
    let world = World::new();
    let words = ["sh", "-c", "sleep 1000 & wait"].map(str::to_owned);
    let host = Host::start(&world, &["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"], &words);
    let child = |pid: &str| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let inner = || child(child(&host.pid()).trim());
    assert!(wait_for(PATIENCE, || !inner().trim().is_empty()));
    let first = child(&host.pid()).trim().to_owned();
    let words = [format!("add the first process of that: process {first}")];
    world.crctl(["add", "vs1", "--pid", inner().trim()]).expect_refusal(&[&words[0]]);
}

#[test]
fn a_command_inside_a_container_passes_on_its_status() {
    let world = World::new();
    world.crctl(["run", "vs1", "--", "sleep", "1000"]).expect_success();
    let exec = |command: &[&str]| world.crctl([&["exec", "vs1", "--"], command].concat());
    let outer = init(&world, "vs1");
    let look = "echo $(hostname) $(tr '\\0' ' ' </proc/1/cmdline); exit 7";
    let outcome = exec(&["sh", "-c", look]);
    assert_eq!((outcome.code(), outcome.stdout.trim()), (Some(7), "vs1 sleep 1000"), "{outcome}");
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let link = format!("/proc/self/ns/{kind}");
        let found = exec(&["readlink", &link]).expect_success().stdout;
        assert_eq!(Path::new(found.trim()), namespace(&outer, kind), "{kind} namespace");
    }
    let parent = exec(&["sh", "-c", "echo $PPID"]).expect_success().stdout;
    assert_eq!(parent.trim(), "1", "a child of the container's init");
    assert_eq!(exec(&["sh", "-c", "kill -TERM $$"]).code(), Some(128 + 15));
    assert_eq!(exec(&["no-such-command"]).expect_refusal(&["no-such-command", "not found"]).code(), Some(127));
    assert_eq!(exec(&["/etc/passwd"]).expect_refusal(&["/etc/passwd", "permission"]).code(), Some(126));
    let nowhere = world.crctl(["exec", "vs9", "--", "true"]).expect_refusal(&["vs9", "no such container"]);
    assert_eq!(nowhere.code(), Some(4));
    world.freeze("vs1");
    let frozen = exec(&["true"]).expect_refusal(&["cannot exec in a container that is frozen"]);
    assert_eq!(frozen.code(), Some(5));
}

#[test]
fn a_command_that_was_executed_inside_comes_back_with_the_rest() {
    let world = World::new();
    let (first, second) = (counter(&world), Program::script(&world, "/bin/bash", "pipeline.sh", &[]));
    world.start("vs1", &first);
    let arguments = ["exec", "-d", "vs1", "--"].map(str::to_owned);
    world.crctl(arguments.iter().chain(&second.command)).expect_success();
    second.goes_on(2);
    world.freeze("vs1");
    second.stands_still();
    let copy = world.copy_out("vs1", Method::Cp);
    world.kill("vs1");
    world.restore(&copy, "vs1", Method::Cp);
    world.thaw("vs1");
    for program in [&second, &first] {
        program.goes_on(2);
        program.passes();
    }
}

#[test]
fn what_of_a_command_leads_outside_is_an_obstacle_while_it_runs() {
    let world = World::new();
    world.crctl(["run", "vs1", "--", "sleep", "1000"]).expect_success();
    let mut command = world.command(binary("crctl"));
    command.args(["exec", "vs1", "--", "sh", "-c", "echo here; exec sleep 1000"]).stdout(Stdio::piped());
    let mut exec = command.spawn().expect("crctl");
    let mut word = [0; 5];
    std::io::Read::read_exact(exec.stdout.as_mut().expect("a pipe"), &mut word).expect("its output");
    let refused = world.crctl(["freeze", "vs1"]).expect_refusal(&["the other end is held outside the container"]);
    assert_eq!(refused.code(), Some(3));
    // What ends crctl ends the command.
    let pid = nix::unistd::Pid::from_raw(exec.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("ending crctl");
    let mut status = None;
    let ended = wait_for(PATIENCE, || {
        status = exec.try_wait().expect("waiting for crctl");
        status.is_some()
    });
    assert!(ended, "crctl exec goes on");
    assert_eq!(status.and_then(|status| status.code()), Some(128 + 15));
    world.freeze("vs1");
}

/// A process that stands in a directory of /proc which tells of one outside: after a restore it would be of nobody, or of somebody else.
#[test]
fn a_directory_of_a_process_outside_is_named() {
    let world = World::new();
    let program = counter(&world);
    let host = Host::program_under(&world, &["sh", "-c", "cd /proc/$PPID/task && exec \"$@\"", "sh"], &program);
    let pid = host.pid();
    world.crctl(["add", "vs1", "--pid", &pid]).expect_success();
    let refused = world.crctl(["freeze", "vs1"]);
    let reason = format!("the working directory /proc/{}/task is of a process outside", std::process::id());
    assert!(refused.code() != Some(0) && refused.stderr.contains(&reason), "{refused}");
    program.goes_on(1);
}
