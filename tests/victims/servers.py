"""A server with clients beside it in the container, asked numbered questions over connections that stay open, and now and then over a new
one. No answer may be lost, doubled or wrong.

usage: servers.py PATH nginx|nginx-master|redis|memcached|node|node-cluster|asyncio|postgresql|pgbench|mariadb

Appends `N` to PATH for each round. When PATH.check appears it writes PATH.result.
"""

import asyncio
import glob
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

PORT = 8123
path, kind = sys.argv[1:3]
directory = tempfile.mkdtemp(prefix="servers-", dir=os.path.dirname(path))
unix_path = os.path.join(directory, "socket")


def expect(found, expected):
    if found != expected:
        raise AssertionError(f"{found!r} came where {expected!r} belongs")


class Lines:
    """A client of a protocol whose answers are lines."""

    def __init__(self, family=socket.AF_INET):
        self.socket = socket.socket(family)
        self.socket.connect(unix_path if family == socket.AF_UNIX else ("127.0.0.1", PORT))
        self.answers = self.socket.makefile("rb")

    def ask(self, question):
        self.socket.sendall(question + b"\r\n")
        return self.answers.readline().rstrip()

    def close(self):
        self.answers.close()
        self.socket.close()


class Web:
    def __init__(self):
        self.connection = http.client.HTTPConnection("127.0.0.1", PORT)

    def ask(self, question):
        self.connection.request("GET", question)
        return self.connection.getresponse().read()

    def close(self):
        self.connection.close()


class Psql:
    """The client of PostgreSQL, over its Unix socket. Transactions stay open from one question to the next."""

    command = ["psql", "-X", "-q", "-A", "-t", "-h", directory, "-p", str(PORT), "-U", "postgres", "postgres"]
    end = "\\echo done"

    def __init__(self):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.process = subprocess.Popen(self.command, **pipes, text=True, bufsize=1)
        self.added = []
        if self.ask("SELECT 'here'") != ["here"]:
            self.process.wait(10)
            raise ConnectionError("the server is not up")

    def ask(self, question):
        try:
            self.process.stdin.write(f"{question};\n{self.end}\n")
        except BrokenPipeError:
            return []
        lines = iter(lambda: self.process.stdout.readline().rstrip("\n"), "done")
        answer = []
        for line in lines:
            if not line and self.process.poll() is not None:
                break
            answer.append(line)
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


class Mysql(Psql):
    """The client of MariaDB."""

    command = ["mariadb", "--no-defaults", "-N", "-B", "-n", "-S", unix_path, "-u", "root", "test"]
    end = "SELECT 'done';"


class Nginx:
    client = Web
    master = "off"

    def command(self):
        with open(os.path.join(directory, "page"), "w") as page:
            page.write("page " * 20000)
        config = os.path.join(directory, "nginx.conf")
        with open(config, "w") as out:
            out.write(f"""
                daemon off; master_process {self.master}; worker_processes 2; user root;
                pid {directory}/pid; error_log {directory}/error; events {{}}
                http {{ access_log off; keepalive_requests 1000000; keepalive_timeout 1h;
                    server {{ listen 127.0.0.1:{PORT}; root {directory};
                        location /echo/ {{ return 200 $uri; }} }} }}
            """)
        return ["nginx", "-c", config, "-e", os.path.join(directory, "error")]

    def check(self, client, number):
        expect(client.ask(f"/echo/{number}"), f"/echo/{number}".encode())
        expect(len(client.ask("/page")), 100000)


class NginxWithMaster(Nginx):
    """Its workers and it talk over socket pairs that signal."""

    master = "on"


class Redis:
    def __init__(self):
        self.count = 0

    def client(self):
        # Every other one over TCP.
        self.count += 1
        return Lines(socket.AF_UNIX if self.count % 2 else socket.AF_INET)

    def command(self):
        options = f"--port {PORT} --bind 127.0.0.1 --unixsocket {unix_path} --dir {directory} --appendonly yes --save ''"
        return ["sh", "-c", f"exec redis-server {options}"]

    def check(self, client, number):
        expect(client.ask(b"INCR counter"), b":%d" % number)


class Postgresql:
    """Each client adds a number and leaves its transaction open; its next turn adds another and commits both."""

    client = Psql
    user = "postgres"

    def __init__(self):
        self.committed = set()

    def command(self):
        programs = max(glob.glob("/usr/lib/postgresql/*/bin"))
        shutil.chown(directory, self.user, self.user)
        data = os.path.join(directory, "data")
        initdb = [os.path.join(programs, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]
        subprocess.run(initdb, user=self.user, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
        server = os.path.join(programs, "postgres")
        return [server, "-D", data, "-k", directory, "-p", str(PORT), "-c", "listen_addresses="]

    between = "|"

    def check(self, client, number):
        if number == 1:
            expect(client.ask("CREATE TABLE numbers (number int PRIMARY KEY)"), [])
        if client.added:
            expect(client.ask(f"INSERT INTO numbers VALUES ({number}); COMMIT"), [])
            self.committed.update(client.added, [number])
            client.added = []
        else:
            expect(client.ask(f"BEGIN; INSERT INTO numbers VALUES ({number})"), [])
            client.added = [number]
        seen = self.committed.union(client.added)
        expect(client.ask("SELECT count(*), sum(number) FROM numbers"), [f"{len(seen)}{self.between}{sum(seen)}"])


class Mariadb(Postgresql):
    """The same transactions. Its storage engine reads and writes by io_uring."""

    client = Mysql
    user = "mysql"
    between = "\t"

    def command(self):
        shutil.chown(directory, self.user, self.user)
        data = os.path.join(directory, "data")
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"]
        subprocess.run(install, user=self.user, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
        options = ["skip-networking", "transaction-isolation=READ-COMMITTED", "innodb-use-native-aio=1"]
        return ["mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={unix_path}"] + [f"--{it}" for it in options]

    def check(self, client, number):
        if number == 1:
            expect(client.ask("SELECT @@innodb_use_native_aio"), ["1"])
        super().check(client, number)

    def finish(self):
        client = Mysql()
        expect(client.ask("CHECK TABLE numbers EXTENDED"), ["test.numbers\tcheck\tstatus\tOK"])
        client.close()


class Pgbench(Postgresql):
    """Four clients of pgbench change balances all the time, of which the sums are always the same; at the end all tables are whole."""

    def tool(self, name, *arguments):
        programs = max(glob.glob("/usr/lib/postgresql/*/bin"))
        return [os.path.join(programs, name), "-h", directory, "-p", str(PORT), "-U", "postgres", *arguments]

    def check(self, client, number):
        if number == 1:
            quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "user": self.user}
            subprocess.run(self.tool("pgbench", "-i", "-q", "postgres"), check=True, **quiet)
            self.load = subprocess.Popen(self.tool("pgbench", "-n", "-c", "4", "-T", "3600", "postgres"), **quiet)
        if self.load.poll() is not None:
            raise AssertionError(f"pgbench ended with {self.load.returncode}")
        sums = ", ".join(f"(SELECT coalesce(sum({what}), 0) FROM pgbench_{table})" for what, table in [
            ("abalance", "accounts"), ("tbalance", "tellers"), ("bbalance", "branches"), ("delta", "history")])
        found = client.ask(f"SELECT {sums}")[0].split("|")
        expect(found, found[:1] * 4)

    def finish(self):
        self.load.terminate()
        self.load.wait(10)
        checked = subprocess.run(self.tool("pg_amcheck", "--install-missing", "-d", "postgres"),
                                 stdin=subprocess.DEVNULL, capture_output=True, text=True, user=self.user)
        expect((checked.returncode, checked.stdout + checked.stderr), (0, ""))


class Memcached:
    client = Lines

    def command(self):
        return ["memcached", "-u", "root", "-l", "127.0.0.1", "-p", str(PORT), "-U", "0", "-t", "3"]

    def check(self, client, number):
        if number == 1:
            expect(client.ask(b"set counter 0 0 1\r\n0"), b"STORED")
        expect(client.ask(b"incr counter 1"), str(number).encode())


class Node:
    client = Web

    def command(self):
        program = f"""
            let count = 0;
            const server = require('http').createServer((request, answer) => answer.end(`${{++count}} ${{request.url}}`));
            server.keepAliveTimeout = 3600e3;
            server.listen({PORT});
        """
        return ["/usr/bin/node", "-e", program]

    def check(self, client, number):
        expect(client.ask(f"/{number}"), f"{number} /{number}".encode())


class NodeCluster:
    """A primary that accepts, and hands each connection to one of two workers."""

    client = Web

    def __init__(self):
        self.workers = set()
        self.ready = os.path.join(directory, "ready")

    def command(self):
        program = os.path.join(directory, "cluster.js")
        with open(program, "w") as out:
            out.write(f"""
                const cluster = require('cluster');
                if (cluster.isPrimary) {{
                    cluster.fork();
                    cluster.fork();
                    let ready = 0;
                    cluster.on('listening', () => {{ if (++ready === 2) require('fs').writeFileSync('{self.ready}', ''); }});
                }} else {{
                    const server = require('http').createServer((request, answer) => answer.end(`${{process.pid}} ${{request.url}}`));
                    server.keepAliveTimeout = 3600e3;
                    server.listen({PORT});
                }}
            """)
        return ["/usr/bin/node", program]

    def check(self, client, number):
        if number == 1:
            wait_until(lambda: os.path.exists(self.ready))
        worker, url = client.ask(f"/{number}").split()
        expect(url, f"/{number}".encode())
        self.workers.add(worker)
        client.worker = getattr(client, "worker", worker)
        expect(worker, client.worker)
        # By then every client has connected anew.
        if number > 80:
            expect(len(self.workers), 2)


class Asyncio:
    client = Lines

    def command(self):
        return [sys.executable, os.path.abspath(__file__), path, "serve"]

    def check(self, client, number):
        expect(client.ask(str(number).encode()), b"%d of %d" % (number, number))


async def serve():
    count = 0

    async def answer(reader, writer):
        nonlocal count
        while line := await reader.readline():
            count += 1
            await asyncio.sleep(0.001)
            writer.write(line.rstrip() + b" of %d\r\n" % count)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", PORT)
    await server.serve_forever()


def wait_until(so):
    end = time.monotonic() + 20
    while not so():
        if time.monotonic() > end:
            raise TimeoutError("the server is not up")
        time.sleep(0.02)


def connected(make):
    """A client, once the server is up."""
    end = time.monotonic() + 20
    while True:
        try:
            client = make()
            if isinstance(client, Web):
                client.connection.connect()
            return client
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def main():
    server = {
        "nginx": Nginx,
        "nginx-master": NginxWithMaster,
        "redis": Redis,
        "memcached": Memcached,
        "node": Node,
        "node-cluster": NodeCluster,
        "asyncio": Asyncio,
        "postgresql": Postgresql,
        "pgbench": Pgbench,
        "mariadb": Mariadb,
    }[kind]()
    user = getattr(server, "user", None)
    process = subprocess.Popen(server.command(), user=user, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    clients = [connected(server.client) for _ in range(4)]
    number = 0
    with open(path, "a", buffering=1) as out:
        while not os.path.exists(path + ".check"):
            number += 1
            if number % 20 == 0:
                clients.pop(0).close()
                clients.append(connected(server.client))
            server.check(clients[number % len(clients)], number)
            out.write(f"{number}\n")
            time.sleep(0.02)
    for client in clients:
        client.close()
    if hasattr(server, "finish"):
        server.finish()
    process.terminate()
    process.wait(10)


if kind == "serve":
    asyncio.run(serve())
    sys.exit()
verdict = "ok"
try:
    main()
except Exception as error:
    verdict = repr(error)
with open(path + ".result.new", "w") as result:
    result.write(verdict)
os.rename(path + ".result.new", path + ".result")
