/* keel data inspect: what is in a corpus, or in shards.
 *
 *     keel data inspect --tokenizer tokenizer.json corpus/
 */
#include "base/text.h"
#include "cli/data_parts.h"
#include "data/inspect.h"
#include "text/utf8.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/* S as one line of well-formed UTF-8: other bytes, and control characters, as \\n or \\xNN. */
static void add_printable(const char *s, i64 n, text *out)
{
    for (i64 i = 0, bytes; i < n; i += bytes) {
        const u8 *p = (const u8 *)s + i;
        bytes = (i64)utf8_character(p, (size_t)(n - i));
        if (*p == '\n' || *p == '\t' || *p == '\r')
            text_add(out, "\\%c", *p == '\n' ? 'n' : *p == '\t' ? 't' : 'r');
        else if (!bytes || *p < 0x20 || *p == 0x7f)
            text_add(out, "\\x%02x", *p), bytes = 1;
        else
            text_add_bytes(out, s + i, (size_t)bytes);
    }
}

static void print_count(const char *name, i64 x)
{
    if (x >= 0) printf("%-16s %lld\n", name, (long long)x);
}

static void print_lines(const inspection *r)
{
    print_count("files", r->files);
    print_count("documents", r->documents);
    print_count("bytes", r->bytes);
    print_count("tokens", r->tokens);
    if (r->tokens > 0) printf("%-16s %.4f\n", "bytes a token", (double)r->bytes / (double)r->tokens);
    if (r->blank) print_count("without text", r->blank);
    if (r->duplicates >= 0)
        printf("%-16s %lld (%.2f %% of the documents, but for white space)\n", "repeated",
               (long long)r->duplicates,
               r->documents ? 100.0 * (double)r->duplicates / (double)r->documents : 0);
    printf("%-16s %lld, %lld, %lld, %lld, %lld bytes: least, quarters, most\n", "lengths",
           (long long)r->quantile[0], (long long)r->quantile[1], (long long)r->quantile[2],
           (long long)r->quantile[3], (long long)r->quantile[4]);
    if (r->longest_where)
        printf("%-16s %s: %lld bytes", "longest", r->longest_where, (long long)r->quantile[4]);
    if (r->longest_where && r->longest_tokens >= 0) printf(", %lld tokens", (long long)r->longest_tokens);
    if (r->longest_where) putchar('\n');
    for (i64 i = 0; i < r->samples; i++) {
        const inspect_sample *s = &r->sample[i];
        text line = {0};
        add_printable(s->text, s->text_bytes, &line);
        printf("\n%s: %lld bytes", s->where, (long long)s->bytes);
        if (s->tokens >= 0) printf(", %lld tokens", (long long)s->tokens);
        printf("\n    %s%s\n", line.data ? line.data : "",
               s->bytes > s->text_bytes && s->text_bytes ? " ..." : "");
        text_free(&line);
    }
}

static json_t *sample_json(const inspect_sample *s)
{
    text line = {0};
    add_printable(s->text, s->text_bytes, &line);
    json_t *words = json_stringn(line.data ? line.data : "", line.bytes);
    text_free(&line);
    json_t *where = json_string(s->where);
    return json_pack("{s:o, s:o, s:I, s:I}", "where", where ? where : json_string("?"), "text",
                     words ? words : json_null(), "bytes", (json_int_t)s->bytes, "tokens",
                     (json_int_t)s->tokens);
}

static status print_json(const inspection *r)
{
    json_t *samples = json_array(), *lengths = json_array();
    for (i64 i = 0; i < r->samples; i++) json_array_append_new(samples, sample_json(&r->sample[i]));
    for (int q = 0; q < 5; q++) json_array_append_new(lengths, json_integer((json_int_t)r->quantile[q]));
    json_t *all =
        json_pack("{s:I, s:I, s:I, s:o, s:o, s:I, s:o, s:o, s:s?, s:o}", "files", (json_int_t)r->files,
                  "documents", (json_int_t)r->documents, "bytes", (json_int_t)r->bytes, "tokens",
                  r->tokens >= 0 ? json_integer((json_int_t)r->tokens) : json_null(), "bytes_per_token",
                  r->tokens > 0 ? json_real((double)r->bytes / (double)r->tokens) : json_null(), "blank",
                  (json_int_t)r->blank, "repeated",
                  r->duplicates >= 0 ? json_integer((json_int_t)r->duplicates) : json_null(),
                  "length_quarters", lengths, "longest", r->longest_where, "samples", samples);
    char *line = all ? json_dumps(all, JSON_REAL_PRECISION(9)) : NULL;
    json_decref(all);
    if (!line) return fail(ERR_MEMORY, "cannot build the JSON object");
    puts(line);
    free(line);
    return OK;
}

status data_look(data_args *a)
{
    tokenizer *t = NULL;
    token_source source = {0};
    inspection r;
    status s = a->tokenizer ? tokenizer_open(a->tokenizer, &t) : OK;
    if (!s && t) s = token_source_open(t, a->tokenizer, a->special, &source);
    if (!s) {
        s = data_inspect(&(inspect_options){.path = a->build.train,
                                            .paths = a->build.train_count,
                                            .document = a->build.document,
                                            .field = a->build.field,
                                            .tokens = t ? &source : NULL,
                                            .threads = a->build.threads,
                                            .samples = a->samples},
                         &r);
        if (!s) {
            if (a->json)
                s = print_json(&r);
            else
                print_lines(&r);
            inspection_free(&r);
        }
    }
    if (source.context) token_source_close(&source);
    tokenizer_close(t);
    return s;
}
