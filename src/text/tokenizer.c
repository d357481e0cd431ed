/* A tokenizer's tables, identity and small questions: see tokenizer.h. Reading is in tokenizer_read.c,
 * writing in tokenizer_write.c, encoding in encoder.c. */
#define XXH_INLINE_ALL
#include "text/tokenizer.h"
#include "base/text.h"
#include "text/nfc.h"
#include "text/tokenizer_impl.h"
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

status tokenizer_new(i64 vocab, i64 merges, i64 added, tokenizer **out)
{
    arena *a;
    TRY(arena_open(&a));
    tokenizer *t = arena_new(a, tokenizer);
    t->a = a;
    t->vocab = vocab, t->merges = merges, t->added_count = added;
    t->token = arena_array(a, token_bytes, vocab);
    t->spelled = arena_array(a, u8, vocab);
    t->merge = arena_array(a, merge_rule, merges);
    t->added = arena_array(a, added_token, added);
    *out = t;
    return OK;
}

status tokenizer_add_stage(tokenizer *t, const char *name, const char *regex)
{
    if (t->stages == MAX_STAGES) return fail(ERR_FORMAT, "text is cut in more than %d stages", MAX_STAGES);
    split_stage *s = &t->stage[t->stages];
    s->row = regex ? pattern_of_regex(regex) : pattern_named(name);
    if (s->row || !regex)
        TRY(pattern_open(s->row ? s->row->name : name, &s->pattern));
    else {
        TRY(pattern_portable(regex));
        TRY(pattern_compile(regex, &s->pattern));
    }
    s->regex = s->row ? s->row->regex : arena_strdup(t->a, regex);
    t->stages++;
    return OK;
}

void tokenizer_close(tokenizer *t)
{
    if (!t) return;
    for (int i = 0; i < t->stages; i++) pattern_close(t->stage[i].pattern);
    json_decref(t->shell);
    arena_close(t->a);
}

static int by_id(const void *a, const void *b)
{
    i32 x = ((const added_token *)a)->id, y = ((const added_token *)b)->id;
    return (x > y) - (x < y);
}

static void trie_add(trie *t, const char *content, size_t n, i32 index)
{
    i32 at = 0;
    for (size_t i = 0; i < n; i++) {
        u8 byte = (u8)content[i];
        i32 child = t->node[at].child;
        while (child >= 0 && t->node[child].byte != byte) child = t->node[child].sibling;
        if (child < 0) {
            child = t->count++;
            t->node[child] = (trie_node){byte, -1, t->node[at].child, -1};
            t->node[at].child = child;
        }
        at = child;
    }
    t->node[at].added = index;
    t->first[(u8)content[0]] = true;
}

/* A token with normalized = true is looked for in normalized text, so its own spelling is normalized too. */
static status build_tries(tokenizer *t)
{
    text normal = {0};
    for (int pass = 0; pass < 2; pass++) {
        size_t nodes = 1;
        for (i64 i = 0; i < t->added_count; i++) nodes += 3 * t->added[i].bytes; // NFC at most triples
        t->trie[pass].node = arena_array(t->a, trie_node, nodes);
        t->trie[pass].node[0] = (trie_node){0, -1, -1, -1};
        t->trie[pass].count = 1;
    }
    for (i64 i = 0; i < t->added_count; i++) {
        added_token *x = &t->added[i];
        const char *content = x->content;
        size_t n = x->bytes;
        if (t->nfc && x->normalized) {
            status s = nfc_normalize(&content, &n, &normal);
            if (s) return text_free(&normal), s;
        }
        trie_add(&t->trie[x->normalized], content, n, (i32)i);
        if (!x->special) t->any_plain = true;
    }
    text_free(&normal);
    return OK;
}

static bool is_added(const tokenizer *t, i32 id)
{
    const added_token key = {.id = id};
    return t->added_count && bsearch(&key, t->added, (size_t)t->added_count, sizeof key, by_id);
}

static u64 bytes_place(const tokenizer *t, const void *bytes, size_t n)
{
    return XXH3_64bits(bytes, n) & t->by_bytes_mask;
}

static void build_by_bytes(tokenizer *t)
{
    u64 slots = bpe_slots_for(t->vocab);
    t->by_bytes = arena_array(t->a, i32, slots);
    t->by_bytes_mask = slots - 1;
    memset(t->by_bytes, -1, slots * sizeof *t->by_bytes);
    for (i64 id = 0; id < t->vocab; id++) {
        token_bytes b = t->token[id];
        if (t->spelled[id] != SPELLED_ALPHABET || is_added(t, (i32)id))
            continue; // an added token is no piece
        u64 i = bytes_place(t, b.data, b.bytes);
        while (t->by_bytes[i] >= 0) i = (i + 1) & t->by_bytes_mask;
        t->by_bytes[i] = (i32)id;
    }
}

i32 tokenizer_whole(const tokenizer *t, const u8 *bytes, size_t n)
{
    for (u64 i = bytes_place(t, bytes, n); t->by_bytes[i] >= 0; i = (i + 1) & t->by_bytes_mask) {
        token_bytes b = t->token[t->by_bytes[i]];
        if (b.bytes == n && !memcmp(b.data, bytes, n)) return t->by_bytes[i];
    }
    return -1;
}

status tokenizer_finish(tokenizer *t, const char *name)
{
    qsort(t->added, (size_t)t->added_count, sizeof *t->added, by_id);
    TRY(build_tries(t));
    memset(t->bpe.byte_id, -1, sizeof t->bpe.byte_id);
    for (i64 id = 0; id < t->vocab; id++)
        if (t->spelled[id] == SPELLED_ALPHABET && t->token[id].bytes == 1)
            t->bpe.byte_id[(u8)t->token[id].data[0]] = (i32)id;
    u64 slots = bpe_slots_for(t->merges);
    t->bpe.slots = arena_array(t->a, bpe_merge, slots);
    t->bpe.mask = slots - 1;
    bpe_clear(&t->bpe);
    for (i64 i = 0; i < t->merges; i++) {
        merge_rule m = t->merge[i];
        if (!bpe_add(&t->bpe, (bpe_merge){(u32)m.left, (u32)m.right, (u32)i, m.id}))
            return fail(ERR_FORMAT, "%s: model.merges[%lld] repeats an earlier merge: remove it", name,
                        (long long)i);
    }
    if (t->whole_piece) build_by_bytes(t);
    return OK;
}

i64 tokenizer_vocab(const tokenizer *t) { return t->vocab; }
i64 tokenizer_merges(const tokenizer *t) { return t->merges; }
bool tokenizer_nfc(const tokenizer *t) { return t->nfc; }
const char *tokenizer_pattern(const tokenizer *t)
{
    if (!t->stages) return "none";
    return t->stages == 1 && t->stage[0].row ? t->stage[0].row->name : "custom";
}
i64 tokenizer_added(const tokenizer *t) { return t->added_count; }
const added_token *tokenizer_added_at(const tokenizer *t, i64 i) { return &t->added[i]; }

token_bytes tokenizer_decode(const tokenizer *t, i32 id)
{
    return id >= 0 && id < t->vocab ? t->token[id] : (token_bytes){0};
}

i32 tokenizer_special(const tokenizer *t, const char *content)
{
    for (i64 i = 0; i < t->added_count; i++)
        if (!strcmp(t->added[i].content, content)) return t->added[i].id;
    return -1;
}

static i32 first_special(const tokenizer *t, const char *const *names)
{
    i32 id = -1;
    for (; id < 0 && *names; names++) id = tokenizer_special(t, *names);
    return id;
}

i32 tokenizer_end(const tokenizer *t)
{
    static const char *const ends[] = {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", NULL};
    return first_special(t, ends);
}

i32 tokenizer_start(const tokenizer *t)
{
    static const char *const starts[] = {"<|begin_of_text|>", "<s>", "<bos>", NULL};
    return first_special(t, starts);
}

/* Everything is hashed with its length, little-endian, so that no two contents share a stream of bytes. */
static void hash_number(XXH3_state_t *h, u64 x)
{
    u8 le[8];
    for (int i = 0; i < 8; i++) le[i] = (u8)(x >> 8 * i);
    XXH3_64bits_update(h, le, sizeof le);
}

static void hash_bytes(XXH3_state_t *h, const char *p, size_t n)
{
    hash_number(h, n);
    if (n) XXH3_64bits_update(h, p, n);
}

u64 tokenizer_hash(const tokenizer *t)
{
    _Alignas(64) XXH3_state_t h;
    char unicode[32];
    pattern_unicode_version(unicode);
    XXH3_64bits_reset(&h);
    for (int i = 0; i < t->stages; i++) hash_bytes(&h, t->stage[i].regex, strlen(t->stage[i].regex));
    hash_bytes(&h, unicode, strlen(unicode));
    hash_number(&h, (u64)t->whole_piece | (u64)t->nfc << 1);
    hash_number(&h, (u64)t->vocab);
    for (i64 id = 0; id < t->vocab; id++) {
        if (!t->token[id].data) continue;
        hash_number(&h, (u64)id);
        hash_bytes(&h, t->token[id].data, t->token[id].bytes);
    }
    hash_number(&h, (u64)t->merges);
    for (i64 i = 0; i < t->merges; i++) hash_number(&h, (u64)t->merge[i].left << 32 | (u32)t->merge[i].right);
    hash_number(&h, (u64)t->added_count);
    for (i64 i = 0; i < t->added_count; i++) {
        const added_token *x = &t->added[i];
        u64 strip = (u64)x->single_word << 2 | (u64)x->lstrip << 1 | (u64)x->rstrip;
        hash_number(&h, strip << 32 | (u64)x->id << 2 | (u64)x->special << 1 | (u64)x->normalized);
        hash_bytes(&h, t->added[i].content, t->added[i].bytes);
    }
    return XXH3_64bits_digest(&h);
}

void token_list_free(token_list *list)
{
    mem_free(list->id);
    *list = (token_list){0};
}
