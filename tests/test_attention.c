/* attention's kernels against a plain double version: every mask, shape, storage and instruction set. The
 * double gradient itself is held to central differences. See ops/attention.h for the definition. */
#include "ops/attention.h"
#include "base/random.h"
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

/* ---- the instruction sets this machine can run */
#define LEVELS(X) X(plain, true) X(v3, __builtin_cpu_supports("x86-64-v3")) X(v4, has_v4())
#ifndef __x86_64__
#undef LEVELS
#define LEVELS(X) X(plain, true)
#else
static bool has_v4(void)
{
    return __builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512bf16");
}
#endif
#define PROTOTYPES(isa, ok)                                                                                  \
    i64 attention_scratch_##isa(const attention_args *a, bool backward);                                     \
    void attention_forward_##isa(const attention_args *a);                                                   \
    void attention_backward_##isa(const attention_args *a);
LEVELS(PROTOTYPES)
typedef struct level {
    const char *name;
    i64 (*scratch)(const attention_args *a, bool backward);
    void (*forward)(const attention_args *a);
    void (*backward)(const attention_args *a);
    bool runs;
} level;
#define ROW(isa, ok) {#isa, attention_scratch_##isa, attention_forward_##isa, attention_backward_##isa, ok},
static const level *levels(void)
{
    static level table[4];
    const level here[] = {LEVELS(ROW){0}};
    memcpy(table, here, sizeof here);
    return table;
}

/* ---- a problem: shapes and masks, in double */
typedef struct problem {
    i64 B, T, H, G, n; // G: key heads
    i64 window, capacity;
    i64 K, W, C; // copies of every token (0: 1), how far they see each other
    i64 ring;    // tokens whose copies it holds
    i32 *start, *past;
    double scale;
    double *q, *k, *v, *k_cache, *v_cache, *d_o; // [B, K T, heads, n], [B, capacity, G, n]
    double *k_ring, *v_ring;                     // [B, ring (K - 1), G, n]
    double *o, *lse, *d_q, *d_k, *d_v;
    double largest; // score
    arena *arena;
} problem;

static double *random_values(arena *a, i64 count, u64 stream, double size, dtype type)
{
    double *x = arena_array(a, double, count);
    for (i64 i = 0; i < count; i++) {
        float y = (float)(size * random_normal(7, stream, 0, (u64)i));
        x[i] = type == DT_BF16 ? (double)bf16_to_f32(f32_to_bf16(y)) : (double)y;
    }
    return x;
}
static i64 copies(const problem *p) { return p->K > 1 ? p->K : 1; }
static i64 sequence(const problem *p) { return p->T * copies(p); }
static void fill(problem *p, double size, dtype type)
{
    i64 queries = p->B * sequence(p) * p->H * p->n, keys = p->B * sequence(p) * p->G * p->n;
    if (!p->scale) p->scale = 1 / sqrt((double)p->n);
    assert_null(arena_open(&p->arena));
    p->q = random_values(p->arena, queries, 1, size, type);
    p->k = random_values(p->arena, keys, 2, size, type);
    p->v = random_values(p->arena, keys, 3, 1, type);
    p->d_o = random_values(p->arena, queries, 4, 1, type);
    p->o = arena_array(p->arena, double, queries);
    p->lse = arena_array(p->arena, double, p->B * p->H * sequence(p));
    p->d_q = arena_array(p->arena, double, queries);
    p->d_k = arena_array(p->arena, double, keys);
    p->d_v = arena_array(p->arena, double, keys);
    if (!p->capacity) return;
    p->k_cache = random_values(p->arena, p->B * p->capacity * p->G * p->n, 5, size, type);
    p->v_cache = random_values(p->arena, p->B * p->capacity * p->G * p->n, 6, 1, type);
    i64 ring = p->B * p->ring * (copies(p) - 1) * p->G * p->n;
    p->k_ring = random_values(p->arena, ring, 8, size, type);
    p->v_ring = random_values(p->arena, ring, 9, 1, type);
}
/* Keys are numbered by token and copy: position s, copy c from 0 is s K + c. Row R of a sequence that way: */
static i64 number_of(const problem *p, i64 past, i64 r)
{
    i64 k = copies(p);
    return r < p->T ? (past + r) * k : (past + (r - p->T) / (k - 1)) * k + 1 + (r - p->T) % (k - 1);
}
static bool visible(const problem *p, i64 b, i64 r, i64 key)
{
    i64 past = p->past ? p->past[b] : 0, k = copies(p), row = number_of(p, past, r);
    i64 at = row / k, copy = row % k, s = key / k, other = key % k;
    i64 start = p->start ? p->start[b * p->T + at - past] : 0;
    if (s > at || s < start || (p->window > 0 && s <= at - p->window)) return false;
    if (other == 0) return true;
    if (copy == 0) return false;
    if (s == at) return other <= copy;
    return at - s < p->W && (!p->C || (s - start) / p->C == (at - start) / p->C);
}
typedef struct source { // of keys or values
    double *fresh, *cache, *ring;
} source;
static i64 row_of(const problem *p, i64 past, i64 key)
{
    i64 k = copies(p), t = key / k - past, c = key % k;
    return c ? p->T + t * (k - 1) + c - 1 : t;
}
static double *key(const problem *p, source from, i64 b, i64 g, i64 key)
{
    i64 past = p->past ? p->past[b] : 0, k = copies(p), s = key / k, c = key % k;
    if (s >= past) return from.fresh + ((b * sequence(p) + row_of(p, past, key)) * p->G + g) * p->n;
    if (!c) return from.cache + ((b * p->capacity + s) * p->G + g) * p->n;
    return from.ring + ((b * p->ring * (k - 1) + s % p->ring * (k - 1) + c - 1) * p->G + g) * p->n;
}
static double product_of(const double *x, const double *y, i64 n)
{
    double sum = 0;
    for (i64 j = 0; j < n; j++) sum += x[j] * y[j];
    return sum;
}
/* The definition, row by row; lse in base 2. The gradient too when there is no cache. */
static void definition(problem *p)
{
    i64 n = p->n, most = (p->capacity + p->T) * copies(p), R = sequence(p);
    const source keys = {p->k, p->k_cache, p->k_ring}, values = {p->v, p->v_cache, p->v_ring};
    double *w = arena_array(p->arena, double, most);
    memset(p->d_q, 0, sizeof(double) * (size_t)(p->B * R * p->H * n));
    memset(p->d_k, 0, sizeof(double) * (size_t)(p->B * R * p->G * n));
    memset(p->d_v, 0, sizeof(double) * (size_t)(p->B * R * p->G * n));
    for (i64 i = 0; i < p->B * R * p->H; i++) {
        i64 h = i % p->H, t = i / p->H % R, b = i / p->H / R, g = h / (p->H / p->G);
        i64 past = p->past ? p->past[b] : 0, end = (past + p->T) * copies(p);
        double max = -INFINITY, sum = 0, delta, *q = p->q + i * n, *o = p->o + i * n, *d_o = p->d_o + i * n;
        for (i64 s = 0; s < end; s++)
            if (visible(p, b, t, s))
                max = fmax(max, w[s] = p->scale * product_of(q, key(p, keys, b, g, s), n));
        for (i64 s = 0; s < end; s++) {
            p->largest = visible(p, b, t, s) ? fmax(p->largest, fabs(w[s])) : p->largest;
            sum += w[s] = visible(p, b, t, s) ? exp(w[s] - max) : 0;
        }
        p->lse[(b * p->H + h) * R + t] = (max + log(sum)) / M_LN2;
        memset(o, 0, sizeof(double) * (size_t)n);
        for (i64 s = 0; s < end; s++) {
            if (!visible(p, b, t, s)) continue;
            const double *v = key(p, values, b, g, s);
            w[s] /= sum;
            for (i64 j = 0; j < n; j++) o[j] += w[s] * v[j];
        }
        delta = product_of(o, d_o, n);
        for (i64 s = 0; s < end && !p->past; s++) {
            if (!visible(p, b, t, s)) continue;
            i64 at = ((b * R + row_of(p, 0, s)) * p->G + g) * n;
            double ds = p->scale * w[s] * (product_of(d_o, p->v + at, n) - delta);
            for (i64 j = 0; j < n; j++) {
                p->d_v[at + j] += w[s] * d_o[j];
                p->d_k[at + j] += ds * q[j];
                p->d_q[i * n + j] += ds * p->k[at + j];
            }
        }
    }
}

/* ---- the kernel's side: q, k, v as columns of one buffer, gradients likewise, poison between the columns */
typedef struct stored {
    attention_args a;
    i64 row; // of the fused buffers, elements
    char *qkv, *d_qkv, *o;
} stored;

static void put(void *p, dtype type, i64 i, double x)
{
    if (type == DT_F32)
        ((float *)p)[i] = (float)x;
    else
        ((bf16 *)p)[i] = f32_to_bf16((float)x);
}
static double get(const void *p, dtype type, i64 i)
{
    return type == DT_F32 ? (double)((const float *)p)[i] : (double)bf16_to_f32(((const bf16 *)p)[i]);
}
static void *stored_array(const problem *p, const double *x, i64 count, dtype type)
{
    char *to = arena_alloc(p->arena, (size_t)(count * dtype_bytes(type)));
    for (i64 i = 0; i < count && x; i++) put(to, type, i, x[i]);
    return to;
}
static void put_columns(void *to, dtype type, i64 row, i64 column, const double *x, i64 rows, i64 n)
{
    for (i64 i = 0; i < rows * n; i++) put(to, type, i / n * row + column + i % n, x[i]);
}
static stored store(const problem *p, dtype type, const level *l, int threads)
{
    i64 q = p->H * p->n, k = p->G * p->n, rows = p->B * sequence(p);
    stored s = {.row = q + 2 * k + 3}; // 3: rows need no alignment
    s.qkv = stored_array(p, NULL, rows * s.row, type);
    s.d_qkv = stored_array(p, NULL, rows * s.row, type);
    for (i64 i = 0; i < rows * s.row; i++) put(s.qkv, type, i, NAN), put(s.d_qkv, type, i, 77);
    put_columns(s.qkv, type, s.row, 0, p->q, rows, q);
    put_columns(s.qkv, type, s.row, q, p->k, rows, k);
    put_columns(s.qkv, type, s.row, q + k, p->v, rows, k);
    i64 size = dtype_bytes(type);
    s.a = (attention_args){.batch = p->B,
                           .tokens = p->T,
                           .heads = p->H,
                           .kv_heads = p->G,
                           .width = p->n,
                           .type = type,
                           .q = s.qkv,
                           .k = s.qkv + q * size,
                           .v = s.qkv + (q + k) * size,
                           .q_stride = s.row,
                           .k_stride = s.row,
                           .v_stride = s.row,
                           .start = p->start,
                           .window = p->window,
                           .scale = (float)p->scale,
                           .capacity = p->capacity,
                           .past = p->past,
                           .copies = p->K,
                           .copy_window = p->W,
                           .chunk = p->C,
                           .ring = p->ring,
                           .o = stored_array(p, NULL, rows * q, type),
                           .o_stride = q,
                           .lse = arena_array(p->arena, float, rows * p->H),
                           .threads = threads,
                           .d_o = stored_array(p, p->d_o, rows * q, type),
                           .d_o_stride = q,
                           .d_q = s.d_qkv,
                           .d_k = s.d_qkv + q * size,
                           .d_v = s.d_qkv + (q + k) * size,
                           .d_q_stride = s.row,
                           .d_k_stride = s.row,
                           .d_v_stride = s.row};
    if (p->capacity) {
        s.a.k_cache = stored_array(p, p->k_cache, p->B * p->capacity * k, type);
        s.a.v_cache = stored_array(p, p->v_cache, p->B * p->capacity * k, type);
        s.a.k_ring = stored_array(p, p->k_ring, p->B * p->ring * (copies(p) - 1) * k, type);
        s.a.v_ring = stored_array(p, p->v_ring, p->B * p->ring * (copies(p) - 1) * k, type);
    }
    i64 forward = l->scratch(&s.a, false), backward = p->capacity ? 0 : l->scratch(&s.a, true);
    i64 bytes = MAX(forward, backward);
    void *memory;
    assert_null(mem_alloc((size_t)bytes, "scratch", &memory));
    memset(memory, 0xFF, (size_t)bytes); // NaN: whatever is read before it is written shows
    s.a.scratch = memory;
    return s;
}
static void discard(stored *s) { mem_free(s->a.scratch); }

/* Largest difference over the largest value, or over 1, the size of the inputs (dq of a lone token is 0). */
static double worst(const double *want, const void *got, dtype type, i64 row, i64 column, i64 rows, i64 n)
{
    double error = 0, size = 1;
    for (i64 i = 0; i < rows * n; i++) {
        double x = get(got, type, i / n * row + column + i % n);
        error = fmax(error, isnan(x) ? INFINITY : fabs(x - want[i]));
        size = fmax(size, fabs(want[i]));
    }
    return error / size;
}

/* f32: the relative error of exp is the absolute one of its argument, an ulp (2^-23) or two of the largest
 * score; the sums add some roundings of 6e-8. bf16: o, p and ds are rounded to 8 bits (2^-9 = 2e-3); a
 * handful of such roundings meet in a value. lse: the exponentials are good to 3e-6. */
static void compare(const char *label, problem *p, dtype type, const level *l, int threads)
{
    stored s = store(p, type, l, threads);
    i64 rows = p->B * sequence(p), q = p->H * p->n, k = p->G * p->n;
    double limit = type == DT_F32 ? 2e-6 + p->largest * 0x1p-22 : 1e-2;
    l->forward(&s.a);
    double e[5] = {worst(p->o, s.a.o, type, q, 0, rows, q),
                   worst(p->lse, s.a.lse, DT_F32, 1, 0, rows * p->H, 1)};
    if (!p->capacity) {
        l->backward(&s.a);
        e[2] = worst(p->d_q, s.d_qkv, type, s.row, 0, rows, q);
        e[3] = worst(p->d_k, s.d_qkv, type, s.row, q, rows, k);
        e[4] = worst(p->d_v, s.d_qkv, type, s.row, q + k, rows, k);
        for (i64 i = 0; i < rows * 3; i++)
            assert_true(get(s.d_qkv, type, i / 3 * s.row + q + 2 * k + i % 3) == 77);
    }
    const char *names[] = {"o", "lse", "dq", "dk", "dv"};
    for (int i = 0; i < 5; i++)
        if (!(e[i] <= (i == 1 ? 5e-6 : limit)))
            fail_msg("%s, %s, %s, B %lld T %lld H %lld/%lld width %lld: %s is off by %.2g of the largest",
                     label, dtype_name(type), l->name, (long long)p->B, (long long)p->T, (long long)p->H,
                     (long long)p->G, (long long)p->n, names[i], e[i]);
    discard(&s);
}
static void compare_all(const char *label, problem p, double size)
{
    for (dtype type = DT_F32; type <= DT_BF16; type++) {
        fill(&p, size, type);
        definition(&p);
        for (const level *l = levels(); l->name; l++)
            if (l->runs) compare(label, &p, type, l, 2);
        arena_close(p.arena);
    }
}

/* ---- tests */
static void test_shapes(void **state)
{
    (void)state;
    const i64 lengths[] = {1, 7, 64, 65, 130, 257}, widths[] = {8, 32, 64, 80, 128},
              heads[][2] = {{2, 2}, {4, 2}, {4, 1}};
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 5; j++)
            for (int k = 0; k < 3; k++)
                compare_all("shapes",
                            (problem){.B = 1 + i % 2,
                                      .T = lengths[i],
                                      .H = heads[k][0] / (i > 3 ? 1 + (k == 0) : 1),
                                      .G = heads[k][1] / (i > 3 ? 1 + (k == 0) : 1),
                                      .n = widths[j]},
                            1);
    compare_all("odd width", (problem){.B = 1, .T = 70, .H = 2, .G = 1, .n = 7}, 1);
    compare_all("odd width", (problem){.B = 1, .T = 70, .H = 2, .G = 1, .n = 33}, 1);
    compare_all("width 1", (problem){.B = 1, .T = 9, .H = 1, .G = 1, .n = 1}, 1);
    compare_all("wide", (problem){.B = 1, .T = 66, .H = 1, .G = 1, .n = 200}, 1);
    compare_all("long", (problem){.B = 1, .T = 700, .H = 1, .G = 1, .n = 32}, 1);
}

static void test_windows(void **state)
{
    (void)state;
    const i64 windows[] = {1, 2, 63, 64, 65, 100, 256, 400, 1000};
    for (int i = 0; i < COUNT(windows); i++)
        compare_all("window", (problem){.B = 1, .T = 391, .H = 2, .G = 1, .n = 16, .window = windows[i]}, 1);
}

/* Documents whose lengths cycle through LENGTHS (ended by 0). */
static i32 *documents(i64 B, i64 T, const i64 *lengths)
{
    i32 *start = NULL;
    assert_null(mem_alloc((size_t)(B * T) * sizeof *start, "documents", &start));
    i64 i = 0, begin = 0;
    for (i64 t = 0; t < B * T; t++) {
        if (t % T == 0) begin = 0;
        if (t % T - begin == lengths[i]) {
            begin = t % T;
            i = lengths[i + 1] ? i + 1 : 0;
        }
        start[t] = (i32)begin;
    }
    return start;
}
static void test_documents(void **state)
{
    (void)state;
    const i64 lengths[][5] = {{1}, {5, 1, 90}, {64}, {100, 33, 200}, {300, 50}, {1000}};
    for (int i = 0; i < COUNT(lengths); i++)
        for (int j = 0; j < 2; j++) {
            problem p = {.B = 2, .T = 333, .H = 2, .G = 1, .n = 24, .window = j ? 70 : 0};
            p.start = documents(p.B, p.T, lengths[i]);
            compare_all("documents", p, 1);
            mem_free(p.start);
        }
}

static void test_cache(void **state)
{
    (void)state;
    const i64 news[] = {1, 2, 4, 5, 64, 100}, pasts[][2] = {{0, 1}, {63, 64}, {300, 17}, {299, 130}};
    for (int i = 0; i < COUNT(news); i++)
        for (int j = 0; j < COUNT(pasts); j++)
            for (int k = 0; k < 3; k++) {
                i32 past[2] = {(i32)pasts[j][0], (i32)pasts[j][1]};
                problem p = {.B = 2,
                             .T = news[i],
                             .H = 4,
                             .G = (i64[]){4, 2, 1}[k],
                             .n = k == 1 ? 64 : 40,
                             .capacity = 300,
                             .past = past,
                             .window = k == 2 ? 50 : 0};
                compare_all("cache", p, 1);
            }
}

/* Copies of tokens: K of each, which see each other within W tokens and chunks of C. */
static void test_copies(void **state)
{
    (void)state;
    const i64 kinds[][3] = {{2, 1, 0}, {3, 1, 0}, {2, 16, 0}, {3, 7, 10}, {5, 40, 0}, {2, 64, 64}, {9, 2, 3}};
    const i64 lengths[] = {1, 31, 64, 130}, documented[] = {70, 1, 33, 0};
    for (int i = 0; i < COUNT(kinds); i++)
        for (int j = 0; j < COUNT(lengths); j++) {
            problem p = {.B = 1 + j % 2,
                         .T = lengths[j],
                         .H = 2,
                         .G = 1 + i % 2,
                         .n = j % 2 ? 24 : 7,
                         .K = kinds[i][0],
                         .W = kinds[i][1],
                         .C = kinds[i][2]};
            compare_all("copies", p, 1);
            p.window = 20;
            p.start = documents(p.B, p.T, documented);
            compare_all("copies in documents", p, 1);
            mem_free(p.start);
        }
}

/* The same behind a cache and a ring, of which rows hold different parts. */
static void test_copies_cache(void **state)
{
    (void)state;
    const i64 news[] = {1, 2, 4, 33}, kinds[][3] = {{2, 1, 0}, {2, 9, 0}, {3, 6, 4}, {4, 70, 0}, {9, 3, 0}};
    for (int i = 0; i < COUNT(kinds); i++)
        for (int j = 0; j < COUNT(news); j++) {
            i32 past[3] = {0, 100, (i32)(97 - j)};
            compare_all("copies behind a cache",
                        (problem){.B = 3,
                                  .T = news[j],
                                  .H = 4,
                                  .G = 2,
                                  .n = 16,
                                  .capacity = 100,
                                  .past = past,
                                  .K = kinds[i][0],
                                  .W = kinds[i][1],
                                  .C = kinds[i][2],
                                  .ring = kinds[i][1] - 1,
                                  .window = j == 2 ? 30 : 0},
                        1);
        }
}

/* Scores of +-1e4 and more: the softmax is a choice of one key; nothing overflows. And all scores equal. */
static void test_extremes(void **state)
{
    (void)state;
    for (dtype type = DT_F32; type <= DT_BF16; type++)
        for (const level *l = levels(); l->name; l++) {
            problem p = {.B = 1, .T = 130, .H = 2, .G = 2, .n = 64, .scale = 1};
            fill(&p, 100, type);
            stored s = store(&p, type, l, 1);
            if (l->runs) {
                l->forward(&s.a), l->backward(&s.a);
                for (i64 i = 0; i < p.T * p.H * p.n; i++) assert_true(isfinite(get(s.a.o, type, i)));
                for (i64 i = 0; i < p.T * s.row; i++) assert_true(isfinite(get(s.d_qkv, type, i)));
            }
            discard(&s);
            arena_close(p.arena);
        }
    compare_all("zero scores", (problem){.B = 1, .T = 130, .H = 2, .G = 2, .n = 64}, 0);
    compare_all("large scores", (problem){.B = 1, .T = 130, .H = 2, .G = 2, .n = 64, .scale = 1}, 1.5);
}

/* A NaN among the inputs must be seen, not swallowed by a maximum or a rounding. */
static void test_nan(void **state)
{
    (void)state;
    for (dtype type = DT_F32; type <= DT_BF16; type++)
        for (const level *l = levels(); l->name; l++)
            for (int which = 0; which < 3 && l->runs; which++) {
                problem p = {.B = 1, .T = 70, .H = 1, .G = 1, .n = 32};
                fill(&p, 1, type);
                (which == 0 ? p.q : which == 1 ? p.k : p.v)[3 * 32 + 5] = NAN; // token 3
                stored s = store(&p, type, l, 1);
                l->forward(&s.a);
                assert_true(isnan(get(s.a.o, type, 3 * 32 + 5)));
                assert_true(which == 0 || isnan(get(s.a.o, type, 69 * 32 + 5)));
                discard(&s);
                arena_close(p.arena);
            }
}

/* Equal bits from run to run and for any number of threads. */
static void test_determinism(void **state)
{
    (void)state;
    for (dtype type = DT_F32; type <= DT_BF16; type++)
        for (const level *l = levels(); l->name; l++)
            for (int k = 0; k < 4 && l->runs; k++) { // alone, over a cache; the same with copies
                i32 past[1] = {100};
                problem p = {.B = 1,
                             .T = k % 2 ? 3
                                  : k   ? 600
                                        : 1100,
                             .K = k > 1 ? 2 : 1,
                             .W = 5,
                             .ring = k == 3 ? 4 : 0,
                             .H = 4,
                             .G = 2,
                             .n = 64,
                             .capacity = k % 2 ? 100 : 0,
                             .past = k % 2 ? past : NULL};
                fill(&p, 1, type);
                stored s[3];
                for (int i = 0; i < 3; i++) {
                    s[i] = store(&p, type, l, (int[]){2, 1, 5}[i]);
                    l->forward(&s[i].a);
                    if (k % 2 == 0) l->backward(&s[i].a);
                    size_t row = (size_t)dtype_bytes(type);
                    assert_memory_equal(s[0].a.o, s[i].a.o, row * (size_t)(sequence(&p) * p.H * p.n));
                    assert_memory_equal(s[0].a.lse, s[i].a.lse, sizeof(float) * (size_t)(sequence(&p) * p.H));
                    assert_memory_equal(s[0].d_qkv, s[i].d_qkv, row * (size_t)(sequence(&p) * s[0].row));
                }
                for (int i = 0; i < 3; i++) discard(&s[i]);
                arena_close(p.arena);
            }
}

/* Document 1 changes (its values, and where it is cut in two): every bit of document 2 stays, wherever in a
 * block it begins; so do its gradients. */
static void test_documents_apart(void **state)
{
    (void)state;
    const i64 cuts[] = {37, 64, 129, 190, 300};
    for (int i = 0; i < COUNT(cuts); i++)
        for (dtype type = DT_F32; type <= DT_BF16; type++)
            for (const level *l = levels(); l->name && l->runs; l++) {
                problem p = {.B = 1, .T = 391, .H = 2, .G = 1, .n = 64};
                i64 cut = cuts[i], lengths[2][4] = {{cut, p.T}, {20, cut - 20, p.T}};
                stored s[2];
                arena *arenas[2];
                for (int k = 0; k < 2; k++) {
                    p.start = documents(1, p.T, lengths[k]);
                    fill(&p, 1, type);
                    arenas[k] = p.arena;
                    for (i64 j = 0; j < cut * p.n && k; j++)
                        p.q[j] = -p.q[j], p.k[j] *= 64, p.v[j] += 3, p.d_o[j] = 1;
                    s[k] = store(&p, type, l, 1);
                    l->forward(&s[k].a), l->backward(&s[k].a);
                }
                size_t size = (size_t)dtype_bytes(type);
                i64 q = p.H * p.n;
                assert_memory_equal((char *)s[0].a.o + (size_t)(cut * q) * size,
                                    (char *)s[1].a.o + (size_t)(cut * q) * size,
                                    (size_t)((p.T - cut) * q) * size);
                for (i64 h = 0; h < p.H; h++)
                    assert_memory_equal(s[0].a.lse + h * p.T + cut, s[1].a.lse + h * p.T + cut,
                                        sizeof(float) * (size_t)(p.T - cut));
                assert_memory_equal(s[0].d_qkv + (size_t)(cut * s[0].row) * size,
                                    s[1].d_qkv + (size_t)(cut * s[0].row) * size,
                                    (size_t)((p.T - cut) * s[0].row) * size);
                assert_memory_not_equal(s[0].a.o, s[1].a.o, (size_t)(cut * q) * size);
                for (int k = 0; k < 2; k++)
                    mem_free((void *)s[k].a.start), discard(&s[k]), arena_close(arenas[k]);
            }
}

/* The double gradient itself, against central differences of sum(do o): the anchor of all comparisons above.
 */
static void test_gradient(void **state)
{
    (void)state;
    const i64 lengths[] = {3, 2, 0};
    problem p = {.B = 2, .T = 7, .H = 4, .G = 2, .n = 5, .window = 3};
    p.start = documents(p.B, p.T, lengths);
    fill(&p, 1, DT_F32);
    i64 queries = p.B * p.T * p.H * p.n, keys = p.B * p.T * p.G * p.n;
    double *inputs[] = {p.q, p.k, p.v}, *gradients[] = {p.d_q, p.d_k, p.d_v}, step = 1e-5;
    for (int which = 0; which < 3; which++) {
        i64 n = which ? keys : queries;
        definition(&p); // at the unmoved point
        double *want = arena_copy(p.arena, gradients[which], sizeof(double) * (size_t)n);
        for (i64 i = 0; i < n; i++) {
            double *x = &inputs[which][i], at = *x, value[2];
            for (int side = 0; side < 2; side++) {
                *x = at + (side ? step : -step);
                definition(&p);
                value[side] = product_of(p.o, p.d_o, queries);
            }
            *x = at;
            double difference = (value[1] - value[0]) / (2 * step);
            if (!(fabs(difference - want[i]) < 1e-8))
                fail_msg("input %d, %lld: gradient %.10g, difference %.10g", which, (long long)i, want[i],
                         difference);
        }
    }
    mem_free(p.start);
    arena_close(p.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_documents),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_copies_cache),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_nan),
        cmocka_unit_test(test_determinism),
        cmocka_unit_test(test_documents_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
