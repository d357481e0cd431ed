/* fuzz: what the fuzz targets share. A target is one file, fuzz_NAME.c, with libFuzzer's entry:
 *
 *     int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
 *     {
 *         const char *path = fuzz_file("x.jsonl", data, n);        // for what is read by name
 *         status_drop(thing_open(path, &thing));                   // any status is fine; a crash is not
 *         return 0;
 *     }
 *
 * scripts/fuzz.sh builds them all with libFuzzer where clang is; with gcc they are built with driver.c
 * instead, which runs files, or changes of the seeds in tests/fuzz/seeds/NAME. CTest runs the latter for a
 * moment. */
#pragma once
#include "base/base.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* A file NAME of this process with the N bytes at DATA; overwritten by the next call. Aborts when it cannot
 * be written: the target would test nothing. */
static inline const char *fuzz_file(const char *name, const uint8_t *data, size_t n)
{
    static char folder[64], path[160];
    if (!folder[0]) snprintf(folder, sizeof folder, "/tmp/keel-fuzz-XXXXXX");
    if (folder[15] == 'X' && !mkdtemp(folder)) abort();
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f)) abort();
    return path;
}
