//! Injection under conditions that restore meets: filters, exhausted limits, an init, descendants that die.
#![allow(clippy::unwrap_used, clippy::cast_sign_loss, clippy::cast_possible_truncation)]

mod common;

use std::time::Duration;

use common::{Child, soon, stopped, stub_injector, stub_with};
use crfs_sys::clone::CloneArgs;
use crfs_tracee::{Arg, Batch, HostPid, InjectError, Injector, OneCpu, Scratch, SeizeOptions, Spawn, Stop, stub};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};

/// A filter that answers every call with `EPERM`, preceded by what the kernel wants of a task that may install one.
fn forbid_everything() -> Batch {
    let mut batch = Batch::new();
    // BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM: struct sock_filter, and struct sock_fprog with its pointer in bytes 8 to 16.
    let filter = batch.data(&[6, 0, 0, 0, 1, 0, 5, 0]);
    let program = batch.data(&[1u64, 0].map(u64::to_ne_bytes).concat());
    batch.point(program.from(8), filter);
    batch.call(libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS.into(), 1.into()], "no_new_privs");
    batch.call(libc::SYS_seccomp, &[libc::SECCOMP_SET_MODE_FILTER.into(), 0.into(), program.into()], "seccomp");
    batch
}

#[test]
fn filters_do_not_hinder_while_they_are_suspended() {
    let (_child, mut injector) = stub_injector();
    let suspended = SeizeOptions { suspend_seccomp: true, ..SeizeOptions::BUILD };
    injector.tracee().unwrap().set_options(suspended).unwrap();
    injector.run(&forbid_everything()).unwrap();
    assert!(injector.call(libc::SYS_getpid, &[], "getpid").unwrap() > 0);
    let mut batch = Batch::new();
    batch.call(libc::SYS_getpid, &[], "getpid");
    injector.run(&batch).unwrap();
    let filters = injector.tracee().unwrap().seccomp_filters().unwrap();
    assert_eq!(filters.len(), 1);
    assert_eq!(filters[0].flags, 0);
    let [instruction] = filters[0].instructions[..] else { panic!("one instruction") };
    assert_eq!((instruction.code, instruction.k), (6, 0x0005_0001));
    // Going away, and what comes back, still works.
    let tracee = injector.unmap_scratch_and_stop().unwrap();
    tracee.set_options(SeizeOptions::BUILD).unwrap();
    let error = Injector::bootstrap(tracee, stub::GADGET, None, Scratch::DEFAULT_LEN).unwrap_err();
    assert!(matches!(error, InjectError::Call { errno: Errno::EPERM, .. }), "{error}");
}

#[test]
fn the_end_of_a_batch_needs_no_room_in_the_signal_queue() {
    let (child, mut injector) = stub_injector();
    let limit = crfs_sys::limits::Limit { soft: 0, hard: 0 };
    crfs_sys::limits::set(child.0.pid(), libc::RLIMIT_SIGPENDING, limit).unwrap();
    let mut batch = Batch::new();
    batch.call(libc::SYS_getpid, &[], "getpid");
    for _ in 0..3 {
        assert_eq!(injector.run(&batch).unwrap(), [i64::from(child.0.raw())]);
    }
    assert!(injector.held().is_empty());
}

#[test]
fn a_foreign_marker_signal_is_held_back() {
    let (child, mut injector) = stub_injector();
    let foreign = Signal::SIGSTKFLT;
    kill(child.0.pid(), foreign).unwrap();
    let mut batch = Batch::new();
    batch.call(libc::SYS_getpid, &[], "getpid");
    assert_eq!(injector.run(&batch).unwrap(), [i64::from(child.0.raw())]);
    assert_eq!(injector.held().len(), 1);
    assert_eq!(injector.held()[0].number, foreign as i32);
}

#[test]
fn an_init_and_one_without_parents_can_be_injected() {
    // The init of a pid namespace ignores every signal it has no handler for, and in a child of it getppid is 0.
    let args = CloneArgs { flags: libc::CLONE_NEWPID as u64, exit_signal: libc::SIGCHLD, ..CloneArgs::default() };
    let (_init, mut init) = stub_with(&args);
    let mut batch = Batch::new();
    for _ in 0..100 {
        batch.call(libc::SYS_getppid, &[], "getppid");
    }
    assert_eq!(init.run(&batch).unwrap(), [0; 100]);
}

#[test]
fn memory_is_exchanged_under_the_injector() {
    // What a build does: everything but the scratch goes, then other things come.
    let (child, mut injector) = stub_injector();
    let Scratch { base, len } = injector.scratch();
    let mut batch = Batch::new();
    batch.call(libc::SYS_munmap, &[0x10000.into(), (base.0 - 0x10000).into()], "unmap what is below");
    let above = base.0 + len;
    batch.call(libc::SYS_munmap, &[above.into(), (0x7fff_ffff_f000 - above).into()], "unmap what is above");
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let at = 0x5555_0000_0000u64;
    let args = [at.into(), 8192.into(), libc::PROT_READ.into(), flags.into(), Arg::from(-1), 0.into()];
    batch.call(libc::SYS_mmap, &args, "map something");
    injector.run(&batch).unwrap();
    let tracee = injector.unmap_scratch_and_stop().unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", child.0)).unwrap();
    let lines: Vec<_> = maps.lines().filter(|line| !line.contains("[vsyscall]")).collect();
    assert_eq!(lines.len(), 1, "{maps}");
    assert!(lines[0].starts_with("555500000000-555500002000 r--p"), "{maps}");
    assert_eq!(tracee.stop(), Stop::Event { signal: libc::SIGTRAP });
}

#[test]
fn restart_codes_take_effect_after_a_release() {
    // The registers are those of a task in pause, restored after calls that were made one at a time.
    let tracee = stub::spawn(&CloneArgs::default(), SeizeOptions::BUILD, soon(), || Ok(())).unwrap();
    let child = Child(tracee.tid());
    let running = tracee.cont(None).unwrap();
    common::until("it pauses", || common::state(child.0) == 'S');
    running.interrupt().unwrap();
    let tracee = stopped(running.wait(soon()).unwrap());
    let regs = tracee.regs().unwrap();
    assert_eq!((regs.rax.cast_signed(), regs.orig_rax), (-514, libc::SYS_pause as u64));
    let mut injector = Injector::bootstrap(tracee, stub::GADGET, None, Scratch::DEFAULT_LEN).unwrap();
    injector.call(libc::SYS_getpid, &[], "getpid").unwrap();
    let running = injector.release().unwrap().cont(None).unwrap();
    common::until("it pauses again", || common::state(child.0) == 'S');
    running.interrupt().unwrap();
    let tracee = stopped(running.wait(soon()).unwrap());
    // In the same call at the same place, and not at the next instruction with an error that no program may see.
    assert_eq!((tracee.regs().unwrap().rip, tracee.regs().unwrap().orig_rax), (regs.rip, regs.orig_rax));
    assert_eq!(tracee.regs().unwrap().rax.cast_signed(), -514);
}

#[test]
fn tracer_and_tracee_share_one_cpu_until_it_is_given_up() {
    let affinity = |tid: HostPid| crfs_sys::sched::affinity(tid.pid()).unwrap();
    let cpus = |words: &[u64]| words.iter().map(|word| word.count_ones()).sum::<u32>();
    let child = Child::fork(|| std::thread::sleep(Duration::from_secs(60)));
    let tracer = HostPid::from(nix::unistd::gettid());
    let own = affinity(tracer);
    {
        let cpu = OneCpu::stay().unwrap();
        assert_eq!(cpu.all(), own);
        cpu.bring(child.0).unwrap();
        assert_eq!((cpus(&affinity(tracer)), affinity(child.0)), (1, affinity(tracer)));
    }
    assert_eq!(affinity(tracer), own);
    let gone = child.0;
    drop(child);
    assert!(OneCpu::stay().unwrap().bring(gone).unwrap_err().is_gone());
}

#[test]
fn threads_share_one_scratch() {
    let (_child, mut leader) = stub_injector();
    let flags = libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
    let spawn = Spawn { flags: flags as u64, ..Spawn::default() };
    // More than the scratch memory has room for at once.
    let spawns = vec![(spawn, "make a thread".into()); 600];
    let threads = leader.spawn_all(&spawns).unwrap();
    let mut threads: Vec<_> = threads.into_iter().map(|thread| Injector::of_child(thread, &leader).unwrap()).collect();
    assert_eq!(threads.len(), spawns.len());
    let mut batch = Batch::new();
    batch.call(libc::SYS_gettid, &[], "gettid");
    for _ in 0..3 {
        for thread in &mut threads {
            assert_eq!(thread.run(&batch).unwrap(), [i64::from(thread.tid().raw())]);
            assert_eq!(thread.call(libc::SYS_gettid, &[], "gettid").unwrap(), i64::from(thread.tid().raw()));
        }
    }
    // The end of one is not that of the others.
    let mut last = threads.pop().unwrap();
    assert!(matches!(last.call(libc::SYS_exit, &[0], "exit"), Err(InjectError::Died { .. })));
    assert!(leader.call(libc::SYS_getpid, &[], "getpid").is_ok());
}
