"""`apt-get install --download-only` without end, from a server of its own that is slow: whenever it is stopped, a file is under way, the methods
of apt wait for it, and locks are held.

usage: download.py PATH

Appends `N` to PATH for each package that has come. When PATH.check appears it looks at what came and writes PATH.result.
"""

import hashlib
import http.server
import os
import random
import shutil
import subprocess
import sys
import threading
import time

path = sys.argv[1]
home = path + ".apt"
PIECE = 1 << 14
PACKAGE = random.Random(1).randbytes(16 * PIECE)
SHA256 = hashlib.sha256(PACKAGE).hexdigest()


def packages():
    fields = {
        "Package": "large",
        "Version": "1",
        "Architecture": "all",
        "Maintainer": "nobody <nobody@example.org>",
        "Filename": "./large_1_all.deb",
        "Size": len(PACKAGE),
        "SHA256": SHA256,
        "Description": "something large",
    }
    return ("".join(f"{name}: {value}\n" for name, value in fields.items()) + "\n").encode()


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        content = {"/./Packages": packages(), "/./large_1_all.deb": PACKAGE}.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for start in range(0, len(content), PIECE):
            self.wfile.write(content[start : start + PIECE])
            time.sleep(0.02)

    def log_message(self, *_):
        pass


def apt(*arguments):
    # Nothing of the host's: neither its lists nor its locks.
    settings = {
        "Dir": home,
        "Dir::State": "state",
        "Dir::State::status": home + "/state/status",
        "Dir::Cache": "cache",
        "Dir::Etc": "etc",
        "Dir::Log": "log",
        "APT::Sandbox::User": "root",
        "APT::Architecture": "amd64",
        "Acquire::Languages": "none",
        "Acquire::http::Proxy": "DIRECT",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "APT_CONFIG": "/dev/null", "LC_ALL": "C.UTF-8"}
    subprocess.run(["apt-get", "-q", *options, *arguments], env=environment, check=True, capture_output=True)


def main():
    for directory in ["state/lists/partial", "cache/archives/partial", "etc", "log"]:
        os.makedirs(f"{home}/{directory}")
    open(f"{home}/state/status", "w").close()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with open(f"{home}/etc/sources.list", "w") as sources:
        sources.write(f"deb [trusted=yes] http://127.0.0.1:{server.server_port} ./\n")
    apt("update")
    archives = f"{home}/cache/archives"
    number = 0
    with open(path, "a", buffering=1) as out:
        while not os.path.exists(path + ".check"):
            apt("--yes", "--download-only", "install", "large")
            with open(f"{archives}/large_1_all.deb", "rb") as package:
                if hashlib.sha256(package.read()).hexdigest() != SHA256:
                    raise AssertionError("what came is not what was sent")
            os.remove(f"{archives}/large_1_all.deb")
            out.write(f"{number}\n")
            number += 1
    left = os.listdir(f"{archives}/partial")
    if left:
        raise AssertionError(f"left behind: {left}")
    shutil.rmtree(home)


verdict = "ok"
try:
    main()
except subprocess.CalledProcessError as error:
    verdict = f"{error}: {error.stdout!r} {error.stderr!r}"
except Exception as error:
    verdict = repr(error)
with open(path + ".result.new", "w") as result:
    result.write(verdict)
os.rename(path + ".result.new", path + ".result")
