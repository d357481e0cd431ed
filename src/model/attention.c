/* attention: causal attention with grouped heads; norms of q, k, v before the rotation; in decoding the keys
 * and values of earlier tokens come from a cache that a commit extends. Copies of tokens (repeat.c): the
 * cache holds the tokens themselves, a ring what copies still see of earlier copies. */
#include "model/build.h"
#include <math.h>

const config_key attention_keys[] = {
    {"model.attention.kind", KEY_CHOICE, "softmax", "softmax", .help = "what attention computes",
     .source = "Vaswani et al., arXiv:1706.03762"},
    {"model.attention.heads", KEY_COUNT, "6", .min = 1, .max = 4096, .unit = "heads",
     .help = "heads of queries"},
    {"model.attention.kv_heads", KEY_COUNT, "auto", "auto", .min = 1, .max = 4096, .unit = "heads",
     .help = "heads of keys and values, each shared by heads/kv_heads queries; auto: as many as heads",
     .source = "Ainslie et al., arXiv:2305.13245"},
    {"model.attention.head_width", KEY_COUNT, "auto", "auto", .min = 1, .max = 4096, .unit = "values",
     .help = "auto: width/heads"},
    {"model.attention.window", KEY_COUNT, "none", "none", .min = 1, .max = 1 << 20, .unit = "tokens",
     .help = "a token sees itself and the window-1 tokens before it; none: all before it"},
    {"model.attention.scale", KEY_NUMBER, "inv_sqrt", "inv_sqrt inv", .min = 1e-9, .max = 1e3,
     .help = "factor of the scores: 1/sqrt(head_width), 1/head_width, or a number"},
    {0},
};

typedef struct heads {
    i64 q, kv, width;
} heads;

static heads shape_of(model_builder *b)
{
    heads h = {of_count(b, "model.attention.heads"), of_count(b, "model.attention.kv_heads"),
               of_count(b, "model.attention.head_width")};
    if (h.kv < 0) h.kv = h.q;
    if (h.width < 0) {
        h.width = b->width / h.q;
        if (b->width % h.q)
            refuse(b, "model.attention.heads",
                   "is %lld; it must divide model.width (%lld), or set head_width", (long long)h.q,
                   (long long)b->width);
    }
    if (h.q % h.kv)
        refuse(b, "model.attention.kv_heads", "is %lld; it must divide model.attention.heads (%lld)",
               (long long)h.kv, (long long)h.q);
    if (h.width % 2 && of_is(b, "model.position.kind", "rope"))
        refuse(b, "model.attention.head_width", "is %lld; rope rotates pairs, so it must be even",
               (long long)h.width);
    return h;
}

static double scale_of(const model_builder *b, i64 width)
{
    double base = transfer_head_width(b, width), scale = of_number(b, "model.attention.scale");
    if (of_is(b, "model.attention.scale", "inv_sqrt")) scale = 1 / sqrt(base);
    if (of_is(b, "model.attention.scale", "inv")) scale = 1 / base;
    return scale * (base / (double)width);
}

static tensor *cache(model_builder *b, heads h, const char *name, i64 entries)
{
    i64 dim[] = {b->shape->rows, entries, h.kv * h.width};
    return g_cache(b->g, g_path(b->g, name), b->shape->act, 3, dim);
}

static tensor *attend(model_builder *b, heads h, tensor *q, tensor *k, tensor *v)
{
    tensor *cache_k = NULL, *cache_v = NULL, *ring_k = NULL, *ring_v = NULL;
    i64 window = of_count(b, "model.attention.window");
    repeat_view sight = repeat_sight(b);
    if (b->shape->mode == MODE_DECODE) {
        cache_k = cache(b, h, "cache_k", b->shape->capacity);
        cache_v = cache(b, h, "cache_v", b->shape->capacity);
    }
    if (cache_k && sight.window > 1) {
        ring_k = cache(b, h, "ring_k", (sight.window - 1) * (sight.copies - 1));
        ring_v = cache(b, h, "ring_v", (sight.window - 1) * (sight.copies - 1));
    }
    node *n =
        g_node(b->g, OP_attention, IN(q, k, v, b->m->doc_start, cache_k, cache_v, b->m->past, ring_k, ring_v),
               WITH({"heads", (double)h.q}, {"kv_heads", (double)h.kv}, {"window", (double)MAX(window, 0)},
                    {"scale", scale_of(b, h.width)}, {"copies", (double)sight.copies},
                    {"copy_window", (double)sight.window}, {"chunk", (double)sight.chunk}));
    if (cache_k) {
        const op_set copies[] = {{"copies", (double)sight.copies}, {0}};
        g_node(b->g, OP_cache_append, IN(cache_k, k, b->m->past), copies);
        g_node(b->g, OP_cache_append, IN(cache_v, v, b->m->past), copies);
        if (ring_k) g_node(b->g, OP_ring_append, IN(ring_k, k, b->m->past, b->m->fresh), copies);
        if (ring_v) g_node(b->g, OP_ring_append, IN(ring_v, v, b->m->past, b->m->fresh), copies);
    }
    return g_out(n, 0);
}

tensor *attention_slot(model_builder *b, tensor *x)
{
    heads h = shape_of(b);
    i64 wide = h.q * h.width, narrow_width = h.kv * h.width;
    bool bias = of_is(b, "model.bias", "true");
    linear_map in = {3,
                     {"q", "k", "v"},
                     {wide, narrow_width, narrow_width},
                     PART_IN,
                     bias || of_is(b, "model.bias", "qkv")};
    linear_map out = {1, {"o"}, {b->width}, PART_ATTENTION_OUT, bias};
    node *parts =
        g_node(b->g, OP_split, IN(linear_slot(b, &in, x)),
               WITH({"n0", (double)wide}, {"n1", (double)narrow_width}, {"n2", (double)narrow_width}));
    tensor *q = position_rotate(b, norm_inner(b, INNER_Q, h.q, g_out(parts, 0)), h.q);
    tensor *k = position_rotate(b, norm_inner(b, INNER_K, h.kv, g_out(parts, 1)), h.kv);
    tensor *v = norm_inner(b, INNER_V, h.kv, g_out(parts, 2));
    tensor *context = norm_inner(b, INNER_CONTEXT, h.q, attend(b, h, q, k, v));
    return linear_slot(b, &out, context);
}
