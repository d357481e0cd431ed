/* peak: timing oneDNN's GEMM and plain memory traffic. Best of several passes, because disturbance only
 * slows. */
#define _GNU_SOURCE
#include "device/peak.h"
#include "base/random.h"
#include <omp.h>
#include <string.h>
#include <time.h>

static const peak_shape probe_shape = {2048, 3072, 768};
static const double PROBE_SECONDS = 8e-3, SHAPE_SECONDS = 0.25;
static const i64 STREAM_BYTES = (i64)256 << 20; // each of two buffers: beyond the largest L3 in use
enum { STREAM_PASSES = 12 };

struct peak_probe {
    const gemm_plan *plan;
    gemm_spec spec;
    void *region, *a, *b, *c, *scratch;
    size_t bytes;
};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Values in [-1, 1): zeros and constants draw less power, and flatter the clock. */
static void fill(void *p, gemm_type type, i64 n, u64 stream)
{
#pragma omp parallel for schedule(static)
    for (i64 i = 0; i < n; i++) {
        float x = (float)(2 * random_uniform(1, stream, 0, (u64)i) - 1);
        u32 bits;
        memcpy(&bits, &x, sizeof bits);
        if (type == GEMM_BF16)
            ((u16 *)p)[i] = (u16)(bits >> 16);
        else
            ((float *)p)[i] = x;
    }
}

static status open_shape(device *d, gemm_type type, peak_shape s, peak_probe **out)
{
    peak_probe *p;
    i64 size = type == GEMM_BF16 ? 2 : 4, parts[4], at[4], bytes = 0;
    gemm_spec spec = {.m = s.m, .n = s.n, .k = s.k, .ab = type, .c = type, .b_trans = true};
    const gemm_plan *plan;
    TRY(gemm_plan_get(d, &spec, &plan));
    TRY(mul_i64(s.m, s.k, &parts[0]));
    TRY(mul_i64(s.n, s.k, &parts[1]));
    TRY(mul_i64(s.m, s.n, &parts[2]));
    for (int i = 0; i < 3; i++) TRY(mul_i64(parts[i], size, &parts[i]));
    parts[3] = gemm_scratch_bytes(plan);
    for (int i = 0; i < 4; i++) {
        at[i] = bytes;
        TRY(add_i64(bytes, round_up(parts[i], 4096), &bytes));
    }
    TRY(mem_alloc(sizeof *p, "peak probe", &p));
    *p = (peak_probe){.plan = plan, .spec = spec, .bytes = (size_t)bytes};
    status e = region_open(p->bytes, "peak probe", &p->region);
    if (e) return mem_free(p), e;
    p->a = p->region;
    p->b = (char *)p->region + at[1];
    p->c = (char *)p->region + at[2];
    p->scratch = (char *)p->region + at[3];
    fill(p->a, type, s.m * s.k, 1);
    fill(p->b, type, s.n * s.k, 2);
    *out = p;
    return OK;
}

/* GFLOP/s of the products that fit into AT_LEAST seconds (one at least); with BEST the fastest of them. */
static double time_products(peak_probe *p, double at_least, bool best)
{
    double start = seconds(), now = start, least = 0;
    i64 n = 0;
    do {
        double t = now;
        gemm_run(p->plan, p->a, p->b, p->c, NULL, p->scratch);
        now = seconds();
        if (!n++ || now - t < least) least = now - t;
    } while (now - start < at_least);
    double took = best ? least : (now - start) / (double)n;
    return gemm_flops(&p->spec) / took * 1e-9;
}

status peak_probe_open(device *d, gemm_type type, peak_probe **out)
{
    TRY(open_shape(d, type, probe_shape, out));
    time_products(*out, 0, false); // touches the pages
    return OK;
}

double peak_probe_time(peak_probe *p) { return time_products(p, PROBE_SECONDS, false); }

void peak_probe_close(peak_probe *p)
{
    if (!p) return;
    region_close(p->region, p->bytes);
    mem_free(p);
}

status peak_probe_best(device *d, gemm_type type, const peak_shape *shapes, i64 n, peak_probe **out,
                       double *gflops)
{
    const peak_shape own[] = {{2048, 2048, 2048}, {4096, 4096, 4096}, probe_shape};
    peak_probe *best = NULL;
    *gflops = 0;
    for (i64 i = 0; i < COUNT(own) + n; i++) {
        peak_probe *p;
        status s = open_shape(d, type, i < COUNT(own) ? own[i] : shapes[i - COUNT(own)], &p);
        if (s) {
            peak_probe_close(best);
            return s;
        }
        time_products(p, 0, false);
        double g = time_products(p, SHAPE_SECONDS, true);
        peak_probe *slower = g > *gflops ? best : p;
        if (g > *gflops) best = p, *gflops = g;
        peak_probe_close(slower);
    }
    *out = best;
    return OK;
}

static status gemm_peak(device *d, gemm_type type, const peak_shape *shapes, i64 n, double *out)
{
    peak_probe *p;
    TRY(peak_probe_best(d, type, shapes, n, &p, out));
    peak_probe_close(p);
    return OK;
}

/* The part of BYTES that thread I of N handles: whole pages, so that no two touch one. */
static void share(i64 bytes, i64 i, i64 n, i64 *start, i64 *count)
{
    i64 step = round_up(bytes / n, 4096);
    *start = MIN(bytes, i * step);
    *count = MIN(bytes, *start + step) - *start;
}

static void copy_all(char *to, const char *from, i64 bytes)
{
#pragma omp parallel
    {
        i64 start, n;
        share(bytes, omp_get_thread_num(), omp_get_num_threads(), &start, &n);
        memcpy(to + start, from + start, (size_t)n);
    }
}

static u64 read_all(const char *from, i64 bytes)
{
    u64 sum = 0;
#pragma omp parallel reduction(+ : sum)
    {
        i64 start, n;
        share(bytes, omp_get_thread_num(), omp_get_num_threads(), &start, &n);
        const u64 *x = (const u64 *)(from + start);
        u64 s = 0;
#pragma omp simd reduction(+ : s)
        for (i64 i = 0; i < n / 8; i++) s += x[i];
        sum += s;
    }
    return sum;
}

static status stream_peaks(peak_figures *out)
{
    void *a, *b;
    size_t bytes = (size_t)STREAM_BYTES;
    TRY(region_open(bytes, "bandwidth measurement", &a));
    status e = region_open(bytes, "bandwidth measurement", &b);
    if (e) return region_close(a, bytes), e;
    copy_all(a, b, STREAM_BYTES); // touches the pages of both
    memset(b, 1, bytes);          // an untouched buffer would be one shared page of zeros
    volatile u64 keep = 0;
    for (int i = 0; i < STREAM_PASSES; i++) {
        double t0 = seconds();
        copy_all(a, b, STREAM_BYTES);
        double t1 = seconds();
        keep = keep + read_all(a, STREAM_BYTES);
        double t2 = seconds();
        out->copy_gbs = MAX(out->copy_gbs, 2e-9 * (double)STREAM_BYTES / (t1 - t0));
        out->read_gbs = MAX(out->read_gbs, 1e-9 * (double)STREAM_BYTES / (t2 - t1));
    }
    region_close(a, bytes);
    region_close(b, bytes);
    return OK;
}

status peak_measure(device *d, const peak_shape *shapes, i64 n, peak_figures *out)
{
    *out = (peak_figures){0};
    TRY(gemm_peak(d, GEMM_F32, shapes, n, &out->gemm_f32_gflops));
    TRY(gemm_peak(d, GEMM_BF16, shapes, n, &out->gemm_bf16_gflops));
    return stream_peaks(out);
}
