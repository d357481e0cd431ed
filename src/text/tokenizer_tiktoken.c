/* Reading .tiktoken files: see tokenizer.h.
 *
 * A line is "base64(bytes) rank", a rank is an id. A pair of tokens merges when its bytes joined are a token,
 * at that token's rank; as a list of merges: for every token, each way to cut it into two tokens, in order of
 * (rank, left, right). A piece that is a token is that token, whether merging reaches it or not. The file
 * names neither pattern nor special tokens; both are known for the families in wide use, told apart by their
 * number of ranks. */
#include "base/text.h"
#include "text/grow.h"
#include "text/tokenizer.h"
#include "text/tokenizer_impl.h"
#include "text/word_count.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TOKEN_BYTES = 1024, LLAMA3_SPECIALS = 256 }; // cutting a token of n bytes takes n^2 time

typedef struct known_special {
    const char *content;
    i32 id;
} known_special;

static const known_special r50k[] = {{"<|endoftext|>", 50256}, {0}};
static const known_special cl100k[] = {{"<|endoftext|>", 100257},   {"<|fim_prefix|>", 100258},
                                       {"<|fim_middle|>", 100259},  {"<|fim_suffix|>", 100260},
                                       {"<|endofprompt|>", 100276}, {0}};
static const known_special o200k[] = {{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}, {0}};
static const known_special qwen[] = {
    {"<|endoftext|>", 151643}, {"<|im_start|>", 151644}, {"<|im_end|>", 151645}, {0}};

static const struct family {
    i64 ranks;
    const char *name, *pattern;
    const known_special *special; // NULL: Llama 3's 256, made by llama3_special
    bool nfc;
} families[] = {
    {50256, "r50k", "gpt2", r50k, false},        {50280, "p50k", "gpt2", r50k, false},
    {100256, "cl100k", "cl100k", cl100k, false}, {199998, "o200k", "o200k", o200k, false},
    {128000, "Llama 3", "llama3", NULL, false},  {151643, "Qwen", "qwen2", qwen, true},
};

typedef struct entry {
    u8 *bytes;
    i32 rank;
    u32 length;
} entry;

typedef struct ranks {
    const char *name;
    arena *a;
    entry *entry; // in order of rank
    i64 count;
    size_t capacity;
    i32 *slot; // open addressing: bytes -> index of an entry; -1 is free
    u64 mask;
    merge_rule *merge;
    i64 merges;
    size_t merge_capacity;
} ranks;

/* ---- lines */

static int sextet(u8 c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

/* The bytes of N characters of base64 into OUT (room for 3 N / 4): how many, or -1. */
static i64 base64(const char *s, size_t n, u8 *out)
{
    size_t used = n, bytes = 0;
    while (used && n - used < 2 && s[used - 1] == '=') used--;
    if (n % 4 || !used) return -1;
    u32 bits = 0;
    int have = 0;
    for (size_t i = 0; i < used; i++) {
        int six = sextet((u8)s[i]);
        if (six < 0) return -1;
        bits = bits << 6 | (u32)six, have += 6;
        if (have >= 8) have -= 8, out[bytes++] = (u8)(bits >> have);
        bits &= (1u << have) - 1;
    }
    return bits ? -1 : (i64)bytes; // bits left over are zero in honest base64
}

static status add_line(ranks *r, const char *s, size_t n, i64 line)
{
    char number[16];
    const char *blank = memchr(s, ' ', n);
    size_t encoded = blank ? (size_t)(blank - s) : 0, digits = blank ? n - encoded - 1 : 0;
    i64 rank;
    if (digits && digits < sizeof number) memcpy(number, blank + 1, digits);
    number[digits < sizeof number ? digits : 0] = 0;
    if (!encoded || !parse_i64(number, &rank))
        return fail(ERR_FORMAT, "%s:%lld: '%.*s' is no \"base64 rank\"", r->name, (long long)line,
                    (int)MIN(n, 60), s);
    if (rank < 0 || rank >= MAX_VOCAB)
        return fail(ERR_FORMAT, "%s:%lld: the rank %lld; ranks are 0 to %d", r->name, (long long)line,
                    (long long)rank, MAX_VOCAB - 1);
    if (encoded / 4 * 3 > MOST_TOKEN_BYTES)
        return fail(ERR_FORMAT, "%s:%lld: a token of %zu bytes; at most %d", r->name, (long long)line,
                    encoded / 4 * 3, MOST_TOKEN_BYTES);
    u8 *bytes = arena_alloc(r->a, encoded / 4 * 3 + 3);
    i64 length = base64(s, encoded, bytes);
    if (length <= 0)
        return fail(ERR_FORMAT, "%s:%lld: '%.*s' is no base64", r->name, (long long)line,
                    (int)MIN(encoded, 60), s);
    TRY(grow(&r->entry, &r->capacity, (size_t)r->count + 1, sizeof(entry), "ranks"));
    r->entry[r->count++] = (entry){bytes, (i32)rank, (u32)length};
    return OK;
}

static status read_lines(ranks *r, const char *data, size_t n)
{
    i64 line = 1;
    for (size_t at = 0; at < n; line++) {
        const char *end = memchr(data + at, '\n', n - at);
        size_t bytes = end ? (size_t)(end - data) - at : n - at, next = at + bytes + 1;
        if (bytes && data[at + bytes - 1] == '\r') bytes--;
        if (bytes) TRY(add_line(r, data + at, bytes, line));
        at = next;
    }
    return r->count ? OK : fail(ERR_FORMAT, "%s: no line \"base64 rank\" in it", r->name);
}

bool tokenizer_is_tiktoken(const char *data, size_t n)
{
    const char *end = n ? memchr(data, '\n', n) : NULL;
    size_t bytes = end ? (size_t)(end - data) : n;
    const char *blank = bytes ? memchr(data, ' ', bytes) : NULL;
    if (!blank || blank == data || blank + 1 == data + bytes) return false;
    for (const char *p = data; p < blank; p++)
        if (sextet((u8)*p) < 0 && *p != '=') return false;
    for (const char *p = blank + 1; p < data + bytes; p++)
        if (!(*p >= '0' && *p <= '9') && *p != '\r') return false;
    return true;
}

/* ---- merges */

static i64 find(const ranks *r, const u8 *bytes, size_t n, u64 *free_slot)
{
    u64 at = word_hash(bytes, n) & r->mask;
    for (; r->slot[at] >= 0; at = (at + 1) & r->mask) {
        const entry *e = &r->entry[r->slot[at]];
        if (e->length == n && !memcmp(e->bytes, bytes, n)) return r->slot[at];
    }
    if (free_slot) *free_slot = at;
    return -1;
}

static int by_rank(const void *a, const void *b)
{
    i32 x = ((const entry *)a)->rank, y = ((const entry *)b)->rank;
    return (x > y) - (x < y);
}

static status index_entries(ranks *r)
{
    qsort(r->entry, (size_t)r->count, sizeof *r->entry, by_rank);
    u64 slots = bpe_slots_for(r->count);
    r->slot = arena_array(r->a, i32, slots);
    r->mask = slots - 1;
    memset(r->slot, -1, slots * sizeof *r->slot);
    for (i64 i = 0; i < r->count; i++) {
        u64 at;
        if (i && r->entry[i].rank == r->entry[i - 1].rank)
            return fail(ERR_FORMAT, "%s: two tokens have the rank %d", r->name, r->entry[i].rank);
        i64 other = find(r, r->entry[i].bytes, r->entry[i].length, &at);
        if (other >= 0)
            return fail(ERR_FORMAT, "%s: the ranks %d and %d are of one token", r->name, r->entry[other].rank,
                        r->entry[i].rank);
        r->slot[at] = (i32)i;
    }
    return OK;
}

static int by_halves(const void *a, const void *b)
{
    const merge_rule *x = a, *y = b;
    return x->left != y->left ? (x->left > y->left) - (x->left < y->left)
                              : (x->right > y->right) - (x->right < y->right);
}

static status list_merges(ranks *r)
{
    for (i64 i = 0; i < r->count; i++) {
        const entry *e = &r->entry[i];
        i64 first = r->merges;
        for (u32 cut = 1; cut < e->length; cut++) {
            i64 left = find(r, e->bytes, cut, NULL);
            i64 right = left < 0 ? -1 : find(r, e->bytes + cut, e->length - cut, NULL);
            if (right < 0) continue;
            TRY(grow(&r->merge, &r->merge_capacity, (size_t)r->merges + 1, sizeof(merge_rule), "merges"));
            r->merge[r->merges++] = (merge_rule){r->entry[left].rank, r->entry[right].rank, e->rank};
        }
        if (r->merges - first > 1)
            qsort(r->merge + first, (size_t)(r->merges - first), sizeof *r->merge, by_halves);
    }
    return OK;
}

/* ---- special tokens */

/* Llama 3 calls ten of its 256 by name, the others by number. */
static void llama3_special(i64 i, char out[48])
{
    static const char *const named[] = {"begin_of_text",   "end_of_text",   NULL, NULL,    NULL, NULL,
                                        "start_header_id", "end_header_id", NULL, "eot_id"};
    i64 before = i < 6 ? 2 : i < 9 ? 4 : 5; // reserved tokens are numbered past the named ones
    if (i < COUNT(named) && named[i])
        snprintf(out, 48, "<|%s|>", named[i]);
    else
        snprintf(out, 48, "<|reserved_special_token_%lld|>", (long long)(i - before));
}

static i64 special_count(const struct family *f, const tiktoken_options *o)
{
    i64 n = 0;
    if (!f) return o->special_count;
    if (!f->special) return LLAMA3_SPECIALS;
    while (f->special[n].content) n++;
    return n;
}

static status add_specials(tokenizer *t, const struct family *f, const tiktoken_options *o, i32 next,
                           const char *name)
{
    for (i64 i = 0; i < t->added_count; i++) {
        char made[48];
        const char *content = !f ? o->specials[i] : f->special ? f->special[i].content : made;
        i32 id = f && f->special ? f->special[i].id : next + (i32)i;
        if (f && !f->special) llama3_special(i, made);
        if (!*content) return fail(ERR_CONFIG, "a special token is empty: give it a spelling");
        if (t->token[id].data)
            return fail(ERR_FORMAT, "%s: the rank %d is that of the special token %s", name, id, content);
        for (i64 j = 0; j < i; j++)
            if (!strcmp(t->added[j].content, content))
                return fail(ERR_CONFIG, "special token '%s' is given twice", content);
        t->added[i] = (added_token){
            .id = id, .special = true, .content = arena_strdup(t->a, content), .bytes = strlen(content)};
        t->token[id] = (token_bytes){t->added[i].content, t->added[i].bytes};
    }
    return OK;
}

static status build(ranks *r, const struct family *f, const tiktoken_options *o, tokenizer **out)
{
    tokenizer *t;
    i64 specials = special_count(f, o), vocab = r->entry[r->count - 1].rank + 1;
    i32 next = (i32)vocab;
    if (f && f->special)
        vocab = MAX(vocab, f->special[specials - 1].id + 1);
    else
        vocab += specials;
    if (vocab > MAX_VOCAB)
        return fail(ERR_FORMAT, "%s: more than %d ids with the special tokens", r->name, MAX_VOCAB);
    TRY(tokenizer_new(vocab, r->merges, specials, &t));
    for (i64 i = 0; i < r->count; i++) {
        const entry *e = &r->entry[i];
        t->token[e->rank] = (token_bytes){arena_copy(t->a, e->bytes, e->length), e->length};
        t->spelled[e->rank] = SPELLED_ALPHABET;
    }
    if (r->merges) memcpy(t->merge, r->merge, (size_t)r->merges * sizeof *t->merge);
    t->whole_piece = true, t->nfc = f && f->nfc;
    status s = add_specials(t, f, o, next, r->name);
    if (!s) s = tokenizer_add_stage(t, f ? f->pattern : o->pattern, NULL);
    if (!s) s = tokenizer_make_shell(t);
    if (!s) s = tokenizer_finish(t, r->name);
    if (s)
        tokenizer_close(t);
    else
        *out = t;
    return s;
}

static status find_family(const ranks *r, const struct family **out)
{
    text known = {0};
    for (i64 i = 0; i < COUNT(families); i++) {
        if (families[i].ranks == r->count) *out = &families[i];
        text_add(&known, "%s%s %lld", i ? ", " : "", families[i].name, (long long)families[i].ranks);
    }
    status s = OK;
    if (!*out)
        s = fail(ERR_FORMAT,
                 "%s: %lld ranks are no family Keel knows (%s): make a tokenizer.json with 'keel tokenizer "
                 "convert "
                 "--pattern NAME --special TOKEN'",
                 r->name, (long long)r->count, known.data);
    text_free(&known);
    return s;
}

status tokenizer_parse_tiktoken(const char *data, size_t n, const char *name, const tiktoken_options *o,
                                tokenizer **out)
{
    ranks r = {.name = name};
    const struct family *f = NULL;
    TRY(arena_open(&r.a));
    status s = read_lines(&r, data, n);
    if (!s && !o->pattern) s = find_family(&r, &f);
    if (!s) s = index_entries(&r);
    if (!s) s = list_merges(&r);
    if (!s) s = build(&r, f, o, out);
    mem_free(r.entry);
    mem_free(r.merge);
    arena_close(r.a);
    return s;
}
