/* The coordinate check: see coord.h. Source: Tensor Programs V, arXiv:2203.03466, appendix D.1; the bound of
 * 0.15 on the slope of the change is the optimization spec's (4.1). What is compared are the values of a
 * forward graph over one small batch, before the first step and after the last, which train on that batch:
 * over many different tokens an update's part for one of them is noise of size width^(-1/2) until the width
 * exceeds their number. */
#include "lab/coord.h"
#include "base/random.h"
#include "base/text.h"
#include "train/session.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ROWS = 4, MOST_KINDS = 64, MOST_NAME = 96 };

double coord_slope(const i64 *x, const double *y, i64 n)
{
    double mx = 0, my = 0, xx = 0, xy = 0;
    for (i64 i = 0; i < n; i++) {
        if (!(y[i] > 0) || !isfinite(y[i])) return NAN;
        mx += log((double)x[i]) / (double)n, my += log(y[i]) / (double)n;
    }
    for (i64 i = 0; i < n; i++) {
        double dx = log((double)x[i]) - mx;
        xx += dx * dx, xy += dx * (log(y[i]) - my);
    }
    return xy / xx;
}

/* ---- what is looked at */

typedef struct watched { // one output
    const tensor *t;
    i64 kind;
    float *before;
} watched;

typedef struct watch { // kinds stay, from one training to the next
    char name[MOST_KINDS][MOST_NAME];
    i64 n_kinds;
    watched *w;
    i64 n;
    double absolute[MOST_KINDS], squares[MOST_KINDS], values[MOST_KINDS]; // sums over one training
} watch;

/* "blocks.3.attention/rope" is of kind "attention/rope". */
static const char *kind_name(const node *n)
{
    const char *path = n->path;
    if (strncmp(path, "blocks.", 7)) return path;
    path += 7 + strspn(path + 7, "0123456789");
    return *path == '.' ? path + 1 : path;
}

static i64 kind_of(watch *w, const model *m, const node *n)
{
    const char *name = n->out[0] == m->logits ? "logits" : kind_name(n);
    for (i64 k = 0; k < w->n_kinds; k++)
        if (!strcmp(w->name[k], name)) return k;
    if (w->n_kinds == MOST_KINDS) return -1;
    snprintf(w->name[w->n_kinds], MOST_NAME, "%s", name);
    return w->n_kinds++;
}

/* Values of a token: not parts of others, nor the same in another type, nor losses. */
static bool is_activation(const node *n, i64 tokens)
{
    const tensor *t = n->out[0];
    if (n->phase != PHASE_FORWARD || !t || t->role != ROLE_VALUE || t->dtype != DT_F32) return false;
    if (n->def->flags & (OP_SPLIT | OP_CONCAT | OP_LOSS) || n->op == OP_cast) return false;
    return cols(t) > 1 && rows_of(t) >= tokens;
}

static void watch_graph(watch *w, arena *a, const model *m)
{
    i64 tokens = count(m->tokens);
    w->w = arena_array(a, watched, m->g->n_nodes);
    w->n = 0;
    for (i64 k = 0; k < MOST_KINDS; k++) w->absolute[k] = w->squares[k] = w->values[k] = 0;
    for (i64 i = 0; i < m->g->n_nodes; i++) {
        const node *n = m->g->nodes[i];
        i64 kind = is_activation(n, tokens) ? kind_of(w, m, n) : -1;
        if (kind < 0) continue;
        n->out[0]->keep = true;
        w->w[w->n++] = (watched){n->out[0], kind, arena_array(a, float, count(n->out[0]))};
    }
}

static void look(watch *w, const program *p, bool first)
{
    for (i64 i = 0; i < w->n; i++) {
        const watched *x = &w->w[i];
        view v = program_view(p, x->t);
        float *before = x->before;
        for (i64 r = 0; r < v.rows; r++)
            for (i64 j = 0; j < v.n; j++, before++) {
                float now = ((const float *)v.p)[r * v.stride + j];
                if (first) {
                    *before = now;
                    continue;
                }
                w->absolute[x->kind] += fabs((double)now);
                w->squares[x->kind] += ((double)now - *before) * ((double)now - *before);
                w->values[x->kind]++;
            }
    }
}

/* ---- one training */

typedef struct rows {
    i32 *tokens, *targets, *start, *position;
    i64 n, context;
} rows;

/* Row by row a walk through the vocabulary, with a jump at every fourth token or so. */
static void fill(rows *x, i64 vocab, u64 seed)
{
    u64 stream = random_stream("lab/coord");
    for (i64 i = 0; i < x->n; i++) {
        u64 draw = random_bits(seed, stream, 0, (u64)i);
        bool jump = i % x->context == 0 || draw % 4 == 0;
        x->tokens[i] =
            (i32)(jump ? (i64)((draw >> 8) % (u64)vocab) : ((i64)x->tokens[i - 1] * 7 + 3) % vocab);
        x->start[i] = 0;
        x->position[i] = (i32)(i % x->context);
    }
    for (i64 i = 0; i < x->n; i++) x->targets[i] = i % x->context == x->context - 1 ? -1 : x->tokens[i + 1];
}

typedef struct forward {
    model m;
    program *p;
} forward;

static status open_forward(session *s, watch *w, forward *f)
{
    model_shape shape = {.rows = ROWS,
                         .tokens = s->context,
                         .mode = MODE_EVALUATE,
                         .act = DT_F32,
                         .stream = DT_F32,
                         .logits = true};
    TRY(model_build(s->arena, s->c, &shape, &f->m));
    watch_graph(w, s->arena, &f->m);
    TRY(graph_verify(f->m.g));
    return program_open(f->m.g, s->store, &(program_options){.device = s->device, .isa = s->options.isa},
                        &f->p);
}

static void run_forward(const forward *f, const rows *x)
{
    const i32 *from[] = {x->tokens, x->targets, x->start, x->position};
    tensor *const to[] = {f->m.tokens, f->m.targets, f->m.doc_start, f->m.position};
    for (int k = 0; k < 4; k++) memcpy(program_data(f->p, to[k]), from[k], sizeof(i32) * (size_t)x->n);
    *(float *)program_data(f->p, f->m.inverse_count) = 1 / (float)x->n;
    program_run(f->p, &(step_info){0}, PHASE_FORWARD);
}

/* Steps on the same rows, at the constant rate train.optimizer.lr. */
static void train_steps(session *s, const rows *x, i64 steps)
{
    double nats, norm, lr = config_number(s->c, "train.optimizer.lr");
    step_batch b = {x->tokens, x->targets, x->start, x->position, ROWS, x->n - ROWS};
    for (i64 step = 0; step < steps; step++) {
        session_forward_backward(s, &b, step, &nats);
        session_update(s, step, lr, lr, &norm);
    }
}

static status train_one(const coord_options *o, config *c, u64 seed, watch *w)
{
    session *s;
    forward f = {0};
    TRY(session_open(c, o->device, &(session_options){.isa = o->isa}, &s));
    rows x = {.n = ROWS * s->context, .context = s->context};
    i32 *all = arena_array(s->arena, i32, 4 * x.n);
    x.tokens = all, x.targets = all + x.n, x.start = all + 2 * x.n, x.position = all + 3 * x.n;
    session_start(s);
    status failed = open_forward(s, w, &f);
    if (!failed) {
        fill(&x, config_count(c, "model.vocab"), seed);
        run_forward(&f, &x);
        look(w, f.p, true);
        train_steps(s, &x, o->steps);
        run_forward(&f, &x);
        look(w, f.p, false);
    }
    program_close(f.p);
    if (f.m.g) graph_close(f.m.g);
    session_close(s);
    return failed;
}

/* ---- the configuration at a width */

typedef struct shape { // of the configuration as it is
    i64 width, heads, kv_heads, head_width, ffn;
    bool mup;
} shape;

static status set_number(config *c, const char *key, i64 value)
{
    char number[32];
    snprintf(number, sizeof number, "%lld", (long long)value);
    return config_set(c, key, number, "lab coord-check");
}

static status set_small(config *c)
{
    i64 context = MIN(config_count(c, "model.context"), COORD_CONTEXT);
    TRY(set_number(c, "model.context", context));
    TRY(set_number(c, "train.batch_tokens", ROWS * context));
    TRY(config_set(c, "train.precision", "f32", "lab coord-check"));
    TRY(config_set(c, "train.micro_batch", "auto", "lab coord-check"));
    if (config_number(c, "model.dropout") > 0) TRY(config_set(c, "model.dropout", "0", "lab coord-check"));
    return config_count(c, "model.vocab") < 0 ? set_number(c, "model.vocab", COORD_VOCAB) : OK;
}

static status read_shape(const coord_options *o, shape *out)
{
    arena *a;
    config *c;
    model m = {0};
    TRY(config_load(o->config, o->overrides, o->n_overrides, &c));
    *out = (shape){config_count(c, "model.width"),
                   config_count(c, "model.attention.heads"),
                   config_count(c, "model.attention.kv_heads"),
                   config_count(c, "model.attention.head_width"),
                   MAX(config_count(c, "model.ffn.width"), 0),
                   config_is(c, "train.transfer.kind", "mup")};
    status s = set_small(c);
    status opened = s ? s : arena_open(&a);
    if (!opened) {
        s = model_build(a, c, &(model_shape){.rows = 1, .tokens = 2, .mode = MODE_EVALUATE}, &m);
        const tensor *down = s ? NULL : g_find(m.g, "blocks.0.ffn.down.weight");
        if (down && down->ndim == 2 && !out->ffn) out->ffn = cols(down);
        if (m.g) graph_close(m.g);
        arena_close(a);
    } else
        s = opened;
    config_close(c);
    return s;
}

/* Heads of a given width: as many more as the width is wider. */
static status set_heads(config *c, const shape *x, i64 width)
{
    i64 heads = x->heads * width / x->width, kv = x->kv_heads > 0 ? x->kv_heads * width / x->width : 1;
    if (x->head_width < 0) return OK;
    if (heads * x->width != x->heads * width || !heads ||
        (x->kv_heads > 0 && (kv * x->width != x->kv_heads * width || !kv)))
        return config_refuse(
            c, "model.attention.heads",
            "is %lld at width %lld; with model.attention.head_width given, the heads go with the "
            "width, and at %lld they were no whole number",
            (long long)x->heads, (long long)x->width, (long long)width);
    TRY(set_number(c, "model.attention.heads", heads));
    return x->kv_heads > 0 ? set_number(c, "model.attention.kv_heads", kv) : OK;
}

static status config_at(const coord_options *o, const shape *x, const char *transfer, i64 width, i64 seed,
                        config **out)
{
    TRY(config_load(o->config, o->overrides, o->n_overrides, out));
    config *c = *out;
    status s = set_small(c);
    if (!s) s = set_heads(c, x, width);
    if (!s) s = set_number(c, "model.width", width);
    if (!s && x->ffn) s = set_number(c, "model.ffn.width", MAX(x->ffn * width / x->width, 1));
    if (!s) s = set_number(c, "train.seed.init", config_count(c, "train.seed.init") + seed);
    if (!s) s = config_set(c, "train.transfer.kind", transfer, "lab coord-check");
    if (!s && !x->mup && !strcmp(transfer, "mup"))
        s = set_number(c, "train.transfer.base_width", o->widths[0]);
    if (s) config_close(c);
    return s;
}

/* ---- an arm */

static void open_kinds(const coord_options *o, watch *w, arena *a, coord_arm *arm)
{
    arm->kind = arena_array(a, coord_kind, MOST_KINDS);
    for (i64 k = 0; k < MOST_KINDS; k++)
        arm->kind[k] = (coord_kind){.name = w->name[k],
                                    .size = arena_array(a, double, o->n_widths),
                                    .change = arena_array(a, double, o->n_widths)};
}

/* A kind that this training has not is no kind at this width: NaN. */
static void take(const watch *w, i64 at, double share, coord_arm *arm)
{
    for (i64 k = 0; k < MOST_KINDS; k++) {
        arm->kind[k].size[at] += share * w->absolute[k] / w->values[k];
        arm->kind[k].change[at] += share * sqrt(w->squares[k] / w->values[k]);
    }
}

/* Leaves what there is at every width (the scale before a tied head is not, at the base). */
static void keep_common(const watch *w, const u8 *there, coord_arm *arm)
{
    i64 n = 0;
    for (i64 k = 0; k < w->n_kinds; k++)
        if (there[k]) arm->kind[n++] = arm->kind[k];
    arm->n_kinds = n;
}

static void judge(const coord_options *o, coord_arm *arm)
{
    double worst = -1;
    for (i64 k = 0; k < arm->n_kinds; k++) {
        coord_kind *x = &arm->kind[k];
        x->size_slope = coord_slope(o->widths, x->size, o->n_widths);
        x->slope = coord_slope(o->widths, x->change, o->n_widths);
        double steep = isfinite(x->slope) ? fabs(x->slope) : INFINITY;
        if (steep > worst) worst = steep, arm->steepest = k;
    }
    arm->flat = worst <= COORD_FLAT;
}

static status check_arm(const coord_options *o, const shape *x, i64 seeds, i64 *done, arena *a,
                        coord_arm *arm)
{
    watch *w = arena_new(a, watch);
    u8 there[MOST_KINDS];
    memset(there, 1, sizeof there);
    open_kinds(o, w, a, arm);
    for (i64 at = 0; at < o->n_widths; at++)
        for (i64 seed = 0; seed < seeds; seed++) {
            config *c;
            status s = config_at(o, x, arm->transfer, o->widths[at], seed, &c);
            if (!s) {
                s = train_one(o, c, (u64)seed + 1, w);
                config_close(c);
            }
            if (s)
                return wrap(s, "train.transfer.kind %s, width %lld", arm->transfer, (long long)o->widths[at]);
            take(w, at, 1 / (double)seeds, arm);
            for (i64 k = 0; k < MOST_KINDS; k++) there[k] &= w->values[k] > 0;
            if (o->progress) o->progress(o->context, ++*done, COORD_ARMS * o->n_widths * seeds);
        }
    keep_common(w, there, arm);
    judge(o, arm);
    return OK;
}

status coord_check(const coord_options *o, arena *a, coord_arm arm[COORD_ARMS])
{
    static const char *const transfer[COORD_ARMS] = {"none", "mup"};
    i64 done = 0;
    shape x;
    if (o->n_widths < 2) return fail(ERR_USAGE, "%lld width; a slope needs two", (long long)o->n_widths);
    for (i64 i = 1; i < o->n_widths; i++)
        if (o->widths[i] <= o->widths[i - 1])
            return fail(ERR_USAGE, "width %lld comes after %lld; name widths in ascending order",
                        (long long)o->widths[i], (long long)o->widths[i - 1]);
    TRY(read_shape(o, &x));
    for (i64 k = 0; k < COORD_ARMS; k++) {
        arm[k] = (coord_arm){.transfer = transfer[k]};
        TRY(check_arm(o, &x, MAX(o->seeds, 1), &done, a, &arm[k]));
    }
    return OK;
}
