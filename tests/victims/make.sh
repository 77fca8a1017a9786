#!/bin/bash
# Builds a program of forty generated files with `make -j4` in PATH.d: a line in PATH for each of 41 objects. It is linked when PATH.check is
# there, and PATH.result says what came of it.
set -eu
path=$1
mkdir -p "$path.d"
cd "$path.d"
{
    for part in {00..39}; do
        {
            for function in {0..59}; do
                echo "int f${part}_$function(int x) { int s = x; for (int i = 0; i < 9; i++) s = s * $((10#$part * 60 + function + 3)) + i; return s; }"
            done
            printf 'int part%s(int x) { return x' "$part"
            for function in {0..59}; do printf ' + f%s_%s(x)' "$part" "$function"; done
            echo '; }'
        } >"part$part.c"
    done
    for part in {00..39}; do echo "int part$part(int);"; done
    echo '#include <stdio.h>'
    echo 'int main(void) { unsigned s = 0;'
    for part in {00..39}; do echo "s = s * 31 + part$part(s & 1023);"; done
    echo 'printf("%u\n", s); return 0; }'
} >main.c
cat >Makefile <<'M'
PARTS := $(patsubst %.c,%.o,$(wildcard *.c))
program: $(PARTS)
	while [ ! -e $(PROGRESS).check ]; do sleep 0.05; done
	gcc -o $@ $(sort $^)
%.o: %.c
	gcc -O1 -fwrapv -c -o $@ $<
	echo $@ >>$(PROGRESS)
M
if make -s -j4 PROGRESS="$path" && ./program >answer; then verdict=ok; else verdict="make or the program failed"; fi
printf '%s' "$verdict" >"$path.new"
mv "$path.new" "$path.result"
