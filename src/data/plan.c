/* Planning a build: files, documents, and which of them are for validation.
 *
 * A document is validation if its hash, read as a fraction of 2^64, is below data.validation: the choice
 * depends on nothing but the text. In a small corpus perhaps no document is chosen; then the end of the
 * longest one is cut off as the validation document, the same share of all bytes (at most half of it), at a
 * line if there is one.
 */
#include "data/plan.h"
#include "base/text.h"
#include "data/dedup.h"
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

status validation_parse(const char *value, double *share, bool *is_path)
{
    char number[32];
    const size_t n = strlen(value);
    *is_path = false, *share = 0;
    if (!strcmp(value, "0") || !strcmp(value, "none")) return OK;
    if (n < 2 || n > sizeof number || value[n - 1] != '%') return *is_path = true, OK;
    memcpy(number, value, n - 1);
    number[n - 1] = 0;
    double percent;
    if (!parse_double(number, &percent)) return *is_path = true, OK;
    if (!(percent >= 0 && percent <= 50))
        return fail(ERR_CONFIG, "data.validation is %s; it must be from 0%% to 50%% (usual: 1%%), or a path",
                    value);
    *share = percent / 100;
    return OK;
}

status plan_find(const build_options *o, build_plan *p)
{
    double share;
    bool is_path;
    const char *validation = o->validation ? o->validation : "1%";
    TRY(validation_parse(validation, &share, &is_path));
    if (!o->train_count) return fail(ERR_INPUT, "no corpus; name files or folders of text");
    for (i64 i = 0; i < o->train_count; i++) {
        p->files.source = o->mixture ? i : 0;
        TRY(sources_find(&p->files, o->train[i], false));
    }
    p->files.source = 0;
    if (is_path) TRY(wrap(sources_find(&p->files, validation, true), "data.validation"));
    if (p->files.count > UINT32_MAX) return fail(ERR_INPUT, "over 2^32 files; join some");
    TRY(cut_rule_parse(o->document ? o->document : "auto", &p->rules.cut));
    p->rules.field = o->field && *o->field ? o->field : "text";
    return OK;
}

/* ---- the first reading */

typedef struct planner {
    build_plan *p;
    const build_options *o;
    double share;
    bool by_hash;
    u64 *hash; // [PIPE_DOCUMENTS], of this batch
    deduper *dedup;
} planner;

static status hash_one(void *context, int thread, i64 slot, const pipe_document *d)
{
    planner *w = context;
    w->hash[slot] = XXH3_64bits(d->text, (size_t)d->bytes);
    return w->dedup ? deduper_look(w->dedup, thread, slot, d->text, d->bytes, d->f->kind == SOURCE_TOKENS)
                    : OK;
}

static status add_document(void *context, i64 slot, const pipe_document *d)
{
    planner *w = context;
    build_plan *p = w->p;
    if (p->count == p->capacity) {
        i64 capacity = p->capacity ? p->capacity * 2 : 1024;
        plan_document *bigger = realloc(p->document, (size_t)capacity * sizeof *bigger);
        if (!bigger) return fail(ERR_MEMORY, "out of memory after %lld documents", (long long)p->count);
        p->document = bigger, p->capacity = capacity;
    }
    bool held_out = w->by_hash ? (double)(w->hash[slot] >> 11) * 0x1p-53 < w->share : d->f->validation;
    p->document[p->count++] =
        (plan_document){d->bytes, w->hash[slot], (u32)d->file, held_out ? DATA_VALIDATION : DATA_TRAIN};
    p->bytes += d->bytes;
    return w->dedup ? deduper_keep(w->dedup, slot) : OK;
}

static bool tell(void *context, i64 bytes_done)
{
    planner *w = context;
    build_progress now = {"reading", bytes_done, w->p->files.bytes, w->p->count, 0};
    return !w->o->progress || w->o->progress(w->o->progress_context, &now);
}

/* ---- no document fell into validation */

/* Where to cut the last SHARE of [0, n): behind a newline near it, else between two UTF-8 characters. */
static i64 tail_start(const u8 *text, i64 n, i64 tail)
{
    i64 cut = n - MAX(tail, (i64)1);
    for (i64 at = cut; at > 0 && at > cut - (1 << 16); at--)
        if (text[at - 1] == '\n') return at;
    while (cut < n && (text[cut] & 0xc0) == 0x80) cut++;
    return cut;
}

typedef struct tail_finder {
    build_plan *p;
    i64 number; // in its file
    i64 bytes;  // wanted
    bool found;
} tail_finder;

static status cut_tail(void *context, i64 slot, const pipe_document *d)
{
    tail_finder *w = context;
    (void)slot;
    if (d->number != w->number) return OK;
    i64 cut = tail_start(d->text, d->bytes, w->bytes);
    if (d->f->kind == SOURCE_TOKENS) cut = (d->bytes - w->bytes) & ~(i64)3;
    w->found = cut > 0 && cut < d->bytes;
    if (w->found) w->p->tail_cut = cut, w->p->validation_is_tail = true;
    return OK;
}

static status hold_out_tail(const build_options *o, build_plan *p, double share)
{
    i64 longest = 0;
    for (i64 i = 0; i < p->count; i++)
        if (p->document[i].split == DATA_TRAIN && p->document[i].bytes > p->document[longest].bytes)
            longest = i;
    i64 first = longest;
    while (first && p->document[first - 1].file == p->document[longest].file) first--;
    const i64 bytes = p->document[longest].bytes;
    tail_finder w = {p, longest - first, MIN((i64)(share * (double)p->bytes), bytes / 2), false};
    p->tail = longest;
    return pipe_run(&(pipe_options){.files = &p->files,
                                    .rules = &p->rules,
                                    .threads = o->threads,
                                    .one_file = true,
                                    .only = p->document[longest].file,
                                    .context = &w,
                                    .take = cut_tail},
                    NULL);
}

static status no_text(const build_options *o, const build_plan *p, const i64 *count, bool is_path)
{
    const char *first = p->files.file[0].path;
    if (count[DATA_VALIDATION] && !is_path)
        return fail(ERR_INPUT,
                    "%s: all %lld documents fell into validation; lower data.validation or give more text",
                    first, (long long)p->count);
    return fail(ERR_INPUT,
                "%s: no document in %lld files; with data.document = %s there is nothing but blank text",
                first, (long long)p->files.count, o->document ? o->document : "auto");
}

static status read_once(const build_options *o, build_plan *p, double share, bool by_hash)
{
    planner w = {.p = p, .o = o, .share = share, .by_hash = by_hash};
    status s = mem_alloc(PIPE_DOCUMENTS * sizeof *w.hash, "hashes", &w.hash);
    if (!s) s = deduper_open(o->dedup, o->threads, &w.dedup);
    if (!s)
        s = pipe_run(&(pipe_options){.files = &p->files,
                                     .rules = &p->rules,
                                     .threads = o->threads,
                                     .context = &w,
                                     .work = hash_one,
                                     .take = add_document,
                                     .tell = tell},
                     &p->blank);
    if (s && s->code == ERR_STOPPED) {
        status_drop(s);
        s = fail(ERR_STOPPED, "stopped; nothing was written");
    }
    u8 *drop = NULL;
    if (!s && w.dedup) s = deduper_finish(w.dedup, &drop);
    for (i64 i = 0; !s && drop && i < p->count; i++)
        if (drop[i]) p->document[i].split = PLAN_DUPLICATE, p->duplicates++;
    mem_free(drop);
    deduper_close(w.dedup);
    mem_free(w.hash);
    return s;
}

status plan_cut(const build_options *o, const i32 *ends, i64 n, build_plan *p)
{
    double share;
    bool is_path;
    TRY(validation_parse(o->validation ? o->validation : "1%", &share, &is_path));
    for (i64 i = 0; !n && i < p->files.count; i++)
        if (p->files.file[i].kind == SOURCE_TOKENS)
            return fail(ERR_INPUT,
                        "%s: it holds tokens, not text; name the tokenizer that made them (data.tokenizer)",
                        p->files.file[i].path);
    p->rules.ends = ends, p->rules.end_count = n;
    TRY(read_once(o, p, share, !is_path));
    i64 count[DATA_SPLITS + 1] = {0};
    for (i64 i = 0; i < p->count; i++) count[p->document[i].split]++;
    if (!count[DATA_TRAIN]) return no_text(o, p, count, is_path);
    return !is_path && share > 0 && !count[DATA_VALIDATION] ? hold_out_tail(o, p, share) : OK;
}

void plan_free(build_plan *p)
{
    sources_free(&p->files);
    free(p->document);
    *p = (build_plan){0};
}
