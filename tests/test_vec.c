/* vec.h against libm in double, at every instruction set of this machine: units in the last place, the edges.
 */
#include "ops/vec.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { BLOCK = 4096, STRIDE = 997 }; // every 997th of the 2^32 bit patterns: all exponents, signs, NaNs

static float cdf_of(float x)
{
    float cdf, pdf;
    vec_normal(x, &cdf, &pdf);
    return cdf;
}
static float pdf_of(float x)
{
    float cdf, pdf;
    vec_normal(x, &cdf, &pdf);
    return pdf;
}
static double sigmoid64(double x) { return 1 / (1 + exp(-x)); }
static double cdf64(double x) { return erfc(-x / sqrt(2)) / 2; }
static double pdf64(double x) { return exp(-x * x / 2) / sqrt(2 * acos(-1)); }

#define PLAIN
#if defined __x86_64__
#define V3 __attribute__((target("avx2,fma,bmi2")))
#define V4 __attribute__((target("avx2,fma,bmi2,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")))
#else
#define V3
#define V4
#endif
#define RUN(level, isa, name)                                                                                \
    isa static void level##_##name(float *restrict y, const float *restrict x)                               \
    {                                                                                                        \
        _Pragma("omp simd") for (int i = 0; i < BLOCK; i++) y[i] = name(x[i]);                               \
    }
#define RUNS(name) RUN(plain, PLAIN, name) RUN(v3, V3, name) RUN(v4, V4, name)
RUNS(vec_exp)
RUNS(vec_exp2)
RUNS(vec_log)
RUNS(vec_sigmoid)
RUNS(vec_tanh)
RUNS(vec_expm1)
RUNS(cdf_of)
RUNS(pdf_of)

#ifdef __OPTIMIZE__
enum { FUSES = true };
#else
enum { FUSES = false }; // nothing is inlined into the functions with a target
#endif

typedef struct function {
    const char *name;
    void (*run[3])(float *restrict, const float *restrict);
    double (*exact)(double);
    double ulp, ulp_fused, square; // bounds; SQUARE x^2 more
} function;
static const function functions[] = {
#define ROW(name)                                                                                            \
#name, { plain_##name, v3_##name, v4_##name }
    {ROW(vec_exp), exp, 1.5, 1.2, 0},   {ROW(vec_exp2), exp2, 1.4, 1.1, 0},
    {ROW(vec_log), log, 0.9, 0.9, 0},   {ROW(vec_sigmoid), sigmoid64, 2.5, 2.5, 0},
    {ROW(vec_tanh), tanh, 1.7, 1.7, 0}, {ROW(vec_expm1), expm1, 5.5, 4.5, 0},
    {ROW(cdf_of), cdf64, 9, 9, 1},      {ROW(pdf_of), pdf64, 3, 3, 1},
};

static bool runs_here(int level)
{
#if defined __x86_64__
    if (level == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (level == 2) return __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return true;
#else
    return level == 0;
#endif
}

/* The error of Y for F(X) in units in the last place; 0 where both are what the head of vec.h promises. */
static double error_of(const function *f, float x, float y)
{
    double exact = f->exact(x);
    if (isnan(exact)) return isnan(y) ? 0 : INFINITY;
    if (fabs(exact) < 0x1p-126) return fabs(y - exact) < 0x1p-126 ? 0 : INFINITY;
    if (isinf((float)exact)) return y == (float)exact || fabsf(y) > 3.402e38f ? 0 : INFINITY;
    return fabs(y - exact) / ldexp(1, ilogb(exact) - 23) / (1 + f->square * (double)x * x);
}

static void within_bounds(void **state)
{
    (void)state;
    static float x[BLOCK], y[BLOCK];
    for (int level = 0; level < 3; level++)
        for (int k = 0; k < COUNT(functions) && runs_here(level); k++) {
            const function *f = &functions[k];
            double worst = 0, at = 0;
            for (u64 bits = 0; bits < 1ull << 32;) {
                for (int i = 0; i < BLOCK; i++, bits += STRIDE) x[i] = vec_from_bits((u32)bits);
                f->run[level](y, x);
                for (int i = 0; i < BLOCK; i++)
                    if (!(error_of(f, x[i], y[i]) <= worst)) worst = error_of(f, x[i], y[i]), at = x[i];
            }
            if (!(worst <= (level && FUSES ? f->ulp_fused : f->ulp)))
                fail_msg("%s, level %d: %g units in the last place at %.9g", f->name, level, worst, at);
        }
}

static void at_the_edges(void **state)
{
    (void)state;
    assert_true(vec_exp(0) == 1 && vec_exp2(0) == 1 && vec_exp2(5) == 32 && vec_exp2(-126) == 0x1p-126f);
    assert_true(vec_exp(-INFINITY) == 0 && vec_exp(-1e30f) == 0 && vec_exp(INFINITY) == INFINITY);
    assert_true(vec_exp2(-INFINITY) == 0 && vec_exp2(128) == INFINITY && vec_exp(1e30f) == INFINITY);
    assert_true(vec_sigmoid(0) == 0.5f && vec_sigmoid(-INFINITY) == 0 && vec_sigmoid(INFINITY) == 1);
    assert_true(vec_tanh(0) == 0 && vec_tanh(-INFINITY) == -1 && vec_tanh(INFINITY) == 1);
    assert_true(vec_log(1) == 0 && vec_log(0) == -INFINITY && vec_log(INFINITY) == INFINITY);
    assert_true(isnan(vec_log(-1)) && isnan(vec_exp(NAN)) && isnan(vec_exp2(NAN)) && isnan(vec_tanh(NAN)));
    assert_true(isnan(vec_sigmoid(NAN)) && isnan(vec_expm1(NAN)) && isnan(cdf_of(NAN)) &&
                isnan(vec_log(NAN)));
    assert_true(vec_expm1(-INFINITY) == -1 && vec_expm1(0) == 0);
    assert_true(cdf_of(-INFINITY) == 0 && cdf_of(INFINITY) == 1 && pdf_of(-1e30f) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(within_bounds), cmocka_unit_test(at_the_edges)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
