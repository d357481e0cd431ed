/* ngram: which rows of hashed tables a token and the tokens before it look up (over-encoding).
 *
 *   g_i(t)      = sum_{j<i} x[t-j] V^j                  x[s] = 0 before the document's start
 *   r_a(t)      = g_i(t) mod M_a                         i the order of table a
 *   ids[b,t,a]  = r_a(t) + sum_{a'<a} M_a'               the tables stacked into one
 *
 *   tokens [B, T];  hash [A, 1+n] row a: M_a, then V^j mod M_a for j < i, then zeros;  ids [B, T, A]
 *   start [B, T]         training: the document's first position; without it 0
 *   history [B, C], past [B]   decoding: the past[b] tokens before x[b,0]; ngram_append writes them
 *
 * Source:   Over-Tokenized Transformer, arXiv:2501.16975. Token id 0 is the hash's pad there too.
 * Departs:  document starts and stacking are Keel's. The paper is silent about packed documents: what a
 * server would compute from a fresh start is what training computes. Numerics: 64-bit whole numbers. A token
 * is below 2^24 and a multiplier below 2^31, so that 16 products add up to less than 2^59: one division a
 * table. A token outside [0, 2^24) counts as 0; a table without a modulus, or a row beyond 2^31, gives -1,
 * which a look-up reads as zeros.
 */
#include "ops/op.h"
#include <math.h>
#include <string.h>

enum { TOKENS, HASH, START, HISTORY, PAST };
enum { MOST_ORDER = 16, TOKEN_BOUND = 1 << 24 };

static status infer(op_build *b)
{
    const tensor *x = b->n->in[TOKENS], *hash = b->n->in[HASH],
                 *start = b->n->n_in > START ? b->n->in[START] : NULL;
    const tensor *history = b->n->n_in > HISTORY ? b->n->in[HISTORY] : NULL,
                 *past = b->n->n_in > PAST ? b->n->in[PAST] : NULL;
    TRY(need(b, x->ndim == 2, "tokens must be [B, T]"));
    TRY(need(b, hash->ndim == 2 && cols(hash) >= 2 && cols(hash) <= MOST_ORDER + 1,
             "hash must be [A, 1 + n] with an order n from 1 to %d", MOST_ORDER));
    TRY(need(b, !start || same_shape(start, x), "start must be [B, T]"));
    TRY(need(b, !history == !past, "history and past come together"));
    TRY(need(b, !history || (history->ndim == 2 && history->dim[0] == x->dim[0] && count(past) == x->dim[0]),
             "history must be [B, C] and past [B]"));
    return out_shape(b, 0, DT_I32, 3, (i64[]){x->dim[0], x->dim[1], hash->dim[0]});
}

/* The definition, term by term; a product is reduced before it is added. */
static double token_before(const op_call64 *c, i64 b, i64 t, i64 j)
{
    i64 T = c->node->in[TOKENS]->dim[1], s = t - j;
    double x = 0;
    if (s >= 0 && (!c->in[START] || (double)s >= c->in[START][b * T + t])) x = c->in[TOKENS][b * T + s];
    if (s < 0 && c->node->n_in > PAST && c->in[PAST]) {
        double p = c->in[PAST][b] + (double)s;
        i64 capacity = c->node->in[HISTORY]->dim[1];
        if (p >= 0 && p < (double)capacity) x = c->in[HISTORY][b * capacity + (i64)p];
    }
    return x >= 0 && x < TOKEN_BOUND ? x : 0;
}

static void reference(const op_call64 *c)
{
    const tensor *x = c->node->in[TOKENS];
    i64 B = x->dim[0], T = x->dim[1], A = c->node->in[HASH]->dim[0], n = cols(c->node->in[HASH]) - 1;
    for (i64 at = 0; at < B * T; at++) {
        double base = 0;
        for (i64 a = 0; a < A; a++) {
            const double *row = c->in[HASH] + a * (n + 1);
            double m = row[0], r = 0;
            for (i64 j = 0; j < n && m >= 1; j++) {
                i64 product = (i64)token_before(c, at / T, at % T, j) * (i64)row[1 + j];
                r = fmod(r + (double)(product % (i64)m), m);
            }
            c->out[0][at * A + a] = m >= 1 && base + r <= INT32_MAX ? base + r : -1;
            base += fmax(m, 0);
        }
    }
}

typedef struct sequence { // one row of the batch
    const i32 *tokens, *start, *history;
    i64 past, capacity;
} sequence;

/* The last N tokens at T, the newest first; x[0] = x_t. */
static void window(const sequence *s, i64 t, i64 n, i64 *restrict x)
{
    i64 first = s->start ? s->start[t] : 0;
    for (i64 j = 0; j < n; j++) {
        i64 at = t - j, before = s->past + at, token = 0;
        if (at >= 0 && at >= first)
            token = s->tokens[at];
        else if (at < 0 && s->history && before >= 0 && before < s->capacity)
            token = s->history[before];
        x[j] = token >= 0 && token < TOKEN_BOUND ? token : 0;
    }
}

static void hash_all(const view *hash, const i64 *x, i32 *restrict ids)
{
    i64 n = hash->n - 1, base = 0;
    for (i64 a = 0; a < hash->rows; a++) {
        const i32 *row = (const i32 *)hash->p + a * hash->stride;
        i64 m = row[0], sum = 0;
        for (i64 j = 0; j < n; j++) sum += x[j] * row[1 + j];
        i64 id = m > 0 ? base + (sum % m + m) % m : -1;
        ids[a] = id <= INT32_MAX ? (i32)id : -1;
        base += MAX(m, 0);
    }
}

static void cpu(const op_call *c)
{
    const view *x = &c->in[TOKENS], *hash = &c->in[HASH];
    bool has_start = c->node->n_in > START && c->in[START].p,
         has_past = c->node->n_in > PAST && c->in[PAST].p;
#pragma omp parallel for schedule(static)
    for (i64 k = 0; k < x->rows * x->n; k++) {
        i64 b = k / x->n, last[MOST_ORDER];
        sequence s = {.tokens = (const i32 *)x->p + b * x->stride};
        if (has_start) s.start = (const i32 *)c->in[START].p + b * c->in[START].stride;
        if (has_past) {
            s.history = (const i32 *)c->in[HISTORY].p + b * c->in[HISTORY].stride;
            s.capacity = c->in[HISTORY].n;
            s.past = ((const i32 *)c->in[PAST].p)[b];
        }
        window(&s, k % x->n, hash->n - 1, last);
        hash_all(hash, last, (i32 *)c->out[0].p + k * c->out[0].stride);
    }
}

static op_cost cost(const node *op)
{
    return (op_cost){2.0 * (double)count(op->out[0]) * (double)(cols(op->in[HASH]) - 1), traffic(op)};
}

static const op_case cases[] = {
    {"typical", "tokens=3x29 hash=4x4 fill.tokens=below:50257 fill.hash=below:2000003 f32"},
    {"documents",
     "tokens=3x29 hash=4x4 start=3x29 fill.tokens=below:997 fill.hash=below:4099 fill.start=starts:5 f32"},
    {"behind a history", "tokens=2x3 hash=3x5 history=2x9 past=2 fill.tokens=below:61 fill.hash=below:97 "
                         "fill.history=below:61 fill.past=below:7 f32"},
    {"as wide as allowed", "tokens=2x40 hash=2x17 fill.tokens=below:16777216 fill.hash=below:1000000000 f32"},
    {"rows beyond 2^31", "tokens=2x9 hash=5x3 fill.tokens=below:99 fill.hash=below:2000000000 f32"},
    {"no modulus", "tokens=2x9 hash=3x3 fill.tokens=below:99 fill.hash=zero f32"},
    {"token outside", "tokens=2x9 hash=3x3 fill.tokens=targets:9 fill.hash=below:31 f32"},
    {"bench", "tokens=2x1024 hash=4x4 fill.tokens=below:50257 fill.hash=below:2000003 f32 bench"},
    {0},
};
/* A modulus of 1 leaves one row a table: ids are 0, 1, 2, ... whatever the tokens. */
static double one_row(law *l)
{
    double worst = 0, *hash = law_in(l, "hash");
    for (i64 k = 0; k < law_count(l, "hash"); k += 4) hash[k] = 1;
    const double *ids = law_run(l, 0);
    for (i64 k = 0; k < 5 * 7 * 3; k++) worst = fmax(worst, fabs(ids[k] - (double)(k % 3)));
    return worst;
}
static const op_law laws[] = {{"a modulus of 1 gives the table's number",
                               "tokens=5x7 hash=3x4 fill.tokens=below:50 fill.hash=below:9", one_row, 0},
                              {0}};

OP_DEF(ngram_ids) = {
    .name = "ngram_ids",
    .brief = "ids[a] = (sum_j x[t-j] V^j) mod M_a + sum of the moduli before",
    .source = "arXiv:2501.16975",
    .in = {{"tokens", "[B, T]", ARG_I32, .range = "any"},
           {"hash", "[A, columns]", ARG_I32, .range = "any"},
           {"start", "[B, T]", ARG_I32, .optional = true, .range = "any"},
           {"history", "[B, C]", ARG_I32, .optional = true, .range = "any"},
           {"past", "[B]", ARG_I32, .optional = true, .range = "any"}},
    .out = {{"ids", "[B, T, A]", ARG_I32}},
    .infer = infer,
    .reference = reference,
    .cpu = cpu,
    .cost = cost,
    .cases = cases,
    .laws = laws,
};

/* ---- ngram_append: history[b, past[b] + t] = tokens[b, t]. A commit, as cache_append is. */
static status append_infer(op_build *b)
{
    tensor *history = b->n->in[0], *x = b->n->in[1], *past = b->n->in[2];
    TRY(need(b,
             history->ndim == 2 && x->ndim == 2 && history->dim[0] == x->dim[0] && count(past) == x->dim[0],
             "history must be [B, C], tokens [B, T] and past [B]"));
    b->n->out[0] = history;
    b->n->n_out = 1;
    return OK;
}

static void append_reference(const op_call64 *c)
{
    i64 capacity = c->node->in[0]->dim[1], T = c->node->in[1]->dim[1];
    for (i64 k = 0; k < count(c->node->in[1]); k++) {
        double at = c->in[2][k / T] + (double)(k % T);
        if (at >= 0 && at < (double)capacity) c->out[0][k / T * capacity + (i64)at] = c->in[1][k];
    }
}

static void append_cpu(const op_call *c)
{
    const view *history = &c->out[0], *x = &c->in[1];
    for (i64 k = 0; k < x->rows * x->n; k++) {
        i64 b = k / x->n, t = k % x->n, at = ((const i32 *)c->in[2].p)[b] + t;
        if (at >= 0 && at < history->n)
            ((i32 *)history->p)[b * history->stride + at] = ((const i32 *)x->p)[b * x->stride + t];
    }
}

static const op_case append_cases[] = {
    {"two sequences",
     "history=2x9 tokens=2x3 past=2 fill.history=below:9 fill.tokens=below:50 fill.past=below:6 f32"},
    {"beyond capacity",
     "history=3x4 tokens=3x3 past=3 fill.history=below:9 fill.tokens=below:50 fill.past=below:9 f32"},
    {0},
};

OP_DEF(ngram_append) = {
    .name = "ngram_append",
    .brief = "history[b, past[b] + t] = tokens[b, t]",
    .in = {{"history", "[B, C]", ARG_I32, .range = "any"},
           {"tokens", "[B, T]", ARG_I32, .range = "any"},
           {"past", "[B]", ARG_I32, .range = "any"}},
    .out = {{"history", "[B, C]", ARG_I32}},
    .flags = OP_COMMIT,
    .infer = append_infer,
    .reference = append_reference,
    .cpu = append_cpu,
    .cases = append_cases,
};
