//! One kernel object after the other through a whole checkpoint, by plain copies: the victim checks itself before and after.

use crfs_tests::world::{HugePool, Method, PATIENCE, Program, World, binary, read_tree, run};
use std::time::Duration;

/// Freeze, copy out, kill, copy in, thaw: the victim goes on where it was and finds everything as it left it. Twice, so that what
/// was restored is checkpointed too.
fn survives(kind: &str, arguments: &[&str]) {
    let world = World::new();
    let victim = Program::victim(&world, kind, arguments);
    world.start("vs1", &victim);
    for method in [Method::Cp, Method::CpArchive] {
        world.freeze("vs1");
        victim.stands_still();
        let copy = world.copy_out("vs1", method);
        assert!(read_tree(&copy) == read_tree(&world.tree("vs1")), "{kind}: two copies of one freeze differ");
        world.kill("vs1");
        world.restore(&copy, "vs1", method);
        victim.stands_still();
        world.thaw("vs1");
        victim.goes_on(3);
    }
    victim.passes();
}

/// Freeze and thaw without any copy, a few times: the container must not notice.
fn endures_freezing(kind: &str) {
    let world = World::new();
    let victim = Program::victim(&world, kind, &[]);
    world.start("vs1", &victim);
    for _ in 0..10 {
        world.freeze("vs1");
        world.thaw("vs1");
        victim.goes_on(1);
    }
    victim.passes();
}

macro_rules! survive {
    ($($kind:ident)*) => { $(
        #[test]
        fn $kind() {
            survives(stringify!($kind), &[]);
        }
    )* };
}
survive! { debug_registers ended_leader ended_tasks in_messages mqueue_thread thread_descriptors thread_directories }
survive! {
    aio altstack arguments avx blocked brk cgroup_tops cgroups clone_siblings clones controls credentials data deleted_directory epoll
    ended_directories epoll_numbers eventfd expiries family fanotify fifo files fork_sharing inner_first inner_first_spaces inner_ipc inner_mqueue inner_nested inner_net_sockets inner_proc inner_threads inner_time inner_users inotify io_uring io_uring_single_issuer io_uring_waits itimer leases limits listing locks
    mappings masks memfd mounts mounts_apart mqueue namespaces numa owner packets pending pid_namespaces pidfd pipe
    places posix_timers proc_files processes protnone pseudo_files rseq seccomp shared signalfd sparse stopped storm
    sysv_msg sysv_sem sysv_shm terminal thread_pids threads timerfd tree unnamed unshared user_namespaces vfork waiting_clients waits
    zombie
}
survive! { inet_socket netlink socket_corners unix_socket }

#[test]
fn huge_pages() {
    if let Some(_pool) = HugePool::of(16) {
        survives("huge_pages", &[]);
        survives("huge_memfd", &[]);
        survives("huge_shared", &[]);
        survives("huge_sysv_shm", &[]);
    }
}

#[test]
fn sixty_thousand_mappings() {
    survives("many", &["mappings", "60000"]);
}

macro_rules! vfork {
    ($($name:ident: $part:literal;)*) => {
        mod vforks {
            $(
                #[test]
                fn $name() {
                    super::survives("vfork", &[$part]);
                }
            )*
        }
    };
}
vfork! { plain: "Plain"; of_a_stopped_child: "Stopped"; in_a_thread: "InThread"; of_a_copy: "Copy"; nested: "Nested"; with_a_signal: "Told";
of_several_children: "Several"; }

#[test]
fn one_thread() {
    survives("threads", &["1"]);
}

#[test]
fn threads_that_share_their_filters() {
    survives("seccomp", &["shared"]);
}

#[test]
fn many_descriptors() {
    survives("many", &["descriptors", "3000"]);
}

#[test]
fn many_pipes() {
    survives("many", &["pipes", "300"]);
}

#[test]
fn many_pairs_of_sockets() {
    survives("many", &["pairs", "300"]);
}

#[test]
fn ten_processes() {
    survives("tree", &["10"]);
}

#[test]
fn waits_endure_freezing() {
    endures_freezing("waits");
}

#[test]
fn registers_endure_freezing() {
    endures_freezing("avx");
}

/// A request for which the program itself has to do something ends when the container runs for a moment in the freeze, and by nothing else;
/// and so does one that a thread of the kernel's has in its hands.
#[test]
fn requests_of_io_uring_end_in_a_freeze() {
    let world = World::new();
    let victim = Program::victim(&world, "io_uring_waits", &[]);
    world.start("vs1", &victim);
    for _ in 0..3 {
        world.freeze("vs1");
        victim.stands_still();
        world.thaw("vs1");
        // Then it has made the next request.
        victim.goes_on(20);
    }
    victim.passes();
}

#[test]
fn timers_endure_freezing() {
    endures_freezing("itimer");
}

/// Long waits of every kind, frozen when much of their time has passed: they end when they were to end, not a whole wait later.
fn waits_keep_their_time(arguments: &[&str], interrupt: impl Fn(&World)) {
    let world = World::new();
    let victim = Program::victim(&world, "time_limits", arguments);
    world.start("vs1", &victim);
    // It makes ten rounds a second, and waits for ten.
    victim.goes_on(60);
    interrupt(&world);
    victim.passes();
}

#[test]
fn waits_keep_their_time_over_a_freeze() {
    waits_keep_their_time(&[], |world| {
        world.freeze("vs1");
        world.thaw("vs1");
    });
}

#[test]
fn waits_keep_their_time_over_a_restore() {
    waits_keep_their_time(&[], |world| {
        world.freeze("vs1");
        let copy = world.copy_out("vs1", Method::Cp);
        world.kill("vs1");
        world.restore(&copy, "vs1", Method::Cp);
        world.thaw("vs1");
    });
}

/// As copies do, but that one worker makes the container and lets it run.
fn run_anew(world: &World) {
    let copy = world.dir().join("direct");
    let copy = copy.to_str().expect("a path of letters");
    world.crctl(["checkpoint", "vs1", copy, "--leave-frozen"]).expect_success();
    world.kill("vs1");
    world.crctl(["restore", copy, "--name", "vs1", "--run"]).expect_success();
    assert_eq!(world.state("vs1"), "running");
}

#[test]
fn waits_keep_their_time_over_a_restore_that_runs() {
    waits_keep_their_time(&[], run_anew);
}

#[test]
fn what_is_set_and_held_comes_back_running() {
    for kind in ["expiries", "inner_nested", "itimer", "locks", "pipe", "posix_timers", "terminal", "timerfd", "waits"]
    {
        let world = World::new();
        let victim = Program::victim(&world, kind, &[]);
        world.start("vs1", &victim);
        run_anew(&world);
        victim.goes_on(3);
        victim.passes();
    }
}

#[test]
fn signals_and_timers_come_back_where_no_more_may_wait() {
    for kind in ["pending", "posix_timers"] {
        let world = World::new();
        let victim = Program::victim(&world, kind, &[]);
        world.start("vs1", &victim);
        world.freeze("vs1");
        let copy = world.copy_out("vs1", Method::Cp);
        world.kill("vs1");
        // As where other processes of the user have filled their queues.
        let mut restore = world.command("prlimit");
        restore.args(["--sigpending=1:", "--"]).arg(binary("crctl"));
        run(restore.arg("restore").arg(&copy).args(["--name", "vs1", "--run"]), PATIENCE).expect_success();
        victim.goes_on(3);
        victim.passes();
    }
}

fn stand_between_restore_and_thaw(arguments: &[&str]) {
    waits_keep_their_time(arguments, |world| {
        world.freeze("vs1");
        let copy = world.copy_out("vs1", Method::Cp);
        world.kill("vs1");
        world.restore(&copy, "vs1", Method::Cp);
        std::thread::sleep(Duration::from_secs(6));
        world.thaw("vs1");
    });
}

#[test]
fn waits_do_not_run_out_between_restore_and_thaw() {
    stand_between_restore_and_thaw(&["6"]);
}

#[test]
fn timers_of_a_confined_program_do_not_run_out() {
    stand_between_restore_and_thaw(&["6", "confined"]);
}
