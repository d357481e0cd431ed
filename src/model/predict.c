/* predict: losses of tokens further ahead than the next one, in training only (over-decoding). With n =
 * model.head.predict, z_t the output of the last norm, h_t what it reads:
 *
 *   loss = CE(z_t E, x_{t+1}) + weight sum_{j=2..n} CE_j
 *   linear   CE_j = CE((z_t R_j) E_j, x_{t+j})                      R_j [d, d] starts as I, E_j [V, d] of its
 * own mtp      u_t = [RMSNorm(h_t), RMSNorm(e_{t+j-1})] M_j,  h_t <- block_j(u)_t   (the next j reads it)
 *            CE_j = CE(RMSNorm(h_t) E, x_{t+j})                     e the embedding, E the shared head
 *
 * Each sum is divided by the targets of the next token, as the first loss is; positions whose token t+1 ..
 * t+j is outside the row or in another document are left out of it. e_{t+j-1} is known where x_{t+j} is asked
 * for.
 *
 * Sources: Over-Tokenized Transformer, arXiv:2501.16975; DeepSeek-V3, arXiv:2412.19437, section 2.2 (mtp).
 * Choices: R_j full and starting as R_1 is; the extra block is configured as the last one.
 */
#include "model/build.h"

static tensor *targets_of(model_builder *b, i64 j)
{
    return g_out(
        g_node(b->g, OP_ahead_targets, IN(b->m->targets, b->m->doc_start), WITH({"by", (double)j - 1})), 0);
}

static void add_loss(model_builder *b, tensor *z, tensor *w, i64 j)
{
    node *n = g_node(b->g, OP_linear_xent, IN(z, w, targets_of(b, j), b->m->inverse_count),
                     WITH({"weight", of_number(b, "model.head.predict_weight")}));
    model_add_loss(b, g_out(n, 0));
}

static void linear_head(model_builder *b, tensor *z, i64 j)
{
    param_info map = {.kind = PARAM_MATRIX, .eye = b->width}, head = init_matrix(b, PART_HEAD, b->width);
    tensor *r = g_param(b->g, g_path(b->g, "map.weight"), 2, (i64[]){b->width, b->width}, &map);
    tensor *w = g_param(b->g, g_path(b->g, "head.weight"), 2, (i64[]){b->vocab, b->width}, &head);
    add_loss(b, g_out(g_node(b->g, OP_linear, IN(z, r), NO_ATTRS), 0), w, j);
}

static tensor *rms(model_builder *b, const char *name, tensor *x)
{
    param_info info = init_gain();
    tensor *gain = g_param(b->g, g_path(b->g, name), 1, &b->width, &info);
    return g_out(g_node(b->g, OP_rms_norm, IN(x, gain), WITH({"eps", of_number(b, "model.norm.eps")})), 0);
}

/* What block J leaves, from what the one before left. */
static tensor *deeper(model_builder *b, tensor *h, tensor *w, i64 j)
{
    param_info info = init_matrix(b, PART_IN, 2 * b->width);
    tensor *e = g_out(g_node(b->g, OP_ahead, IN(b->embedded), WITH({"by", (double)j - 1})), 0);
    tensor *both =
        g_out(g_node(b->g, OP_concat, IN(rms(b, "norm_hidden.gain", h), rms(b, "norm_embedding.gain", e)),
                     NO_ATTRS),
              0);
    tensor *m = g_param(b->g, g_path(b->g, "merge.weight"), 2, (i64[]){b->width, 2 * b->width}, &info);
    tensor *u = g_out(g_node(b->g, OP_linear, IN(both, m), NO_ATTRS), 0);
    if (!b->g->failed && u->dtype != b->shape->stream)
        u = g_out(g_node(b->g, OP_cast, IN(u), WITH({"to", b->shape->stream})), 0);
    h = model_extra_block(b, u);
    add_loss(b, transfer_logits(b, rms(b, "norm.gain", h)), w, j);
    return h;
}

void predict_ahead(model_builder *b, tensor *z, tensor *w)
{
    i64 n = of_count(b, "model.head.predict");
    bool linear = of_is(b, "model.head.predict_kind", "linear");
    tensor *h = b->stream;
    for (i64 j = 2; j <= n; j++) {
        const char *scope = g_push(b->g, "predict.%lld", (long long)j);
        if (linear)
            linear_head(b, z, j);
        else
            h = deeper(b, h, w, j);
        g_pop(b->g, scope);
    }
}
