"""Waits in every call that a freeze may interrupt, a thread each, and tells how each call returned."""
import ctypes, os, signal, socket, struct, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)
EPOLL_WAIT, EPOLL_PWAIT, EPOLL_PWAIT2, SEMOP, SEMTIMEDOP = 232, 281, 441, 65, 220
SIGTIMEDWAIT, IO_SETUP, IO_GETEVENTS, IO_PGETEVENTS = 128, 206, 208, 333
READ, RECVFROM, RECVMSG, ACCEPT, ACCEPT4, IO_URING_SETUP, IO_URING_ENTER = 0, 45, 47, 43, 288, 425, 426
LONG = ctypes.c_long


def call(number, *arguments):
    """The result, or minus errno. Arguments are whole registers."""
    ctypes.set_errno(0)
    libc.syscall.restype = LONG
    result = libc.syscall(LONG(number), *(a if isinstance(a, ctypes.Array) else LONG(a) for a in arguments))
    return result if result != -1 else -ctypes.get_errno()


def report(name, result):
    os.write(1, f"{name} {result}\n".encode())


def timed_socket():
    """A connected stream socket with a long SO_RCVTIMEO."""
    a, b = socket.socketpair()
    a.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 100, 0))
    return a.detach(), b.detach()


def timed_listener():
    s = socket.socket(socket.AF_UNIX)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 100, 0))
    s.bind("\0crctl-test")
    s.listen()
    return s.detach()


def epoll():
    return libc.epoll_create1(0)


events = ctypes.create_string_buffer(64)
buffer = ctypes.create_string_buffer(64)
hundred_seconds = ctypes.create_string_buffer(struct.pack("ll", 100, 0), 16)
minus_one = ctypes.create_string_buffer(struct.pack("HhH", 0, -1, 0), 6)
semaphores = libc.semget(0, 1, 0o600)
assert semaphores >= 0
context = ctypes.create_string_buffer(8)
assert call(IO_SETUP, 8, context) == 0
aio = struct.unpack("q", context.raw)[0]
usr2 = ctypes.create_string_buffer(struct.pack("Q", 1 << (signal.SIGUSR2 - 1)), 8)
iovec_target = ctypes.create_string_buffer(16)
iovec = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(iovec_target), 16), 16)
header = ctypes.create_string_buffer(struct.pack("QIIQQQQII", 0, 0, 0, ctypes.addressof(iovec), 1, 0, 0, 0, 0), 56)
listener = timed_listener()
ring = call(IO_URING_SETUP, 4, ctypes.create_string_buffer(120))

waits = {
    "epoll_wait": lambda: call(EPOLL_WAIT, epoll(), events, 1, -1),
    "epoll_wait_short": lambda: call(EPOLL_WAIT, epoll(), events, 1, 3000),
    "epoll_pwait": lambda: call(EPOLL_PWAIT, epoll(), events, 1, -1, 0, 8),
    "epoll_pwait2": lambda: call(EPOLL_PWAIT2, epoll(), events, 1, hundred_seconds, 0, 8),
    "semop": lambda: call(SEMOP, semaphores, minus_one, 1),
    "semtimedop": lambda: call(SEMTIMEDOP, semaphores, minus_one, 1, hundred_seconds),
    "rt_sigtimedwait": lambda: call(SIGTIMEDWAIT, usr2, 0, hundred_seconds, 8),
    "io_getevents": lambda: call(IO_GETEVENTS, aio, 1, 1, events, hundred_seconds),
    "io_pgetevents": lambda: call(IO_PGETEVENTS, aio, 1, 1, events, hundred_seconds, 0),
    "read": lambda: call(READ, timed_socket()[0], buffer, 1),
    "recvfrom": lambda: call(RECVFROM, timed_socket()[0], buffer, 1, 0, 0, 0),
    "recvmsg": lambda: call(RECVMSG, timed_socket()[0], header, 0),
    "accept": lambda: call(ACCEPT, listener, 0, 0),
    "accept4": lambda: call(ACCEPT4, listener, 0, 0, 0),
}
if ring >= 0:
    waits["io_uring_enter"] = lambda: call(IO_URING_ENTER, ring, 0, 1, 1, 0, 0)

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGUSR2])
for name, wait in waits.items():
    threading.Thread(target=lambda name=name, wait=wait: report(name, wait()), daemon=True).start()
# Last, in the main thread: what a handler interrupts must say so.
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.siginterrupt(signal.SIGUSR1, False)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
time.sleep(0.2)
os.write(1, f"waiting {len(waits)} {' '.join(waits)}\n".encode())
report("handled", call(EPOLL_WAIT, epoll(), events, 1, -1))
time.sleep(1000)
