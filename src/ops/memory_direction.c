/* memory_direction: along which direction an UltraMem layer ranks its rows and columns of keys; and the loss
 * that keeps that one direction a good stand-in for the core.
 *
 *   C = sum_c C^(c) ~ sigma u t^T     core [heads cores, r r], C^(c) of a head side by side; (u, t) [heads, 2
 * r]
 *
 * (u, t) are the leading singular vectors, detached (no gradient). Flipping both leaves C as it is and turns
 * both rankings around, so the sign is part of the definition: the one nearer, in L1, to the pair kept from
 * the step before; where both are as near (at first the kept pair is 0), the one with sum u >= 0.
 *
 *   memory_direction        (u, t) from core and the kept pair
 *   memory_direction_keep   the same, written into the state, at the end of a step
 *
 * The core changes once a step, so all micro-batches see one pair; a checkpoint holds the state.
 *
 *   memory_core_loss        weight share mean over heads and i >= 2 of max(0, sigma_i(C) - margin)^2
 *                           dC^(c) = weight share 2 max(0, sigma_i - margin) u_i v_i^T / (heads (r - 1)),
 * every c
 *
 * share = (targets >= 0 of this micro-batch) inv_n, inv_n = 1 / those of the whole step: however a step is
 * cut, the loss counts once.
 *
 * Source:   UltraMem, arXiv:2411.12364 (the authors' code takes the sign that its SVD returns).
 * Numerics: Jacobi rotations in double, rounded once.
 */
#include "ops/memory_core.h"
#include "ops/op.h"

static status check(op_build *b, const tensor *core, const tensor *kept)
{
    i64 heads = kept->dim[0], r = cols(kept) / 2;
    TRY(need(b, kept->ndim == 2 && cols(kept) == 2 * r && r >= 1 && r <= CORE_MOST,
             "the kept pair must be [heads, 2 r], r at most %d", CORE_MOST));
    TRY(need(b, core->ndim == 2 && cols(core) == r * r && rows_of(core) % heads == 0,
             "the core must be [heads x cores, %lld]", (long long)(r * r)));
    return need(b, kept->dtype == DT_F32 && core->dtype == DT_F32, "core and kept pair must be f32");
}
static status infer(op_build *b)
{
    TRY(check(b, b->n->in[0], b->n->in[1]));
    return out_shape(b, 0, DT_F32, 2, b->n->in[1]->dim);
}
static status keep_infer(op_build *b)
{
    TRY(check(b, b->n->in[1], b->n->in[0]));
    b->n->out[0] = b->n->in[0];
    b->n->n_out = 1;
    return OK;
}

/* Leading singular vectors by repeated squaring of M = C^T C: (s2 / s1)^(2^k) leaves the leading direction.
 * Returns sigma. */
static double leading(const double *c, i64 r, double *u, double *t)
{
    double m[64] = {0}, next[64], size = 0, best = -1;
    i64 column = 0;
    for (i64 i = 0; i < r * r * r; i++) m[i / r] += c[i % r * r + i / r / r] * c[i % r * r + i / r % r];
    for (int step = 0; step < 80; step++) {
        double trace = 1e-300;
        for (i64 i = 0; i < r; i++) trace += m[i * r + i];
        for (i64 i = 0; i < r * r; i++) next[i] = m[i] / trace;
        memset(m, 0, sizeof m);
        for (i64 i = 0; i < r * r; i++)
            for (i64 k = 0; k < r; k++) m[i] += next[i / r * r + k] * next[k * r + i % r];
    }
    for (i64 j = 0; j < r; j++) {
        double square = 0;
        for (i64 i = 0; i < r; i++) square += m[i * r + j] * m[i * r + j];
        if (square > best * (1 + 1e-9)) best = square, column = j;
    }
    for (i64 i = 0; i < r; i++) t[i] = best > 0 ? m[i * r + column] / sqrt(best) : i == 0;
    for (i64 i = 0; i < r; i++) {
        u[i] = 0;
        for (i64 j = 0; j < r; j++) u[i] += c[i * r + j] * t[j];
        size += u[i] * u[i];
    }
    for (i64 i = 0; i < r; i++) u[i] = size > 0 ? u[i] / sqrt(size) : i == 0;
    return sqrt(size);
}

/* One head; TO may be KEPT. */
static void define_one(const double *c, const double *kept, i64 r, double *to)
{
    double pair[16], sum = 0, same = 0, flipped = 0;
    leading(c, r, pair, pair + r);
    for (i64 i = 0; i < r; i++) sum += pair[i];
    for (i64 i = 0; i < 2 * r; i++) same += fabs(pair[i] - kept[i]), flipped += fabs(pair[i] + kept[i]);
    bool turn = flipped < same || (flipped == same && sum < 0);
    for (i64 i = 0; i < 2 * r; i++) to[i] = turn ? -pair[i] : pair[i];
}

static void define(const double *core, const double *kept, i64 heads, i64 cores, i64 r, double *out)
{
    for (i64 h = 0; h < heads; h++, core += cores * r * r) {
        double c[64] = {0};
        for (i64 k = 0; k < cores * r * r; k++) c[k % (r * r)] += core[k];
        define_one(c, kept + h * 2 * r, r, out + h * 2 * r);
    }
}

static void compute(const float *core, const float *kept, i64 heads, i64 cores, i64 r, float *out)
{
    for (i64 h = 0; h < heads; h++, core += cores * r * r, kept += 2 * r, out += 2 * r) {
        double c[CORE_MOST * CORE_MOST] = {0}, before[2 * CORE_MOST], pair[2 * CORE_MOST];
        for (i64 k = 0; k < cores * r * r; k++) c[k % (r * r)] += (double)core[k];
        for (i64 i = 0; i < 2 * r; i++) before[i] = (double)kept[i];
        core_direction(c, r, before, pair, pair + r);
        for (i64 i = 0; i < 2 * r; i++) out[i] = (float)pair[i];
    }
}

static i64 cores_of(const tensor *core, const tensor *kept) { return rows_of(core) / kept->dim[0]; }
static void reference(const op_call64 *c)
{
    const tensor *core = c->node->in[0], *kept = c->node->in[1];
    define(c->in[0], c->in[1], kept->dim[0], cores_of(core, kept), cols(kept) / 2, c->out[0]);
}
static void cpu(const op_call *c)
{
    const tensor *core = c->node->in[0], *kept = c->node->in[1];
    compute(c->in[0].p, c->in[1].p, kept->dim[0], cores_of(core, kept), cols(kept) / 2, c->out[0].p);
}
static void keep_reference(const op_call64 *c)
{
    const tensor *kept = c->node->in[0], *core = c->node->in[1];
    define(c->in[1], c->in[0], kept->dim[0], cores_of(core, kept), cols(kept) / 2, c->out[0]);
}
static void keep_cpu(const op_call *c)
{
    const tensor *kept = c->node->in[0], *core = c->node->in[1];
    compute(c->in[1].p, c->in[0].p, kept->dim[0], cores_of(core, kept), cols(kept) / 2, c->out[0].p);
}

static const op_case cases[] = {
    {"typical", "core=4x4 kept=2x4 f32"},
    {"at first", "core=2x4 kept=1x4 fill.kept=zero f32"},
    {"rank one", "core=2x1 kept=1x2 f32"},
    {"rank three", "core=6x9 kept=3x6 f32"},
    {"rank eight", "core=2x64 kept=1x16 f32 tol=1e-4"},
    {"a core of zeros", "core=1x4 kept=1x4 fill.core=zero f32"},
    {0},
};
static const op_case keep_cases[] = {
    {"typical", "kept=2x4 core=4x4 f32"}, {"at first", "kept=1x4 core=2x4 fill.kept=zero f32"}, {0}};

/* Nothing approximates C better: the pair's product with C is at least that of any column pair. */
static double leads(law *l)
{
    double *core = law_in(l, "core"), worst = 0, product = 0;
    const double *u = law_run(l, 0), *t = u + 3;
    for (int i = 0; i < 9; i++) product += u[i / 3] * (core[i] + core[9 + i]) * t[i % 3];
    for (int i = 0; i < 9; i++) worst = fmax(worst, fabs(core[i] + core[9 + i]) - fabs(product));
    return worst;
}
/* Flipping the kept pair flips the pair. */
static double follows(law *l)
{
    double *kept = law_in(l, "kept"), first[6], worst = 0;
    memcpy(first, law_run(l, 0), sizeof first);
    for (int i = 0; i < 6; i++) kept[i] = -kept[i];
    for (int i = 0; i < 6; i++) worst = fmax(worst, fabs(law_run(l, 0)[i] + first[i]));
    return worst;
}
static const op_law laws[] = {{"leading pair", "core=2x9 kept=1x6", leads, 1e-12},
                              {"the sign follows", "core=2x9 kept=1x6", follows, 0},
                              {0}};

OP_DEF(memory_direction) = {
    .name = "memory_direction",
    .brief = "(u, t): leading singular vectors of a head's summed cores, sign as in the kept pair",
    .source = "UltraMem, arXiv:2411.12364",
    .in = {{"core", "[n, r2]", ARG_F32, .fixed = true}, {"kept", "[heads, 2r]", ARG_F32, .fixed = true}},
    .out = {{"pair", "[heads, 2r]", .fixed = true}},
    .infer = infer,
    .reference = reference,
    .cpu = cpu,
    .cases = cases,
    .laws = laws,
};

OP_DEF(memory_direction_keep) = {
    .name = "memory_direction_keep",
    .brief = "kept = memory_direction(core, kept)",
    .source = "UltraMem, arXiv:2411.12364",
    .in = {{"kept", "[heads, 2r]", ARG_F32}, {"core", "[n, r2]", ARG_F32}},
    .out = {{"kept", "[heads, 2r]"}},
    .flags = OP_COMMIT,
    .infer = keep_infer,
    .reference = keep_reference,
    .cpu = keep_cpu,
    .cases = keep_cases,
};

/* ---- the loss */
enum { CORE, TARGETS, INV_N };

static status loss_infer(op_build *b)
{
    const tensor *core = b->n->in[CORE];
    i64 r = 0;
    while (r < CORE_MOST && r * r < cols(core)) r++;
    TRY(need(b, core->ndim == 2 && r * r == cols(core) && r >= 2, "the core must be [n, r r], r from 2 to %d",
             CORE_MOST));
    TRY(need(b, rows_of(core) % (i64)attr(b->n, "heads") == 0, "%lld rows do not divide into %lld heads",
             (long long)rows_of(core), (long long)attr(b->n, "heads")));
    TRY(need(b, count(b->n->in[INV_N]) == 1, "inv_n must be one number"));
    TRY(out_shape(b, 0, DT_F32, 1, (i64[]){1}));
    return out_shape(b, 1, DT_F32, 2, core->dim);
}

static void loss_vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    (void)g, (void)dout;
    din[CORE] = op->out[1];
}

static void loss_reference(const op_call64 *c)
{
    const tensor *core = c->node->in[CORE];
    i64 heads = (i64)attr(c->node, "heads"), cores = rows_of(core) / heads, size = cols(core), r = 1,
        targets = 0;
    double margin = attr(c->node, "margin"), sum = 0;
    while (r * r < size) r++;
    for (i64 i = 0; i < count(c->node->in[TARGETS]); i++) targets += c->in[TARGETS][i] >= 0;
    double by = attr(c->node, "weight") * (double)targets * c->in[INV_N][0] / (double)(heads * (r - 1));
    for (i64 h = 0; h < heads; h++) {
        double C[64] = {0}, d[64] = {0}, u[8], v[8];
        for (i64 k = 0; k < cores * size; k++) C[k % size] += c->in[CORE][h * cores * size + k];
        for (i64 i = 0; i < r; i++) { // the next pair leads what is left of C
            double sigma = leading(C, r, u, v), over = fmax(0, sigma - margin);
            if (i) sum += by * over * over;
            for (i64 k = 0; k < size; k++) {
                C[k] -= sigma * u[k / r] * v[k % r];
                if (i) d[k] += 2 * by * over * u[k / r] * v[k % r];
            }
        }
        for (i64 k = 0; k < cores * size; k++) c->out[1][h * cores * size + k] = d[k % size];
    }
    c->out[0][0] = sum;
}

/* One head: adds to SUM the squares, and to D (of every core) their slope. */
static double head_loss(const float *core, i64 cores, i64 r, double margin, double *d)
{
    double c[CORE_MOST * CORE_MOST] = {0}, a[CORE_MOST * CORE_MOST], v[CORE_MOST * CORE_MOST], sum = 0;
    i64 best = 0;
    for (i64 k = 0; k < cores * r * r; k++) c[k % (r * r)] += (double)core[k];
    core_svd(c, r, a, v);
    for (i64 k = 1; k < r; k++)
        if (core_sigma(a, r, k) > core_sigma(a, r, best)) best = k;
    memset(d, 0, sizeof *d * (size_t)(r * r));
    for (i64 k = 0; k < r; k++) {
        double sigma = core_sigma(a, r, k), over = sigma - margin;
        if (k == best || !(over > 0)) continue;
        sum += over * over;
        for (i64 i = 0; i < r * r; i++) d[i] += 2 * over * a[i / r * r + k] / sigma * v[i % r * r + k];
    }
    return sum;
}

static void loss_cpu(const op_call *c)
{
    i64 heads = (i64)attr(c->node, "heads"), cores = c->in[CORE].rows / heads, size = c->in[CORE].n, r = 1;
    i64 targets = 0;
    double sum = 0, d[CORE_MOST * CORE_MOST];
    float *dcore = c->out[1].p;
    while (r * r < size) r++;
    for (i64 i = 0; i < c->in[TARGETS].rows * c->in[TARGETS].n; i++)
        targets += ((const i32 *)c->in[TARGETS]
                        .p)[i / c->in[TARGETS].n * c->in[TARGETS].stride + i % c->in[TARGETS].n] >= 0;
    double share = (double)targets * (double)*(const float *)c->in[INV_N].p;
    double by = attr(c->node, "weight") * share / (double)(heads * (r - 1));
    for (i64 h = 0; h < heads; h++) {
        sum +=
            head_loss((const float *)c->in[CORE].p + h * cores * size, cores, r, attr(c->node, "margin"), d);
        for (i64 k = 0; k < cores * size; k++) {
            float *to = dcore + h * cores * size + k, slope = (float)(by * d[k % size]);
            *to = accumulates(c, 1) ? *to + slope : slope;
        }
    }
    *(float *)c->out[0].p = (float)(by * sum);
}

static const op_case loss_cases[] = {
    {"typical", "core=4x4 targets=3x5 inv_n=1 heads=2 weight=0.5 margin=0.15 fill.targets=targets:9 f32"},
    {"rank three", "core=6x9 targets=7 inv_n=1 heads=2 weight=2 margin=0.01 fill.targets=targets:9 f32"},
    {"nothing over the margin", "core=2x4 targets=4 inv_n=1 heads=1 margin=50 fill.targets=targets:9 f32"},
    {"a core of zeros",
     "core=2x4 targets=4 inv_n=1 heads=1 margin=0.1 fill.core=zero fill.targets=targets:9 f32"},
    {0},
};

OP_DEF(memory_core_loss) = {
    .name = "memory_core_loss",
    .brief = "weight share mean over i >= 2 of max(0, sigma_i(C) - margin)^2",
    .source = "UltraMem, arXiv:2411.12364",
    .in = {{"core", "[n, r2]", ARG_F32},
           {"targets", "[...]", ARG_I32, .range = "any"},
           {"inv_n", "[1]", ARG_F32, .fixed = true}},
    .out = {{"loss", "[1]"}, {"dcore", "[n, r2]", ARG_F32}},
    .attrs = {{"heads", 1, 1, 64, "sets of keys"},
              {"weight", 1, 0, 1e3, "of the loss"},
              {"margin", 0.15, 0, 1e3, "singular values up to this are free"}},
    .flags = OP_LOSS | OP_ACCUMULATES,
    .infer = loss_infer,
    .vjp = loss_vjp,
    .reference = loss_reference,
    .cpu = loss_cpu,
    .cases = loss_cases,
};
