"""Processes with every attribute a restore has to bring back, and nothing that moves: each sets itself up and waits.

Usage: still.py PATH. PATH gets a line when all stand. Nobody runs a single instruction between then and SIGUSR1 to the first
process, so that a capture after a restore can be compared with the one before it, byte by byte. On SIGUSR1 the first process asks
every child to check itself and writes `ok` or what is wrong to PATH.result.
"""

import ctypes
import mmap
import os
import resource
import signal
import sys
import threading

path = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
PAGE = mmap.PAGESIZE
SETRESUID, SETRESGID, SETGROUPS, CLONE, CAPSET, PRCTL = 117, 119, 116, 56, 126, 157
SIGSET = ctypes.c_uint64


def call(name, *arguments):
    function = getattr(libc, name)
    function.restype = ctypes.c_long
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = function(*converted)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")
    return result


def syscall(number, *arguments):
    return call("syscall", number, *arguments)


def prctl(*arguments):
    return call("prctl", *(arguments + (0,) * (5 - len(arguments))))


def pages(count, protection=3, flags=0x22, fd=-1, offset=0, address=0):
    """mmap, and no neighbour that the kernel could merge it with."""
    call("mmap", 0, PAGE, 0, 0x22, -1, 0)
    found = call("mmap", address, count * PAGE, protection, flags, fd, offset)
    call("mmap", 0, PAGE, 0, 0x22, -1, 0)
    return found


def put(address, data):
    ctypes.memmove(address, data, len(data))


def got(address, length=1):
    return ctypes.string_at(address, length)


def capabilities(effective, permitted, inheritable):
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    words = [mask >> shift & 0xFFFFFFFF for shift in (0, 32) for mask in (effective, permitted, inheritable)]
    syscall(CAPSET, header, (ctypes.c_uint32 * 6)(*words))


# Each kind sets a process up and returns the check it makes at the end, if any.


def advice(_):
    normal = {"dontfork": 10, "dontdump": 16, "wipeonfork": 18, "hugepage": 14, "nohugepage": 15, "mergeable": 12,
              "sequential": 2, "random": 1}
    places = []
    for number, value in enumerate(normal.values()):
        place = pages(8)
        put(place + PAGE, b"before")
        call("madvise", place, 8 * PAGE, value)
        put(place + 3 * PAGE, bytes([number + 1]) * 100)
        places.append(place)
    # Half of a mapping, and two kinds of advice on one.
    half = pages(8)
    put(half, b"half")
    call("madvise", half + 4 * PAGE, 4 * PAGE, 16)
    call("madvise", half + 4 * PAGE, 4 * PAGE, 10)

    def check():
        for number, place in enumerate(places):
            assert got(place + 3 * PAGE, 100) == bytes([number + 1]) * 100, number
        assert got(half, 4) == b"half"
        # What was told to the kernel has its effect.
        child = os.fork()
        if child == 0:
            os._exit(got(places[2] + 3 * PAGE)[0])
        assert os.waitpid(child, 0)[1] == 0, "memory that is wiped on fork was not"

    return check


def protections(_):
    none = pages(4)
    put(none, b"hidden" + b"x" * PAGE)
    call("mprotect", none, 4 * PAGE, 0)
    never = pages(4, 0)
    read = pages(4)
    put(read + PAGE, b"read only")
    call("mprotect", read, 4 * PAGE, 1)
    only_read = pages(4, 1)
    execute = pages(2, 7)
    put(execute, b"\xb8\x2a\x00\x00\x00\xc3")  # mov eax, 42; ret
    call("mprotect", execute, 2 * PAGE, 5)
    write = pages(2, 2)
    put(write, b"w")
    reserve = pages(64, 3, 0x4022)
    put(reserve + 5 * PAGE, b"reserve")
    none_reserve = pages(1 << 18, 0, 0x4022)
    call("mprotect", none_reserve + 16 * PAGE, 4 * PAGE, 3)
    put(none_reserve + 17 * PAGE, b"committed")
    sparse = pages(300)
    for number in range(0, 300, 3):
        put(sparse + number * PAGE, b"%d" % number)
    read_zero = pages(16)
    got(read_zero + 2 * PAGE)
    locked = pages(16)
    put(locked + PAGE, b"locked")
    call("mlock", locked, 8 * PAGE)
    # Moved: its place in the object it never had is another than its address.
    moved = pages(8)
    put(moved, b"moved")
    target = pages(8, 0)
    call("mremap", moved, 8 * PAGE, 8 * PAGE, 3, target)
    # One mapping cut in three, the middle away.
    hole = pages(12)
    put(hole, b"first")
    put(hole + 8 * PAGE, b"last")
    call("munmap", hole + 4 * PAGE, 4 * PAGE)
    # Grows down, as a stack does.
    stack = pages(64, 0)
    call("munmap", stack, 64 * PAGE)
    call("mmap", stack + 60 * PAGE, 4 * PAGE, 3, 0x22 | 0x10 | 0x100, -1, 0)
    put(stack + 62 * PAGE, b"stack")

    def check():
        call("mprotect", none, 4 * PAGE, 1)
        assert got(none, 7) == b"hiddenx"
        call("mprotect", never, 4 * PAGE, 3)
        assert got(never, 4 * PAGE) == bytes(4 * PAGE)
        assert got(read + PAGE, 9) == b"read only" and got(only_read) == b"\0"
        assert ctypes.CFUNCTYPE(ctypes.c_int)(execute)() == 42
        assert got(reserve + 5 * PAGE, 7) == b"reserve" and got(none_reserve + 17 * PAGE, 9) == b"committed"
        assert all(got(sparse + n * PAGE, 3).startswith(b"%d" % n if n % 3 == 0 else b"\0") for n in range(300))
        assert got(locked + PAGE, 6) == b"locked" and got(target, 5) == b"moved"
        assert got(hole, 5) == b"first" and got(hole + 8 * PAGE, 4) == b"last"
        put(stack + 59 * PAGE, b"grown")
        assert got(stack + 62 * PAGE, 5) == b"stack"

    return check


def heap(_):
    call("brk", call("sbrk", 0) + 100 * PAGE + 123)
    top = call("sbrk", 0)
    put(top - 10, b"heap's end")

    def check():
        assert call("sbrk", 0) == top
        assert got(top - 10, 10) == b"heap's end"
        call("brk", top + 1000 * PAGE)
        put(top + 999 * PAGE, b"grown")
        names = [line for line in open("/proc/self/maps") if "[heap]" in line]
        end = max(int(line.split()[0].split("-")[1], 16) for line in names)
        assert end >= top + 1000 * PAGE, names

    return check


def files(_):
    name = path + ".mapped"
    with open(name, "wb") as file:
        file.write(b"from the file " * 10000)
    writable = os.open(name, os.O_RDWR)
    readable = os.open(name, os.O_RDONLY)
    dirty = pages(16, 3, 0x2, writable)
    put(dirty + 2 * PAGE, b"private, dirty")
    clean = pages(16, 3, 0x2, readable, 4 * PAGE)
    got(clean)
    shared = pages(16, 3, 0x1, writable)
    put(shared + 5 * PAGE, b"shared, dirty")
    may_write = pages(16, 1, 0x1, writable)
    read = pages(16, 1, 0x1, readable)
    beyond = pages(64, 3, 0x2, readable)  # ends behind the end of the file
    put(beyond, b"cow")
    os.close(readable)

    def check():
        assert got(dirty + 2 * PAGE, 14) == b"private, dirty"
        put(shared + 6 * PAGE, b"through the mapping")
        assert os.pread(writable, 19, 6 * PAGE) == b"through the mapping", "a shared mapping is not joined to its file"
        assert got(read + 6 * PAGE, 7) == b"through"
        call("mprotect", may_write, 16 * PAGE, 3)
        put(may_write + 7 * PAGE, b"again")
        assert os.pread(writable, 5, 7 * PAGE) == b"again"
        assert os.pread(writable, 4, 2 * PAGE) != b"priv"
        assert got(beyond, 3) == b"cow"

    return check


def shared(role):
    """Two processes and a third: the object at the same address, and moved."""
    place, child = shared.place, role
    if child == 2:
        target = pages(16, 0)
        call("mremap", place, 16 * PAGE, 16 * PAGE, 3, target)
        place = target
    if child == 3:
        call("munmap", place, 4 * PAGE)
        call("mprotect", place + 8 * PAGE, 8 * PAGE, 1)
    if child != 3:
        put(place + child * PAGE, b"child %d" % child)

    def check():
        if child == 1:
            put(place + 9 * PAGE, b"told by the first")
        if child == 3:
            assert got(place + 9 * PAGE, 17) == b"told by the first", "no longer shared"
        if child == 2:
            assert got(place + 9 * PAGE, 17) == b"told by the first", "no longer shared at another address"

    return check


def attributes(_):
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 12345))
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 22, 1 << 23))
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (3, 3))
    os.umask(0o137)
    os.mkdir(path + ".dir")
    os.chdir(path + ".dir")
    prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    prctl(29, 54321)  # PR_SET_TIMERSLACK
    prctl(15, ctypes.c_char_p(b"odd) name\xff\n"))  # PR_SET_NAME
    prctl(1, signal.SIGUSR2)  # PR_SET_PDEATHSIG
    prctl(4, 0)  # PR_SET_DUMPABLE
    call("personality", 0x0040000 | 0x0100000)  # ADDR_NO_RANDOMIZE, SHORT_INODE
    for file, text in (("oom_score_adj", "555"), ("coredump_filter", "0x7")):
        with open("/proc/self/" + file, "w") as out:
            out.write(text)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, 0, 7)
    os.sched_setaffinity(0, {0})
    syscall(251, 1, 0, 2 << 13 | 5)  # ioprio_set


def controls(_):
    """What prctl sets for an address space and a thread, with other values than victim_controls has."""
    prctl(41, 1)  # PR_SET_THP_DISABLE
    prctl(67, 1)  # PR_SET_MEMORY_MERGE
    prctl(33, 1, 0)  # PR_MCE_KILL, late
    call("mlockall", 6)  # MCL_FUTURE | MCL_ONFAULT
    prctl(65, 3)  # PR_SET_MDWE, PR_MDWE_NO_INHERIT

    def check():
        found = prctl(42), prctl(68), prctl(34), prctl(66)
        assert found == (1, 1, 0, 3), found

    return check


def root_directory(_):
    os.mkdir(path + ".root")
    os.mkdir(path + ".root/inside")
    os.chdir(path + ".root/inside")
    os.chroot("..")


def realtime(_):
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(3))
    os.sched_setaffinity(0, {1} if os.cpu_count() > 1 else {0})


def nobody(_):
    """No capability at all."""
    os.setgroups([7, 65534, 100000])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)


def ambient(_):
    """A user with capabilities; set-user-id in flight; locked securebits."""
    raw = 1 << 13 | 1 << 10 | 1 << 8  # NET_RAW, NET_BIND_SERVICE, SETPCAP
    prctl(8, 1)  # PR_SET_KEEPCAPS
    os.setresgid(1000, 1001, 1002)
    os.setresuid(1000, 1001, 1002)
    capabilities(raw, raw, 1 << 13 | 1 << 10)
    prctl(47, 2, 13)  # PR_CAP_AMBIENT_RAISE
    prctl(24, 21)  # PR_CAPBSET_DROP
    prctl(24, 5)
    prctl(28, 0x20 | 0xC | 0x40)  # PR_SET_SECUREBITS
    prctl(4, 1)
    prctl(38, 1)  # PR_SET_NO_NEW_PRIVS


def weak_root(_):
    """User 0 with hardly any capability."""
    prctl(28, 0x3)
    prctl(24, 38)
    capabilities(1 << 1, 1 << 1 | 1 << 2, 1 << 3)


def half_changed(_):
    """Effective and file system ids that are not the real ones."""
    os.setresgid(0, 5, 6)
    os.setresuid(0, 65534, 0)
    call("setfsuid", 0)


def handler(*_):
    pass


def signals(_):
    stack = pages(16)

    class Stack(ctypes.Structure):
        _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

    libc.sigaltstack(ctypes.byref(Stack(stack, -0x80000000, 16 * PAGE)), None)
    action = (ctypes.c_uint64 * 4)
    address = ctypes.cast(libc.abort, ctypes.c_void_p).value
    syscall(13, 20, action(address, 0xD8000006, 0x1234, 0xFF00FF), 0, 8)  # SIGTSTP: all flags
    syscall(13, 64, action(1, 0, 0, 0), 0, 8)  # ignored
    syscall(13, 17, action(0, 0x3, 0, 0), 0, 8)  # SIGCHLD: SA_NOCLDSTOP, SA_NOCLDWAIT
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR2, 35, 40, signal.SIGINT])
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), 40)
    for value in (1, 2, 3):
        info = (ctypes.c_int32 * 32)(35, 0, -1, 0, os.getpid(), 0, value, 0)
        syscall(129, os.getpid(), 35, info)
        info = (ctypes.c_int32 * 32)(35, 0, -6, 0, os.getpid(), 0, -value, 0)
        syscall(297, os.getpid(), os.getpid(), 35, info)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    # The queue is longer than what is allowed from here on.
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (2, 2))


def threads(_):
    standing = threading.Barrier(5)

    def thread(number):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, 50 + number])
        prctl(15, ctypes.c_char_p(b"thread %d" % number))
        prctl(29, 1000 + number)
        tid = threading.get_native_id()
        os.sched_setaffinity(0, {number % os.cpu_count()})
        os.setpriority(os.PRIO_PROCESS, tid, number)
        if number == 1:
            syscall(SETRESUID, 1, 2, 3)
        if number == 2:
            syscall(SETGROUPS, 2, (ctypes.c_uint32 * 2)(11, 22))
            prctl(1, signal.SIGUSR2)
        if number == 3:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            call("personality", 0x0040000)
        standing.wait()
        while True:
            libc.pause()

    for number in range(4):
        threading.Thread(target=thread, args=(number,), daemon=True).start()
    standing.wait()
    # Their last steps to pause() show nowhere; give them the time.
    wait_for_calls(34, 4)


def clone(exit_signal):
    child = syscall(CLONE, exit_signal, 0, 0, 0, 0)
    return child


def zombies(_):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    left = []

    def die(end, make=os.fork):
        child = make()
        if child == 0:
            try:
                end()
            finally:
                os._exit(99)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | 0x40000000)
        left.append(child)

    die(lambda: os._exit(0))
    die(lambda: os._exit(255))

    def named():
        prctl(15, ctypes.c_char_p(b"dead ) name"))
        os.setpgid(0, 0)
        os.setresgid(5, 6, 7)
        os.setresuid(8, 9, 10)
        os._exit(3)

    die(named)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGALRM, signal.SIGXCPU, 44):
        die(lambda: os.kill(os.getpid(), number))
    die(lambda: os._exit(8), lambda: clone(0))
    die(lambda: os._exit(9), lambda: clone(signal.SIGUSR2))
    die(lambda: (os.setsid(), os._exit(10)))

    def check():
        statuses = [os.waitpid(child, 0x40000000)[1] for child in left]
        wanted = [0, 255 << 8, 3 << 8, 9, 15, 11, 14, 24, 44, 8 << 8, 9 << 8, 10 << 8]
        assert statuses == wanted, statuses

    return check


def exit_signals(_):
    """Children that told their end by other signals, which were taken: none may come again."""
    numbers = [signal.SIGUSR2, 40, 40, signal.SIGTERM]
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    left = []
    for number in numbers:
        child = clone(number)
        if child == 0:
            os._exit(1)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | 0x40000000)
        assert signal.sigwait([number]) == number
        left.append(child)

    def check():
        assert not signal.sigpending(), signal.sigpending()
        assert all(os.waitpid(child, 0x40000000)[1] == 1 << 8 for child in left)

    return check


def barriers(_):
    """Registered for membarrier: expedited, private."""
    syscall(324, 1 << 4, 0, 0)

    def check():
        syscall(324, 1 << 3, 0, 0)

    return check


def groups(_):
    """A session whose leader and a group whose leader are dead, and an orphan."""

    def member(ready):
        os.write(ready, b"x")
        os.close(ready)
        wait()

    gone_read, gone = os.pipe()
    # A group that lives on without its leader.
    leader = os.fork()
    if leader == 0:
        os.setpgid(0, 0)
        if os.fork() == 0:
            os.close(gone_read)
            member(gone)
        os._exit(0)
    os.waitpid(leader, 0)
    # A session without its leader: its member is adopted by the first process.
    leader = os.fork()
    if leader == 0:
        os.setsid()
        if os.fork() == 0:
            os.close(gone_read)
            if os.fork() == 0:
                os.setpgid(0, 0)
                member(gone)
            member(gone)
        os._exit(0)
    os.waitpid(leader, 0)
    # A child made before its parent began a session of its own.
    if os.fork() == 0:
        if os.fork() == 0:
            os.close(gone_read)
            member(gone)
        os.setsid()
        os.close(gone_read)
        member(gone)
    os.close(gone)
    count = 0
    while True:
        more = os.read(gone_read, 10)
        if not more:
            break
        count += len(more)
    os.close(gone_read)
    assert count == 5, count


def executed(_):
    """Another program: another executable, another place of the vDSO."""
    os.execv("/bin/sleep", ["sleep", "infinity"])


def sharing(_):
    """Twenty children that share all they have."""


def wait_for_calls(number, count):
    """Until so many threads of this process are in this system call."""
    for _ in range(5000):
        found = 0
        for tid in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{tid}/syscall") as file:
                found += file.read().startswith(f"{number} ")
        if found >= count:
            return
        libc.usleep(1000)
    raise TimeoutError(number)


asked = False


def ask(*_):
    global asked
    asked = True


def wait():
    """Does nothing until it is asked."""
    while not asked:
        libc.pause()
    os._exit(0)


def main():
    children = {}
    signal.signal(signal.SIGUSR1, ask)
    shared.place = pages(16, 3, 0x21)
    put(shared.place, b"from the parent")
    big = pages(4096)
    for number in range(4096):
        put(big + number * PAGE, b"%d" % number)
    kinds = [advice, protections, heap, files, shared, shared, shared, attributes, root_directory, realtime, nobody, ambient,
             weak_root, half_changed, signals, threads, zombies, exit_signals, barriers, groups, executed] + [sharing] * 20
    only = sys.argv[2:]
    for number, kind in enumerate(kinds):
        if only and kind.__name__ not in only:
            continue
        role = kinds[:number].count(kind) + 1
        ready, set_up = os.pipe()
        answers, answer = os.pipe()
        child = os.fork() if number % 4 else clone(signal.SIGCHLD)
        if child == 0:
            os.close(ready)
            os.close(answers)
            # The others' pipes.
            for _, (_, other) in children.items():
                os.close(other)
            verdict = kind.__name__
            try:
                os.set_inheritable(set_up, False)
                check = kind(role)
                os.write(set_up, b"ready")
                os.close(set_up)
                while not asked:
                    libc.pause()
                if check:
                    check()
                verdict = "ok"
            except BaseException as error:
                import traceback

                verdict = kind.__name__ + ": " + traceback.format_exc()
            os.write(answer, verdict.encode())
            os._exit(0)
        os.close(set_up)
        os.close(answer)
        # An executed child closes it without a word.
        said = os.read(ready, 100)
        os.close(ready)
        if said != b"ready" and kind is not executed:
            raise RuntimeError(os.read(answers, 10000).decode())
        children[child] = (kind, answers)
    # All in pause(), but for the one that sleeps for ever.
    for child in children:
        for _ in range(5000):
            with open(f"/proc/{child}/syscall") as file:
                if file.read().split()[0] in ("34", "35", "230"):
                    break
            libc.usleep(1000)
    with open(path, "w") as file:
        file.write("1\n")
    while not asked:
        libc.pause()
    wrong = []
    for child, (kind, answers) in children.items():
        os.kill(child, signal.SIGKILL if kind is executed else signal.SIGUSR1)
        said = os.read(answers, 10000).decode()
        if said != "ok" and kind is not executed:
            wrong.append(said)
    with open(path + ".result.new", "w") as file:
        file.write("\n".join(wrong) or "ok")
    os.rename(path + ".result.new", path + ".result")
    os._exit(0)


try:
    main()
except BaseException as error:
    with open(path + ".result", "w") as file:
        import traceback

        file.write(traceback.format_exc())
    raise
