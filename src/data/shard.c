/* Shards: see shard.h. Everything here treats a file as hostile until its size, hash, ids and index agree. */
#include "data/shard.h"
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "shards are mapped as they are: little endian");

typedef struct header {
    char magic[8];
    u32 version, width;
    u64 tokens, documents, bytes, tokenizer;
    u32 vocab;
    i32 eos;
    u64 zero;
} header;
_Static_assert(sizeof(header) == 64, "the layout in shard.h");
static const char MAGIC[8] = "KEELTOK\n";
#define REBUILD "build the data again"

int shard_width(i64 vocab) { return vocab <= 65536 ? 2 : 4; }

/* Where each part of a file with these counts starts, and where the file ends. */
typedef struct layout {
    i64 token, start, text_bytes, end;
} layout;

static status lay_out(i64 tokens, i64 documents, i64 width, layout *out)
{
    i64 n;
    out->token = sizeof(header);
    TRY(mul_i64(tokens, width, &n));
    TRY(pad_i64(n, 8, &n));
    TRY(add_i64(out->token, n, &out->start));
    TRY(add_i64(documents, 1, &n));
    TRY(mul_i64(n, 8, &n));
    TRY(add_i64(out->start, n, &out->text_bytes));
    TRY(mul_i64(documents, 8, &n));
    return add_i64(out->text_bytes, n, &out->end);
}

/* ---- reading */

static status check_header(const shard *s, const header *h, shard_info info, layout *at)
{
    const i64 size = (i64)s->map.bytes;
    if (memcmp(h->magic, MAGIC, sizeof MAGIC))
        return fail(ERR_FORMAT, "%s: not a shard of Keel (wrong magic); " REBUILD, s->path);
    if (h->version != 1)
        return fail(ERR_FORMAT, "%s: version %u of the format; this program reads version 1: " REBUILD,
                    s->path, h->version);
    if (h->width != 2 && h->width != 4)
        return fail(ERR_FORMAT, "%s: tokens of %u bytes; 2 or 4 were expected: " REBUILD, s->path, h->width);
    if (h->tokens > INT64_MAX || h->documents > INT64_MAX)
        return fail(ERR_FORMAT, "%s: impossible counts in the header; " REBUILD, s->path);
    TRY(wrap(lay_out((i64)h->tokens, (i64)h->documents, h->width, at), "%s", s->path));
    if (at->end != size)
        return fail(ERR_FORMAT, "%s: %lld bytes long, but its header asks for %lld: %s; " REBUILD, s->path,
                    (long long)size, (long long)at->end,
                    size < at->end ? "truncated" : "something was appended");
    if (h->tokenizer != info.tokenizer || h->vocab != info.vocab || h->eos != info.eos || h->zero)
        return fail(ERR_FORMAT,
                    "%s: made by tokenizer %016llx (%u ids, end of text %d), the manifest says %016llx (%lld "
                    "ids, %d): files of two builds are mixed; " REBUILD,
                    s->path, (unsigned long long)h->tokenizer, h->vocab, h->eos,
                    (unsigned long long)info.tokenizer, (long long)info.vocab, info.eos);
    return OK;
}

static status check_ids(const shard *s, i64 vocab)
{
    u32 worst = 0; // a plain maximum: the compiler vectorises it
    if (s->width == 2)
        for (i64 i = 0; i < s->tokens; i++) worst = MAX(worst, (u32)((const u16 *)s->token)[i]);
    else
        for (i64 i = 0; i < s->tokens; i++) worst = MAX(worst, ((const u32 *)s->token)[i]);
    if (s->tokens && worst >= vocab)
        return fail(
            ERR_FORMAT,
            "%s: token id %u, but the vocabulary has %lld ids: tokenizer and shards do not fit; " REBUILD,
            s->path, worst, (long long)vocab);
    return OK;
}

static status check_index(const shard *s, i32 eos)
{
    u64 bytes = 0;
    bool good = s->start[0] == 0 && s->start[s->documents] == (u64)s->tokens;
    for (i64 i = 0; good && i < s->documents; i++) {
        u64 from = s->start[i], to = s->start[i + 1];
        i32 last = -1;
        good = from < to && to <= (u64)s->tokens && !__builtin_add_overflow(bytes, s->text_bytes[i], &bytes);
        if (good) shard_read(s, (i64)to - 1, 1, &last);
        good = good && last == eos;
    }
    if (!good || bytes != (u64)s->bytes)
        return fail(ERR_FORMAT, "%s: its index of documents is inconsistent; " REBUILD, s->path);
    return OK;
}

static status map_and_check(shard *s, shard_info info, u64 hash)
{
    TRY(file_map_open(s->path, &s->map));
    if (s->map.bytes < sizeof(header))
        return fail(ERR_FORMAT, "%s: %zu bytes long, shorter than a header (64): truncated; " REBUILD,
                    s->path, s->map.bytes);
    header h;
    layout at;
    memcpy(&h, s->map.data, sizeof h);
    TRY(check_header(s, &h, info, &at));
    u64 found = XXH3_64bits(s->map.data, s->map.bytes);
    if (found != hash)
        return fail(ERR_FORMAT,
                    "%s: its checksum is %016llx, the manifest says %016llx: the file is damaged; " REBUILD,
                    s->path, (unsigned long long)found, (unsigned long long)hash);
    s->tokens = (i64)h.tokens, s->documents = (i64)h.documents, s->bytes = (i64)h.bytes,
    s->width = (int)h.width;
    s->token = s->map.data + at.token;
    s->start = (const u64 *)(s->map.data + at.start);
    s->text_bytes = (const u64 *)(s->map.data + at.text_bytes);
    TRY(check_ids(s, info.vocab));
    return check_index(s, info.eos);
}

status shard_open(const char *path, shard_info info, u64 hash, shard *out)
{
    *out = (shard){.path = strdup(path)};
    if (!out->path) return fail(ERR_MEMORY, "%s: out of memory", path);
    status s = map_and_check(out, info, hash);
    if (s) shard_close(out);
    return s;
}

void shard_close(shard *s)
{
    file_map_close(&s->map);
    free(s->path);
    *s = (shard){0};
}

void shard_read(const shard *s, i64 at, i64 n, i32 *out)
{
    if (s->width == 2)
        for (i64 i = 0; i < n; i++) out[i] = ((const u16 *)s->token)[at + i];
    else
        for (i64 i = 0; i < n; i++) out[i] = (i32)((const u32 *)s->token)[at + i];
}

i64 shard_document_after(const shard *s, i64 at)
{
    i64 low = 0, high = s->documents; // start[high] > at holds, for start[documents] = tokens
    while (low < high) {
        i64 middle = low + (high - low) / 2;
        if ((i64)s->start[middle] > at)
            high = middle;
        else
            low = middle + 1;
    }
    return (i64)s->start[high];
}

/* ---- writing */

typedef struct column {
    u8 *data;
    size_t bytes, capacity;
} column;

struct shard_builder {
    int width;
    i64 tokens, documents, bytes;
    column token, start, text_bytes;
};

/* Room for N more bytes, not yet counted. */
static status reserve(column *c, size_t n, void *out_pointer)
{
    memset(out_pointer, 0, sizeof(void *));
    if (c->bytes + n > c->capacity) {
        size_t capacity = MAX(c->bytes + n, MAX(c->capacity * 2, (size_t)1 << 16));
        u8 *bigger = fault_hit(FAULT_ALLOC) ? NULL : realloc(c->data, capacity);
        if (!bigger)
            return fail(ERR_MEMORY, "a shard: cannot allocate %.1f MiB", (double)capacity / (1 << 20));
        c->data = bigger, c->capacity = capacity;
    }
    u8 *p = c->data + c->bytes;
    memcpy(out_pointer, &p, sizeof p);
    return OK;
}

status shard_builder_open(int width, shard_builder **out)
{
    TRY(mem_alloc(sizeof **out, "a shard", out));
    (*out)->width = width;
    return OK;
}

void shard_builder_close(shard_builder *b)
{
    if (!b) return;
    free(b->token.data);
    free(b->start.data);
    free(b->text_bytes.data);
    mem_free(b);
}

i64 shard_builder_tokens(const shard_builder *b) { return b->tokens; }
i64 shard_builder_documents(const shard_builder *b) { return b->documents; }
i64 shard_builder_bytes(const shard_builder *b) { return b->bytes; }

status shard_add(shard_builder *b, const i32 *ids, i64 n, i32 eos, i64 text_bytes)
{
    u8 *token;
    u64 *start, *bytes;
    const size_t added = (size_t)(n + 1) * (size_t)b->width;
    TRY(reserve(&b->token, added, &token));
    TRY(reserve(&b->start, sizeof *start, &start));
    TRY(reserve(&b->text_bytes, sizeof *bytes, &bytes));
    if (b->width == 2) {
        for (i64 i = 0; i < n; i++) ((u16 *)token)[i] = (u16)ids[i];
        ((u16 *)token)[n] = (u16)eos;
    } else {
        if (n) memcpy(token, ids, (size_t)n * 4);
        memcpy(token + n * 4, &eos, 4);
    }
    *start = (u64)b->tokens, *bytes = (u64)text_bytes;
    b->token.bytes += added, b->start.bytes += 8, b->text_bytes.bytes += 8;
    b->tokens += n + 1, b->documents++, b->bytes += text_bytes;
    return OK;
}

/* Writes and hashes in one go. On failure W is gone. */
static status put(file_writer *w, XXH3_state_t *hash, const void *data, size_t bytes)
{
    if (bytes) XXH3_64bits_update(hash, data, bytes);
    return file_write(w, data, bytes);
}

status shard_write(shard_builder *b, const char *path, shard_info info, u64 *hash)
{
    header h = {.version = 1,
                .width = (u32)b->width,
                .tokens = (u64)b->tokens,
                .documents = (u64)b->documents,
                .bytes = (u64)b->bytes,
                .tokenizer = info.tokenizer,
                .vocab = (u32)info.vocab,
                .eos = info.eos};
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    const u64 end = (u64)b->tokens, zero = 0;
    const size_t padding = (size_t)(-(i64)b->token.bytes & 7);
    XXH3_state_t *state = XXH3_createState();
    if (!state) return fail(ERR_MEMORY, "%s: out of memory", path);
    XXH3_64bits_reset(state);
    file_writer *w = NULL;
    status s = file_create(path, &w);
    if (!s) s = put(w, state, &h, sizeof h);
    if (!s) s = put(w, state, b->token.data, b->token.bytes);
    if (!s) s = put(w, state, &zero, padding);
    if (!s) s = put(w, state, b->start.data, b->start.bytes);
    if (!s) s = put(w, state, &end, sizeof end);
    if (!s) s = put(w, state, b->text_bytes.data, b->text_bytes.bytes);
    if (!s) s = file_commit(w);
    *hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    b->tokens = b->documents = b->bytes = 0;
    b->token.bytes = b->start.bytes = b->text_bytes.bytes = 0;
    return s;
}
