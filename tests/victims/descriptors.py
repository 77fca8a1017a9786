"""Has ten thousand descriptors open: counters, files each at a place of its own, and nine duplicates of each.

usage: descriptors.py PATH

Each step looks at some of them, and appends `N` to PATH. When PATH.check appears all are looked at, and the verdict is in PATH.result.
"""

import os
import resource
import sys
import time

EACH = 500
DUPLICATES = 9
path = sys.argv[1]
failures = []
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
with open(path + ".content", "wb") as content:
    content.write(b"x" * EACH)

counters = [os.eventfd(1, os.EFD_NONBLOCK) for _ in range(EACH)]
files = []
for number in range(EACH):
    files.append(os.open(path + ".content", os.O_RDONLY))
    os.lseek(files[-1], number, os.SEEK_SET)
more = [[[os.dup(fd) for fd in fds] for _ in range(DUPLICATES)] for fds in (counters, files)]


def look(number):
    """A counter is raised through one of its descriptors and read through another; a place is asked through all."""
    os.eventfd_write(counters[number], number)
    count = os.eventfd_read(more[0][number % DUPLICATES][number])
    if count != number + 1:
        failures.append(f"counter {number} has {count}")
    os.eventfd_write(counters[number], 1)
    places = [os.lseek(fd, 0, os.SEEK_CUR) for fd in (files[number], *(fds[number] for fds in more[1]))]
    if places != [number] * (1 + DUPLICATES):
        failures.append(f"file {number} is at {places}")


lines = 0
with open(path, "a", buffering=1) as out:
    while not failures and not os.path.exists(path + ".check"):
        for number in range(lines % 97, EACH, 97):
            look(number)
        out.write(f"{lines}\n")
        lines += 1
        time.sleep(0.05)

for number in range(EACH):
    look(number)
with open(path + ".result.new", "w") as result:
    result.write("; ".join(failures[:10]) or "ok")
os.rename(path + ".result.new", path + ".result")
sys.exit(1 if failures else 0)
