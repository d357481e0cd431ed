/* JSONL: a file of records, and each line by itself. */
#include "data/inspect.h"
#include "data/jsonl.h"
#include "fuzz.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *path = fuzz_file("f.jsonl", data, n);
    inspection r;
    u8 *out = malloc(n + 1);
    i64 bytes = 0;
    status s = jsonl_text(data, (i64)n, "text", out, &bytes);
    if (!s && bytes > (i64)n) abort();
    status_drop(s);
    status_drop(jsonl_text(data, (i64)n, "a.b.c", out, &bytes));
    free(out);
    s = data_inspect(&(inspect_options){.path = &path, .paths = 1, .threads = 1, .samples = 2}, &r);
    if (!s) inspection_free(&r);
    status_drop(s);
    return 0;
}
