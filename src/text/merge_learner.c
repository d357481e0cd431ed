/* Learning byte-pair merges: see merge_learner.h.
 *
 * Rule (Sennrich, Haddow and Birch, arXiv:1508.07909, with the tie-break of the Hugging Face trainer): merge
 * the pair with the largest count, on ties the one with the smallest (left id, right id), until the
 * vocabulary is full or the count falls under min_frequency. A count is over all adjacent places, overlapping
 * ones too ("aaa" holds (a, a) twice); a merge replaces greedily from left to right. The tie-break is total,
 * so the result does not depend on the order of the words.
 *
 * Data structure: all distinct words lie side by side in arrays with an element a byte ("place").
 *   symbol[p]      the id of the token that starts at p; at the last byte of a token of two or more, ~start,
 * so that both neighbours of a token are found without links pair_of[p]     the pair (this token, the next),
 * or NONE next, prev[p]  the places of the same pair, a doubly linked list So counts are exact at any time, a
 * merge costs time in proportion to the places it changes, each merged place disappears for good (the total
 * is linear in the bytes of distinct words), and nothing grows but the table of live pairs. Candidates wait
 * in a heap with their count at entry, an upper bound: counts that fell are corrected when they come up,
 * counts that rose are entered again.
 *
 * Departures: a string that is a token already gives its id again (as in the original), but a pair is listed
 * once, and no merge may spell a special token. */
#include "text/merge_learner.h"
#include "text/grow.h"
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

typedef struct pair {
    u32 left, right; // ids; on the free list: left = next free
    u64 count;
    u32 head;   // first place; NONE: no places
    bool risen; // in the list of pairs whose count rose in this step
} pair;

typedef struct candidate {
    u64 count;
    u32 left, right;
} candidate;

typedef struct learner {
    const learner_options *o;
    u64 places, words;
    i32 *symbol;
    u32 *word, *pair_of, *next, *prev; // [places]
    u64 *weight;                       // [words]: occurrences
    pair *pair;
    size_t pair_capacity;
    u32 pairs, pairs_free, pairs_live; // ever made (array length), head of the free list, in use
    u32 *slot;                         // open addressing: (left, right) -> pair; NONE is free
    u64 slots;
    candidate *heap;
    size_t heap_capacity, heaped;
    u32 *risen, *here; // pairs to enter; places of the pair that is merged
    size_t risen_capacity, risen_count, here_capacity;
    word_table strings; // bytes of a token -> id + 1
    u64 *string_at;     // [ids]
    u32 *string_length;
    size_t at_capacity, length_capacity;
    u64 tokens; // in all occurrences of all words
    i64 ids;    // all ids so far, specials and bytes too
    learned_merge *merge;
    size_t merge_capacity, merges;
} learner;

/* ---- the table of pairs */
static u64 pair_place(const learner *l, u32 left, u32 right)
{
    u64 h = ((u64)left << 32 | right) * 0x9E3779B97F4A7C15u;
    return (h >> 32 ^ h >> 53) & (l->slots - 1);
}

static u32 pair_find(const learner *l, u32 left, u32 right)
{
    for (u64 i = pair_place(l, left, right);; i = (i + 1) & (l->slots - 1)) {
        u32 p = l->slot[i];
        if (p == NONE || (l->pair[p].left == left && l->pair[p].right == right)) return p;
    }
}

static void slot_put(learner *l, u32 p)
{
    u64 i = pair_place(l, l->pair[p].left, l->pair[p].right);
    while (l->slot[i] != NONE) i = (i + 1) & (l->slots - 1);
    l->slot[i] = p;
}

static status slots_double(learner *l)
{
    u32 *old = l->slot, *bigger;
    u64 before = l->slots;
    l->slots = before ? before * 2 : 1 << 12;
    status s = mem_alloc(l->slots * sizeof *bigger, "table of pairs", &bigger);
    if (s) {
        l->slots = before;
        return s;
    }
    memset(bigger, 0xFF, l->slots * sizeof *bigger);
    l->slot = bigger;
    for (u64 i = 0; i < before; i++)
        if (old[i] != NONE) slot_put(l, old[i]);
    mem_free(old);
    return OK;
}

static status pair_make(learner *l, u32 left, u32 right, u32 *out)
{
    u32 p = pair_find(l, left, right);
    if (p == NONE) {
        if (((u64)l->pairs_live + 1) * 2 > l->slots) TRY(slots_double(l));
        if (l->pairs_free != NONE) {
            p = l->pairs_free;
            l->pairs_free = l->pair[p].left;
        } else {
            TRY(grow(&l->pair, &l->pair_capacity, (size_t)l->pairs + 1, sizeof(pair), "pairs"));
            p = l->pairs++;
        }
        l->pair[p] = (pair){left, right, 0, NONE, false};
        l->pairs_live++;
        slot_put(l, p);
    }
    *out = p;
    return OK;
}

/* Takes a pair out; the entries behind it in its run of slots move up, so that searches still find them. */
static void pair_drop(learner *l, u32 p)
{
    u64 mask = l->slots - 1, hole = pair_place(l, l->pair[p].left, l->pair[p].right);
    while (l->slot[hole] != p) hole = (hole + 1) & mask;
    for (u64 i = (hole + 1) & mask; l->slot[i] != NONE; i = (i + 1) & mask) {
        u64 home = pair_place(l, l->pair[l->slot[i]].left, l->pair[l->slot[i]].right);
        if (((i - home) & mask) < ((i - hole) & mask)) continue; // its home lies behind the hole
        l->slot[hole] = l->slot[i];
        hole = i;
    }
    l->slot[hole] = NONE;
    l->pair[p].left = l->pairs_free;
    l->pairs_free = p;
    l->pairs_live--;
}

/* ---- the heap of candidates: largest count first, then smallest ids */
static bool before(const candidate *a, const candidate *b)
{
    if (a->count != b->count) return a->count > b->count;
    return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static void sift_down(learner *l, size_t i)
{
    candidate x = l->heap[i];
    for (size_t child; (child = 2 * i + 1) < l->heaped; i = child) {
        if (child + 1 < l->heaped && before(&l->heap[child + 1], &l->heap[child])) child++;
        if (!before(&l->heap[child], &x)) break;
        l->heap[i] = l->heap[child];
    }
    l->heap[i] = x;
}

/* Drops candidates whose pair is gone and corrects the counts of the rest. */
static void heap_tidy(learner *l)
{
    size_t kept = 0;
    for (size_t i = 0; i < l->heaped; i++) {
        u32 p = pair_find(l, l->heap[i].left, l->heap[i].right);
        if (p == NONE || l->pair[p].count < l->o->min_frequency) continue;
        l->heap[kept] = l->heap[i];
        l->heap[kept++].count = l->pair[p].count;
    }
    l->heaped = kept;
    for (size_t i = kept / 2; i-- > 0;) sift_down(l, i);
}

static status heap_push(learner *l, candidate x)
{
    if (l->heaped > 4 * (size_t)l->pairs_live + 4096) heap_tidy(l);
    TRY(grow(&l->heap, &l->heap_capacity, l->heaped + 1, sizeof x, "candidates"));
    size_t i = l->heaped++;
    for (; i && before(&x, &l->heap[(i - 1) / 2]); i = (i - 1) / 2) l->heap[i] = l->heap[(i - 1) / 2];
    l->heap[i] = x;
    return OK;
}

/* The best pair, or NONE when none is frequent enough. */
static u32 heap_best(learner *l)
{
    while (l->heaped) {
        candidate *top = &l->heap[0];
        u32 p = pair_find(l, top->left, top->right);
        if (p != NONE && l->pair[p].count >= l->o->min_frequency && l->pair[p].count < top->count) {
            top->count = l->pair[p].count;
            sift_down(l, 0);
            continue;
        }
        bool best = p != NONE && l->pair[p].count >= l->o->min_frequency && l->pair[p].count == top->count;
        *top = l->heap[--l->heaped];
        if (l->heaped) sift_down(l, 0);
        if (best) return p;
    }
    return NONE;
}

/* ---- places */
static u32 length_of(const learner *l, i32 id) { return l->string_length[id]; }

static status place_enter(learner *l, u32 at)
{
    i32 left = l->symbol[at];
    u32 right = at + length_of(l, left), p;
    TRY(pair_make(l, (u32)left, (u32)l->symbol[right], &p));
    pair *x = &l->pair[p];
    if (!x->risen) {
        TRY(grow(&l->risen, &l->risen_capacity, l->risen_count + 1, sizeof(u32), "candidates"));
        l->risen[l->risen_count++] = p;
        x->risen = true;
    }
    x->count += l->weight[l->word[at]];
    l->pair_of[at] = p;
    l->prev[at] = NONE;
    l->next[at] = x->head;
    if (x->head != NONE) l->prev[x->head] = at;
    x->head = at;
    return OK;
}

static void place_leave(learner *l, u32 at)
{
    pair *x = &l->pair[l->pair_of[at]];
    if (l->prev[at] != NONE)
        l->next[l->prev[at]] = l->next[at];
    else
        x->head = l->next[at];
    if (l->next[at] != NONE) l->prev[l->next[at]] = l->prev[at];
    x->count -= l->weight[l->word[at]];
    if (x->head == NONE && !x->risen) pair_drop(l, l->pair_of[at]);
    l->pair_of[at] = NONE;
}

/* Pairs that rose become candidates; pairs that rose and vanished again go. */
static status enter_risen(learner *l)
{
    for (size_t i = 0; i < l->risen_count; i++) {
        pair *x = &l->pair[l->risen[i]];
        x->risen = false;
        if (x->head == NONE)
            pair_drop(l, l->risen[i]);
        else if (x->count >= l->o->min_frequency)
            TRY(heap_push(l, (candidate){x->count, x->left, x->right}));
    }
    l->risen_count = 0;
    return OK;
}

/* The pair that starts at AT becomes the token ID. */
static status merge_at(learner *l, u32 at, i32 id)
{
    u32 second = at + length_of(l, l->symbol[at]), end = second + length_of(l, l->symbol[second]),
        left = NONE;
    bool right = end < l->places && l->word[end] == l->word[at];
    if (at && l->word[at - 1] == l->word[at]) left = l->symbol[at - 1] < 0 ? (u32)~l->symbol[at - 1] : at - 1;
    if (left != NONE) place_leave(l, left);
    if (right) place_leave(l, second);
    place_leave(l, at);
    l->tokens -= l->weight[l->word[at]];
    l->symbol[at] = id;
    l->symbol[end - 1] = ~(i32)at;
    if (left != NONE) TRY(place_enter(l, left));
    if (right) TRY(place_enter(l, at));
    return OK;
}

static int ascending(const void *a, const void *b)
{
    u32 x = *(const u32 *)a, y = *(const u32 *)b;
    return (x > y) - (x < y);
}

static status merge_everywhere(learner *l, u32 p, i32 id)
{
    size_t n = 0;
    bool twins = l->pair[p].left == l->pair[p].right; // only these can overlap, so only their order matters
    l->pair[p].risen = true;                          // keeps the pair while its places leave
    for (u32 at = l->pair[p].head; at != NONE; at = l->next[at]) {
        TRY(grow(&l->here, &l->here_capacity, n + 1, sizeof(u32), "places"));
        l->here[n++] = at;
    }
    if (twins) qsort(l->here, n, sizeof *l->here, ascending);
    for (size_t i = 0; i < n; i++)
        if (l->pair_of[l->here[i]] == p) TRY(merge_at(l, l->here[i], id));
    pair_drop(l, p);
    return enter_risen(l);
}

/* ---- tokens */
static status token_add(learner *l, const u8 *bytes, size_t n, i32 id)
{
    u64 at = l->strings.used;
    TRY(grow(&l->string_at, &l->at_capacity, (size_t)id + 1, sizeof(u64), "tokens"));
    TRY(grow(&l->string_length, &l->length_capacity, (size_t)id + 1, sizeof(u32), "tokens"));
    TRY(word_table_add(&l->strings, word_hash(bytes, n), bytes, n, (u64)id + 1));
    l->string_at[id] = at;
    l->string_length[id] = (u32)n;
    l->ids = MAX(l->ids, id + 1);
    return OK;
}

static bool listed(const learner *l, u32 left, u32 right)
{
    for (size_t i = 0; i < l->merges; i++)
        if (l->merge[i].left == (i32)left && l->merge[i].right == (i32)right) return true;
    return false;
}

/* Merges the pair P everywhere, under a new id, or under an old one when its bytes are a token already. */
static status take(learner *l, u32 p)
{
    u32 left = l->pair[p].left, right = l->pair[p].right;
    size_t n = length_of(l, (i32)left), m = length_of(l, (i32)right);
    u8 *joined;
    TRY(mem_alloc(n + m, "a token", &joined));
    memcpy(joined, l->strings.bytes + l->string_at[left], n);
    memcpy(joined + n, l->strings.bytes + l->string_at[right], m);
    u64 hash = word_hash(joined, n + m);
    const word_slot *known = word_table_find(&l->strings, hash, joined, n + m);
    bool reserved = l->o->reserved && word_table_find(l->o->reserved, hash, joined, n + m);
    i32 id = known ? (i32)(known->count - 1) : (i32)l->ids;
    status s = known || reserved ? OK : token_add(l, joined, n + m, id);
    mem_free(joined);
    if (s || reserved) return s; // a reserved pair is out of the heap now and is never merged
    if (!known || !listed(l, left, right)) {
        TRY(grow(&l->merge, &l->merge_capacity, l->merges + 1, sizeof *l->merge, "merges"));
        l->merge[l->merges++] = (learned_merge){(i32)left, (i32)right, id};
    }
    return merge_everywhere(l, p, id);
}

static u64 bytes_in_use(const learner *l)
{
    return l->places * 5 * sizeof(u32) + l->words * sizeof(u64) + l->pair_capacity * sizeof(pair) +
           l->slots * sizeof(u32) + l->heap_capacity * sizeof(candidate) +
           (l->risen_capacity + l->here_capacity) * sizeof(u32) + l->strings.slots * sizeof(word_slot) +
           l->strings.bytes_capacity + (l->at_capacity + l->length_capacity) * sizeof(u64) +
           l->merge_capacity * sizeof(learned_merge);
}

static status check_memory(const learner *l, u64 *peak)
{
    u64 now = bytes_in_use(l);
    *peak = MAX(*peak, now);
    if (now <= l->o->memory_bytes) return OK;
    return fail(ERR_MEMORY,
                "learning merges from %llu distinct words needs over %llu MiB: raise data.tokenizer_memory "
                "or train on "
                "less text",
                (unsigned long long)l->words, (unsigned long long)l->o->memory_bytes >> 20);
}

/* ---- set-up: words of two and more bytes become places */
static status make_room(learner *l, const word_table *tables, i64 n)
{
    for (i64 t = 0; t < n; t++)
        for (u64 i = 0; i < tables[t].slots; i++)
            if (tables[t].slot[i].count && tables[t].slot[i].length > 1)
                l->words++, l->places += tables[t].slot[i].length;
    if (l->places > INT32_MAX || l->words > INT32_MAX)
        return fail(
            ERR_MEMORY,
            "%llu bytes of distinct words; at most 2^31: lower data.tokenizer_memory, so that rare words go",
            (unsigned long long)l->places);
    u64 peak = 0;
    TRY(check_memory(l, &peak));
    TRY(mem_alloc(l->places * sizeof(i32), "places", &l->symbol));
    TRY(mem_alloc(l->places * sizeof(u32), "places", &l->word));
    TRY(mem_alloc(l->places * sizeof(u32), "places", &l->pair_of));
    TRY(mem_alloc(l->places * sizeof(u32), "places", &l->next));
    TRY(mem_alloc(l->places * sizeof(u32), "places", &l->prev));
    return mem_alloc(l->words * sizeof(u64), "words", &l->weight);
}

static status set_up(learner *l, word_table *tables, i64 n)
{
    TRY(make_room(l, tables, n));
    for (int byte = 0; byte < 256; byte++) TRY(token_add(l, &(u8){(u8)byte}, 1, l->o->byte_id[byte]));
    l->ids = l->o->first_id;
    u64 at = 0, word = 0;
    for (i64 t = 0; t < n; t++) {
        for (u64 i = 0; i < tables[t].slots; i++) {
            word_slot w = tables[t].slot[i];
            l->tokens += w.count * w.length;
            if (!w.count || w.length < 2) continue;
            for (u32 k = 0; k < w.length; k++, at++) {
                l->symbol[at] = l->o->byte_id[tables[t].bytes[w.at + k]];
                l->word[at] = (u32)word;
                l->pair_of[at] = NONE;
            }
            l->weight[word++] = w.count;
        }
        word_table_free(&tables[t]);
    }
    for (u64 p = l->places; p-- > 1;) // backwards, so that lists run forwards
        if (l->word[p - 1] == l->word[p]) TRY(place_enter(l, (u32)p - 1));
    return enter_risen(l);
}

static status learn(learner *l, word_table *tables, i64 n, u64 *peak)
{
    l->pairs_free = NONE;
    TRY(slots_double(l));
    TRY(set_up(l, tables, n));
    i64 from = l->ids;
    TRY(check_memory(l, peak));
    while (l->ids < l->o->vocab) {
        u32 best = heap_best(l);
        if (best == NONE) break;
        TRY(take(l, best));
        if (l->merges % 64) continue;
        TRY(check_memory(l, peak));
        if (l->o->progress) l->o->progress(l->o->context, "merging", l->ids - from, l->o->vocab - from);
    }
    return check_memory(l, peak);
}

status merges_learn(word_table *tables, i64 n, const learner_options *o, learned *out)
{
    learner l = {.o = o};
    *out = (learned){0};
    status s = learn(&l, tables, n, &out->peak_bytes);
    void *const all[] = {l.symbol, l.word, l.pair_of, l.next, l.prev,      l.weight,       l.pair,
                         l.slot,   l.heap, l.risen,   l.here, l.string_at, l.string_length};
    for (i64 i = 0; i < COUNT(all); i++) mem_free(all[i]);
    word_table_free(&l.strings);
    if (s) {
        mem_free(l.merge);
        return s;
    }
    out->tokens = l.tokens;
    out->merge = l.merge, out->merges = (i64)l.merges, out->ids = l.ids - o->first_id;
    return OK;
}

void learned_free(learned *l)
{
    mem_free(l->merge);
    *l = (learned){0};
}
