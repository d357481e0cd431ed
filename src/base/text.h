/* text: growing strings, numbers with units, and the nearest known name.
 *
 *     text t = {0};
 *     text_add(&t, "%d tokens", n);
 *     puts(t.data);
 *     text_free(&t);
 */
#pragma once
#include "base/base.h"

typedef struct text {
    char *data; // zero-terminated once anything was added
    size_t bytes, capacity;
} text;
void text_add(text *t, const char *format, ...) PRINTF(2, 3); // aborts the process only when memory is gone
void text_add_bytes(text *t, const char *p, size_t n);
void text_free(text *t);

/* "10M", "32Ki", "2.5G", "1e17": k M G T = 10^3n, Ki Mi Gi Ti = 2^10n. False unless all of S is such a
 * number. */
bool parse_count(const char *s, double *out);
bool parse_i64(const char *s, i64 *out);       // decimal, whole string, no overflow
bool parse_double(const char *s, double *out); // whole string, finite
/* "90 s", "4 min", "2 h", "1 d": seconds. */
bool parse_duration(const char *s, double *seconds);

/* The entry of NAMES (n of them) nearest to S by edit distance, or NULL when none is near (over a third
 * differs). */
const char *nearest_name(const char *s, const char *const *names, i64 n);

/* 12345678 -> "12.3 M", into a caller's buffer of 32 bytes; bytes -> "3.4 GiB"; seconds -> "4 min 05 s". */
const char *show_count(double x, char out[32]);
const char *show_bytes(double bytes, char out[32]);
const char *show_seconds(double seconds, char out[32]);
