"""Counts in four threads, and writes a numbered line for each step, so that a lost or doubled one is seen.

usage: counter.py PATH [PAUSE]

Each thread adds to a dict that all hold; the main thread sleeps, then appends `N A B C D` to PATH: the number of the line and what
each thread has counted. Nothing may go backwards. When PATH.check appears it checks itself and writes PATH.result.
"""

import os
import sys
import threading
import time

path = sys.argv[1]
pause = float(sys.argv[2]) if len(sys.argv) > 2 else 0.05
counts = {f"thread {n}": 0 for n in range(4)}
local = threading.local()
failures = []
stop = False


def count(name):
    local.own = 0
    while not stop:
        local.own += 1
        counts[name] += 1
        if counts[name] != local.own:
            failures.append(f"{name} counted {local.own} and the dict has {counts[name]}")
            return
        time.sleep(pause / 5)


threads = [threading.Thread(target=count, args=(name,)) for name in counts]
for thread in threads:
    thread.start()

lines = 0
last = [0] * 4
with open(path, "a", buffering=1) as out:
    while not failures and not os.path.exists(path + ".check"):
        before = time.monotonic()
        time.sleep(pause)
        slept = time.monotonic() - before
        if slept < pause:
            failures.append(f"line {lines}: slept {slept} s in the place of {pause} s")
        now = list(counts.values())
        if any(a < b for a, b in zip(now, last)):
            failures.append(f"line {lines}: counts went from {last} to {now}")
        last = now
        out.write(" ".join(map(str, [lines, *now])) + "\n")
        lines += 1

stop = True
for thread in threads:
    thread.join()
with open(path + ".result.new", "w") as result:
    result.write("; ".join(failures) or "ok")
os.rename(path + ".result.new", path + ".result")
sys.exit(1 if failures else 0)
