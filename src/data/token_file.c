/* Tokens of llm.c and Megatron-LM: see token_file.h. Sources: llm.c's dev/data/data_common.py and
 * Megatron-LM's indexed_dataset.py, which write these files. */
#include "data/token_file.h"
#include "base/file.h"
#include "base/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LLMC_HEADER = 1024, INDEX_HEADER = 34 };
static const u8 INDEX_MAGIC[9] = "MMIDIDX\0";

struct token_file {
    char *path; // of the tokens
    file_map map, index;
    const u8 *token;
    int width;
    bool is_signed;
    i64 tokens, next;
    // Megatron: documents [document[d], document[d + 1]) of sequences
    const u8 *length, *place, *document;
    i64 sequences, documents, d;
};

static u32 u32_at(const u8 *p) { return (u32)p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24; }
static i64 i64_at(const u8 *p) { return (i64)((u64)u32_at(p + 4) << 32 | u32_at(p)); }

static bool llmc_magic(const u8 *p) { return u32_at(p) == 20240520 || u32_at(p) == 20240801; }

static size_t head_of(const char *path, u8 head[16])
{
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    size_t n = fread(head, 1, 16, f);
    fclose(f);
    return n;
}

static bool is_index(const char *path)
{
    u8 head[16];
    return head_of(path, head) >= 9 && !memcmp(head, INDEX_MAGIC, 9);
}

/* PATH with its ending replaced; NULL when it has another ending. Release with free. */
static char *sibling(const char *path, const char *from, const char *to)
{
    size_t n = strlen(path);
    char *other = n > 4 && !strcmp(path + n - 4, from) ? strdup(path) : NULL;
    if (other) memcpy(other + n - 4, to, 4);
    return other;
}

token_kind token_file_kind(const char *path)
{
    u8 head[16];
    size_t n = strlen(path);
    if (n <= 4 || (strcmp(path + n - 4, ".bin") && strcmp(path + n - 4, ".idx"))) return TOKENS_NONE;
    if (is_index(path)) return TOKENS_INDEX;
    if (head_of(path, head) >= 8 && llmc_magic(head)) return TOKENS_LLMC;
    char *index = sibling(path, ".bin", ".idx");
    bool pair = index && is_index(index);
    free(index);
    return pair ? TOKENS_MEGATRON : TOKENS_NONE;
}

/* ---- llm.c */

static status open_llmc(token_file *f)
{
    const i64 size = (i64)f->map.bytes;
    if (size < LLMC_HEADER)
        return fail(ERR_FORMAT, "%s: %lld bytes, shorter than llm.c's header (1024): truncated?", f->path,
                    (long long)size);
    const u32 magic = u32_at(f->map.data), version = u32_at(f->map.data + 4), count = u32_at(f->map.data + 8);
    f->width = magic == 20240520 ? 2 : 4;
    if (version != (f->width == 2 ? 1 : 7))
        return fail(ERR_FORMAT, "%s: version %u of llm.c's format %u; Keel reads version %d", f->path,
                    version, magic, f->width == 2 ? 1 : 7);
    if (size - LLMC_HEADER != (i64)count * f->width)
        return fail(ERR_FORMAT, "%s: %lld bytes long, but its header counts %u tokens of %d bytes: %s",
                    f->path, (long long)size, count, f->width,
                    size - LLMC_HEADER < (i64)count * f->width ? "truncated" : "something was appended");
    f->token = f->map.data + LLMC_HEADER;
    f->tokens = count;
    return OK;
}

/* ---- Megatron */

static status index_type(token_file *f, const char *path, u8 code)
{
    static const u8 width[9] = {0, 1, 1, 2, 4, 8, 0, 0, 2};
    if (code == 6 || code == 7)
        return fail(ERR_FORMAT, "%s: its tokens are floating-point numbers (type %u)", path, code);
    if (code > 8 || !width[code])
        return fail(ERR_FORMAT, "%s: unknown type %u of tokens; 1 to 5 and 8 are", path, code);
    f->width = width[code], f->is_signed = code >= 2 && code <= 5;
    return OK;
}

static status check_sequences(const token_file *f, const char *path)
{
    i64 before = 0;
    for (i64 i = 0; i < f->sequences; i++) {
        const i64 length = (i32)u32_at(f->length + 4 * i), place = i64_at(f->place + 8 * i);
        if (length < 0 || place != before * f->width || length > f->tokens - before)
            return fail(ERR_FORMAT,
                        "%s: sequence %lld (%lld tokens at byte %lld) does not lie behind the one before it "
                        "and within the %lld tokens of %s",
                        path, (long long)i, (long long)length, (long long)place, (long long)f->tokens,
                        f->path);
        before += length;
    }
    if (before != f->tokens)
        return fail(ERR_FORMAT, "%s: its sequences hold %lld tokens, %s has %lld", path, (long long)before,
                    f->path, (long long)f->tokens);
    for (i64 d = 0; d <= f->documents; d++) {
        const i64 at = i64_at(f->document + 8 * d), from = d ? i64_at(f->document + 8 * (d - 1)) : 0;
        if (at < from || at > f->sequences || (!d && at) || (d == f->documents && at != f->sequences))
            return fail(ERR_FORMAT,
                        "%s: entry %lld of its documents is sequence %lld; they must rise from 0 to %lld",
                        path, (long long)d, (long long)at, (long long)f->sequences);
    }
    return OK;
}

static status open_index(token_file *f, const char *path)
{
    i64 lengths, places, documents, end;
    TRY(file_map_open(path, &f->index));
    const u8 *p = f->index.data;
    const i64 size = (i64)f->index.bytes;
    if (size < INDEX_HEADER)
        return fail(ERR_FORMAT, "%s: %lld bytes, shorter than its header (34): truncated?", path,
                    (long long)size);
    if (memcmp(p, INDEX_MAGIC, 9)) return fail(ERR_FORMAT, "%s: no index of Megatron's (wrong magic)", path);
    if (i64_at(p + 9) != 1)
        return fail(ERR_FORMAT, "%s: version %lld; Keel reads version 1", path, (long long)i64_at(p + 9));
    TRY(index_type(f, path, p[17]));
    f->sequences = i64_at(p + 18), documents = i64_at(p + 26);
    if (f->sequences < 0 || documents < 1)
        return fail(ERR_FORMAT, "%s: impossible counts (%lld sequences, %lld entries of documents)", path,
                    (long long)f->sequences, (long long)documents);
    TRY(wrap(mul_i64(f->sequences, 4, &lengths), "%s", path));
    TRY(wrap(mul_i64(f->sequences, 8, &places), "%s", path));
    TRY(wrap(mul_i64(documents, 8, &end), "%s", path));
    TRY(wrap(add_i64(end, lengths, &end), "%s", path));
    TRY(wrap(add_i64(end, places, &end), "%s", path));
    TRY(wrap(add_i64(end, INDEX_HEADER, &end), "%s", path));
    if (end != size && end != size - f->sequences) // a byte more a sequence: its mode
        return fail(ERR_FORMAT, "%s: %lld bytes long, but its counts ask for %lld: %s", path, (long long)size,
                    (long long)end, size < end ? "truncated" : "something was appended");
    f->length = p + INDEX_HEADER, f->place = f->length + lengths, f->document = f->place + places;
    f->documents = documents - 1;
    if ((i64)f->map.bytes % f->width)
        return fail(ERR_FORMAT, "%s: %zu bytes are no whole number of tokens of %d bytes", f->path,
                    f->map.bytes, f->width);
    f->token = f->map.data, f->tokens = (i64)f->map.bytes / f->width;
    return check_sequences(f, path);
}

/* ---- both */

static status open_parts(token_file *f, const char *path)
{
    char *tokens = sibling(path, ".idx", ".bin"), *index = sibling(path, ".bin", ".idx");
    f->path = strdup(tokens ? tokens : path);
    status s = f->path ? file_map_open(f->path, &f->map) : fail(ERR_MEMORY, "%s: out of memory", path);
    if (!s) {
        bool llmc = !tokens && f->map.bytes >= 8 && llmc_magic(f->map.data);
        s = llmc ? open_llmc(f) : open_index(f, tokens ? path : index ? index : path);
    }
    free(tokens);
    free(index);
    return s;
}

status token_file_open(const char *path, token_file **out)
{
    token_file *f;
    TRY(mem_alloc(sizeof *f, "a file of tokens", &f));
    status s = open_parts(f, path);
    if (s)
        token_file_close(f);
    else
        *out = f;
    return s;
}

void token_file_close(token_file *f)
{
    if (!f) return;
    file_map_close(&f->map);
    file_map_close(&f->index);
    free(f->path);
    mem_free(f);
}

static i32 id_at(const token_file *f, i64 i)
{
    const u8 *p = f->token + i * f->width;
    i64 id = f->width == 1   ? (f->is_signed ? (i64)(int8_t)p[0] : p[0])
             : f->width == 2 ? (f->is_signed ? (i64)(int16_t)(p[0] | p[1] << 8) : p[0] | p[1] << 8)
             : f->width == 4 ? (f->is_signed ? (i64)(i32)u32_at(p) : (i64)u32_at(p))
                             : i64_at(p);
    return id < 0 || id > INT32_MAX ? -1 : (i32)id;
}

void token_file_read(const token_file *f, i64 at, i64 count, i32 *out)
{
    for (i64 i = 0; i < count; i++) out[i] = id_at(f, at + i);
}

static bool is_end(i32 id, const i32 *ends, i64 n)
{
    for (i64 i = 0; i < n; i++)
        if (id == ends[i]) return true;
    return false;
}

/* Where the document at *at ends: at an end token, or where Megatron's index says; *at moves over end tokens.
 */
static i64 document_end(token_file *f, const i32 *ends, i64 n, i64 *at)
{
    i64 stop = f->tokens;
    if (f->index.data) {
        if (f->d == f->documents) return *at = f->tokens;
        i64 last = i64_at(f->document + 8 * ++f->d); // sequences before it
        stop =
            last ? i64_at(f->place + 8 * (last - 1)) / f->width + (i32)u32_at(f->length + 4 * (last - 1)) : 0;
    }
    while (*at < stop && is_end(id_at(f, *at), ends, n)) ++*at;
    i64 end = *at;
    if (f->index.data) { // an end token within is the document's own
        for (end = stop; end > *at && is_end(id_at(f, end - 1), ends, n);) end--;
        f->next = stop;
        return end;
    }
    while (end < stop && !is_end(id_at(f, end), ends, n)) end++;
    f->next = end;
    return end;
}

bool token_file_next(token_file *f, const i32 *ends, i64 n, i64 *at, i64 *count)
{
    while (f->next < f->tokens || (f->index.data && f->d < f->documents)) {
        *at = f->next;
        i64 end = document_end(f, ends, n, at);
        *count = end - *at;
        if (*count > 0) return true;
    }
    return false;
}

i64 token_file_tokens(const token_file *f) { return f->tokens; }
i64 token_file_position(const token_file *f) { return f->next; }
