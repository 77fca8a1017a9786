"""Is in the middle of two transactions of SQLite, with its locks held and a part of the changes already in the files.

usage: transaction.py PATH

One database has a rollback journal, the other a write-ahead log, which is mapped. Each step inserts a row into both and appends `N` to PATH;
another process asks in each step whether it may write, and must be told that the database is locked. When PATH.check appears both are
committed, must hold every row and pass the integrity check, and the other process may write. The verdict is in PATH.result.
"""

import os
import sqlite3
import sys
import time

path = sys.argv[1]
databases = {mode: f"{path}.{mode}.db" for mode in ("delete", "wal")}
failures = []


def connect(mode):
    # Without a wait for locks, and without transactions that are not asked for.
    return sqlite3.connect(databases[mode], timeout=0, isolation_level=None)


def may_write(connections):
    answers = []
    for mode, connection in connections.items():
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            answers.append(f"{mode}: free")
        except sqlite3.OperationalError as error:
            answers.append(f"{mode}: {error}")
    return ", ".join(answers)


for mode in databases:
    connection = connect(mode)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute("CREATE TABLE steps (number INTEGER PRIMARY KEY, filler BLOB)")
    connection.close()

asked, ask = os.pipe()
answered, answer = os.pipe()
child = os.fork()
if child == 0:
    os.close(ask)
    os.close(answered)
    connections = {mode: connect(mode) for mode in databases}
    while os.read(asked, 1):
        os.write(answer, may_write(connections).encode())
    os._exit(0)
os.close(asked)
os.close(answer)


def other():
    os.write(ask, b"?")
    return os.read(answered, 1000).decode()


connections = {mode: connect(mode) for mode in databases}
for connection in connections.values():
    # What does not fit is written before the commit.
    connection.execute("PRAGMA cache_size = 5")
    connection.execute("BEGIN IMMEDIATE")

lines = 0
with open(path, "a", buffering=1) as out:
    while not failures and not os.path.exists(path + ".check"):
        for connection in connections.values():
            connection.execute("INSERT INTO steps VALUES (?, ?)", (lines, bytes([lines % 256]) * 3000))
        told = other()
        if told != "delete: database is locked, wal: database is locked":
            failures.append(f"line {lines}: the other process was told {told!r}")
        out.write(f"{lines}\n")
        lines += 1
        time.sleep(0.05)

for mode, connection in connections.items():
    connection.execute("COMMIT")
    rows = connection.execute("SELECT number, filler FROM steps ORDER BY number").fetchall()
    if rows != [(number, bytes([number % 256]) * 3000) for number in range(lines)]:
        failures.append(f"{mode}: {len(rows)} rows after {lines} steps, or others")
    check = connection.execute("PRAGMA integrity_check").fetchall()
    if check != [("ok",)]:
        failures.append(f"{mode}: {check}")
told = other()
if told != "delete: free, wal: free":
    failures.append(f"after the commit the other process was told {told!r}")
os.close(ask)
if os.waitpid(child, 0)[1] != 0:
    failures.append("the other process failed")
with open(path + ".result.new", "w") as result:
    result.write("; ".join(failures) or "ok")
os.rename(path + ".result.new", path + ".result")
sys.exit(1 if failures else 0)
