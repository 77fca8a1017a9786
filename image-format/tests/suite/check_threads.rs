//! The checks of signals and threads, each against the golden image with exactly that wrong.

use crate::check::{CHILD, FIRST, THREAD, attr, each_is_told, process, registers, thread};
use crate::golden;
use image_format::controls::{LockFuture, Mdwe, MemoryPolicy, SyscallDispatch};
use image_format::ldt::{LdtEntry, LdtFlags};
use image_format::numa::{NumaFlags, NumaMode, NumaOwner, NumaPolicy};
use image_format::seccomp::{Seccomp, SeccompFilter, SeccompFlags};
use image_format::signal::{AltStackFlags, Signal, SignalSet};
use image_format::thread::{InterruptedSyscall, Resume};
use image_format::timer::{
    IntervalTimer, IntervalTimerKind, Notify, NotifyThread, PosixTimer, Timer, TimerClock, TimerState,
};
use image_format::xstate::{Xstate, XstatePart};
use image_format::{Address, Blob, Hex, Image, Pid, Timespec, check};

#[test]
fn signals() {
    each_is_told(&[
        (
            |i| process(i, FIRST).actions[0].signal = Signal(10),
            "0x00000001/signal.action: line 2: SIGUSR1 stands there twice",
        ),
        (
            |i| process(i, FIRST).actions[0].signal = Signal(9),
            "0x00000001/signal.action: line 1: SIGKILL has no action to set",
        ),
        (
            |i| process(i, FIRST).actions[0].signal = Signal(19),
            "0x00000001/signal.action: line 1: SIGSTOP has no action to set",
        ),
        (
            |i| process(i, FIRST).actions[1].mask.0 |= 1 << 18,
            "0x00000001/signal.action: line 2: mask: SIGSTOP cannot be in it",
        ),
        (
            |i| process(i, FIRST).pending[0].siginfo.0.truncate(127),
            "0x00000001/signal.pending: line 1: siginfo: 127 bytes, it has 128",
        ),
        (
            |i| process(i, FIRST).pending[0].signal = Signal(12),
            "0x00000001/signal.pending: line 1: siginfo: of signal 10, listed as SIGUSR2",
        ),
        (
            |i| process(i, FIRST).pending[0].code = 1,
            "0x00000001/signal.pending: line 1: code: 1, but the siginfo has 0",
        ),
        (
            |i| process(i, CHILD).threads.get_mut(&THREAD).unwrap().pending[0].siginfo.0[0] = 35,
            "0x00003002/0x00003003/signal.pending: line 1: siginfo: of signal 35, listed as SIG34",
        ),
        (
            |i| thread(i).mask.blocked = SignalSet(!(1 << 18)),
            "0x00000001/0x00000001/signal: blocked: SIGKILL cannot be in it",
        ),
        (
            |i| thread(i).altstack.size = 2047,
            "0x00000001/0x00000001/signal.altstack: size: 2047 bytes, the kernel takes 2048 or more",
        ),
        (
            |i| thread(i).altstack.flags = AltStackFlags(4),
            "0x00000001/0x00000001/signal.altstack: flags: 0x4 is not known here",
        ),
        (
            |i| thread(i).altstack.sp = Address(u64::MAX),
            "0x00000001/0x00000001/signal.altstack: sp: 0xffffffffffffffff and 2048 bytes pass the end of the address space",
        ),
    ]);
}

#[test]
fn no_alternate_stack_has_two_forms() {
    for flags in [AltStackFlags::SS_DISABLE, AltStackFlags(0)] {
        let mut image = golden::image();
        (thread(&mut image).altstack.size, thread(&mut image).altstack.flags) = (0, flags);
        assert_eq!(check::image(&image, &golden::sizes(&image)), []);
    }
}

#[test]
fn thread_attributes() {
    each_is_told(&[
        (
            |i| attr(i).name = "a\0b".into(),
            "0x00000001/0x00000001/attr: name: \"a\\\\x00b\" is not at most 15 bytes without NUL",
        ),
        (
            |i| attr(i).name = "sixteen bytes ab".into(),
            "0x00000001/0x00000001/attr: name: \"sixteen bytes ab\" is not at most 15 bytes without NUL",
        ),
        (|i| attr(i).affinity.clear(), "0x00000001/0x00000001/attr: affinity: no CPU is left to run on"),
        (|i| attr(i).affinity = vec![1, 1], "0x00000001/0x00000001/attr: affinity: not in ascending order"),
        (
            |i| attr(i).affinity = vec![0, 4_000_000_000],
            "0x00000001/0x00000001/attr: affinity: no machine has a CPU 4000000000",
        ),
        (
            |i| attr(i).robust_list.length = 12,
            "0x00000001/0x00000001/attr: robust_list.length 12: the head has 24 bytes",
        ),
        (
            |i| attr(i).rseq.as_mut().unwrap().size = 20,
            "0x00000001/0x00000001/attr: rseq: 0x602aa0 and 20 bytes are not an area of 32 or more, aligned",
        ),
        (
            |i| attr(i).rseq.as_mut().unwrap().address.0 += 8,
            "0x00000001/0x00000001/attr: rseq: 0x602aa8 and 32 bytes are not an area of 32 or more, aligned",
        ),
        (
            |i| attr(i).credentials.uid[2] = u32::MAX,
            "0x00000001/0x00000001/attr: credentials.uid: 4294967295 is no user",
        ),
        (
            |i| attr(i).credentials.gid[0] = u32::MAX,
            "0x00000001/0x00000001/attr: credentials.gid: 4294967295 is no group",
        ),
        (
            |i| attr(i).credentials.groups[0] = u32::MAX,
            "0x00000001/0x00000001/attr: credentials.groups: 4294967295 is no group",
        ),
        (
            |i| attr(i).credentials.groups = vec![7; 65537],
            "0x00000001/0x00000001/attr: credentials.groups: 65537, the kernel takes 65536",
        ),
        (
            |i| attr(i).credentials.effective = Hex(1),
            "0x00000001/0x00000001/attr: credentials.effective: has capabilities that permitted has not",
        ),
        (
            |i| (attr(i).credentials.ambient, attr(i).credentials.inheritable) = (Hex(1), Hex(1)),
            "0x00000001/0x00000001/attr: credentials.ambient: has capabilities that permitted has not",
        ),
        (
            |i| (attr(i).credentials.ambient, attr(i).credentials.permitted) = (Hex(1), Hex(1)),
            "0x00000001/0x00000001/attr: credentials.ambient: has capabilities that inheritable has not",
        ),
        (|i| attr(i).scheduling.policy = 4, "0x00000001/0x00000001/attr: scheduling.policy 4: no such policy"),
        (|i| attr(i).scheduling.nice = 20, "0x00000001/0x00000001/attr: scheduling.nice 20: it is -20 to 19"),
        (
            |i| attr(i).scheduling.policy = 1,
            "0x00000001/0x00000001/attr: scheduling.priority 0: 1 to 99 for FIFO and RR, else 0",
        ),
        (
            |i| attr(i).scheduling.priority = 1,
            "0x00000001/0x00000001/attr: scheduling.priority 1: 1 to 99 for FIFO and RR, else 0",
        ),
    ]);
}

#[test]
fn registers_of_user_mode() {
    each_is_told(&[
        (
            |i| registers(i).cs = Hex(0x10),
            "0x00000001/0x00000001/thread.frame: registers.cs: 0x10, of a 64-bit program it is 0x33",
        ),
        (
            |i| registers(i).cs = Hex(0x23),
            "0x00000001/0x00000001/thread.frame: registers.cs: 0x23, of a 64-bit program it is 0x33",
        ),
        (
            |i| registers(i).ss = Hex(0x18),
            "0x00000001/0x00000001/thread.frame: registers.ss: 0x18, of a 64-bit program it is 0x2b",
        ),
        (
            |i| registers(i).ds = Hex(0x28),
            "0x00000001/0x00000001/thread.frame: registers.ds: 0x28 is no selector of user mode",
        ),
        (
            |i| registers(i).es = Hex(0x1_002b),
            "0x00000001/0x00000001/thread.frame: registers.es: 0x1002b is no selector of user mode",
        ),
        (
            |i| registers(i).fs = Hex(1),
            "0x00000001/0x00000001/thread.frame: registers.fs: 0x1 is no selector of user mode",
        ),
        (
            |i| registers(i).gs = Hex(2),
            "0x00000001/0x00000001/thread.frame: registers.gs: 0x2 is no selector of user mode",
        ),
        (
            |i| registers(i).rip = Hex(check::ADDRESS_LIMIT),
            "0x00000001/0x00000001/thread.frame: registers.rip: 0x7ffffffff000 is no user space address",
        ),
        (
            |i| registers(i).rsp = Hex(1 << 63),
            "0x00000001/0x00000001/thread.frame: registers.rsp: 0x8000000000000000 is no user space address",
        ),
        (
            |i| thread(i).tls.fs_base = Address(1 << 47),
            "0x00000001/0x00000001/tls: fs_base: 0x800000000000 is no user address",
        ),
        (
            |i| thread(i).tls.gs_base = Address(u64::MAX),
            "0x00000001/0x00000001/tls: gs_base: 0xffffffffffffffff is no user address",
        ),
        (
            |i| {
                let resume = Resume::Remaining(Timespec { sec: -1, nsec: 0 });
                thread(i).frame.syscall = Some(InterruptedSyscall { name: "nanosleep".into(), resume });
            },
            "0x00000001/0x00000001/thread.frame: syscall.resume.remaining: -1 seconds are negative",
        ),
        (
            |i| {
                waits_in_vfork(i, 9);
                registers(i).orig_rax = Hex(39);
            },
            "0x00000001/0x00000001/thread.frame: syscall.resume.vfork: call 39 makes no process",
        ),
        (|i| waits_in_vfork(i, 9), "0x00000001/0x00000001/thread.frame: syscall.resume.vfork: there is no process 9"),
        (
            |i| waits_in_vfork(i, 1),
            "0x00000001/0x00000001/thread.frame: syscall.resume.vfork: process 1 is not a child of thread 1",
        ),
    ]);
}

/// With credentials that such a thread can have.
fn waits_in_vfork(image: &mut Image, child: u32) {
    let thread = thread(image);
    let credentials = &mut thread.attr.credentials;
    (credentials.uid, credentials.gid) = ([0; 4], [0; 4]);
    (credentials.effective, credentials.permitted) = (credentials.bounding, credentials.bounding);
    credentials.securebits.0 = 0;
    (thread.attr.seccomp, thread.attr.directories) = (Seccomp::None, None);
    thread.frame.registers.orig_rax = Hex(58);
    let resume = Resume::Vfork(Pid(child));
    thread.frame.syscall = Some(InterruptedSyscall { name: "vfork".into(), resume });
}

#[test]
fn extended_state() {
    fn area(image: &mut Image, change: impl FnOnce(&mut [u8])) {
        let state = &mut thread(image).fpu.xstate;
        let mut area = state.area(576);
        change(&mut area);
        *state = Xstate::of(&area);
    }
    let not_whole = "0x00000001/0x00000001/thread: xstate: offset 64: a part is whole words, and begins at a multiple of 64 bytes that is not in the one before it";
    each_is_told(&[
        (
            |i| thread(i).fpu.xstate.0.push(XstatePart { offset: 576, bytes: Blob(vec![1; 8]) }),
            "0x00000001/0x00000001/thread: xstate: ends at 584, the manifest's xsave_size is 576",
        ),
        (
            |i| thread(i).fpu.xstate.0.push(XstatePart { offset: u32::MAX - 63, bytes: Blob(vec![1; 128]) }),
            "0x00000001/0x00000001/thread: xstate: ends at 4294967360, the manifest's xsave_size is 576",
        ),
        (|i| thread(i).fpu.xstate.0.push(XstatePart { offset: 64, bytes: Blob(vec![1; 64]) }), not_whole),
        (|i| thread(i).fpu.xstate.0 = vec![XstatePart { offset: 64, bytes: Blob(vec![]) }], not_whole),
        (|i| thread(i).fpu.xstate.0 = vec![XstatePart { offset: 64, bytes: Blob(vec![1; 63]) }], not_whole),
        (
            |i| thread(i).fpu.xstate.0 = vec![XstatePart { offset: 510, bytes: Blob(vec![1; 64]) }],
            "0x00000001/0x00000001/thread: xstate: offset 510: a part is whole words, and begins at a multiple of 64 bytes that is not in the one before it",
        ),
        (
            |i| area(i, |area| area[512] = 7),
            "0x00000001/0x00000001/thread: xstate: has components 0x4 that the manifest's xfeatures has not",
        ),
        (
            |i| area(i, |area| area[519] = 0x80),
            "0x00000001/0x00000001/thread: xstate: has components 0x8000000000000000 that the manifest's xfeatures has not",
        ),
        (
            |i| area(i, |area| area[527] = 0x80),
            "0x00000001/0x00000001/thread: xstate: its header is not that of the standard format",
        ),
        (
            |i| area(i, |area| area[575] = 1),
            "0x00000001/0x00000001/thread: xstate: its header is not that of the standard format",
        ),
        (|i| area(i, |area| area[27] = 1), "0x00000001/0x00000001/thread: xstate: MXCSR 0x1001f80 has reserved bits"),
        (
            |i| {
                i.manifest.cpu.xsave_size = 512;
                let threads = i.processes.values_mut().flat_map(|process| process.threads.values_mut());
                threads.for_each(|thread| thread.fpu.xstate = Xstate::default());
            },
            "manifest: cpu.xsave_size: 512 bytes: an extended state area has 576 to 65536",
        ),
        (
            |i| i.manifest.cpu.xsave_size = u32::MAX,
            "manifest: cpu.xsave_size: 4294967295 bytes: an extended state area has 576 to 65536",
        ),
    ]);
}

#[test]
fn interval_timers() {
    each_is_told(&[
        (
            |i| interval_timer(i).remaining = Timespec::default(),
            "0x00000001/0x00000001/timers: line 1: remaining: an armed timer has some time left",
        ),
        (
            |i| interval_timer(i).remaining.sec = -1,
            "0x00000001/0x00000001/timers: line 1: remaining: -1 seconds are negative",
        ),
        (
            |i| interval_timer(i).interval.nsec = u32::MAX,
            "0x00000001/0x00000001/timers: line 1: interval: 4294967295 nanoseconds are a second or more",
        ),
        (
            |i| {
                let twin = thread(i).timers[0].clone();
                thread(i).timers.push(twin);
            },
            "0x00000001/0x00000001/timers: line 3: ITIMER_REAL stands there twice",
        ),
        (
            |i| {
                let second = Timespec { sec: 1, nsec: 0 };
                let which = IntervalTimerKind::ITIMER_PROF;
                let timer = Timer::Interval(IntervalTimer { which, remaining: second, interval: second });
                process(i, CHILD).threads.get_mut(&THREAD).unwrap().timers.push(timer);
            },
            "0x00003002/0x00003003/timers: line 1: timers stand with the first thread that lives",
        ),
    ]);
}

#[test]
fn seccomp_filters() {
    /// Instructions of a filter, each as its code, its two jumps and its constant.
    fn program(instructions: &[(u16, u8, u8, u32)]) -> Blob {
        let bytes = instructions.iter().flat_map(|&(code, jump_true, jump_false, k)| {
            let [c0, c1] = code.to_ne_bytes();
            let [k0, k1, k2, k3] = k.to_ne_bytes();
            [c0, c1, jump_true, jump_false, k0, k1, k2, k3]
        });
        Blob(bytes.collect())
    }
    const RETURN: (u16, u8, u8, u32) = (6, 0, 0, 0);
    each_is_told(&[
        (|i| attr(i).seccomp = Seccomp::Filter(3), "0x00000001/0x00000001/attr: seccomp: there is no filter 3"),
        (|i| attr(i).seccomp = Seccomp::Filter(0), "0x00000001/0x00000001/attr: seccomp: there is no filter 0"),
        (|i| i.seccomp[1].filter = 3, "seccomp: line 2: filter 3 stands where filter 2 belongs"),
        (|i| i.seccomp[1].after = Some(2), "seccomp: line 2: after 2: no earlier line has it"),
        (|i| i.seccomp[1].after = Some(0), "seccomp: line 2: after 0: no earlier line has it"),
        (|i| i.seccomp[0].flags = SeccompFlags(8), "seccomp: line 1: flags: 0x8 is not known here"),
        (
            |i| i.seccomp[0].program = Blob(vec![]),
            "seccomp: line 1: program: 0 bytes are not 1 to 4096 instructions of 8",
        ),
        (
            |i| i.seccomp[0].program.0.truncate(12),
            "seccomp: line 1: program: 12 bytes are not 1 to 4096 instructions of 8",
        ),
        (
            |i| i.seccomp[0].program = program(&[(0x20, 0, 0, 64), RETURN]),
            "seccomp: line 1: program: instruction 1 (code 0x20, k 0x40) is none of seccomp's",
        ),
        (
            |i| i.seccomp[0].program = program(&[RETURN, (0x61, 0, 0, 16), RETURN]),
            "seccomp: line 1: program: instruction 2 (code 0x61, k 0x10) is none of seccomp's",
        ),
        (
            |i| i.seccomp[0].program = program(&[(0x15, 0, 1, 7), RETURN]),
            "seccomp: line 1: program: instruction 1 jumps past the end",
        ),
        (
            |i| i.seccomp[0].program = program(&[(5, 0, 0, u32::MAX), RETURN]),
            "seccomp: line 1: program: instruction 1 jumps past the end",
        ),
        (
            |i| i.seccomp[0].program = program(&[RETURN, (0x80, 0, 0, 0)]),
            "seccomp: line 1: program: it does not end with a return",
        ),
    ]);
}

#[test]
fn no_more_seccomp_filters_than_a_thread_can_have() {
    let mut image = golden::image();
    let one = image.seccomp[1].clone();
    image.seccomp.extend((3..=6554).map(|filter| SeccompFilter { filter, after: Some(filter - 1), ..one.clone() }));
    attr(&mut image).seccomp = Seccomp::Filter(6554);
    let told: Vec<String> = check::image(&image, &golden::sizes(&image)).iter().map(ToString::to_string).collect();
    assert_eq!(told, ["seccomp: line 6554: a thread cannot have more than 6553 filters"]);
}

#[test]
fn posix_timers() {
    each_is_told(&[
        (|i| posix_timer(i).id = 1 << 31, "0x00000001/0x00000001/timers: line 2: id 2147483648: beyond 2147483647"),
        (
            |i| {
                let twin = thread(i).timers[1].clone();
                thread(i).timers.push(twin);
            },
            "0x00000001/0x00000001/timers: line 3: id 0 stands there twice",
        ),
        (
            |i| posix_timer(i).overrun = u32::MAX,
            "0x00000001/0x00000001/timers: line 2: overrun 4294967295: beyond 2147483647",
        ),
        (
            |i| posix_timer(i).clock = TimerClock::CLOCK_THREAD_CPUTIME_ID(THREAD),
            "0x00000001/0x00000001/timers: line 2: clock: the process has no thread 12291",
        ),
        (
            |i| {
                let to = NotifyThread { signal: Signal(10), thread: THREAD };
                posix_timer(i).notify = Notify::SIGEV_THREAD_ID(to);
            },
            "0x00000001/0x00000001/timers: line 2: notify: the process has no thread 12291",
        ),
        (
            |i| posix_timer(i).state = TimerState::Remaining(Timespec::default()),
            "0x00000001/0x00000001/timers: line 2: remaining: an armed timer has some time left",
        ),
        (
            |i| posix_timer(i).state = TimerState::Expired(Timespec { sec: -3, nsec: 0 }),
            "0x00000001/0x00000001/timers: line 2: expired: -3 seconds are negative",
        ),
        (
            |i| posix_timer(i).absolute = true,
            "0x00000001/0x00000001/timers: line 2: absolute: its clock is not the wall clock",
        ),
    ]);
}

fn interval_timer(image: &mut Image) -> &mut IntervalTimer {
    match &mut thread(image).timers[0] {
        Timer::Interval(timer) => timer,
        other => panic!("{other:?}"),
    }
}

fn posix_timer(image: &mut Image) -> &mut PosixTimer {
    match &mut thread(image).timers[1] {
        Timer::Posix(timer) => timer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn controls_and_segments() {
    fn dispatch(i: &mut image_format::Image) -> &mut SyscallDispatch {
        let thread = process(i, CHILD).threads.get_mut(&THREAD).unwrap();
        thread.attr.controls.syscall_dispatch.as_mut().unwrap()
    }
    fn memory(i: &mut image_format::Image) -> &mut MemoryPolicy {
        &mut process(i, FIRST).attr.memory
    }
    fn segment(i: &mut image_format::Image) -> &mut LdtEntry {
        &mut process(i, CHILD).ldt[0]
    }
    each_is_told(&[
        (|i| memory(i).mdwe = Mdwe(4), "0x00000001/attr: memory.mdwe: 0x4 is not known here"),
        (
            |i| memory(i).mdwe = Mdwe(2),
            "0x00000001/attr: memory.mdwe: PR_MDWE_NO_INHERIT goes with PR_MDWE_REFUSE_EXEC_GAIN",
        ),
        (|i| memory(i).lock_future = LockFuture(1), "0x00000001/attr: memory.lock_future: 0x1 is not known here"),
        (
            |i| memory(i).lock_future = LockFuture::MCL_ONFAULT,
            "0x00000001/attr: memory.lock_future: MCL_ONFAULT goes with MCL_FUTURE",
        ),
        (|i| process(i, FIRST).attr.autogroup_nice = Some(20), "0x00000001/attr: autogroup_nice 20: it is -20 to 19"),
        (
            |i| attr(i).login_uid = Some(u32::MAX),
            "0x00000001/0x00000001/attr: login_uid: 4294967295 is no user; null is none",
        ),
        (
            |i| dispatch(i).selector = Address(u64::MAX),
            "0x00003002/0x00003003/attr: controls.syscall_dispatch: selector: 0xffffffffffffffff is no user space address",
        ),
        (
            |i| dispatch(i).length = Hex(0),
            "0x00003002/0x00003003/attr: controls.syscall_dispatch: length: no range begins at 0x401000",
        ),
        (|i| segment(i).entry = 8192, "0x00003002/ldt: line 1: entry 8192: a table has 8192"),
        (
            |i| {
                let copy = segment(i).clone();
                process(i, CHILD).ldt.push(copy);
            },
            "0x00003002/ldt: line 2: entry 0: not in ascending order",
        ),
        (|i| segment(i).base = Hex(1 << 32), "0x00003002/ldt: line 1: base: 0x100000000 has more than 32 bits"),
        (|i| segment(i).limit = Hex(1 << 20), "0x00003002/ldt: line 1: limit: 0x100000 has more than 20 bits"),
        (|i| segment(i).contents = 4, "0x00003002/ldt: line 1: contents 4: it is 0 to 3"),
        (|i| segment(i).contents = 3, "0x00003002/ldt: line 1: contents 3: conforming code must be seg_not_present"),
        (|i| segment(i).flags = LdtFlags(0x80), "0x00003002/ldt: line 1: flags: 0x80 is not known here"),
    ]);
}

#[test]
fn numa_policies_that_the_kernel_would_refuse_are_told() {
    fn line(i: &mut image_format::Image, line: usize) -> &mut NumaPolicy {
        &mut process(i, FIRST).numa[line]
    }
    fn of_thread(i: &mut image_format::Image) -> &mut NumaPolicy {
        line(i, 0)
    }
    fn of_mapping(i: &mut image_format::Image) -> &mut NumaPolicy {
        line(i, 1)
    }
    each_is_told(&[
        (
            |i| of_thread(i).of = NumaOwner::Thread(image_format::Pid(9)),
            "0x00000001/numa: line 1: of: the process has no thread 9",
        ),
        (
            |i| of_mapping(i).of = NumaOwner::Mapping(Address(0x60_3000)),
            "0x00000001/numa: line 2: of: no line of mem.segments begins at 0x603000",
        ),
        (
            |i| process(i, FIRST).numa.swap(0, 1),
            "0x00000001/numa: line 2: of: not in ascending order: threads, then mappings",
        ),
        (|i| of_thread(i).flags = NumaFlags(1), "0x00000001/numa: line 1: flags: 0x1 is not known here"),
        (
            |i| of_mapping(i).flags = NumaFlags(0xc000),
            "0x00000001/numa: line 2: flags: nodes cannot be both static and relative",
        ),
        (
            |i| of_thread(i).flags = NumaFlags::MPOL_F_NUMA_BALANCING,
            "0x00000001/numa: line 1: flags: MPOL_F_NUMA_BALANCING goes with the modes bind and preferred_many",
        ),
        (|i| of_thread(i).mode = NumaMode::Local, "0x00000001/numa: line 1: mode: local goes without nodes"),
        (|i| of_thread(i).nodes.clear(), "0x00000001/numa: line 1: nodes: none is left"),
        (|i| of_thread(i).nodes = vec![1, 1], "0x00000001/numa: line 1: nodes: not in ascending order"),
        (|i| of_mapping(i).nodes = vec![1024], "0x00000001/numa: line 2: nodes: no machine has a node 1024"),
        (
            |i| of_thread(i).home_node = Some(0),
            "0x00000001/numa: line 1: home_node: only mappings with the modes bind and preferred_many have one",
        ),
    ]);
}

#[test]
fn segments_are_read_from_their_descriptors() {
    // What fill_ldt of arch/x86/include/asm/desc.h makes of a 32-bit data segment in pages, and of code that may not be read.
    let data = LdtEntry::from_descriptor(3, 0x12da_f334_5678_bcde).unwrap();
    assert_eq!((data.entry, data.base, data.limit, data.contents), (3, Hex(0x1234_5678), Hex(0xa_bcde), 0));
    assert_eq!(data.flags.0, 0x51);
    let code = LdtEntry::from_descriptor(0, 0x0000_7900_0000_0fff).unwrap();
    assert_eq!((code.contents, code.flags), (2, LdtFlags(0x8 | 0x20)));
    assert_eq!(LdtEntry::from_descriptor(0, 0), None);
}
