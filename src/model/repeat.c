/* repeat: how often a token passes through the blocks.
 *
 *   phd   every token K times side by side (PHD-Transformer): the stream [B, T, d] becomes [B, K T, d] after
 *         the embedding, and copy K alone meets the head. What tells copies apart is what their attention
 *         sees (ops/attention.c): copy 1 is the plain model; copy j sees the originals up to its token and
 *         copies 2..j of its own token; with a window (SWA) also the copies of the W - 1 tokens before, with
 *         chunks (CSWA) only those in its chunk. Everything else takes rows as they come.
 *
 * Caches hold copy 1, and of the other copies a ring of the last W - 1 tokens. Positions: all copies of a
 * token stand where it stands (shared), or copy s of token n at K n + s - 1 (expanded); the paper does not
 * say.
 *
 * Source:  PHD, PHD-SWA, PHD-CSWA: arXiv:2504.14992.
 * Departs: the paper's window may count hidden tokens; here it counts positions, with all copies of each, so
 *          that a window of 1 is PHD. Chunks count from the start of a document (the paper does not say), so
 *          that a prompt read from position 0 meets what training met.
 */
#include "model/build.h"
#include "model/methods.h"

const config_key repeat_keys[] = {
    {"model.repeat.kind", KEY_CHOICE, "none", "none phd",
     .help =
         "how often a token passes through the blocks; phd: several copies side by side, of which the last "
         "predicts and the first is cached",
     .source = "phd: PHD-Transformer, arXiv:2504.14992"},
    {"model.repeat.copies", KEY_COUNT, "2", .min = 1, .max = 256, .unit = "copies",
     .help = "of every token, itself included; training costs that many times as much",
     .source = "arXiv:2504.14992", .only = "model.repeat.kind=phd"},
    {"model.repeat.window", KEY_COUNT, "1", .min = 1, .max = 1 << 20, .unit = "tokens",
     .help = "tokens whose copies a copy sees, its own included; 1: PHD, more: PHD-SWA",
     .source = "arXiv:2504.14992", .only = "model.repeat.kind=phd"},
    {"model.repeat.chunk", KEY_COUNT, "none", "none", .min = 1, .max = 1 << 20, .unit = "tokens",
     .help = "the window ends at the edge of a chunk of so many tokens, counted from the document's start "
             "(PHD-CSWA): a prompt then costs its copies in the last chunk only; none: PHD-SWA",
     .source = "arXiv:2504.14992", .only = "model.repeat.kind=phd"},
    {"model.repeat.positions", KEY_CHOICE, "shared", "shared expanded",
     .help = "copies stand at their token's position, or copy s of token n at copies n + s - 1",
     .only = "model.repeat.kind=phd"},
    {0},
};

const method_row repeat_methods[] = {
    {"phd", "repeat", .settings = "model.repeat.kind=phd"},
    {"phd_cswa", "repeat", .common = true,
     .settings = "model.repeat.kind=phd model.repeat.window=4 model.repeat.chunk=6"},
    {0},
};

/* What the whole model has, whatever its layers override. */
static i64 copies_in(const config *c)
{
    return config_is(c, "model.repeat.kind", "phd") ? config_count(c, "model.repeat.copies") : 1;
}
static i64 window_in(const config *c)
{
    i64 window = config_count(c, "model.repeat.window"), chunk = config_count(c, "model.repeat.chunk");
    return copies_in(c) == 1 ? 1 : chunk > 0 ? MIN(window, chunk) : window;
}

void repeat_begin(model_builder *b)
{
    const config *c = b->c;
    model *m = b->m;
    i64 k = copies_in(c), context = config_count(c, "model.context");
    b->copies = b->shape->originals ? 1 : k;
    b->position = m->position;
    if (k == 1) return;
    if (config_count(c, "model.repeat.window") > context)
        refuse(b, "model.repeat.window", "is %lld; it must not be beyond model.context (%lld)",
               (long long)config_count(c, "model.repeat.window"), (long long)context);
    if (repeat_times(b) > 1 && of_is(b, "model.position.kind", "none"))
        refuse(b, "model.repeat.positions",
               "is expanded; with model.position.kind none there are no positions");
    b->position = g_out(g_node(b->g, OP_repeat_index, IN(m->position),
                               WITH({"copies", (double)b->copies}, {"times", (double)repeat_times(b)})),
                        0);
    if (b->shape->mode != MODE_DECODE || b->copies == 1 || window_in(c) == 1) return;
    m->fresh = g_input(b->g, "fresh", DT_I32, 1, &b->shape->rows);
}

i64 repeat_times(const model_builder *b)
{
    return copies_in(b->c) > 1 && of_is(b, "model.repeat.positions", "expanded") ? copies_in(b->c) : 1;
}

tensor *repeat_tokens(model_builder *b, tensor *x)
{
    if (b->copies == 1) return x;
    return g_out(g_node(b->g, OP_repeat, IN(x), WITH({"copies", (double)b->copies})), 0);
}

tensor *repeat_end(model_builder *b, tensor *x)
{
    if (b->copies == 1) return x;
    return g_out(g_node(b->g, OP_last_copy, IN(x), WITH({"copies", (double)b->copies})), 0);
}

repeat_view repeat_sight(const model_builder *b)
{
    i64 window = window_in(b->c), near = of_count(b, "model.attention.window");
    repeat_view v = {.copies = b->copies, .window = 1};
    if (b->copies == 1) return v;
    v.window = near > 0 ? MIN(window, near) : window;
    v.chunk = MAX(config_count(b->c, "model.repeat.chunk"), 0);
    return v;
}

i64 model_copies(const config *c) { return copies_in(c); }

i64 model_copied_from(const config *c, i64 length)
{
    i64 last = length - 1, chunk = config_count(c, "model.repeat.chunk");
    if (copies_in(c) == 1) return 0;
    i64 from = MAX(last - model_copies_reach(c) + 1, 0);
    return chunk > 0 ? MAX(from, last / chunk * chunk) : from;
}

i64 model_copies_reach(const config *c)
{
    i64 reach = config_count(c, "model.layers") * (window_in(c) - 1) + 1;
    i64 chunk = config_count(c, "model.repeat.chunk");
    return copies_in(c) == 1 ? 0 : chunk > 0 ? MIN(reach, chunk) : reach;
}
