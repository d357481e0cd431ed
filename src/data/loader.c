/* The loader: see loader.h. Filling a batch is a pure function of its global index; the prefetch thread runs
 * it one or two batches ahead into two slots, and loader_next copies a slot out. A seek drops what is in the
 * slots. */
#include "data/loader.h"
#include "data/order.h"
#include "data/pack.h"
#include "data/quota.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = LOADER_SLOTS };

typedef struct slot {
    batch b;
    bool full;
} slot;

/* A source of the mixture; without one, all of the split. */
typedef struct part {
    i64 start, tokens, samples;
    row_table rows; // with best_fit
} part;

struct loader {
    const dataset *d;
    data_split split;
    loader_options o;
    i64 samples; // of all parts
    part *part;
    i64 parts;
    quota quota; // of the prefetch thread
    i32 *row;    // [T + 1] scratch of the prefetch thread
    i32 *arrays; // all slots' arrays
    pthread_t thread;
    bool running;
    // Under the lock:
    pthread_mutex_t lock;
    pthread_cond_t filled, emptied;
    slot slot[SLOTS];
    i64 next, fill; // global index of the next batch to hand out, to prepare
    int take, put;  // slots of these
    u64 generation; // raised by a seek: what was being prepared is stale
    bool stop;
};

/* ---- one batch */

/* T consecutive tokens from AT on. */
static void fill_stream(const loader *l, i64 at, i64 row, batch *b)
{
    const i64 T = l->o.context;
    const i32 *bytes = dataset_token_bytes(l->d);
    const bool mask = l->o.document_mask, mask_loss = mask && l->o.mask_boundary_loss;
    i32 *tokens = b->tokens + row * T, *targets = b->targets + row * T;
    dataset_read(l->d, l->split, at, T + 1, l->row);
    memcpy(tokens, l->row, (size_t)T * sizeof(i32));
    memcpy(targets, l->row + 1, (size_t)T * sizeof(i32));
    i64 start = 0, boundary = mask ? dataset_document_after(l->d, l->split, at) - at : T + 1; // in the row
    for (i64 t = 0; t < T; t++) {
        if (t == boundary) {
            start = t;
            boundary = dataset_document_after(l->d, l->split, at + t) - at;
        }
        b->doc_start[row * T + t] = (i32)start;
        b->position[row * T + t] = (i32)(t - start);
        if (mask_loss && t + 1 == boundary)
            targets[t] = -1;
        else
            b->n_valid++, b->bytes += bytes[targets[t]];
    }
}

/* The pieces of a packed row. The last token of one that ends its document has no target, or the next one's
 * first. */
static void fill_packed(const loader *l, const row_table *r, i64 which, i64 row, batch *b)
{
    const i64 T = l->o.context, all = dataset_tokens(l->d, l->split);
    const i32 *bytes = dataset_token_bytes(l->d);
    const bool mask = l->o.document_mask, cross = !(mask && l->o.mask_boundary_loss);
    i32 *tokens = b->tokens + row * T, *targets = b->targets + row * T;
    i64 t = 0;
    for (i64 p = r->first[which]; p < r->first[which + 1]; p++) {
        const i64 at = r->at[p], n = r->tokens[p], start = t;
        const bool whole = dataset_document_after(l->d, l->split, at) == at + n;
        dataset_read(l->d, l->split, at, MIN(n + 1, all - at), l->row);
        for (i64 i = 0; i < n; i++, t++) {
            tokens[t] = l->row[i];
            targets[t] = i + 1 < n || !whole ? l->row[i + 1] : -1;
            b->doc_start[row * T + t] = (i32)(mask ? start : 0);
            b->position[row * T + t] = (i32)(mask ? t - start : t);
        }
        if (cross && start && targets[start - 1] < 0) targets[start - 1] = tokens[start];
    }
    for (i64 start = t; t < T; t++) {
        tokens[t] = dataset_eos(l->d), targets[t] = -1;
        b->doc_start[row * T + t] = (i32)(mask ? start : 0);
        b->position[row * T + t] = (i32)(mask ? t - start : t);
    }
    for (i64 i = 0; i < T; i++)
        if (targets[i] >= 0) b->n_valid++, b->bytes += bytes[targets[i]];
}

/* Orders of different sources are different permutations. */
static u64 seed_of(const loader *l, i64 source) { return l->o.seed + ((u64)source << 32); }

static void fill_row(loader *l, i64 index, i64 row, batch *b)
{
    i64 source = 0, nth = index;
    if (l->o.weights) quota_at(&l->quota, index, &source, &nth);
    const part *p = &l->part[source];
    const i64 epoch = nth / p->samples, i = nth % p->samples;
    const i64 which = l->o.shuffle ? order_at(seed_of(l, source), epoch, p->samples, i) : i;
    if (l->o.best_fit)
        fill_packed(l, &p->rows, which, row, b);
    else
        fill_stream(l, p->start + l->o.context * which, row, b);
}

static void fill_empty_row(const loader *l, i64 row, batch *b)
{
    const i64 T = l->o.context;
    for (i64 t = row * T; t < (row + 1) * T; t++) {
        b->tokens[t] = dataset_eos(l->d), b->targets[t] = -1;
        b->doc_start[t] = 0, b->position[t] = (i32)(t - row * T);
    }
}

static void fill_batch(loader *l, i64 index, batch *b)
{
    b->index = index + l->o.rank * l->o.rows;
    b->rows = b->n_valid = b->bytes = 0;
    for (i64 r = 0; r < l->o.rows; r++)
        if (l->o.once && b->index + r >= l->samples)
            fill_empty_row(l, r, b);
        else
            fill_row(l, b->index + r, r, b), b->rows++;
}

/* ---- the thread */

static i64 stride(const loader *l) { return l->o.rows * l->o.ranks; }

static void *prefetch(void *p)
{
    loader *l = p;
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        slot *s = &l->slot[l->put];
        if (s->full) {
            pthread_cond_wait(&l->emptied, &l->lock);
            continue;
        }
        const u64 generation = l->generation;
        const i64 index = l->fill;
        pthread_mutex_unlock(&l->lock);
        fill_batch(l, index, &s->b);
        pthread_mutex_lock(&l->lock);
        if (generation != l->generation) continue; // a seek came between: prepare again
        s->full = true;
        l->put = (l->put + 1) % SLOTS;
        l->fill = index + stride(l);
        pthread_cond_signal(&l->filled);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

void loader_next(loader *l, batch *b)
{
    const size_t n = (size_t)(l->o.rows * l->o.context) * sizeof(i32);
    pthread_mutex_lock(&l->lock);
    slot *s = &l->slot[l->take];
    while (!s->full) pthread_cond_wait(&l->filled, &l->lock);
    pthread_mutex_unlock(&l->lock); // the thread does not touch a full slot
    memcpy(b->tokens, s->b.tokens, n);
    memcpy(b->targets, s->b.targets, n);
    if (b->doc_start) memcpy(b->doc_start, s->b.doc_start, n);
    if (b->position) memcpy(b->position, s->b.position, n);
    b->rows = s->b.rows, b->index = s->b.index, b->n_valid = s->b.n_valid, b->bytes = s->b.bytes;
    pthread_mutex_lock(&l->lock);
    s->full = false;
    l->take = (l->take + 1) % SLOTS;
    l->next += stride(l);
    pthread_cond_signal(&l->emptied);
    pthread_mutex_unlock(&l->lock);
}

status loader_seek(loader *l, i64 index)
{
    if (index < 0 || index > INT64_MAX / 2)
        return fail(ERR_INPUT,
                    "data position %lld: must be 0 or more; the checkpoint is of another program or damaged",
                    (long long)index);
    pthread_mutex_lock(&l->lock);
    for (int i = 0; i < SLOTS; i++) l->slot[i].full = false;
    l->take = l->put = 0;
    l->next = l->fill = index;
    l->generation++;
    pthread_cond_signal(&l->emptied);
    pthread_mutex_unlock(&l->lock);
    return OK;
}

i64 loader_samples(const loader *l) { return l->samples; }
i64 loader_tell(const loader *l) { return l->next; } // written by this thread alone
i64 loader_epoch(const loader *l) { return l->next / l->samples; }

/* ---- opening */

static status check_options(const dataset *d, data_split split, const loader_options *o)
{
    if (o->context < 1 || o->context > 1 << 24)
        return fail(ERR_CONFIG, "context is %lld; it must be from 1 to 2^24 tokens", (long long)o->context);
    if (o->rows < 1 || o->rows > 1 << 20)
        return fail(ERR_CONFIG, "rows a call: %lld; it must be from 1 to 2^20", (long long)o->rows);
    if (o->ranks < 1 || o->ranks > 1 << 20 || o->rank < 0 || o->rank >= o->ranks)
        return fail(ERR_CONFIG, "rank %d of %d; it must be from 0 to ranks - 1", o->rank, o->ranks);
    if ((o->weights || o->best_fit) && split != DATA_TRAIN)
        return fail(ERR_CONFIG, "mixtures and packing are for the train split");
    if (o->weights && o->weights != dataset_sources(d))
        return fail(ERR_CONFIG, "%s: %lld weights for %lld sources of data: a weight for each",
                    dataset_folder(d), (long long)o->weights, (long long)dataset_sources(d));
    return OK;
}

static status open_part(loader *l, i64 i)
{
    part *p = &l->part[i];
    const i64 T = l->o.context;
    p->tokens = dataset_tokens(l->d, l->split);
    if (l->o.weights) dataset_source(l->d, i, &p->start, &p->tokens);
    p->samples = p->tokens ? (p->tokens - 1) / T : 0;
    if (l->o.best_fit) {
        TRY(rows_open(l->d, l->o.weights ? i : -1, T, &p->rows));
        p->samples = p->rows.rows;
    }
    l->samples += p->samples;
    if (p->samples >= 1) return OK;
    char which[48] = "";
    if (l->o.weights) snprintf(which, sizeof which, "source %lld of the mixture in ", (long long)i + 1);
    return fail(ERR_INPUT,
                "%s: %sits %s split has %lld tokens, a sample needs %lld (context + 1); give more text, a "
                "smaller context or a larger data.validation",
                dataset_folder(l->d), which, data_split_name[l->split], (long long)p->tokens,
                (long long)T + 1);
}

static status open_all(loader *l)
{
    l->parts = l->o.weights ? l->o.weights : 1;
    if (l->o.weights) TRY(quota_open(l->o.weight, l->o.weights, &l->quota));
    l->o.weight = NULL; // the caller's
    TRY(mem_alloc((size_t)l->parts * sizeof(part), "sources", &l->part));
    for (i64 i = 0; i < l->parts; i++) TRY(open_part(l, i));
    return OK;
}

double loader_source_epochs(const loader *l, i64 i, i64 n)
{
    const double share = l->o.weights ? (double)l->quota.unit[i] / QUOTA_UNITS : 1;
    return share * (double)n / (double)l->part[i].samples;
}

static status allocate(loader *l)
{
    i64 n, total;
    TRY(mul_i64(l->o.rows, l->o.context, &n));
    TRY(mul_i64(n, (i64)(SLOTS * 4 * sizeof(i32)), &total));
    TRY(mem_alloc((size_t)total, "batches", &l->arrays));
    TRY(mem_alloc((size_t)(l->o.context + 1) * sizeof(i32), "a row", &l->row));
    for (int i = 0; i < SLOTS; i++) {
        i32 *a = l->arrays + i * 4 * n;
        l->slot[i].b = (batch){.tokens = a, .targets = a + n, .doc_start = a + 2 * n, .position = a + 3 * n};
    }
    return OK;
}

static status start_thread(loader *l)
{
    sigset_t all, before; // signals are for the main thread
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int e = fault_hit(FAULT_ALLOC) ? 1 : pthread_create(&l->thread, NULL, prefetch, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    l->running = !e;
    return e ? fail(ERR_MEMORY, "cannot start the thread that reads ahead: raise 'ulimit -u'") : OK;
}

status loader_open(const dataset *d, data_split split, const loader_options *o, loader **out)
{
    loader_options options = *o;
    if (!options.ranks) options.ranks = 1;
    TRY(check_options(d, split, &options));
    loader *l;
    TRY(mem_alloc(sizeof *l, "loader", &l));
    l->d = d, l->split = split, l->o = options;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->filled, NULL);
    pthread_cond_init(&l->emptied, NULL);
    status s = open_all(l);
    if (!s) s = allocate(l);
    if (!s) s = start_thread(l);
    if (s)
        loader_close(l);
    else
        *out = l;
    return s;
}

void loader_close(loader *l)
{
    if (!l) return;
    if (l->running) {
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        pthread_cond_signal(&l->emptied);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
    }
    pthread_cond_destroy(&l->filled);
    pthread_cond_destroy(&l->emptied);
    pthread_mutex_destroy(&l->lock);
    for (i64 i = 0; l->part && i < l->parts; i++) rows_close(&l->part[i].rows);
    mem_free(l->part);
    mem_free(l->arrays);
    mem_free(l->row);
    mem_free(l);
}
