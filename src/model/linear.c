/* linear: the maps of attention and feed-forward. Maps that read the same input are one op, whose weights lie
 * side by side in memory, so that they are one matrix product; each keeps its own name and gradient.
 *
 *   dense   y = W x + b
 *   sdd     y = gain * N(W x + b), N(z) = z / sqrt(mean z^2 + 1e-6), over the outputs of one map, for the
 * maps that linear.at lists: scale-distribution decoupling in its linear form. The loss does not depend on
 *           the scale of W, so its gradient is orthogonal to it. Gains start at 1, those of o and down, the
 * maps back to the stream, at norm.out_gain (paper: inv_sqrt_L, its code: inv_sqrt_2L).
 *
 * Source: sdd: arXiv:2502.15499, section 3; the form and eps of its code's README.
 */
#include "model/build.h"
#include "model/methods.h"
#include <string.h>

const config_key linear_keys[] = {
    {"model.linear.kind", KEY_CHOICE, "dense", "dense sdd",
     .help = "what a linear map is; sdd: followed by an RMSNorm of its own, with a gain",
     .source = "sdd: arXiv:2502.15499"},
    {"model.linear.at", KEY_CHOICES, "attention ffn", "attention ffn q k v o gate up down",
     .help = "the maps that are of this kind; attention: q k v o, ffn: gate up down",
     .source = "arXiv:2502.15499", .only = "model.linear.kind=sdd"},
    {0},
};
/* As its authors train it, gains decay. */
const config_preset linear_presets[] = {
    {"model.linear.kind", "sdd", "train.optimizer.decay=[matrix, head, gain]"}, {0}};
const method_row linear_methods[] = {
    {"linear_sdd", "linear", .common = true, .settings = "model.linear.kind=sdd"}, {0}};

static const struct {
    const char *name, *group;
} maps[] = {{"q", "attention"}, {"k", "attention"}, {"v", "attention"}, {"o", "attention"},
            {"gate", "ffn"},    {"up", "ffn"},      {"down", "ffn"}};

bool linear_norms(const model_builder *b, const char *name)
{
    if (!of_is(b, "model.linear.kind", "sdd")) return false;
    for (i64 i = 0; i < COUNT(maps); i++)
        if (!strcmp(maps[i].name, name))
            return of_has(b, "model.linear.at", name) || of_has(b, "model.linear.at", maps[i].group);
    return false;
}

static tensor *dense(model_builder *b, const linear_map *map, tensor *x)
{
    enum { WEIGHTS = 1, BIASES = 4 };
    tensor *in[7] = {x};
    param_info bias = init_linear_bias(b);
    for (int i = 0; i < map->n; i++) {
        param_info weight = init_linear(b, map, i, cols(x));
        in[WEIGHTS + i] = g_param(b->g, g_path(b->g, arena_printf(b->g->arena, "%s.weight", map->name[i])), 2,
                                  (i64[]){map->outputs[i], cols(x)}, &weight);
    }
    for (int i = 0; map->bias && i < map->n; i++)
        in[BIASES + i] = g_param(b->g, g_path(b->g, arena_printf(b->g->arena, "%s.bias", map->name[i])), 1,
                                 &map->outputs[i], &bias);
    return g_out(g_node(b->g, OP_linear, in, map->bias ? 7 : 1 + map->n, NO_ATTRS), 0);
}

/* gain * N(z); of rows sorted by expert (OFFSETS, see ops/moe_plan.c) each expert has a gain of its own. */
static tensor *decoupled(model_builder *b, const char *name, matrix_part part, i64 experts, tensor *offsets,
                         tensor *z)
{
    const char *other = norm_after(b, name, offsets != NULL);
    param_info info = init_gain();
    if (part == PART_ATTENTION_OUT || part == PART_FFN_OUT) info.constant = norm_out_gain(b);
    if (other)
        refuse(
            b, "model.linear.kind",
            "is sdd; gain * N(W x) norms the output of %s, and %s (%s) would norm it again: N(N(z)) is N(z) "
            "(choose one of them)",
            name, other, config_text_at(b->c, b->layer, other));
    i64 dim[] = {experts, cols(z)};
    tensor *gain = g_param(b->g, g_path(b->g, arena_printf(b->g->arena, "%s.gain", name)), offsets ? 2 : 1,
                           offsets ? dim : dim + 1, &info);
    tensor *y = g_out(g_node(b->g, OP_rms_norm, IN(z, offsets ? NULL : gain), WITH({"eps", 1e-6})), 0);
    return offsets ? g_out(g_node(b->g, OP_expert_gain, IN(y, gain, offsets), NO_ATTRS), 0) : y;
}

tensor *linear_after(model_builder *b, const linear_map *map, i64 experts, tensor *offsets, tensor *y)
{
    tensor *part[3] = {0};
    bool normed[3] = {0}, any = false;
    for (int i = 0; i < map->n && map->part != PART_HELPER; i++)
        any |= normed[i] = linear_norms(b, map->name[i]);
    if (!any || b->g->failed) return y;
    if (map->n == 1) return decoupled(b, map->name[0], map->part, experts, offsets, y);
    node *parts = g_node(b->g, OP_split, IN(y),
                         WITH({"n0", (double)map->outputs[0]}, {"n1", (double)map->outputs[1]},
                              {"n2", map->n > 2 ? (double)map->outputs[2] : 0}));
    for (int i = 0; i < map->n && !b->g->failed; i++)
        part[i] = normed[i] ? decoupled(b, map->name[i], map->part, experts, offsets, g_out(parts, i))
                            : g_out(parts, i);
    return g_out(g_node(b->g, OP_concat, part, map->n, NO_ATTRS), 0);
}

tensor *linear_slot(model_builder *b, const linear_map *map, tensor *x)
{
    return linear_after(b, map, 1, NULL, dense(b, map, x));
}
