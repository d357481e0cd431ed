/* Log-likelihoods of given tokens: see score.h. A program has a fixed number of tokens; there is one for
 * every power of two up to the context, and only one of them at a time, so that a scorer takes the memory of
 * its longest row. What stands behind a request's tokens is a document of its own (token 0), which no real
 * token sees. */
#include "eval/score.h"
#include "base/text.h"
#include "graph/program.h"
#include "model/model.h"
#include "train/save.h"
#include "train/session.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SHORTEST = 16 }; // tokens of the smallest program

typedef struct shaped { // the model for rows of so many tokens
    arena *arena;
    model m;
    program *p;
    i64 tokens;
} shaped;

struct scorer {
    const config *c;
    scorer_options o;
    dtype act;
    i64 context, vocab;
    shaped first; // without a program: what the store was made from
    shaped now;
    store *store;
};

static void close_shaped(shaped *x)
{
    program_close(x->p);
    if (x->m.g) graph_close(x->m.g);
    arena_close(x->arena);
    *x = (shaped){0};
}

static status build(const scorer *s, shaped *x, i64 tokens)
{
    bool bf16 = s->act == DT_BF16 && config_is(s->c, "train.stream", "bf16");
    model_shape shape = {.rows = 1,
                         .tokens = tokens,
                         .mode = MODE_EVALUATE,
                         .act = s->act,
                         .stream = bf16 ? DT_BF16 : DT_F32,
                         .logits = s->o.greedy};
    i64 rewrites;
    TRY(arena_open(&x->arena));
    x->tokens = tokens;
    TRY(model_build(x->arena, s->c, &shape, &x->m));
    TRY(graph_rewrite(x->m.g, &rewrites));
    return graph_verify(x->m.g);
}

static status fits(double need, const char *what)
{
    char a[32], b[32];
    double have = session_memory_there();
    if (need <= have) return OK;
    return fail(ERR_MEMORY, "%s need %s of memory, this machine has %s", what, show_bytes(need, a),
                show_bytes(have, b));
}

static status open_parts(scorer *s)
{
    store *plan;
    TRY(build(s, &s->first, MIN(SHORTEST, s->context)));
    store_plan(s->first.arena, s->first.m.g, 0, &plan);
    TRY(fits((double)(plan->bytes_params + plan->bytes_states), "the model's weights"));
    TRY(store_open(s->first.arena, s->first.m.g, 0, &s->store));
    return s->o.weights ? load_weights(s->store, s->o.weights) : OK;
}

status scorer_open(const config *c, const scorer_options *o, scorer **out)
{
    scorer *s;
    TRY(mem_alloc(sizeof *s, "scorer", &s));
    *s = (scorer){.c = c,
                  .o = *o,
                  .act = session_dtype(c, o->device),
                  .context = config_count(c, "model.context"),
                  .vocab = config_count(c, "model.vocab")};
    status failed = open_parts(s);
    if (failed)
        scorer_close(s);
    else
        *out = s;
    return failed;
}

void scorer_close(scorer *s)
{
    if (!s) return;
    close_shaped(&s->now);
    store_close(s->store);
    close_shaped(&s->first);
    mem_free(s);
}

/* ---- one request */

static i64 tokens_for(const scorer *s, const score_request *r)
{
    i64 tokens = SHORTEST;
    while (tokens < r->count - 1) tokens *= 2;
    return MIN(tokens, s->context);
}

static status check(const scorer *s, const score_request *r)
{
    if (r->targets < 1 || r->targets >= r->count)
        return fail(ERR_INPUT, "%lld of %lld tokens to score; at least one, and one before them",
                    (long long)r->targets, (long long)r->count);
    if (r->count > s->context + 1)
        return fail(ERR_INPUT, "%lld tokens do not fit into the model's context of %lld",
                    (long long)r->count - 1, (long long)s->context);
    for (i64 i = 0; i < r->count; i++)
        if (r->ids[i] < 0 || r->ids[i] >= s->vocab)
            return fail(ERR_INPUT, "token %d is beyond the model's vocabulary of %lld", r->ids[i],
                        (long long)s->vocab);
    return OK;
}

/* The program for rows of TOKENS tokens takes the place of the one before. */
static status reshape(scorer *s, i64 tokens)
{
    program_options o = {.device = s->o.device, .isa = s->o.isa};
    program_sizes sizes;
    if (s->now.p && s->now.tokens == tokens) return OK;
    close_shaped(&s->now);
    TRY(build(s, &s->now, tokens));
    TRY(program_measure(s->now.m.g, s->store, &o, &sizes));
    TRY(fits((double)(s->store->bytes_params + s->store->bytes_states + sizes.activations + sizes.inputs +
                      sizes.scratch),
             "the model and a row of its activations"));
    return program_open(s->now.m.g, s->store, &o, &s->now.p);
}

static void write_row(const shaped *x, const score_request *r)
{
    i32 *token = program_data(x->p, x->m.tokens), *target = program_data(x->p, x->m.targets),
        *start = program_data(x->p, x->m.doc_start), *position = program_data(x->p, x->m.position);
    i64 n = r->count - 1;
    for (i64 i = 0; i < x->tokens; i++) {
        bool real = i < n;
        token[i] = real ? r->ids[i] : 0;
        target[i] = real && i >= n - r->targets ? r->ids[i + 1] : -1;
        start[i] = real ? 0 : (i32)n;
        position[i] = (i32)(real ? i : i - n);
    }
    *(float *)program_data(x->p, x->m.inverse_count) = 1.0F / (float)r->targets;
}

static float logit(const view *v, i64 row, i64 column)
{
    i64 at = row * v->stride + column;
    return v->dtype == DT_BF16 ? bf16_to_f32(((const bf16 *)v->p)[at]) : ((const float *)v->p)[at];
}

static bool is_greedy(const shaped *x, const score_request *r, i64 vocab)
{
    view v = program_view(x->p, x->m.logits);
    for (i64 i = r->count - 1 - r->targets; i < r->count - 1; i++) {
        i64 best = 0;
        for (i64 j = 1; j < vocab; j++)
            if (logit(&v, i, j) > logit(&v, i, best)) best = j;
        if (best != r->ids[i + 1]) return false;
    }
    return true;
}

static status run_one(scorer *s, const score_request *r, score *out)
{
    TRY(reshape(s, tokens_for(s, r)));
    write_row(&s->now, r);
    program_zero_tallies(s->now.p);
    program_run(s->now.p, &(step_info){0}, PHASE_FORWARD);
    const float *loss = program_data(s->now.p, s->now.m.loss);
    *out = (score){0};
    for (i64 i = r->count - 1 - r->targets; i < r->count - 1; i++) out->nats += (double)loss[i];
    if (!isfinite(out->nats))
        return fail(ERR_NUMERIC, "the loss of a text is not finite; the weights have diverged");
    if (s->o.greedy) out->greedy = is_greedy(&s->now, r, s->vocab);
    return OK;
}

/* ---- many */

typedef struct turn {
    i64 tokens, index;
} turn;

static int by_length(const void *a, const void *b)
{
    const turn *x = a, *y = b;
    i64 d = x->tokens != y->tokens ? x->tokens - y->tokens : x->index - y->index;
    return (d > 0) - (d < 0);
}

status scorer_run(scorer *s, const score_request *r, i64 n, score *out)
{
    turn *order;
    if (n < 1) return OK;
    for (i64 i = 0; i < n; i++) TRY(check(s, &r[i]));
    TRY(mem_alloc((size_t)n * sizeof *order, "order of requests", &order));
    for (i64 i = 0; i < n; i++) order[i] = (turn){tokens_for(s, &r[i]), i};
    qsort(order, (size_t)n, sizeof *order, by_length);
    status failed = OK;
    for (i64 i = 0; i < n && !failed; i++) failed = run_one(s, &r[order[i].index], &out[order[i].index]);
    mem_free(order);
    return failed;
}

i64 scorer_context(const scorer *s) { return s->context; }
store *scorer_store(scorer *s) { return s->store; }
