#!/bin/bash
# A loop that forks and sleeps: every line comes from a subshell of its own.
# usage: loop.sh PATH
path=$1
n=0
while [ ! -e "$path.check" ]; do
    line=$(echo "$n $(printf 'x%.0s' 1 2 3)")
    echo "$line" >>"$path"
    n=$((n + 1))
    sleep 0.05 || { echo "sleep failed with $?" >"$path.result"; exit 1; }
done
if [ "$(wc -l <"$path")" = "$n" ]; then echo -n ok >"$path.result"; else echo "wrote $n lines" >"$path.result"; fi
