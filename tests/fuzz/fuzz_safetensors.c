/* A safetensors file: every array's first and last byte is within it. */
#include "format/safetensors.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    st_file *f;
    volatile int sum = 0;
    status s = st_open_memory("x.safetensors", data, n, &f);
    for (i64 i = 0; !s && i < st_count(f); i++) {
        const st_entry *e = st_at(f, i);
        const u8 *p = e->data;
        if (e->bytes) sum += p[0] + p[e->bytes - 1];
        if (st_entry_bytes(e) != e->bytes || st_find(f, e->name) != e) abort();
    }
    if (!s) st_close(f);
    status_drop(s);
    return 0;
}
