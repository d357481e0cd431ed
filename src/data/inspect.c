/* What is in a corpus: see inspect.h. */
#define _GNU_SOURCE
#include "data/inspect.h"
#include "base/text.h"
#include "data/dedup.h"
#include "data/plan.h"
#include "text/grow.h"
#include "text/tokenizer.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

typedef struct seen {
    u64 key;
    i64 bytes, tokens;
} seen;

typedef struct inspector {
    const inspect_options *o;
    inspection *r;
    void **encoder; // [threads]
    int threads;
    deduper *dedup;
    seen *seen;  // [PIPE_DOCUMENTS]
    i64 *length; // [r->documents]
    size_t capacity;
} inspector;

static char *place_of(const pipe_document *d)
{
    status s = pipe_where(fail(ERR_INPUT, "."), d); // "FILE: document at byte N: ."
    char *text = s ? strdup(s->message) : NULL;
    if (text && strlen(text) > 3) text[strlen(text) - 3] = 0;
    status_drop(s);
    return text;
}

static status look(void *context, int thread, i64 slot, const pipe_document *d)
{
    inspector *w = context;
    seen *s = &w->seen[slot];
    const i32 *ids;
    s->key = XXH3_64bits(d->text, (size_t)d->bytes);
    s->bytes = d->bytes, s->tokens = -1;
    if (d->f->kind == SOURCE_TOKENS) {
        const i32 *id = (const i32 *)(const void *)d->text;
        s->tokens = d->bytes / 4, s->bytes = 0;
        for (i64 i = 0; i < s->tokens; i++) {
            if (id[i] < 0 || id[i] >= w->o->tokens->vocab)
                return fail(ERR_INPUT,
                            "id %d at its token %lld, but the tokenizer has %lld: were they made by another?",
                            id[i], (long long)i, (long long)w->o->tokens->vocab);
            s->bytes += w->o->tokens->token_bytes[id[i]];
        }
    } else if (w->encoder)
        TRY(w->o->tokens->encode(w->encoder[thread], d->text, d->bytes, &ids, &s->tokens));
    return deduper_look(w->dedup, thread, slot, d->text, d->bytes, d->f->kind == SOURCE_TOKENS);
}

/* A place among the samples for KEY; NULL when it is too high. */
static inspect_sample *sample_place(inspection *r, i64 most, u64 key)
{
    i64 at = r->samples;
    while (at && r->sample[at - 1].key > key) at--;
    if (at == most) return NULL;
    if (r->samples == most) {
        r->samples--;
        free(r->sample[r->samples].where);
        free(r->sample[r->samples].text);
    }
    memmove(r->sample + at + 1, r->sample + at, (size_t)(r->samples - at) * sizeof *r->sample);
    r->samples++;
    r->sample[at] = (inspect_sample){.key = key};
    return &r->sample[at];
}

static status sample_fill(inspect_sample *s, char *where, const char *text, i64 n)
{
    s->where = where;
    s->text_bytes = MIN(n, (i64)INSPECT_SAMPLE_BYTES);
    s->text = malloc((size_t)s->text_bytes + 1);
    if (!s->text || !where) return fail(ERR_MEMORY, "out of memory");
    memcpy(s->text, text, (size_t)s->text_bytes);
    s->text[s->text_bytes] = 0;
    return OK;
}

static status count_document(inspector *w, const seen *s)
{
    inspection *r = w->r;
    TRY(grow(&w->length, &w->capacity, (size_t)r->documents + 1, sizeof(i64), "lengths of documents"));
    w->length[r->documents++] = s->bytes;
    r->bytes += s->bytes;
    if (s->tokens >= 0) r->tokens = MAX(r->tokens, (i64)0) + s->tokens;
    return OK;
}

static status note(void *context, i64 slot, const pipe_document *d)
{
    inspector *w = context;
    const seen *s = &w->seen[slot];
    inspection *r = w->r;
    TRY(count_document(w, s));
    if (!r->longest_where || s->bytes > r->quantile[4]) {
        free(r->longest_where);
        r->longest_where = place_of(d);
        r->quantile[4] = s->bytes, r->longest_tokens = s->tokens;
    }
    TRY(deduper_keep(w->dedup, slot));
    inspect_sample *sample = sample_place(r, w->o->samples, s->key);
    if (!sample) return OK;
    sample->bytes = s->bytes, sample->tokens = s->tokens;
    const bool text = d->f->kind != SOURCE_TOKENS;
    return sample_fill(sample, place_of(d), text ? (const char *)d->text : "", text ? d->bytes : 0);
}

static int by_size(const void *a, const void *b)
{
    i64 x = *(const i64 *)a, y = *(const i64 *)b;
    return (x > y) - (x < y);
}

static void take_quantiles(inspector *w)
{
    const i64 n = w->r->documents;
    if (!n) return;
    qsort(w->length, (size_t)n, sizeof *w->length, by_size);
    for (int q = 0; q < 5; q++) w->r->quantile[q] = w->length[(n - 1) * q / 4];
}

static status count_duplicates(inspector *w)
{
    u8 *drop;
    TRY(deduper_finish(w->dedup, &drop));
    for (i64 i = 0; i < w->r->documents; i++) w->r->duplicates += drop[i];
    mem_free(drop);
    return OK;
}

static status open_encoders(inspector *w)
{
    if (!w->o->tokens) return OK;
    TRY(mem_alloc((size_t)w->threads * sizeof(void *), "encoders", &w->encoder));
    for (int i = 0; i < w->threads; i++) TRY(w->o->tokens->open(w->o->tokens->context, &w->encoder[i]));
    return OK;
}

static status inspect_text(inspector *w)
{
    const inspect_options *o = w->o;
    build_plan p = {0};
    build_options b = {.train = o->path,
                       .train_count = o->paths,
                       .document = o->document,
                       .field = o->field,
                       .validation = "0"};
    status s = plan_find(&b, &p);
    for (i64 i = 0; !s && !o->tokens && i < p.files.count; i++)
        if (p.files.file[i].kind == SOURCE_TOKENS)
            s = fail(ERR_INPUT,
                     "%s: it holds tokens, not text; name the tokenizer that made them (--tokenizer)",
                     p.files.file[i].path);
    w->r->files = p.files.count;
    if (o->tokens) {
        p.rules.ends = o->tokens->ends ? o->tokens->ends : &o->tokens->eos;
        p.rules.end_count = o->tokens->ends ? o->tokens->end_count : 1;
    }
    if (!s) s = open_encoders(w);
    if (!s) s = deduper_open("exact", w->threads, &w->dedup);
    if (!s) s = mem_alloc(PIPE_DOCUMENTS * sizeof(seen), "a batch of documents", &w->seen);
    if (!s)
        s = pipe_run(&(pipe_options){.files = &p.files,
                                     .rules = &p.rules,
                                     .threads = w->threads,
                                     .context = w,
                                     .work = look,
                                     .take = note},
                     &w->r->blank);
    if (!s) s = count_duplicates(w);
    plan_free(&p);
    return s;
}

/* ---- shards */

static status sample_shards(inspector *w, const dataset *d, const tokenizer *t, data_split k, i64 i)
{
    i64 start, tokens, bytes;
    char where[64];
    i32 ids[INSPECT_SAMPLE_BYTES];
    text begin = {0};
    dataset_document(d, k, i, &start, &tokens, &bytes);
    inspect_sample *s = sample_place(w->r, w->o->samples, XXH3_64bits((i64[]){k, i}, 16));
    if (!s) return OK;
    s->bytes = bytes, s->tokens = tokens - 1;
    const i64 n = MIN(s->tokens, (i64)INSPECT_SAMPLE_BYTES);
    dataset_read(d, k, start, n, ids);
    for (i64 j = 0; j < n && begin.bytes < INSPECT_SAMPLE_BYTES; j++) {
        token_bytes b = tokenizer_decode(t, ids[j]);
        if (b.data) text_add_bytes(&begin, b.data, b.bytes);
    }
    snprintf(where, sizeof where, "%s document %lld", data_split_name[k], (long long)i);
    status failed = sample_fill(s, strdup(where), begin.data ? begin.data : "", (i64)begin.bytes);
    text_free(&begin);
    return failed;
}

static status walk_shards(inspector *w, const dataset *d, const tokenizer *t)
{
    inspection *r = w->r;
    for (int k = 0; k < DATA_SPLITS; k++)
        for (i64 i = 0; i < dataset_documents(d, k); i++) {
            i64 start, tokens, bytes;
            dataset_document(d, k, i, &start, &tokens, &bytes);
            TRY(count_document(w, &(seen){0, bytes, tokens - 1}));
            if (t && w->o->samples) TRY(sample_shards(w, d, t, k, i));
            if (r->longest_where && bytes <= r->quantile[4]) continue;
            free(r->longest_where);
            r->quantile[4] = bytes, r->longest_tokens = tokens - 1;
            if (asprintf(&r->longest_where, "%s document %lld", data_split_name[k], (long long)i) < 0)
                return r->longest_where = NULL, fail(ERR_MEMORY, "out of memory");
        }
    r->files = dataset_shards(d, DATA_TRAIN) + dataset_shards(d, DATA_VALIDATION);
    r->duplicates = -1;
    return OK;
}

static status inspect_shards(inspector *w)
{
    dataset *d;
    tokenizer *t = NULL;
    TRY(dataset_open(w->o->path[0], &d));
    status s = w->o->samples ? tokenizer_open(dataset_tokenizer_path(d), &t) : OK;
    if (!s) s = walk_shards(w, d, t);
    tokenizer_close(t);
    dataset_close(d);
    return s;
}

status data_inspect(const inspect_options *o, inspection *out)
{
    *out = (inspection){.tokens = -1, .longest_tokens = -1};
    if (o->samples < 0 || o->samples > INSPECT_SAMPLES_MOST)
        return fail(ERR_CONFIG, "samples is %lld; it must be from 0 to %d", (long long)o->samples,
                    INSPECT_SAMPLES_MOST);
    inspector w = {.o = o, .r = out, .threads = o->threads > 0 ? o->threads : omp_get_max_threads()};
    status s = mem_alloc((size_t)(o->samples + 1) * sizeof *out->sample, "samples", &out->sample);
    if (!s) s = o->paths == 1 && dataset_is(o->path[0]) ? inspect_shards(&w) : inspect_text(&w);
    if (!s) take_quantiles(&w);
    for (int i = 0; w.encoder && i < w.threads; i++) o->tokens->close(w.encoder[i]);
    mem_free(w.encoder);
    deduper_close(w.dedup);
    mem_free(w.seen);
    mem_free(w.length);
    if (s) inspection_free(out);
    return s;
}

void inspection_free(inspection *r)
{
    for (i64 i = 0; i < r->samples; i++) free(r->sample[i].where), free(r->sample[i].text);
    mem_free(r->sample);
    free(r->longest_where);
    *r = (inspection){0};
}
