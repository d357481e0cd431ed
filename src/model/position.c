/* position: rotated queries and keys, or a learned table added to the embedding, or nothing. Positions count
 * from the start of the document where documents are masked from each other. */
#include "model/build.h"

const config_key position_keys[] = {
    {"model.position.kind", KEY_CHOICE, "rope", "rope learned none",
     .help = "how positions enter: rotated queries and keys, a learned table, or not at all",
     .source = "rope: Su et al., arXiv:2104.09864"},
    {"model.position.base", KEY_NUMBER, "10000", .min = 1, .max = 1e12,
     .help = "base of the rotation's wavelengths", .source = "arXiv:2104.09864",
     .only = "model.position.kind=rope"},
    {0},
};

tensor *position_rotate(model_builder *b, tensor *x, i64 heads)
{
    if (!of_is(b, "model.position.kind", "rope")) return x;
    return g_out(g_node(b->g, OP_rope, IN(x, b->position),
                        WITH({"heads", (double)heads}, {"base", of_number(b, "model.position.base")})),
                 0);
}

tensor *position_embed(model_builder *b, tensor *x)
{
    if (!of_is(b, "model.position.kind", "learned")) return x;
    param_info info = init_matrix(b, PART_EMBEDDING, b->width);
    i64 rows = config_count(b->c, "model.context") * repeat_times(b);
    info.rows = false; // fewer rows than look-ups: a dense gradient is the smaller one
    tensor *table = g_param(b->g, "position.weight", 2, (i64[]){rows, b->width}, &info);
    tensor *p = g_out(g_node(b->g, OP_embedding, IN(table, b->position), NO_ATTRS), 0);
    return g_out(g_node(b->g, OP_joint, IN(x, p), NO_ATTRS), 0);
}
