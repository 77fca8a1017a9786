//! The law that capture after restore gives the same record: everything but what must differ, which is listed here.

use crfs_tests::compare::{differences, page_differences};
use crfs_tests::world::{HugePool, Method, Program, World, python, read_tree, wait_for};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Clocks go on, and so does whatever counts down.
const TIME: [&str; 3] = ["manifest:0.clocks.", ".resume.remaining.", "/timers:"];

/// What a program changes that goes on for a moment: registers and the call it is in, pages it touches for the first time, the file it
/// writes its progress to, signals between one system call and the next.
const PROGRESS: [&str; 15] = [
    ".pages",
    "manifest:0.paths",
    "/thread:0.xstate",
    "/thread.frame:",
    "/signal:0.blocked",
    "/signal.pending",
    "/fds",
    "files/",
    ".mnt.files",
    "/wait.zombies",
    "/thread.list",
    ".pending",
    "sysv.msg",
    "posix.mq",
    "sysv.shm.",
];

/// The images before and after: freeze, copy, kill, restore, thaw, freeze at once, copy. `look` copies the restored container
/// too before it has run.
fn round(world: &World, name: &str, look: bool) -> (PathBuf, PathBuf) {
    world.freeze(name);
    let before = world.copy_out(name, Method::Cp);
    world.kill(name);
    world.restore(&before, name, Method::Cp);
    if look {
        let restored = world.copy_out(name, Method::Cp);
        // Its text is what was copied in; its pages are read from the new processes.
        assert_eq!(differences(&before, &restored), []);
        expect_same_pages(&before, &restored);
    }
    world.thaw(name);
    world.freeze(name);
    (before, world.copy_out(name, Method::Cp))
}

fn expect_same(before: &Path, after: &Path, ignored: &[&str]) {
    let found = differences(before, after);
    let kept: Vec<String> = found
        .iter()
        .filter(|difference| !TIME.iter().chain(ignored).any(|part| difference.place.contains(part)))
        .map(ToString::to_string)
        .collect();
    let differ = kept.len();
    assert!(kept.is_empty(), "{differ} differences\n{}", kept.join("\n").chars().take(20_000).collect::<String>());
}

/// Where the kernel itself writes into memory when a thread goes on: its `struct rseq`.
fn rseq_areas(image: &Path) -> Vec<(u64, u64)> {
    let attributes = read_tree(image).into_iter().filter(|(path, _)| path.components().count() == 3);
    let attributes = attributes.filter(|(path, _)| path.ends_with("attr"));
    attributes
        .filter_map(|(_, text)| {
            let attr: Value = serde_json::from_slice(&text).ok()?;
            let address = attr["rseq"]["address"].as_str()?.strip_prefix("0x").map(|hex| u64::from_str_radix(hex, 16));
            let address = address?.ok()?;
            Some((address, address + attr["rseq"]["size"].as_u64()?))
        })
        .collect()
}

fn expect_same_pages(before: &Path, after: &Path) {
    let areas = rseq_areas(before);
    for (process, addresses) in page_differences(before, after) {
        let changed: Vec<String> = addresses
            .iter()
            .filter(|&&at| !areas.iter().any(|&(start, end)| (start..end).contains(&at)))
            .map(|at| format!("{at:#x}"))
            .collect();
        assert!(changed.is_empty(), "{process}: memory differs at {changed:?}");
    }
}

/// A program that has told that it stands may not do so yet.
fn is_in_pause(process: Pid) -> bool {
    let pause = format!("{} ", nix::libc::SYS_pause);
    fs::read_to_string(format!("/proc/{process}/syscall")).is_ok_and(|text| text.starts_with(&pause))
}

/// Processes with every attribute set to something of its own, none of which runs: all is the same, to the byte, and works.
fn stands_still(kinds: &[&str]) {
    let world = World::new();
    let program = Program::script(&world, python(), "still.py", kinds);
    world.crctl(["run", "vs1", "--"].map(str::to_owned).iter().chain(&program.command)).expect_success();
    let stands = || program.progress() > 0 && is_in_pause(world.first_process("vs1"));
    let stands = wait_for(Duration::from_secs(60), || stands() || program.result().is_some());
    assert!(stands && program.result().is_none(), "{:?}", program.result());
    for look in [false, true] {
        let (before, after) = round(&world, "vs1", look);
        expect_same(&before, &after, &[]);
        expect_same_pages(&before, &after);
        world.thaw("vs1");
    }
    nix::sys::signal::kill(world.first_process("vs1"), nix::sys::signal::Signal::SIGUSR1)
        .expect("asking for the verdict");
    wait_for(Duration::from_secs(30), || program.result().is_some());
    assert_eq!(program.result().as_deref(), Some("ok"));
}

macro_rules! still {
    ($($name:ident: $($kind:literal)*;)*) => { $(
        #[test]
        fn $name() {
            stands_still(&[$($kind),*]);
        }
    )* };
}
still! {
    advice: "advice";
    protections: "protections";
    heap: "heap";
    mapped_files: "files";
    shared_memory: "shared";
    attributes: "attributes" "root_directory" "realtime";
    controls: "controls";
    credentials: "nobody" "ambient" "weak_root" "half_changed";
    signals: "signals";
    threads: "threads";
    zombies: "zombies";
    exit_signals: "exit_signals";
    membarrier: "barriers";
    groups: "groups";
    executed: "executed";
    all_at_once: ;
}

/// A victim that goes on: what it does not change itself is the same.
fn goes_on(kind: &str) {
    let world = World::new();
    let victim = Program::victim(&world, kind, &[]);
    world.start("vs1", &victim);
    let (before, after) = round(&world, "vs1", false);
    let heap: &[&str] = if kind == "brk" { &[".end", ".layout.brk"] } else { &[] };
    expect_same(&before, &after, &[&PROGRESS, heap].concat());
    world.thaw("vs1");
    victim.goes_on(1);
    victim.passes();
}

#[test]
fn huge_pages() {
    if let Some(_pool) = HugePool::of(16) {
        goes_on("huge_pages");
        goes_on("huge_memfd");
        goes_on("huge_shared");
        goes_on("huge_sysv_shm");
    }
}

macro_rules! going {
    ($($kind:ident)*) => {
        mod going {
            $(
                #[test]
                fn $kind() {
                    super::goes_on(stringify!($kind));
                }
            )*
        }
    };
}
going! {
    aio altstack arguments avx blocked brk cgroup_tops cgroups clone_siblings clones controls credentials data debug_registers
    deleted_directory ended_leader epoll epoll_numbers eventfd expiries family fifo files fork_sharing inet_socket
    ended_directories fanotify inner_first inner_first_spaces inner_ipc inner_mqueue inner_nested inner_net_sockets inner_proc inner_threads inner_time inner_users inotify io_uring io_uring_single_issuer io_uring_waits itimer leases limits listing locks mappings masks memfd mounts mounts_apart mqueue namespaces netlink numa
    owner packets pending pid_namespaces pidfd pipe places posix_timers proc_files processes protnone pseudo_files
    rseq seccomp shared signalfd socket_corners sparse stopped sysv_msg sysv_sem sysv_shm terminal
    thread_descriptors thread_directories thread_pids threads timerfd tree unix_socket unnamed unshared user_namespaces
    vfork waiting_clients waits zombie
    ended_tasks in_messages mqueue_thread
}
