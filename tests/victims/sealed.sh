#!/bin/bash
# Works in a sandbox of bubblewrap that has everything of its own: users, processes, mounts, network, names, IPC.
# usage: sealed.sh PATH
path=$1
if [ ! -e "$path.private/in the sandbox" ]; then
    mkdir -p "$path.private" && echo outside >"$path.private/file" || exit 1
    exec bwrap --unshare-all --hostname sealed --ro-bind / / --bind "${path%/*}" "${path%/*}" --proc /proc --dev /dev \
        --tmpfs "$path.private" --dir "$path.private/in the sandbox" /bin/bash "$0" "$path"
fi
cd "$path.private" || exit 1
exec 3>>log 4</proc/self/stat
n=0
wrong() { echo "$1" >"$path.result"; exit 1; }
while [ ! -e "$path.check" ]; do
    echo "$n" >&3
    [ "$(tail -n 1 "$path.private/log")" = "$n" ] || wrong "the log does not end with step $n"
    [ "$$ $(cat /proc/1/comm)" = "2 bwrap" ] || wrong "it is process $$, and the first is $(cat /proc/1/comm)"
    [ "$(cat "/proc/$$/comm") $(hostname) $(id -u)" = "bash sealed 0" ] || wrong "it is somebody else, or elsewhere"
    [ "$(tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ')" = lo ] || wrong "there is a network"
    [ ! -e file ] || wrong "the sandbox shows what it hides"
    echo "$n" >>"$path"
    n=$((n + 1))
done
read -r pid rest <&4
[ "$pid" = 2 ] || wrong "a file of /proc is that of process $pid"
[ "$(stat -f -c %T .)" = tmpfs ] || wrong "it is no tmpfs any more"
: 2>/dev/null >/etc/new && wrong "what is not its own can be written to"
unshare --uts true || wrong "it is no root in there"
hostname other || wrong "it may not name its own host"
: 2>/dev/null >/dev/null || wrong "there are no devices"
echo -n ok >"$path.result"
