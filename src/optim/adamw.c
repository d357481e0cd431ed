/* adamw: Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101).
 *
 *   m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2         g already scaled by the clipping factor
 *   torch   w -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)        t counts from 1
 *   hf      w -= lr (sqrt(1 - b2^t) / (1 - b1^t)) m / (sqrt(v) + eps)
 *   decay   w *= 1 - lr d (coupled) or 1 - d lr/peak (independent), before or after the update
 *
 * A gradient that is a list of rows (embedding tables) has two forms. Dense: every row takes the update
 * above, rows not listed with g = 0. Lazy: rows not listed keep w, m and v; those listed take one update with
 * the t of the run, without decay. An element's new value does not depend on where it stands, so both agree
 * with the dense kernel to the bit wherever they do the same.
 *
 * One pass over w, m, v, g and the bf16 copy, which zeroes g on the way: the step is bound by memory, and a
 * separate memset costs 5-16 ms at 124M parameters. Compiled for three instruction sets (target_clones),
 * because division and square root are the arithmetic here.
 */
#include "ops/op.h"
#include "optim/optimizer.h"
#include <math.h>

extern const optimizer_def optimizer_adamw;

typedef struct factors { // what one step's scalars come to
    double step, scale, eps, keep;
    double beta1, beta2;
    double root; // torch: 1/sqrt(bc2), hf: 1
} factors;

static factors prepare(const update *u)
{
    double t = (double)u->step + 1, bc1 = 1 - pow(u->beta1, t), bc2 = 1 - pow(u->beta2, t);
    factors f = {.scale = u->gradient_scale, .eps = u->eps, .beta1 = u->beta1, .beta2 = u->beta2};
    f.step = u->hf_eps ? u->lr * sqrt(bc2) / bc1 : u->lr / bc1;
    f.root = u->hf_eps ? 1 : 1 / sqrt(bc2);
    f.keep = 1 - u->weight_decay * (u->decay_independent ? u->lr / u->peak : u->lr);
    return f;
}

static void definition(const update *u, double *w, const double *g, double *m, double *v)
{
    double t = (double)u->step + 1, bc1 = 1 - pow(u->beta1, t), bc2 = 1 - pow(u->beta2, t);
    double decay = u->weight_decay * (u->decay_independent ? u->lr / u->peak : u->lr);
    for (i64 i = 0; i < u->n; i++) {
        double gi = g[i] * u->gradient_scale;
        m[i] = u->beta1 * m[i] + (1 - u->beta1) * gi;
        v[i] = u->beta2 * v[i] + (1 - u->beta2) * gi * gi;
        double change = u->hf_eps ? u->lr * (sqrt(bc2) / bc1) * m[i] / (sqrt(v[i]) + u->eps)
                                  : u->lr * (m[i] / bc1) / (sqrt(v[i] / bc2) + u->eps);
        if (!u->decay_after) w[i] -= decay * w[i];
        w[i] -= change;
        if (u->decay_after) w[i] -= decay * w[i];
    }
}

#ifdef __x86_64__
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
#define ARRAYS float *restrict w, u16 *restrict copy, float *restrict g, float *restrict m, float *restrict v

CLONES static void span(const factors *f, bool after, i64 n, ARRAYS)
{
    float b1 = (float)f->beta1, b2 = (float)f->beta2, c1 = (float)(1 - f->beta1), c2 = (float)(1 - f->beta2);
    float scale = (float)f->scale, step = (float)f->step, eps = (float)f->eps, root = (float)f->root;
    float before_keep = after ? 1 : (float)f->keep, after_keep = after ? (float)f->keep : 1;
    for (i64 i = 0; i < n; i++) {
        float gi = g[i] * scale;
        float mi = b1 * m[i] + c1 * gi, vi = b2 * v[i] + c2 * gi * gi;
        m[i] = mi;
        v[i] = vi;
        w[i] = (w[i] * before_keep - step * mi / (sqrtf(vi) * root + eps)) * after_keep;
        g[i] = 0;
    }
    if (copy) narrow(copy, w, n);
}

enum { CHUNK = 8192 }; // stays in the first cache between the update and its rounding to bf16

static void kernel(const update *u, ARRAYS)
{
    factors f = prepare(u);
#pragma omp parallel for schedule(static)
    for (i64 k = 0; k < (u->n + CHUNK - 1) / CHUNK; k++) {
        i64 at = k * CHUNK;
        span(&f, u->decay_after, MIN(CHUNK, u->n - at), w + at, copy ? copy + at : NULL, g + at, m + at,
             v + at);
    }
}

/* ---- the rows form */
static void rows_definition(const update *u, const i32 *ids, i64 n_rows, double *w, const double *g,
                            double *m, double *v)
{
    update one = *u;
    one.n = 1;
    if (u->lazy) one.weight_decay = 0;
    for (i64 i = 0; i < u->n; i++) {
        double gi = 0;
        bool listed = false;
        for (i64 k = 0; k < n_rows; k++)
            if (ids[k] == i / u->width) gi = g[k * u->width + i % u->width], listed = true;
        if (listed || !u->lazy) definition(&one, w + i, &gi, m + i, v + i);
    }
}

typedef struct table { // what a thread works on
    const update *u;
    const factors *f;
    float *w, *m, *v;
    u16 *copy;
} table;

/* N elements from AT; their gradient is G, or zero (ZERO: this thread's CHUNK zeros). */
static void stretch(const table *t, i64 at, i64 n, float *g, float *zero)
{
    for (i64 i = 0; i < n; i += CHUNK, at += CHUNK)
        span(t->f, t->u->decay_after, MIN(CHUNK, n - i), t->w + at, t->copy ? t->copy + at : NULL,
             g ? g + i : zero, t->m + at, t->v + at);
}

/* Rows [first, last) of the table: those listed with their gradients, the stretches between with none. */
static void every_row(const table *t, const row_list *r, i64 first, i64 last)
{
    float zero[CHUNK] = {0};
    i64 width = t->u->width, k = 0;
    while (k < r->count && r->ids[k] < first) k++;
    for (i64 row = first; row < last; row++, k++) {
        i64 listed = k < r->count ? MIN(r->ids[k], last) : last;
        stretch(t, row * width, (listed - row) * width, NULL, zero);
        if (listed < last) stretch(t, listed * width, width, r->values + k * width, NULL);
        row = listed;
    }
}

static void rows_kernel(const update *u, const row_list *r, float *w, u16 *copy, float *m, float *v)
{
    factors f = prepare(u);
    if (u->lazy) f.keep = 1;
    table t = {u, &f, w, m, v, copy};
    i64 width = u->width;
#pragma omp parallel
    {
        i64 first, last;
        part(u->lazy ? r->count : u->n / width, thread_index(), omp_get_num_threads(), &first, &last);
        if (u->lazy)
            for (i64 k = first; k < last; k++)
                stretch(&t, r->ids[k] * width, width, r->values + k * width, NULL);
        else
            every_row(&t, r, first, last);
    }
}

const optimizer_def optimizer_adamw = {"adamw", 2, definition, kernel, rows_definition, rows_kernel};
