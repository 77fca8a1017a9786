"""A session bus and two clients: one sends numbered signals, the other, who asked for them, gets each once and in order.

Of root the bus has a netlink socket, for the audit.

usage: dbus.py PATH

Appends `N` to PATH for each. When PATH.check appears it writes PATH.result.
"""

import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

path = sys.argv[1]
directory = tempfile.mkdtemp(prefix="bus-", dir=os.path.dirname(path))
address = os.path.join(directory, "socket")
BUS = "org.freedesktop.DBus"
CALL, ANSWER, FAILURE, SIGNAL = 1, 2, 3, 4


def padded(data, to):
    return data + bytes(-len(data) % to)


def string(text):
    return struct.pack("<I", len(text)) + text.encode() + b"\0"


class Client:
    """As much of the D-Bus protocol as signals need (https://dbus.freedesktop.org/doc/dbus-specification.html)."""

    def __init__(self):
        self.serial = 0
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(address)
        self.stream = self.socket.makefile("rb")
        self.socket.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
        if not self.stream.readline().startswith(b"OK "):
            raise AssertionError("the bus does not let us in")
        self.socket.sendall(b"BEGIN\r\n")
        self.call("Hello")

    def send(self, kind, member, *arguments, **fields):
        """A message whose arguments are strings."""
        self.serial += 1
        body = b""
        for argument in arguments:
            body = padded(body, 4) + string(argument)
        header = b""
        fields = [(1, "o", fields["object"]), (2, "s", fields["interface"]), (3, "s", member), (6, "s", fields.get("to"))]
        fields.append((8, "g", "s" * len(arguments)))
        for code, sort, value in fields:
            if value:
                value = bytes([len(value)]) + value.encode() + b"\0" if sort == "g" else padded(b"", 4) + string(value)
                header = padded(header, 8) + bytes([code, 1]) + sort.encode() + b"\0" + value
        start = b"l" + bytes([kind, 0, 1]) + struct.pack("<III", len(body), self.serial, len(header))
        self.socket.sendall(padded(start + header, 8) + body)

    def receive(self):
        """Kind and body of the next message."""
        start = self.stream.read(16)
        body, _, fields = struct.unpack("<III", start[4:])
        self.stream.read(fields + -fields % 8)
        return start[1], self.stream.read(body)

    def call(self, member, *arguments):
        """Asks the bus, and passes over what is no answer."""
        self.send(CALL, member, *arguments, object="/org/freedesktop/DBus", interface=BUS, to=BUS)
        kind = SIGNAL
        while kind == SIGNAL:
            kind, body = self.receive()
        if kind != ANSWER:
            raise AssertionError(f"{member}: {body!r}")
        return body


def connected():
    end = time.monotonic() + 20
    while True:
        try:
            return Client()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def main():
    command = ["dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address=unix:path={address}"]
    bus = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    sender, listener = connected(), connected()
    identity = sender.call("GetId")
    listener.call("AddMatch", "type='signal',interface='test.Numbers'")
    number = 0
    with open(path, "a", buffering=1) as out:
        while not os.path.exists(path + ".check"):
            # Some are under way at any moment.
            if number == 0:
                for ahead in range(5):
                    sender.send(SIGNAL, "Next", str(ahead), object="/numbers", interface="test.Numbers")
            kind, body = listener.receive()
            if (kind, body) != (SIGNAL, string(str(number))):
                raise AssertionError(f"signal {number} is {kind} {body!r}")
            sender.send(SIGNAL, "Next", str(number + 5), object="/numbers", interface="test.Numbers")
            out.write(f"{number}\n")
            number += 1
            time.sleep(0.02)
    if sender.call("GetId") != identity:
        raise AssertionError("it is another bus")
    bus.terminate()
    bus.wait(10)
    shutil.rmtree(directory)


verdict = "ok"
try:
    main()
except Exception as error:
    verdict = repr(error)
with open(path + ".result.new", "w") as result:
    result.write(verdict)
os.rename(path + ".result.new", path + ".result")
