/* A table of distinct words: see word_count.h. */
#include "text/word_count.h"
#include "text/grow.h"
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

u64 word_hash(const u8 *word, size_t n) { return XXH3_64bits(word, n); }

static status rehash(word_table *t, u64 slots)
{
    word_slot *bigger;
    TRY(mem_alloc(slots * sizeof *bigger, "table of words", &bigger));
    for (u64 i = 0; i < t->slots; i++) {
        if (!t->slot[i].count) continue;
        u64 at = word_hash(t->bytes + t->slot[i].at, t->slot[i].length) & (slots - 1);
        while (bigger[at].count) at = (at + 1) & (slots - 1);
        bigger[at] = t->slot[i];
    }
    mem_free(t->slot);
    t->slot = bigger, t->slots = slots;
    return OK;
}

/* Where a word is, or the free slot where it belongs. The table must have slots. */
static word_slot *find(const word_table *t, u64 hash, const u8 *word, size_t n)
{
    u64 at = hash & (t->slots - 1);
    for (; t->slot[at].count; at = (at + 1) & (t->slots - 1)) {
        word_slot *s = &t->slot[at];
        if (s->hash == hash >> 32 && s->length == n && !memcmp(t->bytes + s->at, word, n)) break;
    }
    return &t->slot[at];
}

const word_slot *word_table_find(const word_table *t, u64 hash, const u8 *word, size_t n)
{
    const word_slot *s = t->slots ? find(t, hash, word, n) : NULL;
    return s && s->count ? s : NULL;
}

status word_table_add(word_table *t, u64 hash, const u8 *word, size_t n, u64 count)
{
    if (t->words * 2 >= t->slots) TRY(rehash(t, t->slots ? t->slots * 2 : 64));
    word_slot *s = find(t, hash, word, n);
    if (s->count) {
        s->count += count;
        return OK;
    }
    if (n > UINT32_MAX) return fail(ERR_INPUT, "a piece of %zu bytes without a cut; at most 4 GiB", n);
    TRY(grow(&t->bytes, &t->bytes_capacity, t->used + n, 1, "words"));
    memcpy(t->bytes + t->used, word, n);
    *s = (word_slot){count, t->used, (u32)(hash >> 32), (u32)n};
    t->used += n;
    t->words++;
    return OK;
}

status word_table_prune(word_table *t, u64 floor, u64 *words, u64 *occurrences)
{
    word_table kept = {0};
    status s = OK;
    for (u64 i = 0; i < t->slots && !s; i++) {
        word_slot *w = &t->slot[i];
        const u8 *bytes = t->bytes + w->at;
        if (w->count > floor)
            s = word_table_add(&kept, word_hash(bytes, w->length), bytes, w->length, w->count);
        else if (w->count)
            *words += 1, *occurrences += w->count;
    }
    if (s) {
        word_table_free(&kept);
        return s;
    }
    word_table_free(t);
    *t = kept;
    return OK;
}

void word_table_clear(word_table *t)
{
    if (t->words) memset(t->slot, 0, t->slots * sizeof *t->slot);
    t->words = t->used = 0;
}

void word_table_free(word_table *t)
{
    mem_free(t->slot);
    mem_free(t->bytes);
    *t = (word_table){0};
}
