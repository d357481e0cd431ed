/* norm: every norm of a model, by site (normalization spec, part 1):
 *
 *     u = Ns(x)          stream   skip path and branch see it
 *     h = s_l Np(u)      pre      the branch only; s_l: norm.depth_scale
 *     b = No(F(h))       out      before the addition
 *     y = Nq(a u + c b)  post     after it; a, c: residual.skip_scale, .branch_scale
 *
 * inside attention q, k, v (before RoPE) and the context (before the output map), over heads (one gain shared
 * by all heads) or over the whole width; inside the feed-forward what its input maps give, before the
 * activation; then the embedding and the final norm. A placement method is a row of norm_presets.c.
 *
 * A pre norm may carry two additions (arXiv:2601.22966): PreAffine, Np(l * u) with a learned vector l, and
 * GatedNorm, y sigmoid(W_up silu(W_down y)) of its output y. */
#include "model/build.h"
#include "ops/activations.h"
#include <math.h>
#include <string.h>

const config_key norm_keys[] = {
    {"model.norm.preset", KEY_CHOICE, "pre",
     "pre pre_qk post deepnorm sandwich peri olmo2 mix lns hybrid hybrid_star hybrid_star_7b sdd "
     "sdd_official "
     "sdd_paper sdd_pre dyt bhyt",
     .help = "a known placement; sets the keys listed under Presets",
     .source = "docs/methods.md names each one's"},
    {"model.norm.kind", KEY_CHOICE, "rms", "rms layer crms l1 dyt bhyt none",
     .help =
         "what the norms of the stream compute; crms: rms of a zero-mean vector of which the last value is "
         "not kept; l1: by the mean absolute deviation; dyt, bhyt: tanh",
     .source = "rms: Zhang and Sennrich, arXiv:1910.07467; layer: Ba et al., arXiv:1607.06450; crms: "
               "arXiv:2305.14858; l1: arXiv:2411.10948; dyt: arXiv:2503.10622; bhyt: arXiv:2601.09719"},
    {"model.norm.inner_kind", KEY_CHOICE, "rms", "rms layer l2",
     .help = "what the norms of q, k, v, context and ffn_hidden compute; l2: x / |x|"},
    {"model.norm.eps", KEY_NUMBER, "1e-5", .max = 1, .help = "added to the mean square inside the root"},
    {"model.norm.inner_eps", KEY_NUMBER, "auto", "auto", .max = 1,
     .help = "the same of the inner norms and of out norms; auto: eps"},
    {"model.norm.affine", KEY_CHOICE, "scale", "scale none scale_bias",
     .help = "what is learned: a gain, nothing, a gain and a bias"},
    {"model.norm.statistics", KEY_CHOICE, "f32", "f32 native",
     .help = "precision that statistics are kept in: f32, or the activations' own (bf16)"},
    {"model.norm.attn", KEY_CHOICES, "pre", "stream pre out post",
     .help = "norms around attention: stream: of the stream itself; pre: of the branch's input; out: of its "
             "output; post: after the addition"},
    {"model.norm.ffn", KEY_CHOICES, "pre", "stream pre out post", .help = "norms around the feed-forward"},
    {"model.norm.q", KEY_CHOICE, "none", "none head full",
     .help = "norm of the queries, over each head or over the whole width", .source = "arXiv:2010.04245"},
    {"model.norm.k", KEY_CHOICE, "none", "none head full", .help = "norm of the keys",
     .source = "arXiv:2010.04245"},
    {"model.norm.v", KEY_CHOICE, "none", "none head full",
     .help = "norm of the values; the cache holds normed ones", .source = "HybridNorm, arXiv:2503.04598"},
    {"model.norm.context", KEY_CHOICE, "none", "none head full",
     .help = "norm of what attention gathered, before the output map",
     .source = "HybridNorm, arXiv:2503.04598"},
    {"model.norm.ffn_hidden", KEY_CHOICE, "none", "none fused split",
     .help = "norm of the feed-forward's hidden values before the activation: fused: gate and up together, "
             "split: each by itself (in experts always)",
     .source = "SDD, arXiv:2502.15499"},
    {"model.norm.embedding", KEY_CHOICE, "false", "false true scale",
     .help = "a norm after the embedding; scale: a learned factor that starts at sqrt(width)",
     .source = "true: Peri-LN, arXiv:2502.02732; scale: DyT, arXiv:2503.10622"},
    {"model.norm.final", KEY_BOOL, "true", .help = "a norm before the head"},
    {"model.norm.depth_scale", KEY_CHOICE, "none", "none inv_sqrt",
     .help = "factor of the pre norms' output: inv_sqrt: 1/sqrt(l), l the layer from 1",
     .source = "LayerNorm Scaling, arXiv:2502.05795"},
    {"model.norm.out_gain", KEY_NUMBER, "1", "inv_sqrt_2L inv_sqrt_L", .max = 1e3,
     .help = "first value of the out norms' gains: a number, 1/sqrt(2 layers), 1/sqrt(layers)",
     .source = "SDD, arXiv:2502.15499"},
    {"model.norm.mix_share", KEY_NUMBER, "0.25", .max = 1, .unit = "share of the layers",
     .help = "the first layers that have post norms in place of norm.attn and norm.ffn, rounded down",
     .source = "Mix-LN, arXiv:2412.13795", .only = "model.norm.preset=mix"},
    {"model.norm.gate_rank", KEY_COUNT, "0", .max = 65536, .unit = "values",
     .help = "pre norms gated by their own output through a map of this rank; 0: not",
     .source = "GatedNorm, arXiv:2601.22966"},
    {"model.norm.pre_affine", KEY_BOOL, "false",
     .help = "a learned vector before the statistics of pre norms", .source = "PreAffine, arXiv:2601.22966"},
    {"model.norm.alpha", KEY_NUMBER, "0.5", .min = 1e-6, .max = 1e3,
     .help = "first value of the learned factor of x; smaller for wider models", .source = "arXiv:2503.10622",
     .only = "model.norm.kind=dyt"},
    {"model.norm.kappa", KEY_NUMBER, "10", .min = 1e-3, .max = 1e6, .unit = "standard deviations",
     .help = "how much of x lies on the straight part of tanh", .source = "arXiv:2601.09719",
     .only = "model.norm.kind=bhyt"},
    {"model.norm.lambda", KEY_NUMBER, "1", .min = 1e-6, .max = 1e6,
     .help = "first value of the learned factor; lambda/kappa below 1/sqrt(layers) is stable",
     .source = "arXiv:2601.09719", .only = "model.norm.kind=bhyt"},
    {0},
};

/* ---- kernels: how one norm becomes a node; rows are normalised in HEADS groups */
typedef struct norm_kind norm_kind;
typedef struct place { // of one norm
    const norm_kind *kind;
    const char *name; // "norm_pre": prefix of its parameters
    i64 heads;
    double eps, gain; // gain: its first value
    bool stream;      // its output is the stream: kept as the stream is stored
} place;
struct norm_kind {
    const char *name;
    const char *equation; // of what has no statistics: for messages
    bool own_bias;        // the kernel takes the bias itself
    tensor *(*apply)(model_builder *b, const place *p, tensor *x, tensor *gain, tensor *bias);
};

static double native(const model_builder *b) { return of_is(b, "model.norm.statistics", "native"); }

static tensor *vector(model_builder *b, const char *norm, const char *what, i64 n, param_info info)
{
    return g_param(b->g, g_path(b->g, arena_printf(b->g->arena, "%s.%s", norm, what)), 1, &n, &info);
}
static tensor *scalar(model_builder *b, const place *p, const char *what, double first)
{
    return vector(b, p->name, what, 1, (param_info){.kind = PARAM_VECTOR, .constant = first, .f32 = true});
}

static tensor *apply_rms(model_builder *b, const place *p, tensor *x, tensor *gain, tensor *bias)
{
    (void)bias;
    return g_out(g_node(b->g, OP_rms_norm, IN(x, gain),
                        WITH({"eps", p->eps}, {"heads", (double)p->heads}, {"as_x", p->stream},
                             {"native", native(b)})),
                 0);
}
static tensor *apply_layer(model_builder *b, const place *p, tensor *x, tensor *gain, tensor *bias)
{
    return g_out(g_node(b->g, OP_layer_norm, IN(x, gain, bias),
                        WITH({"eps", p->eps}, {"heads", (double)p->heads}, {"as_x", p->stream},
                             {"native", native(b)})),
                 0);
}
/* gain x / (sum x^2 + eps)^(1/2) = RMSNorm with eps/n, divided by sqrt(n). */
static tensor *apply_l2(model_builder *b, const place *p, tensor *x, tensor *gain, tensor *bias)
{
    double n = (double)(cols(x) / p->heads);
    place q = *p;
    q.eps /= n;
    return g_out(g_node(b->g, OP_scale, IN(apply_rms(b, &q, x, gain, bias)), WITH({"a", 1 / sqrt(n)})), 0);
}
static tensor *apply_crms(model_builder *b, const place *p, tensor *x, tensor *gain, tensor *bias)
{
    (void)bias;
    return g_out(g_node(b->g, OP_crms_norm, IN(x, gain),
                        WITH({"eps", p->eps}, {"as_x", p->stream}, {"native", native(b)})),
                 0);
}
static tensor *apply_l1(model_builder *b, const place *p, tensor *x, tensor *gain, tensor *bias)
{
    (void)bias;
    return g_out(g_node(b->g, OP_l1_norm, IN(x, gain),
                        WITH({"eps", p->eps}, {"as_x", p->stream}, {"native", native(b)})),
                 0);
}
static tensor *apply_dyt(model_builder *b, const place *p, tensor *x, tensor *gain, tensor *bias)
{
    (void)bias;
    tensor *alpha = scalar(b, p, "alpha", of_number(b, "model.norm.alpha"));
    return g_out(g_node(b->g, OP_dyt, IN(x, gain, alpha), WITH({"as_x", p->stream})), 0);
}
static tensor *apply_bhyt(model_builder *b, const place *p, tensor *x, tensor *gain, tensor *bias)
{
    (void)bias;
    tensor *lambda = scalar(b, p, "lambda", of_number(b, "model.norm.lambda"));
    return g_out(g_node(b->g, OP_bhyt, IN(x, gain, lambda),
                        WITH({"eps", p->eps}, {"kappa", of_number(b, "model.norm.kappa")},
                             {"as_x", p->stream}, {"native", native(b)})),
                 0);
}
/* In the order of the choices of norm.kind and norm.inner_kind. */
static const norm_kind kinds[] = {
    {"rms", NULL, false, apply_rms},
    {"layer", NULL, true, apply_layer},
    {"crms", NULL, false, apply_crms},
    {"l1", NULL, false, apply_l1},
    {"dyt", "y = gain tanh(alpha x)", false, apply_dyt},
    {"bhyt", NULL, false, apply_bhyt},
    {"none", "y = x", false, NULL},
};
static const norm_kind inner_kinds[] = {
    {"rms", NULL, false, apply_rms}, {"layer", NULL, true, apply_layer}, {"l2", NULL, false, apply_l2}};

static const norm_kind *chosen(const model_builder *b) { return &kinds[of_choice(b, "model.norm.kind")]; }
static const norm_kind *chosen_inner(const model_builder *b)
{
    return &inner_kinds[of_choice(b, "model.norm.inner_kind")];
}
static double inner_eps(const model_builder *b)
{
    double eps = of_number(b, "model.norm.inner_eps");
    return isnan(eps) ? of_number(b, "model.norm.eps") : eps;
}

static tensor *norm(model_builder *b, const place *p, tensor *x)
{
    if (b->g->failed || !p->kind->apply) return x;
    i64 n = cols(x) / p->heads;
    param_info info = init_gain();
    info.constant = p->gain;
    tensor *gain = of_is(b, "model.norm.affine", "none") ? NULL : vector(b, p->name, "gain", n, info);
    tensor *bias =
        of_is(b, "model.norm.affine", "scale_bias") ? vector(b, p->name, "bias", n, init_bias()) : NULL;
    tensor *y = p->kind->apply(b, p, x, gain, bias);
    if (!bias || p->kind->own_bias) return y;
    return g_out(g_node(b->g, OP_affine, IN(y, NULL, bias), WITH({"heads", (double)p->heads})), 0);
}

/* ---- sites */
static const char *around_key(branch which)
{
    return which == BRANCH_ATTENTION ? "model.norm.attn" : "model.norm.ffn";
}

static bool has_site(const model_builder *b, branch which, norm_site site)
{
    static const char *const choice[] = {"stream", "pre", "out", "post"};
    const char *key = around_key(which);
    if (of_is(b, "model.norm.preset", "mix") && b->layer >= 0) { // unless model.override says otherwise
        double post = floor(of_number(b, "model.norm.mix_share") * (double)b->layers + 1e-9);
        bool own = strcmp(config_where_at(b->c, b->layer, key), config_where(b->c, key)) != 0;
        if ((double)b->layer < post && !own) return site == NORM_POST;
    }
    return of_has(b, key, choice[site]);
}

double norm_out_gain(const model_builder *b)
{
    double layers = (double)b->layers;
    if (of_is(b, "model.norm.out_gain", "inv_sqrt_2L")) return 1 / sqrt(2 * layers);
    return of_is(b, "model.norm.out_gain", "inv_sqrt_L") ? 1 / sqrt(layers)
                                                         : of_number(b, "model.norm.out_gain");
}

/* y sigmoid(W_up silu(W_down y)) */
static tensor *gated(model_builder *b, const char *name, i64 rank, tensor *y)
{
    const char *scope = g_push(b->g, "%s", name);
    i64 d = cols(y);
    linear_map down = {1, {"down"}, {rank}, PART_HELPER, false}, up = {1, {"up"}, {d}, PART_HELPER, false};
    tensor *h = linear_slot(b, &down, y);
    h = g_out(g_node(b->g, OP_activation, IN(h), WITH({"kind", ACTIVATION_silu})), 0);
    tensor *both = g_out(g_node(b->g, OP_concat, IN(linear_slot(b, &up, h), y), NO_ATTRS), 0);
    g_pop(b->g, scope);
    return g_out(g_node(b->g, OP_gated, IN(both), WITH({"kind", ACTIVATION_sigmoid})), 0);
}

static tensor *pre_norm(model_builder *b, const place *p, tensor *x)
{
    i64 rank = of_count(b, "model.norm.gate_rank");
    if (!p->kind->apply) return x;
    if (of_flag(b, "model.norm.pre_affine")) {
        tensor *before = vector(b, p->name, "before", cols(x), init_gain());
        x = g_out(g_node(b->g, OP_affine, IN(x, before), NO_ATTRS), 0);
    }
    x = norm(b, p, x);
    if (rank > 0 && !b->g->failed) x = gated(b, p->name, rank, x);
    if (of_is(b, "model.norm.depth_scale", "inv_sqrt"))
        x = g_out(g_node(b->g, OP_scale, IN(x), WITH({"a", 1 / sqrt((double)b->layer + 1)})), 0);
    return x;
}

tensor *norm_around(model_builder *b, branch which, norm_site site, tensor *x)
{
    static const char *const name[] = {"norm_stream", "norm_pre", "norm_out", "norm_post"};
    bool done = site == NORM_OUT && b->out_normed;
    if (site == NORM_OUT) b->out_normed = false;
    if (done || !has_site(b, which, site)) return x;
    place p = {.kind = chosen(b),
               .name = name[site],
               .heads = 1,
               .eps = site == NORM_OUT ? inner_eps(b) : of_number(b, "model.norm.eps"),
               .gain = site == NORM_OUT ? norm_out_gain(b) : 1,
               .stream = site == NORM_STREAM || site == NORM_POST};
    return site == NORM_PRE ? pre_norm(b, &p, x) : norm(b, &p, x);
}

static place inner_place(const model_builder *b, const char *name, i64 heads)
{
    return (place){.kind = chosen_inner(b), .name = name, .heads = heads, .eps = inner_eps(b), .gain = 1};
}

tensor *norm_inner(model_builder *b, inner_site site, i64 heads, tensor *x)
{
    static const char *const key[] = {"model.norm.q", "model.norm.k", "model.norm.v", "model.norm.context"};
    static const char *const name[] = {"norm_q", "norm_k", "norm_v", "norm_context"};
    if (of_is(b, key[site], "none")) return x;
    place p = inner_place(b, name[site], of_is(b, key[site], "head") ? heads : 1);
    return norm(b, &p, x);
}

const char *norm_after(const model_builder *b, const char *name, bool experts)
{
    static const struct {
        const char *map, *key;
    } inner[] = {{"q", "model.norm.q"},
                 {"k", "model.norm.k"},
                 {"v", "model.norm.v"},
                 {"gate", "model.norm.ffn_hidden"},
                 {"up", "model.norm.ffn_hidden"}};
    branch which = !strcmp(name, "o") ? BRANCH_ATTENTION : BRANCH_FFN;
    if (!strncmp(config_text(b->c, "model.norm.preset"), "sdd", 3)) return "model.norm.preset";
    for (i64 i = 0; i < COUNT(inner); i++)
        if (!strcmp(inner[i].map, name)) return of_is(b, inner[i].key, "none") ? NULL : inner[i].key;
    if (experts && of_is(b, "model.norm.ffn_hidden", "none")) return NULL; // an out norm reads their sum
    return chosen(b)->apply && has_site(b, which, NORM_OUT) ? around_key(which) : NULL;
}

const char *norm_any(const model_builder *b)
{
    static const char *const inner[] = {"model.norm.q", "model.norm.k", "model.norm.v", "model.norm.context",
                                        "model.norm.ffn_hidden"};
    bool on = chosen(b)->apply != NULL;
    if (b->layer < 0) {
        if (on && of_is(b, "model.norm.embedding", "true")) return "model.norm.embedding";
        return on && of_flag(b, "model.norm.final") ? "model.norm.final" : NULL;
    }
    for (i64 k = 0; k < COUNT(inner); k++)
        if (!of_is(b, inner[k], "none")) return inner[k];
    if (of_is(b, "model.linear.kind", "sdd")) return "model.linear.kind";
    for (int which = BRANCH_ATTENTION; on && which <= BRANCH_FFN; which++)
        for (int site = NORM_STREAM; site <= NORM_POST; site++)
            if (has_site(b, (branch)which, (norm_site)site)) return around_key((branch)which);
    return NULL;
}

tensor *norm_hidden(model_builder *b, bool paired, tensor *h)
{
    place p = inner_place(b, "norm_hidden", 1);
    if (b->g->failed || of_is(b, "model.norm.ffn_hidden", "none")) return h;
    if (of_is(b, "model.norm.ffn_hidden", "fused")) return norm(b, &p, h);
    if (!paired) {
        refuse(
            b, "model.norm.ffn_hidden",
            "is split, which norms W_gate x and W_up x each by itself; this feed-forward has one input map "
            "(use fused)");
        return h;
    }
    double half = (double)cols(h) / 2;
    node *parts = g_node(b->g, OP_split, IN(h), WITH({"n0", half}, {"n1", half}));
    p.name = "norm_gate";
    tensor *gate = norm(b, &p, g_out(parts, 0));
    p.name = "norm_up";
    return g_out(g_node(b->g, OP_concat, IN(gate, norm(b, &p, g_out(parts, 1))), NO_ATTRS), 0);
}

/* A norm without gain, then the expert's gain; a bias is shared by the experts. */
static tensor *norm_rows_of_experts(model_builder *b, place *p, i64 experts, tensor *offsets, tensor *x)
{
    if (b->g->failed || !p->kind->apply) return x;
    param_info info = init_gain();
    info.constant = p->gain;
    i64 n = cols(x);
    tensor *y = p->kind->apply(b, p, x, NULL, NULL);
    if (of_is(b, "model.norm.affine", "none")) return y;
    tensor *gain = g_param(b->g, g_path(b->g, arena_printf(b->g->arena, "%s.gain", p->name)), 2,
                           (i64[]){experts, n}, &info);
    y = g_out(g_node(b->g, OP_expert_gain, IN(y, gain, offsets), NO_ATTRS), 0);
    if (!of_is(b, "model.norm.affine", "scale_bias")) return y;
    return g_out(g_node(b->g, OP_affine, IN(y, NULL, vector(b, p->name, "bias", n, init_bias())), NO_ATTRS),
                 0);
}

tensor *norm_expert_hidden(model_builder *b, i64 experts, tensor *offsets, bool paired, tensor *h)
{
    place p = inner_place(b, "norm_hidden", 1 + paired);
    if (of_is(b, "model.norm.ffn_hidden", "none")) return h;
    return norm_rows_of_experts(b, &p, experts, offsets, h);
}

tensor *norm_expert_out(model_builder *b, i64 experts, tensor *offsets, tensor *y)
{
    place p = {chosen(b), "norm_out", 1, inner_eps(b), norm_out_gain(b), false};
    if (of_is(b, "model.norm.ffn_hidden", "none") || !has_site(b, BRANCH_FFN, NORM_OUT)) return y;
    b->out_normed = true;
    return offsets ? norm_rows_of_experts(b, &p, experts, offsets, y) : norm(b, &p, y);
}

tensor *norm_gated(model_builder *b, double kind, tensor *h)
{
    place p = inner_place(b, "norm_hidden", 1);
    if (b->g->failed || of_is(b, "model.norm.ffn_hidden", "none") || p.kind != &inner_kinds[0] ||
        of_is(b, "model.norm.affine", "scale_bias"))
        return NULL;
    bool split = of_is(b, "model.norm.ffn_hidden", "split");
    tensor *gain =
        of_is(b, "model.norm.affine", "none") ? NULL : vector(b, p.name, "gain", cols(h), init_gain());
    return g_out(g_node(b->g, OP_norm_gated, IN(h, gain),
                        WITH({"kind", kind}, {"parts", 1 + split}, {"eps", p.eps}, {"native", native(b)})),
                 0);
}

tensor *norm_beside_ffn(model_builder *b, tensor *x)
{
    bool normed = has_site(b, BRANCH_FFN, NORM_PRE) || has_site(b, BRANCH_FFN, NORM_STREAM) ||
                  has_site(b, BRANCH_ATTENTION, NORM_POST);
    place p = {chosen(b), "norm_in", 1, of_number(b, "model.norm.eps"), 1, false};
    return normed ? x : norm(b, &p, x);
}

tensor *norm_embedding(model_builder *b, tensor *x)
{
    place p = {chosen(b), "norm_embedding", 1, of_number(b, "model.norm.eps"), 1, true};
    if (of_is(b, "model.norm.embedding", "true")) return norm(b, &p, x);
    if (b->g->failed || !of_is(b, "model.norm.embedding", "scale")) return x;
    tensor *factor = scalar(b, &p, "scale", sqrt(transfer_base(b)));
    return g_out(g_node(b->g, OP_affine, IN(x, factor), WITH({"heads", (double)cols(x)})), 0);
}

/* What has no meaning, whatever the layers say. */
static void check(model_builder *b)
{
    bool any[4] = {0}, inner = false, statistics = false;
    static const char *const inner_key[] = {"model.norm.q", "model.norm.k", "model.norm.v",
                                            "model.norm.context", "model.norm.ffn_hidden"};
    model_builder at = *b;
    for (at.layer = 0; at.layer < b->layers; at.layer++) {
        for (int site = 0; site < 4; site++)
            any[site] |= chosen(&at)->apply && (has_site(&at, BRANCH_ATTENTION, (norm_site)site) ||
                                                has_site(&at, BRANCH_FFN, (norm_site)site));
        statistics |= !chosen(&at)->equation;
        for (i64 k = 0; k < COUNT(inner_key); k++) inner |= !of_is(&at, inner_key[k], "none");
    }
    if (of_is(b, "model.norm.statistics", "native") && !statistics && !inner)
        refuse(b, "model.norm.statistics", "is native; %s (model.norm.kind: %s) has no statistics",
               chosen(b)->equation, chosen(b)->name);
    if (!any[NORM_PRE] && of_is(b, "model.norm.depth_scale", "inv_sqrt"))
        refuse(b, "model.norm.depth_scale",
               "is inv_sqrt; h = s_l N(u) scales pre norms, and no layer has one (norm.attn, norm.ffn)");
    if (!any[NORM_PRE] && of_count(b, "model.norm.gate_rank") > 0)
        refuse(
            b, "model.norm.gate_rank",
            "is %lld; y sigmoid(W_up silu(W_down y)) gates the output y of pre norms, and no layer has one",
            (long long)of_count(b, "model.norm.gate_rank"));
    if (!any[NORM_PRE] && of_flag(b, "model.norm.pre_affine"))
        refuse(b, "model.norm.pre_affine", "is true; N(l * u) is a pre norm, and no layer has one");
    if (norm_out_gain(b) != 1 && !any[NORM_OUT] && !linear_norms(b, "o") && !linear_norms(b, "down"))
        refuse(b, "model.norm.out_gain",
               "is %s; it is where the gain of b = N(F(h)) starts, and no layer has an out norm",
               config_text(b->c, "model.norm.out_gain"));
    if (norm_out_gain(b) != 1 && of_is(b, "model.norm.affine", "none"))
        refuse(b, "model.norm.out_gain",
               "is %s; it is where gains start, and with model.norm.affine: none there are none",
               config_text(b->c, "model.norm.out_gain"));
}

tensor *norm_final(model_builder *b, tensor *x)
{
    check(b);
    place p = {chosen(b), "norm_final", 1, of_number(b, "model.norm.eps"), 1, false};
    if (!strcmp(p.kind->name, "bhyt")) p.kind = &kinds[0]; // as its authors have it
    if (of_flag(b, "model.norm.final")) x = norm(b, &p, x);
    if (b->g->failed || x->dtype == b->shape->act) return x;
    return g_out(g_node(b->g, OP_cast, IN(x), WITH({"to", b->shape->act})), 0);
}
