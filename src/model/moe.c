/* moe: a feed-forward of many experts, of which each token passes through a few.
 *
 *     z = x Wg^T (f32), perhaps normed;  S = the top k by score (+ bias);  w = scores, renormalised or raw
 *     y = shared(x) + sum over S of w_e E_e(x)
 *
 * Parameters: router.weight [E, d] f32, experts.{gate, up, down}.weight [E, out, in], shared.{gate, up, down}
 * .weight (one dense layer as wide as its experts together: equal to them side by side). State: router.bias.
 *
 * Dropless: exactly k assignments a token, sorted by expert, ragged matrix products (ops/moe_plan.c,
 * expert_linear.c). Capacity: an expert takes ceil(factor k T / E) assignments of a sequence of T tokens, in
 * training only; the group is the sequence: a step does not depend on how it is cut into micro-batches.
 *
 * The terms of the objective are means over the tokens with a target and over the layers that have experts,
 * as MegaBlocks and Megatron take them. Tokens without a target are routed but not counted.
 */
#include "model/build.h"
#include "model/methods.h"
#include <math.h>
#include <string.h>

#define ONLY .only = "model.ffn.kind=moe"
const config_key moe_keys[] = {
    {"model.ffn.experts", KEY_COUNT, "8", .min = 2, .max = 4096, .help = "experts of a layer",
     .source = "Shazeer et al., arXiv:1701.06538", ONLY},
    {"model.ffn.top_k", KEY_COUNT, "2", .min = 1, .max = 4096, .help = "experts a token is routed to", ONLY},
    {"model.ffn.shared", KEY_COUNT, "0", .min = 0, .max = 4096,
     .help = "experts that every token passes through besides", .source = "DeepSeekMoE, arXiv:2401.06066",
     ONLY},
    {"model.ffn.expert_kind", KEY_CHOICE, "gated", "gated mlp", .help = "what one expert is", ONLY},
    {"model.ffn.router", KEY_CHOICE, "softmax_renorm", "softmax_renorm softmax_raw sigmoid",
     .help =
         "weights of the chosen experts: softmax_renorm: softmax over the chosen; softmax_raw: their share "
         "of the softmax over all; sigmoid: sigmoids, divided by their sum",
     .source = "sigmoid: DeepSeek-V3, arXiv:2412.19437", ONLY},
    {"model.ffn.capacity_factor", KEY_NUMBER, "0", .max = 4096,
     .help = "in training an expert takes at most this many times its even share of a sequence, the rest is "
             "dropped; 0: nothing is",
     .source = "GShard, arXiv:2006.16668; 0: MegaBlocks, arXiv:2211.15841", ONLY},
    {"model.ffn.balance", KEY_CHOICE, "loss", "loss bias none",
     .help = "how experts are kept evenly used: loss: a term of the objective; bias: one number an expert, "
             "moved after each step, that only selects",
     .source = "loss: arXiv:2101.03961; bias: arXiv:2408.15664", ONLY},
    {"model.ffn.balance_weight", KEY_NUMBER, "0.01", .max = 100, .help = "of the balancing loss", ONLY},
    {"model.ffn.balance_scope", KEY_CHOICE, "global", "global micro",
     .help = "whose counts the balancing loss uses: global: the step's so far; micro: the micro-batch's",
     .source = "arXiv:2501.11873", ONLY},
    {"model.ffn.bias_rate", KEY_NUMBER, "0.001", .max = 10, .help = "how far a step moves a balancing bias",
     ONLY},
    {"model.ffn.router_z", KEY_NUMBER, "0.001", .max = 100,
     .help = "weight of the squared log-sum-exp of the router's logits, before they are normed",
     .source = "ST-MoE, arXiv:2202.08906", ONLY},
    {"model.ffn.logit_norm", KEY_NUMBER, "0", .max = 1000,
     .help = "deviation that a token's logits are normed to; 0: as they are",
     .source = "Skywork-MoE, arXiv:2406.06563", ONLY},
    {0},
};

const method_row moe_methods[] = {
    {"moe", "ffn", .common = true, .settings = "model.ffn.kind=moe model.ffn.width=auto", .limit = 1.25},
    {"moe_fine", "ffn",
     .settings = "model.ffn.kind=moe model.ffn.width=auto model.ffn.experts=16 model.ffn.top_k=3 "
                 "model.ffn.shared=1 model.ffn.router=softmax_raw"},
    {"moe_bias", "ffn", .common = true,
     .settings = "model.ffn.kind=moe model.ffn.width=auto model.ffn.router=sigmoid model.ffn.balance=bias "
                 "model.ffn.logit_norm=1"},
    {"moe_capacity", "ffn",
     .settings = "model.ffn.kind=moe model.ffn.width=auto model.ffn.capacity_factor=1.25"},
    {0},
};

typedef struct moe { // of the layer under way
    i64 experts, k, shared, width;
    bool gated, bias; // of the maps
    double router;    // in the order of ops/moe.h
} moe;

static bool is_moe(const model_builder *b, i64 layer)
{
    return config_is_at(b->c, layer, "model.ffn.kind", "moe");
}

static moe read(model_builder *b)
{
    moe m = {.experts = of_count(b, "model.ffn.experts"),
             .k = of_count(b, "model.ffn.top_k"),
             .shared = of_count(b, "model.ffn.shared"),
             .width = of_count(b, "model.ffn.width"),
             .gated = of_is(b, "model.ffn.expert_kind", "gated"),
             .bias = of_is(b, "model.bias", "true"),
             .router = (double)of_choice(b, "model.ffn.router")};
    if (m.width <= 0) m.width = round_up((ffn_width(b, m.gated) + m.k + m.shared - 1) / (m.k + m.shared), 16);
    if (m.k > m.experts)
        refuse(b, "model.ffn.top_k", "is %lld, but there are %lld experts to choose from (model.ffn.experts)",
               (long long)m.k, (long long)m.experts);
    if (m.k == 1 && !of_is(b, "model.ffn.router", "softmax_raw"))
        refuse(b, "model.ffn.top_k",
               "is 1 and the router %s: the weight p / sum of the chosen p is 1 whatever the logits, so the "
               "loss sends the router no gradient; use model.ffn.router softmax_raw, or top_k 2",
               config_text_at(b->c, b->layer, "model.ffn.router"));
    return m;
}

/* ---- the router */

typedef struct routing {
    tensor *raw, *z;                // logits; after their norm
    tensor *w, *ids;                // of the chosen
    tensor *offsets, *order, *slot; // see ops/moe_plan.c
    tensor *bias;                   // a state, or NULL
} routing;

static routing route(model_builder *b, const moe *m, tensor *x)
{
    routing r = {0};
    graph *g = b->g;
    param_info info = init_matrix(b, PART_IN, b->width);
    double norm = of_number(b, "model.ffn.logit_norm"), factor = of_number(b, "model.ffn.capacity_factor");
    bool train = b->shape->mode == MODE_TRAIN;
    i64 tokens = b->shape->tokens * b->copies;
    double capacity = ceil(factor * (double)(m->k * tokens) / (double)m->experts);
    info.f32 = true;
    tensor *weight = g_param(g, g_path(g, "router.weight"), 2, (i64[]){m->experts, b->width}, &info);
    if (of_is(b, "model.ffn.balance", "bias"))
        r.bias = g_state(g, g_path(g, "router.bias"), DT_F32, 1, &m->experts);
    r.raw = r.z = g_out(g_node(g, OP_moe_logits, IN(x, weight), NO_ATTRS), 0);
    if (norm > 0) r.z = g_out(g_node(g, OP_moe_logit_norm, IN(r.raw), WITH({"scale", norm})), 0);
    node *n = g_node(g, OP_moe_route, IN(r.z, r.bias), WITH({"k", (double)m->k}, {"router", m->router}));
    r.w = g_out(n, 0);
    r.ids = g_out(n, 1);
    n = g_node(g, OP_moe_plan, IN(r.ids),
               WITH({"experts", (double)m->experts},
                    {"capacity", train && factor > 0 ? fmax(capacity, 1) : 0}, {"group", (double)tokens}));
    r.offsets = g_out(n, 0);
    r.order = g_out(n, 1);
    r.slot = g_out(n, 2);
    return r;
}

/* ---- balance: counts, losses, the commit of the bias. Training only. */

static void add_loss(model_builder *b, const routing *r, const moe *m, tensor *targets, tensor *counts)
{
    i64 layers = 0;
    tensor *inverse = b->m->inverse_count;
    for (i64 l = 0; l < b->layers; l++) layers += is_moe(b, l);
    double share = 1 / (double)(layers * b->copies), z = of_number(b, "model.ffn.router_z") * share,
           balance = of_number(b, "model.ffn.balance_weight") * share;
    if (counts && balance > 0)
        model_add_loss(b, g_out(g_node(b->g, OP_moe_balance, IN(r->z, counts, targets, inverse),
                                       WITH({"weight", balance}, {"router", m->router})),
                                0));
    if (z > 0)
        model_add_loss(
            b, g_out(g_node(b->g, OP_moe_z_loss, IN(r->raw, targets, inverse), WITH({"weight", z})), 0));
}

static void balance(model_builder *b, const routing *r, const moe *m)
{
    graph *g = b->g;
    const op_set *experts = WITH({"experts", (double)m->experts});
    tensor *targets = b->m->targets; // of a token's copies: the token's
    if (b->copies > 1)
        targets = g_out(g_node(g, OP_repeat_index, IN(targets), WITH({"copies", (double)b->copies})), 0);
    tensor *const in[] = {r->ids, r->slot, targets};
    node *step = g_node(g, OP_moe_count, in, 3, experts);
    tensor *counts = g_into_tally(g, step, 0, g_path(g, "router.tokens"));
    g_into_tally(g, step, 1, g_path(g, "router.dropped"));
    if (r->bias)
        g_node(g, OP_moe_bias, IN(r->bias, counts), WITH({"rate", of_number(b, "model.ffn.bias_rate")}));
    if (of_is(b, "model.ffn.balance_scope", "micro"))
        counts = g_out(g_node(g, OP_moe_count, in, 3, experts), 0);
    add_loss(b, r, m, targets, of_is(b, "model.ffn.balance", "loss") ? counts : NULL);
}

/* ---- the experts */

/* Up to two maps of every expert, of the same rows: NAMES like "gate", "up". */
static tensor *expert_maps(model_builder *b, const moe *m, const routing *r, matrix_part part, i64 outputs,
                           const char *const *names, int n, tensor *x)
{
    enum { OFFSETS = 1, WEIGHTS = 2, BIASES = 5 };
    tensor *in[8] = {x, r->offsets};
    linear_map map = {.n = n, .part = part};
    param_info bias = init_bias();
    for (int i = 0; i < n; i++) {
        map.name[i] = names[i];
        map.outputs[i] = outputs;
        param_info weight = init_linear(b, &map, i, cols(x));
        weight.kind = PARAM_EXPERT;
        in[WEIGHTS + i] = g_param(b->g, g_path(b->g, arena_printf(b->g->arena, "%s.weight", names[i])), 3,
                                  (i64[]){m->experts, outputs, cols(x)}, &weight);
    }
    for (int i = 0; m->bias && i < n; i++)
        in[BIASES + i] = g_param(b->g, g_path(b->g, arena_printf(b->g->arena, "%s.bias", names[i])), 2,
                                 (i64[]){m->experts, outputs}, &bias);
    tensor *y = g_out(g_node(b->g, OP_expert_linear, in, m->bias ? BIASES + n : WEIGHTS + n, NO_ATTRS), 0);
    return linear_after(b, &map, m->experts, r->offsets, y);
}

static tensor *experts(model_builder *b, const moe *m, const routing *r, tensor *x)
{
    static const char *const in[] = {"gate", "up"}, *const out[] = {"down"};
    const char *scope = g_push(b->g, "experts");
    tensor *rows = g_out(g_node(b->g, OP_moe_gather, IN(x, r->order, r->slot), NO_ATTRS), 0);
    tensor *h = expert_maps(b, m, r, PART_IN, m->width, in + !m->gated, 1 + m->gated, rows);
    h = ffn_activate(b, m->gated, norm_expert_hidden(b, m->experts, r->offsets, m->gated, h));
    h = expert_maps(b, m, r, PART_FFN_OUT, b->width, out, 1, h);
    h = norm_expert_out(b, m->experts, r->offsets, h);
    g_pop(b->g, scope);
    return h;
}

static tensor *shared_experts(model_builder *b, const moe *m, tensor *x)
{
    const char *scope = g_push(b->g, "shared");
    tensor *y = ffn_dense(b, m->gated, m->shared * m->width, x);
    y = norm_expert_out(b, 1, NULL, y);
    g_pop(b->g, scope);
    return y;
}

tensor *moe_slot(model_builder *b, tensor *x)
{
    moe m = read(b);
    if (b->g->failed) return x;
    routing r = route(b, &m, x);
    if (b->shape->mode == MODE_TRAIN && b->m->targets) balance(b, &r, &m);
    tensor *shared = m.shared ? shared_experts(b, &m, x) : NULL, *y = experts(b, &m, &r, x);
    return g_out(g_node(b->g, OP_moe_combine, IN(y, r.w, r.slot, r.order, shared), NO_ATTRS), 0);
}
