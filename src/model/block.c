/* block: the whole model out of its slots, in the order data flows. */
#include "model/build.h"
#include <string.h>

const config_key model_keys[] = {
    {"model.preset", KEY_CHOICE, "none", "none gpt2-124m gpt2-350m llama-10m llama-135m",
     .help = "a known shape; sets the keys listed under Presets, each of which may still be overridden"},
    {"model.size", KEY_COUNT, "none", "none auto", .min = 1, .max = 1e12, .unit = "parameters",
     .help =
         "sets shape, learning rate, batch and tokens by published laws, where they are not given; auto: as "
         "large as train.time or train.flops pays for",
     .source = "Step Law: arXiv:2503.04715; Chinchilla refitted: arXiv:2404.10102"},
    {"model.layers", KEY_COUNT, "12", .min = 1, .max = 1000, .unit = "blocks", .help = "transformer blocks"},
    {"model.width", KEY_COUNT, "384", .min = 1, .max = 65536, .unit = "values",
     .help = "width of the residual stream"},
    {"model.context", KEY_COUNT, "512", .min = 1, .max = 1 << 20, .unit = "tokens",
     .help = "length of a sequence"},
    {"model.vocab", KEY_COUNT, "auto", "auto", .min = 1, .max = 1 << 24, .unit = "tokens",
     .help = "rows of the embedding; auto: the tokenizer's size"},
    {"model.bias", KEY_CHOICE, "false", "false true qkv",
     .help = "biases in linear maps; qkv: only in the projections to queries, keys and values"},
    {"model.tie_head", KEY_BOOL, "true", .help = "the head shares the embedding's matrix"},
    {"model.dropout", KEY_NUMBER, "0", .max = 0.99, .unit = "probability",
     .help =
         "dropout after the embedding, attention, feed-forward and memory; with selu the feed-forward has "
         "alpha dropout after the activation instead"},
    {"model.override", KEY_LIST, "[]",
     .help = "keys that differ in some layers: items of {layers, norm / residual / attention / ffn keys}; "
             "later items win"},
    {"model.override[].layers", KEY_LAYERS, "all", "all",
     .help = "the layers an item is for; -1 is the last"},
    {0},
};

tensor *dropout(model_builder *b, tensor *x)
{
    double p = config_number(b->c, "model.dropout");
    if (!(p > 0) || b->shape->mode != MODE_TRAIN) return x;
    return g_out(g_node(b->g, OP_dropout, IN(x), WITH({"p", p}, {"repeat", (double)b->copies})), 0);
}

void model_add_loss(model_builder *b, tensor *term)
{
    b->extra = b->extra ? g_out(g_node(b->g, OP_sum, IN(b->extra, term), NO_ATTRS), 0) : term;
}

void model_gauge_add(model_builder *b, const char *name, tensor *value)
{
    if (b->shape->mode != MODE_EVALUATE || b->m->n_gauges == MOST_GAUGES || b->g->failed) return;
    value->keep = true;
    b->m->gauge[b->m->n_gauges++] = (model_gauge){name, value};
}

static bool dropped(const model_builder *b, branch which)
{
    const u8 *dropped = b->shape->dropped;
    return dropped && dropped[b->layer] & (which == BRANCH_ATTENTION ? DROP_ATTENTION : DROP_FFN);
}

/* Returns what the branch read. A dropped one leaves the stream as it found it; its input is still made, as a
 * memory layer may read it. */
static tensor *branch_under(model_builder *b, residual *r, branch which)
{
    const char *scope = g_push(b->g, which == BRANCH_ATTENTION ? "attention" : "ffn");
    tensor *stream = r->stream, *x = residual_open(b, r, which);
    if (dropped(b, which))
        r->stream = stream;
    else
        residual_close(b, r, which,
                       which == BRANCH_ATTENTION ? dropout(b, attention_slot(b, x)) : ffn_slot(b, x));
    g_pop(b->g, scope);
    return x;
}

tensor *model_extra_block(model_builder *b, tensor *x)
{
    residual r;
    i64 layer = b->layer, copies = b->copies;
    int graph_layer = b->g->layer;
    tensor *position = b->position;
    b->copies = 1, b->position = b->m->position;
    residual_start(b, &r, x);
    b->layer = b->layers - 1;
    b->g->layer = (int)b->layers;
    branch_under(b, &r, BRANCH_ATTENTION);
    branch_under(b, &r, BRANCH_FFN);
    b->layer = layer;
    b->g->layer = graph_layer;
    x = residual_end(b, &r);
    b->copies = copies, b->position = position;
    return x;
}

static void declare_inputs(model_builder *b)
{
    const model_shape *s = b->shape;
    i64 dim[] = {s->rows, s->tokens};
    model *m = b->m;
    m->tokens = g_input(b->g, "tokens", DT_I32, 2, dim);
    m->position = g_input(b->g, "position", DT_I32, 2, dim);
    if (s->mode == MODE_DECODE)
        m->past = g_input(b->g, "past", DT_I32, 1, dim);
    else
        m->doc_start = g_input(b->g, "doc_start", DT_I32, 2, dim);
    if (s->no_loss) return;
    m->targets = g_input(b->g, "targets", DT_I32, 2, dim);
    m->inverse_count = g_input(b->g, "inverse_count", DT_F32, 1, (i64[]){1});
}

status model_build(arena *a, const config *c, const model_shape *shape, model *out)
{
    *out = (model){.g = graph_new(a, &(graph_options){shape->mode, shape->act, shape->stream})};
    model_builder b = {.c = c, .shape = shape, .m = out, .g = out->g, .layer = -1};
    residual r;
    memory memory;
    b.layers = config_count(c, "model.layers");
    b.width = config_count(c, "model.width");
    b.vocab = config_count(c, "model.vocab");
    if (b.vocab < 0)
        return config_refuse(c, "model.vocab", "is auto, and no tokenizer tells it; set a number");
    declare_inputs(&b);
    repeat_begin(&b);
    memory_start(&b, &memory);
    residual_start(&b, &r, embedding_slot(&b));
    init_check(&b);
    for (b.layer = 0; b.layer < b.layers; b.layer++) {
        const char *scope = g_push(b.g, "blocks.%lld", (long long)b.layer);
        b.g->layer = (int)b.layer;
        branch_under(&b, &r, BRANCH_ATTENTION);
        memory_slot(&b, &memory, &r, branch_under(&b, &r, BRANCH_FFN));
        g_pop(b.g, scope);
    }
    b.layer = -1;
    b.g->layer = -1;
    b.stream = repeat_end(&b, residual_end(&b, &r));
    if (!shape->originals) head_slot(&b, norm_final(&b, b.stream));
    if (b.extra && out->objective) {
        out->objective->keep = false;
        model_add_loss(&b, out->objective);
        out->objective = b.extra;
        if (out->objective) out->objective->keep = true;
    }
    transfer_rates(&b);
    for (i64 i = 0; shape->dense_gradients && i < b.g->n_tensors; i++) b.g->tensors[i]->param.rows = false;
    graph_prune(b.g);
    return graph_status(b.g);
}

/* What a token passes through of T: all of it, or of an expert weight as many experts as are chosen. */
static i64 active_count(const model *m, const tensor *t)
{
    for (i64 i = 0; t->param.kind == PARAM_EXPERT && i < m->g->n_nodes; i++) {
        const node *n = m->g->nodes[i];
        for (int k = 0; n->op == OP_expert_linear && k < n->n_in; k++)
            if (n->in[k] == t) return count(t) / t->dim[0] * cols(n->in[1]->maker->in[0]); // offsets, ids
    }
    return count(t);
}

void model_about(const model *m, const config *c, i64 tokens, model_figures *out)
{
    i64 once =
        0; // of those in products, the ones that a token meets once, whatever its copies: head, embedding
    double copies = (double)model_copies(c),
           wide = (double)(config_count(c, "model.layers") * tokens) * (double)config_count(c, "model.width");
    *out = (model_figures){0};
    for (i64 i = 0; i < m->g->n_tensors; i++) {
        const tensor *t = m->g->tensors[i];
        if (t->role != ROLE_PARAM) continue;
        out->parameters += count(t);
        out->active_parameters += active_count(m, t);
        bool product =
            t->param.kind == PARAM_MATRIX || t->param.kind == PARAM_HEAD || t->param.kind == PARAM_EXPERT;
        bool tied = config_flag(c, "model.tie_head") && g_find(m->g, "embedding.weight") == t;
        if (!product && !tied) continue;
        out->matmul_parameters += active_count(m, t);
        if (strncmp(t->path, "blocks.", 7)) once += active_count(m, t);
    }
    out->flops_per_token =
        6 * (copies * (double)(out->matmul_parameters - once) + (double)once) + 6 * copies * wide;
}
