/* GEMM plans against a plain double product: every type, transpose, bias and accumulation, odd extents,
 * padded leading dimensions, ragged rows, callers inside a parallel region; exact integers to the bit, random
 * values to a bound. The program runs itself again at the lower instruction-set levels: there bfloat16 is
 * widened. */
#define _GNU_SOURCE
#include "check.h"
#include "base/random.h"
#include "base/text.h"
#include "device/gemm.h"
#include <math.h>
#include <omp.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

extern char **environ;
static device *dev;

/* ---- matrices in double and in storage */
static float bf16_value(u16 h)
{
    u32 bits = (u32)h << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static u16 bf16_nearest(double x) // by search among the neighbours: shares nothing with the code under test
{
    float f = (float)x;
    u32 bits;
    memcpy(&bits, &f, 4);
    u16 low = (u16)(bits >> 16), high = (u16)(low + 1);
    double down = fabs((double)bf16_value(low) - x), up = fabs((double)bf16_value(high) - x);
    return down < up || (down == up && !(low & 1)) ? low : high;
}
static double load(const void *p, gemm_type t, i64 i)
{
    return t == GEMM_BF16 ? (double)bf16_value(((const u16 *)p)[i]) : (double)((const float *)p)[i];
}
static void store(void *p, gemm_type t, i64 i, double x)
{
    if (t == GEMM_BF16)
        ((u16 *)p)[i] = bf16_nearest(x);
    else
        ((float *)p)[i] = (float)x;
}

static const double PAD = 77; // in the gaps between rows of C: must survive
typedef struct problem {
    gemm_spec spec; // with explicit leading dimensions
    void *a, *b, *c, *c_before, *bias, *scratch;
    i64 c_count;
} problem;

static void *room(i64 n)
{
    void *p;
    assert_ok(mem_alloc((size_t)n, "test", &p));
    return p;
}

static void fill(void *p, gemm_type t, i64 n, u64 stream, bool exact)
{
    for (i64 i = 0; i < n; i++) {
        double u = random_uniform(7, stream, 0, (u64)i);
        store(p, t, i, exact ? floor(7 * u) - 3 : 2 * u - 1);
    }
}

static problem problem_new(const gemm_spec *s, bool exact)
{
    problem p = {.spec = *s};
    gemm_spec *q = &p.spec;
    if (!q->lda) q->lda = q->a_trans ? q->m : q->k;
    if (!q->ldb) q->ldb = q->b_trans ? q->k : q->n;
    if (!q->ldc) q->ldc = q->n;
    i64 na = (q->a_trans ? q->k : q->m) * q->lda, nb = (q->b_trans ? q->n : q->k) * q->ldb;
    p.c_count = q->m * q->ldc;
    p.a = room(4 * na), p.b = room(4 * nb), p.c = room(4 * p.c_count), p.c_before = room(4 * p.c_count);
    fill(p.a, q->ab, na, 1, exact);
    fill(p.b, q->ab, nb, 2, exact);
    fill(p.c_before, q->c, p.c_count, 3, exact);
    for (i64 i = 0; i < p.c_count; i++)
        if (i % q->ldc >= q->n) store(p.c_before, q->c, i, PAD);
    if (q->bias) {
        p.bias = room(4 * q->n);
        fill(p.bias, q->bias == GEMM_BIAS_BF16 ? GEMM_BF16 : GEMM_F32, q->n, 4, exact);
    }
    memcpy(p.c, p.c_before, (size_t)(4 * p.c_count));
    return p;
}

static void problem_free(problem *p)
{
    void *const all[] = {p->a, p->b, p->c, p->c_before, p->bias, p->scratch};
    for (i64 i = 0; i < COUNT(all); i++) mem_free(all[i]);
}

/* Element (i, j) in double; *size is the sum of absolute terms. */
static double expected(const problem *p, i64 i, i64 j, double *size)
{
    const gemm_spec *s = &p->spec;
    double y = 0;
    *size = 0;
    for (i64 l = 0; l < s->k; l++) {
        double a = load(p->a, s->ab, s->a_trans ? l * s->lda + i : i * s->lda + l);
        double b = load(p->b, s->ab, s->b_trans ? j * s->ldb + l : l * s->ldb + j);
        y += a * b;
        *size += fabs(a * b);
    }
    double more[2] = {s->bias ? load(p->bias, s->bias == GEMM_BIAS_BF16 ? GEMM_BF16 : GEMM_F32, j) : 0,
                      s->accumulate ? load(p->c_before, s->c, i * s->ldc + j) : 0};
    *size += fabs(more[0]) + fabs(more[1]);
    return y + more[0] + more[1];
}

/* Compares the first ROWS rows; the rest and the gaps must be as before. Exact: to the bit (the exact sum,
 * rounded once). Random: 1e-6 of the sum of absolute terms (f32 sums), and half a unit, at most 2^-8
 * relative, when C is bf16. */
static void compare(const problem *p, i64 rows, bool exact)
{
    const gemm_spec *s = &p->spec;
    char text[160];
    for (i64 e = 0; e < p->c_count; e++) {
        i64 i = e / s->ldc, j = e % s->ldc;
        double got = load(p->c, s->c, e), size, want, limit = 0;
        if (i >= rows || j >= s->n) {
            want = load(p->c_before, s->c, e);
        } else {
            want = expected(p, i, j, &size);
            if (exact && s->c == GEMM_BF16) want = (double)bf16_value(bf16_nearest(want));
            if (!exact) limit = 1e-6 * size + (s->c == GEMM_BF16 ? fabs(want) / 256 : 0);
        }
        if (!(fabs(got - want) <= limit))
            fail_msg("%s, C[%lld, %lld]: %.9g, expected %.9g within %.3g", gemm_describe(s, text),
                     (long long)i, (long long)j, got, want, limit);
    }
}

static const gemm_plan *plan_of(problem *p)
{
    const gemm_plan *plan;
    assert_ok(gemm_plan_get(dev, &p->spec, &plan));
    if (!p->scratch) p->scratch = room(MAX(64, gemm_scratch_bytes(plan)));
    return plan;
}

static void prove(const gemm_spec *s, bool exact)
{
    problem p = problem_new(s, exact);
    const gemm_plan *plan = plan_of(&p);
    gemm_run(plan, p.a, p.b, p.c, p.bias, p.scratch);
    compare(&p, s->m, exact);
    problem_free(&p);
}

/* ---- tests */
static const i64 extents[][3] = {{1, 1, 1},  {1, 7, 5},    {5, 1, 3},    {3, 5, 1},
                                 {1, 1, 65}, {17, 33, 64}, {65, 127, 31}};

static void test_every_form(void **state)
{
    (void)state;
    static const struct {
        gemm_type ab, c;
    } types[] = {{GEMM_F32, GEMM_F32}, {GEMM_BF16, GEMM_F32}, {GEMM_BF16, GEMM_BF16}};
    for (i64 e = 0; e < COUNT(extents); e++)
        for (i64 t = 0; t < COUNT(types); t++)
            for (int form = 0; form < 16 * 3; form++) {
                gemm_spec s = {.m = extents[e][0], .n = extents[e][1], .k = extents[e][2]};
                s.ab = types[t].ab, s.c = types[t].c;
                s.a_trans = form & 1, s.b_trans = form & 2, s.accumulate = form & 4;
                s.bias = (gemm_bias)(form / 16);
                if (s.bias == GEMM_BIAS_BF16 && s.ab == GEMM_F32) continue; // refused
                if (form & 8) {                                             // padded rows
                    s.lda = (s.a_trans ? s.m : s.k) + 3;
                    s.ldb = (s.b_trans ? s.k : s.n) + 5;
                    s.ldc = s.n + 7;
                }
                prove(&s, true);
                prove(&s, false);
            }
}

static void test_split(void **state)
{
    (void)state;
    gemm_spec s = {
        .m = 200, .n = 70, .k = 130, .ab = GEMM_BF16, .c = GEMM_F32, .a_trans = true, .accumulate = true};
    for (i64 split = 1; split <= 200; split = split * 3 + 1) {
        s.split = split;
        prove(&s, true);
        s.a_trans = !s.a_trans;
        prove(&s, false);
    }
    gemm_spec chosen = {
        .m = 800, .n = 520, .k = 40, .ab = GEMM_BF16, .c = GEMM_F32, .a_trans = true, .lda = 801};
    prove(&chosen, true); // by gemm.c's own rule
}

static void test_ragged(void **state)
{
    (void)state;
    for (int form = 0; form < 32; form++) {
        gemm_spec s = {.m = 37, .n = 19, .k = 33, .ragged = true, .lda = 50, .ldb = 40, .ldc = 20};
        s.ab = form & 1 ? GEMM_BF16 : GEMM_F32, s.c = s.ab;
        s.a_trans = form & 2, s.b_trans = form & 4, s.accumulate = form & 8;
        s.bias = form & 16 ? GEMM_BIAS_F32 : GEMM_NO_BIAS;
        problem p = problem_new(&s, true);
        const gemm_plan *plan = plan_of(&p);
        for (const i64 *rows = (const i64[]){37, 1, 0, 20, 20, 36, -1}; *rows >= 0; rows++) {
            memcpy(p.c, p.c_before, (size_t)(4 * p.c_count));
            gemm_run_rows(plan, *rows, p.a, p.b, p.c, p.bias, p.scratch);
            compare(&p, *rows, true);
        }
        problem_free(&p);
    }
}

/* As many terms a sum as the call says: none at all gives 0, or leaves what is accumulated. */
static void test_ragged_depth(void **state)
{
    (void)state;
    for (int form = 0; form < 32; form++) {
        gemm_spec s = {.m = 37, .n = 19, .k = 33, .ragged_depth = true, .lda = 50, .ldb = 40, .ldc = 20};
        s.ab = form & 1 ? GEMM_BF16 : GEMM_F32, s.c = form & 16 ? GEMM_F32 : s.ab;
        s.a_trans = form & 2, s.b_trans = form & 4, s.accumulate = form & 8;
        problem p = problem_new(&s, true);
        const gemm_plan *plan = plan_of(&p);
        for (const i64 *depth = (const i64[]){33, 1, 0, 20, 20, 32, -1}; *depth >= 0; depth++) {
            memcpy(p.c, p.c_before, (size_t)(4 * p.c_count));
            gemm_run_depth(plan, *depth, p.a, p.b, p.c, p.scratch);
            p.spec.k = *depth;
            compare(&p, s.m, true);
            p.spec.k = s.k;
        }
        problem_free(&p);
    }
}

/* A serial plan from every thread of a region at once, each on its own matrices. */
static void test_serial(void **state)
{
    (void)state;
    enum { TASKS = 12 };
    for (int form = 0; form < 4; form++) {
        gemm_spec s = {.m = 64, .n = 48, .k = 96, .b_trans = true, .serial = true, .accumulate = form & 1};
        s.ab = form & 2 ? GEMM_BF16 : GEMM_F32, s.c = s.ab;
        s.ragged = form == 1;
        problem p[TASKS];
        const gemm_plan *plan = NULL;
        for (int i = 0; i < TASKS; i++) p[i] = problem_new(&s, true), plan = plan_of(&p[i]);
        for (int round = 0; round < 20; round++) {
            for (int i = 0; i < TASKS; i++) memcpy(p[i].c, p[i].c_before, (size_t)(4 * p[i].c_count));
#pragma omp parallel for schedule(dynamic)
            for (int i = 0; i < TASKS; i++) {
                if (s.ragged)
                    gemm_run_rows(plan, 64 - i, p[i].a, p[i].b, p[i].c, NULL, p[i].scratch);
                else
                    gemm_run(plan, p[i].a, p[i].b, p[i].c, NULL, p[i].scratch);
            }
        }
        for (int i = 0; i < TASKS; i++) compare(&p[i], s.ragged ? 64 - i : 64, true);
        for (int i = 0; i < TASKS; i++) problem_free(&p[i]);
    }
}

static void test_same_bits(void **state)
{
    (void)state;
    gemm_spec s = {
        .m = 770, .n = 513, .k = 300, .ab = GEMM_BF16, .c = GEMM_F32, .a_trans = true, .accumulate = true};
    problem p = problem_new(&s, false);
    const gemm_plan *plan = plan_of(&p);
    void *first = room(4 * p.c_count);
    for (int i = 0; i < 5; i++) {
        memcpy(p.c, p.c_before, (size_t)(4 * p.c_count));
        gemm_run(plan, p.a, p.b, p.c, NULL, p.scratch);
        if (!i) memcpy(first, p.c, (size_t)(4 * p.c_count));
        assert_memory_equal(first, p.c, (size_t)(4 * p.c_count));
    }
    compare(&p, s.m, false);
    mem_free(first);
    problem_free(&p);
}

static void test_special_values(void **state)
{
    (void)state;
    gemm_spec s = {.m = 3, .n = 20, .k = 9, .ab = GEMM_BF16, .c = GEMM_BF16};
    problem p = problem_new(&s, true);
    const gemm_plan *plan = plan_of(&p);
    ((u16 *)p.a)[9] = 0x7FC1;                              // a NaN in row 1
    ((u16 *)p.a)[18] = 0x7F80;                             // an infinity in row 2
    for (int j = 0; j < 20; j++) ((u16 *)p.b)[j] = 0x3F80; // times 1
    gemm_run(plan, p.a, p.b, p.c, NULL, p.scratch);
    for (int j = 0; j < 20; j++) {
        assert_true(isfinite(load(p.c, GEMM_BF16, j)));
        assert_true(isnan(load(p.c, GEMM_BF16, 20 + j)));
        assert_true(isinf(load(p.c, GEMM_BF16, 40 + j)));
    }
    problem_free(&p);
}

static void test_cache_and_refusals(void **state)
{
    (void)state;
    gemm_spec s = {.m = 40, .n = 30, .k = 20, .ab = GEMM_BF16, .c = GEMM_F32}, dense = s;
    const gemm_plan *one, *two;
    dense.lda = 20, dense.ldb = dense.ldc = 30;
    assert_ok(gemm_plan_get(dev, &s, &one));
    assert_ok(gemm_plan_get(dev, &dense, &two));
    assert_ptr_equal(one, two);
    s.accumulate = true;
    assert_ok(gemm_plan_get(dev, &s, &two));
    assert_ptr_not_equal(one, two);

    s.n = 0;
    assert_fails(gemm_plan_get(dev, &s, &two), ERR_CONFIG,
                 "gemm 40x0x20 bf16 bf16 -> f32, accumulated: every extent must be >= 1");
    s.n = 30, s.ldb = 29;
    assert_fails(gemm_plan_get(dev, &s, &two), ERR_CONFIG,
                 "gemm 40x30x20 bf16 bf16 -> f32, accumulated: ldb is 29; it must be >= 30 (0: dense)");
    s.ldb = 0, s.split = 41;
    assert_fails(gemm_plan_get(dev, &s, &two), ERR_CONFIG,
                 "gemm 40x30x20 bf16 bf16 -> f32, accumulated: split is 41; it must be 0 or 1 to 40");
    s.split = 0, s.ab = GEMM_F32, s.c = GEMM_BF16;
    assert_fails(
        gemm_plan_get(dev, &s, &two), ERR_CONFIG,
        "gemm 40x30x20 f32 f32 -> bf16, accumulated: f32 factors give an f32 result; use c = GEMM_F32");
    s.c = GEMM_F32, s.bias = GEMM_BIAS_BF16;
    assert_fails(gemm_plan_get(dev, &s, &two), ERR_CONFIG,
                 "gemm 40x30x20 f32 f32 -> f32, bf16 bias, accumulated: f32 factors take an f32 bias; use "
                 "GEMM_BIAS_F32");
}

/* ---- the same at the levels below */
static const char *program;
static void run_at_level(const char *level)
{
    isa wanted;
    cpu_facts cpu;
    assert_ok(isa_parse(level, &wanted));
    cpu_detect(&cpu);
    if (wanted >= cpu.level) skip();
    pid_t child;
    int result;
    char *argv[] = {(char *)program, (char *)level, NULL};
    assert_int_equal(posix_spawn(&child, program, NULL, NULL, argv, environ), 0);
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result));
    assert_int_equal(WEXITSTATUS(result), 0);
}
static void test_level_v3(void **state) { (void)state, run_at_level("v3"); }
static void test_level_plain(void **state) { (void)state, run_at_level("plain"); }

static void test_one_level_a_process(void **state)
{
    (void)state;
    const device_facts *about = device_about(dev);
    device *other;
    device_options options = {.isa = about->level == ISA_PLAIN ? "v3" : "plain"};
    status s = device_open(&options, &other);
    assert_non_null(s);
    assert_int_equal(s->code, ERR_USAGE);
    status_drop(s);
    assert_fails(device_open(&(device_options){.isa = "v9"}, &other), ERR_USAGE,
                 "no instruction-set level 'v9'; it must be plain, v3 or v4");
    assert_fails(device_open(&(device_options){.threads = -1}, &other), ERR_USAGE,
                 "-1 threads; it must be 1 to 4096");
}

int main(int argc, char **argv)
{
    program = argv[0];
    status s = device_open(&(device_options){.isa = argc > 1 ? argv[1] : NULL}, &dev);
    if (s) return fprintf(stderr, "%s\n", s->message), 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_form),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_ragged),
        cmocka_unit_test(test_ragged_depth),
        cmocka_unit_test(test_serial),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_special_values),
        cmocka_unit_test(test_cache_and_refusals),
        cmocka_unit_test(test_one_level_a_process),
    };
    const struct CMUnitTest levels[] = {cmocka_unit_test(test_level_v3), cmocka_unit_test(test_level_plain)};
    int bad = cmocka_run_group_tests_name(argc > 1 ? argv[1] : "native", tests, NULL, NULL);
    if (argc < 2) bad += cmocka_run_group_tests_name("lower levels", levels, NULL, NULL);
    device_close(dev);
    return bad != 0;
}
