/* optimizer: one update of all parameters from their gradients.
 *
 *     optimizer o;
 *     TRY(optimizer_from(config, store, &o));
 *     double norm = gradient_norm(store);                       // before clipping, over everything
 *     optimizer_step(&o, store, step, lr, clip_factor(norm, limit));   // writes weights, zeroes gradients
 *
 * An optimizer is a row of the table in optimizer.c: a definition in double for one tensor, a kernel, and
 * both again for a gradient that is a list of rows (stored.rows). There `lazy` updates weight and moments of
 * the listed rows only, with the bias correction of the global step and without decay (a row's step would
 * depend on how long it waited); otherwise every row is updated as if the gradient were dense, equal to the
 * bit.
 *
 * Moments and all arithmetic are f32; schedule arithmetic is double, rounded once. */
#pragma once
#include "config/config.h"
#include "graph/store.h"

/* One tensor's update. In the definition the pointers are to doubles. */
typedef struct update {
    i64 n;
    double lr, peak;       // of this step; of the schedule (decay_mode independent)
    double weight_decay;   // 0 for classes that do not decay
    double gradient_scale; // clipping
    double beta1, beta2, eps;
    bool hf_eps, decay_independent, decay_after;
    i64 step;  // from 0
    i64 width; // the rows form: elements a row
    bool lazy; // the rows form: rows not listed stay as they are
} update;

typedef struct optimizer_def {
    const char *name;
    int moments;
    void (*definition)(const update *u, double *w, const double *g, double *m, double *v);
    void (*kernel)(const update *u, float *w, u16 *copy, float *g, float *m, float *v); // zeroes g
    /* The rows form: row ids[k] of w, m, v has gradient g[k]; ids ascend and lie in the table. */
    void (*rows_definition)(const update *u, const i32 *ids, i64 n_rows, double *w, const double *g,
                            double *m, double *v);
    void (*rows_kernel)(const update *u, const row_list *r, float *w, u16 *copy, float *m,
                        float *v); // spends values
} optimizer_def;

typedef struct optimizer {
    const optimizer_def *def;
    update base; // everything but n, lr, step, weight_decay, scale
    double weight_decay;
    bool decays[PARAM_EXPERT + 1]; // by class
    bool lazy_rows;                // gradients that are rows touch those only
    i64 steps, tokens_per_step;    // of the run: where param_info.lr_until ends; 0: not known, never
} optimizer;

status optimizer_from(const config *c, optimizer *out) MUST;
/* Norm of all gradients, dense and rows, in double over fixed chunks; NaN or infinity if any gradient is. */
double gradient_norm(const store *s);
static inline double clip_factor(double norm, double limit)
{
    return limit > 0 && norm > limit ? limit / (norm + 1e-6) : 1;
}
/* Updates every parameter, refreshes bf16 copies, zeroes the gradients (lists of rows become empty). */
void optimizer_step(const optimizer *o, store *s, i64 step, double lr, double peak, double gradient_scale);
/* What multiplies the learning rate of a parameter in STEP: 1 + (lr_factor - 1) max(0, 1 - step / until),
 * UNTIL its lr_until in steps (none, or a run of unknown length: lr_factor throughout); 1 without lr_factor.
 * The decay that is independent of the learning rate is not multiplied. */
double optimizer_lr_factor(const optimizer *o, const param_info *p, i64 step);
const optimizer_def *optimizer_named(const char *name);
