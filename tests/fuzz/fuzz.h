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
#include "base/file.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char fuzz_folder[64];
static inline void fuzz_clean(void) { status_drop(tree_remove(fuzz_folder)); }

/* A file NAME of this process with the N bytes at DATA; overwritten by the next call. Aborts when it cannot
 * be written: the target would test nothing. */
static inline const char *fuzz_file(const char *name, const uint8_t *data, size_t n)
{
    static char path[160];
    if (!fuzz_folder[0]) {
        snprintf(fuzz_folder, sizeof fuzz_folder, "/tmp/keel-fuzz-XXXXXX");
        if (!mkdtemp(fuzz_folder) || atexit(fuzz_clean)) abort();
    }
    snprintf(path, sizeof path, "%s/%s", fuzz_folder, name);
    FILE *f = fopen(path, "w");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f)) abort();
    return path; // its folder goes when the process ends
}
