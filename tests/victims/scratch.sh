#!/bin/bash
# Shares all mounts, and works in a tmpfs that it mounts itself, with a database of SQLite in it and a read-only view of it elsewhere.
# usage: scratch.sh PATH
path=$1
mount --make-rshared / || exit 1
mkdir "$path.scratch" "$path.view" || exit 1
mount -t tmpfs -o size=16m,mode=700 scratch "$path.scratch" && cd "$path.scratch" || exit 1
mkdir kept && mount --bind kept "$path.view" && mount -o remount,bind,ro "$path.view" || exit 1
sql() { python3 -c 'import sqlite3, sys
with sqlite3.connect("steps.db", isolation_level=None) as steps: print(*(row[0] for row in steps.execute(sys.argv[1])))' "$1"; }
sql "CREATE TABLE steps (number INTEGER PRIMARY KEY)"
exec 3>>kept/log
n=0
wrong() { echo "$1" >"$path.result"; exit 1; }
while [ ! -e "$path.check" ]; do
    if [ $((n % 10)) = 0 ]; then
        sql "INSERT INTO steps VALUES ($n)" || wrong "step $n is not written"
    fi
    echo "$n" >&3
    [ "$(tail -n 1 "$path.view/log")" = "$n" ] || wrong "the view does not show step $n"
    echo "$n" >>"$path"
    n=$((n + 1))
done
[ "$(sql 'SELECT count(*) FROM steps')" = $(((n + 9) / 10)) ] || wrong "steps are missing"
[ "$(sql 'PRAGMA integrity_check')" = ok ] || wrong "the database is damaged"
[ "$(stat -f -c %T .)" = tmpfs ] || wrong "it is no tmpfs any more"
: >"$path.view/new" 2>/dev/null && wrong "the view can be written to"
grep -q '^[^-]* / / [^-]*shared:' /proc/self/mountinfo || wrong "what is mounted on / is not shared any more"
echo -n ok >"$path.result"
