/* Reading documents: see reader.h. The window doubles when the document at hand does not fit, so that a
 * document is looked through at most twice as often as it has bytes. */
#include "data/reader.h"
#include "data/jsonl.h"
#include "data/stream.h"
#include "data/token_file.h"
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 2 << 20 };
static const i64 LONGEST_LINE = (i64)1 << 30, MOST_TOKENS = (i64)1 << 27;

struct document_reader {
    const source_file *f;
    const read_rules *rules;
    cut_rule cut; // with auto decided
    byte_stream *stream;
    token_file *tokens;
    u8 *window;
    i64 capacity, at, have; // the window holds [at, have) of the text not yet given out
    i64 base;               // where in the text the window starts
    i64 line, read;
    bool end; // of the file: the window holds its last byte
    i32 *id;
    i64 id_capacity;
};

status reader_open(const source_file *f, const read_rules *rules, document_reader **out)
{
    document_reader *r;
    TRY(mem_alloc(sizeof *r, "a reader", &r));
    r->f = f, r->rules = rules, r->cut = rules->cut;
    status s =
        f->kind == SOURCE_TOKENS ? token_file_open(f->path, &r->tokens) : stream_open(f->path, &r->stream);
    if (s)
        reader_close(r);
    else
        *out = r;
    return s;
}

void reader_close(document_reader *r)
{
    if (!r) return;
    stream_close(r->stream);
    token_file_close(r->tokens);
    free(r->window);
    free(r->id);
    mem_free(r);
}

i64 reader_position(const document_reader *r)
{
    if (!r->tokens) return stream_position(r->stream);
    i64 all = MAX(token_file_tokens(r->tokens), (i64)1);
    return (i64)((double)token_file_position(r->tokens) / (double)all * (double)r->f->bytes);
}

static status no_memory(const document_reader *r, i64 bytes)
{
    return fail(ERR_MEMORY, "%s: cannot allocate %.1f MiB for a document", r->f->path,
                (double)bytes / (1 << 20));
}

/* More of the text into the window. */
static status fill(document_reader *r)
{
    if (r->at) {
        memmove(r->window, r->window + r->at, (size_t)(r->have - r->at));
        r->base += r->at, r->have -= r->at, r->at = 0;
    }
    if (r->have == r->capacity) {
        i64 capacity = MAX(2 * r->capacity, (i64)WINDOW);
        u8 *bigger = fault_hit(FAULT_ALLOC) ? NULL : realloc(r->window, (size_t)capacity);
        if (!bigger) return no_memory(r, capacity);
        r->window = bigger, r->capacity = capacity;
    }
    while (!r->end && r->have < r->capacity) {
        size_t got;
        TRY(stream_read(r->stream, r->window + r->have, (size_t)(r->capacity - r->have), &got));
        r->have += (i64)got, r->read += (i64)got;
        r->end = !got;
    }
    if (r->end && !packing_of(r->f->path) && r->read != r->f->bytes)
        return fail(ERR_INPUT, "%s: changed while being read; run again when it is complete", r->f->path);
    return OK;
}

/* auto is decided by the size of the text, which a packed file does not tell. */
static status decide(document_reader *r)
{
    while (!r->end && r->have - r->at <= CUT_AUTO_BYTES) TRY(fill(r));
    r->cut.kind = r->have - r->at > CUT_AUTO_BYTES ? CUT_UNINDENTED : CUT_FILE;
    return OK;
}

static status next_text(document_reader *r, raw_document *out)
{
    if (r->cut.kind == CUT_AUTO) TRY(decide(r));
    for (;;) {
        i64 at = 0, start, end;
        const i64 bytes = r->have - r->at;
        bool whole = r->cut.kind != CUT_FILE || r->end;
        bool found = whole && bytes && document_next(r->cut, r->window + r->at, bytes, &at, &start, &end);
        if (found && (r->end || at < bytes)) { // what follows was seen, so the cut stands
            *out = (raw_document){r->window + r->at + start, end - start, r->base + r->at + start, 0};
            r->at += at;
            return OK;
        }
        if (r->end) return OK;
        TRY(fill(r));
    }
}

static status next_line(document_reader *r, raw_document *out)
{
    i64 seen = 0; // bytes of the window without a newline
    for (;;) {
        const u8 *from = r->window ? r->window + r->at : NULL;
        const i64 bytes = r->have - r->at;
        const u8 *newline = bytes > seen ? memchr(from + seen, '\n', (size_t)(bytes - seen)) : NULL;
        if (newline || (r->end && bytes)) {
            i64 length = newline ? newline - from : bytes;
            const i64 mark = !r->base && !r->at && length >= 3 && !memcmp(from, "\xEF\xBB\xBF", 3) ? 3 : 0;
            *out = (raw_document){from + mark, length - mark, r->base + r->at, ++r->line};
            r->at += length + (newline != NULL);
            seen = 0;
            if (!jsonl_is_blank(out->data, out->bytes)) return OK;
            continue;
        }
        *out = (raw_document){0};
        if (r->end) return OK;
        if (bytes > LONGEST_LINE)
            return fail(ERR_INPUT, "%s:%lld: a line over 1 GiB: is it JSONL?", r->f->path,
                        (long long)r->line + 1);
        seen = bytes;
        TRY(fill(r));
    }
}

static status next_tokens(document_reader *r, raw_document *out)
{
    i64 at, count;
    if (!token_file_next(r->tokens, r->rules->ends, r->rules->end_count, &at, &count)) return OK;
    if (count > MOST_TOKENS)
        return fail(
            ERR_INPUT,
            "%s: a document of %lld tokens at token %lld; at most %lld: is its end-of-text token another?",
            r->f->path, (long long)count, (long long)at, (long long)MOST_TOKENS);
    if (count > r->id_capacity) {
        i32 *bigger = fault_hit(FAULT_ALLOC) ? NULL : realloc(r->id, (size_t)count * sizeof *bigger);
        if (!bigger) return no_memory(r, count * 4);
        r->id = bigger, r->id_capacity = count;
    }
    token_file_read(r->tokens, at, count, r->id);
    *out = (raw_document){(const u8 *)r->id, count * 4, at, 0};
    return OK;
}

status reader_next(document_reader *r, raw_document *out)
{
    *out = (raw_document){0};
    return r->f->kind == SOURCE_TOKENS  ? next_tokens(r, out)
           : r->f->kind == SOURCE_JSONL ? next_line(r, out)
                                        : next_text(r, out);
}
