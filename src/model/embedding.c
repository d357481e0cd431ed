/* embedding: how a token becomes a vector.
 *
 *   table            e_t = E[x_t]
 *   over_encoding    E[x_t] and p_t = sum_a E_a[r_a(t)] W_a, A = splits (order - 1) tables of slices d / A
 * wide, combined: mean     (E[x] + p) / (1 + A);  rescale: / sqrt(1 + A) sum      E[x] + p; rescale: / sqrt(1
 * + A) concat   [E[x], E_0[r_0], ...] U normsum  g (RMSNorm(E[x]) + RMSNorm(p)) / sqrt 2
 *
 * The tables lie in one parameter, so that p is one look-up of slices (ops/slices.c) and one product: the sum
 * of E_a[r_a] W_a is [E_0[r_0], ..., E_A-1[r_A-1]] W. Row numbers are in ops/ngram.c. M_a are the A smallest
 * numbers from model.embedding.slots up that share no factor with the vocabulary V: with M = 2k and V even,
 * half of the previous token would be lost. They are a constant of the model, kept in its checkpoints.
 *
 * Source:  Over-Tokenized Transformer, arXiv:2501.16975 (mean, slices d/A wide); the other combinations from
 * later implementations of it. Choices: where the paper is silent: E_a starts as E does, W_a from N(0, A/d),
 * U from N(0, 1/2d), the gate g, a gain of the width, from 1; decay is off for the tables (lazy rows), or
 * that of the class embedding.
 */
#include "model/build.h"
#include "model/methods.h"
#include <math.h>

#define NGRAM "model.embedding.kind=over_encoding"
const config_key embedding_keys[] = {
    {"model.embedding.kind", KEY_CHOICE, "table", "table over_encoding",
     .help =
         "how a token becomes a vector; over_encoding: hashed tables of the n-grams that end at it as well",
     .source = "over_encoding: arXiv:2501.16975"},
    {"model.embedding.order", KEY_COUNT, "3", .min = 1, .max = 16, .unit = "tokens",
     .help = "the longest n-gram; 1: none, which is kind table", .source = "arXiv:2501.16975", .only = NGRAM},
    {"model.embedding.splits", KEY_COUNT, "2", .min = 1, .max = 256, .unit = "tables",
     .help = "tables of each order, of independent hashes; splits (order - 1) must divide model.width",
     .only = NGRAM},
    {"model.embedding.slots", KEY_COUNT, "none", "none", .min = 1, .max = 2147483647, .unit = "rows",
     .help = "rows of a table, or the next numbers above that share no factor with the vocabulary; required: "
             "tokens of training / slots of 50 or more is a good choice",
     .only = NGRAM},
    {"model.embedding.combine", KEY_CHOICE, "mean", "mean sum concat normsum",
     .help = "how the token's own row and those of its n-grams become one vector", .only = NGRAM},
    {"model.embedding.rescale", KEY_BOOL, "false",
     .help =
         "keep the deviation of the token's own row: mean times sqrt(1 + A), sum over sqrt(1 + A), A tables",
     .only = "model.embedding.combine=mean sum"},
    {0},
};

const method_row embedding_methods[] = {
    {"over_encoding", "embedding",
     .settings = "model.embedding.kind=over_encoding model.embedding.slots=932064",
     .small = "model.embedding.slots=97", .common = true, .limit = 1.06},
    {0},
};

tensor *embedding_table(model_builder *b)
{
    param_info info = init_matrix(b, PART_EMBEDDING, b->width);
    return g_param(b->g, "embedding.weight", 2, (i64[]){b->vocab, b->width}, &info);
}

static i64 common_factor(i64 a, i64 b)
{
    while (b) {
        i64 rest = a % b;
        a = b, b = rest;
    }
    return a;
}

typedef struct ngrams {
    i64 order, splits, tables, slice, rows; // rows: of all tables
    i32 *hash;                              // [tables, 1 + order]: see ops/ngram.c
} ngrams;

/* M_a and the multipliers V^j mod M_a. False: refused. */
static bool choose_moduli(model_builder *b, ngrams *n)
{
    i64 m = of_count(b, "model.embedding.slots");
    n->hash = arena_array(b->g->arena, i32, n->tables * (n->order + 1));
    for (i64 a = 0; a < n->tables; a++, m++) {
        i32 *row = n->hash + a * (n->order + 1);
        while (common_factor(m, b->vocab) != 1) m++;
        n->rows += m;
        if (n->rows > INT32_MAX) {
            refuse(b, "model.embedding.slots",
                   "is %lld; %lld tables of that many rows are more than %d, and a row is found by 31 bits",
                   (long long)of_count(b, "model.embedding.slots"), (long long)n->tables, INT32_MAX);
            return false;
        }
        i64 power = 1 % m, order = 2 + a / n->splits;
        row[0] = (i32)m;
        for (i64 j = 0; j < order; j++, power = power * (b->vocab % m) % m) row[1 + j] = (i32)power;
    }
    return true;
}

/* False: refused, or no tables at all (order 1). */
static bool plan_ngrams(model_builder *b, ngrams *n)
{
    *n = (ngrams){.order = of_count(b, "model.embedding.order"),
                  .splits = of_count(b, "model.embedding.splits")};
    n->tables = n->splits * (n->order - 1);
    if (!n->tables) return false;
    if (b->width % n->tables) {
        refuse(b, "model.embedding.splits",
               "is %lld; A = splits (order - 1) = %lld tables share model.width (%lld) in slices of width / "
               "A, so A "
               "must divide it",
               (long long)n->splits, (long long)n->tables, (long long)b->width);
        return false;
    }
    n->slice = b->width / n->tables;
    if (of_count(b, "model.embedding.slots") < 0) {
        refuse(b, "model.embedding.slots",
               "is none; over_encoding needs the rows of a table: set it (such as 256Ki)");
        return false;
    }
    return choose_moduli(b, n);
}

static tensor *row_numbers(model_builder *b, const ngrams *n)
{
    model *m = b->m;
    tensor *hash =
        g_const(b->g, "embedding.ngram.hash", DT_I32, 2, (i64[]){n->tables, n->order + 1}, n->hash);
    if (b->shape->mode != MODE_DECODE)
        return g_out(g_node(b->g, OP_ngram_ids, IN(m->tokens, hash, m->doc_start), NO_ATTRS), 0);
    tensor *history =
        g_cache(b->g, "embedding.ngram.history", DT_I32, 2, (i64[]){b->shape->rows, b->shape->capacity});
    tensor *ids = g_out(g_node(b->g, OP_ngram_ids, IN(m->tokens, hash, NULL, history, m->past), NO_ATTRS), 0);
    g_node(b->g, OP_ngram_append, IN(history, m->tokens, m->past), NO_ATTRS);
    return ids;
}

/* [..., width]: the slices of a token, side by side. */
static tensor *slices_of(model_builder *b, const ngrams *n)
{
    param_info info = init_matrix(b, PART_EMBEDDING, b->width);
    info.f32 = true; // no second copy of a large table: see ops/slices.c
    info.size_key = "model.embedding.slots";
    tensor *table = g_param(b->g, "embedding.ngram.weight", 2, (i64[]){n->rows, n->slice}, &info);
    return g_out(g_node(b->g, OP_slices, IN(table, row_numbers(b, n)), NO_ATTRS), 0);
}

static tensor *map(model_builder *b, const char *name, double std, tensor *x)
{
    param_info info = init_matrix(b, PART_IN, cols(x));
    info.std = std;
    tensor *w = g_param(b->g, name, 2, (i64[]){b->width, cols(x)}, &info);
    return g_out(g_node(b->g, OP_linear, IN(x, w), NO_ATTRS), 0);
}

static tensor *cast_to(model_builder *b, tensor *x, dtype type)
{
    if (b->g->failed || x->dtype == type) return x;
    return g_out(g_node(b->g, OP_cast, IN(x), WITH({"to", type})), 0);
}

static tensor *join(model_builder *b, tensor *x, tensor *y, double by)
{
    return g_out(g_node(b->g, OP_joint, IN(x, y), WITH({"a", by}, {"c", by})), 0);
}

static tensor *unit_norm(model_builder *b, tensor *x)
{
    param_info gate = init_gain();
    tensor *g = g_param(b->g, "embedding.ngram.gate", 1, &b->width, &gate);
    return g_out(g_node(b->g, OP_rms_norm, IN(x, g), WITH({"eps", of_number(b, "model.norm.eps")})), 0);
}

static tensor *combine(model_builder *b, const ngrams *n, tensor *token, tensor *slices)
{
    enum { MEAN, SUM, CONCAT, NORMSUM };
    double streams = 1 + (double)n->tables;
    i64 how = of_choice(b, "model.embedding.combine");
    if (how == CONCAT) {
        tensor *whole =
            g_out(g_node(b->g, OP_concat, IN(cast_to(b, token, b->shape->act), slices), NO_ATTRS), 0);
        return map(b, "embedding.ngram.mix.weight", 1 / sqrt(2 * (double)b->width), whole);
    }
    tensor *p = map(b, "embedding.ngram.map.weight", 1 / sqrt((double)n->slice), slices);
    if (how == NORMSUM) return join(b, unit_norm(b, token), unit_norm(b, p), sqrt(0.5));
    bool rescale = of_flag(b, "model.embedding.rescale");
    return join(b, token, p, rescale ? 1 / sqrt(streams) : how == MEAN ? 1 / streams : 1);
}

static tensor *table(model_builder *b)
{
    return g_out(g_node(b->g, OP_embedding, IN(embedding_table(b), b->m->tokens), NO_ATTRS), 0);
}

static tensor *over_encoding(model_builder *b)
{
    ngrams n;
    tensor *token = table(b);
    if (!plan_ngrams(b, &n)) return token;
    return cast_to(b, combine(b, &n, token, slices_of(b, &n)), b->shape->stream);
}

static tensor *(*const kinds[])(model_builder *b) = {table, over_encoding};

tensor *embedding_slot(model_builder *b)
{
    b->embedded = kinds[of_choice(b, "model.embedding.kind")](b);
    return norm_embedding(b, dropout(b, position_embed(b, repeat_tokens(b, b->embedded))));
}
