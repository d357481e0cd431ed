/* Gradients that stay rows: the lists against sums in double, against the dense form to the bit, and what the
 * lazy form leaves alone. */
#include "base/random.h"
#include "check.h"
#include "train/session.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static device *machine;
static isa level;

/* ---- a model with an embedding of its own */

enum { ROWS = 6, CONTEXT = 64, VOCAB = 300 };
static const char base[] = "model: {layers: 2, width: 64, context: 64, vocab: 300, tie_head: false,\n"
                           "        attention: {heads: 2}, ffn: {width: 128}}\n"
                           "train: {steps: 10, batch_tokens: 384, precision: f32}\n";

typedef struct setup {
    config *c;
    session *s;
} setup;

static setup begin_with(const char *const *overrides, i64 n, session_options o)
{
    setup u;
    o.isa = level;
    assert_ok(config_parse("c.yaml", base, strlen(base), overrides, n, &u.c));
    assert_ok(session_open(u.c, machine, &o, &u.s));
    session_start(u.s);
    return u;
}
#define BEGIN(options, ...)                                                                                  \
    begin_with((const char *const[]){__VA_ARGS__}, COUNT(((const char *const[]){__VA_ARGS__})), options)
#define ROW_FORM                                                                                             \
    (session_options) { 0 }
#define DENSE_FORM                                                                                           \
    (session_options) { .dense_gradients = true }

static void end(setup *u)
{
    session_close(u->s);
    config_close(u->c);
}

typedef struct words {
    i32 tokens[ROWS * CONTEXT], targets[ROWS * CONTEXT], doc_start[ROWS * CONTEXT], position[ROWS * CONTEXT];
    step_batch b;
} words;

/* Steps look up different rows, with gaps: those not listed have moments from earlier steps. */
static void fill(words *w, i64 step, i64 rows)
{
    for (i64 i = 0; i < rows * CONTEXT; i++) {
        w->tokens[i] = (i32)(5 * (random_bits(7, 1, (u64)step, (u64)i) % 50) + (u64)step % 3);
        w->targets[i] = (i32)(random_bits(7, 2, (u64)step, (u64)i) % VOCAB);
        w->doc_start[i] = 0;
        w->position[i] = (i32)(i % CONTEXT);
    }
    w->b = (step_batch){w->tokens, w->targets, w->doc_start, w->position, rows, rows * CONTEXT};
}

static double train(setup *u, i64 first, i64 last)
{
    static words w;
    double nats, norm = 0;
    for (i64 step = first; step < last; step++) {
        fill(&w, step, ROWS);
        session_forward_backward(u->s, &w.b, step, &nats);
        session_update(u->s, step, 1e-2, 1e-2, &norm);
        assert_true(isfinite(nats) && isfinite(norm));
    }
    return norm;
}

/* The largest difference of weights and moments, relative to the largest of each; 0 is equal bits. */
static double difference(const setup *x, const setup *y)
{
    double worst = 0;
    for (i64 k = 0; k < x->s->store->n_params; k++) {
        const stored *a = &x->s->store->entry[k], *b = store_find(y->s->store, a->path);
        const float *left[] = {a->master, a->moment[0], a->moment[1]};
        const float *right[] = {b->master, b->moment[0], b->moment[1]};
        for (int m = 0; m < 3; m++) {
            double most = 0, off = 0;
            for (i64 i = 0; i < a->count; i++) {
                most = fmax(most, fabs(left[m][i]));
                off = fmax(off, fabs((double)left[m][i] - right[m][i]));
            }
            if (off > 0) worst = fmax(worst, off / most);
        }
    }
    return worst;
}

static const stored *table_of(const setup *u) { return store_find(u->s->store, "embedding.weight"); }

static void test_who_has_rows(void **state)
{
    (void)state;
    setup u = BEGIN(ROW_FORM, "train.steps=10"), dense = BEGIN(DENSE_FORM, "train.steps=10");
    setup tied = BEGIN(ROW_FORM, "model.tie_head=true"),
          placed = BEGIN(ROW_FORM, "model.position.kind=learned");
    assert_true(table_of(&u)->rows && !table_of(&u)->grad);
    assert_true(!table_of(&dense)->rows && table_of(&dense)->grad);
    assert_true(!table_of(&tied)->rows && table_of(&tied)->grad);
    const tensor *t = g_find(tied.s->train.g, "embedding.weight");
    assert_true(t->grad && !t->grad_ids && !t->grad_rows); // one path: the sum of both in the dense gradient
    t = g_find(u.s->train.g, "embedding.weight");
    assert_true(!t->grad && t->grad_ids && t->grad_rows && !g_find(u.s->train.g, "grad.embedding.weight"));
    assert_null(store_find(placed.s->store, "position.weight")->rows);
    i64 all = dense.s->memory.gradients, left = u.s->memory.gradients - u.s->memory.row_gradients;
    assert_int_equal(dense.s->memory.row_gradients, 0);
    assert_int_equal(all - left, VOCAB * 64 * 4);
    assert_true(u.s->memory.row_gradients >= ROWS * CONTEXT * (64 * 4 + 4));
    end(&u), end(&dense), end(&tied), end(&placed);
}

static void test_dense_update(void **state)
{
    (void)state;
    static const char *const micro[] = {"train.micro_batch=6", "train.micro_batch=2", "train.micro_batch=1"};
    for (i64 k = 0; k < COUNT(micro); k++) {
        const char *classes =
            k % 2 ? "train.optimizer.decay=[matrix, embedding]" : "train.optimizer.decay=[matrix]";
        setup rows = BEGIN(ROW_FORM, "train.optimizer.rows=dense", "train.clip=0", classes, micro[k]);
        setup dense = BEGIN(DENSE_FORM, "train.clip=0", classes, micro[k]);
        train(&rows, 0, 5), train(&dense, 0, 5);
        assert_true(difference(&rows, &dense) == 0);
        end(&rows), end(&dense);
    }
    // Clipping joins all parameters by the norm, whose sums are grouped otherwise: one rounding apart.
    setup rows = BEGIN(ROW_FORM, "train.optimizer.rows=dense", "train.clip=0.1");
    setup dense = BEGIN(DENSE_FORM, "train.clip=0.1");
    for (i64 step = 0; step < 5; step++) {
        double a = train(&rows, step, step + 1), b = train(&dense, step, step + 1);
        assert_true(a > 0.1 && fabs(a - b) <= 1e-5 * b);
    }
    assert_true(difference(&rows, &dense) < 1e-4);
    end(&rows), end(&dense);
}

static void test_bf16(void **state)
{
    (void)state;
    static const char *const streams[] = {"train.stream=bf16", "train.stream=f32"};
    for (i64 k = 0; k < COUNT(streams); k++) {
        const char *precise = "train.precision=bf16", *two = "train.micro_batch=2";
        setup rows = BEGIN(ROW_FORM, "train.optimizer.rows=dense", "train.clip=0", precise, two, streams[k]);
        setup dense = BEGIN(DENSE_FORM, "train.clip=0", precise, two, streams[k]);
        setup lazy = BEGIN(ROW_FORM, precise, two, streams[k]);
        train(&rows, 0, 3), train(&dense, 0, 3), train(&lazy, 0, 3);
        assert_true(difference(&rows, &dense) == 0);
        const stored *e = table_of(&lazy);
        for (i64 i = 0; i < e->count; i++) assert_int_equal(((u16 *)e->data)[i], f32_to_bf16(e->master[i]));
        end(&rows), end(&dense), end(&lazy);
    }
}

static void test_lazy(void **state)
{
    (void)state;
    static words w;
    setup lazy = BEGIN(ROW_FORM, "train.clip=0", "train.micro_batch=2");
    setup dense = BEGIN(DENSE_FORM, "train.clip=0", "train.micro_batch=2");
    const stored *e = table_of(&lazy), *d = table_of(&dense);
    size_t bytes = (size_t)e->count * sizeof(float);
    float *before[3];
    for (int m = 0; m < 3; m++) assert_ok(mem_alloc(bytes, "before", &before[m]));
    for (i64 step = 0; step < 4; step++) {
        const float *now[] = {e->master, e->moment[0], e->moment[1]};
        for (int m = 0; m < 3; m++) memcpy(before[m], now[m], bytes);
        train(&lazy, step, step + 1);
        fill(&w, step, ROWS);
        bool listed[VOCAB] = {0};
        for (i64 i = 0; i < ROWS * CONTEXT; i++) listed[w.tokens[i]] = true;
        for (i64 row = 0; row < VOCAB; row++)
            for (int m = 0; m < 3; m++)
                assert_true(!memcmp(before[m] + row * 64, now[m] + row * 64, 64 * sizeof(float)) !=
                            listed[row]);
        assert_int_equal(e->rows->count, 0);
    }
    session_start(lazy.s);
    train(&lazy, 0, 1), train(&dense, 0, 1); // the first step moves what is looked up, alike in both
    assert_memory_equal(e->master, d->master, bytes);
    assert_memory_equal(e->moment[1], d->moment[1], bytes);
    for (int m = 0; m < 3; m++) mem_free(before[m]);
    end(&lazy), end(&dense);
}

/* A list lives for a step: weights and moments are all that a resumed run needs. */
static void test_resumed(void **state)
{
    (void)state;
    setup whole = BEGIN(ROW_FORM, "train.micro_batch=3"), first = BEGIN(ROW_FORM, "train.micro_batch=3");
    setup second = BEGIN(ROW_FORM, "train.micro_batch=3");
    size_t region = (size_t)whole.s->store->elements * sizeof(float);
    train(&whole, 0, 5), train(&first, 0, 2), train(&second, 0, 1);
    memcpy(second.s->store->master, first.s->store->master, region);
    for (int k = 0; k < 2; k++) memcpy(second.s->store->moment[k], first.s->store->moment[k], region);
    train(&second, 2, 5);
    assert_true(difference(&whole, &second) == 0);
    end(&whole), end(&first), end(&second);
}

/* Sequences that are not there (a short last batch) look nothing up, token 0 included. */
static void test_short_batch(void **state)
{
    (void)state;
    static words w;
    double nats;
    setup u = BEGIN(ROW_FORM, "train.micro_batch=2");
    fill(&w, 0, 3);
    for (i64 i = 0; i < 3 * CONTEXT; i++) w.tokens[i] = 5 + (i32)(i % 7);
    session_forward_backward(u.s, &w.b, 0, &nats);
    const row_list *list = table_of(&u)->rows;
    assert_int_equal(list->count, 7);
    for (i64 k = 0; k < 7; k++) assert_int_equal(list->ids[k], 5 + k);
    session_forward_backward(u.s, &w.b, 0, &nats); // a step that was not taken leaves nothing behind
    assert_int_equal(list->count, 7);
    end(&u);
}

static void test_not_finite(void **state)
{
    (void)state;
    static words w;
    double nats, norm;
    setup u = BEGIN(ROW_FORM, "train.micro_batch=2");
    fill(&w, 0, ROWS);
    session_forward_backward(u.s, &w.b, 0, &nats);
    const stored *e = table_of(&u);
    float was = e->master[0];
    double finite = gradient_norm(u.s->store);
    e->rows->values[64 * 3 + 5] = INFINITY; // only there
    session_update(u.s, 0, 1e-2, 1e-2, &norm);
    assert_true(isfinite(finite) && !isfinite(norm) && e->master[0] == was); // and nothing moved
    e->master[64 * w.tokens[2 * CONTEXT] + 1] = NAN;                         // a row that is looked up
    assert_fails(session_blame(u.s, &w.b, 0), ERR_NUMERIC,
                 "micro-batch 0: parameter embedding.weight holds NaN or infinity");
    end(&u);
}

static void test_refused(void **state)
{
    (void)state;
    config *c;
    session *s;
    const char *decay[] = {"train.optimizer.decay=[matrix, embedding]"};
    assert_ok(config_parse("c.yaml", base, strlen(base), decay, 1, &c));
    assert_fails(
        session_open(c, machine, &(session_options){.isa = level}, &s), ERR_CONFIG,
        "command line: train.optimizer.decay names embedding, but train.optimizer.rows is lazy, which does "
        "not decay embedding.weight; set train.optimizer.rows: dense, or leave embedding out");
    config_close(c);
}

/* ---- the lists alone: gradients that are given */

enum { B = 4, T = 11, V = 23, N = 17 };

typedef struct look_ups {
    arena *a;
    graph *g;
    tensor *ids, *dy;
    store *s;
    program *p;
    row_gradients *r;
} look_ups;

static void open_look_ups(look_ups *l, i64 micro, dtype stream)
{
    i64 bytes;
    program_options o = {.device = machine, .isa = level};
    assert_ok(arena_open(&l->a));
    l->g = graph_new(l->a, &(graph_options){.act = stream, .stream = stream});
    l->ids = g_input(l->g, "ids", DT_I32, 2, (i64[]){micro, T});
    l->dy = g_input(l->g, "dy", stream, 3, (i64[]){micro, T, N});
    tensor *w =
        g_param(l->g, "table", 2, (i64[]){V, N}, &(param_info){.kind = PARAM_EMBEDDING, .rows = true});
    tensor *y = g_out(g_node(l->g, OP_embedding, IN(w, l->ids), NO_ATTRS), 0);
    y->keep = true;
    assert_ok(graph_backward(l->g, &y, &l->dy, 1));
    assert_ok(store_open(l->a, l->g, STORE_GRADIENTS | STORE_MOMENTS, &l->s));
    assert_ok(program_open(l->g, l->s, &o, &l->p));
    assert_ok(row_gradients_plan(l->a, l->g, l->s, B / micro, &o, &l->r, &bytes));
    assert_ok(row_gradients_open(l->r, l->s, &o));
}

static void close_look_ups(look_ups *l)
{
    program_close(l->p);
    row_gradients_close(l->r);
    store_close(l->s);
    graph_close(l->g);
    arena_close(l->a);
}

static const row_list *collect(look_ups *l, i64 micro, dtype stream, const i32 *ids, const float *dy)
{
    row_gradients_clear(l->r);
    for (i64 first = 0; first < B; first += micro) {
        size_t n = (size_t)(micro * T);
        memcpy(program_data(l->p, l->ids), ids + first * T, n * sizeof *ids);
        if (stream == DT_BF16)
            narrow(program_data(l->p, l->dy), dy + first * T * N, (i64)n * N);
        else
            memcpy(program_data(l->p, l->dy), dy + first * T * N, n * N * sizeof *dy);
        program_run(l->p, &(step_info){0}, PHASE_BACKWARD);
        row_gradients_add(l->r, l->p, micro, micro);
    }
    return l->s->entry[0].rows;
}

static void test_lists(void **state)
{
    (void)state;
    static i32 ids[B * T], seen[V];
    static float dy[B * T * N], dense[V * N], first_sum[V * N];
    for (i64 i = 0; i < B * T; i++)
        ids[i] = (i32)(random_bits(3, 1, 0, (u64)i) % (V + 6)) - 3; // some outside
    for (i64 i = 0; i < B * T * N; i++)
        dy[i] = bf16_to_f32(f32_to_bf16((float)random_normal(3, 2, 0, (u64)i)));
    i64 different = 0, outside = 0;
    for (i64 k = 0; k < B * T; k++) { // in the order of the look-ups, as a dense gradient adds them
        outside += ids[k] < 0 || ids[k] >= V;
        if (ids[k] < 0 || ids[k] >= V) continue;
        different += !seen[ids[k]]++;
        for (i64 j = 0; j < N; j++) dense[ids[k] * N + j] += dy[k * N + j];
    }
    assert_true(outside > 0 && different > 5);
    static const i64 micros[] = {B, 2, 1};
    for (i64 m = 0; m < COUNT(micros) * 2; m++) {
        look_ups l;
        dtype stream = m % 2 ? DT_BF16 : DT_F32;
        open_look_ups(&l, micros[m / 2], stream);
        for (int again = 0; again < 2; again++) {
            const row_list *list = collect(&l, micros[m / 2], stream, ids, dy);
            assert_int_equal(list->count, different);
            for (i64 k = 0; k < list->count; k++) {
                assert_true(seen[list->ids[k]] && (!k || list->ids[k] > list->ids[k - 1]));
                assert_memory_equal(list->values + k * N, dense + list->ids[k] * N, N * sizeof(float));
            }
            if (!m) memcpy(first_sum, list->values, (size_t)(different * N) * sizeof(float));
            assert_memory_equal(list->values, first_sum,
                                (size_t)(different * N) * sizeof(float)); // 1 x B = B x 1
            double sum = 0, got = gradient_norm(l.s);
            for (i64 i = 0; i < V * N; i++) sum += (double)dense[i] * dense[i];
            assert_true(fabs(got - sqrt(sum)) <= 1e-6 * got);
        }
        close_look_ups(&l);
    }
}

static void test_nothing_looked_up(void **state)
{
    (void)state;
    static i32 ids[B * T];
    static float dy[B * T * N];
    look_ups l;
    for (i64 i = 0; i < B * T; i++) ids[i] = -1;
    for (i64 i = 0; i < B * T * N; i++) dy[i] = 1;
    open_look_ups(&l, 1, DT_F32);
    assert_int_equal(collect(&l, 1, DT_F32, ids, dy)->count, 0);
    assert_true(gradient_norm(l.s) == 0);
    optimizer o = {.def = optimizer_named("adamw"), .base = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8}};
    for (int lazy = 0; lazy < 2; lazy++) {
        o.lazy_rows = lazy;
        optimizer_step(&o, l.s, 0, 1, 1, 1);
        for (i64 i = 0; i < V * N; i++) assert_true(l.s->entry[0].master[i] == 0);
    }
    close_look_ups(&l);
}

static int open_machine(void **state)
{
    (void)state;
    status s = device_open(&(device_options){.threads = 2}, &machine);
    level = s ? ISA_PLAIN : device_about(machine)->level;
    status_drop(s);
    return s ? 1 : 0;
}
static int close_machine(void **state)
{
    (void)state;
    device_close(machine);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_has_rows), cmocka_unit_test(test_dense_update),
        cmocka_unit_test(test_bf16),         cmocka_unit_test(test_lazy),
        cmocka_unit_test(test_resumed),      cmocka_unit_test(test_short_batch),
        cmocka_unit_test(test_not_finite),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_lists),        cmocka_unit_test(test_nothing_looked_up),
    };
    return cmocka_run_group_tests(tests, open_machine, close_machine);
}
