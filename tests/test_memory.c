/* Product-key memory and UltraMem: the worked examples to their digits, invariants (values of zero, the
 * additive grid as a Tucker score, virtual tables made real, equal cores, addresses a bijection), published
 * counts of parameters, initial scores, the values' learning rate, gradients that stay rows, the state of the
 * direction, recall, refusals. That gradients, programs, recomputation, decoding and dumps agree is shown
 * with the other models (pkm-like, ultramem-like of model_case.h). */
#include "model_case.h"
#include "cpu_case.h"
#include "hand_case.h"
#include "model/memory_init.h"
#include "ops/memory_place.h"
#include "optim/optimizer.h"
#include "train/session.h"

/* OP on the inputs of LINE, as arrays; in double. */

/* ---- the worked example: H = 1, r = 2, three keys, m = 2, two cores */

static const double ROWS[] = {1.0, 0.2, -0.5, 0.3, 0.8, 0.1}, COLS[] = {0.4, -0.6, 0.9, 0.7, 0.5, -0.2},
                    CORE[] = {0.5, 0.1, 0, 0.4, 0.4, 0, 0.2, 0.2};

static void test_search_by_hand(void **state)
{
    (void)state;
    static const double at_first[4] = {0};
    double values[18], coarse[6];
    const double digits = 5.1e-7;
    trial *pair = by_hand(OP_memory_direction, "core=2x4 kept=1x4", (const double *[MAX_IN]){CORE, at_first});
    const double *u = output(pair, 0);
    is_near(u, (double[]){0.910633, 0.413216, 0.936103, 0.351727}, 4, digits);
    for (int i = 0; i < 3; i++) {
        coarse[i] = u[0] * ROWS[i] + u[1] * ROWS[3 + i];
        coarse[3 + i] = u[2] * COLS[i] + u[3] * COLS[3 + i];
    }
    is_near(coarse, (double[]){1.034598, 0.512700, -0.413995, 0.620650, -0.385798, 0.772147}, 6, digits);
    trial *found = by_hand(OP_memory_search, "rows=1x6 cols=1x6 core=2x4 pair=1x4 heads=1 m=2",
                           (const double *[MAX_IN]){ROWS, COLS, CORE, u});
    const double *index = output(found, 0), *s = output(found, 1);
    is_near(index, (double[]){2, 0}, 2, 0);                       // (0,2), then (0,0)
    is_near(s, (double[]){0.406, 0.402, 0.354, 0.226}, 4, 1e-15); // each core's
    is_near((double[]){s[0] + s[1], s[2] + s[3]}, (double[]){0.808, 0.580}, 2, 1e-15);
    for (int a = 0; a < 9; a++) values[2 * a] = 0.1 * (a + 1), values[2 * a + 1] = -0.2 * (a + 1);
    trial *o = by_hand(OP_memory_read, "table=9x2 index=1x2 s=1x4 keys=3",
                       (const double *[MAX_IN]){values, index, s});
    is_near(output(o, 0), (double[]){0.1572, -0.2864}, 2, 1e-15);
    trial *recall = by_hand(OP_memory_recall, "rows=1x6 cols=1x6 core=2x4 index=1x2 heads=1",
                            (const double *[MAX_IN]){ROWS, COLS, CORE, index});
    assert_true(*output(recall, 0) == 1); // brute force selects the same
    trial_close(recall);
    trial_close(o);
    trial_close(found);
    trial_close(pair);
}

static void test_core_loss_by_hand(void **state)
{
    (void)state;
    static const double targets[] = {3, -1, 0, 5}, inverse[] = {1.0 / 3}, third[] = {1.0 / 9};
    trial *t = by_hand(OP_memory_core_loss, "core=2x4 targets=4 inv_n=1 heads=1 weight=0.001 margin=0.15",
                       (const double *[MAX_IN]){CORE, targets, inverse});
    is_near(output(t, 0), (double[]){1.51736e-4}, 1, 5.1e-10);
    // A third of the step's targets: a third of the loss.
    trial *part = by_hand(OP_memory_core_loss, "core=2x4 targets=4 inv_n=1 heads=1 weight=0.001 margin=0.15",
                          (const double *[MAX_IN]){CORE, targets, third});
    is_near(output(part, 0), (double[]){*output(t, 0) / 3}, 1, 1e-18);
    trial_close(part);
    trial_close(t);
}

/* N = 4 values, E = 4: v = 9, 8, 14 (what the example's permutation makes of addresses 6, 9, 3) lie in row 1
 * of group 2, row 0 of group 2, row 2 of group 3. */
static void test_addresses_by_hand(void **state)
{
    (void)state;
    static const double table[] = {1, 10, 100, 1000}, one[] = {1};
    static const struct {
        double v;
        int row, group;
    } want[] = {{9, 1, 2}, {8, 0, 2}, {14, 2, 3}};
    for (int k = 0; k < COUNT(want); k++) {
        trial *t = by_hand(OP_memory_read, "table=4x1 index=1x1 s=1x1 keys=4 expansion=4",
                           (const double *[MAX_IN]){table, &want[k].v, one});
        for (int g = 0; g < 4; g++)
            assert_true(output(t, 0)[g] == (g == want[k].group ? table[want[k].row] : 0));
        trial_close(t);
    }
}

static void test_product_keys_by_hand(void **state)
{
    (void)state;
    static const double rows[] = {3, 1, 2}, cols[] = {0.5, 2.5, 1};
    trial *t =
        by_hand(OP_product_keys, "rows=1x3 cols=1x3 heads=1 m=2", (const double *[MAX_IN]){rows, cols});
    is_near(output(t, 0), (double[]){0 * 3 + 1, 2 * 3 + 1}, 2, 0); // (0,1) 5.5, (2,1) 4.5
    is_near(output(t, 1), (double[]){0.731059, 0.268941}, 2, 5.1e-7);
    trial_close(t);
}

static void test_learning_rate_by_hand(void **state)
{
    (void)state;
    optimizer o = {.steps = 4, .tokens_per_step = 10};
    param_info p = {.lr_factor = 10, .lr_until = "100%"}, plain = {0};
    static const double want[] = {10, 7.75, 5.5, 3.25, 1, 1};
    for (int t = 0; t < COUNT(want); t++) {
        assert_true(optimizer_lr_factor(&o, &p, t) == want[t]);
        assert_true(optimizer_lr_factor(&o, &plain, t) == 1);
    }
    p.lr_until = "2 steps";
    assert_true(optimizer_lr_factor(&o, &p, 1) == 5.5 && optimizer_lr_factor(&o, &p, 3) == 1);
    p.lr_until = "20 tokens";
    assert_true(optimizer_lr_factor(&o, &p, 1) == 5.5);
    p.lr_until = "none";
    assert_true(optimizer_lr_factor(&o, &p, 3) == 10);
}

/* ---- invariants of the operations */

/* S_row = (a; 1), S_col = (1; b), C = I: the score is a_i + b_j. With u = e_0 and t = e_1 the coarse stage
 * ranks by a and b, and the search is the one of product keys. */
static void test_additive_scores(void **state)
{
    (void)state;
    enum { N = 11, M = 4, T = 3 };
    double rows[T * 2 * N], cols[T * 2 * N], a[T * N], b[T * N];
    static const double identity[] = {1, 0, 0, 1}, pair[] = {1, 0, 0, 1};
    for (int i = 0; i < T * N; i++) {
        int at = i / N * 2 * N + i % N;
        rows[at] = a[i] = random_normal(1, 1, 0, (u64)i),
        cols[at + N] = b[i] = random_normal(1, 2, 0, (u64)i);
        rows[at + N] = cols[at] = 1;
    }
    trial *tucker = by_hand(OP_memory_search, "rows=3x22 cols=3x22 core=1x4 pair=1x4 heads=1 m=4",
                            (const double *[MAX_IN]){rows, cols, identity, pair});
    trial *plain =
        by_hand(OP_product_keys, "rows=3x11 cols=3x11 heads=1 m=4", (const double *[MAX_IN]){a, b});
    for (int k = 0; k < T * M; k++) {
        int at = (int)output(plain, 0)[k], from = k / M * N;
        assert_true(output(tucker, 0)[k] == at);
        assert_true(fabs(output(tucker, 1)[k] - (a[from + at / N] + b[from + at % N])) <= 1e-15);
    }
    trial_close(plain);
    trial_close(tucker);
}

/* [y_0, ..] W is a look-up in the table that holds all V W_p, at the permuted address. */
static void test_virtual_tables(void **state)
{
    (void)state;
    enum { KEYS = 6, E = 4, N = KEYS * KEYS / E, D = 3, OUT = 2, K = 7 };
    double table[N * D], w[E * D * OUT], big[E * N * OUT] = {0}, index[K], moved[K], s[K], o[OUT] = {0};
    for (int i = 0; i < N * D; i++) table[i] = random_normal(1, 3, 0, (u64)i);
    for (int i = 0; i < E * D * OUT; i++) w[i] = random_normal(1, 4, 0, (u64)i);
    for (int i = 0; i < E * N * OUT; i++)
        for (int j = 0; j < D; j++)
            big[i] += table[i / OUT % N * D + j] * w[(i / OUT / N * D + j) * OUT + i % OUT];
    for (int k = 0; k < K; k++)
        index[k] = (double)(k * 5 % (KEYS * KEYS)), s[k] = random_normal(1, 5, 0, (u64)k);
    trial *y = by_hand(OP_memory_read, "table=9x3 index=1x7 s=1x7 keys=6 expansion=4 shuffle=3",
                       (const double *[MAX_IN]){table, index, s});
    placing p = placing_of(y->n, y->in[0]);
    for (int k = 0; k < K; k++) moved[k] = (double)place_permute(&p, (i64)index[k]);
    for (int i = 0; i < E * D * OUT; i++) o[i % OUT] += output(y, 0)[i / OUT] * w[i];
    trial *real =
        by_hand(OP_memory_read, "table=36x2 index=1x7 s=1x7 keys=6", (const double *[MAX_IN]){big, moved, s});
    is_near(output(real, 0), o, OUT, 1e-14);
    trial_close(real);
    trial_close(y);
}

/* Two cores of C/2 are one core C over values of half the size. */
static void test_equal_cores(void **state)
{
    (void)state;
    double rows[20], cols[20], values[25 * 4], half[25 * 4], pair[4];
    static const double c[] = {0.7, -0.1, 0.4, 0.9},
                        cores[] = {0.35, -0.05, 0.2, 0.45, 0.35, -0.05, 0.2, 0.45}, zero[4] = {0};
    for (int i = 0; i < 20; i++)
        rows[i] = random_normal(2, 1, 0, (u64)i), cols[i] = random_normal(2, 2, 0, (u64)i);
    for (int i = 0; i < 100; i++) values[i] = random_normal(2, 3, 0, (u64)i), half[i] = values[i] / 2;
    trial *direction = by_hand(OP_memory_direction, "core=1x4 kept=1x4", (const double *[MAX_IN]){c, zero});
    memcpy(pair, output(direction, 0), sizeof pair);
    trial *one = by_hand(OP_memory_search, "rows=2x10 cols=2x10 core=1x4 pair=1x4 heads=1 m=3",
                         (const double *[MAX_IN]){rows, cols, c, pair});
    trial *two = by_hand(OP_memory_search, "rows=2x10 cols=2x10 core=2x4 pair=1x4 heads=1 m=3",
                         (const double *[MAX_IN]){rows, cols, cores, pair});
    is_near(output(one, 0), output(two, 0), 6, 0);
    trial *a = by_hand(OP_memory_read, "table=25x4 index=2x3 s=2x3 keys=5",
                       (const double *[MAX_IN]){half, output(one, 0), output(one, 1)});
    trial *b = by_hand(OP_memory_read, "table=25x4 index=2x3 s=2x6 keys=5",
                       (const double *[MAX_IN]){values, output(two, 0), output(two, 1)});
    is_near(output(a, 0), output(b, 0), 8, 1e-14);
    trial *all[] = {a, b, one, two, direction};
    for (int k = 0; k < COUNT(all); k++) trial_close(all[k]);
}

/* Every address goes somewhere, no two to one place, and layers differ. */
static void test_permutation(void **state)
{
    (void)state;
    static const i64 sides[] = {1, 2, 3, 16, 61, 128};
    for (int k = 0; k < COUNT(sides); k++) {
        i64 all = sides[k] * sides[k], fixed = 0;
        u8 seen[128 * 128] = {0};
        placing p = {.keys = sides[k], .seen = all, .rows = all, .key = place_mix(7) | 1}, other = p;
        other.key += 2;
        for (i64 i = 0; i < all; i++) {
            i64 to = place_permute(&p, i);
            assert_true(to >= 0 && to < all && !seen[to]);
            seen[to] = 1;
            fixed += to == place_permute(&other, i);
        }
        assert_true(all < 1000 || fixed < 20); // about one of a random permutation's addresses
    }
    placing p = {.keys = 4, .seen = 4, .rows = 4};
    assert_true(place_permute(&p, 11) == 11); // key 0
    assert_true(place_of(&p, -1).row == -1 && place_of(&p, 16).row == -1);
}

/* The sign of (u, t) is that of the kept pair, whatever sum u is; at first sum u >= 0. */
static void test_direction_follows(void **state)
{
    (void)state;
    static const double core[] = {0, -0.59, 0, 0.81}, zero[4] = {0}, opposite[] = {0.6, -0.8, 0, -1};
    trial *first = by_hand(OP_memory_direction, "core=1x4 kept=1x4", (const double *[MAX_IN]){core, zero});
    trial *turned =
        by_hand(OP_memory_direction, "core=1x4 kept=1x4", (const double *[MAX_IN]){core, opposite});
    assert_true(output(first, 0)[0] < 0 && output(first, 0)[0] + output(first, 0)[1] > 0);
    for (int i = 0; i < 4; i++) assert_true(output(turned, 0)[i] == -output(first, 0)[i]);
    trial_close(turned);
    trial_close(first);
}

/* ---- models */

static void open_plain(runner *r, model_case m, const char *const *with, i64 n, const case_rows *x, mode mode,
                       dtype act)
{
    runner_open(
        r, m, with, n,
        &(runner_options){.shape = case_shape(x, mode, act), .fuse = true, .device = cpu, .level = best()});
}

/* Values of zero: to the bit the model without a memory. */
static void test_values_of_zero(void **state)
{
    (void)state;
    static const char *const off[] = {"model.memory.kind=none"};
    static const struct {
        model_case model;
        const char *values;
    } cases[] = {{pkm_like, "blocks.0.memory.values.weight"},
                 {ultramem_like, "blocks.0.memory.values.weight"}};
    case_rows x;
    rows_mixed(&x);
    for (int k = 0; k < 2 * COUNT(cases); k++) {
        runner with, without;
        dtype act = k % 2 ? DT_BF16 : DT_F32;
        open_plain(&with, cases[k / 2].model, NULL, 0, &x, MODE_EVALUATE, act);
        open_plain(&without, cases[k / 2].model, off, 1, &x, MODE_EVALUATE, act);
        stored *v = store_find(with.s, cases[k / 2].values);
        memset(v->master, 0, sizeof(float) * (size_t)v->count);
        store_sync(with.s);
        runner *both[] = {&with, &without};
        for (int i = 0; i < 2; i++) {
            runner_rows(both[i], &x);
            program_run(both[i]->p, &(step_info){.seed = 1}, PHASE_FORWARD);
        }
        assert_memory_equal(runner_logits(&with), runner_logits(&without),
                            sizeof(float) * (size_t)count(with.m.logits));
        runner_close(&with);
        runner_close(&without);
    }
}

static const node *node_called(const graph *g, const char *path)
{
    for (i64 i = 0; i < g->n_nodes; i++)
        if (!strcmp(g->nodes[i]->path, path)) return g->nodes[i];
    fail_msg("no node %s", path);
    return NULL;
}

/* READ = ADD: the memory reads what the feed-forward reads, and stands beside it; where that is not normed,
 * it reads a norm of its own. */
static void test_beside_the_ffn(void **state)
{
    (void)state;
    static const char *const here[] = {"model.memory.spans=[1:1]"};
    runner r;
    case_rows x;
    rows_mixed(&x);
    open_plain(&r, ultramem_like, here, 1, &x, MODE_EVALUATE, DT_F32);
    const node *query = node_called(r.m.g, "blocks.1.memory.linear");
    const node *gate = node_called(r.m.g, "blocks.1.ffn.linear");
    assert_true(query->in[0] == gate->in[0]);
    assert_null(store_find(r.s, "blocks.1.memory.norm_in.gain"));
    runner_close(&r);
    open_plain(&r, pkm_like, NULL, 0, &x, MODE_EVALUATE, DT_F32);
    assert_non_null(store_find(r.s, "blocks.0.memory.norm_in.gain"));
    runner_close(&r);
}

static i64 values_of(const char *const *with, i64 n)
{
    runner r = {0};
    i64 values = 0;
    assert_ok(arena_open(&r.arena));
    r.c = case_config(
        (model_case){.name = "count", .yaml = "model: {layers: 20, width: 768, vocab: 61, context: 12}\n"},
        with, n);
    assert_ok(model_build(r.arena, r.c, &(model_shape){.rows = 1, .tokens = 2, .mode = MODE_TRAIN}, &r.m));
    for (i64 i = 0; i < r.m.g->n_tensors; i++) {
        const tensor *t = r.m.g->tensors[i];
        if (t->role == ROLE_PARAM && strstr(t->path, "values.weight")) values += count(t);
    }
    runner_close(&r);
    return values;
}

/* The published models: values of UltraMemV2-227M/1.2B, of UltraMem-227M/1.2B, of Memory+. */
static void test_parameters(void **state)
{
    (void)state;
    static const char *const ultramem[] = {
        "model.memory.kind=ultramem",   "model.memory.spans=[2:5,6:9,10:13,14:17]",
        "model.memory.keys=808",        "model.memory.key_width=192",
        "model.memory.value_width=384", "model.memory.top=80",
        "model.memory.init=code"};
    static const char *const plus[] = {"model.memory.kind=pkm", "model.memory.spans=[3:3]",
                                       "model.memory.keys=1138", "model.memory.value_width=768"};
    static const char *const v2[] = {"model.memory.kind=ultramem_v2", "model.memory.keys=360",
                                     "model.memory.value_width=192", "model.memory.pre_width=192",
                                     "model.memory.share_ratio=0.05"};
    assert_true(values_of(v2, COUNT(v2)) == 995328000);
    assert_true(values_of(ultramem, COUNT(ultramem)) == 1002799104);
    assert_true(values_of(plus, COUNT(plus)) == 994593792);
}

/* ---- initial values */
static void test_start(void **state)
{
    (void)state;
    enum { T = 64, KEYS = 128, R = 2, M = 8 };
    memory_moments y;
    static double rows[T * R * KEYS], cols[T * R * KEYS];
    double core[8], zero[4] = {0}, sum = 0;
    memory_scores(KEYS, R, 2, M, &y);
    for (int i = 0; i < T * R * KEYS; i++) {
        rows[i] = random_normal(9, 1, 0, (u64)i) / sqrt(y.mean);
        cols[i] = random_normal(9, 2, 0, (u64)i) / sqrt(y.mean);
    }
    for (int trial_no = 0; trial_no < 8; trial_no++) { // cores drawn anew
        for (int i = 0; i < 8; i++) core[i] = random_uniform(9, 3, (u64)trial_no, (u64)i);
        trial *pair = by_hand(OP_memory_direction, "core=2x4 kept=1x4", (const double *[MAX_IN]){core, zero});
        trial *t = by_hand(OP_memory_search, "rows=64x256 cols=64x256 core=2x4 pair=1x4 heads=1 m=8",
                           (const double *[MAX_IN]){rows, cols, core, output(pair, 0)});
        for (int i = 0; i < T * M * 2; i++) sum += output(t, 1)[i] / (8 * T * M);
        trial_close(t);
        trial_close(pair);
    }
    if (!(fabs(sum - 1) < 0.2)) fail_msg("the mean selected score is %g", sum);
    assert_true(memory_value_std(4, 8, 2, 8) == 0.125);
    is_near((double[]){memory_value_std_v2(6.5, 768, 32, 1, 0, 192, 192, 20)}, (double[]){0.0807}, 1, 5.1e-5);
}

static void test_classes(void **state)
{
    (void)state;
    static const char *const code[] = {"model.memory.init=code", "model.memory.key_width=64"};
    static const struct {
        const char *name;
        param_kind kind;
        double std, constant;
    } want[] = {{"query_row.weight", PARAM_MATRIX, 0.125, 0},
                {"query_column.gain", PARAM_GAIN, 0, 0.2535},
                {"key_column.weight", PARAM_MATRIX, 0.125, 0},
                {"key_row.gain", PARAM_GAIN, 0, 0.2535},
                {"core", PARAM_VECTOR, 0, 0},
                {"values.weight", PARAM_EMBEDDING, 0.02, 0},
                {"out.weight", PARAM_MATRIX, 0.1443, 0}};
    runner r;
    case_rows x;
    rows_mixed(&x);
    runner_open(&r, ultramem_like, code, 2, &(runner_options){.shape = case_shape(&x, MODE_TRAIN, DT_BF16)});
    for (int k = 0; k < COUNT(want); k++) {
        char path[96];
        snprintf(path, sizeof path, "blocks.0.memory.%s", want[k].name);
        const stored *e = store_find(r.s, path);
        if (!e) fail_msg("%s is missing", path);
        assert_int_equal(e->param.kind, want[k].kind);
        is_near((double[]){e->param.std, e->param.constant}, (double[]){want[k].std, want[k].constant}, 2,
                5e-5);
    }
    store_initialize(r.s, 1);
    const stored *core = store_find(r.s, "blocks.0.memory.core");
    double low = 1, high = 0;
    for (i64 i = 0; i < core->count; i++)
        low = fmin(low, core->master[i]), high = fmax(high, core->master[i]);
    assert_true(core->count == 16 && low >= 0 && high < 1 && high - low > 0.4);
    runner_close(&r);
}

/* ---- a step: the values' gradient is rows, their step ten times the others', the state is written */
static void test_step(void **state)
{
    (void)state;
    static const char *const with[] = {"train.batch_tokens=48", "train.precision=f32", "train.micro_batch=2",
                                       "model.memory.keys=20", "train.clip=0"};
    case_rows x;
    session *s;
    double nats, norm, moved = 0;
    rows_make(&x, 4, CASE_CONTEXT, (i32[]){0, -1, 0, 5, -1, 0, 1, 8, -1, 0, 11, -1}, 9);
    config *c = case_config(ultramem_like, with, COUNT(with));
    assert_ok(session_open(c, cpu, &(session_options){.isa = best()}, &s));
    session_start(s);
    const tensor *values = g_find(s->train.g, "blocks.0.memory.values.weight");
    assert_true(values->grad_ids && values->grad_rows && !values->grad);
    const stored *v = store_find(s->store, values->path);
    const stored *direction = store_find(s->store, "blocks.0.memory.direction");
    float *before = arena_copy(s->arena, v->master, sizeof(float) * (size_t)v->count);
    step_batch b = {x.token, x.target, x.start, x.position, x.rows, x.n_valid};
    s->optimizer.steps = 4, s->optimizer.tokens_per_step = 48;
    session_forward_backward(s, &b, 0, &nats);
    i64 listed = v->rows->count, k = 0;
    i32 *ids = arena_copy(s->arena, v->rows->ids, sizeof(i32) * (size_t)listed);
    assert_true(listed > 0 && listed < 4 * 12 * 6);
    assert_true(((float *)direction->data)[0] == 0);
    session_update(s, 0, 1e-3, 1e-3, &norm);
    for (i64 row = 0; row < 400; row++) {
        double most = 0;
        for (i64 j = 0; j < 12; j++)
            most = fmax(most, fabs((double)v->master[row * 12 + j] - before[row * 12 + j]));
        bool looked_up = k < listed && ids[k] == row;
        if (!looked_up) assert_true(most == 0);
        k += looked_up;
        moved = fmax(moved, most);
    }
    assert_true(k == listed);
    assert_true(fabs(moved - 1e-2) < 1e-5); // Adam's first step is the learning rate: ten times 1e-3
    const float *pair = direction->data;
    for (int h = 0; h < 2; h++)
        for (int side = 0; side < 2; side++, pair += 2)
            assert_true(fabs((double)pair[0] * pair[0] + (double)pair[1] * pair[1] - 1) < 1e-6);
    session_gauges_clear(s);
    const char *name[MOST_GAUGES];
    double value[MOST_GAUGES];
    assert_int_equal(session_gauges(s, name, value), 0); // nothing was evaluated
    session_evaluate(s, &b);
    assert_int_equal(session_gauges(s, name, value), 1);
    assert_string_equal(name[0], "memory_recall");
    assert_true(value[0] > 0 && value[0] <= 1);
    session_close(s);
    config_close(c);
}

/* ---- UltraMemV2 */

/* t^(c)_a = s^(c)_a <P[row_a], z>: rows (1, 2), (3, -1), (0.5, 0), z = (2, -1). */
static void test_match_by_hand(void **state)
{
    (void)state;
    static const double pre[] = {1, 2, 3, -1, 0.5, 0, 7, 7}, index[] = {1, 2, 0}, z[] = {2, -1},
                        s[] = {0.5, 2, 1, -1, 3, 4};
    trial *t = by_hand(OP_memory_match, "table=4x2 index=1x3 s=1x6 z=1x2 keys=2",
                       (const double *[MAX_IN]){pre, index, s, z});
    is_near(output(t, 0), (double[]){3.5, 14, 1, -1, 0, 0}, 6, 0);
    trial_close(t);
}

/* 27 rows for two layers of 16 values: the second sees rows 16 to 26 and 0 to 4. */
static void test_ring(void **state)
{
    (void)state;
    runner r;
    case_rows x;
    rows_mixed(&x);
    runner_open(&r, ultramem_v2_like, NULL, 0,
                &(runner_options){.shape = case_shape(&x, MODE_EVALUATE, DT_F32)});
    assert_int_equal(store_find(r.s, "memory.values.weight")->dim[0], 27);
    assert_int_equal(store_find(r.s, "memory.pre_values.weight")->dim[1], 12);
    for (i64 layer = 0; layer < 2; layer++) {
        char path[64];
        u8 times[27] = {0};
        snprintf(path, sizeof path, "blocks.%lld.memory.memory_read", (long long)layer);
        const node *read = node_called(r.m.g, path);
        placing p = placing_of(read, read->in[0]);
        for (i64 address = 0; address < 64; address++) times[place_of(&p, address).row]++;
        for (i64 row = 0; row < 27; row++)
            assert_int_equal(times[row], (layer ? row >= 16 || row < 5 : row < 16) * 4);
    }
    runner_close(&r);
}

/* A table that two layers look up: its gradient stays rows, and is the dense one to the bit, in whole steps
 * and in steps whose last micro-batch is not full. */
static void test_common_table(void **state)
{
    (void)state;
    static const char *const with[] = {"train.batch_tokens=48", "train.precision=f32", "train.micro_batch=2"};
    case_rows x;
    session *s[2];
    config *c[2];
    double nats;
    rows_make(&x, 4, CASE_CONTEXT, (i32[]){0, -1, 0, 5, -1, 0, 1, 8, -1, 0, 11, -1}, 9);
    for (i64 rows = 3; rows <= 4; rows++) {
        step_batch b = {x.token, x.target, x.start, x.position, rows, x.n_valid};
        for (int dense = 0; dense < 2; dense++) {
            c[dense] = case_config(ultramem_v2_like, with, COUNT(with));
            assert_ok(session_open(c[dense], cpu, &(session_options){.isa = best(), .dense_gradients = dense},
                                   &s[dense]));
            session_start(s[dense]);
            runner_weights(s[dense]->store);
            session_forward_backward(s[dense], &b, 0, &nats);
        }
        static const char *const tables[] = {"memory.values.weight", "memory.pre_values.weight"};
        for (int t = 0; t < COUNT(tables); t++) {
            const tensor *table = g_find(s[0]->train.g, tables[t]);
            const stored *list = store_find(s[0]->store, tables[t]),
                         *whole = store_find(s[1]->store, tables[t]);
            assert_true(table->n_more == 1 && !table->grad && list->rows && whole->grad);
            float *sum = arena_array(s[0]->arena, float, whole->count);
            for (i64 k = 0; k < list->rows->count; k++)
                memcpy(sum + list->rows->ids[k] * list->dim[1], list->rows->values + k * list->dim[1],
                       sizeof(float) * (size_t)list->dim[1]);
            assert_true(list->rows->count > 16); // of both layers
            assert_memory_equal(sum, whole->grad, sizeof(float) * (size_t)whole->count);
        }
        for (int k = 0; k < 2; k++) session_close(s[k]), config_close(c[k]);
    }
}

/* ---- what is refused */
static void refused(const char *yaml, const char *message)
{
    arena *a;
    config *c;
    model m;
    assert_ok(arena_open(&a));
    assert_ok(config_parse("c.yaml", yaml, strlen(yaml), NULL, 0, &c));
    assert_fails(model_build(a, c, &(model_shape){.rows = 1, .tokens = 4, .mode = MODE_TRAIN}, &m),
                 ERR_CONFIG, message);
    graph_close(m.g);
    config_close(c);
    arena_close(a);
}

/* Tables beyond the machine's memory: said before any of it is taken. */
static void test_too_large(void **state)
{
    (void)state;
    static const char *const with[] = {"model.memory.keys=20000", "train.batch_tokens=48"};
    char message[512], tables[32], all[32], there[32];
    session *s;
    config *c = case_config(ultramem_like, with, COUNT(with));
    assert_ok(session_open(c, cpu, &(session_options){.isa = best(), .plan_only = true}, &s));
    assert_true((double)s->memory.total > session_memory_there());
    snprintf(message, sizeof message,
             "command line: model.memory.keys is 20000: its tables and their moments take %s of memory, the "
             "run %s, "
             "and this machine has %s; lower it",
             show_bytes((double)s->memory.tables, tables), show_bytes((double)s->memory.total, all),
             show_bytes(session_memory_there(), there));
    assert_fails(session_fits(s), ERR_CONFIG, message);
    session_close(s);
    config_close(c);
}

static void test_refusals(void **state)
{
    (void)state;
#define MEMORY(text) "model:\n  vocab: 61\n  memory: {kind: ultramem, " text "}\n"
    refused(MEMORY("keys: 8"),
            "default: model.memory.spans is empty: name the blocks where each layer reads and "
            "is added, like [0:1]");
    refused(
        MEMORY("spans: [3-5]"),
        "c.yaml:3: model.memory.spans has '3-5'; a span is READ:ADD, two blocks counted from 0, like 3:5");
    refused(
        MEMORY("spans: [3:x]"),
        "c.yaml:3: model.memory.spans has '3:x'; a span is READ:ADD, two blocks counted from 0, like 3:5");
    refused(MEMORY("spans: [3:12]"),
            "c.yaml:3: model.memory.spans has 3:12, but the model has 12 layers, 0 to 11");
    refused(MEMORY("spans: [5:3]"),
            "c.yaml:3: model.memory.spans has 5:3: it would be added before it is read; "
            "write READ:ADD with READ <= ADD");
    refused(MEMORY("spans: [3:5, 3:4]"),
            "c.yaml:3: model.memory.spans has two spans that read in block 3; each "
            "block can read once");
    refused(MEMORY("spans: [3:5], top: 200"),
            "c.yaml:3: model.memory.top is 200, but there are 128 keys a side to choose from");
    refused(
        MEMORY("spans: [3:5], expansion: 8"),
        "c.yaml:3: model.memory.expansion is 8; expansion keys^2 addresses are a square of sqrt(expansion) "
        "keys a side, so it must be a square number (1, 4, 9, 16)");
    refused(
        MEMORY("spans: [3:5], keys: 30000"),
        "c.yaml:3: model.memory.keys is 30000; sqrt(expansion) keys must be at most 46340 (2^31 addresses)");
    refused(
        MEMORY("spans: [3:5], cores: 3"),
        "default: model.memory.value_width is 128; each of the 3 cores scores an equal part of a value, so "
        "model.memory.cores must divide it");
    static const char heads[] = "model: {memory: {kind: ultramem_v2, heads: 2}}\n";
    config *none;
    assert_fails(
        config_parse("c.yaml", heads, strlen(heads), NULL, 0, &none), ERR_CONFIG,
        "c.yaml:1: model.memory.heads belongs to model.memory.kind pkm or ultramem, and that is ultramem_v2; "
        "choose it or remove the key");
    refused(MEMORY("spans: [3:5], rank: 1, aux_weight: 0.001"),
            "c.yaml:3: model.memory.aux_weight is 0.001, but the loss is a mean over the singular values 2 "
            "to rank, "
            "and model.memory.rank is 1");
    config *c;
    static const char other[] = "model: {memory: {kind: pkm, spans: [1:1], rank: 2}}\n";
    assert_fails(config_parse("c.yaml", other, strlen(other), NULL, 0, &c), ERR_CONFIG,
                 "c.yaml:1: model.memory.rank belongs to model.memory.kind ultramem or ultramem_v2, and that "
                 "is pkm; choose it or "
                 "remove the key");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_search_by_hand),
        cmocka_unit_test(test_core_loss_by_hand),
        cmocka_unit_test(test_addresses_by_hand),
        cmocka_unit_test(test_product_keys_by_hand),
        cmocka_unit_test(test_learning_rate_by_hand),
        cmocka_unit_test(test_additive_scores),
        cmocka_unit_test(test_virtual_tables),
        cmocka_unit_test(test_equal_cores),
        cmocka_unit_test(test_permutation),
        cmocka_unit_test(test_direction_follows),
        cmocka_unit_test(test_values_of_zero),
        cmocka_unit_test(test_beside_the_ffn),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_step),
        cmocka_unit_test(test_match_by_hand),
        cmocka_unit_test(test_ring),
        cmocka_unit_test(test_common_table),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
