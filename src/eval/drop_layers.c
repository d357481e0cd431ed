/* The loss without each block: see drop_layers.h. A variant is another graph over the same store, so nothing
 * is loaded or trained again. Source of the question: LayerNorm Scaling, arXiv:2502.05795 (deep blocks of
 * pre-norm models can be removed at little loss); its probe removes whole blocks, as here. */
#include "eval/drop_layers.h"
#include <math.h>
#include <string.h>

/* The evaluation of S with DROPPED, in memory of A. */
static status open_variant(const session *s, const u8 *dropped, arena *a, model *m, program **p)
{
    model_shape shape = {.rows = s->micro_rows,
                         .tokens = s->context,
                         .mode = MODE_EVALUATE,
                         .act = s->act,
                         .stream = s->stream,
                         .dropped = dropped};
    program_options o = {.device = s->device, .isa = s->options.isa};
    i64 rewrites;
    TRY(model_build(a, s->c, &shape, m));
    if (!s->options.no_fuse) TRY(graph_rewrite(m->g, &rewrites));
    TRY(graph_verify(m->g));
    return program_open(m->g, s->store, &o, p);
}

/* Nats a token by the program P of M, in the place of S's own. */
static status measure(session *s, const model *m, program *p, const dataset *d, const drop_options *o,
                      double *loss)
{
    evaluation e;
    model own = s->evaluate;
    program *own_program = s->evaluate_program;
    s->evaluate = *m;
    s->evaluate_program = p;
    status failed = train_evaluate(s, d, o->split, o->tokens, o->stop, &e);
    s->evaluate = own;
    s->evaluate_program = own_program;
    if (!failed) *loss = e.tokens ? e.nats / (double)e.tokens : NAN;
    return failed;
}

static status measure_without(session *s, const u8 *dropped, const dataset *d, const drop_options *o,
                              double *loss)
{
    arena *a;
    model m = {0};
    program *p = NULL;
    TRY(arena_open(&a));
    status failed = open_variant(s, dropped, a, &m, &p);
    if (!failed) failed = measure(s, &m, p, d, o, loss);
    program_close(p);
    if (m.g) graph_close(m.g);
    arena_close(a);
    return failed;
}

static void tell(const drop_options *o, i64 done, i64 of)
{
    if (o->progress) o->progress(o->context, done, of);
}

status eval_drop_layers(session *s, const dataset *d, const drop_options *o, arena *a, drop_result *out)
{
    i64 layers = config_count(s->c, "model.layers"), each = o->branches ? 3 : 1, of = 1 + layers * each,
        done = 1;
    u8 *dropped = arena_array(a, u8, layers);
    *out = (drop_result){.layers = layers, .layer = arena_array(a, layer_drop, layers)};
    TRY(train_evaluate(s, d, o->split, o->tokens, o->stop, &out->whole));
    out->loss = out->whole.tokens ? out->whole.nats / (double)out->whole.tokens : NAN;
    if (out->whole.tokens && !isfinite(out->loss))
        return fail(ERR_NUMERIC, "the loss of the whole model is not finite; the weights have diverged");
    tell(o, done, of);
    for (i64 l = 0; l < layers; l++) {
        layer_drop *x = &out->layer[l];
        double *to[] = {&x->block, &x->attention, &x->ffn};
        static const u8 what[] = {DROP_ATTENTION | DROP_FFN, DROP_ATTENTION, DROP_FFN};
        *x = (layer_drop){NAN, NAN, NAN};
        for (i64 k = 0; k < each; k++) {
            memset(dropped, 0, (size_t)layers);
            dropped[l] = what[k];
            TRY(measure_without(s, dropped, d, o, to[k]));
            tell(o, ++done, of);
        }
    }
    return OK;
}
