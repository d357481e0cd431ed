/* Row-wise operations beyond what `keel op check` covers: views with strides, mixed storages, random numbers
 * that do not depend on micro-batches, ids out of range, bits that do not depend on threads, what autodiff
 * makes of them. */
#include "base/random.h"
#include "ops/activations.h"
#include "ops/op.h"
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdlib.h>
#include <stdarg.h>
#include <cmocka.h>

enum { GAP = 3, POISON = 0x4B }; // columns after each row of a test view; bytes that must survive there

static isa best_level(void)
{
    cpu_facts cpu;
    cpu_detect(&cpu);
    return cpu.level;
}

typedef struct fixture {
    arena *arena;
    graph *g;
} fixture;

static fixture fixture_open(dtype act, dtype stream)
{
    fixture f;
    assert_null(arena_open(&f.arena));
    f.g = graph_new(f.arena, &(graph_options){.act = act, .stream = stream});
    return f;
}
static void fixture_close(fixture *f)
{
    graph_close(f->g);
    arena_close(f->arena);
}

/* A view for T whose rows lie GAP elements apart, poisoned; floats are then filled with N(0, 1). */
static view strided(fixture *f, const tensor *t, u64 stream)
{
    if (!t) return (view){0};
    view v = {.dtype = t->dtype, .rows = rows_of(t), .n = cols(t), .stride = cols(t) + GAP};
    size_t bytes = (size_t)(v.rows * v.stride * dtype_bytes(v.dtype));
    v.p = memset(arena_alloc(f->arena, bytes), POISON, bytes);
    for (i64 r = 0; r < v.rows && stream; r++)
        for (i64 j = 0; j < v.n; j++) {
            float x = (float)random_normal(1, stream, 0, (u64)(r * v.n + j));
            if (v.dtype == DT_F32)
                ((float *)v.p)[r * v.stride + j] = x;
            else if (v.dtype == DT_BF16)
                ((bf16 *)v.p)[r * v.stride + j] = f32_to_bf16(x);
            else
                ((i32 *)v.p)[r * v.stride + j] = (i32)(fabsf(x) * 4);
        }
    return v;
}
static void gaps_survive(const view *v)
{
    i64 size = dtype_bytes(v->dtype);
    for (i64 r = 0; r < v->rows; r++)
        for (i64 i = v->n * size; i < v->stride * size; i++)
            assert_int_equal(((u8 *)v->p)[r * v->stride * size + i], POISON);
}
static double at(const view *v, i64 r, i64 j)
{
    i64 i = r * v->stride + j;
    return v->dtype == DT_F32    ? (double)((float *)v->p)[i]
           : v->dtype == DT_BF16 ? (double)bf16_to_f32(((bf16 *)v->p)[i])
                                 : (double)((i32 *)v->p)[i];
}

/* Runs N's kernel at LEVEL with THREADS on the views of CALL. */
static void run(fixture *f, node *n, op_call *call, isa level, int threads, const step_info *step)
{
    i64 widest = 0;
    const op_def *def = op_table(level, n->op);
    for (int i = 0; i < MAX_IN; i++) widest = MAX(widest, call->in[i].n);
    for (int i = 0; i < MAX_OUT; i++) widest = MAX(widest, call->out[i].n);
    call->node = n;
    call->threads = threads;
    call->row_slot = (size_t)round_up(widest * 4, 64);
    call->step = step;
    call->arena = f->arena;
    assert_null(want_scratch(call, 0));
    if (def->prepare) assert_null(def->prepare(call));
    call->scratch = aligned_alloc(64, (size_t)round_up((i64)call->scratch_bytes + 64, 64));
    assert_non_null(call->scratch);
    int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    def->cpu(call);
    omp_set_num_threads(before);
    free(call->scratch);
}

/* Against the definition, on the values that the views of CALL hold: within LIMIT in f32, one rounding in
 * bf16. */
static void agrees(fixture *f, const node *n, const op_call *call, const step_info *step, double limit)
{
    op_call64 c = {.node = n, .step = step};
    for (int i = 0; i < n->n_in; i++) {
        const view *v = &call->in[i];
        if (!v->p) continue;
        double *x = arena_array(f->arena, double, v->rows * v->n);
        for (i64 k = 0; k < v->rows * v->n; k++) x[k] = at(v, k / v->n, k % v->n);
        c.in[i] = x;
    }
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i]) c.out[i] = arena_array(f->arena, double, count(n->out[i]));
    n->def->reference(&c);
    for (int i = 0; i < n->n_out; i++) {
        const view *v = &call->out[i];
        for (i64 k = 0; k < v->rows * v->n; k++) {
            double got = at(v, k / v->n, k % v->n), want = c.out[i][k];
            double bound = v->dtype == DT_BF16 ? fabs(want) / 256 + 1e-5 : limit * (1 + fabs(want));
            if (!(fabs(got - want) <= bound))
                fail_msg("%s, output %d, row %lld, column %lld: %g, not %g", n->def->name, i,
                         (long long)(k / v->n), (long long)(k % v->n), got, want);
        }
        if (v->p) gaps_survive(v);
    }
}

/* Every input as a leaf of type TYPES[i] ('f' f32, 'b' bf16, 'i' i32, '-' absent) with rows x N[i] values. */
static void on_strided_views(op_id op, const char *types, i64 rows, const i64 *n, const op_set *attrs)
{
    for (isa level = ISA_PLAIN; level <= best_level(); level++) {
        fixture f = fixture_open(DT_BF16, DT_BF16);
        tensor *in[MAX_IN] = {0};
        op_call call = {0};
        step_info step = {.seed = 4, .step = 2};
        int n_in = (int)strlen(types);
        for (int i = 0; i < n_in; i++)
            if (types[i] != '-') {
                dtype t = types[i] == 'f' ? DT_F32 : types[i] == 'b' ? DT_BF16 : DT_I32;
                bool vector = n[i] < 0;
                in[i] = g_input(f.g, arena_printf(f.arena, "in%d", i), t, vector ? 1 : 2,
                                vector ? (i64[]){-n[i]} : (i64[]){rows, n[i]});
                call.in[i] = strided(&f, in[i], 1 + (u64)i);
            }
        node *x = g_node(f.g, op, in, n_in, attrs);
        assert_null(graph_status(f.g));
        for (int i = 0; i < x->n_out; i++) call.out[i] = strided(&f, x->out[i], 0);
        run(&f, x, &call, level, 2, &step);
        agrees(&f, x, &call, &step, 1e-5);
        fixture_close(&f);
    }
}

static void strides_and_mixed_storage(void **state)
{
    (void)state;
    on_strided_views(OP_joint, "fb", 5, (i64[]){37, 37}, WITH({"a", 0.5}));
    on_strided_views(OP_joint, "bf", 5, (i64[]){37, 37}, NO_ATTRS);
    on_strided_views(OP_scale, "b", 5, (i64[]){37}, WITH({"a", 3}));
    on_strided_views(OP_cast, "f", 5, (i64[]){37}, WITH({"to", DT_BF16}));
    on_strided_views(OP_cast, "b", 5, (i64[]){37}, WITH({"to", DT_F32}));
    on_strided_views(OP_cast, "b", 5, (i64[]){37}, WITH({"to", DT_BF16}));
    on_strided_views(OP_activation, "f", 5, (i64[]){37}, WITH({"kind", ACTIVATION_gelu}));
    on_strided_views(OP_activation_grad, "bf", 5, (i64[]){37, 37}, WITH({"kind", ACTIVATION_silu}));
    on_strided_views(OP_gated, "b", 5, (i64[]){38}, NO_ATTRS);
    on_strided_views(OP_gated_grad, "bf", 5, (i64[]){38, 19}, NO_ATTRS);
    on_strided_views(OP_layer_norm, "fff", 5, (i64[]){37, -37, -37}, NO_ATTRS);
    on_strided_views(OP_layer_norm, "b", 5, (i64[]){37}, NO_ATTRS);
    on_strided_views(OP_layer_norm_grad, "bffffb", 5, (i64[]){37, -37, -37, 1, 1, 37}, NO_ATTRS);
    on_strided_views(OP_embedding, "fi", 5, (i64[]){8, 6}, NO_ATTRS);
    on_strided_views(OP_dropout, "f", 5, (i64[]){37}, WITH({"p", 0.5}));
}

/* Ids below, at and beyond the table's end: gaps and neighbours stay as they were. */
static void ids_out_of_range(void **state)
{
    (void)state;
    static const i32 ids[6] = {-1, 0, 3, 4, INT32_MAX, INT32_MIN};
    fixture f = fixture_open(DT_F32, DT_F32);
    tensor *table = g_input(f.g, "table", DT_F32, 2, (i64[]){4, 5});
    tensor *id = g_input(f.g, "ids", DT_I32, 1, (i64[]){6}),
           *dy = g_input(f.g, "dy", DT_F32, 2, (i64[]){6, 5});
    node *n[3] = {g_node(f.g, OP_embedding, IN(table, id), NO_ATTRS),
                  g_node(f.g, OP_embedding_grad, IN(id, dy, table), NO_ATTRS),
                  g_node(f.g, OP_rows_merge, IN(id, dy), NO_ATTRS)};
    assert_null(graph_status(f.g));
    for (int k = 0; k < 3; k++) {
        op_call call = {0};
        for (int i = 0; i < n[k]->n_in; i++) {
            call.in[i] = strided(&f, n[k]->in[i], 1);
            if (n[k]->in[i] == id) memcpy(call.in[i].p, ids, sizeof ids);
        }
        for (int i = 0; i < n[k]->n_out; i++) call.out[i] = strided(&f, n[k]->out[i], 0);
        run(&f, n[k], &call, ISA_PLAIN, 2, NULL);
        agrees(&f, n[k], &call, NULL, 0);
        if (k == 2) assert_true(at(&call.out[2], 0, 0) == 4 && at(&call.out[0], 0, 3) == INT32_MAX);
        if (k == 2) assert_true(at(&call.out[0], 0, 4) == -1 && at(&call.out[1], 4, 0) == 0);
    }
    fixture_close(&f);
}

/* The bits of sums over look-ups do not depend on the number of threads. */
static void same_bits_for_any_threads(void **state)
{
    (void)state;
    enum { K = 500, N = 19, V = 7 };
    fixture f = fixture_open(DT_F32, DT_F32);
    tensor *table = g_input(f.g, "table", DT_F32, 2, (i64[]){V, N});
    tensor *id = g_input(f.g, "ids", DT_I32, 1, (i64[]){K}),
           *dy = g_input(f.g, "dy", DT_F32, 2, (i64[]){K, N});
    node *dense = g_node(f.g, OP_embedding_grad, IN(id, dy, table), NO_ATTRS);
    node *merged = g_node(f.g, OP_rows_merge, IN(id, dy), NO_ATTRS);
    op_call call[3][2] = {0};
    for (int threads = 1; threads <= 3; threads++) {
        op_call *d = &call[threads - 1][0], *m = &call[threads - 1][1];
        for (int i = 0; i < 3; i++) d->in[i] = strided(&f, dense->in[i], 7);
        for (int i = 0; i < 2; i++) m->in[i] = d->in[i];
        for (i64 k = 0; k < K; k++) ((i32 *)d->in[0].p)[k] %= V;
        d->out[0] = strided(&f, dense->out[0], 0);
        for (int i = 0; i < 3; i++) m->out[i] = strided(&f, merged->out[i], 0);
        run(&f, dense, d, ISA_PLAIN, threads, NULL);
        run(&f, merged, m, ISA_PLAIN, threads, NULL);
        size_t bytes = sizeof(float) * V * (N + GAP);
        assert_memory_equal(d->out[0].p, call[0][0].out[0].p, bytes);
        assert_memory_equal(m->out[1].p, d->out[0].p, bytes); // ids 0 to 6 all occur: the same sums, in order
    }
    fixture_close(&f);
}

/* Dropout of ones: 12 rows at once, as three micro-batches of 4 rows, and with other keys. */
static void mask(float *to, i64 rows, const step_info *step, u64 stream)
{
    fixture f = fixture_open(DT_F32, DT_F32);
    tensor *x = g_input(f.g, "x", DT_F32, 2, (i64[]){rows, 37});
    node *n = g_node(f.g, OP_dropout, IN(x), WITH({"p", 0.5}));
    assert_null(graph_status(f.g));
    n->stream = stream;
    float *ones = arena_array(f.arena, float, rows * 37);
    for (i64 i = 0; i < rows * 37; i++) ones[i] = 1;
    op_call call = {.in = {{ones, DT_F32, rows, 37, 37}}, .out = {{to, DT_F32, rows, 37, 37}}};
    run(&f, n, &call, best_level(), 2, step);
    fixture_close(&f);
}
static void masks_do_not_depend_on_micro_batches(void **state)
{
    (void)state;
    float whole[12 * 37], parts[12 * 37], other[12 * 37];
    mask(whole, 12, &(step_info){.seed = 1, .step = 5}, 9);
    for (i64 k = 0; k < 3; k++)
        mask(parts + k * 4 * 37, 4, &(step_info){.seed = 1, .step = 5, .row_offset = 4 * k}, 9);
    assert_memory_equal(whole, parts, sizeof whole);
    mask(other, 12, &(step_info){.seed = 1, .step = 6}, 9);
    assert_memory_not_equal(whole, other, sizeof whole);
    mask(other, 12, &(step_info){.seed = 2, .step = 5}, 9);
    assert_memory_not_equal(whole, other, sizeof whole);
    mask(other, 12, &(step_info){.seed = 1, .step = 5}, 10);
    assert_memory_not_equal(whole, other, sizeof whole);
    // Beyond 2^32 blocks the counter's upper half counts.
    mask(parts, 4, &(step_info){.seed = 1, .step = 5, .row_offset = 1ll << 34}, 9);
    assert_memory_not_equal(whole, parts, sizeof *parts * 4 * 37);
}

/* Y = activation or, with DY, its gradient, of N values. */
static void scalar_op(isa level, int kind, i64 n, float *x, float *dy, float *y)
{
    fixture f = fixture_open(DT_F32, DT_F32);
    tensor *in[2] = {g_input(f.g, "x", DT_F32, 2, (i64[]){1, n}),
                     g_input(f.g, "dy", DT_F32, 2, (i64[]){1, n})};
    node *op = g_node(f.g, dy ? OP_activation_grad : OP_activation, in, dy ? 2 : 1, WITH({"kind", kind}));
    assert_null(graph_status(f.g));
    op_call call = {.in = {{x, DT_F32, 1, n, n}, {dy, DT_F32, 1, n, n}}, .out = {{y, DT_F32, 1, n, n}}};
    run(&f, op, &call, level, 1, NULL);
    fixture_close(&f);
}
static void nan_and_huge_values(void **state)
{
    (void)state;
    float x[33], ones[33], huge[4] = {-3e38f, -1e30f, -1e20f, 1e18f}, y[33], dx[33];
    for (int i = 0; i < 33; i++) x[i] = i % 2 ? NAN : 1, ones[i] = 1;
    for (isa level = ISA_PLAIN; level <= best_level(); level++)
        for (int kind = 0; kind < ACTIVATION_COUNT; kind++) {
            scalar_op(level, kind, 33, x, NULL, y);
            for (int i = 0; i < 33; i++) assert_int_equal(isnan(y[i]), i % 2);
            scalar_op(level, kind, 4, huge, NULL, y);
            scalar_op(level, kind, 4, huge, ones, dx);
            for (int i = 0; i < 4; i++) {
                double value = activation64(kind, huge[i]), slope = activation_slope64(kind, huge[i]);
                assert_true(fabs(y[i] - value) <= 1e-6 * fabs(value) &&
                            fabs(dx[i] - slope) <= 1e-6 * fabs(slope));
            }
        }
}

static void names_of_activations(void **state)
{
    (void)state;
    for (int kind = 0; kind < ACTIVATION_COUNT; kind++)
        assert_int_equal(activation_find(activation_name(kind)), kind);
    assert_int_equal(activation_find("swish"), -1);
    assert_null(activation_name(ACTIVATION_COUNT));
}

/* A plain joint adds nothing to the backward pass; a bf16 branch beside an f32 stream gets a bf16 gradient.
 */
static void gradients_of_the_joint(void **state)
{
    (void)state;
    fixture f = fixture_open(DT_BF16, DT_F32);
    i64 dim[2] = {4, 8};
    tensor *x = g_input(f.g, "x", DT_F32, 2, dim), *b = g_input(f.g, "b", DT_BF16, 2, dim);
    x->wants_grad = b->wants_grad = true;
    tensor *seed = g_input(f.g, "seed", DT_F32, 2, dim);
    tensor *y = g_out(g_node(f.g, OP_joint, IN(x, b), NO_ATTRS), 0);
    assert_int_equal(y->dtype, DT_F32);
    assert_null(graph_backward(f.g, &y, &seed, 1));
    assert_ptr_equal(graph_grad(f.g, x), seed);
    assert_int_equal(graph_grad(f.g, b)->dtype, DT_BF16);
    assert_int_equal(graph_grad(f.g, b)->maker->op, OP_cast);
    fixture_close(&f);
}

/* A table that allows it keeps the gradient as look-ups; the model's table gets a dense one. */
static void gradients_of_look_ups(void **state)
{
    (void)state;
    for (int rows = 0; rows < 2; rows++) {
        fixture f = fixture_open(DT_F32, DT_F32);
        param_info info = {.kind = PARAM_EMBEDDING, .std = 1, .rows = rows};
        tensor *table = g_param(f.g, "table", 2, (i64[]){11, 8}, &info);
        tensor *ids = g_input(f.g, "ids", DT_I32, 2, (i64[]){2, 3});
        tensor *y = g_out(g_node(f.g, OP_embedding, IN(table, ids), NO_ATTRS), 0);
        tensor *seed = g_input(f.g, "seed", DT_F32, y->ndim, y->dim);
        assert_null(graph_backward(f.g, &y, &seed, 1));
        assert_true((table->grad == NULL) == rows && (table->grad_rows != NULL) == rows);
        if (rows) assert_true(table->grad_ids == ids && table->grad_rows == seed);
        fixture_close(&f);
    }
}

static void refused(op_id op, tensor *const *in, int n_in, fixture *f, const char *message)
{
    g_node(f->g, op, in, n_in, NO_ATTRS);
    status s = graph_status(f->g);
    assert_non_null(s);
    assert_string_equal(s->message, message);
    status_drop(s);
}
static void wrong_shapes_are_refused(void **state)
{
    (void)state;
    fixture f = fixture_open(DT_F32, DT_F32);
    tensor *a = g_input(f.g, "a", DT_F32, 2, (i64[]){4, 7}), *b = g_input(f.g, "b", DT_F32, 2, (i64[]){4, 8});
    tensor *v = g_input(f.g, "v", DT_F32, 1, (i64[]){8}), *ids = g_input(f.g, "ids", DT_I32, 1, (i64[]){3});
    refused(OP_joint, IN(a, b), &f, "joint (joint): stream and branch differ in shape");
    refused(OP_gated, IN(a), &f, "gated (gated): rows of 7 do not halve into gate and up");
    refused(OP_gated_grad, IN(b, b), &f, "gated_grad (gated_grad): dy must have half the columns of x");
    refused(OP_activation_grad, IN(a, b), &f, "activation_grad (activation_grad): x and dy differ in shape");
    refused(OP_layer_norm, IN(a, v), &f, "layer_norm (layer_norm): gain must be [7]");
    refused(OP_layer_norm, IN(a, NULL, v), &f, "layer_norm (layer_norm): bias must be [7]");
    refused(OP_embedding, IN(v, ids), &f, "embedding (embedding): the table must be [V, n]");
    refused(OP_embedding_grad, IN(ids, a, b), &f, "embedding_grad (embedding_grad): dy must have rows of 8");
    refused(OP_rows_merge, IN(ids, a), &f, "rows_merge (rows_merge): 3 ids for 4 rows");
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strides_and_mixed_storage), cmocka_unit_test(ids_out_of_range),
        cmocka_unit_test(same_bits_for_any_threads), cmocka_unit_test(masks_do_not_depend_on_micro_batches),
        cmocka_unit_test(nan_and_huge_values),       cmocka_unit_test(names_of_activations),
        cmocka_unit_test(gradients_of_the_joint),    cmocka_unit_test(gradients_of_look_ups),
        cmocka_unit_test(wrong_shapes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
