/* adamw: Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101).
 *
 *   m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2         g already scaled by the clipping factor
 *   torch   w -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)        t counts from 1
 *   hf      w -= lr (sqrt(1 - b2^t) / (1 - b1^t)) m / (sqrt(v) + eps)
 *   decay   w *= 1 - lr d (coupled) or 1 - d lr/peak (independent), before or after the update
 *
 * One pass over w, m, v, g and the bf16 copy, which zeroes g on the way: the step is bound by memory, and a
 * separate memset costs 5-16 ms at 124M parameters. Compiled for three instruction sets (target_clones), because
 * division and square root are the arithmetic here.
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

static void kernel(const update *u, ARRAYS)
{
    enum { CHUNK = 8192 }; // stays in the first cache between the update and its rounding to bf16
    factors f = prepare(u);
#pragma omp parallel for schedule(static)
    for (i64 k = 0; k < (u->n + CHUNK - 1) / CHUNK; k++) {
        i64 at = k * CHUNK;
        span(&f, u->decay_after, MIN(CHUNK, u->n - at), w + at, copy ? copy + at : NULL, g + at, m + at, v + at);
    }
}

const optimizer_def optimizer_adamw = {"adamw", 2, definition, kernel};
