/* Checksums of files: see digest.h. */
#include "format/digest.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

digest digest_memory(const void *data, size_t bytes)
{
    XXH128_hash_t h = XXH3_128bits(data, bytes);
    return (digest){(i64)bytes, h.high64, h.low64};
}

/* By read, not by a mapping: a sector that cannot be read is then an error here, not a SIGBUS. */
status digest_file(const char *path, digest *out)
{
    enum { BLOCK = 1 << 18 };
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail(ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    XXH3_state_t *hash = XXH3_createState();
    u8 *block = malloc(BLOCK);
    status s = hash && block ? OK : fail(ERR_MEMORY, "%s: out of memory", path);
    digest d = {0};
    if (!s) XXH3_128bits_reset(hash);
    while (!s) {
        ssize_t n = read(fd, block, BLOCK);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) s = fail(ERR_IO, "%s: cannot read: %s", path, strerror(errno));
        if (n <= 0) break;
        XXH3_128bits_update(hash, block, (size_t)n);
        d.bytes += n;
    }
    if (!s) {
        XXH128_hash_t h = XXH3_128bits_digest(hash);
        *out = (digest){d.bytes, h.high64, h.low64};
    }
    if (hash) XXH3_freeState(hash);
    free(block);
    close(fd);
    return s;
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
