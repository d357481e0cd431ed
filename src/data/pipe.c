/* Batches of documents: see pipe.h. The text of a JSONL record is put where its line was, which is never
 * shorter. */
#include "data/pipe.h"
#include "data/jsonl.h"
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_BYTES = 8 << 20 };

typedef struct slot {
    pipe_document d;
    i64 at; // of the text in the batch
    status failed;
} slot;

typedef struct pipe_state {
    const pipe_options *o;
    slot *slot;
    i64 count, bytes, capacity; // documents and bytes of this batch
    u8 *text;
    i64 next, blank; // number of the next document; passed over
    int threads;
} pipe_state;

status pipe_where(status s, const pipe_document *d)
{
    if (!s) return OK;
    if (d->f->kind == SOURCE_JSONL) return wrap(s, "%s:%lld", d->f->path, (long long)d->line);
    return wrap(s, "%s: document at %s %lld", d->f->path, d->f->kind == SOURCE_TOKENS ? "token" : "byte",
                (long long)d->start);
}

static status keep(pipe_state *p, i64 file, const raw_document *raw)
{
    if (p->bytes + raw->bytes > p->capacity) {
        i64 capacity = MAX(p->bytes + raw->bytes, p->capacity * 2);
        u8 *bigger = fault_hit(FAULT_ALLOC) ? NULL : realloc(p->text, (size_t)capacity);
        if (!bigger)
            return fail(ERR_MEMORY, "%s: cannot allocate %.1f MiB for a document",
                        p->o->files->file[file].path, (double)capacity / (1 << 20));
        p->text = bigger, p->capacity = capacity;
    }
    memcpy(p->text + p->bytes, raw->data, (size_t)raw->bytes);
    p->slot[p->count++] = (slot){{.f = &p->o->files->file[file],
                                  .file = file,
                                  .bytes = raw->bytes,
                                  .start = raw->start,
                                  .line = raw->line},
                                 p->bytes,
                                 OK};
    p->bytes += (raw->bytes + 3) & ~(i64)3; // tokens lie at multiples of four
    return OK;
}

static status first_failure(pipe_state *p)
{
    status s = OK;
    for (i64 i = 0; i < p->count; i++) {
        if (s)
            status_drop(p->slot[i].failed);
        else
            s = pipe_where(p->slot[i].failed, &p->slot[i].d);
        p->slot[i].failed = OK;
    }
    return s;
}

static status find_texts(pipe_state *p)
{
    const char *field = p->o->rules->field ? p->o->rules->field : "text";
    bool any = false;
    for (i64 i = 0; i < p->count; i++) {
        p->slot[i].d.text = p->text + p->slot[i].at;
        any = any || p->slot[i].d.f->kind == SOURCE_JSONL;
    }
    if (!any) return OK;
#pragma omp parallel for schedule(dynamic, 8) num_threads(p->threads)
    for (i64 i = 0; i < p->count; i++) {
        pipe_document *d = &p->slot[i].d;
        if (d->f->kind != SOURCE_JSONL) continue;
        u8 *line = p->text + p->slot[i].at;
        p->slot[i].failed = jsonl_text(line, d->bytes, field, line, &d->bytes);
    }
    TRY(first_failure(p));
    i64 kept = 0;
    for (i64 i = 0; i < p->count; i++)
        if (p->slot[i].d.bytes) p->slot[kept++] = p->slot[i];
    p->blank += p->count - kept;
    p->count = kept;
    return OK;
}

static status run_batch(pipe_state *p)
{
    TRY(find_texts(p));
    for (i64 i = 0; i < p->count; i++) p->slot[i].d.number = p->next++;
    if (p->o->work) {
#pragma omp parallel for schedule(dynamic, 8) num_threads(p->threads)
        for (i64 i = 0; i < p->count; i++)
            p->slot[i].failed = p->o->work(p->o->context, omp_get_thread_num(), i, &p->slot[i].d);
        TRY(first_failure(p));
    }
    for (i64 i = 0; i < p->count; i++)
        TRY(pipe_where(p->o->take(p->o->context, i, &p->slot[i].d), &p->slot[i].d));
    p->count = p->bytes = 0;
    return OK;
}

static status read_file(pipe_state *p, i64 file, i64 done)
{
    document_reader *r;
    TRY(reader_open(&p->o->files->file[file], p->o->rules, &r));
    status s = OK;
    for (;;) {
        raw_document raw;
        s = reader_next(r, &raw);
        if (s || !raw.data) break;
        s = keep(p, file, &raw);
        if (!s && (p->bytes >= BATCH_BYTES || p->count == PIPE_DOCUMENTS)) {
            s = run_batch(p);
            if (!s && p->o->tell && !p->o->tell(p->o->context, done + reader_position(r)))
                s = fail(ERR_STOPPED, "stopped");
        }
        if (s) break;
    }
    reader_close(r);
    return s;
}

static status run_files(pipe_state *p)
{
    i64 done = 0;
    for (i64 i = 0; i < p->o->files->count; i++) {
        if (p->o->one_file && i != p->o->only) continue;
        TRY(read_file(p, i, done));
        done += p->o->files->file[i].bytes;
    }
    TRY(run_batch(p));
    if (p->o->tell && !p->o->tell(p->o->context, done)) return fail(ERR_STOPPED, "stopped");
    return OK;
}

status pipe_run(const pipe_options *o, i64 *blank)
{
    pipe_state p = {.o = o, .threads = o->threads > 0 ? o->threads : omp_get_max_threads()};
    TRY(mem_alloc(PIPE_DOCUMENTS * sizeof(slot), "a batch of documents", &p.slot));
    status s = run_files(&p);
    for (i64 i = 0; i < p.count; i++) status_drop(p.slot[i].failed);
    mem_free(p.slot);
    free(p.text);
    if (blank) *blank = p.blank;
    return s;
}
