#!/bin/bash
# A pipeline of three children with a background job beside it: numbers are made, doubled and written, one a line.
# usage: pipeline.sh PATH
path=$1
make() {
    local n=0
    while [ ! -e "$path.check" ]; do
        echo $n
        n=$((n + 1))
        sleep 0.02
    done
}
double() {
    local n
    while read -r n; do echo "$n $((n * 2))"; done
}
write() {
    local line
    while read -r line; do echo "$line" >>"$path"; done
}
sleep 1000 &
job=$!
make | double | write
# The job must still be ours, running, and end by what is sent to it.
kill -0 $job || { echo "the background job is gone" >"$path.result"; exit 1; }
kill -TERM $job
wait $job
status=$?
if [ $status = 143 ]; then echo -n ok >"$path.result"; else echo "the job ended with $status" >"$path.result"; fi
