/*
 * Allocates and frees, a line a step: for valgrind, which watches each of them and must find no error and nothing lost.
 * usage: heap PATH
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCKS = 256 };

static char *blocks[BLOCKS];
static size_t sizes[BLOCKS];

static int is_whole(int number)
{
	for (size_t at = 0; at < sizes[number]; at++)
		if (blocks[number][at] != (char)(number + at))
			return 0;
	return 1;
}

int main(int argc, char **argv)
{
	char name[4096];
	const char *verdict = "ok";
	struct timespec pause = { 0, 20000000 };
	if (argc != 2)
		return 2;
	FILE *out = fopen(argv[1], "a");
	if (!out)
		return 2;
	snprintf(name, sizeof name, "%s.check", argv[1]);
	for (unsigned line = 0; access(name, F_OK); line++) {
		for (int number = line % 7; number < BLOCKS; number += 7) {
			if (!is_whole(number))
				verdict = "a block changed";
			free(blocks[number]);
			sizes[number] = 16 + (line * 131 + number * 17) % 3000;
			blocks[number] = malloc(sizes[number]);
			for (size_t at = 0; at < sizes[number]; at++)
				blocks[number][at] = (char)(number + at);
		}
		fprintf(out, "%u\n", line);
		fflush(out);
		nanosleep(&pause, NULL);
	}
	for (int number = 0; number < BLOCKS; number++) {
		if (!is_whole(number))
			verdict = "a block changed";
		free(blocks[number]);
	}
	fclose(out);
	snprintf(name, sizeof name, "%s.result", argv[1]);
	out = fopen(name, "w");
	if (!out)
		return 2;
	fputs(verdict, out);
	fclose(out);
	return strcmp(verdict, "ok") ? 1 : 0;
}
