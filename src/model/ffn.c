/* ffn: the feed-forward branch.
 *
 *   gated   W_down (act(W_gate x) * W_up x)
 *   mlp     W_down act(W_up x)
 */
#include "model/build.h"
#include "ops/activations.h"

const config_key ffn_keys[] = {
    {"model.ffn.kind", KEY_CHOICE, "gated", "gated mlp",
     .help = "gated: W3 (act(W1 x) * W2 x); mlp: W2 act(W1 x)", .source = "gated: Shazeer, arXiv:2002.05202"},
    {"model.ffn.activation", KEY_CHOICE, "silu", "silu gelu gelu_tanh relu relu2",
     .help = "the function between the maps",
     .source = "gelu: Hendrycks and Gimpel, arXiv:1606.08415; relu2: So et al., arXiv:2109.08668"},
    {"model.ffn.width", KEY_COUNT, "auto", "auto", .min = 1, .max = 1 << 20, .unit = "values",
     .help = "inner width; auto: gated: 8/3 width, up to a multiple of 64; mlp: 3/2 of that"},
    {0},
};

static i64 inner_width(const model_builder *b, bool gated)
{
    i64 given = of_count(b, "model.ffn.width"), base = round_up((8 * b->width + 2) / 3, 64);
    return given > 0 ? given : gated ? base : base * 3 / 2;
}

/* The function between the maps: gated halves H's width, [gate | up]. */
tensor *ffn_activate(model_builder *b, bool gated, tensor *h)
{
    double kind = (double)activation_find(config_text_at(b->c, b->layer, "model.ffn.activation"));
    return g_out(g_node(b->g, gated ? OP_gated : OP_activation, IN(h), WITH({"kind", kind})), 0);
}

tensor *ffn_dense(model_builder *b, bool gated, i64 width, tensor *x)
{
    bool bias = of_is(b, "model.bias", "true");
    linear_map in = {1, {"up"}, {width}, PART_IN, bias}, out = {1, {"down"}, {b->width}, PART_FFN_OUT, bias};
    if (gated) in = (linear_map){2, {"gate", "up"}, {width, width}, PART_IN, bias};
    tensor *h = norm_hidden(b, gated, linear_slot(b, &in, x));
    return linear_slot(b, &out, ffn_activate(b, gated, h));
}

static tensor *gated(model_builder *b, tensor *x) { return ffn_dense(b, true, inner_width(b, true), x); }
static tensor *mlp(model_builder *b, tensor *x) { return ffn_dense(b, false, inner_width(b, false), x); }

static tensor *(*const kinds[])(model_builder *b, tensor *x) = {gated, mlp};

tensor *ffn_slot(model_builder *b, tensor *x) { return kinds[of_choice(b, "model.ffn.kind")](b, x); }
