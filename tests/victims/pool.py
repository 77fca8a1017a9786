"""Works with all that the module multiprocessing has: a pool, queues, locks, shared memory.

usage: pool.py PATH

Semaphores, arenas and shared memory are files of /dev/shm that were deleted at once. Each step has the pool square numbers, passes one through
the queues of a process of its own, has all of them count in one shared number, and appends `N` to PATH. When PATH.check appears it
checks itself and writes PATH.result.
"""

import multiprocessing
import os
import sys
import time
from multiprocessing import shared_memory

path = sys.argv[1]
context = multiprocessing.get_context("fork")
failures = []
shared = shared_memory.SharedMemory(create=True, size=100_000)
shared.unlink()
total = context.Value("q", 0)
requests, replies = context.Queue(), context.Queue()


def square(number):
    with total.get_lock():
        total.value += 1
    return number * number


def serve():
    for number in iter(requests.get, None):
        # What was written into the shared memory for it.
        at = number * 8 % 80_000
        found = int.from_bytes(shared.buf[at : at + 8], "little")
        shared.buf[at : at + 8] = (found + 1).to_bytes(8, "little")
        replies.put((number, found))


server = context.Process(target=serve)
server.start()
lines = 0
with context.Pool(3) as pool, open(path, "a", buffering=1) as out:
    while not failures and not os.path.exists(path + ".check"):
        squares = pool.map(square, range(20), chunksize=3)
        if squares != [number * number for number in range(20)]:
            failures.append(f"line {lines}: the pool answered {squares}")
        at = lines * 8 % 80_000
        shared.buf[at : at + 8] = (lines + 7).to_bytes(8, "little")
        requests.put(lines)
        reply = replies.get(timeout=60)
        found = int.from_bytes(shared.buf[at : at + 8], "little")
        if (reply, found) != ((lines, lines + 7), lines + 8):
            failures.append(f"line {lines}: the other process answered {reply}, and left {found}")
        if total.value != (lines + 1) * 20:
            failures.append(f"line {lines}: all together counted {total.value}")
        out.write(f"{lines}\n")
        lines += 1
        time.sleep(0.02)
    pool.close()
    pool.join()

requests.put(None)
server.join(60)
if server.exitcode != 0:
    failures.append(f"the other process ended with {server.exitcode}")
with open(path + ".result.new", "w") as result:
    result.write("; ".join(failures) or "ok")
os.rename(path + ".result.new", path + ".result")
sys.exit(1 if failures else 0)
