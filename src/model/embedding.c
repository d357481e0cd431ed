/* embedding: how a token becomes a vector. */
#include "model/build.h"

const config_key embedding_keys[] = {
    {"model.embedding.kind", KEY_CHOICE, "table", "table", .help = "how a token becomes a vector"},
    {0},
};

tensor *embedding_table(model_builder *b)
{
    param_info info = init_matrix(b, PART_EMBEDDING, b->width);
    return g_param(b->g, "embedding.weight", 2, (i64[]){b->vocab, b->width}, &info);
}

tensor *embedding_slot(model_builder *b)
{
    tensor *x = g_out(g_node(b->g, OP_embedding, IN(embedding_table(b), b->m->tokens), NO_ATTRS), 0);
    return norm_embedding(b, dropout(b, position_embed(b, repeat_tokens(b, x))));
}
