//! Injected system calls: batches, failures, children, interrupted calls, going away without a trace.
#![allow(clippy::unwrap_used, clippy::cast_sign_loss, clippy::cast_possible_truncation)]

mod common;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use common::{Child, gone, seize_and_stop, soon, state, stopped, stub_injector, stub_with, until};
use crfs_sys::clone::CloneArgs;
use crfs_tracee::{
    Arg, Batch, Exit, Gadget, InjectError, Injector, RemoteAddress, Scratch, SeizeOptions, Spawn, Stop, Tracee, stub,
};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};

const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_CHILD_CLEARTID) as u64;

#[test]
fn the_stub_is_almost_empty() {
    let (child, injector) = stub_injector();
    let stub = injector.unmap_scratch_and_stop().unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", child.0)).unwrap();
    let mut names: Vec<_> = maps.lines().map(|line| line.get(73..).unwrap_or_default().to_owned()).collect();
    assert!(names.remove(0).contains("crfs-stub"), "{maps}");
    names.retain(|name| !matches!(name.as_str(), "[vvar]" | "[vvar_vclock]" | "[vdso]" | "[stack]" | "[vsyscall]"));
    assert_eq!(names, Vec::<String>::new(), "{maps}");
    assert!(maps.contains("rw-p") && !maps.contains("rwxp"), "{maps}");
    assert_eq!(stub.rseq().unwrap(), None);
    stub.detach().unwrap();
    until("it pauses", || state(child.0) == 'S');
}

#[test]
fn calls_refer_to_results_and_to_data() {
    let (child, mut injector) = stub_injector();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"what stands in the file").unwrap();
    let mut batch = Batch::new();
    let path = batch.string(&CString::new(file.path().as_os_str().as_bytes()).unwrap());
    let buffer = batch.space(64);
    let pair = batch.space(8);
    // An array of one iovec, which points into the data itself.
    let vector = batch.data(&[0u64.to_ne_bytes(), 5u64.to_ne_bytes()].concat());
    batch.point(vector, buffer);
    let pid = batch.call(libc::SYS_getpid, &[], "getpid");
    let fd = batch.call(libc::SYS_openat, &[libc::AT_FDCWD.into(), path.into(), libc::O_RDONLY.into()], "open it");
    let read = batch.call(libc::SYS_read, &[fd.into(), buffer.into(), 64.into()], "read it");
    let close = batch.call(libc::SYS_close, &[fd.into()], "close it");
    batch.call(libc::SYS_pipe2, &[pair.into(), 0.into()], "make a pipe");
    let written = batch.call(libc::SYS_writev, &[Arg::Data32(pair.from(4)), vector.into(), 1.into()], "fill it");
    let ready = batch.space(4);
    batch.call(libc::SYS_ioctl, &[Arg::Data32(pair), libc::FIONREAD.into(), ready.into()], "ask it");
    let again = batch.attempt(libc::SYS_close, &[fd.into()], "close it again, or the pipe that took its number");
    let outcome = injector.run_reading(&batch).unwrap();
    assert_eq!(outcome.results[pid.index()], i64::from(child.0.raw()));
    assert_eq!(outcome.results[read.index()], 23);
    assert_eq!(outcome.results[close.index()], 0);
    assert_eq!(outcome.results[written.index()], 5);
    assert_eq!(outcome.results[again.index()], 0);
    assert_eq!(&outcome.data(buffer)[..23], b"what stands in the file");
    assert_eq!(outcome.data(ready), 5u32.to_ne_bytes());
}

#[test]
fn the_failing_call_is_named_and_ends_the_batch() {
    let (child, mut injector) = stub_injector();
    let mut batch = Batch::new();
    let nowhere = batch.string(c"/nowhere/at/all");
    batch.attempt(libc::SYS_close, &[999.into()], "close what is not open");
    batch.call(libc::SYS_openat, &[libc::AT_FDCWD.into(), nowhere.into(), 0.into()], "open /nowhere/at/all");
    batch.call(libc::SYS_umask, &[0o123.into()], "set the umask");
    let error = injector.run(&batch).unwrap_err();
    let InjectError::Call { index: 1, errno: Errno::ENOENT, .. } = error else { panic!("{error}") };
    let text = format!("task {}: open /nowhere/at/all (system call 257): ENOENT: No such file or directory", child.0);
    assert_eq!(error.to_string(), text);
    assert_ne!(injector.call(libc::SYS_umask, &[0], "ask for the umask").unwrap(), 0o123);
    let error = injector.call(libc::SYS_close, &[999], "close 999").unwrap_err();
    assert!(matches!(error, InjectError::Call { errno: Errno::EBADF, .. }), "{error}");
    assert_eq!(injector.attempt(libc::SYS_close, &[999], "close 999").unwrap(), -9);
}

#[test]
fn a_batch_larger_than_the_scratch_is_run_in_pieces() {
    let tracee = stub::spawn(&CloneArgs::default(), SeizeOptions::BUILD, soon(), || Ok(())).unwrap();
    let _child = Child(tracee.tid());
    // 28 calls and 2040 bytes at once.
    let mut injector = Injector::bootstrap(tracee, stub::GADGET, None, 8192).unwrap();
    let mut batch = Batch::new();
    let pair = batch.space(8);
    batch.call(libc::SYS_pipe2, &[pair.into(), (libc::O_NONBLOCK).into()], "make a pipe");
    let first = batch.call(libc::SYS_dup, &[Arg::Data32(pair)], "dup");
    let mut expected = Vec::new();
    for round in 0..200u8 {
        let bytes = batch.data(&[round; 100]);
        expected.extend([round; 100]);
        batch.call(libc::SYS_write, &[4.into(), bytes.into(), 100.into()], "write");
        batch.call(libc::SYS_fcntl, &[first.into(), libc::F_GETFD.into()], "use a result of an earlier piece");
    }
    let mut buffers = Vec::new();
    for _ in 0..20 {
        let buffer = batch.space(1000);
        batch.call(libc::SYS_read, &[first.into(), buffer.into(), 1000.into()], "read");
        buffers.push(buffer);
    }
    let outcome = injector.run_reading(&batch).unwrap();
    assert_eq!(outcome.results.len(), 2 + 400 + 20);
    assert!(outcome.results[402..].iter().all(|count| *count == 1000));
    let read: Vec<u8> = buffers.iter().flat_map(|buffer| outcome.data(*buffer).to_vec()).collect();
    assert_eq!(read, expected);

    let mut batch = Batch::new();
    let large = batch.space(3000);
    batch.call(libc::SYS_read, &[3.into(), large.into(), 3000.into()], "read too much");
    let error = injector.run(&batch).unwrap_err();
    assert!(matches!(error, InjectError::TooLarge { needed: 3000, available: 2040, .. }), "{error}");
}

#[test]
fn a_reference_to_a_later_call_is_refused() {
    let (_child, mut injector) = stub_injector();
    let mut other = Batch::new();
    other.call(libc::SYS_getpid, &[], "getpid");
    let later = other.call(libc::SYS_getpid, &[], "getpid");
    let mut batch = Batch::new();
    batch.call(libc::SYS_close, &[later.into()], "close the result of the future");
    let error = injector.run(&batch).unwrap_err();
    assert!(matches!(error, InjectError::Reference { .. }), "{error}");
}

#[test]
fn dispositions_and_signals_survive() {
    // SIGTRAP ignored, SIGSTKFLT ignored: what an int3, or a signal that is delivered, would spoil.
    let (child, mut injector) = stub_injector();
    let mut batch = Batch::new();
    let ignore = batch.data(&[1u64, 0, 0, 0].map(u64::to_ne_bytes).concat());
    for number in [libc::SIGTRAP, libc::SIGSTKFLT] {
        batch.call(libc::SYS_rt_sigaction, &[number.into(), ignore.into(), 0.into(), 8.into()], "ignore a signal");
    }
    injector.run(&batch).unwrap();
    kill(child.0.pid(), Signal::SIGUSR1).unwrap();
    kill(child.0.pid(), Signal::SIGSTOP).unwrap();
    let mut batch = Batch::new();
    for _ in 0..100 {
        batch.call(libc::SYS_getpid, &[], "getpid");
    }
    for _ in 0..10 {
        injector.run(&batch).unwrap();
    }
    let held: Vec<_> = injector.held().iter().map(|signal| signal.number).collect();
    assert_eq!(held, [libc::SIGSTOP]);
    let tracee = injector.release().unwrap();
    assert_eq!(tracee.stop(), Stop::Event { signal: libc::SIGTRAP });
    assert_eq!(tracee.sigmask().unwrap(), 0);
    assert_eq!(tracee.pending(true).unwrap().len(), 1);
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.0)).unwrap();
    let ignored = (1u64 << (libc::SIGTRAP - 1)) | (1 << (libc::SIGSTKFLT - 1));
    assert!(status.contains(&format!("SigIgn:\t{ignored:016x}")), "{status}");
    // The signal that waited is delivered, and kills.
    let running = tracee.cont(None).unwrap();
    let delivery = stopped(running.wait(soon()).unwrap());
    assert_eq!(delivery.stop(), Stop::Signal(libc::SIGUSR1));
    let running = delivery.cont(Some(libc::SIGUSR1)).unwrap();
    assert_eq!(gone(running.wait(soon()).unwrap()), Exit::Signal { number: libc::SIGUSR1, core: false });
}

#[test]
fn sigchld_in_the_middle_of_a_batch_waits() {
    let (_child, mut injector) = stub_injector();
    let stopped_child = injector.spawn(&Spawn { exit_signal: libc::SIGCHLD, ..Spawn::default() }, "fork").unwrap();
    let mut grandchild = Injector::new(stopped_child, injector.scratch()).unwrap();
    let tid = grandchild.tid();
    let died = grandchild.call(libc::SYS_exit_group, &[7], "exit").unwrap_err();
    assert!(matches!(died, InjectError::Died { exit: Exit::Code(7), .. }), "{died}");
    let mut batch = Batch::new();
    let status = batch.space(4);
    for _ in 0..50 {
        batch.call(libc::SYS_getppid, &[], "getppid");
    }
    let wait = batch.call(libc::SYS_wait4, &[tid.raw().into(), status.into(), 0.into(), 0.into()], "reap it");
    let outcome = injector.run_reading(&batch).unwrap();
    assert_eq!(outcome.results[wait.index()], i64::from(tid.raw()));
    assert_eq!(outcome.data(status), 0x700u32.to_ne_bytes());
    let tracee = injector.release().unwrap();
    let pending = tracee.pending(true).unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!(i32::from_ne_bytes(pending[0][..4].try_into().unwrap()), libc::SIGCHLD);
}

#[test]
fn children_of_a_batch_are_reported() {
    let (_child, mut injector) = stub_injector();
    let mut batch = Batch::new();
    for _ in 0..3 {
        batch.call(libc::SYS_clone, &[libc::SIGCHLD.into()], "fork");
    }
    let results = injector.run(&batch).unwrap();
    let children = injector.children();
    let pids: Vec<_> = children.iter().map(|child| i64::from(child.raw())).collect();
    assert_eq!(pids, results);
    assert!(injector.children().is_empty());
    for child in children {
        let child = stopped(Tracee::adopt(child).wait(soon()).unwrap());
        assert_eq!(child.stop(), Stop::Event { signal: libc::SIGTRAP });
        let mut child = Injector::new(child, injector.scratch()).unwrap();
        assert_eq!(child.call(libc::SYS_getpid, &[], "getpid").unwrap(), i64::from(child.tid().raw()));
    }
}

#[test]
fn threads_and_processes_get_their_ids_in_a_new_pid_namespace() {
    let args = CloneArgs { flags: libc::CLONE_NEWPID as u64, exit_signal: libc::SIGCHLD, ..CloneArgs::default() };
    let (_init, mut init) = stub_with(&args);
    assert_eq!(init.call(libc::SYS_getpid, &[], "getpid").unwrap(), 1);
    let fork = Spawn { exit_signal: libc::SIGCHLD, set_tid: vec![4711], ..Spawn::default() };
    let leader = init.spawn(&fork, "make process 4711").unwrap();
    let mut leader = Injector::new(leader, init.scratch()).unwrap();
    let thread = Spawn {
        flags: THREAD,
        set_tid: vec![5000],
        tls: RemoteAddress(0x7000_0000),
        child_tid: RemoteAddress(0x7100_0000),
        ..Spawn::default()
    };
    let thread = leader.spawn(&thread, "make thread 5000").unwrap();
    assert_eq!(thread.stop(), Stop::Event { signal: libc::SIGTRAP });
    assert_eq!(thread.regs().unwrap().fs_base, 0x7000_0000);
    let mut thread = Injector::new(thread, leader.scratch()).unwrap();
    let mut batch = Batch::new();
    batch.call(libc::SYS_getpid, &[], "getpid");
    batch.call(libc::SYS_gettid, &[], "gettid");
    batch.call(libc::SYS_getppid, &[], "getppid");
    assert_eq!(thread.run(&batch).unwrap(), [4711, 5000, 1]);
    assert_eq!(leader.run(&batch).unwrap(), [4711, 4711, 1]);
    // Twice the same is refused by name.
    let error = init.spawn(&fork, "make process 4711").unwrap_err();
    assert!(matches!(error, InjectError::Call { errno: Errno::EEXIST, .. }), "{error}");
}

#[test]
fn a_child_that_is_not_attached_is_told() {
    let options = SeizeOptions { exit_kill: true, ..SeizeOptions::default() };
    let args = CloneArgs { flags: libc::CLONE_NEWPID as u64, exit_signal: libc::SIGCHLD, ..CloneArgs::default() };
    // In a namespace of its own, so that what runs away dies with it.
    let tracee = stub::spawn(&args, options, soon(), || Ok(())).unwrap();
    let _child = Child(tracee.tid());
    let mut injector = Injector::bootstrap(tracee, stub::GADGET, None, Scratch::DEFAULT_LEN).unwrap();
    let error = injector.spawn(&Spawn { exit_signal: libc::SIGCHLD, ..Spawn::default() }, "fork").unwrap_err();
    assert!(matches!(error, InjectError::Untraced { .. }), "{error}");
}

#[test]
fn an_interrupted_sleep_goes_on_and_ends_in_time() {
    let (child, mut injector) = stub_injector();
    // What the program would do: the registers after its own `syscall`, and then exit with what nanosleep returned.
    let mut batch = Batch::new();
    let anywhere = -1;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let page = [0.into(), 4096.into(), 7.into(), flags.into(), anywhere.into(), 0.into()];
    batch.call(libc::SYS_mmap, &page, "map the program's page");
    let page = injector.run(&batch).unwrap()[0] as u64;
    // syscall; mov edi, eax; mov eax, 231; syscall
    let code = [0x0f, 0x05, 0x89, 0xc7, 0xb8, 231, 0, 0, 0, 0x0f, 0x05];
    crfs_sys::memory::write(child.0.pid(), page, &code).unwrap();
    let time = [2u64.to_ne_bytes(), 0u64.to_ne_bytes()].concat();
    crfs_sys::memory::write(child.0.pid(), page + 1024, &time).unwrap();

    let begun = Instant::now();
    let rax = injector.enter_and_interrupt(libc::SYS_nanosleep, &[page + 1024, 0], "sleep").unwrap();
    assert_eq!(rax, -516);
    // More work in between does not disturb it.
    assert!(injector.call(libc::SYS_getpid, &[], "getpid").unwrap() > 0);
    let tracee = injector.unmap_scratch_and_stop().unwrap();
    let mut regs = tracee.regs().unwrap();
    regs.rip = page + 2;
    regs.rax = (-516i64) as u64;
    regs.orig_rax = libc::SYS_nanosleep as u64;
    regs.rdi = page + 1024;
    tracee.set_regs(&regs).unwrap();
    // Waited for as a child, once nobody traces it.
    tracee.detach().unwrap();
    assert_eq!(child.end(), crfs_sys::wait::Status::Exited { code: 0 });
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1990), "{took:?}");
}

#[test]
fn a_call_that_need_not_wait_is_done() {
    let (_child, mut injector) = stub_injector();
    let pid = injector.call(libc::SYS_getpid, &[], "getpid").unwrap();
    assert_eq!(injector.enter_and_interrupt(libc::SYS_getpid, &[], "getpid").unwrap(), pid);
}

#[test]
fn a_real_program_goes_on_as_if_nothing_had_been() {
    let (mut read, mut write) = std::io::pipe().unwrap();
    let child = Child::fork(move || {
        for round in 0..40u8 {
            std::thread::sleep(Duration::from_millis(10));
            std::io::Write::write_all(&mut write, &[round]).unwrap();
        }
        std::thread::sleep(Duration::from_secs(60));
    });
    let mut rounds = 0;
    let deadline = soon();
    while rounds < 5 {
        assert!(Instant::now() < deadline, "it sleeps most of the time");
        let tracee = seize_and_stop(child.0, SeizeOptions::default());
        let (regs, mask) = (tracee.regs().unwrap(), tracee.sigmask().unwrap());
        let Some(gadget) = Gadget::of_blocked_call(&tracee) else {
            tracee.detach().unwrap();
            continue;
        };
        rounds += 1;
        let mut injector = Injector::bootstrap(tracee, gadget, None, Scratch::DEFAULT_LEN).unwrap();
        let mut batch = Batch::new();
        for _ in 0..1000 {
            batch.call(libc::SYS_getpid, &[], "getpid");
        }
        let results = injector.run(&batch).unwrap();
        assert!(results.iter().all(|pid| *pid == i64::from(child.0.raw())));
        let tracee = injector.unmap_scratch_and_stop().unwrap();
        assert_eq!((tracee.regs().unwrap(), tracee.sigmask().unwrap()), (regs, mask));
        tracee.detach().unwrap();
        std::thread::sleep(Duration::from_millis(25));
    }
    let mut bytes = [0u8; 40];
    std::io::Read::read_exact(&mut read, &mut bytes).unwrap();
    assert_eq!(bytes, std::array::from_fn(|index| index as u8));
    until("it sleeps", || state(child.0) == 'S');
}

#[test]
fn death_in_the_middle_is_a_result() {
    let (child, mut injector) = stub_injector();
    let mut batch = Batch::new();
    batch.call(libc::SYS_exit_group, &[3.into()], "exit");
    let error = injector.run(&batch).unwrap_err();
    let text = format!("task {} died while it ran 'exit': it exited with 3", child.0);
    assert_eq!(error.to_string(), text);
    assert!(matches!(injector.run(&batch), Err(InjectError::Lost { .. })));
}

#[test]
fn missing_scratch_is_told() {
    let (_child, mut injector) = stub_injector();
    let scratch = injector.scratch();
    injector.call(libc::SYS_munmap, &[scratch.base.0, scratch.len], "unmap behind its back").unwrap();
    let error = injector.attempt(libc::SYS_getpid, &[], "getpid").unwrap_err();
    assert!(matches!(error, InjectError::Fault { signal: libc::SIGSEGV, .. }), "{error}");
    let mut batch = Batch::new();
    batch.call(libc::SYS_getpid, &[], "getpid");
    let error = injector.run(&batch).unwrap_err();
    assert!(matches!(error, InjectError::Memory { action: "write", source: Errno::EFAULT, .. }), "{error}");
}

#[test]
fn a_call_that_does_not_end_times_out_and_can_be_given_up() {
    let (_child, mut injector) = stub_injector();
    injector.set_timeout(Duration::from_millis(50));
    let error = injector.attempt(libc::SYS_pause, &[], "pause").unwrap_err();
    assert!(matches!(error, InjectError::TimedOut { .. }), "{error}");
    assert!(injector.call(libc::SYS_getpid, &[], "getpid").unwrap() > 0);
}

#[test]
fn the_scratch_goes_where_it_is_told() {
    let tracee = stub::spawn(&CloneArgs::default(), SeizeOptions::BUILD, soon(), || Ok(())).unwrap();
    let child = Child(tracee.tid());
    let at = RemoteAddress(0x2_0000_0000);
    let injector = Injector::bootstrap(tracee, stub::GADGET, Some(at), Scratch::DEFAULT_LEN).unwrap();
    assert_eq!(injector.scratch().base, at);
    let tracee = injector.release().unwrap();
    let taken = Injector::bootstrap(tracee, stub::GADGET, Some(at), Scratch::DEFAULT_LEN).unwrap_err();
    assert!(matches!(taken, InjectError::Call { errno: Errno::EEXIST, .. }), "{taken}");
    drop(child);
}

#[test]
fn what_fails_before_the_stub_is_told() {
    let error = stub::spawn(&CloneArgs::default(), SeizeOptions::BUILD, soon(), || Err(Errno::ENOTTY)).unwrap_err();
    assert!(matches!(error, stub::StubError::Prepare { source: Errno::ENOTTY, .. }), "{error}");
}
