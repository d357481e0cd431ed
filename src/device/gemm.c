/* gemm: plans over oneDNN's matmul primitive (the v2 interface of oneDNN 2.6).
 *
 * A plan is one or two primitives (a piece and the last piece, when the rows of C are split) with memory
 * handles per caller, so that running one is setting pointers and executing. Primitives take 200 to 600 us to
 * create and are made for the number of threads OpenMP has at that moment: a `serial` plan is created with
 * one.
 *
 * The split: oneDNN 2.6 is weak where A is transposed and C is accumulated in f32 (the gradient of a weight,
 * dW [out, in] += dY^T X, over many tokens), less so in several calls on rows of C. Measured on 2 Zen 5 cores
 * with cold inputs, share of the bf16 peak probed beside each call, whole against the split chosen here:
 *   768x768x2048 84 -> 89, 768x3072x2048 81 -> 94, 3072x768x2048 89 -> 95, 4096x1024x2048 88 -> 100,
 *   768x256x8192 76 -> 82, 1408x256x8192 79 -> 86, 704x256x8192 76 -> 84; up to 512 rows nothing is gained.
 */
#include "device/gemm.h"
#include "device/device_impl.h"
#include "device/gemm_widen.h"
#include <assert.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

enum { SPLIT_MIN_N = 256, SPLIT_TALL = 1536, SPLIT_ROWS_TALL = 768, SPLIT_ROWS = 512, SPLIT_ALIGN = 64 };
enum { ARGS = 5 }; // source, weights, destination, bias, scratchpad

typedef struct part { // one primitive and, per caller, its memory handles
    dnnl_primitive_t primitive;
    size_t scratch;
    dnnl_exec_arg_t (*args)[ARGS]; // [callers]; the scratchpad's memory waits in the last
    int n_args;
    i64 *made_for; // for a ragged plan: [callers], rows or depth the handles are made for; -1: none yet
} part;

struct gemm_plan {
    gemm_spec spec; // normalised: no zero left in lda, ldb, ldc, split
    device *device;
    i64 callers;
    part part[2];
    i64 pieces;       // part[0] runs pieces - 1 times, then part[1]; or one piece, part[1]
    gemm_widen widen; // where oneDNN refuses bfloat16: how scratch is laid out around INNER
    const gemm_plan *inner;
    i64 scratch;
    gemm_plan *next;
};

const char *gemm_describe(const gemm_spec *s, char out[160])
{
    static const char *const types[] = {"f32", "bf16"};
    snprintf(out, 160, "gemm %s%lldx%lldx%s%lld %s %s -> %s%s%s%s%s%s", s->ragged ? "<=" : "",
             (long long)s->m, (long long)s->n, s->ragged_depth ? "<=" : "", (long long)s->k, types[s->ab],
             types[s->ab], types[s->c], s->a_trans ? ", A^T" : "", s->b_trans ? ", B^T" : "",
             s->bias == GEMM_BIAS_F32    ? ", f32 bias"
             : s->bias == GEMM_BIAS_BF16 ? ", bf16 bias"
                                         : "",
             s->accumulate ? ", accumulated" : "", s->serial ? ", one thread" : "");
    return out;
}

double gemm_flops(const gemm_spec *s) { return 2.0 * (double)s->m * (double)s->n * (double)s->k; }

static bool is_ragged(const gemm_spec *s) { return s->ragged || s->ragged_depth; }

static i64 choose_split(const gemm_spec *s)
{
    bool weight_gradient = s->a_trans && s->ab == GEMM_BF16 && s->c == GEMM_F32 && s->n >= SPLIT_MIN_N;
    if (!weight_gradient || is_ragged(s) || s->serial) return s->m;
    i64 about = s->m >= SPLIT_TALL ? SPLIT_ROWS_TALL : SPLIT_ROWS;
    i64 pieces = (s->m + about - 1) / about;
    return MIN(s->m,
               round_up((s->m + pieces - 1) / pieces, SPLIT_ALIGN)); // equal pieces, no sliver at the end
}

static status normalise(const gemm_spec *from, gemm_spec *s)
{
    char text[160];
    memset(s, 0, sizeof *s); // padding too: specs are compared as bytes
    s->m = from->m, s->n = from->n, s->k = from->k;
    s->ab = from->ab, s->c = from->c, s->bias = from->bias;
    s->a_trans = from->a_trans, s->b_trans = from->b_trans, s->accumulate = from->accumulate;
    s->ragged = from->ragged, s->ragged_depth = from->ragged_depth, s->serial = from->serial;
    gemm_describe(s, text);
    if (s->m < 1 || s->n < 1 || s->k < 1) return fail(ERR_CONFIG, "%s: every extent must be >= 1", text);
    if (s->ragged_depth && (s->ragged || s->bias))
        return fail(ERR_CONFIG, "%s: a ragged depth goes neither with ragged rows nor with a bias", text);
    if (s->c == GEMM_BF16 && s->ab == GEMM_F32)
        return fail(ERR_CONFIG, "%s: f32 factors give an f32 result; use c = GEMM_F32", text);
    if (s->bias == GEMM_BIAS_BF16 && s->ab == GEMM_F32)
        return fail(ERR_CONFIG, "%s: f32 factors take an f32 bias; use GEMM_BIAS_F32", text);
    const i64 given[3] = {from->lda, from->ldb, from->ldc};
    const i64 dense[3] = {s->a_trans ? s->m : s->k, s->b_trans ? s->k : s->n, s->n};
    i64 *const to[3] = {&s->lda, &s->ldb, &s->ldc};
    for (int i = 0; i < 3; i++) {
        *to[i] = given[i] ? given[i] : dense[i];
        if (*to[i] < dense[i])
            return fail(ERR_CONFIG, "%s: ld%c is %lld; it must be >= %lld (0: dense)", text, "abc"[i],
                        (long long)given[i], (long long)dense[i]);
    }
    s->split = from->split ? from->split : choose_split(s);
    if (s->split < 1 || s->split > s->m || (is_ragged(s) && s->split != s->m))
        return fail(ERR_CONFIG, "%s: split is %lld; it must be 0 or 1 to %lld%s", text,
                    (long long)from->split, (long long)s->m,
                    s->ragged         ? " (whole, as the rows are ragged)"
                    : s->ragged_depth ? " (whole, as the depth is ragged)"
                                      : "");
    return OK;
}

static dnnl_data_type_t dnnl_type(gemm_type t) { return t == GEMM_BF16 ? dnnl_bf16 : dnnl_f32; }

typedef struct shapes {
    dnnl_memory_desc_t a, b, c, bias;
} shapes;

/* Descriptors for ROWS rows of C and sums of DEPTH terms (either may be DNNL_RUNTIME_DIM_VAL). */
static dnnl_status_t describe(const gemm_spec *s, i64 rows, i64 depth, shapes *out)
{
    const dnnl_dims_t a = {rows, depth}, b = {depth, s->n}, c = {rows, s->n}, bias = {1, s->n};
    const dnnl_dims_t a_step = {s->a_trans ? 1 : s->lda, s->a_trans ? s->lda : 1};
    const dnnl_dims_t b_step = {s->b_trans ? 1 : s->ldb, s->b_trans ? s->ldb : 1};
    const dnnl_dims_t c_step = {s->ldc, 1}, bias_step = {s->n, 1};
    dnnl_data_type_t bias_type = s->bias == GEMM_BIAS_BF16 ? dnnl_bf16 : dnnl_f32;
    memset(out, 0, sizeof *out);
    dnnl_status_t e = dnnl_memory_desc_init_by_strides(&out->a, 2, a, dnnl_type(s->ab), a_step);
    if (!e) e = dnnl_memory_desc_init_by_strides(&out->b, 2, b, dnnl_type(s->ab), b_step);
    if (!e) e = dnnl_memory_desc_init_by_strides(&out->c, 2, c, dnnl_type(s->c), c_step);
    if (!e && s->bias) e = dnnl_memory_desc_init_by_strides(&out->bias, 2, bias, bias_type, bias_step);
    return e;
}

static dnnl_status_t make_attributes(const gemm_spec *s, dnnl_primitive_attr_t *out)
{
    dnnl_post_ops_t post = NULL;
    dnnl_status_t e = dnnl_primitive_attr_create(out);
    if (!e) e = dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user);
    if (!e && s->accumulate) {
        e = dnnl_post_ops_create(&post);
        if (!e) e = dnnl_post_ops_append_sum(post, 1.0f);
        if (!e) e = dnnl_primitive_attr_set_post_ops(*out, post);
        if (post) dnnl_post_ops_destroy(post);
    }
    return e;
}

/* Sets (memory made on first use) argument I of ARGS to SHAPE. */
static dnnl_status_t set_argument(device *d, dnnl_exec_arg_t *arg, int name, const dnnl_memory_desc_t *shape)
{
    arg->arg = name;
    if (arg->memory) dnnl_memory_destroy(arg->memory);
    arg->memory = NULL;
    return dnnl_memory_create(&arg->memory, shape, d->engine, DNNL_MEMORY_NONE);
}

static dnnl_status_t make_handles(const gemm_plan *p, const part *q, i64 caller, const shapes *sh)
{
    dnnl_exec_arg_t *arg = q->args[caller];
    dnnl_status_t e = set_argument(p->device, &arg[0], DNNL_ARG_SRC, &sh->a);
    if (!e) e = set_argument(p->device, &arg[1], DNNL_ARG_WEIGHTS, &sh->b);
    if (!e) e = set_argument(p->device, &arg[2], DNNL_ARG_DST, &sh->c);
    if (!e && p->spec.bias) e = set_argument(p->device, &arg[3], DNNL_ARG_BIAS, &sh->bias);
    return e;
}

static dnnl_status_t make_part(gemm_plan *p, part *q, i64 rows)
{
    shapes sh;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_primitive_desc_t pd = NULL;
    const dnnl_memory_desc_t *pad = NULL;
    const gemm_spec *s = &p->spec;
    q->n_args = s->bias ? 4 : 3;
    dnnl_status_t e = describe(s, s->ragged ? DNNL_RUNTIME_DIM_VAL : rows,
                               s->ragged_depth ? DNNL_RUNTIME_DIM_VAL : s->k, &sh);
    if (!e) e = dnnl_matmul_desc_init(&desc, &sh.a, &sh.b, s->bias ? &sh.bias : NULL, &sh.c);
    if (!e) e = make_attributes(s, &attributes);
    if (!e) e = dnnl_primitive_desc_create(&pd, &desc, attributes, p->device->engine, NULL);
    if (!e) pad = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    if (!e) e = dnnl_primitive_create(&q->primitive, pd);
    q->scratch = pad ? dnnl_memory_desc_get_size(pad) : 0;

    q->args = arena_alloc(p->device->memory, sizeof *q->args * (size_t)p->callers);
    q->made_for = arena_array(p->device->memory, i64, p->callers);
    for (i64 i = 0; !e && i < p->callers; i++) {
        q->made_for[i] = is_ragged(s) ? -1 : rows;
        if (!is_ragged(s)) e = make_handles(p, q, i, &sh);
        if (!e && q->scratch) e = set_argument(p->device, &q->args[i][ARGS - 1], DNNL_ARG_SCRATCHPAD, pad);
    }
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (attributes) dnnl_primitive_attr_destroy(attributes);
    return e;
}

static void release_part(part *q, i64 callers)
{
    for (i64 i = 0; q->args && i < callers; i++)
        for (int j = 0; j < ARGS; j++)
            if (q->args[i][j].memory) dnnl_memory_destroy(q->args[i][j].memory);
    if (q->primitive) dnnl_primitive_destroy(q->primitive);
    memset(q, 0, sizeof *q);
}

void gemm_plans_release(device *d)
{
    for (gemm_plan *p = d->plans; p; p = p->next)
        for (int i = 0; i < 2; i++) release_part(&p->part[i], p->callers);
    d->plans = NULL;
}

static dnnl_status_t make_parts(gemm_plan *p)
{
    i64 m = p->spec.m, split = p->spec.split;
    p->pieces = (m + split - 1) / split;
    i64 last = m - (p->pieces - 1) * split;
    int threads = omp_get_max_threads();
    if (p->spec.serial) omp_set_num_threads(1);
    dnnl_status_t e = make_part(p, &p->part[1], last);
    if (!e && p->pieces > 1) e = make_part(p, &p->part[0], split);
    omp_set_num_threads(threads);
    p->scratch = (i64)MAX(p->part[0].scratch, p->part[1].scratch);
    return e;
}

/* The plan for a processor whose oneDNN knows no bfloat16: an f32 plan between conversions. */
static status make_widened(gemm_plan *p)
{
    gemm_spec inner = p->spec;
    gemm_widen_layout(&p->spec, &p->widen);
    inner.ab = inner.c = GEMM_F32;
    inner.lda = p->widen.a.cols, inner.ldb = p->widen.b.cols;
    if (p->spec.c == GEMM_BF16) inner.ldc = inner.n;
    if (inner.bias) inner.bias = GEMM_BIAS_F32;
    TRY(gemm_plan_get(p->device, &inner, &p->inner));
    p->scratch = p->widen.bytes + p->inner->scratch;
    return OK;
}

status gemm_plan_get(device *d, const gemm_spec *wanted, const gemm_plan **out)
{
    gemm_spec spec;
    char text[160];
    assert(!omp_in_parallel() && "plans are made at set-up");
    TRY(normalise(wanted, &spec));
    for (gemm_plan *p = d->plans; p; p = p->next)
        if (!memcmp(&p->spec, &spec, sizeof spec)) return *out = p, OK;

    gemm_plan *p = arena_new(d->memory, gemm_plan);
    memcpy(&p->spec, &spec, sizeof spec);
    p->device = d;
    p->callers = spec.serial ? d->about.threads : 1;
    dnnl_status_t e = make_parts(p);
    if (e)
        for (int i = 0; i < 2; i++) release_part(&p->part[i], p->callers);
    if (e == dnnl_unimplemented && spec.ab == GEMM_BF16)
        TRY(wrap(make_widened(p), "%s", gemm_describe(&spec, text)));
    else if (e)
        return fail(ERR_CONFIG, "%s: oneDNN refuses it: %s", gemm_describe(&spec, text), dnnl_reason(e));
    p->next = d->plans;
    d->plans = p;
    *out = p;
    return OK;
}

i64 gemm_scratch_bytes(const gemm_plan *p) { return p->scratch; }

static void run_part(const gemm_plan *p, const part *q, const void *a, const void *b, void *c,
                     const void *bias, void *scratch)
{
    i64 caller = p->spec.serial ? omp_get_thread_num() : 0;
    assert(caller < p->callers);
    dnnl_exec_arg_t args[ARGS], *own = q->args[caller];
    int n = q->n_args;
    memcpy(args, own, sizeof *args * (size_t)n);
    // Handles take void *; oneDNN does not write through those of its sources.
    const void *data[4] = {a, b, c, bias};
    dnnl_status_t e = dnnl_success;
    for (int i = 0; !e && i < n; i++) e = dnnl_memory_set_data_handle(args[i].memory, (void *)data[i]);
    if (q->scratch) {
        args[n] = own[ARGS - 1];
        if (!e) e = dnnl_memory_set_data_handle(args[n++].memory, scratch);
    }
    if (!e) e = dnnl_primitive_execute(q->primitive, p->device->streams[caller], n, args);
    assert(!e && "oneDNN failed to execute a plan it had accepted");
    (void)e;
}

static const void *ahead(const void *p, gemm_type type, i64 elements)
{
    return (const char *)p + elements * (type == GEMM_BF16 ? 2 : 4);
}

static void run_whole(const gemm_plan *p, i64 rows, i64 depth, const void *a, const void *b, void *c,
                      const void *bias, void *scratch);

static void run_widened(const gemm_plan *p, i64 rows, i64 depth, const void *a, const void *b, void *c,
                        const void *bias, void *scratch)
{
    gemm_spec s = p->spec;
    s.k = depth;
    gemm_widened w = gemm_widen_in(&p->widen, &s, rows, a, b, c, bias, scratch);
    run_whole(p->inner, rows, depth, w.a, w.b, w.c, w.bias, (char *)scratch + p->widen.bytes);
    gemm_widen_out(&s, rows, &w, c);
}

/* Makes the handles of a ragged plan for what is ragged now, unless they already are. */
static void fit_handles(const gemm_plan *p, i64 rows, i64 depth)
{
    const gemm_spec *s = &p->spec;
    const part *q = &p->part[1];
    i64 caller = s->serial ? omp_get_thread_num() : 0, now = s->ragged ? rows : depth;
    if (q->made_for[caller] == now) return;
    shapes sh;
    dnnl_status_t e = describe(s, rows, depth, &sh);
    if (!e) e = make_handles(p, q, caller, &sh);
    assert(!e && "oneDNN cannot describe a ragged matrix");
    (void)e;
    q->made_for[caller] = now;
}

static void run_whole(const gemm_plan *p, i64 rows, i64 depth, const void *a, const void *b, void *c,
                      const void *bias, void *scratch)
{
    const gemm_spec *s = &p->spec;
    if (p->inner) {
        run_widened(p, rows, depth, a, b, c, bias, scratch);
        return;
    }
    if (is_ragged(s)) fit_handles(p, rows, depth);
    for (i64 i = 0; i < p->pieces; i++) {
        i64 r = i * s->split;
        run_part(p, &p->part[i == p->pieces - 1], ahead(a, s->ab, s->a_trans ? r : r * s->lda), b,
                 (void *)ahead(c, s->c, r * s->ldc), bias, scratch);
    }
}

static void check_call(const gemm_plan *p, const void *bias, const void *scratch)
{
    assert((p->spec.serial || !omp_in_parallel()) && "a plan that is not serial, inside a parallel region");
    assert(!bias == !p->spec.bias);
    assert((uintptr_t)scratch % 64 == 0 && (scratch || !p->scratch));
    (void)p, (void)bias, (void)scratch;
}

void gemm_run(const gemm_plan *p, const void *a, const void *b, void *c, const void *bias, void *scratch)
{
    check_call(p, bias, scratch);
    assert(!is_ragged(&p->spec) && "use gemm_run_rows or gemm_run_depth");
    run_whole(p, p->spec.m, p->spec.k, a, b, c, bias, scratch);
}

void gemm_run_rows(const gemm_plan *p, i64 rows, const void *a, const void *b, void *c, const void *bias,
                   void *scratch)
{
    check_call(p, bias, scratch);
    assert(p->spec.ragged && rows >= 0 && rows <= p->spec.m);
    if (rows) run_whole(p, rows, p->spec.k, a, b, c, bias, scratch);
}

void gemm_run_depth(const gemm_plan *p, i64 depth, const void *a, const void *b, void *c, void *scratch)
{
    const gemm_spec *s = &p->spec;
    check_call(p, NULL, scratch);
    assert(s->ragged_depth && depth >= 0 && depth <= s->k);
    if (depth)
        run_whole(p, s->m, depth, a, b, c, NULL, scratch);
    else if (!s->accumulate)
        for (i64 r = 0; r < s->m; r++)
            memset((void *)ahead(c, s->c, r * s->ldc), 0, (size_t)s->n * (s->c == GEMM_BF16 ? 2 : 4));
}
