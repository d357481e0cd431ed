/* Splitting and normalizing any bytes: nothing is lost by a splitter, and NFC of NFC changes nothing. */
#include "base/text.h"
#include "fuzz.h"
#include "text/nfc.h"
#include "text/pattern.h"
#include <string.h>

static void split(const pattern *p, const uint8_t *data, size_t n)
{
    splitter *s;
    size_t at = 0, bytes = 1;
    const u8 *piece;
    if (splitter_open(p, &s)) abort();
    splitter_start(s, data, n);
    while (bytes) {
        status failed = splitter_next(s, &piece, &bytes);
        if (failed || (bytes && piece != data + at)) abort();
        at += bytes;
    }
    if (at != n) abort();
    splitter_close(s);
}

static void normalize(const uint8_t *data, size_t n)
{
    text once = {0}, twice = {0};
    const char *p = (const char *)data;
    if (nfc_normalize(&p, &n, &once)) abort();
    const char *q = p;
    size_t m = n;
    if (nfc_normalize(&q, &m, &twice) || m != n || memcmp(p, q, n)) abort();
    text_free(&once);
    text_free(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static pattern *known[8];
    for (i64 i = 0; i < pattern_count() && i < 8; i++) {
        if (!known[i] && pattern_open(pattern_at(i)->name, &known[i])) abort();
        split(known[i], data, n);
    }
    if (n < 4096) normalize(data, n); // longer runs may be normalized in parts
    return 0;
}
