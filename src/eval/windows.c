/* Strided windows over a text, and its loss: see windows.h. */
#include "eval/windows.h"
#include "text/utf8.h"
#include <math.h>

bool window_next(i64 n, const window_rule *rule, window *w)
{
    i64 done = w->inputs ? w->start + w->inputs : 0; // tokens scored so far
    if (done >= n) return false;
    i64 targets = MIN(n - done, done ? rule->stride : rule->context), end = done + targets;
    i64 inputs = MIN(end, rule->context);
    *w = (window){end - inputs, inputs, targets};
    return true;
}

/* ---- words */

static u32 code_point(const u8 *p, size_t n)
{
    static const u8 head[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    u32 c = p[0] & head[n];
    for (size_t i = 1; i < n; i++) c = c << 6 | (p[i] & 0x3F);
    return c;
}

static bool is_space(u32 c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
}

i64 count_words(const char *data, size_t bytes)
{
    const u8 *p = (const u8 *)data;
    i64 pieces = 1;
    bool before = false;
    for (size_t i = 0; i < bytes;) {
        size_t n = utf8_character(p + i, bytes - i);
        bool space = n && is_space(code_point(p + i, n));
        pieces += space && !before;
        before = space;
        i += n ? n : 1;
    }
    return pieces;
}

/* ---- a text */

typedef struct work {
    score_request *request;
    score *score;
    i64 batch;
    double *nats, *tokens, *bytes; // of each window
} work;

/* Bytes of text that the last TARGETS of a request stand for. */
static double bytes_of(const tokenizer *t, const score_request *r)
{
    double bytes = 0;
    for (i64 i = r->count - r->targets; i < r->count; i++)
        bytes += (double)tokenizer_decode(t, r->ids[i]).bytes;
    return bytes;
}

static status score_windows(scorer *s, const tokenizer *t, const token_list *ids, const window_rule *rule,
                            const work *k, text_loss *out)
{
    window w = {0};
    for (bool more = true; more;) {
        i64 n = 0;
        while (n < k->batch && (more = window_next(ids->count - 1, rule, &w)))
            k->request[n++] = (score_request){ids->id + w.start, w.inputs + 1, w.targets};
        TRY(scorer_run(s, k->request, n, k->score));
        for (i64 i = 0; i < n; i++, out->windows++) {
            out->nats += k->score[i].nats;
            k->nats[out->windows] = k->score[i].nats;
            k->tokens[out->windows] = (double)k->request[i].targets;
            k->bytes[out->windows] = bytes_of(t, &k->request[i]) * log(2);
        }
    }
    out->tokens = ids->count - 1;
    out->loss = bootstrap_ratio(k->nats, k->tokens, out->windows);
    out->bits = bootstrap_ratio(k->nats, k->bytes, out->windows);
    return OK;
}

static i64 count_windows(const token_list *ids, const window_rule *rule)
{
    window w = {0};
    i64 n = 0;
    while (window_next(ids->count - 1, rule, &w)) n++;
    return MAX(n, 1);
}

static status check_rule(const scorer *s, const window_rule *rule)
{
    if (rule->context < 1 || rule->context > scorer_context(s))
        return fail(ERR_INPUT, "windows of %lld tokens; from 1 to the model's context of %lld",
                    (long long)rule->context, (long long)scorer_context(s));
    if (rule->stride < 1 || rule->stride > rule->context)
        return fail(ERR_INPUT, "a stride of %lld tokens; from 1 to the window's %lld",
                    (long long)rule->stride, (long long)rule->context);
    return OK;
}

/* P and the tokens of the text. */
static status encode(const tokenizer *t, const char *data, size_t bytes, token_list *ids)
{
    const i32 end = tokenizer_end(t);
    if (end < 0)
        return fail(ERR_INPUT,
                    "the tokenizer has no end of text (" TOKENIZER_ENDS ") to stand before the first token");
    TRY(mem_alloc(sizeof(i32), "tokens", &ids->id));
    ids->id[0] = end;
    ids->count = 1;
    ids->capacity = 1;
    return tokenizer_encode(t, data, bytes, SPECIAL_PLAIN, ids);
}

status text_evaluate(scorer *s, const tokenizer *t, const char *data, size_t bytes, const window_rule *rule,
                     i64 batch, text_loss *out)
{
    token_list ids = {0};
    work k = {.batch = MAX(batch, 1)};
    *out = (text_loss){.bytes = (i64)bytes, .words = count_words(data, bytes)};
    if (!bytes) return fail(ERR_INPUT, "the text is empty");
    TRY(check_rule(s, rule));
    status failed = encode(t, data, bytes, &ids);
    if (!failed) failed = mem_alloc((size_t)k.batch * sizeof *k.request, "windows", &k.request);
    if (!failed) failed = mem_alloc((size_t)k.batch * sizeof *k.score, "scores", &k.score);
    if (!failed)
        failed = mem_alloc((size_t)(3 * count_windows(&ids, rule)) * sizeof(double), "windows", &k.nats);
    if (!failed) {
        k.tokens = k.nats + count_windows(&ids, rule);
        k.bytes = k.tokens + count_windows(&ids, rule);
        failed = score_windows(s, t, &ids, rule, &k, out);
    }
    mem_free(k.nats);
    mem_free(k.request);
    mem_free(k.score);
    token_list_free(&ids);
    return failed;
}
