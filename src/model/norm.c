/* norm: every norm of a model, by site (normalization spec, part 1):
 *
 *     u = Ns(x)          stream   skip path and branch see it
 *     h = Np(u)          pre      the branch only
 *     b = No(F(h))       out      before the addition
 *     y = Nq(u + b)      post     after it
 *
 * inside attention q, k, v (before RoPE) and the context (before the output map), over heads (one gain shared
 * by all heads) or over the whole width; then the embedding and the final norm. A placement method is a row
 * of norm_presets. */
#include "model/build.h"
#include "model/methods.h"
#include <string.h>

const config_key norm_keys[] = {
    {"model.norm.preset", KEY_CHOICE, "pre", "pre pre_qk post olmo2 hybrid hybrid_star",
     .help = "a known placement; sets the keys listed under Presets",
     .source = "pre_qk: Henry et al., arXiv:2010.04245; olmo2: arXiv:2501.00656; hybrid: HybridNorm, "
               "arXiv:2503.04598"},
    {"model.norm.kind", KEY_CHOICE, "rms", "rms layer none", .help = "what the norms of the stream compute",
     .source = "rms: Zhang and Sennrich, arXiv:1910.07467; layer: Ba et al., arXiv:1607.06450"},
    {"model.norm.eps", KEY_NUMBER, "1e-5", .max = 1, .help = "added to the mean square inside the root"},
    {"model.norm.affine", KEY_CHOICE, "scale", "scale none scale_bias",
     .help = "what is learned: a gain, nothing, a gain and a bias"},
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
    {"model.norm.embedding", KEY_BOOL, "false", .help = "a norm after the embedding"},
    {"model.norm.final", KEY_BOOL, "true", .help = "a norm before the head"},
    {0},
};

/* HybridNorm: queries, keys and values normed by head, nothing before attention; the feed-forward reads, and
 * is added to, the normed stream. Its star: the first block has pre norms instead. Both need their
 * initialization (spread of the maps back to the stream divided by sqrt(2 layers)); their gains decay. */
#define HYBRID(name, first_block)                                                                            \
    {                                                                                                        \
        "model.norm.preset", name,                                                                           \
            "model.norm.attn=[] model.norm.ffn=[stream] model.norm.q=head model.norm.k=head "                \
            "model.norm.v=head "                                                                             \
            "model.norm.context=none model.norm.embedding=false model.norm.final=true "                      \
            "model.init.kind=megatron "                                                                      \
            "train.optimizer.decay=[matrix, head, gain]" first_block                                         \
    }
const config_preset norm_presets[] = {
    {"model.norm.preset", "pre",
     "model.norm.attn=[pre] model.norm.ffn=[pre] model.norm.q=none model.norm.k=none model.norm.v=none "
     "model.norm.context=none model.norm.embedding=false "
     "model.norm.final=true"},
    {"model.norm.preset", "pre_qk",
     "model.norm.attn=[pre] model.norm.ffn=[pre] model.norm.q=head model.norm.k=head model.norm.v=none "
     "model.norm.context=none model.norm.embedding=false "
     "model.norm.final=true"},
    {"model.norm.preset", "post",
     "model.norm.attn=[post] model.norm.ffn=[post] model.norm.q=none model.norm.k=none model.norm.v=none "
     "model.norm.context=none model.norm.embedding=false "
     "model.norm.final=false"},
    {"model.norm.preset", "olmo2",
     "model.norm.attn=[out] model.norm.ffn=[out] model.norm.q=full model.norm.k=full model.norm.v=none "
     "model.norm.context=none model.norm.embedding=false "
     "model.norm.final=true model.init.kind=normal model.init.std=0.02 model.head.z_loss=1e-5"},
    HYBRID("hybrid", ""),
    HYBRID("hybrid_star", " model.override=[{layers: 0, norm.attn: [pre], norm.ffn: [pre]}]"),
    {0},
};

const method_row norm_methods[] = {
    {"pre_qk", "norm", .common = true, .settings = "model.norm.preset=pre_qk"},
    {"post", "norm", .settings = "model.norm.preset=post"},
    {"olmo2", "norm", .settings = "model.norm.preset=olmo2"},
    {"hybrid", "norm", .settings = "model.norm.preset=hybrid"},
    {"hybrid_star", "norm", .common = true, .settings = "model.norm.preset=hybrid_star"},
    {0},
};

/* ---- kernels: how one norm becomes a node; rows are normalised in HEADS groups */
typedef struct norm_kind {
    const char *name;
    tensor *(*apply)(model_builder *b, tensor *x, tensor *gain, tensor *bias, i64 heads);
} norm_kind;

static tensor *apply_rms(model_builder *b, tensor *x, tensor *gain, tensor *bias, i64 heads)
{
    if (bias)
        refuse(b, "model.norm.affine", "is scale_bias; the rms norm has no bias (use scale, or kind layer)");
    return g_out(g_node(b->g, OP_rms_norm, IN(x, gain),
                        WITH({"eps", of_number(b, "model.norm.eps")}, {"heads", (double)heads})),
                 0);
}
static tensor *apply_layer(model_builder *b, tensor *x, tensor *gain, tensor *bias, i64 heads)
{
    (void)heads;
    return g_out(
        g_node(b->g, OP_layer_norm, IN(x, gain, bias), WITH({"eps", of_number(b, "model.norm.eps")})), 0);
}
static tensor *apply_none(model_builder *b, tensor *x, tensor *gain, tensor *bias, i64 heads)
{
    (void)b, (void)gain, (void)bias, (void)heads;
    return x;
}
static const norm_kind kinds[] = {{"rms", apply_rms}, {"layer", apply_layer}, {"none", apply_none}};

static const norm_kind *chosen(const model_builder *b)
{
    for (i64 i = 0; i < COUNT(kinds); i++)
        if (of_is(b, "model.norm.kind", kinds[i].name)) return &kinds[i];
    return &kinds[0];
}

static tensor *vector(model_builder *b, const char *norm, const char *what, i64 n, param_info info)
{
    return g_param(b->g, g_path(b->g, arena_printf(b->g->arena, "%s.%s", norm, what)), 1, &n, &info);
}

static tensor *norm(model_builder *b, const norm_kind *kind, const char *name, tensor *x, i64 heads)
{
    bool learned = kind->apply != apply_none && !of_is(b, "model.norm.affine", "none");
    bool biased = learned && of_is(b, "model.norm.affine", "scale_bias") && kind->apply == apply_layer;
    tensor *gain = learned ? vector(b, name, "gain", cols(x) / heads, init_gain()) : NULL;
    tensor *bias = biased ? vector(b, name, "bias", cols(x) / heads, init_bias()) : NULL;
    return kind->apply(b, x, gain, bias, heads);
}

/* ---- sites */
tensor *norm_around(model_builder *b, branch which, norm_site site, tensor *x)
{
    static const char *const choice[] = {"stream", "pre", "out", "post"};
    static const char *const name[] = {"norm_stream", "norm_pre", "norm_out", "norm_post"};
    const char *key = which == BRANCH_ATTENTION ? "model.norm.attn" : "model.norm.ffn";
    if (!of_has(b, key, choice[site])) return x;
    return norm(b, chosen(b), name[site], x, 1);
}

tensor *norm_inner(model_builder *b, inner_site site, i64 heads, tensor *x)
{
    static const char *const key[] = {"model.norm.q", "model.norm.k", "model.norm.v", "model.norm.context"};
    static const char *const name[] = {"norm_q", "norm_k", "norm_v", "norm_context"};
    if (of_is(b, key[site], "none")) return x;
    return norm(b, &kinds[0], name[site], x, of_is(b, key[site], "head") ? heads : 1);
}

tensor *norm_embedding(model_builder *b, tensor *x)
{
    return of_flag(b, "model.norm.embedding") ? norm(b, chosen(b), "norm_embedding", x, 1) : x;
}

tensor *norm_final(model_builder *b, tensor *x)
{
    return of_flag(b, "model.norm.final") ? norm(b, chosen(b), "norm_final", x, 1) : x;
}
