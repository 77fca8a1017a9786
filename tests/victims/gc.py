"""`git gc` without end on a repository that grows: whenever it is stopped, a pack is being written and locks are held.

usage: gc.py PATH

Appends `N` to PATH for each collection. When PATH.check appears it looks at the repository and writes PATH.result.
"""

import os
import subprocess
import sys

path = sys.argv[1]
repository = path + ".git"
COMMITS = 25


def git(*arguments, **options):
    # Nobody's configuration, and no second collection behind our back.
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nonexistent"}
    command = ["git", "--git-dir", repository, "-c", "gc.auto=0", "-c", "gc.pruneExpire=now", *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, **options).stdout


def grow(number):
    """Commits, each with a file of its own."""
    stream = []
    for commit in range(number * COMMITS, (number + 1) * COMMITS):
        message = f"commit {commit}\n"
        content = "".join(f"{line} of {commit * line}\n" for line in range(100))
        stream.append(f"commit refs/heads/main\ncommitter A <a@b> {1000000000 + commit} +0000\n")
        stream.append(f"data {len(message)}\n{message}")
        if commit == number * COMMITS and number > 0:
            stream.append("from refs/heads/main^0\n")
        stream.append(f"M 100644 inline file{commit % 40}\ndata {len(content)}\n{content}\n")
    git("fast-import", "--quiet", input="".join(stream).encode())


def main():
    os.mkdir(repository)
    git("init", "--bare", "--quiet")
    number = 0
    with open(path, "a", buffering=1) as out:
        while not os.path.exists(path + ".check"):
            grow(number)
            git("gc", "--aggressive", "--quiet")
            out.write(f"{number}\n")
            number += 1
    git("fsck", "--full", "--strict")
    count = int(git("rev-list", "--count", "main"))
    if count != number * COMMITS:
        raise AssertionError(f"{count} commits, and not {number * COMMITS}")
    left = [name for _, _, names in os.walk(repository) for name in names if name.endswith(".lock") or name == "gc.pid"]
    if left:
        raise AssertionError(f"left behind: {left}")


verdict = "ok"
try:
    main()
except subprocess.CalledProcessError as error:
    verdict = f"{error}: {error.stderr!r}"
except Exception as error:
    verdict = repr(error)
with open(path + ".result.new", "w") as result:
    result.write(verdict)
os.rename(path + ".result.new", path + ".result")
