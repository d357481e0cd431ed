/* Accuracies of multiple choice: see choice.h. Rules (encoding, truncation, normalization, ties) are those of
 * lm-evaluation-harness. Choices of one context are scored one by one: what they share is read again. */
#include "eval/choice.h"
#include "eval/windows.h"
#include "text/grow.h"
#include <math.h>
#include <string.h>

estimate estimate_of(const double *x, i64 n)
{
    double mean = 0, squares = 0;
    for (i64 i = 0; i < n; i++) mean += x[i] / (double)n;
    for (i64 i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    return (estimate){mean, n > 1 ? sqrt(squares / (double)(n - 1) / (double)n) : NAN};
}

/* ---- tokens */

static bool blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

status choice_encode(const tokenizer *t, const choice *c, token_list *ids, i64 *targets)
{
    token_list context = {0};
    size_t kept = strlen(c->context);
    while (kept && blank(c->context[kept - 1])) kept--;
    ids->count = 0;
    if (!kept) { // nothing to condition on but the end of the text before
        const i32 end = tokenizer_end(t);
        if (end < 0)
            return fail(ERR_INPUT, "an empty context needs an end of text, which the tokenizer has not "
                                   "(" TOKENIZER_ENDS ")");
        TRY(grow(&ids->id, &ids->capacity, 1, sizeof(i32), "tokens"));
        ids->id[ids->count++] = end;
    }
    const size_t before = strlen(c->context), behind = strlen(c->continuation);
    char *whole;
    TRY(mem_alloc(before + behind + 1, "text", &whole));
    memcpy(whole, c->context, before);
    memcpy(whole + before, c->continuation, behind);
    status s = tokenizer_encode(t, whole, kept, SPECIAL_PLAIN, &context);
    if (!s) s = tokenizer_encode(t, whole, before + behind, SPECIAL_PLAIN, ids);
    *targets = MAX(ids->count - (kept ? context.count : 1), 1);
    mem_free(whole);
    token_list_free(&context);
    return s;
}

/* ---- a batch of examples */

typedef struct batch {
    token_list *ids;
    score_request *request;
    score *score;
} batch;

static status open_batch(batch *b, i64 n)
{
    *b = (batch){0};
    TRY(mem_alloc((size_t)n * sizeof *b->ids, "tokens of choices", &b->ids));
    TRY(mem_alloc((size_t)n * sizeof *b->request, "requests", &b->request));
    return mem_alloc((size_t)n * sizeof *b->score, "scores", &b->score);
}

static void close_batch(batch *b, i64 n)
{
    for (i64 i = 0; b->ids && i < n; i++) token_list_free(&b->ids[i]);
    mem_free(b->ids);
    mem_free(b->request);
    mem_free(b->score);
}

static status request(const scorer *s, const tokenizer *t, const choice *c, token_list *ids,
                      score_request *out, choice_result *r)
{
    i64 targets, room = scorer_context(s) + 1;
    TRY(choice_encode(t, c, ids, &targets));
    if (targets >= room || targets >= ids->count)
        return fail(ERR_INPUT, "a choice of %lld tokens; the model's context has room for %lld behind one",
                    (long long)targets, (long long)room - 1);
    i64 cut = MAX(ids->count - room, 0);
    r->truncated += cut > 0;
    *out = (score_request){ids->id + cut, ids->count - cut, targets};
    return OK;
}

/* ---- what an example is worth */

typedef struct tally { // [examples] each
    double *acc, *norm, *bytes, *nats, *bits;
} tally;

static int best(const score *x, const example *e, int by)
{
    int first = 0;
    double most = -INFINITY;
    for (int k = 0; k < e->choices; k++) {
        const choice *c = &e->choice[k];
        double score = -x[k].nats / (by == 0 ? 1 : (double)(by == 1 ? c->chars : c->bytes));
        if (score > most) most = score, first = k;
    }
    return first;
}

static void count_example(const task *t, const score *x, const example *e, i64 i, const tally *to)
{
    to->acc[i] = t->greedy ? x[0].greedy : best(x, e, 0) == e->gold;
    to->norm[i] = best(x, e, 1) == e->gold;
    to->bytes[i] = best(x, e, 2) == e->gold;
    to->nats[i] = x[e->gold].nats;
    to->bits[i] = x[e->gold].nats / log(2) / (double)e->choice[e->gold].bytes;
}

static status run_batch(scorer *s, const tokenizer *t, const task *task, const example_list *list, i64 from,
                        i64 to, batch *b, const tally *tally, choice_result *r)
{
    i64 n = 0;
    for (i64 i = from; i < to; i++)
        for (int k = 0; k < list->example[i].choices; k++, n++)
            TRY(wrap(request(s, t, &list->example[i].choice[k], &b->ids[n], &b->request[n], r), "record %lld",
                     (long long)i + 1));
    TRY(scorer_run(s, b->request, n, b->score));
    r->requests += n;
    const score *x = b->score;
    for (i64 i = from; i < to; x += list->example[i++].choices)
        count_example(task, x, &list->example[i], i, tally);
    return OK;
}

static interval range_of(const double *hit, i64 n)
{
    i64 hits = 0;
    for (i64 i = 0; i < n; i++) hits += hit[i] > 0;
    return wilson(hits, n);
}

static void finish(const task *t, const tally *x, i64 n, choice_result *r)
{
    r->examples = n;
    r->acc = estimate_of(x->acc, n);
    r->acc_range = range_of(x->acc, n);
    r->gold_bits = estimate_of(x->bits, n);
    if (t->greedy) {
        estimate nats = estimate_of(x->nats, n);
        r->perplexity = (estimate){exp(nats.mean), exp(nats.mean) * nats.error};
        return;
    }
    r->acc_norm = estimate_of(x->norm, n);
    r->acc_bytes = estimate_of(x->bytes, n);
    r->acc_norm_range = range_of(x->norm, n);
    r->acc_bytes_range = range_of(x->bytes, n);
}

status choice_evaluate(scorer *s, const tokenizer *t, const task *task, const example_list *list,
                       const choice_options *o, choice_result *out)
{
    const i64 n = list->count, step = MIN(MAX(o->batch, 1), n), most = step * MOST_CHOICES;
    double *numbers;
    batch b;
    *out = (choice_result){0};
    TRY(mem_alloc((size_t)n * 5 * sizeof *numbers, "scores of examples", &numbers));
    tally x = {numbers, numbers + n, numbers + 2 * n, numbers + 3 * n, numbers + 4 * n};
    status failed = open_batch(&b, most);
    for (i64 i = 0; i < n && !failed; i += step) {
        failed = run_batch(s, t, task, list, i, MIN(i + step, n), &b, &x, out);
        if (o->progress && !failed) o->progress(o->context, MIN(i + step, n), n);
    }
    if (!failed) finish(task, &x, n, out);
    close_batch(&b, most);
    mem_free(numbers);
    return failed;
}
