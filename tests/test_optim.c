/* AdamW against its definition, the golden vectors, and what the step promises: positions that do not matter,
 * bf16 copies, zeroed gradients, classes, the norm. */
#include "base/random.h"
#include "check.h"
#include "device/device.h"
#include "graph/program.h"
#include "ops/op.h"
#include "optim/optimizer.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 20000 };
typedef struct arrays { // one tensor: as the kernel has it, and as the definition has it
    float w[MOST], g[MOST], m[MOST], v[MOST];
    u16 copy[MOST];
    double w64[MOST], g64[MOST], m64[MOST], v64[MOST];
} arrays;
static arrays x, y;

static float draw(u64 what, u64 step, i64 i) { return (float)random_normal(11, what, step, (u64)i); }

static void start(arrays *a, i64 n)
{
    for (i64 i = 0; i < n; i++) {
        a->w[i] = draw(1, 0, i);
        a->w64[i] = a->w[i];
        a->m[i] = a->v[i] = 0;
        a->m64[i] = a->v64[i] = 0;
    }
}
static void gradients(arrays *a, i64 n, u64 step) // of all sizes, some zero
{
    for (i64 i = 0; i < n; i++) {
        a->g[i] = i % 13 == 5 ? 0 : draw(2, step, i) * powf(10, (float)(i % 9) - 6);
        a->g64[i] = a->g[i];
    }
}

/* ---- against the definition */

/* Ten steps of N elements. Errors: of v relative; of m relative to the gradients; of w to w and a step's
 * length. */
static void compare(const update *form, i64 n, i64 first_step)
{
    const optimizer_def *o = optimizer_named("adamw");
    update u = *form;
    u.n = n;
    start(&x, n);
    for (i64 step = 0; step < 10; step++) {
        u.step = first_step + step;
        u.lr = u.peak / (1 + (double)step);
        gradients(&x, n, (u64)step);
        o->definition(&u, x.w64, x.g64, x.m64, x.v64);
        o->kernel(&u, x.w, x.copy, x.g, x.m, x.v);
        for (i64 i = 0; i < n; i++) {
            double largest = powf(10, (float)(i % 9) - 6) * 5;
            assert_true(x.g[i] == 0);
            assert_true(fabs(x.m[i] - x.m64[i]) <= 1e-6 * largest);
            assert_true(fabs(x.v[i] - x.v64[i]) <= 2e-6 * x.v64[i]);
            assert_true(fabs(x.w[i] - x.w64[i]) <= 2e-6 * (fabs(x.w64[i]) + u.peak));
            assert_int_equal(x.copy[i], f32_to_bf16(x.w[i]));
        }
    }
}

static void test_definition(void **state)
{
    (void)state;
    static const i64 long_ones[] = {255, 8191, 8192, 8193, 16384 + 37};
    for (int form = 0; form < 16; form++) {
        update u = {.peak = 0.01, .weight_decay = 0.1, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8};
        u.hf_eps = form & 1, u.decay_independent = form & 2, u.decay_after = form & 4;
        u.gradient_scale = form & 8 ? 0.37 : 1;
        u.eps = form & 8 ? 1e-3 : 1e-8;
        compare(&u, 130, 0);
        compare(&u, 130, 100000); // bias corrections are 1 by then
        if (form % 5 == 0)
            for (i64 k = 0; k < COUNT(long_ones); k++) compare(&u, long_ones[k], 0);
        if (form == 0)
            for (i64 n = 1; n < 130; n++) compare(&u, n, 0);
    }
}

/* W0 = 0.1(i + 1) - 0.05 j, G_t = sin(i + 0.7 j^2 + 0.9 i j + 1.3 t + 0.5), three steps of lr 0.01. */
static void test_golden(void **state)
{
    (void)state;
    static const struct {
        double eps, w00, w12, w23, norm;
        bool hf, after;
    } golden[] = {
        {1e-8, .083214166, .075832721, .152547147, .064295501, false, false},
        {1e-8, .083230653, .075856589, .152544151, .064230882, false, true},
        {1e-2, .083410977, .076122192, .152813815, .062084047, false, false},
        {1e-2, .083952106, .076836009, .153777565, .058989530, true, false},
    };
    for (i64 k = 0; k < COUNT(golden); k++) {
        double w[12], first[12], m[12] = {0}, v[12] = {0}, g[12], sum = 0;
        for (int i = 0; i < 12; i++) first[i] = w[i] = 0.1 * (i / 4 + 1) - 0.05 * (i % 4);
        for (int t = 1; t <= 3; t++) {
            update u = {12,           0.01, 0.01, 0.1, 1, 0.9, 0.95, golden[k].eps, .hf_eps = golden[k].hf,
                        .step = t - 1};
            u.decay_after = golden[k].after;
            for (int e = 0; e < 12; e++) {
                double i = e / 4, j = e % 4;
                g[e] = sin(i + 0.7 * j * j + 0.9 * i * j + 1.3 * t + 0.5);
            }
            optimizer_named("adamw")->definition(&u, w, g, m, v);
        }
        for (int i = 0; i < 12; i++) sum += (w[i] - first[i]) * (w[i] - first[i]);
        assert_true(fabs(w[0] - golden[k].w00) < 1e-9 && fabs(w[6] - golden[k].w12) < 1e-9);
        assert_true(fabs(w[11] - golden[k].w23) < 1e-9 && fabs(sqrt(sum) - golden[k].norm) < 1e-9);
    }
}

/* An element's result is that of the same element anywhere else: vector, tail, chunk. */
static void test_positions(void **state)
{
    (void)state;
    enum { N = 130 };
    const optimizer_def *o = optimizer_named("adamw");
    for (int form = 0; form < 4; form++) {
        update u = {N, 0.01, 0.01, 0.1, 0.7, 0.9, 0.95, 1e-8, .hf_eps = form & 1, .decay_after = form & 2};
        start(&x, N);
        for (u.step = 0; u.step < 3; u.step++) { // moments that are not zero
            gradients(&x, N, (u64)u.step);
            o->kernel(&u, x.w, NULL, x.g, x.m, x.v);
        }
        gradients(&x, N, 3);
        memcpy(&y, &x, sizeof x);
        o->kernel(&u, y.w, NULL, y.g, y.m, y.v);
        for (i64 n = 1; n <= N; n++)
            for (i64 at = 0; at + n <= N; at += at + n == N || n > 40 ? 1 : 7) {
                float w[N], g[N], m[N], v[N];
                size_t bytes = (size_t)n * sizeof(float);
                memcpy(w, x.w + at, bytes), memcpy(g, x.g + at, bytes);
                memcpy(m, x.m + at, bytes), memcpy(v, x.v + at, bytes);
                u.n = n;
                o->kernel(&u, w, NULL, g, m, v);
                assert_memory_equal(w, y.w + at, bytes);
                assert_memory_equal(m, y.m + at, bytes);
                assert_memory_equal(v, y.v + at, bytes);
                u.n = N;
            }
    }
}

/* ---- rows */

static void compare_rows(update u, i64 words, i64 width, bool copies)
{
    const optimizer_def *o = optimizer_named("adamw");
    i32 ids[64];
    u.n = words * width;
    u.width = width;
    start(&x, u.n);
    for (i64 i = 0; i < u.n; i++) x.copy[i] = 7; // where it stays, nothing was written
    for (u.step = 0; u.step < 4; u.step++) {
        row_list list = {ids, x.g, 0};
        for (i64 id = 0; id < words; id++)
            if (random_bits(5, 1, (u64)u.step, (u64)id) % 3 == 0) ids[list.count++] = (i32)id;
        gradients(&x, list.count * width, (u64)u.step);
        memcpy(y.w, x.w, sizeof x.w);
        o->rows_definition(&u, ids, list.count, x.w64, x.g64, x.m64, x.v64);
        o->rows_kernel(&u, &list, x.w, copies ? x.copy : NULL, x.m, x.v);
        for (i64 i = 0; i < u.n; i++) {
            bool listed = false;
            for (i64 k = 0; k < list.count; k++) listed |= ids[k] == i / width;
            assert_true(fabs(x.w[i] - x.w64[i]) <= 2e-6 * (fabs(x.w64[i]) + u.peak));
            assert_true(fabs(x.v[i] - x.v64[i]) <= 2e-6 * x.v64[i]);
            if (u.lazy && !listed) assert_true(x.w[i] == y.w[i]);
            assert_int_equal(x.copy[i],
                             copies && (x.copy[i] != 7 || listed || !u.lazy) ? f32_to_bf16(x.w[i]) : 7);
        }
    }
}

static void test_rows(void **state)
{
    (void)state;
    for (int form = 0; form < 8; form++) {
        update u = {.lr = 0.01,
                    .peak = 0.01,
                    .weight_decay = 0.1,
                    .gradient_scale = 0.7,
                    .beta1 = 0.9,
                    .beta2 = 0.95};
        u.eps = 1e-8, u.lazy = form & 1, u.hf_eps = form & 2, u.decay_after = form & 4;
        compare_rows(u, 23, 17, true);
        compare_rows(u, 40, 1, false);
        compare_rows(u, 1, 5, true);
        compare_rows(u, 2, 9001, true); // wider than a chunk
    }
}

/* ---- stores */

typedef struct model_store {
    arena *a;
    graph *g;
    store *s;
} model_store;
static const i64 sizes[] = {1, 17, 4096, 4097, 12289};

static model_store open_store(graph_options o)
{
    model_store k;
    assert_ok(arena_open(&k.a));
    k.g = graph_new(k.a, &o);
    for (int i = 0; i <= PARAM_EXPERT; i++)
        g_param(k.g, arena_printf(k.a, "p%d", i), 1, &sizes[i % COUNT(sizes)],
                &(param_info){.kind = (param_kind)i, .std = 1, .f32 = i % 2});
    assert_ok(store_open(k.a, k.g, STORE_GRADIENTS | STORE_MOMENTS, &k.s));
    store_initialize(k.s, 3);
    return k;
}
static void close_store(model_store *k)
{
    store_close(k->s);
    graph_close(k->g);
    arena_close(k->a);
}

static void test_norm(void **state)
{
    (void)state;
    model_store k = open_store((graph_options){0});
    double sum = 0;
    assert_true(gradient_norm(k.s) == 0);
    for (i64 i = 0; i < k.s->n_params; i++)
        for (i64 j = 0; j < k.s->entry[i].count; j++) {
            float g = k.s->entry[i].grad[j] = draw((u64)i + 20, 0, j);
            sum += (double)g * g;
        }
    double norm = gradient_norm(k.s);
    assert_true(fabs(norm - sqrt(sum)) < 1e-6 * norm);
    for (int again = 0; again < 5; again++) assert_true(gradient_norm(k.s) == norm);
    assert_true(clip_factor(norm, 0) == 1 && clip_factor(norm, 2 * norm) == 1 &&
                clip_factor(norm, norm) == 1);
    assert_true(clip_factor(2, 0.5) == 0.5 / (2 + 1e-6));
    float *last = &k.s->entry[k.s->n_params - 1].grad[0];
    *last = NAN;
    assert_true(isnan(gradient_norm(k.s)));
    *last = -INFINITY;
    assert_true(isinf(gradient_norm(k.s)));
    close_store(&k);
}

/* One step with gradients of zero: what decays shrinks, nothing else moves. */
static void check_classes(const char *yaml, const bool decays[PARAM_EXPERT + 1], double shrinks_by)
{
    config *c;
    optimizer o;
    model_store k = open_store((graph_options){0}), before = open_store((graph_options){0});
    assert_ok(config_parse("c.yaml", yaml, strlen(yaml), NULL, 0, &c));
    assert_ok(optimizer_from(c, &o));
    optimizer_step(&o, k.s, 0, 0.5, 2, 1);
    for (i64 i = 0; i < k.s->n_params; i++) {
        const stored *e = &k.s->entry[i], *was = &before.s->entry[i];
        assert_int_equal(e->param.kind, i);
        for (i64 j = 0; j < e->count; j++)
            assert_true(e->master[j] == (decays[i] ? was->master[j] * (float)shrinks_by : was->master[j]));
    }
    config_close(c);
    close_store(&k), close_store(&before);
}

static void test_classes(void **state)
{
    (void)state; // matrix, head, embedding, vector, gain, expert
    check_classes("train: {steps: 9}\n", (bool[]){1, 1, 0, 0, 0, 1}, 1 - 0.1 * 0.5);
    check_classes("train: {steps: 9, optimizer: {decay: [head, embedding, gain], weight_decay: 0.2}}\n",
                  (bool[]){0, 1, 1, 0, 1, 0}, 1 - 0.2 * 0.5);
    check_classes("train: {steps: 9, optimizer: {decay: [matrix, vector], decay_mode: independent}}\n",
                  (bool[]){1, 0, 0, 1, 0, 1}, 1 - 0.1 * 0.5 / 2);
    check_classes("train: {steps: 9, optimizer: {decay: none, eps: 1e-30}}\n", (bool[]){0, 0, 0, 0, 0, 0}, 1);
}

static void test_step(void **state)
{
    (void)state;
    model_store k = open_store((graph_options){.act = DT_BF16, .stream = DT_BF16});
    optimizer o = {.def = optimizer_named("adamw"), .base = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8}};
    for (i64 i = 0; i < k.s->n_params; i++)
        for (i64 j = 0; j < k.s->entry[i].count; j++) k.s->entry[i].grad[j] = draw((u64)i, 1, j);
    optimizer_step(&o, k.s, 0, 0.01, 0.01, 0.5);
    for (i64 i = 0; i < k.s->n_params; i++) {
        const stored *e = &k.s->entry[i];
        assert_int_equal(e->dtype, i % 2 ? DT_F32 : DT_BF16);
        for (i64 j = 0; j < e->count; j++) {
            float g = draw((u64)i, 1, j);
            assert_true(e->grad[j] == 0 && fabs(e->moment[0][j] - 0.05 * g) <= 1e-6 * fabs(g));
            if (e->dtype == DT_BF16) assert_int_equal(((u16 *)e->data)[j], f32_to_bf16(e->master[j]));
        }
    }
    close_store(&k);
}

/* A parameter that no node reads has a gradient of zero, and only decays. */
static void test_unused(void **state)
{
    (void)state;
    device *d;
    arena *a;
    store *s;
    program *p;
    assert_ok(device_open(&(device_options){.threads = 2}, &d));
    assert_ok(arena_open(&a));
    graph *g = graph_new(a, &(graph_options){0});
    param_info info = {.kind = PARAM_MATRIX, .std = 1};
    tensor *ids = g_input(g, "ids", DT_I32, 1, (i64[]){6}), *dy = g_input(g, "dy", DT_F32, 2, (i64[]){6, 8});
    tensor *w = g_param(g, "used", 2, (i64[]){5, 8}, &info);
    g_param(g, "unused", 2, (i64[]){5, 8}, &info);
    tensor *h = g_out(g_node(g, OP_embedding, IN(w, ids), NO_ATTRS), 0);
    h->keep = true;
    assert_ok(graph_backward(g, &h, &dy, 1));
    assert_ok(graph_verify(g));
    assert_ok(store_open(a, g, STORE_GRADIENTS | STORE_MOMENTS, &s));
    store_initialize(s, 1);
    assert_ok(program_open(g, s, &(program_options){.device = d, .isa = device_about(d)->level}, &p));
    for (int i = 0; i < 48; i++) ((float *)program_data(p, dy))[i] = 1;
    program_run(p, &(step_info){0}, PHASE_BACKWARD);
    assert_true(fabs(gradient_norm(s) - sqrt(8 * 36)) < 1e-4); // six look-ups of row 0
    optimizer o = {.def = optimizer_named("adamw"), .base = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8}};
    const stored *used = store_find(s, "used"), *unused = store_find(s, "unused");
    float first = used->master[0], was[40];
    memcpy(was, unused->master, sizeof was);
    optimizer_step(&o, s, 0, 0.1, 0.1, 1);
    assert_true(used->master[0] < first);
    assert_memory_equal(unused->master, was, sizeof was);
    o.weight_decay = 0.5, o.decays[PARAM_MATRIX] = true;
    optimizer_step(&o, s, 1, 0.1, 0.1, 1);
    for (int i = 0; i < 40; i++)
        assert_true(unused->master[i] == was[i] * 0.95f && unused->moment[1][i] == 0);
    program_close(p);
    store_close(s);
    graph_close(g);
    arena_close(a);
    device_close(d);
}

static void test_refused(void **state)
{
    (void)state;
    config *c;
    const char *yaml = "train: {steps: 9, optimizer: {eps: 0}}\n";
    assert_fails(config_parse("c.yaml", yaml, strlen(yaml), NULL, 0, &c), ERR_CONFIG,
                 "c.yaml:1: train.optimizer.eps is '0'; it must be a number from 1e-30 to 1");
    assert_null(optimizer_named("adamv"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition), cmocka_unit_test(test_golden), cmocka_unit_test(test_positions),
        cmocka_unit_test(test_rows),       cmocka_unit_test(test_norm),   cmocka_unit_test(test_classes),
        cmocka_unit_test(test_step),       cmocka_unit_test(test_unused), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
