"""Works with processes that the module multiprocessing spawned, which find each other's locks by name.

usage: spawned_pool.py PATH

sem_open(3) makes each semaphore under one name in /dev/shm, links it to its own and removes the first; it stays linked until the program
ends. Each step has a pool square numbers under a lock that all share, and appends `N` to PATH. When PATH.check appears it checks itself and
writes PATH.result.
"""

import atexit
import os
import sys
import time

outcome = ["it did not come to its end"]


def tell():
    path = sys.argv[1]
    with open(path + ".result.new", "w") as result:
        result.write("; ".join(outcome) or "ok")
    os.rename(path + ".result.new", path + ".result")


if __name__ == "__main__":
    # Registered first, so done last: whoever waits for the result may kill what is left, and the names must be gone by then.
    atexit.register(tell)

import multiprocessing


def begin(counter):
    global total
    total = counter


def square(number):
    with total.get_lock():
        total.value += 1
    return number * number


def main():
    path = sys.argv[1]
    context = multiprocessing.get_context("spawn")
    total = context.Value("q", 0)
    failures = []
    lines = 0
    with context.Pool(2, begin, (total,)) as pool, open(path, "a", buffering=1) as out:
        while not failures and not os.path.exists(path + ".check"):
            squares = pool.map_async(square, range(10), chunksize=2).get(60)
            if squares != [number * number for number in range(10)]:
                failures.append(f"line {lines}: the pool answered {squares}")
            if total.value != (lines + 1) * 10:
                failures.append(f"line {lines}: all together counted {total.value}")
            out.write(f"{lines}\n")
            lines += 1
            time.sleep(0.02)
        pool.close()
        pool.join()
    outcome[:] = failures
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
