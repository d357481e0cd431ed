/* ffn: the feed-forward branch.
 *
 *   gated   W_down (act(W_gate x) * W_up x)              drelu: act is max(x, 0), of both maps
 *   mlp     W_down act(W_up x)
 *   moe     a few of many such layers, chosen by a router: see moe.c
 *
 * The activation is a function of each value (ops/activations.h) or of the whole row: PolyCom's polynomials,
 * ops/poly_norm.c and poly_relu.c, whose order + 1 coefficients are parameters of the layer, start at 1/order
 * and 0, and do not decay. They stand in place of a gate.
 *
 * With selu, model.dropout means alpha dropout here: right after the activation, where mean 0 and variance 1
 * are its fixed point, instead of dropout of the branch's output. Its matrices start as init.kind lecun has
 * it.
 */
#include "model/build.h"
#include "model/methods.h"
#include "ops/activations.h"
#include <math.h>

const config_key ffn_keys[] = {
    {"model.ffn.kind", KEY_CHOICE, "gated", "gated mlp moe",
     .help = "gated: W3 (act(W1 x) * W2 x); mlp: W2 act(W1 x); moe: each token through a few of many such "
             "layers",
     .source = "gated: Shazeer, arXiv:2002.05202"},
    {"model.ffn.activation", KEY_CHOICE, "silu",
     "silu gelu gelu_tanh relu relu2 drelu elu selu poly_relu poly_norm",
     .help = "the function between the maps; drelu: relu of both maps, gated only; poly_relu, poly_norm: "
             "polynomials with learned coefficients, mlp only; selu: model.dropout is alpha dropout",
     .source =
         "gelu: Hendrycks and Gimpel, arXiv:1606.08415; relu2: So et al., arXiv:2109.08668; drelu: Song et "
         "al., arXiv:2406.05955; elu: Clevert et al., arXiv:1511.07289; selu: Klambauer et al., "
         "arXiv:1706.02515; poly_relu, poly_norm: PolyCom, Zhuo et al., arXiv:2411.03884"},
    {"model.ffn.width", KEY_COUNT, "auto", "auto", .min = 1, .max = 1 << 20, .unit = "values",
     .help =
         "inner width; auto: gated: 8/3 width, up to a multiple of 64; mlp: 3/2 of that; moe: of one expert, "
         "that divided by the experts a token passes through, up to a multiple of 16"},
    {"model.ffn.order", KEY_COUNT, "3", .min = 1, .max = 4, .unit = "powers",
     .help = "the highest power of the polynomial", .source = "arXiv:2411.03884",
     .only = "model.ffn.activation=poly_relu poly_norm"},
    {"model.ffn.poly_eps", KEY_NUMBER, "1e-6", .min = 1e-12, .max = 1,
     .help = "added to the mean square of each power", .source = "arXiv:2411.03884",
     .only = "model.ffn.activation=poly_norm"},
    {0},
};

/* selu's fixed point needs weights N(0, 1/inputs). */
const config_preset ffn_presets[] = {{"model.ffn.activation", "selu", "model.init.kind=lecun"}, {0}};

#define UNGATED "model.ffn.kind=mlp model.ffn.width=auto model.ffn.activation=" // equal parameters
const method_row ffn_methods[] = {
    {"poly_norm", "ffn", .common = true, .settings = UNGATED "poly_norm", .limit = 1.03},
    {"poly_relu", "ffn", .settings = UNGATED "poly_relu"},
    {"relu2", "ffn", .settings = UNGATED "relu2"},
    {"drelu", "ffn", .settings = "model.ffn.activation=drelu"},
    {"elu", "ffn", .settings = UNGATED "elu"},
    {"selu", "ffn", .settings = UNGATED "selu"},
    {0},
};

i64 ffn_width(const model_builder *b, bool gated)
{
    i64 given = of_count(b, "model.ffn.width"), base = round_up((8 * b->width + 2) / 3, 64);
    return given > 0 ? given : gated ? base : base * 3 / 2;
}

static bool activation_is(const model_builder *b, const char *name)
{
    return of_is(b, "model.ffn.activation", name);
}

/* The key that gives a layer two maps or one: of experts, their own. */
static const char *maps_key(const model_builder *b)
{
    return of_is(b, "model.ffn.kind", "moe") ? "model.ffn.expert_kind" : "model.ffn.kind";
}

static tensor *polynomial(model_builder *b, bool gated, tensor *h)
{
    bool norm = activation_is(b, "poly_norm");
    i64 order = of_count(b, "model.ffn.order");
    param_info info = {.kind = PARAM_VECTOR, .constant = 1 / (double)order, .f32 = true};
    if (gated) {
        refuse(b, "model.ffn.activation",
               "is %s; PolyCom is W2 act(W1 x), whose polynomial stands in place of the gate, and has no "
               "act(W1 x) * W2 x (use %s: mlp)",
               norm ? "poly_norm" : "poly_relu", maps_key(b));
        return h;
    }
    const char *scope = g_push(b->g, "activation");
    tensor *weight = g_param(b->g, g_path(b->g, "weight"), 1, &order, &info);
    info.constant = 0;
    tensor *bias = g_param(b->g, g_path(b->g, "bias"), 1, (i64[]){1}, &info);
    g_pop(b->g, scope);
    if (!norm)
        return g_out(g_node(b->g, OP_poly_relu, IN(h, weight, bias), WITH({"order", (double)order})), 0);
    return g_out(g_node(b->g, OP_poly_norm, IN(h, weight, bias),
                        WITH({"order", (double)order}, {"eps", of_number(b, "model.ffn.poly_eps")})),
                 0);
}

static tensor *alpha_dropout(model_builder *b, bool gated, tensor *y)
{
    double p = config_number(b->c, "model.dropout"), tokens = (double)(b->shape->rows * b->shape->tokens);
    if (!(p > 0)) return y;
    if (gated) {
        refuse(
            b, "model.dropout",
            "is %g; with selu it is alpha dropout, which sets units to selu(-infinity) = -1.7581 and keeps "
            "selu's mean 0 and variance 1: the products selu(W1 x) * W2 x have neither (use %s: "
            "mlp, or dropout 0)",
            p, maps_key(b));
        return y;
    }
    if (b->shape->mode != MODE_TRAIN) return y;
    return g_out(g_node(b->g, OP_alpha_dropout, IN(y),
                        WITH({"p", p}, {"repeat", fmax(1, ceil((double)rows_of(y) / tokens))})),
                 0);
}

/* The function between the maps: gated halves H's width, [gate | up]. */
tensor *ffn_activate(model_builder *b, bool gated, tensor *h)
{
    bool drelu = activation_is(b, "drelu");
    if (activation_is(b, "poly_norm") || activation_is(b, "poly_relu")) return polynomial(b, gated, h);
    if (drelu && !gated)
        refuse(b, "model.ffn.activation",
               "is drelu; max(W1 x, 0) * max(W2 x, 0) needs both maps of %s: gated (mlp: relu)", maps_key(b));
    double kind =
        (double)activation_find(drelu ? "relu" : config_text_at(b->c, b->layer, "model.ffn.activation"));
    tensor *y = gated ? g_out(g_node(b->g, OP_gated, IN(h), WITH({"kind", kind}, {"both", drelu})), 0)
                      : g_out(g_node(b->g, OP_activation, IN(h), WITH({"kind", kind})), 0);
    return activation_is(b, "selu") ? alpha_dropout(b, gated, y) : y;
}

/* Norm and activation; as one op where both are plain: a gate of one function of each value. */
static tensor *between(model_builder *b, bool gated, tensor *h)
{
    static const char *const plain[] = {"silu", "gelu", "gelu_tanh", "relu", "relu2"};
    for (i64 k = 0; gated && k < COUNT(plain); k++) {
        if (!of_is(b, "model.ffn.activation", plain[k])) continue;
        tensor *y = norm_gated(b, (double)activation_find(plain[k]), h);
        if (y) return y;
    }
    return ffn_activate(b, gated, norm_hidden(b, gated, h));
}

tensor *ffn_dense(model_builder *b, bool gated, i64 width, tensor *x)
{
    bool bias = of_is(b, "model.bias", "true");
    linear_map in = {1, {"up"}, {width}, PART_IN, bias}, out = {1, {"down"}, {b->width}, PART_FFN_OUT, bias};
    if (gated) in = (linear_map){2, {"gate", "up"}, {width, width}, PART_IN, bias};
    return linear_slot(b, &out, between(b, gated, linear_slot(b, &in, x)));
}

static tensor *gated(model_builder *b, tensor *x) { return ffn_dense(b, true, ffn_width(b, true), x); }
static tensor *mlp(model_builder *b, tensor *x) { return ffn_dense(b, false, ffn_width(b, false), x); }

static tensor *(*const kinds[])(model_builder *b, tensor *x) = {gated, mlp, moe_slot};

tensor *ffn_slot(model_builder *b, tensor *x)
{
    tensor *y = kinds[of_choice(b, "model.ffn.kind")](b, x);
    return activation_is(b, "selu") ? y : dropout(b, y); // selu: it was dropped already
}
