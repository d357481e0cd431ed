/* init: the spread of a matrix's first values (normalization spec 1.4). With s = init.std, d the width, l the
 * layer from 1, L layers:
 *
 *   normal     s everywhere
 *   megatron   s / sqrt(2 L) for maps back to the stream, s elsewhere, untied head 1/sqrt(d)
 *   depth      s / sqrt(2 l) for maps back to the stream
 *   mitchell   1/sqrt(inputs) for maps from the stream, 1/sqrt(2 inputs l) back to it
 *   deepnorm   Xavier, g sqrt(2 / (inputs + outputs)): g = 1 for queries and keys, (8 L)^(-1/4) for values,
 *              attention's output and the feed-forward; s for the rest
 *   lecun      1/sqrt(inputs)
 *   eoc        sw/sqrt(inputs) in the blocks, biases there sb: the edge of chaos of the feed-forward's
 *              activation at variance 1 (edge_of_chaos.c); s for embedding and head. Only without norms.
 *   orthogonal orthonormal rows (or columns) times sqrt(outputs/inputs): a map keeps the root mean square of
 * what it reads (at most); s for embedding and head
 *
 * With muP d is the base model's width, and transfer.c goes on from there.
 * A residual wiring of several streams may want maps back to them smaller (residual_out_factor).
 */
#include "model/build.h"
#include "model/edge_of_chaos.h"
#include <math.h>
#include <string.h>

const config_key init_keys[] = {
    {"model.init.kind", KEY_CHOICE, "normal", "normal megatron depth mitchell deepnorm lecun orthogonal eoc",
     .help =
         "standard deviation of each matrix: normal: one for all; megatron: outputs to the stream divided by "
         "sqrt(2 layers); depth: by sqrt(2 l), l the layer from 1; mitchell: 1/sqrt(inputs), and depth; "
         "deepnorm: Xavier, with (8 layers)^(-1/4) for all but queries and keys; lecun: 1/sqrt(inputs); "
         "orthogonal: orthonormal rows or columns, times sqrt(outputs/inputs); eoc: sw/sqrt(inputs) in "
         "blocks, "
         "biases sb, at the edge of chaos of the activation; plain feed-forward, no norms",
     .source = "megatron: Shoeybi et al., arXiv:1909.08053; mitchell: OLMo, arXiv:2402.00838; deepnorm: "
               "arXiv:2203.00555; lecun: LeCun et al., Efficient BackProp (1998); orthogonal: "
               "arXiv:2507.13338; eoc: arXiv:1902.06853"},
    {"model.init.std", KEY_NUMBER, "auto", "auto", .min = 1e-9, .max = 10, .help = "auto: 1/sqrt(2.5 width)",
     .source = "HybridNorm, arXiv:2503.04598",
     .only = "model.init.kind=normal megatron depth deepnorm orthogonal eoc"},
    {"model.init.std_factor", KEY_NUMBER, "1", .min = 1e-9, .max = 1e3, .help = "multiplies every deviation"},
    {"model.init.truncate", KEY_NUMBER, "3", "none", .min = 0.1, .max = 100, .unit = "deviations",
     .help = "draws beyond this are drawn again"},
    {0},
};

enum { INIT_NORMAL, INIT_MEGATRON, INIT_DEPTH, INIT_MITCHELL, INIT_DEEPNORM, INIT_LECUN };

/* ---- the edge of chaos */
static bool is_eoc(const model_builder *b) { return of_is(b, "model.init.kind", "eoc"); }

/* The deviations in the layer under way; false where its activation has none. */
static bool edge(const model_builder *b, double *sw, double *sb)
{
    int phi = activation_find(
        of_is(b, "model.ffn.kind", "mlp") ? config_text_at(b->c, b->layer, "model.ffn.activation") : "");
    return phi >= 0 && edge_of_chaos((activation_kind)phi, 1, sw, sb);
}

/* The deviation that N(0, 1) has left when draws beyond BOUND are drawn again: what keeps the variance that a
 * fixed point asks for. */
static double left_by(double bound)
{
    double inside = erf(bound * M_SQRT1_2);
    return bound > 0 ? sqrt(1 - 2 * bound * exp(-bound * bound / 2) / sqrt(2 * M_PI) / inside) : 1;
}

/* Makes INFO draw numbers of deviation STD, times init.std_factor. */
static void draw(const model_builder *b, double std, param_info *info)
{
    double truncate = of_number(b, "model.init.truncate");
    info->truncate = isnan(truncate) ? 0 : truncate;
    info->std = std * of_number(b, "model.init.std_factor") / left_by(info->truncate);
}

static void check_layer(model_builder *b)
{
    static const char key[] = "model.init.kind";
    const char *norm = norm_any(b), *phi = config_text_at(b->c, b->layer, "model.ffn.activation");
    double sw, sb;
    if (norm)
        refuse(
            b, key,
            "is eoc; q = sb^2 + sw^2 E[phi(sqrt(q) Z)^2] is the fixed point of a stack without norms, and %s "
            "is %s (set model.norm.kind: none, model.linear.kind: dense and inner norms to none)",
            norm, config_text_at(b->c, b->layer, norm));
    if (norm || b->layer < 0) return;
    if (!of_is(b, "model.ffn.kind", "mlp"))
        refuse(b, key,
               "is eoc; sw^2 E[phi'(sqrt(q) Z)^2] = 1 is of one function phi of one map's output, and "
               "model.ffn.kind is %s (use mlp)",
               config_text_at(b->c, b->layer, "model.ffn.kind"));
    else if (!edge(b, &sw, &sb))
        refuse(
            b, key,
            "is eoc; sw^2 E[phi'(sqrt(q) Z)^2] = 1 and sb^2 = q - sw^2 E[phi(sqrt(q) Z)^2] >= 0 give no sw "
            "and sb at q = 1 with model.ffn.activation: %s (they need a fixed function of each value, like "
            "gelu, silu, elu, selu or relu)",
            phi);
    else if (sb * sb > 1e-9 && !of_is(b, "model.bias", "true"))
        refuse(b, key,
               "is eoc; q = sb^2 + sw^2 E[phi(sqrt(q) Z)^2] with model.ffn.activation: %s needs biases of "
               "variance sb^2 = %.4f, and model.bias is %s (set it to true, or use relu: sb = 0)",
               phi, sb * sb, config_text(b->c, "model.bias"));
}

void init_check(model_builder *b)
{
    model_builder at = *b;
    for (at.layer = -1; is_eoc(b) && at.layer < b->layers; at.layer++) check_layer(&at);
}

/* ---- each kind of parameter */

param_info init_matrix(const model_builder *b, matrix_part part, i64 inputs)
{
    i64 kind = of_choice(b, "model.init.kind");
    bool out = part == PART_ATTENTION_OUT || part == PART_FFN_OUT;
    double depth = (double)b->layer + 1, truncate = of_number(b, "model.init.truncate");
    bool by_inputs = kind == INIT_MITCHELL || kind == INIT_LECUN || transfer_by_inputs(b);
    bool inner = part != PART_EMBEDDING && part != PART_HEAD;
    double base = transfer_base(b), n = inner ? (double)inputs : (double)inputs / transfer_ratio(b);
    double std = by_inputs ? NAN : of_number(b, "model.init.std");
    if (isnan(std)) std = 1 / sqrt(2.5 * base);
    if (kind == INIT_MEGATRON && out) std /= sqrt(2 * (double)b->layers);
    if (kind == INIT_MEGATRON && part == PART_HEAD) std = 1 / sqrt(base);
    if (kind == INIT_DEPTH && out) std /= sqrt(2 * depth);
    if (by_inputs) std = 1 / sqrt(n * (out && kind == INIT_MITCHELL ? 2 * depth : 1));
    if (out) std *= residual_out_factor(b);
    param_info info = {
        .kind = part == PART_EMBEDDING ? PARAM_EMBEDDING
                : part == PART_HEAD    ? PARAM_HEAD
                                       : PARAM_MATRIX,
        .std = std * of_number(b, "model.init.std_factor"),
        .truncate = isnan(truncate) ? 0 : truncate,
        .rows = part == PART_EMBEDDING,
    };
    double sw, sb;
    bool at_edge = is_eoc(b) && inner && b->layer >= 0 && edge(b, &sw, &sb);
    if (at_edge) draw(b, sw / sqrt(n) * (out ? residual_out_factor(b) : 1), &info);
    transfer_matrix(b, part, by_inputs || at_edge, inputs, &info);
    return info;
}

param_info init_linear(const model_builder *b, const linear_map *map, int i, i64 inputs)
{
    param_info info = init_matrix(b, map->part, inputs);
    bool out = map->part == PART_ATTENTION_OUT || map->part == PART_FFN_OUT;
    double factor = of_number(b, "model.init.std_factor") * (out ? residual_out_factor(b) : 1);
    if (of_is(b, "model.init.kind", "orthogonal")) {
        info.orthogonal = factor * sqrt((double)map->outputs[i] / (double)inputs);
        info.std =
            info.orthogonal / sqrt((double)MAX(inputs, map->outputs[i])); // the spread of such a matrix
    }
    if (!of_is(b, "model.init.kind", "deepnorm")) return info;
    bool scores = !strcmp(map->name[i], "q") || !strcmp(map->name[i], "k");
    double gain = scores ? 1 : pow(8 * (double)b->layers, -0.25);
    info.std = gain * sqrt(2 / (double)(inputs + map->outputs[i])) * factor;
    return info;
}

param_info init_gain(void) { return (param_info){.kind = PARAM_GAIN, .constant = 1, .f32 = true}; }
param_info init_bias(void) { return (param_info){.kind = PARAM_VECTOR, .f32 = true}; }
param_info init_linear_bias(const model_builder *b)
{
    param_info info = init_bias();
    double sw, sb;
    if (is_eoc(b) && b->layer >= 0 && edge(b, &sw, &sb) && sb > 0) draw(b, sb, &info);
    return info;
}
