"""Twenty workers that share what their parent had before it forked, and write a part of it: each sees its own changes alone.

usage: workers.py PATH

Each round of the parent appends `N` to PATH once every worker has gone on. When PATH.check appears all workers look at everything
they have. The verdict is in PATH.result.
"""

import array
import mmap
import os
import struct
import sys
import time

WORKERS = 20
# Numbers of eight bytes: 64 MiB.
NUMBERS = 8 << 20
PAGE = 512
path = sys.argv[1]
shared = array.array("Q", range(NUMBERS))
words = {f"word {n}": n * 7 for n in range(50000)}
counters = mmap.mmap(-1, 8 * (WORKERS + 1))


def counter(number):
    return struct.unpack_from("Q", counters, 8 * number)[0]


def worker(own):
    """Changes a number on each page of a part of its own."""
    part = NUMBERS // WORKERS
    mine = range(own * part, (own + 1) * part, PAGE)
    for at in mine:
        shared[at] = at + 1 + own
    round = 0
    while not counter(WORKERS):
        round += 1
        at = mine[round % len(mine)]
        theirs = (at + part) % NUMBERS
        if shared[at] != at + 1 + own or shared[theirs] != theirs or words[f"word {round % 50000}"] != round % 50000 * 7:
            return f"round {round}: it has {shared[at]} at {at} and {shared[theirs]} at {theirs}"
        struct.pack_into("Q", counters, 8 * own, round)
        time.sleep(0.01)
    expected = array.array("Q", range(NUMBERS))
    for at in mine:
        expected[at] = at + 1 + own
    return None if shared == expected else "its memory is not what it was"


children = []
for own in range(WORKERS):
    child = os.fork()
    if child == 0:
        failure = worker(own)
        if failure:
            print(f"worker {own}: {failure}", file=sys.stderr, flush=True)
        os._exit(1 if failure else 0)
    children.append(child)

failures = []
lines = 0
with open(path, "a", buffering=1) as out:
    while not failures and not os.path.exists(path + ".check"):
        before = [counter(own) for own in range(WORKERS)]
        end = time.monotonic() + 30
        while any(counter(own) == then for own, then in enumerate(before)):
            if time.monotonic() > end:
                failures.append("a worker stands still")
                break
            time.sleep(0.005)
        out.write(f"{lines}\n")
        lines += 1
struct.pack_into("Q", counters, 8 * WORKERS, 1)
failures += [f"worker {own} failed" for own, child in enumerate(children) if os.waitpid(child, 0)[1] != 0]
if shared != array.array("Q", range(NUMBERS)):
    failures.append("the parent's memory is not what it was")
with open(path + ".result.new", "w") as result:
    result.write("; ".join(failures) or "ok")
os.rename(path + ".result.new", path + ".result")
sys.exit(1 if failures else 0)
