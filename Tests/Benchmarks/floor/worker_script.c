// SPDX-License-Identifier: MPL-2.0
// What a benchmarked worker runs instead of a script, so that next to nothing of what is measured is the script's own time.
//
//   worker_script stamp FILE          appends the time of its start, in nanoseconds since 1970
//   worker_script flood MEGABYTES FILE  prints that much in lines of 87 bytes, appends the nanoseconds it took

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static long long now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int note(const char *path, long long value) {
    char text[32];
    int length = snprintf(text, sizeof text, "%lld\n", value);
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (file < 0 || write(file, text, length) != length) return 1;
    return close(file);
}

int main(int count, char **words) {
    if (count == 3 && !strcmp(words[1], "stamp")) return note(words[2], now(CLOCK_REALTIME));
    if (count != 4 || strcmp(words[1], "flood")) return 2;
    static char block[87 * 1024];
    memset(block, 'x', sizeof block);
    for (size_t end = 86; end < sizeof block; end += 87) block[end] = '\n';
    long long left = atoll(words[2]) << 20, start = now(CLOCK_MONOTONIC);
    while (left > 0) {
        ssize_t written = write(1, block, left < (long long)sizeof block ? (size_t)left : sizeof block);
        if (written <= 0) return 1;
        left -= written;
    }
    return note(words[3], now(CLOCK_MONOTONIC) - start);
}
