"""A session keyring of its own with a key in it, read in every round.

usage: keyring.py PATH

Appends `N` to PATH for each. When PATH.check appears it writes PATH.result.
"""

import ctypes
import os
import sys
import time

path = sys.argv[1]
ADD_KEY, KEYCTL = 248, 250
JOIN_SESSION_KEYRING, READ = 1, 11
SESSION_KEYRING = -3
SECRET = b"secret"
kernel = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    result = kernel.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def main():
    call(KEYCTL, JOIN_SESSION_KEYRING, None)
    key = call(ADD_KEY, b"user", b"crfs-test", SECRET, len(SECRET), SESSION_KEYRING)
    number = 0
    with open(path, "a", buffering=1) as out:
        while not os.path.exists(path + ".check"):
            content = ctypes.create_string_buffer(64)
            length = call(KEYCTL, READ, key, content, len(content))
            if content.raw[:length] != SECRET:
                raise AssertionError(f"the key holds {content.raw[:length]!r}")
            out.write(f"{number}\n")
            number += 1
            time.sleep(0.02)


verdict = "ok"
try:
    main()
except Exception as error:
    verdict = repr(error)
with open(path + ".result.new", "w") as result:
    result.write(verdict)
os.rename(path + ".result.new", path + ".result")
