/* attention_bench: GFLOP/s of attention's kernels and their share of the machine's GEMM peak, measured in
 * between.
 *
 *     cmake -B build -DKEEL_BENCH=ON && ninja -C build attention_bench && build/attention_bench [ROUNDS
 * [LEVEL]]
 *
 * Counted: the causal half, T (T + 1) / 2 pairs of query and key, 4 flops per pair and width forward, 10
 * backward. Each figure is the median over the rounds of work / mean of the probes before and after it;
 * rounds whose probe is below 60 % of the best are dropped (the machine was busy elsewhere). Buffers rotate
 * over four layers. */
#include "ops/attention.h"
#include "device/peak.h"
#include "base/random.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PROTOTYPES(isa)                                                                                      \
    i64 attention_scratch_##isa(const attention_args *a, bool backward);                                     \
    void attention_forward_##isa(const attention_args *a);                                                   \
    void attention_backward_##isa(const attention_args *a);
PROTOTYPES(plain) PROTOTYPES(v3) PROTOTYPES(v4) typedef struct kernels {
    i64 (*scratch)(const attention_args *a, bool backward);
    void (*forward)(const attention_args *a);
    void (*backward)(const attention_args *a);
} kernels;
static const kernels tables[] = {{attention_scratch_plain, attention_forward_plain, attention_backward_plain},
                                 {attention_scratch_v3, attention_forward_v3, attention_backward_v3},
                                 {attention_scratch_v4, attention_forward_v4, attention_backward_v4}};
enum { LAYERS = 4, MOST_ROUNDS = 101 };

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(double *x, int n) { return qsort(x, (size_t)n, sizeof *x, ascending), n ? x[n / 2] : 0; }

static void put(void *p, dtype type, i64 i, float x)
{
    if (type == DT_F32)
        ((float *)p)[i] = x;
    else
        ((bf16 *)p)[i] = f32_to_bf16(x);
}
static status random_buffer(dtype type, i64 count, u64 stream, void *out)
{
    char **p = out;
    TRY(mem_alloc((size_t)(count * dtype_bytes(type)), "bench buffer", out));
    for (i64 i = 0; i < count; i++) put(*p, type, i, (float)random_normal(1, stream, 0, (u64)i));
    return OK;
}
static status set_up(attention_args *a, u64 layer)
{
    i64 q = a->heads * a->width, k = a->kv_heads * a->width, row = q + 2 * k, rows = a->batch * a->tokens;
    i64 size = dtype_bytes(a->type);
    char *qkv, *d_qkv;
    TRY(random_buffer(a->type, rows * row, 10 * layer, &qkv));
    TRY(random_buffer(a->type, rows * row, 10 * layer + 1, &d_qkv));
    TRY(random_buffer(a->type, rows * q, 10 * layer + 2, &a->o));
    TRY(random_buffer(a->type, rows * q, 10 * layer + 3, &a->d_o));
    TRY(random_buffer(DT_F32, rows * a->heads, 10 * layer + 4, &a->lse));
    a->q = qkv, a->k = qkv + q * size, a->v = qkv + (q + k) * size;
    a->d_q = d_qkv, a->d_k = d_qkv + q * size, a->d_v = d_qkv + (q + k) * size;
    a->q_stride = a->k_stride = a->v_stride = a->d_q_stride = a->d_k_stride = a->d_v_stride = row;
    a->o_stride = a->d_o_stride = q;
    return OK;
}
static void release(attention_args *a)
{
    mem_free((void *)a->q), mem_free(a->d_q), mem_free(a->o), mem_free((void *)a->d_o), mem_free(a->lse);
}

/* Seconds of one call over all layers. */
static double timed(void (*run)(const attention_args *), const attention_args *a)
{
    double start = seconds();
    i64 calls = 0;
    do
        for (int i = 0; i < LAYERS; i++, calls++) run(&a[i]);
    while (seconds() - start < 10e-3);
    return (seconds() - start) / (double)calls;
}

static status measure(device *d, attention_args shape, int rounds)
{
    const kernels *k = &tables[device_about(d)->level];
    attention_args a[LAYERS];
    peak_probe *probe;
    void *scratch;
    shape.threads = (int)device_about(d)->threads;
    shape.scale = 0.125f;
    i64 share = MAX(k->scratch(&shape, false), k->scratch(&shape, true));
    TRY(mem_alloc((size_t)share, "scratch", &scratch));
    TRY(peak_probe_open(d, shape.type == DT_BF16 ? GEMM_BF16 : GEMM_F32, &probe));
    for (int i = 0; i < LAYERS; i++) {
        a[i] = shape;
        a[i].scratch = scratch;
        TRY(set_up(&a[i], (u64)i));
        k->forward(&a[i]), k->backward(&a[i]);
    }
    double pairs = (double)shape.tokens * (double)(shape.tokens + 1) / 2;
    double unit = 1e-9 * (double)(shape.batch * shape.heads * shape.width) * pairs;
    double speed[2][MOST_ROUNDS], peak[2][MOST_ROUNDS], best = 0;
    for (int r = 0; r < rounds; r++)
        for (int pass = 0; pass < 2; pass++) {
            double before = peak_probe_time(probe);
            speed[pass][r] = (pass ? 10 : 4) * unit / timed(pass ? k->backward : k->forward, a);
            peak[pass][r] = (before + peak_probe_time(probe)) / 2;
            best = MAX(best, peak[pass][r]);
        }
    for (int pass = 0; pass < 2; pass++) {
        double ratio[MOST_ROUNDS], gflops[MOST_ROUNDS];
        int n = 0;
        for (int r = 0; r < rounds; r++)
            if (peak[pass][r] > 0.6 * best) {
                gflops[n] = speed[pass][r];
                ratio[n++] = speed[pass][r] / peak[pass][r];
            }
        printf("%s B %lld T %lld H %lld/%lld width %lld %s: %.0f GFLOP/s, %.1f %% of peak (best peak %.0f)\n",
               dtype_name(shape.type), (long long)shape.batch, (long long)shape.tokens,
               (long long)shape.heads, (long long)shape.kv_heads, (long long)shape.width,
               pass ? "backward" : "forward ", median(gflops, n), 100 * median(ratio, n), best);
    }
    for (int i = 0; i < LAYERS; i++) release(&a[i]);
    peak_probe_close(probe);
    mem_free(scratch);
    return OK;
}

/* Seconds to read the cache plainly: every line of both buffers by all threads. */
static double read_seconds(const void *k, const void *v, i64 bytes)
{
    const u64 *p[2] = {k, v};
    u64 sum = 0;
    double start = seconds();
#pragma omp parallel for reduction(+ : sum)
    for (i64 i = 0; i < bytes / 4; i += 8) {
        const u64 *x = p[i >= bytes / 8] + i % (bytes / 8);
        for (i64 j = 0; j < 8; j++) sum += x[j];
    }
    double end = seconds();
    return end - start + (sum == 1 ? 1e-9 : 0); // the sum is used
}
/* One new token a row against a full cache: GB/s of keys and values read, and the share of plain reading's.
 */
static status measure_decode(device *d, attention_args a)
{
    const kernels *k = &tables[device_about(d)->level];
    i64 row = a.kv_heads * a.width, entries = a.batch * a.capacity * row;
    i32 *past;
    char *new_rows;
    void *k_cache, *v_cache, *scratch;
    a.threads = (int)device_about(d)->threads;
    a.scale = 0.125f;
    size_t bytes = (size_t)(entries * dtype_bytes(a.type));
    TRY(region_open(bytes, "keys", &k_cache));
    TRY(region_open(bytes, "values", &v_cache));
    for (i64 i = 0; i < entries; i += 64) // small integers as either type: no subnormals, no infinities
        put(k_cache, a.type, i, (float)(i / 64 % 13 - 6)), put(v_cache, a.type, i, (float)(i / 64 % 7 - 3));
    TRY(random_buffer(a.type, a.batch * (a.heads + 2 * a.kv_heads) * a.width, 3, &new_rows));
    TRY(random_buffer(a.type, a.batch * a.heads * a.width, 4, &a.o));
    TRY(random_buffer(DT_F32, a.batch * a.heads, 5, &a.lse));
    TRY(mem_alloc((size_t)a.batch * sizeof *past, "past", &past));
    for (i64 b = 0; b < a.batch; b++) past[b] = (i32)a.capacity;
    a.k_cache = k_cache, a.v_cache = v_cache, a.past = past;
    TRY(mem_alloc((size_t)k->scratch(&a, false), "scratch", &scratch));
    a.scratch = scratch;
    a.q = new_rows, a.k = new_rows + a.heads * a.width * dtype_bytes(a.type), a.v = a.k;
    a.q_stride = a.k_stride = a.v_stride = (a.heads + 2 * a.kv_heads) * a.width;
    a.o_stride = a.heads * a.width;
    enum { ROUNDS = 21 };
    double gbs[ROUNDS], ratio[ROUNDS];
    for (int r = 0; r < ROUNDS; r++) {
        double plain = read_seconds(k_cache, v_cache, (i64)bytes), start = seconds();
        k->forward(&a);
        double taken = seconds() - start;
        gbs[r] = 2e-9 * (double)bytes / taken;
        ratio[r] = (plain + read_seconds(k_cache, v_cache, (i64)bytes)) / 2 / taken;
    }
    printf("%s decode B %lld cache %lld H %lld/%lld width %lld: %.1f GB/s, %.0f %% of plain reading\n",
           dtype_name(a.type), (long long)a.batch, (long long)a.capacity, (long long)a.heads,
           (long long)a.kv_heads, (long long)a.width, median(gbs, ROUNDS), 100 * median(ratio, ROUNDS));
    region_close(k_cache, bytes), region_close(v_cache, bytes);
    mem_free(new_rows), mem_free(a.o), mem_free(a.lse), mem_free(past);
    mem_free(scratch);
    return OK;
}

static status run(int rounds, const char *level)
{
    static const attention_args shapes[] = {
        {.batch = 2, .tokens = 1024, .heads = 12, .kv_heads = 12, .width = 64, .type = DT_BF16},
        {.batch = 32, .tokens = 256, .heads = 4, .kv_heads = 2, .width = 64, .type = DT_BF16},
        {.batch = 4, .tokens = 512, .heads = 8, .kv_heads = 2, .width = 32, .type = DT_BF16},
        {.batch = 2, .tokens = 1024, .heads = 8, .kv_heads = 8, .width = 96, .type = DT_BF16},
        {.batch = 1, .tokens = 2048, .heads = 8, .kv_heads = 2, .width = 128, .type = DT_BF16},
        {.batch = 2, .tokens = 1024, .heads = 12, .kv_heads = 12, .width = 64, .type = DT_F32},
        {.batch = 32, .tokens = 256, .heads = 4, .kv_heads = 2, .width = 64, .type = DT_F32},
    };
    static const attention_args caches[] = {
        {.batch = 1,
         .tokens = 1,
         .heads = 12,
         .kv_heads = 12,
         .width = 64,
         .capacity = 32768,
         .type = DT_BF16},
        {.batch = 8, .tokens = 1, .heads = 32, .kv_heads = 8, .width = 64, .capacity = 8192, .type = DT_BF16},
        {.batch = 1,
         .tokens = 1,
         .heads = 12,
         .kv_heads = 12,
         .width = 64,
         .capacity = 32768,
         .type = DT_F32},
    };
    device *d;
    TRY(device_open(&(device_options){.isa = level}, &d));
    for (i64 i = 0; i < COUNT(shapes); i++) TRY(measure(d, shapes[i], rounds));
    for (i64 i = 0; i < COUNT(caches); i++) TRY(measure_decode(d, caches[i]));
    device_close(d);
    return OK;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 15;
    status s = run(MAX(1, MIN(rounds, MOST_ROUNDS)), argc > 2 ? argv[2] : NULL);
    if (s) fprintf(stderr, "attention_bench: %s\n", s->message);
    return s != OK;
}
