/* Preparing data: a tokenizer (given, kept, or trained now), a data set (kept or built now), opened. */
#define _GNU_SOURCE
#include "data/prepare.h"
#include "base/file.h"
#include "data/plan.h"
#include "data/tokens.h"
#include "text/train_bpe.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

static void hash_string(XXH3_state_t *h, const char *s)
{
    XXH3_64bits_update(h, s ? s : "", strlen(s ? s : "") + 1);
}

/* The key of these options; with DATES also of the files' sizes and dates and of the tokenizer to be trained.
 */
static status make_key(const prepare_options *o, const sources *files, bool dates, u64 *key)
{
    XXH3_state_t *h = XXH3_createState();
    if (!h) return fail(ERR_MEMORY, "out of memory");
    XXH3_64bits_reset(h);
    hash_string(h, o->build.validation ? o->build.validation : "1%");
    hash_string(h, o->build.document ? o->build.document : "auto");
    hash_string(h, o->build.field ? o->build.field : "text");
    hash_string(h, o->pattern ? o->pattern : "gpt2");
    hash_string(h, o->tokenizer && strcmp(o->tokenizer, "auto") ? o->tokenizer : "auto");
    const i64 numbers[] = {o->vocab, o->tokenizer_memory, o->build.shard_tokens, !dates && o->build.mixture};
    XXH3_64bits_update(h, numbers, sizeof numbers);
    if (!dates) hash_string(h, o->build.special ? o->build.special : "plain");
    for (i64 i = 0; !dates && i < o->build.train_count; i++) hash_string(h, o->build.train[i]);
    for (i64 i = 0; dates && i < files->count; i++) {
        const source_file *f = &files->file[i];
        const i64 facts[] = {f->bytes, f->modified_ns, f->validation};
        hash_string(h, f->path);
        XXH3_64bits_update(h, facts, sizeof facts);
    }
    *key = XXH3_64bits_digest(h);
    XXH3_freeState(h);
    return OK;
}

/* ---- the tokenizer */

static void pass_on(void *context, const char *stage, i64 done, i64 total)
{
    const build_options *o = context;
    build_progress now = {strcmp(stage, "counting") ? "tokenizer: merging" : "tokenizer: counting", done,
                          total, 0, 0};
    if (o->progress)
        (void)o->progress(o->progress_context, &now); // training a tokenizer cannot stop in between
}

/* Only train documents: the validation text shall not shape what it is measured with. */
typedef struct pupil {
    const build_plan *p;
    bpe_trainer *trainer;
} pupil;

static status add_document(void *context, i64 slot, const pipe_document *d)
{
    const pupil *w = context;
    (void)slot;
    if (d->number >= w->p->count || w->p->document[d->number].hash != XXH3_64bits(d->text, (size_t)d->bytes))
        return fail(ERR_INPUT, "it changed while being read; run again when it is complete");
    if (w->p->document[d->number].split != DATA_TRAIN) return OK;
    const bool tail = w->p->validation_is_tail && d->number == w->p->tail;
    return bpe_trainer_add(w->trainer, (const char *)d->text, (size_t)(tail ? w->p->tail_cut : d->bytes));
}

static status add_documents(const build_plan *p, int threads, bpe_trainer *b)
{
    pupil w = {p, b};
    return pipe_run(
        &(pipe_options){
            .files = &p->files, .rules = &p->rules, .threads = threads, .context = &w, .take = add_document},
        NULL);
}

static status train_tokenizer(const prepare_options *o, const build_plan *p, const char *path,
                              tokenizer **out)
{
    bpe_trainer *b;
    TRY(bpe_trainer_open(&(bpe_options){.vocab = o->vocab,
                                        .pattern = o->pattern,
                                        .threads = o->build.threads,
                                        .memory_bytes = o->tokenizer_memory,
                                        .progress = o->build.progress ? pass_on : NULL,
                                        .context = (void *)&o->build},
                         &b));
    tokenizer *t = NULL;
    status s = add_documents(p, o->build.threads, b);
    if (!s) s = bpe_trainer_finish(b, &t, NULL);
    if (!s) s = tokenizer_save(t, path);
    bpe_trainer_close(b);
    if (s)
        tokenizer_close(t);
    else
        *out = t;
    return s;
}

static status auto_tokenizer(const prepare_options *o, const char *path, tokenizer **out)
{
    if (path_exists(path)) {
        status damaged = tokenizer_open(path, out);
        if (!damaged) return OK;
        status_drop(damaged); // train it again
    }
    build_plan p = {0};
    status s = plan_find(&o->build, &p);
    if (!s) s = plan_cut(&o->build, NULL, 0, &p);
    if (!s) s = train_tokenizer(o, &p, path, out);
    plan_free(&p);
    return s;
}

/* ---- the data set */

static special_mode mode_of(const char *special)
{
    return !special || !strcmp(special, "plain") ? SPECIAL_PLAIN
           : !strcmp(special, "allowed")         ? SPECIAL_ALLOWED
                                                 : SPECIAL_FORBID;
}

static status build_in_cache(const prepare_options *o, const tokenizer *t, const char *name,
                             const char *shards, dataset **out)
{
    token_source source;
    build_options build = o->build;
    build.out = shards, build.replace = true; // the folder is ours, named by these paths and options
    TRY(token_source_open(t, name, mode_of(build.special), &source));
    status s = dataset_build(&build, &source, NULL);
    token_source_close(&source);
    return s ? s : dataset_open(shards, out);
}

static status prepare_text(const prepare_options *o, const sources *files, dataset **out)
{
    const bool given = o->tokenizer && strcmp(o->tokenizer, "auto");
    u64 tokenizer_key, shards_key;
    char *path = NULL, *shards = NULL;
    TRY(make_key(o, files, true, &tokenizer_key));
    TRY(make_key(o, files, false, &shards_key));
    TRY(dir_make(o->build.out));
    if (asprintf(&path, "%s/tokenizer-%016llx.json", o->build.out, (unsigned long long)tokenizer_key) < 0)
        return fail(ERR_MEMORY, "out of memory");
    if (asprintf(&shards, "%s/shards-%016llx", o->build.out, (unsigned long long)shards_key) < 0)
        return free(path), fail(ERR_MEMORY, "out of memory");
    tokenizer *t = NULL;
    const char *name = given ? o->tokenizer : path;
    status s = given ? tokenizer_open(name, &t) : auto_tokenizer(o, path, &t);
    if (!s) s = build_in_cache(o, t, name, shards, out);
    tokenizer_close(t);
    free(path);
    free(shards);
    return s;
}

static status open_shards_given(const prepare_options *o, dataset **out)
{
    dataset *d;
    tokenizer *t;
    TRY(dataset_open(o->build.train[0], &d));
    status s = OK;
    if (o->tokenizer && strcmp(o->tokenizer, "auto")) {
        s = tokenizer_open(o->tokenizer, &t);
        if (!s) {
            s = dataset_check_tokenizer(d, tokenizer_hash(t), o->tokenizer);
            tokenizer_close(t);
        }
    }
    if (s)
        dataset_close(d);
    else
        *out = d;
    return s;
}

status data_prepare(const prepare_options *o, dataset **out)
{
    if (o->build.train_count == 1 && dataset_is(o->build.train[0])) return open_shards_given(o, out);
    build_plan p = {0};
    status s = plan_find(&o->build, &p);
    if (!s) s = prepare_text(o, &p.files, out);
    plan_free(&p);
    return s;
}
