/* Checksums of files: see digest.h. */
#include "format/digest.h"
#include "base/file.h"
#include <stdio.h>
#include <xxhash.h>

digest digest_memory(const void *data, size_t bytes)
{
    XXH128_hash_t h = XXH3_128bits(data, bytes);
    return (digest){(i64)bytes, h.high64, h.low64};
}

status digest_file(const char *path, digest *out)
{
    file_map map;
    TRY(file_map_open(path, &map));
    *out = digest_memory(map.data, map.bytes);
    file_map_close(&map);
    return OK;
}

const char *digest_hex(const digest *d, char out[33])
{
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)d->high, (unsigned long long)d->low);
    return out;
}

bool digest_equal(const digest *a, const digest *b)
{
    return a->bytes == b->bytes && a->high == b->high && a->low == b->low;
}
