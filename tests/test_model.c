/* Whole models: autodiff's gradient in double against central differences of the forward pass, programs
 * against the gradient in double, recomputation, rewrites, instruction sets, documents that do not see each
 * other, packing, micro-batches. Run with a word ("measure") it prints the errors that the bounds below were
 * set from. */
#include "model_case.h"
#include "cpu_case.h"
#include "train/session.h"
#include <stdlib.h>

static bool measure;

static bool runs_here(isa level) { return level <= best() && op_table(level, 0); }

/* Without rotation or norm, a key's bias adds the same number to all scores of a query, and softmax does not
 * see it: its gradient is exactly 0, and what rounding leaves of it is held against the whole gradient. */
static bool is_flat(const graph *g, const char *path)
{
    return strstr(path, ".k.bias") && g_find(g, "position.weight");
}

/* The gradient of one number (the slope of a tanh, a factor) is a sum over all values, which may nearly
 * cancel: its error is held against a share of the whole gradient. So may that of what streams are read and
 * carried on with, where they are nearly equal, as those of hyper are at first. */
static double scale_of(model_case m, const stored *p, double norm, double whole)
{
    bool mixes = m.flat_mixes && (strstr(p->path, ".residual.read") || strstr(p->path, ".residual.carry"));
    return p->count == 1 || mixes ? fmax(norm, 0.1 * whole) : norm;
}

/* The norm of PATH's error in f32 or bf16, relative to what it should be. */
static double tensor_error(model_case m, const runner *r, const stored *p, double whole)
{
    const double *want = oracle_data(r->o, g_find(r->m.g, p->path)->grad);
    double off = 0, norm = 0;
    for (i64 k = 0; k < p->count; k++) off += pow(p->grad[k] - want[k], 2), norm += want[k] * want[k];
    return sqrt(off) / (is_flat(r->m.g, p->path) ? whole : scale_of(m, p, sqrt(norm), whole));
}

/* The norm of the whole gradient in double. */
static double whole_norm(const runner *r)
{
    double sum = 0;
    for (i64 i = 0; i < r->s->n_params; i++) {
        const tensor *t = g_find(r->m.g, r->s->entry[i].path)->grad;
        for (i64 k = 0; k < count(t); k++) sum += pow(oracle_data(r->o, t)[k], 2);
    }
    return sqrt(sum);
}

/* ---- the gradient is the slope */

/* A direction: for each tensor (by id) what is added to it, or NULL. */
static void move(runner *r, double *const *d, double h)
{
    for (i64 i = 0; i < r->m.g->n_tensors; i++)
        for (i64 k = 0; d[i] && k < count(r->m.g->tensors[i]); k++)
            oracle_data(r->o, r->m.g->tensors[i])[k] += h * d[i][k];
}

static double dot(const graph *g, double *const *a, double *const *b)
{
    double sum = 0;
    for (i64 i = 0; i < g->n_tensors; i++)
        for (i64 k = 0; a[i] && b[i] && k < count(g->tensors[i]); k++) sum += a[i][k] * b[i][k];
    return sum;
}

/* The slope along D by differences of the objective, to fourth order: (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) /
 * 12 h. */
static double difference(runner *r, double *const *d)
{
    static const double at[] = {1, -1, 2, -2}, weight[] = {8, -8, -1, 1};
    const double h = 2e-3 / sqrt(dot(r->m.g, d, d));
    double sum = 0;
    for (int k = 0; k < 4; k++) {
        move(r, d, at[k] * h);
        sum += weight[k] * runner_objective(r);
        move(r, d, -at[k] * h);
    }
    return sum / (12 * h);
}

/* Error of gradient . direction against that, relative to the larger of the slope and FLOOR. */
static double slope_error(runner *r, double *const *gradient, double *const *d, double floor)
{
    double slope = dot(r->m.g, gradient, d);
    return fabs(difference(r, d) - slope) / fmax(fabs(slope), floor);
}

static double rms(const double *x, i64 n)
{
    double sum = 0;
    for (i64 i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum / (double)n);
}

static double *random_vector(arena *a, const tensor *t, u64 seed)
{
    u64 stream = random_stream(t->path);
    double *x = arena_array(a, double, count(t));
    for (i64 k = 0; k < count(t); k++) x[k] = random_normal(seed, stream, 2, (u64)k);
    return x;
}

/* All parameters along random directions, then each alone, then some of its coordinates. A slope that happens
 * to be near 0 is held to the size that slopes have: rms of the gradient x length of the direction. */
static void check_slopes(runner *r, double *const *gradient, const char *name)
{
    const graph *g = r->m.g;
    double worst[3] = {0}, **d = arena_array(r->arena, double *, g->n_tensors);
    for (u64 seed = 0; seed < 3; seed++) {
        for (i64 i = 0; i < g->n_tensors; i++)
            if (gradient[i]) d[i] = random_vector(r->arena, g->tensors[i], seed);
        worst[0] = fmax(worst[0], slope_error(r, gradient, d, 0.1));
    }
    memset(d, 0, sizeof *d * (size_t)g->n_tensors);
    for (i64 i = 0; i < g->n_tensors; i++) {
        const tensor *t = g->tensors[i];
        if (!gradient[i]) continue;
        double size = rms(gradient[i], count(t));
        if (is_flat(g, t->path)) {
            assert_true(size <= 1e-15);
            continue;
        }
        assert_true(size > 1e-9); // something reaches every parameter
        d[i] = random_vector(r->arena, t, 11);
        worst[1] = fmax(worst[1], slope_error(r, gradient, d, 0.1 * size * sqrt((double)count(t))));
        for (u64 k = 0; k < 2; k++) {
            memset(d[i], 0, sizeof *d[i] * (size_t)count(t));
            d[i][random_bits(k, random_stream(t->path), 3, 0) % (u64)count(t)] = 1;
            worst[2] = fmax(worst[2], slope_error(r, gradient, d, 0.1 * size));
        }
        d[i] = NULL;
    }
    if (measure)
        printf("%-11s slopes: all %.1e, a parameter %.1e, a coordinate %.1e\n", name, worst[0], worst[1],
               worst[2]);
    for (int k = 0; k < 3; k++)
        if (!(worst[k] <= 1e-6)) fail_msg("%s: slopes off by %g (kind %d)", name, worst[k], k);
}

static void test_slopes(void **state)
{
    (void)state;
    case_rows x;
    rows_mixed(&x);
    for (i64 k = 0; k < COUNT(model_cases); k++) {
        runner r;
        runner_open(
            &r, model_cases[k], NULL, 0,
            &(runner_options){.shape = case_shape(&x, MODE_TRAIN, DT_F32), .backward = true, .oracle = true});
        runner_rows(&r, &x);
        runner_oracle(&r);
        oracle_hold(r.o, true);
        double **gradient = arena_array(r.arena, double *, r.m.g->n_tensors);
        for (i64 i = 0; i < r.m.g->n_tensors; i++) {
            const tensor *t = r.m.g->tensors[i];
            if (t->role == ROLE_PARAM)
                gradient[i] =
                    arena_copy(r.arena, oracle_data(r.o, t->grad), sizeof(double) * (size_t)count(t));
        }
        check_slopes(&r, gradient, model_cases[k].name);
        runner_close(&r);
    }
}

/* ---- programs against double */

typedef struct errors {
    double whole, tensor, loss, logits; // of the gradient as one vector; of its worst parameter
    char worst[64];
} errors;

static errors program_errors(model_case m, const case_rows *x, dtype act, isa level, bool fuse)
{
    runner r;
    errors e = {0};
    runner_open(&r, m, NULL, 0,
                &(runner_options){.shape = case_shape(x, MODE_TRAIN, act),
                                  .backward = true,
                                  .fuse = fuse,
                                  .device = cpu,
                                  .level = level,
                                  .oracle = true});
    runner_rows(&r, x);
    runner_program(&r);
    runner_hold(&r);
    runner_oracle(&r);
    double whole = whole_norm(&r);
    for (i64 i = 0; i < r.s->n_params; i++) {
        const stored *p = &r.s->entry[i];
        const double *want = oracle_data(r.o, g_find(r.m.g, p->path)->grad);
        double one = tensor_error(m, &r, p, whole);
        if (!(one <= e.tensor)) snprintf(e.worst, sizeof e.worst, "%s", p->path), e.tensor = one;
        for (i64 k = 0; k < p->count; k++) e.whole += pow(p->grad[k] - want[k], 2);
    }
    e.whole = sqrt(e.whole) / whole;
    double objective = *oracle_data(r.o, r.m.objective);
    e.loss = fabs(*(float *)program_data(r.p, r.m.objective) - objective) / objective;
    e.logits = relative_error(runner_logits(&r), oracle_data(r.o, r.m.logits), count(r.m.logits));
    runner_close(&r);
    return e;
}

static void check_programs(dtype act, double whole, double tensor, double loss, double logits)
{
    case_rows x;
    rows_mixed(&x);
    for (i64 k = 0; k < COUNT(model_cases); k++)
        for (isa level = 0; level < ISA_COUNT; level++)
            for (int fuse = 0; fuse < 2 && runs_here(level); fuse++) {
                errors e = program_errors(model_cases[k], &x, act, level, fuse);
                double own = act == DT_BF16 ? fmax(whole, model_cases[k].bf16_gradient) : whole;
                if (measure)
                    printf("%-11s %s %-5s %s gradient %.1e, worst %.1e (%s), objective %.1e, logits %.1e\n",
                           model_cases[k].name, dtype_name(act), isa_name(level), fuse ? "fused" : "plain",
                           e.whole, e.tensor, e.worst, e.loss, e.logits);
                if (!(e.whole <= own && e.tensor <= tensor && e.loss <= loss && e.logits <= logits))
                    fail_msg("%s %s %s fuse %d: gradient %g, %s %g, objective %g, logits %g",
                             model_cases[k].name, dtype_name(act), isa_name(level), fuse, e.whole, e.worst,
                             e.tensor, e.loss, e.logits);
            }
}

/* Measured ("measure"): whole gradient 2 to 5e-7, worst parameter 1.3e-6, objective 5e-8, logits 3e-7. */
static void test_f32(void **state)
{
    (void)state;
    check_programs(DT_F32, 2e-6, 1e-5, 5e-7, 2e-6);
}

/* A bf16 number is off by up to 2^-9 = 0.002 of itself, and some twenty roundings lie between an input and
 * its gradient, adding up as their square root does. Measured: logits 0.008, whole gradient 0.005 to 0.019;
 * more where model_case.h says so; the worst parameter is one of q or k (0.015 to 0.026),
 * whose gradient is a difference of nearly equal terms: p (dp - sum p dp). */
static void test_bf16(void **state)
{
    (void)state;
    check_programs(DT_BF16, 0.02, 0.05, 0.002, 0.02);
}

/* ---- recomputation changes no bit */
static void test_recompute(void **state)
{
    (void)state;
    static const struct {
        recompute_policy policy;
        int every;
    } ways[] = {{RECOMPUTE_NONE, 1}, {RECOMPUTE_CHEAP, 1}, {RECOMPUTE_BLOCK, 1}, {RECOMPUTE_BLOCK, 2}};
    static float first[64 << 10];
    case_rows x;
    rows_mixed(&x);
    for (i64 k = 0; k < COUNT(model_cases); k++)
        for (int how = 0; how < 4; how++) // f32 and bf16, fused or not
            for (i64 w = 0; w < COUNT(ways); w++) {
                runner r;
                runner_open(&r, model_cases[k], NULL, 0,
                            &(runner_options){.shape = case_shape(&x, MODE_TRAIN, how & 1 ? DT_BF16 : DT_F32),
                                              .backward = true,
                                              .fuse = how & 2,
                                              .policy = ways[w].policy,
                                              .every = ways[w].every,
                                              .device = cpu,
                                              .level = best()});
                runner_rows(&r, &x);
                runner_program(&r);
                size_t bytes = (size_t)r.s->elements * sizeof(float);
                assert_true(bytes <= sizeof first);
                if (!w) memcpy(first, r.s->grad, bytes);
                for (i64 i = 0; i < r.s->n_params; i++) {
                    const stored *e = &r.s->entry[i];
                    if (memcmp(e->grad, first + e->offset, (size_t)e->count * sizeof(float)) != 0)
                        fail_msg("%s, way %d, %s: recomputation (policy %d, every %d) changes bits",
                                 model_cases[k].name, how, e->path, ways[w].policy, ways[w].every);
                }
                runner_close(&r);
            }
}

/* ---- documents do not see each other */

/* Row 0 holds a document of 5 tokens and one of 6, row 1 too; the first documents are of ids 0..19, the
 * second of others, and differ between the rows only in the first. */
static void rows_of_two(case_rows *x)
{
    rows_make(x, 2, 11, (i32[]){0, 5, -1, 0, 5, -1}, 3);
    for (i64 i = 0; i < 22; i++) {
        x->token[i] = i % 11 < 5 ? x->token[i] % 20
                      : i < 11   ? 20 + x->token[i] % (CASE_VOCAB - 20)
                                 : x->token[i - 11];
        x->target[i] = -1;
    }
    for (i64 i = 0; i < 22; i++)
        if (i % 11 >= 5 && i % 11 < 10) x->target[i] = x->token[i + 1];
    x->n_valid = 10;
}

static void check_documents(model_case m, dtype act, isa level)
{
    static const char *const untied[] = {"model.tie_head=false"};
    enum { V = CASE_VOCAB, D = 32 };
    case_rows x;
    runner r;
    rows_of_two(&x);
    runner_open(&r, m, untied, 1,
                &(runner_options){.shape = case_shape(&x, MODE_TRAIN, act),
                                  .backward = true,
                                  .fuse = true,
                                  .device = cpu,
                                  .level = level});
    runner_rows(&r, &x);
    runner_program(&r);
    const float *l = runner_logits(&r), *g = runner_gradient(&r, "embedding.weight");
    assert_true(memcmp(l, l + 11 * V, 5 * V * sizeof *l) != 0); // the first documents do differ
    assert_memory_equal(l + 5 * V, l + 16 * V, 6 * V * sizeof *l);
    // Only the second documents have targets: nothing may reach the ids that only the first ones hold.
    for (i64 i = 0; i < 20 * D; i++)
        if (g[i] != 0)
            fail_msg("%s: gradient %g crosses documents to id %lld", m.name, g[i], (long long)i / D);
    double reached = 0;
    for (i64 i = 20 * D; i < V * D; i++) reached += fabs(g[i]);
    assert_true(reached > 0);
    runner_close(&r);
}

static void test_documents(void **state)
{
    (void)state;
    for (i64 k = 0; k < COUNT(model_cases); k++)
        for (isa level = 0; level < ISA_COUNT; level++)
            for (dtype act = DT_F32; act <= DT_BF16 && runs_here(level); act++)
                check_documents(model_cases[k], act, level);
}

/* A balancing loss multiplies what all tokens of a batch chose: it is no sum over documents or micro-batches
 * (test_moe.c holds what does add up). */
static bool of_whole_batch(model_case m) { return strstr(m.yaml, "balance_weight") != NULL; }

/* A row of two documents has the loss and the gradient of the documents alone, each weighted by its tokens.
 */
static void test_packing(void **state)
{
    (void)state;
    enum { A = 5, B = 6 };
    static const i64 from[] = {0, 0, A}, tokens[] = {A + B, A, B};
    for (i64 k = 0; k < COUNT(model_cases); k++) {
        case_rows whole, x;
        runner r[3];
        if (of_whole_batch(model_cases[k])) continue;
        rows_make(&whole, 1, A + B, (i32[]){0, A, -1}, 5);
        for (int i = 0; i < 3; i++) {
            rows_make(&x, 1, tokens[i], i ? (i32[]){0, -1} : (i32[]){0, A, -1}, 5);
            memcpy(x.token, whole.token + from[i], sizeof(i32) * (size_t)tokens[i]);
            memcpy(x.target, whole.target + from[i], sizeof(i32) * (size_t)tokens[i]);
            runner_open(&r[i], model_cases[k], NULL, 0,
                        &(runner_options){.shape = case_shape(&x, MODE_TRAIN, DT_F32),
                                          .backward = true,
                                          .device = cpu,
                                          .level = best(),
                                          .oracle = true});
            runner_rows_counted(&r[i], &x, whole.n_valid);
            runner_program(&r[i]);
            runner_oracle(&r[i]);
        }
        for (i64 i = 0; i < r[0].s->n_params; i++) {
            const stored *e = &r[0].s->entry[i];
            double off = 0, norm = is_flat(r[0].m.g, e->path) ? 1 : 0, off32 = 0;
            const double *g[3];
            for (int j = 0; j < 3; j++) g[j] = oracle_data(r[j].o, g_find(r[j].m.g, e->path)->grad);
            for (i64 n = 0; n < e->count; n++) {
                float sum = r[1].s->entry[i].grad[n] + r[2].s->entry[i].grad[n];
                off += pow(g[0][n] - (g[1][n] + g[2][n]), 2), norm += g[0][n] * g[0][n];
                off32 += pow((double)e->grad[n] - sum, 2);
            }
            if (!(sqrt(off / norm) <= 1e-12 && sqrt(off32 / norm) <= 1e-5))
                fail_msg("%s, %s: packed row off by %g in double, %g in f32", model_cases[k].name, e->path,
                         sqrt(off / norm), sqrt(off32 / norm));
        }
        double loss[3];
        for (int j = 0; j < 3; j++) loss[j] = *oracle_data(r[j].o, r[j].m.objective);
        assert_true(fabs(loss[0] - loss[1] - loss[2]) <= 1e-13 * loss[0]);
        for (int j = 0; j < 3; j++) runner_close(&r[j]);
    }
}

static double length_of(const store *s)
{
    double sum = 0;
    for (i64 i = 0; i < s->n_params; i++)
        for (i64 k = 0; k < s->entry[i].count; k++) sum += pow(s->entry[i].grad[k], 2);
    return sqrt(sum);
}

/* ---- a step in one batch of four rows, or four micro-batches of one, or two of two */
static void test_micro_batches(void **state)
{
    (void)state;
    static const char *const micro[] = {"train.micro_batch=4", "train.micro_batch=1", "train.micro_batch=2"};
    case_rows x;
    rows_make(&x, 4, CASE_CONTEXT, (i32[]){0, -1, 0, 5, -1, 0, 1, 8, -1, 0, 11, -1}, 9);
    for (i64 k = 0; k < COUNT(model_cases); k++) {
        session *s[3];
        config *c[3];
        if (of_whole_batch(model_cases[k])) continue;
        double nats[3], norm[3];
        for (int i = 0; i < 3; i++) {
            step_batch b = {x.token, x.target, x.start, x.position, x.rows, x.n_valid};
            c[i] = case_config(model_cases[k],
                               (const char *[]){micro[i], "train.batch_tokens=48", "train.precision=f32"}, 3);
            assert_ok(
                session_open(c[i], cpu, &(session_options){.isa = best(), .dense_gradients = true}, &s[i]));
            session_start(s[i]);
            runner_weights(s[i]->store);
            session_forward_backward(s[i], &b, 0, &nats[i]);
        }
        norm[0] = length_of(s[0]->store);
        for (int i = 1; i < 3; i++) {
            assert_true(fabs(nats[i] - nats[0]) <= 1e-6 * nats[0]);
            for (i64 p = 0; p < s[0]->store->n_params; p++) {
                const stored *a = &s[i]->store->entry[p], *b = &s[0]->store->entry[p];
                if (is_flat(s[0]->train.g, a->path)) continue;
                double off = a->count == 1 ? fabs(a->grad[0] - b->grad[0]) /
                                                 scale_of(model_cases[k], a, fabs(b->grad[0]), norm[0])
                                           : relative_error_f32(a->grad, b->grad, a->count);
                if (measure && off > 5e-7)
                    printf("%-11s %s %s: %.1e\n", model_cases[k].name, micro[i], a->path, off);
                if (!measure && !(off <= fmax(1e-6, model_cases[k].micro_gradient)))
                    fail_msg("%s, %s, %s: off by %g", model_cases[k].name, micro[i], a->path, off);
            }
        }
        for (int i = 0; i < 3; i++) {
            session_update(s[i], 0, 1e-3, 1e-3, &norm[i]);
            assert_true(fabs(norm[i] - norm[0]) <= 1e-6 * norm[0]);
            session_close(s[i]);
            config_close(c[i]);
        }
    }
}

int main(int argc, char **argv)
{
    measure = argc > 1 && !strcmp(argv[1], "measure");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slopes),        cmocka_unit_test(test_f32),
        cmocka_unit_test(test_bf16),          cmocka_unit_test(test_recompute),
        cmocka_unit_test(test_documents),     cmocka_unit_test(test_packing),
        cmocka_unit_test(test_micro_batches),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
