/* keel tokenizer compare: two tokenizers on one text, side by side.
 *
 *     keel tokenizer compare gpt2.json mine.json corpus/held-out.txt
 */
#include "cli/tokenizer_parts.h"
#include "data/pipe.h"
#include "text/compare.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

typedef struct side {
    const char *path;
    tokenizer *t;
    encoder *e;
    u8 *used; // [vocab]
    i64 used_count;
    fertility f;
} side;

static status side_open(side *s)
{
    TRY(tokenizer_open(s->path, &s->t));
    TRY(encoder_open(s->t, &s->e));
    return mem_alloc((size_t)tokenizer_vocab(s->t), "ids", &s->used);
}

static void side_close(side *s)
{
    encoder_close(s->e);
    tokenizer_close(s->t);
    mem_free(s->used);
}

static double over(double a, double b) { return b > 0 ? a / b : 0; }

static status compare_document(void *sides, i64 slot, const pipe_document *d)
{
    side *s = sides;
    (void)slot;
    for (int k = 0; k < 2; k++)
        TRY(wrap(fertility_add(&s[k].f, s[k].e, s[k].t, (const char *)d->text, (size_t)d->bytes, s[k].used),
                 "%s", s[k].path));
    return OK;
}

static status measure(side s[2], char **paths, int n)
{
    sources files = {0};
    read_rules rules = {.cut = {.kind = CUT_AUTO}};
    status failed = OK;
    for (int i = 0; !failed && i < n; i++) failed = sources_find(&files, paths[i], false);
    for (i64 i = 0; !failed && i < files.count; i++)
        if (files.file[i].kind == SOURCE_TOKENS)
            failed = fail(ERR_INPUT, "%s: it holds tokens, not text", files.file[i].path);
    if (!failed)
        failed = pipe_run(
            &(pipe_options){.files = &files, .rules = &rules, .context = s, .take = compare_document}, NULL);
    sources_free(&files);
    TRY(failed);
    if (!s[0].f.bytes) return fail(ERR_INPUT, "%s: no text in it", paths[0]);
    for (int k = 0; k < 2; k++)
        for (i64 id = 0; id < tokenizer_vocab(s[k].t); id++) s[k].used_count += s[k].used[id];
    return OK;
}

static json_t *side_json(const side *s)
{
    const fertility *f = &s->f;
    return json_pack("{s:s, s:I, s:I, s:s, s:I, s:f, s:f, s:f, s:I, s:f}", "file", s->path, "vocab",
                     (json_int_t)tokenizer_vocab(s->t), "merges", (json_int_t)tokenizer_merges(s->t),
                     "pattern", tokenizer_pattern(s->t), "tokens", (json_int_t)f->tokens, "bytes_per_token",
                     over((double)f->bytes, (double)f->tokens), "tokens_per_word",
                     over((double)f->tokens, (double)f->words), "words_whole",
                     over((double)f->whole, (double)f->words), "ids_used", (json_int_t)s->used_count,
                     "mb_per_second", over((double)f->bytes / 1e6, f->seconds));
}

static status print_json(const side s[2], i64 shared)
{
    json_t *all = json_pack("{s:I, s:I, s:I, s:I, s:[o, o]}", "bytes", (json_int_t)s[0].f.bytes, "characters",
                            (json_int_t)s[0].f.characters, "words", (json_int_t)s[0].f.words, "ids_shared",
                            (json_int_t)shared, "tokenizers", side_json(&s[0]), side_json(&s[1]));
    if (!all) return fail(ERR_MEMORY, "out of memory");
    json_dumpf(all, stdout, JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(all);
    return OK;
}

static void row(const char *name, const char *format, double a, double b)
{
    char text[2][32];
    snprintf(text[0], sizeof text[0], format, a);
    snprintf(text[1], sizeof text[1], format, b);
    printf("%-16s %14s %14s\n", name, text[0], text[1]);
}

static void print_table(const side s[2], i64 shared)
{
    const fertility *a = &s[0].f, *b = &s[1].f;
    double vocab[2] = {(double)tokenizer_vocab(s[0].t), (double)tokenizer_vocab(s[1].t)};
    fprintf(stderr, "%" PRId64 " bytes, %" PRId64 " characters, %" PRId64 " words; A is %s, B is %s\n",
            a->bytes, a->characters, a->words, s[0].path, s[1].path);
    printf("%-16s %14s %14s\n", "", "A", "B");
    row("vocabulary", "%.0f", vocab[0], vocab[1]);
    printf("%-16s %14s %14s\n", "pattern", tokenizer_pattern(s[0].t), tokenizer_pattern(s[1].t));
    row("tokens", "%.0f", (double)a->tokens, (double)b->tokens);
    row("bytes a token", "%.4f", over((double)a->bytes, (double)a->tokens),
        over((double)b->bytes, (double)b->tokens));
    row("tokens a word", "%.4f", over((double)a->tokens, (double)a->words),
        over((double)b->tokens, (double)b->words));
    row("words whole", "%.2f %%", 100 * over((double)a->whole, (double)a->words),
        100 * over((double)b->whole, (double)b->words));
    row("ids that occur", "%.2f %%", 100 * over((double)s[0].used_count, vocab[0]),
        100 * over((double)s[1].used_count, vocab[1]));
    row("ids shared", "%.2f %%", 100 * over((double)shared, vocab[0]), 100 * over((double)shared, vocab[1]));
    row("MB/s, 1 thread", "%.1f", over((double)a->bytes / 1e6, a->seconds),
        over((double)b->bytes / 1e6, b->seconds));
}

status tokenizer_compare(tokenizer_args *a)
{
    side s[2] = {{.path = a->paths[0]}, {.path = a->paths[1]}};
    i64 shared = 0;
    status failed = side_open(&s[0]);
    if (!failed) failed = side_open(&s[1]);
    if (!failed) failed = measure(s, a->paths + 2, a->path_count - 2);
    if (!failed) failed = tokenizer_shared(s[0].t, s[1].t, &shared);
    if (!failed && a->json)
        failed = print_json(s, shared);
    else if (!failed)
        print_table(s, shared);
    side_close(&s[0]);
    side_close(&s[1]);
    return failed;
}
