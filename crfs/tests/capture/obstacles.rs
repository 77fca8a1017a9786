//! What cannot be carried is named, all of it, and the program runs on.

use super::world::World;
use crfs::worker::Report;

fn told(report: &Report) -> Vec<String> {
    report.blockers.iter().map(|blocker| format!("{}: {}", blocker.object, blocker.reason)).collect()
}

#[track_caller]
fn assert_told(report: &Report, expected: &[(&str, &str)]) {
    let told = told(report);
    for (object, words) in expected {
        let found = report.blockers.iter().any(|b| b.object.contains(object) && b.reason.contains(words));
        assert!(found, "{object}: {words} is not among {told:#?} (failure: {:?})", report.failure);
    }
    assert!(report.blockers.iter().all(|blocker| !blocker.remedy.is_empty()));
}

/// Everything at once, in a process each or together.
const LOT: &str = "
import socket, struct, tempfile
P = 4096
def address(m): return ctypes.addressof(ctypes.c_char.from_buffer(m))
shm = libc.shmget(0, P, 0o1600)
libc.shmat.restype = ctypes.c_void_p
libc.shmat(shm, None, 0)
libc.semget(0, 1, 0o1600)
libc.msgget(0, 0o1600)
timer = ctypes.c_void_p()
libc.timer_create(~0 << 3, None, ctypes.byref(timer))  # user and system time by the tick
mem = os.memfd_create('thing'); os.ftruncate(mem, P)
keep = mmap.mmap(mem, P)
f = tempfile.NamedTemporaryFile(); f.truncate(P)
deleted = mmap.mmap(f.fileno(), P)
os.unlink(f.name)
def apart():
    # descriptors apart from the process's, which the thread that it makes has too
    libc.unshare(0x400)
    threading.Thread(target=libc.pause, daemon=True).start()
    libc.pause()
threads = [threading.Thread(target=apart, daemon=True)]
for t in threads: t.start()
mq = libc.mq_open(b'/crfs-queue', os.O_CREAT | os.O_RDWR, 0o600, None)
# mq_notify with SIGEV_THREAD, over a socket that is closed
told, cookie = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0), ctypes.create_string_buffer(32)
event = struct.pack('Qii48x', ctypes.addressof(cookie), told.fileno(), 2)
assert libc.syscall(244, mq, event) == 0
told.close()
open('/proc/sys/fs/mqueue/msg_max', 'w').write('11')
if os.fork() == 0:
    # a seccomp filter that allows everything, with a listener
    class Filter(ctypes.Structure):
        _fields_ = [('code', ctypes.c_ushort), ('jt', ctypes.c_ubyte), ('jf', ctypes.c_ubyte), ('k', ctypes.c_uint)]
    class Program(ctypes.Structure):
        _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.POINTER(Filter))]
    allow = (Filter * 1)(Filter(6, 0, 0, 0x7fff0000))
    program = Program(1, allow)
    assert libc.syscall(317, 1, 8, ctypes.byref(program)) > 0
    libc.pause()
if os.fork() == 0:
    # a Landlock domain: landlock_create_ruleset, landlock_restrict_self
    rules = libc.syscall(444, ctypes.byref(ctypes.c_ulong(1 << 9)), ctypes.c_size_t(8), 0)
    assert libc.syscall(446, rules, 0) == 0
    os.close(rules)
    libc.pause()
if os.fork() == 0:
    # a session keyring with a key: KEYCTL_JOIN_SESSION_KEYRING, add_key
    assert libc.syscall(250, 1, None) > 0
    assert libc.syscall(248, b'user', b'crfs-test', b'x', ctypes.c_size_t(1), -3) > 0
    libc.pause()
if os.fork() == 0:
    # a thread in another uts namespace
    threading.Thread(target=lambda: (libc.unshare(0x04000000), libc.pause())).start()
    libc.pause()
libc.mount(b'none', b'/mnt', b'ramfs', 0, None)
ready()
n = 0
while True:
    n += 1
    print('count', n, flush=True)
    time.sleep(0.01)
";

const SEEN_FROM_OUTSIDE: [(&str, &str); 4] = [
    ("0x00000001/0x00000001/timers", "POSIX timer (id 0) on clock -8"),
    ("/attr", "has its descriptor table in common with task"),
    ("/attr", "kind uts than other threads of its process"),
    ("manifest", "ramfs is mounted on /mnt"),
];

const SEEN_FROZEN: [(&str, &str); 5] = [
    ("/attr", "asks a supervisor about its system calls"),
    ("/attr", "is confined by Landlock"),
    ("/attr", "has keys in a session keyring of its own"),
    (
        "posix.mq",
        "/crfs-queue tells of messages by starting a thread (SIGEV_THREAD), over a socket that its process has closed",
    ),
    ("posix.mq", "limit fs.mqueue.msg_max of the ipc namespace is 11 in the place of 10"),
];

#[test]
fn all_are_told_at_once_and_the_program_runs_on() {
    let world = World::python("lot", LOT).at_rest();
    let survey = world.survey();
    assert_eq!(survey.failure, None);
    assert_told(&survey, &SEEN_FROM_OUTSIDE);
    let report = world.try_capture(false);
    assert_eq!(report.failure, None);
    assert_told(&report, &SEEN_FROM_OUTSIDE);
    assert_told(&report, &SEEN_FROZEN);
    assert!(!world.dir().join("image").exists() && !world.dir().join("image.new").exists());
    assert!(!world.is_frozen());
    let lines = world.log().lines().count();
    world.wait_for(&format!("count {}", lines + 5));
}

#[test]
fn inspecting_keeps_it_frozen_with_the_obstacles_in_the_place_of_the_manifest() {
    let world = World::python("inspect", LOT).at_rest();
    let report = world.try_capture(true);
    assert_eq!(report.failure, None);
    assert!(world.is_frozen());
    let tree = world.tree();
    assert!(!tree.0.contains_key("manifest"));
    let blockers: Vec<image_format::Blocker> = image_format::parse_lines(&tree.0["blockers"]).unwrap();
    assert_eq!(blockers, report.blockers);
    assert!(tree.0.contains_key("0x00000001/process"));
    world.thaw();
}

#[test]
fn an_ordinary_program_has_none() {
    let world =
        World::python("plain", "threading.Thread(target=libc.pause, daemon=True).start()\nready()\nlibc.pause()\n")
            .at_rest();
    let survey = world.survey();
    assert_eq!((survey.failure.clone(), told(&survey)), (None, vec![]));
}

#[test]
fn kernel_state_that_cannot_be_told_is_an_obstacle() {
    let world = World::python("fault", "ready()\nlibc.pause()\n").at_rest();
    let report = world.try_capture_with(&[("CRFS_KSTATE_FAULT", "signal_actions")]);
    assert_eq!(report.failure, None);
    assert_told(&report, &[("0x00000001/signal.action", "signal_actions")]);
    assert!(!world.is_frozen());
    // The next capture, with the right offsets, does not trust what that one found out.
    world.capture();
}

#[test]
fn a_debugger_is_named() {
    let world = World::python(
        "traced",
        "
pid = os.fork()
if pid == 0:
    libc.pause()
libc.ptrace(0x4206, pid, None, None)
ready()
libc.pause()
",
    );
    let report = world.try_capture(false);
    assert_told(&report, &[("/attr", "is traced by process")]);
    assert!(!world.is_frozen());
}

#[test]
fn a_debugger_that_holds_a_task_is_named_and_holds_it_on() {
    let world = World::python(
        "held",
        "
pid = os.fork()
if pid == 0:
    libc.pause()
assert libc.ptrace(16, pid, None, None) == 0  # PTRACE_ATTACH
os.waitpid(pid, 0x40000000)  # __WALL: until it stands still
ready()
libc.pause()
",
    );
    let report = world.try_capture(false);
    assert_told(&report, &[("/attr", "is traced by process")]);
    assert_eq!(report.failure, None);
    assert!(!world.is_frozen());
}

/// Whoever leaves what the container shares, a process each; what only old programs have.
const APART: &str = "
import struct, tempfile
def child(body):
    if os.fork() == 0:
        body()
        libc.pause()
        os._exit(0)
def left(flag):
    assert libc.unshare(flag) == 0
def nested():
    left(0x20000000)
    # in a group that its child keeps, and that is not known inside
    child(lambda: (child(lambda: None), os.setpgid(0, 0)))
def ended():
    left(0x20000000)
    if os.fork() == 0: os._exit(0)
    os.wait()
def of_users():
    left(0x10000000)
    threading.Thread(target=lambda: (left(0x200), libc.pause())).start()
def owned():
    left(0x10000000)
    left(0x20000000)
def own_descriptors():
    # which the thread that it makes has too
    made = lambda: threading.Thread(target=libc.pause).start()
    threading.Thread(target=lambda: (left(0x400), made(), libc.pause())).start()
def segment():
    # set_thread_area by the entry of 32-bit programs, with memory that it can name
    low = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40, 7)
    low[:16] = struct.pack('4I', 0xffffffff, 0x1000, 0xfffff, 0x51)
    low[64:76] = bytes.fromhex('53b8f300000089fbcd805bc3')
    address = ctypes.addressof(ctypes.c_char.from_buffer(low))
    assert ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(address + 64)(address) == 0
def old_program():
    # mov eax, 29; int 0x80; jmp: pause for ever
    code = bytes.fromhex('b81d000000cd80ebf7')
    start = 0x08048000
    elf = struct.pack('<4s12B', bytes([127]) + b'ELF', 1, 1, 1, *[0] * 9)
    elf += struct.pack('<2H5I6H', 2, 3, 1, start + 84, 52, 0, 0, 52, 32, 1, 40, 0, 0)
    elf += struct.pack('<8I', 1, 0, start, start, 84 + len(code), 84 + len(code), 5, 4096)
    with open('/dev/shm/crfs-test-old-program', 'wb') as file:
        file.write(elf + code)
    os.chmod(file.name, 0o700)
    pid = os.fork()
    if pid == 0:
        os.execv(file.name, ['old'])
    # until it has, nobody may take the file away
    while open(f'/proc/{pid}/comm').read() != 'crfs-test-old-p\\n': time.sleep(0.01)
    os.unlink(file.name)
def mounts():
    left(0x00020000)
    top = tempfile.mkdtemp().encode()
    assert libc.mount(None, b'/', None, 0x44000, None) == 0
    assert libc.mount(b'r', top, b'ramfs', 0, None) == 0
child(lambda: left(0x10000000))
child(mounts)
def ports():
    # not every kernel has them (CONFIG_X86_IOPL_IOPERM)
    if libc.ioperm(0x80, 1, 1) == 0: print('has ports', flush=True)
def ipc():
    # of one that it leaves, under an id that is another's there
    assert libc.shmget(0, 4096, 0o1600) == 0
    assert libc.shmat(0, None, 0) != -1
    left(0x08000000)
    assert libc.mq_open(b'/crfs-apart', os.O_CREAT | os.O_RDWR, 0o600, None) >= 0
    left(0x08000000)
    assert libc.shmget(0, 4096, 0o1600) == 0
    open('/proc/sys/kernel/msgmni', 'w').write('31999')
    globals()['kept'] = open('/proc/sysvipc/sem')
def removed_top():
    # of a cgroup namespace
    top = tempfile.mkdtemp()
    assert libc.mount(b'c', top.encode(), b'cgroup2', 0, None) == 0
    os.mkdir(top + '/work')
    def move(pid, to):
        with open(f'{top}{to}/cgroup.procs', 'w') as file: file.write(str(pid))
    here, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        move(os.getpid(), '/work')
        left(0x02000000)
        os.write(there, b'.')
        libc.pause()
    os.read(here, 1)
    move(pid, '')
    os.rmdir(top + '/work')
    assert libc.umount2(top.encode(), 0) == 0
    os.rmdir(top)
def net():
    import fcntl, socket, struct
    left(0x40000000)
    globals()['kept'] = socket.socket()
    left(0x40000000)
    # SIOCSIFADDR
    address = struct.pack('16sHH4s8s', b'lo', socket.AF_INET, 0, bytes([10, 9, 8, 7]), b'')
    with socket.socket() as asker: fcntl.ioctl(asker, 0x8916, address)
    globals()['shown'] = open('/proc/self/net/dev')
def reused():
    # in a directory of /proc of a process that has ended, whose id another gets
    here, there = os.pipe()
    gone = os.fork()
    if gone == 0:
        os.read(here, 1)
        os._exit(0)
    os.chdir(f'/proc/{gone}/fdinfo')
    os.write(there, b'.')
    os.waitpid(gone, 0)
    while True:
        with open('/proc/sys/kernel/ns_last_pid', 'w') as last: last.write(str(gone - 1))
        pid = os.fork()
        if pid == 0: libc.pause()
        if pid == gone: break
        os.kill(pid, 9)
        os.waitpid(pid, 0)
for body in (reused, nested, ended, of_users, owned, own_descriptors, ipc, net, removed_top, ports, segment, old_program):
    child(body)
ready()
libc.pause()
";

#[test]
fn who_left_what_the_container_shares_is_told() {
    let world = World::python("apart", APART).at_rest();
    let seen = [("/attr", "has its descriptor table in common with task")];
    let survey = world.survey();
    assert_eq!(survey.failure, None);
    assert_told(&survey, &seen);
    let first = told(&survey).into_iter().find(|text| text.starts_with("0x00000001/"));
    assert_eq!(first, None, "it is the first of another namespace that is meant");
    let report = world.try_capture(false);
    assert_eq!(report.failure, None);
    assert_told(&report, &seen);
    let held = [
        ("/process", " of processes outside its pid namespace, and its parent is not"),
        ("/process", "has descriptors or directories of its own; that is not carried yet"),
        ("/attr", "would have its next child in a pid namespace whose processes have all ended"),
        ("/mem.segments: ", "the System V segment 0 is of another ipc namespace, which is not carried"),
        ("/attr", "first process, which has kernel.msgmni = 31999, "),
        (
            "/attr",
            "in another cgroup namespace than the container's first process, whose top is none of the container's cgroups",
        ),
        ("/process", "/fdinfo is of a process that has ended, and whose id another has now"),
        ("manifest", "in the mount namespace of process"),
        ("/fds", "of an ipc namespace that no process of the container is in"),
        ("files/", "/proc/sysvipc/sem is open, and may be that of one or another namespace"),
        (
            "/attr",
            "another net namespace than the container's first process, which has the address 10.9.8.7, and that is not carried",
        ),
        ("/fds", "a TCP socket that is not bound was made in a net namespace that no process of the container is in"),
        // The kernel drops the names of these files (proc_net_d_revalidate, v6.18), so there is more than one reason.
        ("", "/net/dev"),
    ];
    assert_told(&report, &held);
    assert_told(&report, &[("/attr", "segments in the GDT"), ("/thread.frame", "runs 32-bit code")]);
    if world.log().contains("has ports") {
        assert_told(&report, &[("/attr", "I/O ports")]);
    }
    assert!(!world.is_frozen());
}
