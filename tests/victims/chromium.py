"""Asks a page in Chromium, time and again, to count: each answer must be one more than the last one.

usage: chromium.py PATH

Chromium runs as an ordinary user, with the sandbox that it makes for itself: user, pid and net namespaces, a root directory in which there is
nothing, system call filters. It is asked over two pipes (--remote-debugging-pipe). Each answer is a line of PATH, with its number. When PATH.check
appears the verdict is written to PATH.result.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time

path = sys.argv[1]
profile = path + ".profile"
USER = 65534
PAGE = "data:text/html,<script>let count = 0; let ticks = 0; setInterval(() => ++ticks, 20)</script>"

os.mkdir(profile)
os.chown(profile, USER, USER)
asked, to_ask = os.pipe()
answered, to_answer = os.pipe()


def become():
    # Chromium reads from descriptor 3 and writes to descriptor 4.
    low, high = os.dup2(asked, 100), os.dup2(to_answer, 101)
    os.dup2(low, 3)
    os.dup2(high, 4)
    os.closerange(5, 200)
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)


words = ["chromium", "--headless", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe", "--user-data-dir=" + profile, PAGE]
browser = subprocess.Popen(
    words,
    preexec_fn=become,
    close_fds=False,
    stdin=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    env={"HOME": profile, "PATH": os.environ["PATH"]},
)
os.close(asked)
os.close(to_answer)
to_ask, answers = os.fdopen(to_ask, "wb", buffering=0), os.fdopen(answered, "rb")
numbers = 0


def answer():
    text = b""
    while not text.endswith(b"\0"):
        byte = answers.read(1)
        assert byte, "the browser has ended"
        text += byte
    return json.loads(text[:-1])


def ask(method, session=None, **parameters):
    global numbers
    numbers += 1
    message = {"id": numbers, "method": method, "params": parameters}
    if session:
        message["sessionId"] = session
    to_ask.write(json.dumps(message).encode() + b"\0")
    while True:
        message = answer()
        if message.get("id") == numbers:
            assert "result" in message, message
            return message["result"]


def page():
    """The page's session, once it is there."""
    while True:
        found = [it for it in ask("Target.getTargets")["targetInfos"] if it["type"] == "page" and it["url"] == PAGE]
        if found:
            return ask("Target.attachToTarget", targetId=found[0]["targetId"], flatten=True)["sessionId"]
        time.sleep(0.05)


session = page()


def evaluate(expression):
    return ask("Runtime.evaluate", session, expression=expression)["result"].get("value")


def is_confined():
    """Whether the page's process is where Chromium's own sandbox puts it: in another network, with a root directory in which nothing is."""
    own, found = os.stat("/proc/self/ns/net").st_ino, []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as words:
                if b"--type=renderer" in words.read():
                    apart = os.stat(f"/proc/{pid}/ns/net").st_ino != own
                    found.append(apart and re.fullmatch(r"/proc/\d+/fdinfo", os.readlink(f"/proc/{pid}/root")) is not None)
        except (FileNotFoundError, ProcessLookupError):
            pass
    return bool(found) and all(found)


while evaluate("typeof ticks") != "number":
    time.sleep(0.05)

failures, lines, last = [], 0, 0
if not is_confined():
    failures.append("Chromium has made no sandbox")
with open(path, "a", buffering=1) as out:
    while not failures and not os.path.exists(path + ".check"):
        count = evaluate("++count")
        if count != lines + 1:
            failures.append(f"line {lines}: {count} came after {lines}")
        ticks = evaluate("ticks")
        if ticks < last:
            failures.append(f"line {lines}: {ticks} ticks after {last}")
        last = ticks
        out.write(f"{lines} {ticks}\n")
        lines += 1
        time.sleep(0.03)
if last == 0:
    failures.append("the page's timer never fired")
if not is_confined():
    failures.append("the page is not in the sandbox any more")
ask("Browser.close")
browser.wait()
shutil.rmtree(profile, ignore_errors=True)
with open(path + ".result.new", "w") as result:
    result.write("; ".join(failures) or "ok")
os.rename(path + ".result.new", path + ".result")
