"""Forks without end, so that its tree is another one each millisecond: children with a child of their own, which both end soon."""

import os
import time

while True:
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.05)
            os._exit(0)
        os.wait()
        os._exit(0)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
    time.sleep(0.005)
