/* digest: a file's size and 128-bit checksum (XXH3, github.com/Cyan4973/xxHash), for manifests.
 *
 *     digest d;
 *     TRY(digest_file(path, &d));
 *     char hex[33];
 *     printf("%lld %s\n", (long long)d.bytes, digest_hex(&d, hex));
 *
 * It finds damage (bit rot, torn writes, truncation); it is no defence against someone who forges a file. */
#pragma once
#include "base/base.h"

typedef struct digest {
    i64 bytes;
    u64 high, low;
} digest;

/* The digest of BYTES bytes in memory; NULL only with 0 bytes. */
digest digest_memory(const void *data, size_t bytes);
/* The digest of the file at PATH. ERR_IO when it cannot be read. */
status digest_file(const char *path, digest *out) MUST;
/* 32 lower-case hexadecimal digits of the checksum, into the caller's buffer, which is returned. */
const char *digest_hex(const digest *d, char out[33]);
bool digest_equal(const digest *a, const digest *b);
