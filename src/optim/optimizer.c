/* The optimizers' table and what they share: classes that decay, the gradient's norm. See optimizer.h. */
#include "optim/optimizer.h"
#include "ops/op.h"
#include <math.h>
#include <string.h>

extern const optimizer_def optimizer_adamw;
static const optimizer_def *const table[] = {&optimizer_adamw};

const optimizer_def *optimizer_named(const char *name)
{
    for (i64 i = 0; i < COUNT(table); i++)
        if (!strcmp(table[i]->name, name)) return table[i];
    return NULL;
}

status optimizer_from(const config *c, optimizer *out)
{
    static const char *const class_name[] = {"matrix", "head", "embedding", "vector", "gain", "expert"};
    double betas[2];
    config_numbers(c, "train.optimizer.betas", betas, 2);
    *out = (optimizer){
        .def = optimizer_named(config_text(c, "train.optimizer.kind")),
        .weight_decay = config_number(c, "train.optimizer.weight_decay"),
        .lazy_rows = config_is(c, "train.optimizer.rows", "lazy"),
        .base = {.beta1 = betas[0],
                 .beta2 = betas[1],
                 .eps = config_number(c, "train.optimizer.eps"),
                 .hf_eps = config_is(c, "train.optimizer.eps_form", "hf"),
                 .decay_independent = config_is(c, "train.optimizer.decay_mode", "independent"),
                 .decay_after = config_is(c, "train.optimizer.decay_when", "after")},
    };
    if (!out->def) return config_refuse(c, "train.optimizer.kind", "is not built in");
    for (int k = 0; k <= PARAM_EXPERT; k++)
        out->decays[k] = config_has_choice(c, "train.optimizer.decay", class_name[k]);
    out->decays[PARAM_EXPERT] |= out->decays[PARAM_MATRIX];
    return OK;
}

#ifdef __x86_64__
__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
static float
sum_of_squares(const float *x, i64 n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (i64 i = 0; i < n; i++) sum += x[i] * x[i];
    return sum;
}

static i64 row_width(const stored *e) { return e->dim[e->ndim - 1]; }

/* Chunks are summed in f32, a thread's chunks in double, then the threads in order (an OpenMP reduction would
 * add them in the order they finish): the same bits for the same number of threads. */
double gradient_norm(const store *s)
{
    enum { CHUNK = 4096, MOST_THREADS = 1024 };
    double part_of[MOST_THREADS] = {0}, total = 0;
#pragma omp parallel num_threads(MIN(omp_get_max_threads(), MOST_THREADS))
    for (i64 k = 0; k < s->n_params; k++) {
        const stored *e = &s->entry[k];
        const float *g = e->rows ? e->rows->values : e->grad;
        i64 n = e->rows ? e->rows->count * row_width(e) : e->count;
        i64 chunks = (n + CHUNK - 1) / CHUNK, first, last;
        part(chunks, thread_index(), omp_get_num_threads(), &first, &last);
        for (i64 i = first; i < last; i++)
            part_of[thread_index()] += (double)sum_of_squares(g + i * CHUNK, MIN(CHUNK, n - i * CHUNK));
    }
    for (int t = 0; t < MOST_THREADS; t++) total += part_of[t];
    return sqrt(total);
}

double optimizer_lr_factor(const optimizer *o, const param_info *p, i64 step)
{
    if (!(p->lr_factor > 0)) return 1;
    i64 until = o->steps > 0 ? span_steps(p->lr_until, o->steps, o->tokens_per_step) : 0;
    double left = until > 0 ? fmax(0, 1 - (double)step / (double)until) : 1;
    return 1 + (p->lr_factor - 1) * left;
}

static update for_tensor(const optimizer *o, const stored *e, i64 step, double lr, double peak, double scale)
{
    update u = o->base;
    u.n = e->count;
    u.step = step;
    double factor = optimizer_lr_factor(o, &e->param, step);
    u.lr = lr * factor;
    u.peak = peak * factor;
    u.gradient_scale = scale;
    u.lazy = e->rows && o->lazy_rows;
    u.width = e->rows ? row_width(e) : 0;
    u.weight_decay = o->decays[e->param.kind] && !u.lazy ? o->weight_decay : 0;
    if (e->param.decay_factor > 0) u.weight_decay *= e->param.decay_factor;
    return u;
}

void optimizer_step(const optimizer *o, store *s, i64 step, double lr, double peak, double gradient_scale)
{
    for (i64 k = 0; k < s->n_params; k++) {
        stored *e = &s->entry[k];
        update u = for_tensor(o, e, step, lr, peak, gradient_scale);
        u16 *copy = e->dtype == DT_BF16 ? e->data : NULL;
        if (e->rows) {
            o->def->rows_kernel(&u, e->rows, e->master, copy, e->moment[0], e->moment[1]);
            e->rows->count = 0;
        } else
            o->def->kernel(&u, e->master, copy, e->grad, e->moment[0], e->moment[1]);
    }
}
