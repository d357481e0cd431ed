/* linear_xent: output layer, softmax and cross-entropy in one, over chunks of tokens; no full logits exist.
 *
 *   l_ij  = cap tanh(h_i . w_j / cap)          h [rows, d], w [V, d]; without softcap l_ij = h_i . w_j
 *   lse_i = log sum_j exp l_ij                 nll_i = lse_i - l_{i,t_i}, 0 where t_i = -1 (masked)
 *   loss  = weight inv_n sum_{t_i >= 0} (nll_i + z lse_i^2)         inv_n [1] = 1 / tokens of the whole step
 *   g_ij  = weight inv_n ((1 + 2 z lse_i) exp(l_ij - lse_i) - [j = t_i]) (1 - (l_ij / cap)^2), 0 if masked
 *   dh    = g w,  dw = g^T h
 *
 * Sources:  z-loss: Chowdhery et al., arXiv:2204.02311, section 5; softcap: Gemma 2, arXiv:2408.00118.
 *           Gradients in the forward pass, by chunks: Wijmans et al., arXiv:2411.09009, without their filter.
 * Departs:  z-loss is averaged over the counted tokens only.
 *
 * Method:   for a chunk of tokens, one GEMM per block of the vocabulary. A block of logits is f32 while it is
 *           in cache: running maximum m and sum are exact. What is stored is u = (l - m) log2(e), in the
 *           storage of h, each block contiguous. Then, block by block again: g from u in place, dh += g w,
 *           dw += g^T h.
 * Numerics: statistics f32 from f32 logits, loss summed in double. In bf16 a probability's relative error is
 *           2^-9 |l - m|: it vanishes for the likely words (plain bf16 logits: 2^-9 |l|).
 * Choices:  1,024 or 2,048 tokens a chunk follow a throw-away prototype's shares of peak (fewer re-read the
 *           gradient of w more often), not a sweep of this kernel. Blocks of 768 to 2048 words differed by
 *           under 2 points (d 768); 512 and 2048 lost 3 (d 256; one thread). docs/performance.md has its
 *           share of a whole step.
 * A target below -1 or >= V makes the loss NaN: it must not pass unseen.
 */
#include "device/gemm.h"
#include "ops/op.h"
#include "ops/vec.h"
#include <math.h>
#include <string.h>

enum { H, WEIGHT, TARGETS, INV_N };
enum { LOSS, NLL, LSE, DH, DW };
enum { WORDS = 1536, MAX_TOKENS = 2048, MIN_TOKENS = 256, STORE_BYTES = 128 << 20 };
static const float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

static status infer(op_build *b)
{
    const tensor *h = b->n->in[H], *w = b->n->in[WEIGHT];
    i64 rows = rows_of(h);
    TRY(need(b, w->ndim == 2 && cols(w) == cols(h), "w must be [words, %lld]", (long long)cols(h)));
    TRY(need(b, w->dtype == h->dtype, "w is %s, h is %s; they must agree", dtype_name(w->dtype),
             dtype_name(h->dtype)));
    TRY(need(b, count(b->n->in[TARGETS]) == rows, "%lld targets for %lld rows",
             (long long)count(b->n->in[TARGETS]), (long long)rows));
    TRY(need(b, count(b->n->in[INV_N]) == 1, "inv_n must be one number"));
    TRY(out_shape(b, LOSS, DT_F32, 1, (i64[]){1}));
    TRY(out_shape(b, NLL, DT_F32, 2, (i64[]){rows, 1}));
    TRY(out_shape(b, LSE, DT_F32, 2, (i64[]){rows, 1}));
    if (attr(b->n, "evaluate") != 0) return OK;
    TRY(out_like(b, DH, h));
    return out_shape(b, DW, DT_F32, 2, w->dim);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    (void)g, (void)dout; // a loss is the root: its slope is 1, and the forward pass has computed the rest
    din[H] = op->out[DH];
    din[WEIGHT] = op->out[DW];
}

/* ---- the definition */

static double logit(const op_call64 *c, i64 i, i64 j)
{
    i64 d = cols(c->node->in[H]);
    double cap = attr(c->node, "softcap"), l = 0;
    for (i64 k = 0; k < d; k++) l += c->in[H][i * d + k] * c->in[WEIGHT][j * d + k];
    return cap > 0 ? cap * tanh(l / cap) : l;
}

static double log_sum_exp(const op_call64 *c, i64 i)
{
    double m = -INFINITY, sum = 0;
    for (i64 j = 0; j < c->node->in[WEIGHT]->dim[0]; j++) m = fmax(m, logit(c, i, j));
    for (i64 j = 0; j < c->node->in[WEIGHT]->dim[0]; j++) sum += exp(logit(c, i, j) - m);
    return m + log(sum);
}

static void reference_gradient(const op_call64 *c, i64 i, double lse, i64 target)
{
    i64 d = cols(c->node->in[H]);
    double scale = attr(c->node, "weight") * c->in[INV_N][0], cap = attr(c->node, "softcap");
    for (i64 j = 0; j < c->node->in[WEIGHT]->dim[0]; j++) {
        double l = logit(c, i, j);
        double g = scale * ((1 + 2 * attr(c->node, "z_loss") * lse) * exp(l - lse) - (j == target));
        if (cap > 0) g *= 1 - l / cap * (l / cap);
        for (i64 k = 0; k < d; k++) {
            c->out[DH][i * d + k] += g * c->in[WEIGHT][j * d + k];
            c->out[DW][j * d + k] += g * c->in[H][i * d + k];
        }
    }
}

static void reference(const op_call64 *c)
{
    i64 words = c->node->in[WEIGHT]->dim[0];
    double scale = attr(c->node, "weight") * c->in[INV_N][0], sum = 0;
    for (int k = DH; k <= DW; k++)
        if (c->out[k]) memset(c->out[k], 0, sizeof(double) * (size_t)count(c->node->out[k]));
    for (i64 i = 0; i < rows_of(c->node->in[H]); i++) {
        i64 t = (i64)c->in[TARGETS][i];
        double lse = c->out[LSE][i] = log_sum_exp(c, i);
        c->out[NLL][i] = 0;
        if (t == -1) continue;
        c->out[NLL][i] = t < -1 || t >= words ? NAN : lse - logit(c, i, t);
        sum += c->out[NLL][i] + attr(c->node, "z_loss") * lse * lse;
        if (c->out[DH] && t >= 0 && t < words) reference_gradient(c, i, lse, t);
    }
    c->out[LOSS][0] = scale * sum;
}

/* ---- plans: chunks of tokens x blocks of words; the last chunk and the last block may be smaller */

typedef struct tile {
    const gemm_plan *logits, *dh_set, *dh_add, *dw_set, *dw_add;
} tile;

typedef struct head_plan {
    i64 tokens, words; // of a chunk, of a block
    i64 n_chunks, n_blocks;
    tile tile[2][2]; // [last chunk][last block]
    // scratch: logits of one block (bf16 only), stored u of all blocks, m by block, and by token: sum of
    // exponentials, target's logit, lse; dh of the chunk in f32 (bf16 only); what the GEMMs need
    size_t logits_at, stored_at, base_at, sum_at, hit_at, dh_at, gemm_at;
} head_plan;

static i64 size_of(i64 whole, i64 part_size, i64 n, bool last)
{
    return last ? whole - (n - 1) * part_size : part_size;
}

static void choose_sizes(const op_call *c, head_plan *p)
{
    const view *h = &c->in[H], *w = &c->in[WEIGHT];
    i64 chunk = (i64)attr(c->node, "chunk"), block = (i64)attr(c->node, "block");
    i64 limit = MAX_TOKENS;
    while (limit > MIN_TOKENS && limit * w->rows * dtype_bytes(h->dtype) > STORE_BYTES) limit /= 2;
    if (!chunk) { // equal chunks, no sliver at the end
        i64 n = (h->rows + limit - 1) / limit;
        chunk = n == 1 ? h->rows : round_up((h->rows + n - 1) / n, 16);
    }
    if (!block) block = WORDS;
    p->tokens = MIN(chunk, h->rows);
    p->words = MIN(block, w->rows);
    p->n_chunks = (h->rows + p->tokens - 1) / p->tokens;
    p->n_blocks = (w->rows + p->words - 1) / p->words;
}

static status plan_one(op_call *c, const gemm_spec *spec, const gemm_plan **out, size_t *most)
{
    TRY(gemm_plan_get(c->device, spec, out));
    *most = MAX(*most, (size_t)gemm_scratch_bytes(*out));
    return OK;
}

static status plan_tile(op_call *c, i64 tokens, i64 words, tile *t, size_t *most)
{
    const view *h = &c->in[H], *w = &c->in[WEIGHT], *dh = &c->out[DH];
    gemm_type type = h->dtype == DT_BF16 ? GEMM_BF16 : GEMM_F32;
    gemm_spec logits = {.m = tokens, .n = words, .k = h->n, .ab = type, .b_trans = true};
    logits.lda = h->stride, logits.ldb = w->stride;
    TRY(plan_one(c, &logits, &t->logits, most));
    if (!c->node->out[DH]) return OK;
    gemm_spec to_h = {.m = tokens, .n = h->n, .k = words, .ab = type, .ldb = w->stride};
    to_h.ldc = type == GEMM_BF16 ? h->n : dh->stride;
    TRY(plan_one(c, &to_h, &t->dh_set, most));
    to_h.accumulate = true;
    TRY(plan_one(c, &to_h, &t->dh_add, most));
    gemm_spec to_w = {.m = words, .n = h->n, .k = tokens, .ab = type, .a_trans = true};
    to_w.ldb = h->stride, to_w.ldc = c->out[DW].stride, to_w.accumulate = true;
    TRY(plan_one(c, &to_w, &t->dw_add, most));
    to_w.accumulate = false;
    return accumulates(c, DW) ? OK : plan_one(c, &to_w, &t->dw_set, most);
}

static status prepare(op_call *c)
{
    head_plan *p = c->plan = arena_new(c->arena, head_plan);
    const view *h = &c->in[H], *w = &c->in[WEIGHT];
    bool narrow_store = h->dtype == DT_BF16, grad = c->node->out[DH];
    size_t most = 0, at = 0;
    choose_sizes(c, p);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            if ((i || p->n_chunks > 1) && (j || p->n_blocks > 1))
                TRY(plan_tile(c, size_of(h->rows, p->tokens, p->n_chunks, i),
                              size_of(w->rows, p->words, p->n_blocks, j), &p->tile[i][j], &most));
    const struct {
        size_t *at;
        i64 bytes;
    } parts[] = {
        {&p->logits_at, narrow_store || !grad ? p->tokens * p->words * 4 : 0},
        {&p->stored_at, grad ? p->tokens * w->rows * dtype_bytes(h->dtype) : 0},
        {&p->base_at, p->n_blocks * p->tokens * 4},
        {&p->sum_at, p->tokens * 4},
        {&p->hit_at, p->tokens * 4},
        {&p->dh_at, narrow_store && grad ? p->tokens * h->n * 4 : 0},
        {&p->gemm_at, (i64)most},
    };
    for (i64 k = 0; k < COUNT(parts); k++) {
        *parts[k].at = at;
        at += (size_t)round_up(parts[k].bytes, 64);
    }
    return want_scratch(c, at);
}

/* ---- the kernel */

typedef struct chunk {
    const op_call *c;
    const head_plan *p;
    i64 index, first, tokens; // rows [first, first + tokens)
    const i32 *target;
    float *sum, *hit, *lse, *nll; // by token of the chunk; sum, hit: running over the blocks
    float cap;
    char *gemm_scratch;
} chunk;

typedef struct block {
    i64 index, first, words;
    float *logits; // f32 [tokens, words]
    void *stored;  // u, then g: [tokens, words] in the storage of h; NULL: no gradient wanted
    float *base;   // m by token when u was stored
    const tile *tile;
} block;

static block block_of(const chunk *k, i64 index)
{
    const head_plan *p = k->p;
    const op_call *c = k->c;
    bool last = index == p->n_blocks - 1, grad = c->out[DH].p;
    char *scratch = call_scratch(c);
    block b = {.index = index, .first = index * p->words};
    b.words = size_of(c->in[WEIGHT].rows, p->words, p->n_blocks, last);
    b.tile = &p->tile[k->index == p->n_chunks - 1][last];
    b.base = (float *)(scratch + p->base_at) + index * p->tokens;
    if (grad) b.stored = scratch + p->stored_at + b.first * k->tokens * dtype_bytes(c->in[H].dtype);
    b.logits = grad && c->in[H].dtype == DT_F32 ? b.stored : (float *)(scratch + p->logits_at);
    return b;
}

static float row_max(const float *x, i64 n, float m)
{
#pragma omp simd reduction(max : m)
    for (i64 j = 0; j < n; j++) m = x[j] > m ? x[j] : m;
    return m;
}

/* sum_j 2^u_j, u = (x - m) log2(e); u goes to U (f32, may be X itself), to N (bf16) or nowhere. */
static float sum_exp(const float *x, i64 n, float m)
{
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (i64 j = 0; j < n; j++) s += vec_exp2((x[j] - m) * LOG2_E);
    return s;
}
static float sum_exp_f32(float *x, i64 n, float m)
{
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (i64 j = 0; j < n; j++) {
        x[j] = (x[j] - m) * LOG2_E;
        s += vec_exp2(x[j]);
    }
    return s;
}
static float sum_exp_bf16(const float *restrict x, i64 n, float m, bf16 *restrict to)
{
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (i64 j = 0; j < n; j++) {
        float u = (x[j] - m) * LOG2_E;
        to[j] = f32_to_bf16(u);
        s += vec_exp2(u);
    }
    return s;
}

/* Takes row R of a block of logits into the running statistics and stores its u. */
static void scan_row(const chunk *k, const block *b, i64 r)
{
    float *x = b->logits + r * b->words, before = b->index ? b->base[r - k->p->tokens] : -1e30f;
    i64 n = b->words, t = k->target[r] - b->first;
    if (k->cap > 0) {
        float inverse = 1 / k->cap;
#pragma omp simd
        for (i64 j = 0; j < n; j++) x[j] = k->cap * vec_tanh(x[j] * inverse);
    }
    if (t >= 0 && t < n) k->hit[r] = x[t];
    float m = row_max(x, n, before), s;
    if (!b->stored)
        s = sum_exp(x, n, m);
    else if (b->stored == b->logits)
        s = sum_exp_f32(x, n, m);
    else
        s = sum_exp_bf16(x, n, m, (bf16 *)b->stored + r * n);
    k->sum[r] = (b->index ? k->sum[r] * vec_exp2((before - m) * LOG2_E) : 0) + s;
    b->base[r] = m;
}

static void forward(const chunk *k)
{
    const op_call *c = k->c;
    const view *h = &c->in[H], *w = &c->in[WEIGHT];
    i64 size = dtype_bytes(h->dtype);
    for (i64 i = 0; i < k->p->n_blocks; i++) {
        block b = block_of(k, i);
        gemm_run(b.tile->logits, (char *)h->p + k->first * h->stride * size,
                 (char *)w->p + b.first * w->stride * size, b.logits, NULL, k->gemm_scratch);
#pragma omp parallel for schedule(static)
        for (i64 r = 0; r < k->tokens; r++) scan_row(k, &b, r);
    }
}

/* Sets nll and lse of the chunk; returns sum over its counted tokens of nll + z lse^2. */
static double finish_rows(const chunk *k)
{
    double z = attr(k->c->node, "z_loss"), sum = 0;
    i64 words = k->c->in[WEIGHT].rows;
    const float *m = block_of(k, k->p->n_blocks - 1).base;
    for (i64 r = 0; r < k->tokens; r++) {
        i32 t = k->target[r];
        k->lse[r] = m[r] + logf(k->sum[r]);
        k->nll[r] = t == -1 ? 0 : t < -1 || t >= words ? NAN : k->lse[r] - k->hit[r];
        if (t != -1) sum += (double)k->nll[r] + z * (double)k->lse[r] * (double)k->lse[r];
    }
    return sum;
}

/* What turns u into g for one row of one block: g = a 2^(u + shift) (1 - (l / cap)^2), l = u ln 2 + m. */
typedef struct slope {
    float a, shift, per_u, at_0; // l / cap = u per_u + at_0; both 0 without softcap
} slope;

static inline float slope_of(slope s, float u)
{
    float l = u * s.per_u + s.at_0;
    return s.a * vec_exp2(u + s.shift) * (1 - l * l);
}

static void gradient_row(const chunk *k, const block *b, i64 r, float scale, float z)
{
    i64 n = b->words, t = k->target[r], at = t - b->first;
    bool counted = t >= 0 && t < k->c->in[WEIGHT].rows, here = counted && at >= 0 && at < n;
    float a = counted ? scale * (1 + 2 * z * k->lse[r]) : 0, one = 0;
    slope s = {a, (b->base[r] - k->lse[r]) * LOG2_E, 0, 0};
    if (k->cap > 0) s.per_u = LN_2 / k->cap, s.at_0 = b->base[r] / k->cap;
    if (b->stored == b->logits) {
        float *x = (float *)b->stored + r * n, l = here ? x[at] * s.per_u + s.at_0 : 0;
#pragma omp simd
        for (i64 j = 0; j < n; j++) x[j] = slope_of(s, x[j]);
        if (here) x[at] -= scale * (1 - l * l);
        return;
    }
    bf16 *x = (bf16 *)b->stored + r * n;
    if (here) { // rounded once, after the subtraction
        float u = bf16_to_f32(x[at]), l = u * s.per_u + s.at_0;
        one = slope_of(s, u) - scale * (1 - l * l);
    }
#pragma omp simd
    for (i64 j = 0; j < n; j++) x[j] = f32_to_bf16(slope_of(s, bf16_to_f32(x[j])));
    if (here) x[at] = f32_to_bf16(one);
}

static void backward(const chunk *k, float scale)
{
    const op_call *c = k->c;
    const view *h = &c->in[H], *w = &c->in[WEIGHT], *dh = &c->out[DH], *dw = &c->out[DW];
    float z = (float)attr(c->node, "z_loss");
    i64 size = dtype_bytes(h->dtype);
    bool narrow_store = h->dtype == DT_BF16, add = accumulates(c, DW) || k->index;
    float *sum =
        narrow_store ? (float *)(call_scratch(c) + k->p->dh_at) : (float *)dh->p + k->first * dh->stride;
    for (i64 i = 0; i < k->p->n_blocks; i++) {
        block b = block_of(k, i);
#pragma omp parallel for schedule(static)
        for (i64 r = 0; r < k->tokens; r++) gradient_row(k, &b, r, scale, z);
        gemm_run(i ? b.tile->dh_add : b.tile->dh_set, b.stored, (char *)w->p + b.first * w->stride * size,
                 sum, NULL, k->gemm_scratch);
        gemm_run(add ? b.tile->dw_add : b.tile->dw_set, b.stored, (char *)h->p + k->first * h->stride * size,
                 (float *)dw->p + b.first * dw->stride, NULL, k->gemm_scratch);
    }
    if (!narrow_store) return;
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < k->tokens; r++)
        narrow((bf16 *)dh->p + (k->first + r) * dh->stride, sum + r * h->n, h->n);
}

static void cpu(const op_call *c)
{
    const head_plan *p = c->plan;
    char *scratch = call_scratch(c);
    float weight = (float)(attr(c->node, "weight") * (double)*(const float *)c->in[INV_N].p),
          *loss = c->out[LOSS].p;
    double sum = 0;
    for (i64 i = 0; i < p->n_chunks; i++) {
        chunk k = {.c = c, .p = p, .index = i, .first = i * p->tokens};
        k.tokens = size_of(c->in[H].rows, p->tokens, p->n_chunks, i == p->n_chunks - 1);
        k.target = (const i32 *)c->in[TARGETS].p + k.first;
        k.sum = (float *)(scratch + p->sum_at);
        k.hit = (float *)(scratch + p->hit_at);
        k.lse = (float *)c->out[LSE].p + k.first;
        k.nll = (float *)c->out[NLL].p + k.first;
        k.cap = (float)attr(c->node, "softcap");
        k.gemm_scratch = scratch + p->gemm_at;
        forward(&k);
        sum += finish_rows(&k);
        if (c->out[DH].p) backward(&k, weight);
    }
    *loss = (accumulates(c, LOSS) ? *loss : 0) + (float)((double)weight * sum);
}

static op_cost cost(const node *op)
{
    double products = op->out[DH] ? 3 : 1;
    return (op_cost){2 * products * (double)count(op->in[H]) * (double)op->in[WEIGHT]->dim[0], traffic(op)};
}

/* ---- proofs */

static const op_case cases[] = {
    {"typical", "h=40x64 w=300x64 targets=40 inv_n=1 fill.targets=targets:300 f32"},
    {"chunks and blocks",
     "h=41x32 w=301x32 targets=41 inv_n=1 fill.targets=targets:301 chunk=16 block=64 f32"},
    {"one chunk", "h=2x8x32 w=200x32 targets=2x8 inv_n=1 fill.targets=targets:200 block=100 f32"},
    {"z-loss",
     "h=33x32 w=129x32 targets=33 inv_n=1 fill.targets=targets:129 z_loss=0.01 chunk=20 block=50 f32"},
    {"softcap", "h=33x32 w=129x32 targets=33 inv_n=1 fill.targets=targets:129 softcap=4 block=50 f32"},
    {"all",
     "h=33x32 w=129x32 targets=33 inv_n=1 fill.targets=targets:129 softcap=4 z_loss=0.1 weight=0.3 f32"},
    {"one word", "h=5x8 w=1x8 targets=5 inv_n=1 fill.targets=targets:1 f32 bf16"},
    {"one token", "h=1x8 w=17x8 targets=1 inv_n=1 fill.targets=below:17 f32 bf16"},
    {"zero weights", "h=9x16 w=64x16 targets=9 inv_n=1 fill.targets=targets:64 fill.w=zero f32 bf16"},
    {"sure",
     "h=9x64 w=64x64 targets=9 inv_n=1 fill.targets=targets:64 fill.w=pm2 fill.h=pm2 block=24 f32 bf16"},
    // Gradients from bf16: g is rounded (2^-9), and so is u: 2^-9 |l - m| in a probability. The statistics
    // are f32.
    {"bf16", "h=40x64 w=300x64 targets=40 inv_n=1 fill.targets=targets:300 bf16 tol=0.01"},
    {"bf16 blocks", "h=41x32 w=301x32 targets=41 inv_n=1 fill.targets=targets:301 chunk=16 block=64 "
                    "z_loss=0.01 bf16 tol=0.01"},
    {"bf16 softcap",
     "h=33x32 w=129x32 targets=33 inv_n=1 fill.targets=targets:129 softcap=20 block=50 bf16 tol=0.01"},
    {"evaluation", "h=41x32 w=301x32 targets=41 inv_n=1 fill.targets=targets:301 chunk=16 block=64 "
                   "evaluate=1 grad=0 f32 bf16 tol=1e-5"},
    {"head 768", "h=2048x768 w=50304x768 targets=2048 inv_n=1 fill.targets=targets:50304 bf16 bench"},
    {"head 256", "h=8192x256 w=16384x256 targets=8192 inv_n=1 fill.targets=targets:16384 bf16 bench"},
    {0},
};

/* Gradients of a softmax sum to 0 over the words. */
static double words_balance(law *l)
{
    double worst = 0;
    const double *dw = law_run(l, DW);
    for (i64 k = 0; k < 16; k++) {
        double sum = 0;
        for (i64 j = 0; j < 50; j++) sum += dw[j * 16 + k];
        worst = fmax(worst, fabs(sum));
    }
    return worst;
}
/* A masked token has neither loss nor gradient. */
static double masked_silent(law *l)
{
    const double *target = law_in(l, "targets");
    double worst = 0;
    for (i64 i = 0; i < 11; i++)
        for (i64 k = 0; target[i] < 0 && k < 16; k++)
            worst = fmax(worst, fabs(law_run(l, DH)[i * 16 + k]) + fabs(law_run(l, NLL)[i]));
    return worst;
}
/* Without knowledge a word costs log V. */
static double ignorance(law *l)
{
    double worst = 0;
    for (i64 i = 0; i < 11; i++) worst = fmax(worst, fabs(law_run(l, LSE)[i] - log(50)));
    return worst;
}
static const op_law laws[] = {
    {"gradients balance over the words", "h=11x16 w=50x16 targets=11 inv_n=1 fill.targets=targets:50",
     words_balance, 1e-12},
    {"masked tokens are silent", "h=11x16 w=50x16 targets=11 inv_n=1 fill.targets=targets:50", masked_silent,
     0},
    {"zero weights cost log V", "h=11x16 w=50x16 targets=11 inv_n=1 fill.w=zero fill.targets=targets:50",
     ignorance, 1e-14},
    {0},
};

OP_DEF(linear_xent) = {
    .name = "linear_xent",
    .brief = "loss = weight inv_n sum (nll + z lse^2), nll = lse - l_t, l = h w^T, and its gradients",
    .source = "arXiv:2411.09009 (chunks), arXiv:2204.02311 (z-loss), arXiv:2408.00118 (softcap)",
    .in = {{"h", "[rows, d]"},
           {"w", "[words, d]", ARG_WEIGHT},
           {"targets", "[rows]", ARG_I32, .range = "any"},
           {"inv_n", "[1]", ARG_F32, .fixed = true, .fill = "positive"}},
    .out = {{"loss", "[1]", ARG_F32},
            {"nll", "[rows, 1]", ARG_F32, .fixed = true},
            {"lse", "[rows, 1]", ARG_F32, .fixed = true},
            {"dh", "[rows, d]", .optional = true},
            {"dw", "[words, d]", ARG_F32, .optional = true}},
    .attrs = {{"z_loss", 0, 0, 1, "weight of lse^2"},
              {"softcap", 0, 0, 1e4, "bound of the logits, by tanh; 0: none"},
              {"weight", 1, 0, 1e6, "of this loss in the whole"},
              {"evaluate", 0, 0, 1, "1: no gradients"},
              {"chunk", 0, 0, 65536, "tokens at a time; 0: chosen"},
              {"block", 0, 0, 1048576, "words at a time; 0: chosen"}},
    .flags = OP_LOSS | OP_ACCUMULATES,
    .infer = infer,
    .vjp = vjp,
    .reference = reference,
    .cpu = cpu,
    .prepare = prepare,
    .cost = cost,
    .cases = cases,
    .laws = laws,
};
