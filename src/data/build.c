/* Building a data set: plan, encode in batches on all cores, write shards in order, rename into place.
 *
 * The files are read twice (a pipe each time, see pipe.h): the plan's reading finds documents, chooses
 * validation and drops duplicates, this one encodes them. A document that is not what the plan saw is an
 * error. Documents are encoded in parallel, each by one thread, and appended in the order of the plan, so
 * that the result cannot depend on the number of threads. */
#define _GNU_SOURCE
#include "base/file.h"
#include "data/manifest.h"
#include "data/plan.h"
#include <dirent.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

static const i64 SHARD_TOKENS = (i64)1 << 25;

typedef struct encoded {
    i64 ids, count, bytes; // ids in the thread's buffer; bytes of text
    int thread;
} encoded;

typedef struct worker {
    void *encoder;
    i32 *ids;
    i64 count, capacity;
} worker;

typedef struct builder {
    const build_options *o;
    const token_source *t;
    const build_plan *plan;
    char *folder; // the temporary one
    manifest m;
    shard_builder *shard[DATA_SPLITS];
    worker *worker;
    int threads;
    i64 source; // whose tokens the open shard of the train split holds
    i64 done_documents, done_tokens;
    encoded *batch; // [PIPE_DOCUMENTS]
} builder;

/* ---- one document */

static status keep_ids(worker *w, const i32 *ids, i64 count, encoded *e)
{
    if (w->count + count > w->capacity) {
        i64 capacity = MAX(w->count + count, w->capacity * 2);
        i32 *bigger = realloc(w->ids, (size_t)capacity * sizeof *bigger);
        if (!bigger)
            return fail(ERR_MEMORY, "cannot allocate %.1f MiB for tokens", (double)capacity / (1 << 18));
        w->ids = bigger, w->capacity = capacity;
    }
    e->ids = w->count, e->count = count;
    if (count) memcpy(w->ids + w->count, ids, (size_t)count * sizeof *ids);
    w->count += count;
    return OK;
}

/* Tokens of another program's shard: theirs must be this tokenizer's. */
static status take_tokens(builder *b, worker *w, const u8 *data, i64 bytes, encoded *e)
{
    const i32 *ids = (const i32 *)(const void *)data;
    e->bytes = 0;
    for (i64 i = 0; i < bytes / 4; i++) {
        if (ids[i] < 0 || ids[i] >= b->t->vocab)
            return fail(ERR_INPUT,
                        "id %d at its token %lld, but the tokenizer has %lld: were they made by another?",
                        ids[i], (long long)i, (long long)b->t->vocab);
        e->bytes += b->t->token_bytes[ids[i]];
    }
    return keep_ids(w, ids, bytes / 4, e);
}

static status encode_text(builder *b, int thread, const pipe_document *d, const u8 *text, i64 bytes,
                          encoded *e)
{
    worker *w = &b->worker[thread];
    const i32 *ids;
    i64 count;
    *e = (encoded){.thread = thread, .bytes = bytes};
    if (d->f->kind == SOURCE_TOKENS) return take_tokens(b, w, text, bytes, e);
    TRY(b->t->encode(w->encoder, text, bytes, &ids, &count));
    for (i64 i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= b->t->vocab)
            return fail(ERR_INPUT, "the tokenizer gave id %d, but it has %lld", ids[i],
                        (long long)b->t->vocab);
    return keep_ids(w, ids, count, e);
}

static bool is_tail(const builder *b, const pipe_document *d)
{
    return b->plan->validation_is_tail && d->number == b->plan->tail;
}

static status encode_one(void *context, int thread, i64 slot, const pipe_document *d)
{
    builder *b = context;
    const plan_document *known = d->number < b->plan->count ? &b->plan->document[d->number] : NULL;
    if (!known || known->bytes != d->bytes || known->hash != XXH3_64bits(d->text, (size_t)d->bytes))
        return fail(ERR_INPUT, "it changed while being read; run again when it is complete");
    if (known->split == PLAN_DUPLICATE || is_tail(b, d)) return OK;
    return encode_text(b, thread, d, d->text, d->bytes, &b->batch[slot]);
}

static status close_shard(builder *b, data_split k)
{
    shard_builder *s = b->shard[k];
    manifest_shard entry = {.tokens = shard_builder_tokens(s),
                            .documents = shard_builder_documents(s),
                            .bytes = shard_builder_bytes(s),
                            .source = k == DATA_TRAIN ? b->source : 0};
    if (!entry.documents) return OK;
    char *path = shard_path(b->folder, k, b->m.split[k].count);
    if (!path) return fail(ERR_MEMORY, "out of memory");
    status failed = shard_write(s, path, b->m.info, &entry.hash);
    free(path);
    TRY(failed);
    return manifest_add_shard(&b->m, k, entry);
}

static status append(builder *b, data_split k, const encoded *e)
{
    const i64 limit = b->o->shard_tokens ? b->o->shard_tokens : SHARD_TOKENS;
    TRY(shard_add(b->shard[k], b->worker[e->thread].ids + e->ids, e->count, b->t->eos, e->bytes));
    b->done_documents++, b->done_tokens += e->count + 1;
    return shard_builder_tokens(b->shard[k]) >= limit ? close_shard(b, k) : OK;
}

/* The document whose end is the validation text: both parts here, on one thread. */
static status append_tail(builder *b, const pipe_document *d)
{
    const i64 cut = b->plan->tail_cut;
    encoded e;
    TRY(encode_text(b, 0, d, d->text, cut, &e));
    TRY(append(b, DATA_TRAIN, &e));
    TRY(encode_text(b, 0, d, d->text + cut, d->bytes - cut, &e));
    return append(b, DATA_VALIDATION, &e);
}

static status append_one(void *context, i64 slot, const pipe_document *d)
{
    builder *b = context;
    const i32 split = b->plan->document[d->number].split;
    if (split == PLAN_DUPLICATE) return OK;
    if (split == DATA_TRAIN && d->f->source != b->source) { // a shard holds one part of a mixture
        TRY(close_shard(b, DATA_TRAIN));
        b->source = d->f->source;
    }
    return is_tail(b, d) ? append_tail(b, d) : append(b, (data_split)split, &b->batch[slot]);
}

/* Behind a batch: its ids are all in shards. */
static bool tell(void *context, i64 bytes_done)
{
    builder *b = context;
    for (int i = 0; i < b->threads; i++) b->worker[i].count = 0;
    build_progress now = {"encoding", bytes_done, b->plan->files.bytes, b->done_documents, b->done_tokens};
    return !b->o->progress || b->o->progress(b->o->progress_context, &now);
}

static status encode_all(builder *b)
{
    status s = pipe_run(&(pipe_options){.files = &b->plan->files,
                                        .rules = &b->plan->rules,
                                        .threads = b->threads,
                                        .context = b,
                                        .work = encode_one,
                                        .take = append_one,
                                        .tell = tell},
                        NULL);
    if (s && s->code == ERR_STOPPED) {
        status_drop(s);
        return fail(ERR_STOPPED, "stopped; %s is as it was before", b->o->out);
    }
    TRY(s);
    const i64 planned = b->plan->count - b->plan->duplicates + b->plan->validation_is_tail;
    if (b->done_documents != planned)
        return fail(ERR_INPUT,
                    "%s: %lld documents were read, %lld before: the files changed; run again when they are "
                    "complete",
                    b->plan->files.file[0].path, (long long)b->done_documents, (long long)planned);
    for (int k = 0; k < DATA_SPLITS; k++) TRY(close_shard(b, k));
    return OK;
}

/* ---- the folder */

static status write_folder(builder *b)
{
    TRY(encode_all(b));
    char *tokenizer = NULL, *lengths = NULL;
    if (asprintf(&tokenizer, "%s/tokenizer.json", b->folder) < 0) return fail(ERR_MEMORY, "out of memory");
    if (asprintf(&lengths, "%s/token-bytes.bin", b->folder) < 0)
        return free(tokenizer), fail(ERR_MEMORY, "out of memory");
    file_writer *w;
    status s = b->t->save(b->t->context, tokenizer);
    if (!s) s = file_hash(tokenizer, &b->m.tokenizer_file);
    if (!s) s = file_create(lengths, &w);
    if (!s) s = file_write(w, b->t->token_bytes, (size_t)b->t->vocab * sizeof(i32));
    if (!s) s = file_commit(w);
    if (!s) s = file_hash(lengths, &b->m.token_bytes_file);
    if (!s) s = manifest_write(b->folder, &b->m);
    free(tokenizer);
    free(lengths);
    return s ? s : dir_sync(b->folder);
}

static status builder_open(builder *b)
{
    b->m.info = (shard_info){b->t->hash, b->t->vocab, b->t->eos};
    b->threads = b->o->threads > 0 ? b->o->threads : omp_get_max_threads();
    TRY(mem_alloc((size_t)b->threads * sizeof(worker), "encoders", &b->worker));
    TRY(mem_alloc(PIPE_DOCUMENTS * sizeof(encoded), "a batch of documents", &b->batch));
    for (int i = 0; i < b->threads; i++) TRY(b->t->open(b->t->context, &b->worker[i].encoder));
    for (int k = 0; k < DATA_SPLITS; k++) TRY(shard_builder_open(shard_width(b->t->vocab), &b->shard[k]));
    return OK;
}

static void builder_close(builder *b)
{
    for (int i = 0; b->worker && i < b->threads; i++) {
        b->t->close(b->worker[i].encoder);
        free(b->worker[i].ids);
    }
    for (int k = 0; k < DATA_SPLITS; k++) shard_builder_close(b->shard[k]);
    manifest_free(&b->m);
    mem_free(b->worker);
    mem_free(b->batch);
}

/* A string of JSON; one that is not UTF-8 gets its bytes from 128 on as \xNN. NULL without memory. */
static json_t *json_bytes(const char *s)
{
    json_t *j = json_string(s);
    if (j) return j;
    char *escaped = calloc(strlen(s) + 1, 4), *out = escaped;
    for (const u8 *p = (const u8 *)s; escaped && *p; p++)
        out += sprintf(out, *p < 128 ? "%c" : "\\x%02x", *p);
    j = escaped ? json_string(escaped) : NULL;
    free(escaped);
    return j;
}

/* Everything the content depends on, and the dates by which a changed file is noticed. */
static json_t *make_recipe(const build_options *o, const token_source *t, const sources *files)
{
    char hash[17];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)t->hash);
    json_t *list = json_array();
    for (i64 i = 0; i < files->count; i++) {
        const source_file *f = &files->file[i];
        json_array_append_new(
            list, json_pack("{s:o, s:I, s:I, s:s, s:I}", "path", json_bytes(f->path), "bytes",
                            (json_int_t)f->bytes, "modified_ns", (json_int_t)f->modified_ns, "split",
                            data_split_name[f->validation], "source", (json_int_t)f->source));
    }
    return json_pack("{s:o, s:o, s:o, s:s, s:s, s:s, s:I, s:o}", "document",
                     json_bytes(o->document ? o->document : "auto"), "validation",
                     json_bytes(o->validation ? o->validation : "1%"), "field",
                     json_bytes(o->field && *o->field ? o->field : "text"), "dedup",
                     o->dedup ? o->dedup : "none", "special", o->special ? o->special : "plain", "tokenizer",
                     hash, "shard_tokens", (json_int_t)(o->shard_tokens ? o->shard_tokens : SHARD_TOKENS),
                     "files", list);
}

static void fill_result(build_result *r, const build_plan *p, const manifest *m)
{
    *r = (build_result){.reused = r->reused,
                        .files = p->files.count,
                        .empty = p->files.empty,
                        .binary = p->files.binary,
                        .hidden = p->files.hidden,
                        .blank = p->blank,
                        .duplicates = p->duplicates,
                        .validation_is_tail = p->validation_is_tail};
    for (int k = 0; k < DATA_SPLITS; k++)
        r->documents[k] = m->split[k].documents, r->tokens[k] = m->split[k].tokens,
        r->bytes[k] = m->split[k].bytes;
}

static bool folder_is_empty(const char *path)
{
    DIR *folder = opendir(path);
    if (!folder) return false;
    bool empty = true;
    for (struct dirent *e; (e = readdir(folder));)
        empty = empty && (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."));
    closedir(folder);
    return empty;
}

static bool holds_recipe(const char *folder, json_t *recipe, manifest *out)
{
    status s = dataset_is(folder) ? manifest_read(folder, out) : fail(ERR_INPUT, "no data set");
    const bool equal = !s && json_equal(out->recipe, recipe);
    if (!s && !equal) manifest_free(out);
    status_drop(s); // damaged is as good as absent
    return equal;
}

/* What stands in OUT's place: reused in *r if it is what would be built and undamaged. *replace: it is to
 * make way (because the user said so, or because it is a damaged copy of what would be built). */
static status check_out(const build_options *o, json_t *recipe, const build_plan *p, build_result *r,
                        bool *replace)
{
    *replace = false;
    if (!path_exists(o->out) || folder_is_empty(o->out)) return OK;
    if (!path_is_dir(o->out))
        return fail(ERR_INPUT, "%s: in the way: a file, not a folder; name another folder for the data",
                    o->out);
    if (!dataset_is(o->out))
        return fail(ERR_INPUT,
                    "%s: in the way: a folder with other things in it; name a new folder for the data",
                    o->out);
    manifest old;
    dataset *d;
    *replace = o->replace;
    if (holds_recipe(o->out, recipe, &old)) {
        fill_result(r, p, &old);
        manifest_free(&old);
        status damaged = dataset_open(o->out, &d);
        r->reused = !damaged;
        *replace = damaged;
        if (!damaged) dataset_close(d);
        status_drop(damaged);
        return OK;
    }
    if (o->replace) return OK;
    return fail(ERR_INPUT,
                "%s: already holds data built from other files or in another way; name another folder, or "
                "replace it with --force",
                o->out);
}

/* Puts FOLDER in OUT's place, where at most an empty folder is. If another process has just built the same
 * there, its work is as good as ours. */
static status move_in(const char *folder, const char *out, json_t *recipe)
{
    manifest theirs;
    status s = path_rename(folder, out);
    if (!s || !holds_recipe(out, recipe, &theirs)) return s;
    manifest_free(&theirs);
    status_drop(s);
    return tree_remove(folder);
}

/* Puts FOLDER in the place of the data set OUT, which steps aside first and comes back if that fails. */
static status move_in_replacing(const char *folder, const char *out)
{
    char *aside = NULL;
    if (asprintf(&aside, "%s.old-%ld", out, (long)getpid()) < 0) return fail(ERR_MEMORY, "out of memory");
    status s = path_rename(out, aside);
    if (!s) {
        s = path_rename(folder, out);
        if (s)
            status_drop(path_rename(aside, out));
        else
            s = tree_remove(aside);
    }
    free(aside);
    return s;
}

static status move_into_place(const char *folder, const char *out, json_t *recipe, bool replace)
{
    char *parent = strdup(out);
    if (!parent) return fail(ERR_MEMORY, "out of memory");
    status s = replace ? move_in_replacing(folder, out) : move_in(folder, out, recipe);
    char *slash = strrchr(parent, '/');
    if (slash) slash[slash == parent] = 0;
    if (!s) s = dir_sync(slash ? parent : ".");
    free(parent);
    return s;
}

static status check_source(const build_options *o, const token_source *t)
{
    if (!o->out || !*o->out) return fail(ERR_INPUT, "no folder for the data; name one");
    if (t->vocab < 2 || t->vocab > INT32_MAX || t->eos < 0 || t->eos >= t->vocab)
        return fail(ERR_INPUT,
                    "the tokenizer has %lld ids and end of text %d; it must have 2 ids or more and an end of "
                    "text among them",
                    (long long)t->vocab, t->eos);
    if (o->shard_tokens < 0)
        return fail(ERR_CONFIG, "shard_tokens is %lld; it must be positive", (long long)o->shard_tokens);
    return OK;
}

static status build_into(const build_options *o, const token_source *t, const build_plan *p, json_t *recipe,
                         const char *out, bool replace, build_result *r)
{
    builder b = {.o = o, .t = t, .plan = p};
    if (asprintf(&b.folder, "%s.tmp-%ld", out, (long)getpid()) < 0) return fail(ERR_MEMORY, "out of memory");
    status s = tree_remove(b.folder);
    if (!s) s = dir_make(b.folder);
    if (!s) s = builder_open(&b);
    if (!s) b.m.recipe = json_incref(recipe);
    if (!s) s = write_folder(&b);
    if (!s) s = move_into_place(b.folder, out, recipe, replace);
    if (s)
        status_drop(tree_remove(b.folder));
    else
        fill_result(r, p, &b.m);
    builder_close(&b);
    free(b.folder);
    return s;
}

status dataset_build(const build_options *o, const token_source *t, build_result *result)
{
    build_plan plan = {0};
    build_result r = {0};
    TRY(check_source(o, t));
    char *out = strdup(o->out); // without slashes at the end: names are made from it
    if (!out) return fail(ERR_MEMORY, "out of memory");
    for (size_t n = strlen(out); n > 1 && out[n - 1] == '/';) out[--n] = 0;
    json_t *recipe = NULL;
    bool replace = false;
    status s = plan_find(o, &plan);
    if (!s && !(recipe = make_recipe(o, t, &plan.files))) s = fail(ERR_MEMORY, "out of memory");
    if (!s) s = check_out(o, recipe, &plan, &r, &replace);
    const i32 *ends = t->ends ? t->ends : &t->eos;
    if (!s && !r.reused) s = plan_cut(o, ends, t->ends ? t->end_count : 1, &plan);
    if (!s && !r.reused) s = build_into(o, t, &plan, recipe, out, replace, &r);
    if (!s && result) *result = r;
    if (recipe) json_decref(recipe);
    plan_free(&plan);
    free(out);
    return s;
}
