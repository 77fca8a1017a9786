#!/bin/bash
# Works in a sandbox of bubblewrap: its own view of all mounts, with a tmpfs in the place of a directory.
# usage: sandbox.sh PATH
path=$1
if [ ! -e "$path.private/in the sandbox" ]; then
    mkdir -p "$path.private" "$path.view" && echo outside >"$path.private/file" && echo lasting >"$path.view/file" || exit 1
    exec bwrap --bind / / --dev-bind /dev /dev --tmpfs "$path.private" --ro-bind "$path.view" "$path.private/view" \
        --dir "$path.private/in the sandbox" /bin/bash "$0" "$path"
fi
cd "$path.private" || exit 1
exec 3>>log
n=0
wrong() { echo "$1" >"$path.result"; exit 1; }
while [ ! -e "$path.check" ]; do
    echo "$n" >&3
    [ "$(tail -n 1 "$path.private/log")" = "$n" ] || wrong "the log does not end with step $n"
    [ "$(cat view/file)" = lasting ] || wrong "the view is lost"
    [ ! -e file ] || wrong "the sandbox shows what it hides"
    echo "$n" >>"$path"
    n=$((n + 1))
done
[ "$(stat -f -c %T .)" = tmpfs ] || wrong "it is no tmpfs any more"
: 2>/dev/null >view/new && wrong "the view can be written to"
: 2>/dev/null >/dev/null || wrong "there are no devices"
echo -n ok >"$path.result"
