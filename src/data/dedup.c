/* Duplicates: see dedup.h. The hash functions are h_i(x) = (a_i x + b_i) mod (2^61 - 1), with a and b drawn
 * by Philox from seed 1; x is the XXH3 of five words. */
#include "data/dedup.h"
#include "base/random.h"
#include "data/pipe.h"
#include "text/grow.h"
#include "text/word_break.h"
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

static const u64 PRIME = ((u64)1 << 61) - 1;

/* What is compared: the 128 bits of exact, or a hash a band. */
typedef struct key {
    u64 part[DEDUP_BANDS];
} key;

struct deduper {
    bool near;
    int parts; // of a key: 2 or DEDUP_BANDS
    int threads;
    key *slot;              // [PIPE_DOCUMENTS]
    dedup_scratch *scratch; // [threads]
    u64 a[DEDUP_HASHES], b[DEDUP_HASHES];
    u64 *kept; // [count][parts]
    i64 count;
    size_t capacity;
};

/* ---- exact */

static status squeezed_hash(const u8 *text, i64 n, dedup_scratch *scratch, key *out)
{
    TRY(grow(&scratch->text, &scratch->text_capacity, (size_t)n, 1, "a text"));
    i64 length = 0;
    for (i64 i = 0; i < n;) {
        u8 c = text[i];
        size_t blank = c > ' ' && c < 0x80 ? 0 : text_is_blank(text + i, (size_t)(n - i));
        if (!blank)
            scratch->text[length++] = c, i++;
        else {
            if (length && scratch->text[length - 1] != ' ') scratch->text[length++] = ' ';
            i += (i64)blank;
        }
    }
    if (length && scratch->text[length - 1] == ' ') length--;
    XXH128_hash_t h = XXH3_128bits(scratch->text, (size_t)length);
    out->part[0] = h.low64, out->part[1] = h.high64;
    return OK;
}

/* ---- MinHash */

static u64 mod_prime(u64 x)
{
    x = (x & PRIME) + (x >> 61);
    return x >= PRIME ? x - PRIME : x;
}

static u64 multiply_add(u64 a, u64 x, u64 b)
{
    unsigned __int128 y = (unsigned __int128)a * x;
    return mod_prime(mod_prime((u64)(y & PRIME) + (u64)(y >> 61)) + b);
}

/* a_i in [1, p), b_i in [0, p). */
static void hash_functions(u64 a[DEDUP_HASHES], u64 b[DEDUP_HASHES])
{
    const u64 stream = random_stream("data/minhash");
    for (int i = 0; i < DEDUP_HASHES; i++) {
        a[i] = 1 + random_bits(1, stream, 0, (u64)i) % (PRIME - 1);
        b[i] = random_bits(1, stream, 1, (u64)i) % PRIME;
    }
}

/* The next word at *at, lower case and without punctuation, hashed; false behind the last. */
static bool next_word(const u8 *text, i64 n, i64 *at, dedup_scratch *scratch, u64 *hash)
{
    i64 length = 0;
    for (size_t bytes; *at < n; *at += (i64)bytes) {
        const u8 *p = text + *at;
        bytes = 1;
        if (*p < 0x80) {
            if (*p <= ' ' && length) break;
            bool letter = (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9');
            if (letter || (*p >= 'A' && *p <= 'Z')) scratch->text[length++] = letter ? *p : *p | 32;
            continue;
        }
        u32 c = utf8_decode(p, (size_t)(n - *at), &bytes);
        if (text_is_blank(p, (size_t)(n - *at))) {
            if (length) break;
        } else if (c == 0xFFFD || text_is_word(p, (size_t)(n - *at))) {
            u8 lower[4]; // lower case may be longer; what does not fit its place is kept as it is
            i64 k = c == 0xFFFD ? 0 : (i64)utf8proc_encode_char(utf8proc_tolower((utf8proc_int32_t)c), lower);
            bool fits = k > 0 && k <= (i64)bytes;
            memcpy(scratch->text + length, fits ? lower : p, fits ? (size_t)k : bytes);
            length += fits ? k : (i64)bytes;
        }
    }
    *hash = XXH3_64bits(scratch->text, (size_t)length);
    return length > 0;
}

static status words_of(const u8 *text, i64 n, bool tokens, dedup_scratch *scratch, i64 *count)
{
    *count = 0;
    if (tokens) {
        TRY(grow(&scratch->word, &scratch->capacity, (size_t)(n / 4) + 1, sizeof(u64), "words"));
        for (; *count < n / 4; ++*count) scratch->word[*count] = XXH3_64bits(text + 4 * *count, 4);
        return OK;
    }
    TRY(grow(&scratch->text, &scratch->text_capacity, (size_t)n + 4, 1, "a text"));
    u64 hash;
    for (i64 at = 0; next_word(text, n, &at, scratch, &hash);) {
        TRY(grow(&scratch->word, &scratch->capacity, (size_t)*count + 1, sizeof(u64), "words"));
        scratch->word[(*count)++] = hash;
    }
    return OK;
}

static status signature(const u8 *text, i64 bytes, bool tokens, dedup_scratch *scratch, const u64 *a,
                        const u64 *b, u64 *out)
{
    i64 words;
    TRY(words_of(text, bytes, tokens, scratch, &words));
    if (!words) { // without any word a text is like its equals alone
        TRY(grow(&scratch->word, &scratch->capacity, 1, sizeof(u64), "words"));
        scratch->word[words++] = XXH3_64bits(text, (size_t)bytes);
    }
    for (int i = 0; i < DEDUP_HASHES; i++) out[i] = PRIME;
    const i64 run = MIN(words, (i64)DEDUP_WORDS), runs = words - run + 1; // a short text is one run
    for (i64 k = 0; k < runs; k++) {
        const u64 x = mod_prime(XXH3_64bits(scratch->word + k, (size_t)run * sizeof(u64)));
        for (int i = 0; i < DEDUP_HASHES; i++) out[i] = MIN(out[i], multiply_add(a[i], x, b[i]));
    }
    return OK;
}

status minhash_of(const u8 *text, i64 bytes, bool tokens, dedup_scratch *scratch, u64 out[DEDUP_HASHES])
{
    u64 a[DEDUP_HASHES], b[DEDUP_HASHES];
    hash_functions(a, b);
    return signature(text, bytes, tokens, scratch, a, b, out);
}

/* ---- the whole */

status deduper_open(const char *kind, int threads, deduper **out)
{
    *out = NULL;
    if (!kind || !strcmp(kind, "none")) return OK;
    bool near = !strcmp(kind, "minhash");
    if (!near && strcmp(kind, "exact"))
        return fail(ERR_CONFIG, "dedup is '%s'; it must be none, exact or minhash", kind);
    deduper *d;
    TRY(mem_alloc(sizeof *d, "finding duplicates", &d));
    d->near = near, d->parts = near ? DEDUP_BANDS : 2;
    hash_functions(d->a, d->b);
    d->threads = threads > 0 ? threads : omp_get_max_threads();
    status s = mem_alloc(PIPE_DOCUMENTS * sizeof *d->slot, "finding duplicates", &d->slot);
    if (!s) s = mem_alloc((size_t)d->threads * sizeof *d->scratch, "finding duplicates", &d->scratch);
    if (s)
        deduper_close(d);
    else
        *out = d;
    return s;
}

void dedup_scratch_free(dedup_scratch *scratch)
{
    mem_free(scratch->word);
    mem_free(scratch->text);
    *scratch = (dedup_scratch){0};
}

void deduper_close(deduper *d)
{
    if (!d) return;
    for (int i = 0; d->scratch && i < d->threads; i++) dedup_scratch_free(&d->scratch[i]);
    mem_free(d->scratch);
    mem_free(d->slot);
    mem_free(d->kept);
    mem_free(d);
}

status deduper_look(deduper *d, int thread, i64 slot, const u8 *text, i64 bytes, bool tokens)
{
    if (!d->near && !tokens) return squeezed_hash(text, bytes, &d->scratch[thread], &d->slot[slot]);
    if (!d->near) {
        XXH128_hash_t h = XXH3_128bits(text, (size_t)bytes);
        d->slot[slot].part[0] = h.low64, d->slot[slot].part[1] = h.high64;
        return OK;
    }
    u64 out[DEDUP_HASHES];
    TRY(signature(text, bytes, tokens, &d->scratch[thread], d->a, d->b, out));
    for (int band = 0; band < DEDUP_BANDS; band++)
        d->slot[slot].part[band] = XXH3_64bits(out + band * DEDUP_ROWS, DEDUP_ROWS * sizeof(u64));
    return OK;
}

status deduper_keep(deduper *d, i64 slot)
{
    TRY(grow(&d->kept, &d->capacity, (size_t)((d->count + 1) * d->parts), sizeof(u64), "finding duplicates"));
    memcpy(d->kept + d->count++ * d->parts, d->slot[slot].part, (size_t)d->parts * sizeof(u64));
    return OK;
}

typedef struct entry {
    u64 low, high;
    i64 document;
} entry;

static int by_key(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->low != y->low) return x->low < y->low ? -1 : 1;
    if (x->high != y->high) return x->high < y->high ? -1 : 1;
    return (x->document > y->document) - (x->document < y->document);
}

static i64 root(i64 *parent, i64 i)
{
    for (; parent[i] != i; i = parent[i]) parent[i] = parent[parent[i]];
    return i;
}

/* Documents with equal entries join; the lowest is a cluster's root. */
static void join_equal(entry *e, i64 n, i64 *parent)
{
    qsort(e, (size_t)n, sizeof *e, by_key);
    for (i64 i = 1; i < n; i++) {
        if (e[i].low != e[i - 1].low || e[i].high != e[i - 1].high) continue;
        i64 a = root(parent, e[i - 1].document), b = root(parent, e[i].document);
        if (a != b) parent[MAX(a, b)] = MIN(a, b);
    }
}

status deduper_finish(deduper *d, u8 **drop)
{
    entry *e = NULL;
    i64 *parent = NULL;
    *drop = NULL;
    const size_t n = (size_t)d->count;
    status s = mem_alloc((n + 1) * sizeof *e, "finding duplicates", &e);
    if (!s) s = mem_alloc((n + 1) * sizeof *parent, "finding duplicates", &parent);
    if (!s) s = mem_alloc(n + 1, "duplicates", drop);
    for (i64 i = 0; !s && i < d->count; i++) parent[i] = i;
    for (int part = 0; !s && part < (d->near ? d->parts : 1); part++) {
        for (i64 i = 0; i < d->count; i++) {
            const u64 *key = d->kept + i * d->parts;
            e[i] = d->near ? (entry){key[part], 0, i} : (entry){key[0], key[1], i};
        }
        join_equal(e, d->count, parent);
    }
    for (i64 i = 0; !s && i < d->count; i++) (*drop)[i] = root(parent, i) != i;
    mem_free(e);
    mem_free(parent);
    return s;
}
