/* memory: large look-up layers beside the feed-forward: product keys (pkm) and UltraMem.
 *
 * A span "READ:ADD" is one layer: it reads the input of block READ's feed-forward, and what it finds is added
 * to the stream at the end of block ADD, so that its look-ups may go on beside the blocks between. With READ
 * = ADD it stands parallel to that block's feed-forward. Spans may cross; two may not read in one block.
 *
 *   pkm        q_h, k_h = halves of W_h x, heads h;  (I, p) = product_keys(K_row q_h, K_col k_h);
 *              o = sum over heads and I of p values[I], mapped back by W_o where value_width is not the width
 *   ultramem   q, k = N(W_row x), N(W_col x), one query for all heads;  S_row = N(K_row) q, S_col = N(K_col)
 * k, rank r for each head, sqrt(expansion) keys rows and columns; (I, s) = memory_search(S_row, S_col, C); y
 * = memory_read(values, I, s);   o = W_o y
 *
 *   ultramem_v2  beside every feed-forward; a query for each rank, one head;  s' = s <pre_values[row], W_p
 * x>; y = memory_read(values, I, s'), its groups added;  all layers see parts of one table
 *
 * What it reads is normalised: where no norm stands before the feed-forward (norm.ffn has neither pre nor
 * stream) and none after attention (norm.attn has no post), the layer has a norm of its own. How its output
 * joins the stream is the residual slot's business (residual_add). The values' gradient stays rows, their
 * class is embedding: not decayed where rows are updated lazily; cores are of class vector.
 *
 * Source:  product keys: Lample et al., arXiv:1907.05242; UltraMem: arXiv:2411.12364; v2: arXiv:2508.18756,
 *          from its equations (the released code differs from them).
 * Departs: no convolution before the query (the paper's gain is about 0, its code has none); RMSNorm for
 *          queries and keys; pi is computed (ops/memory_place.h).
 */
#include "model/build.h"
#include "model/memory_init.h"
#include "model/methods.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ANY "model.memory.kind=pkm ultramem ultramem_v2"
#define HEADS "model.memory.kind=pkm ultramem"
#define ULTRA "model.memory.kind=ultramem ultramem_v2"
#define V2 "model.memory.kind=ultramem_v2"
const config_key memory_keys[] = {
    {"model.memory.kind", KEY_CHOICE, "none", "none pkm ultramem ultramem_v2",
     .help =
         "large tables of values, looked up by product keys, beside the feed-forward; pkm: additive scores "
         "and softmax; ultramem: Tucker scores, shared and expanded values; ultramem_v2: in every block, "
         "each value with a pre-value that weighs it",
     .source = "pkm: Lample et al., arXiv:1907.05242; ultramem: arXiv:2411.12364; v2: arXiv:2508.18756"},
    {"model.memory.spans", KEY_LIST, "[]",
     .help = "the layers, as READ:ADD: each reads before the feed-forward of block READ and is added to the "
             "stream after block ADD: [3:5, 7:9]; ultramem_v2: every block beside itself if none is named",
     .source = "arXiv:2411.12364", .only = ANY},
    {"model.memory.spans[].span", KEY_STRING, "", .help = "READ:ADD, two blocks, counted from 0"},
    {"model.memory.keys", KEY_COUNT, "64", .min = 1, .max = 46340,
     .help = "a layer has keys^2 values, found by sqrt(expansion) keys rows and columns of keys",
     .only = ANY},
    {"model.memory.key_width", KEY_COUNT, "64", .min = 1, .max = 65536, .unit = "values",
     .help = "width of a key and of half a query", .only = ANY},
    {"model.memory.value_width", KEY_COUNT, "128", .min = 1, .max = 65536, .unit = "values",
     .help = "width of a value; a map leads from there to model.width (pkm: unless they are equal)",
     .only = ANY},
    {"model.memory.top", KEY_COUNT, "8", .min = 1, .max = 512, .unit = "values",
     .help = "values that a token reads for each head", .only = ANY},
    {"model.memory.heads", KEY_COUNT, "2", .min = 1, .max = 16,
     .help = "sets of keys, each with a selection of its own; their outputs are added", .only = HEADS},
    {"model.memory.rank", KEY_COUNT, "2", .min = 1, .max = 4,
     .help = "rank of the score: S_row^T C S_col with C of rank x rank", .source = "arXiv:2411.12364",
     .only = ULTRA},
    {"model.memory.cores", KEY_COUNT, "2", .min = 1, .max = 16,
     .help = "cores C^(c), summed to select; each scores its own part of a value",
     .source = "arXiv:2411.12364", .only = ULTRA},
    {"model.memory.expansion", KEY_COUNT, "4", .min = 1, .max = 64,
     .help = "addresses that share a value, each mapped back by a matrix of its own; a square number",
     .source = "arXiv:2411.12364", .only = ULTRA},
    {"model.memory.init", KEY_CHOICE, "paper", "paper code",
     .help =
         "initial gains of queries and keys, and spread of the values: so that the mean selected score is 1 "
         "and the output varies as a feed-forward's does, or the constants of the authors' code",
     .source = "arXiv:2411.12364", .only = ULTRA},
    {"model.memory.aux_weight", KEY_NUMBER, "0", .max = 1e3,
     .help = "weight of the loss max(0, sigma_i(C) - aux_margin)^2, mean over i >= 2 and heads",
     .source = "arXiv:2411.12364", .only = ULTRA},
    {"model.memory.aux_margin", KEY_NUMBER, "0.15", .max = 1e3,
     .help = "singular values of C beyond the first are free up to this", .only = ULTRA},
    {"model.memory.pre_width", KEY_COUNT, "auto", "auto", .min = 1, .max = 65536, .unit = "values",
     .help = "width of a pre-value; auto: a third of value_width", .source = "arXiv:2508.18756", .only = V2},
    {"model.memory.share_ratio", KEY_NUMBER, "1", .min = 1e-3, .max = 1,
     .help =
         "share that a layer's keys^2 values are of the one table of all layers; each layer starts where the "
         "one before ends, in a ring; 1: all see the same",
     .source = "arXiv:2508.18756", .only = V2},
    {"model.memory.value_lr_factor", KEY_NUMBER, "10", .min = 1e-3, .max = 1e3,
     .help = "the values' learning rate is this times the others' at step 0, falling linearly to 1 times",
     .source = "arXiv:2411.12364", .only = ANY},
    {"model.memory.value_lr_until", KEY_SPAN, "100%", "none",
     .help = "where it has fallen to 1; none: it stays value_lr_factor", .only = ANY},
    {0},
};

const method_row memory_methods[] = {
    {"pkm", "memory", .common = true, .settings = "model.memory.kind=pkm model.memory.spans=[0:1]",
     .small = "model.memory.keys=4 model.memory.key_width=8 model.memory.value_width=16 "
              "model.memory.top=3"},
    {"ultramem", "memory", .common = true, .settings = "model.memory.kind=ultramem model.memory.spans=[0:1]",
     .small = "model.memory.keys=4 model.memory.key_width=8 model.memory.value_width=16 "
              "model.memory.top=3"},
    {"ultramem_v2", "memory", .settings = "model.memory.kind=ultramem_v2",
     .small = "model.memory.keys=4 model.memory.key_width=8 model.memory.value_width=12 model.memory.top=3 "
              "model.memory.share_ratio=0.6"},
    {0},
};

typedef struct layer_shape {
    i64 n, side; // values = n^2; keys a side of the grid of addresses
    i64 key, value, top, heads, rank, cores, expansion;
    i64 pre, rows,
        shift; // v2: width of a pre-value; rows of the common table; those before this layer's first
    bool v2, paper;
    memory_moments scores; // paper: at the start, with gains of 1
} layer_shape;

/* ---- spans */

/* False: not two block numbers with a colon between. */
static bool read_span(const char *text, i64 *read, i64 *add)
{
    char *end;
    if (*text < '0' || *text > '9') return false;
    *read = strtoll(text, &end, 10);
    if (*end != ':' || end[1] < '0' || end[1] > '9') return false;
    *add = strtoll(end + 1, &end, 10);
    return !*end;
}

static bool check_span(model_builder *b, const memory *m, const char *text, i64 read, i64 add)
{
    static const char key[] = "model.memory.spans";
    if (MAX(read, add) >= b->layers)
        refuse(b, key, "has %s, but the model has %lld layers, 0 to %lld", text, (long long)b->layers,
               (long long)b->layers - 1);
    else if (read > add)
        refuse(b, key, "has %s: it would be added before it is read; write READ:ADD with READ <= ADD", text);
    for (i64 k = 0; k < m->n; k++)
        if (m->span[k].read == read)
            refuse(b, key, "has two spans that read in block %lld; each block can read once",
                   (long long)read);
    return !b->g->failed;
}

void memory_start(model_builder *b, memory *m)
{
    static const char key[] = "model.memory.spans";
    *m = (memory){0};
    if (of_is(b, "model.memory.kind", "none")) return;
    i64 n = config_items(b->c, key);
    bool every = !n && of_is(b, "model.memory.kind", "ultramem_v2");
    m->span = arena_array(b->g->arena, memory_span, MAX(n, b->layers));
    for (i64 k = 0; every && k < b->layers; k++) m->span[m->n++] = (memory_span){k, k, NULL};
    if (every) return;
    if (!n) {
        refuse(b, key, "is empty: name the blocks where each layer reads and is added, like [0:1]");
        return;
    }
    for (i64 k = 0; k < n; k++) {
        const char *text = config_item(b->c, key, k, "span");
        i64 read = 0, add = 0;
        if (!read_span(text, &read, &add)) {
            refuse(b, key, "has '%s'; a span is READ:ADD, two blocks counted from 0, like 3:5", text);
            return;
        }
        if (!check_span(b, m, text, read, add)) return;
        m->span[m->n++] = (memory_span){read, add, NULL};
    }
}

/* ---- shapes */
/* NUMBER: of the memory layers, from 0. */
static bool read_shape(model_builder *b, i64 number, layer_shape *s)
{
    bool ultra = !of_is(b, "model.memory.kind", "pkm"), v2 = of_is(b, "model.memory.kind", "ultramem_v2");
    *s = (layer_shape){.n = of_count(b, "model.memory.keys"),
                       .key = of_count(b, "model.memory.key_width"),
                       .value = of_count(b, "model.memory.value_width"),
                       .top = of_count(b, "model.memory.top"),
                       .heads = v2 ? 1 : of_count(b, "model.memory.heads"),
                       .v2 = v2,
                       .rank = ultra ? of_count(b, "model.memory.rank") : 1,
                       .cores = ultra ? of_count(b, "model.memory.cores") : 1,
                       .expansion = ultra ? of_count(b, "model.memory.expansion") : 1,
                       .paper = ultra && of_is(b, "model.memory.init", "paper")};
    i64 root = 1, given = of_count(b, "model.memory.pre_width");
    s->pre = given > 0 ? given : MAX(1, s->value / 3);
    s->rows =
        v2 ? (i64)ceil((double)(s->n * s->n) / of_number(b, "model.memory.share_ratio") - 1e-6) : s->n * s->n;
    s->shift = v2 ? number * s->n * s->n % s->rows : 0;
    while (root * root < s->expansion) root++;
    s->side = root * s->n;
    if (root * root != s->expansion)
        refuse(b, "model.memory.expansion",
               "is %lld; expansion keys^2 addresses are a square of sqrt(expansion) keys a side, so it must "
               "be a "
               "square number (1, 4, 9, 16)",
               (long long)s->expansion);
    else if (s->side > 46340)
        refuse(b, "model.memory.keys", "is %lld; sqrt(expansion) keys must be at most 46340 (2^31 addresses)",
               (long long)s->n);
    else if (s->top > s->side)
        refuse(b, "model.memory.top", "is %lld, but there are %lld keys a side to choose from",
               (long long)s->top, (long long)s->side);
    else if (s->value % s->cores)
        refuse(b, "model.memory.value_width",
               "is %lld; each of the %lld cores scores an equal part of a value, so model.memory.cores must "
               "divide it",
               (long long)s->value, (long long)s->cores);
    else if (ultra && s->rank < 2 && of_number(b, "model.memory.aux_weight") > 0)
        refuse(b, "model.memory.aux_weight",
               "is %g, but the loss is a mean over the singular values 2 to rank, and model.memory.rank is 1",
               of_number(b, "model.memory.aux_weight"));
    if (!b->g->failed && s->paper) memory_scores(s->side, s->rank, s->cores, s->top, &s->scores);
    return !b->g->failed;
}

/* ---- parts */
static tensor *matrix(model_builder *b, const char *name, i64 rows, i64 columns, param_info info)
{
    return g_param(b->g, g_path(b->g, name), 2, (i64[]){rows, columns}, &info);
}
static tensor *multiply(model_builder *b, tensor *x, tensor *w, bool f32)
{
    return g_out(g_node(b->g, OP_linear, IN(x, w), WITH({"f32", f32})), 0);
}
static tensor *unit(model_builder *b, const char *name, tensor *x, double gain)
{
    i64 n = cols(x);
    param_info info = {.kind = PARAM_GAIN, .constant = gain, .f32 = true};
    tensor *by = g_param(b->g, g_path(b->g, name), 1, &n, &info);
    return g_out(g_node(b->g, OP_rms_norm, IN(x, by), WITH({"eps", of_number(b, "model.norm.eps")})), 0);
}

static tensor *values_table(model_builder *b, const layer_shape *s, const char *name, i64 width, double std)
{
    param_info info = {.kind = PARAM_EMBEDDING,
                       .std = std,
                       .rows = true,
                       .size_key = "model.memory.keys",
                       .lr_factor = of_number(b, "model.memory.value_lr_factor"),
                       .lr_until = config_text(b->c, "model.memory.value_lr_until")};
    if (!s->v2) return matrix(b, name, s->rows, width, info);
    return g_param(b->g, arena_printf(b->g->arena, "memory.%s", name), 2, (i64[]){s->rows, width}, &info);
}

static tensor *map_back(model_builder *b, tensor *y, double std)
{
    param_info info = {.kind = PARAM_MATRIX, .std = std};
    return multiply(b, y, matrix(b, "out.weight", b->width, cols(y), info), false);
}

/* [x_0, x_1, ...], four at a time. */
static tensor *side_by_side(model_builder *b, tensor **x, i64 n)
{
    while (n > 1 && !b->g->failed) {
        i64 made = 0;
        for (i64 k = 0; k < n; k += 4)
            x[made++] =
                n - k == 1 ? x[k] : g_out(g_node(b->g, OP_concat, x + k, (int)MIN(4, n - k), NO_ATTRS), 0);
        n = made;
    }
    return x[0];
}

/* ---- product keys */
static tensor *additive_scores(model_builder *b, const layer_shape *s, const char *side, tensor *x)
{
    // W: variance 1 of a query; keys: as the authors' layer, U(+-1/sqrt(key_width))
    double bound = 1 / sqrt((double)s->key);
    param_info query = {.kind = PARAM_MATRIX, .std = 1 / sqrt((double)b->width)},
               key = {.kind = PARAM_MATRIX, .low = -bound, .high = bound};
    tensor *part[16];
    for (i64 h = 0; h < s->heads; h++) {
        const char *of = arena_printf(b->g->arena, "%s.%lld", side, (long long)h);
        tensor *q = multiply(
            b, x, matrix(b, arena_printf(b->g->arena, "query_%s.weight", of), s->key, b->width, query),
            false);
        part[h] = multiply(
            b, q, matrix(b, arena_printf(b->g->arena, "key_%s.weight", of), s->side, s->key, key), true);
    }
    return side_by_side(b, part, s->heads);
}

static tensor *pkm(model_builder *b, const layer_shape *s, tensor *x)
{
    tensor *rows = additive_scores(b, s, "row", x), *columns = additive_scores(b, s, "column", x);
    tensor *values = values_table(b, s, "values.weight", s->value, 1 / sqrt((double)s->value));
    node *found = g_node(b->g, OP_product_keys, IN(rows, columns),
                         WITH({"heads", (double)s->heads}, {"m", (double)s->top}));
    if (b->g->failed) return x;
    tensor *y = g_out(g_node(b->g, OP_memory_read, IN(values, g_out(found, 0), g_out(found, 1)),
                             WITH({"keys", (double)s->side})),
                      0);
    return b->g->failed || cols(y) == b->width ? y : map_back(b, y, 1 / sqrt((double)s->value));
}

/* ---- UltraMem */
typedef struct start { // initial values
    double map, query_gain, key_gain, values;
} start;

/* Width of the feed-forward of this block in widths of the model; 8/3 where it has no such matrix (experts).
 */
static double inner_width(model_builder *b)
{
    const tensor *down =
        g_find(b->g, arena_printf(b->g->arena, "blocks.%lld.ffn.down.weight", (long long)b->layer));
    return down ? (double)cols(down) / (double)b->width : 8.0 / 3;
}

static start start_of(model_builder *b, const layer_shape *s)
{
    double code = pow((double)s->key, s->v2 ? -0.4 : -0.33);
    start x = {s->v2 ? sqrt(0.4 / (double)b->width) : 1 / sqrt((double)s->key), code, code, 0.02};
    if (!s->paper) return x;
    x.query_gain = 1 / sqrt(s->scores.mean);
    x.key_gain = 1 / sqrt((double)s->key);
    x.values = s->v2 ? memory_value_std_v2(inner_width(b), b->width, s->top, s->heads, s->scores.deviation,
                                           s->pre, s->value, b->layers)
                     : memory_value_std(s->expansion, s->top, s->heads, b->layers);
    return x;
}

/* N(W x) N(K)^T, a rank's keys of all heads; OF names the part: "row", "row.0". */
static tensor *part_scores(model_builder *b, const layer_shape *s, const start *st, const char *of, i64 keys,
                           tensor *x)
{
    arena *a = b->g->arena;
    param_info info = {.kind = PARAM_MATRIX, .std = st->map};
    tensor *q =
        multiply(b, x, matrix(b, arena_printf(a, "query_%s.weight", of), s->key, b->width, info), false);
    tensor *k = matrix(b, arena_printf(a, "key_%s.weight", of), keys, s->key, info);
    if (b->g->failed) return x;
    q = unit(b, arena_printf(a, "query_%s.gain", of), q, st->query_gain);
    return multiply(b, q, unit(b, arena_printf(a, "key_%s.gain", of), k, st->key_gain), true);
}

/* One query for all ranks and heads; v2: one for each rank. */
static tensor *tucker_scores(model_builder *b, const layer_shape *s, const start *st, const char *side,
                             tensor *x)
{
    tensor *part[4];
    if (!s->v2) return part_scores(b, s, st, side, s->heads * s->rank * s->side, x);
    for (i64 p = 0; p < s->rank && !b->g->failed; p++)
        part[p] = part_scores(b, s, st, arena_printf(b->g->arena, "%s.%lld", side, (long long)p), s->side, x);
    return b->g->failed ? x : side_by_side(b, part, s->rank);
}

/* The core, and the pair (u, t) whose sign a state keeps. */
static tensor *core_of(model_builder *b, const layer_shape *s, tensor **pair)
{
    param_info info = {.kind = PARAM_VECTOR, .low = 0, .high = 1, .f32 = true};
    tensor *core = matrix(b, "core", s->heads * s->cores, s->rank * s->rank, info);
    tensor *kept = g_state(b->g, g_path(b->g, "direction"), DT_F32, 2, (i64[]){s->heads, 2 * s->rank});
    *pair = g_out(g_node(b->g, OP_memory_direction, IN(core, kept), NO_ATTRS), 0);
    if (b->shape->mode == MODE_TRAIN) g_node(b->g, OP_memory_direction_keep, IN(kept, core), NO_ATTRS);
    double weight = of_number(b, "model.memory.aux_weight");
    if (weight > 0 && b->m->inverse_count && b->shape->mode == MODE_TRAIN)
        model_add_loss(b,
                       g_out(g_node(b->g, OP_memory_core_loss, IN(core, b->m->targets, b->m->inverse_count),
                                    WITH({"heads", (double)s->heads}, {"weight", weight},
                                         {"margin", of_number(b, "model.memory.aux_margin")})),
                             0));
    return core;
}

/* v2: s <P[row], W_p x> */
static tensor *matched(model_builder *b, const layer_shape *s, const start *st, const op_set *places,
                       const node *found, tensor *x)
{
    param_info info = {.kind = PARAM_MATRIX, .std = st->map};
    tensor *z = multiply(b, x, matrix(b, "pre.weight", s->pre, b->width, info), false);
    tensor *table = values_table(b, s, "pre_values.weight", s->pre, st->values);
    node *t = g_node(b->g, OP_memory_match, IN(table, g_out(found, 0), g_out(found, 1), z), places);
    return b->g->failed ? x : g_out(t, 0);
}

static tensor *ultramem(model_builder *b, const layer_shape *s, tensor *x)
{
    start st = start_of(b, s);
    tensor *rows = tucker_scores(b, s, &st, "row", x), *columns = tucker_scores(b, s, &st, "column", x),
           *pair;
    tensor *core = core_of(b, s, &pair);
    tensor *values = values_table(b, s, "values.weight", s->value, st.values);
    node *found = g_node(b->g, OP_memory_search, IN(rows, columns, core, pair),
                         WITH({"heads", (double)s->heads}, {"m", (double)s->top}));
    if (b->g->failed) return x;
    if (b->shape->mode == MODE_EVALUATE)
        model_gauge_add(b, "memory_recall",
                        g_out(g_node(b->g, OP_memory_recall, IN(rows, columns, core, g_out(found, 0)),
                                     WITH({"heads", (double)s->heads})),
                              0));
    op_set places[6] = {{"keys", (double)s->side},
                        {"expansion", (double)s->expansion},
                        {"shuffle", s->expansion > 1 ? (double)b->layer + 1 : 0},
                        {"shift", (double)s->shift}};
    tensor *scores = s->v2 ? matched(b, s, &st, places, found, x) : g_out(found, 1);
    if (s->v2) places[4] = (op_set){"sum", 1};
    node *y = g_node(b->g, OP_memory_read, IN(values, g_out(found, 0), scores), places);
    if (b->g->failed) return x;
    return map_back(b, g_out(y, 0), s->v2 ? st.map : 1 / sqrt((double)cols(g_out(y, 0))));
}

/* ---- the slot */
static tensor *(*const kinds[])(model_builder *b, const layer_shape *s, tensor *x) = {NULL, pkm, ultramem,
                                                                                      ultramem};

static tensor *layer(model_builder *b, i64 number, tensor *x)
{
    layer_shape s;
    if (!read_shape(b, number, &s)) return x;
    const char *scope = g_push(b->g, "memory");
    tensor *y = kinds[of_choice(b, "model.memory.kind")](b, &s, norm_beside_ffn(b, x));
    y = b->g->failed ? y : dropout(b, y);
    g_pop(b->g, scope);
    return y;
}

void memory_slot(model_builder *b, memory *m, residual *r, tensor *x)
{
    for (i64 k = 0; k < m->n && !b->g->failed; k++)
        if (m->span[k].read == b->layer) m->span[k].found = layer(b, k, x);
    for (i64 k = 0; k < m->n && !b->g->failed; k++)
        if (m->span[k].add == b->layer) residual_add(b, r, m->span[k].found);
}
