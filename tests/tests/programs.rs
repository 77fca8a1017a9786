//! Programs that people have: interpreters, shells, pipelines.

use crfs_tests::world::{Method, Program, World, edit_object, files_of, python, wait_for};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Every line starts with its number: none lost, none doubled.
fn assert_numbered(path: &Path) {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
    assert!(!text.is_empty(), "{} is empty", path.display());
    for (number, line) in text.lines().enumerate() {
        let first = line.split(' ').next().unwrap_or_default();
        assert_eq!(first, number.to_string(), "{}: line {number} is {line:?}", path.display());
    }
}

fn three_generations(interpreter: &str, script: &str, methods: [Method; 3]) {
    let world = World::new();
    let program = Program::script(&world, interpreter, script, &[]);
    generations(&world, &program, methods);
}

fn generations(world: &World, program: &Program, methods: [Method; 3]) {
    world.start("vs1", program);
    for method in methods {
        world.freeze("vs1");
        program.stands_still();
        let copy = world.copy_out("vs1", method);
        world.kill("vs1");
        world.restore(&copy, "vs1", method);
        world.thaw("vs1");
        program.goes_on(3);
    }
    program.passes();
    assert_numbered(&program.path);
}

const PLAIN: [Method; 3] = [Method::Cp, Method::Cp, Method::Cp];

#[test]
fn python_three_generations() {
    three_generations(python(), "counter.py", [Method::Cp, Method::Tar, Method::Rsync]);
}

#[test]
fn bash_that_forks_and_sleeps() {
    three_generations("/bin/bash", "loop.sh", PLAIN);
}

#[test]
fn a_script_in_a_tmpfs_of_its_own() {
    three_generations("/bin/bash", "scratch.sh", [Method::Cp, Method::Tar, Method::Cp]);
}

#[test]
fn a_sandbox_with_mounts_of_its_own() {
    three_generations("/bin/bash", "sandbox.sh", [Method::Cp, Method::Tar, Method::Cp]);
}

#[test]
fn a_sandbox_with_everything_of_its_own() {
    three_generations("/bin/bash", "sealed.sh", [Method::Cp, Method::Tar, Method::Cp]);
}

/// Node, with its ten threads, where bubblewrap has put an ordinary user's program: nothing but what it needs is there.
#[test]
fn node_in_a_sandbox_of_an_ordinary_user() {
    let world = World::new();
    let mut program = Program::script(&world, "/usr/bin/node", "timers.js", &[]);
    let out = world.out().to_string_lossy().into_owned();
    // Whoever it is in there may write where root made the directory.
    fs::set_permissions(world.out(), fs::Permissions::from_mode(0o777)).expect("opening the directory to all");
    fs::set_permissions(world.dir(), fs::Permissions::from_mode(0o755)).expect("and the way there");
    let user = "setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=-all";
    let sandbox = "bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev --bind";
    let words = user.split(' ').chain(sandbox.split(' ')).map(str::to_owned);
    program.command.splice(..0, words.chain([out.clone(), out]));
    generations(&world, &program, PLAIN);
}

/// A dozen processes with their namespaces, filters and root directory in which nothing is; a page counts in the innermost.
#[test]
fn chromium_with_its_own_sandbox() {
    let world = World::new();
    let program = Program::script(&world, python(), "chromium.py", &[]);
    fs::set_permissions(world.out(), fs::Permissions::from_mode(0o755)).expect("opening the directory to all");
    fs::set_permissions(world.dir(), fs::Permissions::from_mode(0o755)).expect("and the way there");
    generations(&world, &program, PLAIN);
}

#[test]
fn bash_pipeline_with_a_background_job() {
    three_generations("/bin/bash", "pipeline.sh", PLAIN);
}

#[test]
fn node_timers_and_file_writes() {
    three_generations("/usr/bin/node", "timers.js", PLAIN);
}

/// The runtime preempts its threads by signals, and has timers, an epoll and a collector of its own.
#[test]
fn go_preempts_by_signals() {
    let world = World::new();
    let mut program = Program::script(&world, "/usr/bin/go", "preempt.go", &[]);
    let built = world.dir().join("bin/preempt");
    let mut go = Command::new("/usr/bin/go");
    go.args(["build", "-o"]).arg(&built).arg(world.dir().join("bin/preempt.go"));
    let status = go.env("GOCACHE", world.dir().join("go-cache")).status().expect("the Go compiler");
    assert!(status.success(), "go build: {status}");
    program.command.splice(..2, [built.to_string_lossy().into_owned()]);
    generations(&world, &program, PLAIN);
}

/// Some thirty threads, two kinds of timers, compiler and collector at work.
#[test]
fn java_timers_and_garbage_collector() {
    let world = World::new();
    let mut program = Program::script(&world, "/usr/bin/java", "Timers.java", &[]);
    // Its statistics are a file that it deletes when it ends.
    program.command.splice(1..1, ["-Xmx64m", "-XX:-UsePerfData"].map(str::to_owned));
    generations(&world, &program, PLAIN);
}

/// A gigabyte of heap from the beginning, of which a part is in use.
#[test]
fn java_with_a_big_heap() {
    let world = World::new();
    let mut program = Program::script(&world, "/usr/bin/java", "Heap.java", &[]);
    program.command.splice(1..1, ["-Xms1g", "-Xmx2g", "-XX:-UsePerfData"].map(str::to_owned));
    generations(&world, &program, PLAIN);
}

/// It reserves huge ranges of addresses, has no vDSO, and must find nothing wrong in the end.
#[test]
fn a_program_under_valgrind() {
    let world = World::new();
    let mut program = Program::script(&world, "/usr/bin/valgrind", "heap.c", &[]);
    let built = world.dir().join("bin/heap");
    let mut gcc = Command::new("/usr/bin/gcc");
    let status = gcc.args(["-g", "-O1", "-o"]).arg(&built).arg(world.dir().join("bin/heap.c")).status();
    assert!(status.expect("gcc").success());
    let said = world.out().join("valgrind");
    let options = ["-q", "--leak-check=full", &format!("--log-file={}", said.display()), &built.to_string_lossy()];
    program.command.splice(1..2, options.map(str::to_owned));
    generations(&world, &program, PLAIN);
    assert_eq!(fs::read_to_string(said).expect("what valgrind says"), "");
}

#[test]
fn twenty_workers_that_share_what_they_inherited() {
    three_generations(python(), "workers.py", [Method::Cp, Method::Tar, Method::Cp]);
}

#[test]
fn perl() {
    three_generations("/usr/bin/perl", "counter.pl", PLAIN);
}

#[test]
fn ruby_with_threads_and_pipes() {
    three_generations("/usr/bin/ruby", "threads.rb", PLAIN);
}

#[test]
fn a_bus_with_two_clients() {
    three_generations(python(), "dbus.py", PLAIN);
}

#[test]
fn git_in_the_middle_of_a_collection() {
    three_generations(python(), "gc.py", PLAIN);
}

/// With apt's locks, and connections in the middle of a file.
#[test]
fn apt_get_in_the_middle_of_a_download() {
    three_generations(python(), "download.py", PLAIN);
}

#[test]
fn a_filter_of_libseccomp() {
    three_generations(python(), "sandboxed.py", PLAIN);
}

/// With the locks of a rollback journal and of a mapped write-ahead log, and with changes that are written and not committed.
#[test]
fn sqlite_in_the_middle_of_a_transaction() {
    three_generations(python(), "transaction.py", PLAIN);
}

/// Semaphores, arenas and shared memory are deleted files of /dev/shm.
#[test]
fn a_pool_of_processes_with_queues_and_shared_memory() {
    three_generations(python(), "pool.py", PLAIN);
}

/// Semaphores that keep a name of theirs in /dev/shm, as sem_open(3) leaves them.
#[test]
fn a_pool_of_processes_that_were_spawned() {
    three_generations(python(), "spawned_pool.py", PLAIN);
}

#[test]
fn ten_thousand_descriptors() {
    three_generations(python(), "descriptors.py", [Method::Cp, Method::Tar, Method::Cp]);
}

/// The same image a second time, beside the original, which appends to another file after an edit in the copy.
#[test]
fn python_beside_itself() {
    let world = World::new();
    let program = Program::script(&world, python(), "counter.py", &[]);
    world.start("vs1", &program);
    world.freeze("vs1");
    let copy = world.copy_out("vs1", Method::Cp);
    let elsewhere = world.out().join("elsewhere");
    fs::copy(&program.path, &elsewhere).expect("copying what was written so far");
    let (from, to) = (json!(program.path.to_str()), json!(elsewhere.to_str()));
    let mut edits = 0;
    for file in files_of(&copy.join("files")).iter().filter(|file| file.to_string_lossy().starts_with("0x")) {
        edit_object(&copy.join("files").join(file), |entry| {
            if let Some(path) = entry.pointer_mut("/kind/regular/path").filter(|path| **path == from) {
                *path = to.clone();
                edits += 1;
            }
        });
    }
    assert_eq!(edits, 1, "one entry names the output file");
    world.restore(&copy, "vs2", Method::Cp);
    world.thaw("vs1");
    program.goes_on(3);
    let second = Program { command: Vec::new(), path: elsewhere.clone() };
    second.stands_still();
    world.thaw("vs2");
    second.goes_on(3);
    program.goes_on(3);
    world.kill("vs2");
    assert_numbered(&elsewhere);
    program.passes();
    assert_numbered(&program.path);
}

/// A compiler that is stopped anywhere, killed and restored makes what it would have made: the objects and the program are the same.
#[test]
fn make_with_four_jobs() {
    const OBJECTS: u64 = 41;
    let world = World::new();
    let program = Program::script(&world, "/bin/bash", "make.sh", &[]);
    let undisturbed = world.out().join("undisturbed");
    let script = &program.command[1];
    fs::write(undisturbed.with_extension("check"), "").expect("asking for the program");
    let status = Command::new("/bin/bash").arg(script).arg(&undisturbed).status().expect("the script");
    assert!(status.success(), "undisturbed: {status}");
    world.start("vs1", &program);
    // However fast it is, it does not link, and end, before it is asked to.
    let made = |goal: u64| {
        let reached = wait_for(Duration::from_secs(120), || program.progress() >= goal.min(OBJECTS));
        assert!(reached, "make does not go on: {} objects; {:?}", program.progress(), program.result());
    };
    for _ in 0..3 {
        world.freeze("vs1");
        program.stands_still();
        let copy = world.copy_out("vs1", Method::Cp);
        world.kill("vs1");
        world.restore(&copy, "vs1", Method::Cp);
        world.thaw("vs1");
        made(program.progress() + 3);
    }
    made(OBJECTS);
    program.passes();
    let (ours, expected) = (program.path.with_extension("sh.d"), undisturbed.with_extension("d"));
    for file in files_of(&expected) {
        let read = |directory: &Path| fs::read(directory.join(&file)).expect("what make made");
        assert!(read(&ours) == read(&expected), "{} is another", file.display());
    }
}

/// What the tree shows of a process is so.
#[test]
fn the_tree_tells_the_truth() {
    let world = World::new();
    let program = Program::script(&world, python(), "counter.py", &[]);
    world.start("vs1", &program);
    world.freeze("vs1");
    let tree = world.tree("vs1");
    let manifest: Value = serde_json::from_slice(&fs::read(tree.join("manifest")).expect("manifest")).expect("JSON");
    assert_eq!(manifest["format"], 2);
    assert_eq!(manifest["name"], "vs1");
    assert_eq!(manifest["architecture"], "x86_64");
    let listed: Vec<&str> =
        manifest["paths"].as_array().expect("paths").iter().filter_map(|p| p["path"].as_str()).collect();
    for file in files_of(&tree) {
        let name = file.to_string_lossy();
        assert!(name == "manifest" || listed.contains(&name.as_ref()), "{name} is not in the manifest");
        let size = fs::metadata(tree.join(&file)).expect("its attributes").len();
        let content = fs::read(tree.join(&file)).expect("its content");
        assert_eq!(size, content.len() as u64, "the size of {name}");
    }
    let leader = tree.join("0x00000001");
    let process: Value = serde_json::from_slice(&fs::read(leader.join("process")).expect("process")).expect("JSON");
    let arguments: Vec<&str> =
        process["arguments"].as_array().expect("list").iter().filter_map(Value::as_str).collect();
    assert_eq!(arguments, program.command);
    assert_eq!(process["pid"], 1);
    let threads = fs::read_to_string(leader.join("thread.list")).expect("thread.list");
    assert_eq!(threads.lines().count(), 5 + 1, "five threads and the end line: {threads}");
    let frame = fs::read_to_string(leader.join("0x00000001/thread.frame")).expect("thread.frame");
    assert!(frame.contains("nanosleep") || frame.contains("\"syscall\": null"), "the main thread sleeps: {frame}");
    assert!(tree.join("1").exists(), "looking up the decimal number works too");
    assert!(tree.join(".ctl/state").exists() && !files_of(&tree).iter().any(|file| file.starts_with(".ctl")));
    world.thaw("vs1");
    program.goes_on(2);
    program.passes();
}
