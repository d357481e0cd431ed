/* linear: the maps of attention and feed-forward. Maps that read the same input are one op, whose weights lie
 * side by side in memory, so that they are one matrix product; each keeps its own name and gradient. */
#include "model/build.h"

const config_key linear_keys[] = {
    {"model.linear.kind", KEY_CHOICE, "dense", "dense", .help = "what a linear map is"},
    {0},
};

tensor *linear_slot(model_builder *b, const linear_map *map, tensor *x)
{
    enum { WEIGHTS = 1, BIASES = 4 };
    tensor *in[7] = {x};
    param_info bias = init_bias();
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
