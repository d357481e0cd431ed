/* Planning a build: files, documents, and which of them are for validation.
 *
 * A document is validation if its hash, read as a fraction of 2^64, is below data.validation: the choice
 * depends on nothing but the text. In a small corpus perhaps no document is chosen; then the end of the
 * longest one is cut off as the validation document, the same share of all bytes (at most half of it), at a
 * line if there is one.
 */
#include "data/plan.h"
#include "base/file.h"
#include "base/text.h"
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
    for (i64 i = 0; i < o->train_count; i++) TRY(sources_find(&p->files, o->train[i], false));
    if (is_path) TRY(wrap(sources_find(&p->files, validation, true), "data.validation"));
    if (p->files.count > UINT32_MAX) return fail(ERR_INPUT, "over 2^32 files; join some");
    return OK;
}

static status add_document(build_plan *p, plan_document d)
{
    if (p->count == p->capacity) {
        i64 capacity = p->capacity ? p->capacity * 2 : 1024;
        plan_document *bigger = realloc(p->document, (size_t)capacity * sizeof *bigger);
        if (!bigger) return fail(ERR_MEMORY, "out of memory after %lld documents", (long long)p->count);
        p->document = bigger, p->capacity = capacity;
    }
    p->document[p->count++] = d;
    p->bytes += d.bytes;
    return OK;
}

static status cut_file(build_plan *p, i64 file, cut_rule rule, double share, bool by_hash)
{
    const source_file *f = &p->files.file[file];
    file_map map;
    TRY(file_map_open(f->path, &map));
    status s = OK;
    if ((i64)map.bytes != f->bytes)
        s = fail(ERR_INPUT, "%s: changed while being read; run again when it is complete", f->path);
    i64 at = 0, start, end;
    while (!s && document_next(rule, map.data, (i64)map.bytes, &at, &start, &end)) {
        u64 hash = XXH3_64bits(map.data + start, (size_t)(end - start));
        bool held_out = by_hash ? (double)(hash >> 11) * 0x1p-53 < share : f->validation;
        s = add_document(
            p, (plan_document){start, end - start, hash, (u32)file, held_out ? DATA_VALIDATION : DATA_TRAIN});
    }
    file_map_close(&map);
    return s;
}

/* Where to cut the last SHARE of [0, n): behind a newline near it, else between two UTF-8 characters. */
static i64 tail_start(const u8 *text, i64 n, i64 tail)
{
    i64 cut = n - MAX(tail, (i64)1);
    for (i64 at = cut; at > 0 && at > cut - (1 << 16); at--)
        if (text[at - 1] == '\n') return at;
    while (cut < n && (text[cut] & 0xc0) == 0x80) cut++;
    return cut;
}

static status hold_out_tail(build_plan *p, double share)
{
    i64 longest = 0;
    for (i64 i = 0; i < p->count; i++)
        if (p->document[i].bytes > p->document[longest].bytes) longest = i;
    plan_document whole = p->document[longest];
    file_map map;
    TRY(file_map_open(p->files.file[whole.file].path, &map));
    i64 cut = 0;
    if ((i64)map.bytes >= whole.start + whole.bytes)
        cut = tail_start(map.data + whole.start, whole.bytes,
                         MIN((i64)(share * (double)p->bytes), whole.bytes / 2));
    status s = OK;
    if (cut > 0 && cut < whole.bytes) {
        s = add_document(p, (plan_document){0});
        if (!s) {
            plan_document *d = &p->document[longest];
            memmove(d + 2, d + 1, (size_t)(p->count - longest - 2) * sizeof *d);
            d[0].bytes = cut;
            d[0].hash = XXH3_64bits(map.data + whole.start, (size_t)cut);
            d[1] = (plan_document){whole.start + cut, whole.bytes - cut, 0, whole.file, DATA_VALIDATION};
            d[1].hash = XXH3_64bits(map.data + d[1].start, (size_t)d[1].bytes);
            p->validation_is_tail = true;
        }
    }
    file_map_close(&map);
    return s;
}

status plan_cut(const build_options *o, build_plan *p)
{
    cut_rule rule;
    double share;
    bool is_path;
    TRY(cut_rule_parse(o->document ? o->document : "auto", &rule));
    TRY(validation_parse(o->validation ? o->validation : "1%", &share, &is_path));
    i64 done = 0, count[DATA_SPLITS] = {0};
    for (i64 i = 0; i < p->files.count; i++) {
        TRY(cut_file(p, i, rule, share, !is_path));
        done += p->files.file[i].bytes;
        build_progress now = {"reading", done, p->files.bytes, p->count, 0};
        if (o->progress && !o->progress(o->progress_context, &now))
            return fail(ERR_STOPPED, "stopped; nothing was written");
    }
    for (i64 i = 0; i < p->count; i++) count[p->document[i].split]++;
    if (!is_path && share > 0 && count[DATA_TRAIN] && !count[DATA_VALIDATION]) return hold_out_tail(p, share);
    const char *first = p->files.file[0].path;
    if (!count[DATA_TRAIN] && count[DATA_VALIDATION] && !is_path)
        return fail(ERR_INPUT,
                    "%s: all %lld documents fell into validation; lower data.validation or give more text",
                    first, (long long)p->count);
    if (!count[DATA_TRAIN])
        return fail(ERR_INPUT,
                    "%s: no document in %lld files; with data.document = %s there is nothing but blank text",
                    first, (long long)p->files.count, o->document ? o->document : "auto");
    return OK;
}

void plan_free(build_plan *p)
{
    sources_free(&p->files);
    free(p->document);
    *p = (build_plan){0};
}
