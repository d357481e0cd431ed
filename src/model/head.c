/* head: how a vector becomes probabilities, and the loss. The loss never holds all logits; they are only
 * computed where somebody reads them (decoding, dumps). */
#include "model/build.h"
#include "model/methods.h"

const config_key head_keys[] = {
    {"model.head.kind", KEY_CHOICE, "softmax", "softmax", .help = "how a vector becomes probabilities"},
    {"model.head.z_loss", KEY_NUMBER, "0", .max = 1,
     .help = "weight of log(Z)^2 in the loss, Z the softmax's denominator",
     .source = "PaLM, arXiv:2204.02311"},
    {"model.head.predict", KEY_COUNT, "1", .min = 1, .max = 16, .unit = "tokens",
     .help = "tokens ahead that training predicts; evaluation and decoding use the first one only",
     .source = "arXiv:2501.16975"},
    {"model.head.predict_kind", KEY_CHOICE, "linear", "linear mtp",
     .help =
         "how tokens after the first are predicted: linear: a map and a head of its own each; mtp: one more "
         "block each, which also reads the embedding of the tokens between, and the shared head",
     .source = "linear: over-decoding, arXiv:2501.16975; mtp: DeepSeek-V3, arXiv:2412.19437"},
    {"model.head.predict_weight", KEY_NUMBER, "0.1", .max = 100,
     .help = "weight in the loss of each token after the first"},
    {0},
};

const method_row head_methods[] = {
    {"over_decoding", "head", .settings = "model.head.predict=2"},
    {"mtp", "head", .settings = "model.head.predict=2 model.head.predict_kind=mtp", .common = true},
    {0},
};

void head_slot(model_builder *b, tensor *h)
{
    param_info info = init_matrix(b, PART_HEAD, b->width);
    bool tied = of_flag(b, "model.tie_head"), train = b->shape->mode == MODE_TRAIN;
    tensor *w =
        tied ? embedding_table(b) : g_param(b->g, "head.weight", 2, (i64[]){b->vocab, b->width}, &info);
    tensor *z = h;
    h = transfer_logits(b, h);
    if (b->shape->logits || b->shape->mode == MODE_DECODE) {
        b->m->logits = g_out(g_node(b->g, OP_linear, IN(h, w), WITH({"f32", 1})), 0);
        b->m->logits->keep = true;
    }
    if (b->shape->no_loss) return;
    node *n = g_node(b->g, OP_linear_xent, IN(h, w, b->m->targets, b->m->inverse_count),
                     WITH({"z_loss", of_number(b, "model.head.z_loss")}, {"evaluate", !train}));
    b->m->objective = g_out(n, 0);
    b->m->loss = g_out(n, 1);
    b->m->objective->keep = true;
    b->m->loss->keep = true;
    if (train) predict_ahead(b, z, w);
}
