/* moe_count, moe_bias: how often each expert was chosen, and balancing by a bias instead of a loss.
 *
 *   counts[e] = assignments of tokens with a target that chose e,  dropped = those of them that found e full
 *   bias[e] += rate sign(mean counts - counts[e])                           at the end of a step, a commit
 *
 * Counts add up over the micro-batches of a step in a tally (f32: exact to 2^24 assignments of an expert).
 * The bias only selects (moe_route); it has no gradient, no decay, and lies in checkpoints.
 *
 * Source: Wang et al., arXiv:2408.15664 (rate 1e-3); DeepSeek-V3, arXiv:2412.19437.
 */
#include "ops/op.h"
#include <math.h>
#include <string.h>

enum { IDS, SLOT, TARGETS };

static status infer(op_build *b)
{
    const tensor *ids = b->n->in[IDS], *targets = b->n->in[TARGETS];
    TRY(need(b, count(b->n->in[SLOT]) == count(ids), "slot must be like ids"));
    TRY(need(b, !targets || count(targets) == rows_of(ids), "targets must be [%lld]",
             (long long)rows_of(ids)));
    TRY(out_shape(b, 0, DT_F32, 1, (i64[]){(i64)attr(b->n, "experts")}));
    return out_shape(b, 1, DT_F32, 1, (i64[]){1});
}

static void reference(const op_call64 *c)
{
    i64 k = cols(c->node->in[IDS]);
    memset(c->out[0], 0, sizeof(double) * (size_t)count(c->node->out[0]));
    *c->out[1] = 0;
    for (i64 a = 0; a < count(c->node->in[IDS]); a++) {
        if (c->in[TARGETS] && c->in[TARGETS][a / k] < 0) continue;
        c->out[0][(i64)c->in[IDS][a]] += 1;
        *c->out[1] += c->in[SLOT][a] < 0;
    }
}

static void cpu(const op_call *c)
{
    const i32 *ids = c->in[IDS].p, *slot = c->in[SLOT].p, *target = c->in[TARGETS].p;
    float *counts = c->out[0].p, *dropped = c->out[1].p;
    i64 k = c->in[IDS].n;
    if (!accumulates(c, 0)) memset(counts, 0, (size_t)c->out[0].n * sizeof *counts);
    if (!accumulates(c, 1)) *dropped = 0;
    for (i64 a = 0; a < c->in[IDS].rows * k; a++) {
        if (target && target[a / k] < 0) continue;
        counts[ids[a]] += 1;
        *dropped += slot[a] < 0;
    }
}

static op_cost cost(const node *op) { return (op_cost){2.0 * (double)count(op->in[IDS]), traffic(op)}; }

static const op_case cases[] = {
    {"typical", "ids=2x17x2 slot=2x17x2 targets=34 experts=8 fill.ids=below:8 fill.slot=targets:68 "
                "fill.targets=targets:9 f32 tol=0"},
    {"all tokens", "ids=9x3 slot=9x3 experts=4 fill.ids=below:4 fill.slot=targets:9 f32 tol=0"},
    {"one of all", "ids=1x1 slot=1x1 fill.ids=zero fill.slot=zero f32 tol=0"},
    {0},
};

OP_DEF(moe_count) = {
    .name = "moe_count",
    .brief = "counts[e] = how often tokens with a target chose e, dropped = how often e was full",
    .in = {{"ids", "[rows, k]", ARG_I32, .range = "0:experts"},
           {"slot", "[rows, k]", ARG_I32, .range = "any"},
           {"targets", "[rows]", ARG_I32, .optional = true, .range = "any"}},
    .out = {{"counts", "[experts]", ARG_F32}, {"dropped", "[1]", ARG_F32}},
    .attrs = {{"experts", 1, 1, 4096, "experts there are"}},
    .flags = OP_ACCUMULATES,
    .infer = infer,
    .reference = reference,
    .cpu = cpu,
    .cost = cost,
    .cases = cases,
};

/* ---- the bias */

static status bias_infer(op_build *b)
{
    tensor *bias = b->n->in[0];
    TRY(need(b, count(b->n->in[1]) == count(bias), "counts must be [%lld]", (long long)count(bias)));
    b->n->out[0] = bias;
    b->n->n_out = 1;
    return OK;
}

static void bias_reference(const op_call64 *c)
{
    i64 n = count(c->node->in[0]);
    double mean = 0;
    for (i64 e = 0; e < n; e++) mean += c->in[1][e] / (double)n;
    for (i64 e = 0; e < n; e++) {
        double off = (double)n * (mean - c->in[1][e]); // whole numbers: an even count is told from rounding
        c->out[0][e] = c->in[0][e] + attr(c->node, "rate") * (off > 0.5 ? 1 : off < -0.5 ? -1 : 0);
    }
}

static void bias_cpu(const op_call *c)
{
    const float *counts = c->in[1].p, *from = c->in[0].p;
    float *to = c->out[0].p, rate = (float)attr(c->node, "rate");
    i64 n = c->in[0].n;
    double all = 0;
    for (i64 e = 0; e < n; e++) all += (double)counts[e];
    for (i64 e = 0; e < n; e++) {
        double off = all - (double)n * (double)counts[e];
        to[e] = from[e] + rate * (float)((off > 0.5) - (off < -0.5));
    }
}

static const op_case bias_cases[] = {
    {"typical", "bias=8 counts=8 fill.counts=below:5 f32"},
    {"even", "bias=8 counts=8 fill.counts=one f32 tol=0"},
    {"nothing counted", "bias=3 counts=3 fill.counts=zero f32 tol=0"},
    {"a rate", "bias=5 counts=5 fill.counts=below:9 rate=0.5 f32"},
    {0},
};

/* Counts (3, 2, 3) move the bias by (-u, u, -u). */
static double bias_worked(law *l)
{
    memcpy(law_in(l, "counts"), (const double[]){3, 2, 3}, 3 * sizeof(double));
    memset(law_in(l, "bias"), 0, 3 * sizeof(double));
    const double *b = law_run(l, 0);
    return fmax(fabs(b[0] + 1e-3), fmax(fabs(b[1] - 1e-3), fabs(b[2] + 1e-3)));
}
static const op_law bias_laws[] = {{"worked values", "bias=3 counts=3", bias_worked, 1e-12}, {0}};

OP_DEF(moe_bias) = {
    .name = "moe_bias",
    .brief = "bias[e] += rate sign(mean counts - counts[e])",
    .source = "arXiv:2408.15664",
    .in = {{"bias", "[experts]", ARG_F32}, {"counts", "[experts]", ARG_F32}},
    .out = {{"bias", "[experts]", ARG_F32}},
    .attrs = {{"rate", 1e-3, 0, 1e3, "how far a step moves it"}},
    .flags = OP_COMMIT,
    .infer = bias_infer,
    .reference = bias_reference,
    .cpu = bias_cpu,
    .cases = bias_cases,
    .laws = bias_laws,
};
