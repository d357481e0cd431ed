/* Best-fit packing: see pack.h. Remaining room is a whole number up to the context, so bins stand in one heap
 * of numbers for each room, and a bitmap says which rooms have any. */
#include "data/pack.h"
#include "base/file.h"
#include "base/text.h"
#include "text/grow.h"
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* ---- the algorithm */

typedef struct heap {
    i64 *bin; // the lowest on top
    i64 count;
    size_t capacity;
} heap;

static status heap_push(heap *h, i64 bin)
{
    TRY(grow(&h->bin, &h->capacity, (size_t)h->count + 1, sizeof(i64), "bins"));
    i64 i = h->count++;
    for (; i && h->bin[(i - 1) / 2] > bin; i = (i - 1) / 2) h->bin[i] = h->bin[(i - 1) / 2];
    h->bin[i] = bin;
    return OK;
}

static i64 heap_pop(heap *h)
{
    const i64 top = h->bin[0], x = h->bin[--h->count];
    i64 i = 0;
    for (i64 child; (child = 2 * i + 1) < h->count; i = child) {
        if (child + 1 < h->count && h->bin[child + 1] < h->bin[child]) child++;
        if (h->bin[child] >= x) break;
        h->bin[i] = h->bin[child];
    }
    h->bin[i] = x;
    return top;
}

/* The least room of at least LEAST that has a bin; -1: none. */
static i64 next_room(const u64 *map, i64 words, i64 least)
{
    u64 word = map[least / 64] >> least % 64 << least % 64;
    for (i64 w = least / 64; w < words; word = ++w < words ? map[w] : 0)
        if (word) return w * 64 + __builtin_ctzll(word);
    return -1;
}

static status place_all(const i32 *length, const i64 *order, i64 n, i64 room, heap *heaps, u64 *map, i64 *bin,
                        i64 *bins)
{
    const i64 words = room / 64 + 1;
    *bins = 0;
    for (i64 k = 0; k < n; k++) {
        const i64 i = order[k], fit = next_room(map, words, length[i]);
        bin[i] = fit < 0 ? (*bins)++ : heap_pop(&heaps[fit]);
        if (fit >= 0 && !heaps[fit].count) map[fit / 64] &= ~((u64)1 << fit % 64);
        const i64 left = (fit < 0 ? room : fit) - length[i];
        if (!left) continue;
        TRY(heap_push(&heaps[left], bin[i]));
        map[left / 64] |= (u64)1 << left % 64;
    }
    return OK;
}

/* Items from the longest, equals in their order: by counting. */
static void sort_down(const i32 *length, i64 n, i64 room, i64 *count, i64 *order)
{
    for (i64 i = 0; i < n; i++) count[room - length[i]]++;
    for (i64 r = 0, sum = 0; r < room; r++) {
        const i64 here = count[r];
        count[r] = sum, sum += here;
    }
    for (i64 i = 0; i < n; i++) order[count[room - length[i]]++] = i;
}

status best_fit(const i32 *length, i64 n, i64 room, i64 *bin, i64 *bins)
{
    heap *heaps = NULL;
    u64 *map = NULL;
    i64 *count = NULL, *order = NULL;
    status s = mem_alloc((size_t)(room + 1) * sizeof *heaps, "bins", &heaps);
    if (!s) s = mem_alloc((size_t)(room / 64 + 1) * sizeof *map, "bins", &map);
    if (!s) s = mem_alloc((size_t)room * sizeof *count, "bins", &count);
    if (!s) s = mem_alloc((size_t)(n + 1) * sizeof *order, "items", &order);
    if (!s) {
        sort_down(length, n, room, count, order);
        s = place_all(length, order, n, room, heaps, map, bin, bins);
    }
    for (i64 r = 0; heaps && r <= room; r++) mem_free(heaps[r].bin);
    mem_free(heaps);
    mem_free(map);
    mem_free(count);
    mem_free(order);
    return s;
}

/* ---- the table of a data set */

typedef struct pieces {
    i64 *at;
    i32 *tokens;
    i64 n;
    size_t at_capacity, tokens_capacity;
} pieces;

static status add_piece(pieces *p, i64 at, i64 tokens)
{
    TRY(grow(&p->at, &p->at_capacity, (size_t)p->n + 1, sizeof(i64), "pieces of documents"));
    TRY(grow(&p->tokens, &p->tokens_capacity, (size_t)p->n + 1, sizeof(i32), "pieces of documents"));
    p->at[p->n] = at, p->tokens[p->n++] = (i32)tokens;
    return OK;
}

static void range_of(const dataset *d, i64 source, i64 *start, i64 *end)
{
    *start = 0, *end = dataset_tokens(d, DATA_TRAIN);
    if (source < 0) return;
    dataset_source(d, source, start, end);
    *end += *start;
}

static status cut_documents(const dataset *d, i64 source, i64 context, pieces *p)
{
    i64 at, end;
    range_of(d, source, &at, &end);
    while (at < end) {
        const i64 next = dataset_document_after(d, DATA_TRAIN, at);
        for (; at < next; at += MIN(context, next - at)) TRY(add_piece(p, at, MIN(context, next - at)));
    }
    return OK;
}

static status table_alloc(row_table *t)
{
    TRY(mem_alloc((size_t)(t->rows + 1) * sizeof(i64), "rows", &t->first));
    TRY(mem_alloc((size_t)(t->pieces + 1) * sizeof(i64), "rows", &t->at));
    return mem_alloc((size_t)(t->pieces + 1) * sizeof(i32), "rows", &t->tokens);
}

/* Pieces in order of rows; within a row in their own order, so that one document's parts would follow each
 * other. */
static status fill_table(const pieces *p, const i64 *bin, row_table *t)
{
    TRY(table_alloc(t));
    for (i64 i = 0; i < p->n; i++) t->first[bin[i] + 1]++;
    for (i64 r = 0; r < t->rows; r++) t->first[r + 1] += t->first[r];
    for (i64 i = 0; i < p->n; i++) {
        const i64 k = t->first[bin[i]]++; // where the row's next piece goes; put right below
        t->at[k] = p->at[i], t->tokens[k] = p->tokens[i];
    }
    memmove(t->first + 1, t->first, (size_t)t->rows * sizeof(i64));
    t->first[0] = 0;
    return OK;
}

static status make_table(const dataset *d, i64 source, i64 context, row_table *out)
{
    pieces p = {0};
    i64 *bin = NULL;
    *out = (row_table){0};
    status s = cut_documents(d, source, context, &p);
    if (!s) s = mem_alloc((size_t)(p.n + 1) * sizeof *bin, "rows", &bin);
    if (!s) s = best_fit(p.tokens, p.n, context, bin, &out->rows);
    out->pieces = p.n;
    if (!s) s = fill_table(&p, bin, out);
    mem_free(bin);
    mem_free(p.at);
    mem_free(p.tokens);
    if (s) rows_close(out);
    return s;
}

/* ---- keeping it */

typedef struct header {
    char magic[8];
    i64 version, context, source, rows, pieces;
    u64 data, hash; // of the data set; of what follows
} header;
_Static_assert(sizeof(header) == 64, "eight numbers");
static const char MAGIC[8] = "KEELROW\n";

static u64 table_hash(const row_table *t)
{
    u64 h = XXH3_64bits(t->first, (size_t)(t->rows + 1) * sizeof(i64));
    h = XXH3_64bits_withSeed(t->at, (size_t)t->pieces * sizeof(i64), h);
    return XXH3_64bits_withSeed(t->tokens, (size_t)t->pieces * sizeof(i32), h);
}

static header header_of(const dataset *d, i64 source, i64 context, const row_table *t)
{
    header h = {.version = 1,
                .context = context,
                .source = source,
                .rows = t->rows,
                .pieces = t->pieces,
                .data = dataset_hash(d),
                .hash = table_hash(t)};
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    return h;
}

static status write_table(const char *path, const header *h, const row_table *t)
{
    file_writer *w;
    TRY(file_create(path, &w));
    TRY(file_write(w, h, sizeof *h));
    TRY(file_write(w, t->first, (size_t)(t->rows + 1) * sizeof(i64)));
    TRY(file_write(w, t->at, (size_t)t->pieces * sizeof(i64)));
    TRY(file_write(w, t->tokens, (size_t)t->pieces * sizeof(i32)));
    return file_commit(w);
}

/* Do the numbers make rows of this part? (The hash says that they are those that were written.) */
static bool table_good(const dataset *d, i64 source, i64 context, const row_table *t)
{
    i64 start, end;
    range_of(d, source, &start, &end);
    bool good = t->first[0] == 0 && t->first[t->rows] == t->pieces;
    for (i64 r = 0; good && r < t->rows; r++) {
        i64 tokens = 0;
        good = t->first[r] < t->first[r + 1] && t->first[r + 1] <= t->pieces;
        for (i64 p = t->first[r]; good && p < t->first[r + 1]; p++) {
            good = t->tokens[p] > 0 && t->tokens[p] <= context - tokens && t->at[p] >= start &&
                   t->at[p] < end && t->tokens[p] <= end - t->at[p];
            tokens += t->tokens[p];
        }
    }
    return good;
}

static status read_table(const dataset *d, i64 source, i64 context, const file_map *m, row_table *out)
{
    header h;
    i64 firsts, ats, end;
    if (m->bytes < sizeof h) return fail(ERR_FORMAT, "truncated");
    memcpy(&h, m->data, sizeof h);
    if (memcmp(h.magic, MAGIC, sizeof MAGIC) || h.version != 1 || h.context != context ||
        h.source != source || h.data != dataset_hash(d) || h.rows < 0 || h.pieces < 0 || h.rows > h.pieces)
        return fail(ERR_FORMAT, "of other shards");
    TRY(mul_i64(h.rows + 1, sizeof(i64), &firsts));
    TRY(mul_i64(h.pieces, sizeof(i64), &ats));
    TRY(mul_i64(h.pieces, sizeof(i64) + sizeof(i32), &end));
    TRY(add_i64(end, firsts, &end));
    TRY(add_i64(end, sizeof h, &end));
    if (end != (i64)m->bytes) return fail(ERR_FORMAT, "truncated");
    *out = (row_table){.rows = h.rows, .pieces = h.pieces};
    status s = table_alloc(out);
    if (!s) {
        const u8 *p = m->data + sizeof h;
        memcpy(out->first, p, (size_t)firsts);
        memcpy(out->at, p + firsts, (size_t)ats);
        memcpy(out->tokens, p + firsts + ats, (size_t)h.pieces * sizeof(i32));
        if (table_hash(out) != h.hash || !table_good(d, source, context, out))
            s = fail(ERR_FORMAT, "damaged");
    }
    if (s) rows_close(out);
    return s;
}

status rows_open(const dataset *d, i64 source, i64 context, row_table *out)
{
    text path = {0};
    file_map m = {0};
    text_add(&path, "%s/rows-%lld", dataset_folder(d), (long long)context);
    text_add(&path, source < 0 ? ".bin" : "-%lld.bin", (long long)source);
    status s = path_exists(path.data) ? file_map_open(path.data, &m) : fail(ERR_IO, "none yet");
    if (!s) s = read_table(d, source, context, &m, out);
    file_map_close(&m);
    if (s) {
        status_drop(s);
        s = make_table(d, source, context, out);
        if (!s) { // a folder that cannot be written costs the time alone
            header h = header_of(d, source, context, out);
            status_drop(write_table(path.data, &h, out));
        }
    }
    text_free(&path);
    return s;
}

void rows_close(row_table *t)
{
    mem_free(t->first);
    mem_free(t->at);
    mem_free(t->tokens);
    *t = (row_table){0};
}
