/* moe_plan: the order in which experts take their tokens. An assignment is a token and one of its k choices,
 * number t k + j; there are exactly n = rows k of them, whatever the router does.
 *
 *   offsets[e] .. offsets[e + 1]   the places of expert e, in one list of n; its tokens in their order
 *   order[p]    the assignment at place p; -1 behind the last expert (only with dropped assignments)
 *   slot[t, j]  the place of the assignment; -1: dropped
 *
 * Capacity: with C > 0 an expert takes at most C assignments of every GROUP rows (0: of all); all first
 * choices come before all second ones, and so on. A dropped assignment's weight is not given to others.
 *
 * Source:   order of choices: GShard, arXiv:2006.16668; dropless: MegaBlocks, arXiv:2211.15841.
 * Numerics: integers, counted in one order: the same bits always.
 */
#include "ops/op.h"
#include <math.h>
#include <string.h>

static status infer(op_build *b)
{
    const tensor *ids = b->n->in[0];
    i64 n = count(ids), group = (i64)attr(b->n, "group");
    TRY(need(b, n < INT32_MAX, "%lld assignments are too many", (long long)n));
    TRY(need(b, !group || rows_of(ids) % group == 0, "%lld rows do not divide into groups of %lld",
             (long long)rows_of(ids), (long long)group));
    TRY(out_shape(b, 0, DT_I32, 1, (i64[]){(i64)attr(b->n, "experts") + 1}));
    TRY(out_shape(b, 1, DT_I32, 1, &n));
    return out_like(b, 2, ids);
}

/* Does the assignment (t, j) find its expert full? Those before it: earlier choices of its group, and the
 * same choice of earlier tokens. */
static bool dropped64(const op_call64 *c, i64 t, i64 j)
{
    const tensor *ids = c->node->in[0];
    i64 k = cols(ids), capacity = (i64)attr(c->node, "capacity"), group = (i64)attr(c->node, "group");
    i64 first = group ? t / group * group : 0, end = group ? first + group : rows_of(ids), before = 0;
    for (i64 u = first; u < end; u++)
        for (i64 m = 0; m < k; m++)
            if (c->in[0][u * k + m] == c->in[0][t * k + j]) before += m < j || (m == j && u < t);
    return capacity > 0 && before >= capacity;
}

static void reference(const op_call64 *c)
{
    i64 n = count(c->node->in[0]), k = cols(c->node->in[0]), experts = (i64)attr(c->node, "experts"), p = 0;
    for (i64 a = 0; a < n; a++) c->out[1][a] = -1, c->out[2][a] = -1;
    for (i64 e = 0; e < experts; e++) {
        c->out[0][e] = (double)p;
        for (i64 a = 0; a < n; a++) {
            if ((i64)c->in[0][a] != e || dropped64(c, a / k, a % k)) continue;
            c->out[1][p] = (double)a;
            c->out[2][a] = (double)p++;
        }
    }
    c->out[0][experts] = (double)p;
}

static status prepare(op_call *c) { return want_scratch(c, (size_t)attr(c->node, "experts") * sizeof(i32)); }

/* Marks dropped assignments with -1, others with 0. */
static void mark(const op_call *c, const i32 *ids, i32 *slot, i32 *taken)
{
    i64 experts = (i64)attr(c->node, "experts"), capacity = (i64)attr(c->node, "capacity");
    i64 rows = c->in[0].rows, k = c->in[0].n, group = (i64)attr(c->node, "group");
    memset(slot, 0, (size_t)(rows * k) * sizeof *slot);
    if (!capacity) return;
    if (!group) group = rows;
    for (i64 first = 0; first < rows; first += group) {
        memset(taken, 0, (size_t)experts * sizeof *taken);
        for (i64 j = 0; j < k; j++)
            for (i64 t = first; t < first + group; t++)
                if (taken[ids[t * k + j]]++ >= capacity) slot[t * k + j] = -1;
    }
}

static void cpu(const op_call *c)
{
    const i32 *ids = c->in[0].p;
    i32 *offsets = c->out[0].p, *order = c->out[1].p, *slot = c->out[2].p;
    i32 *next = (i32 *)call_scratch(c), total = 0;
    i64 n = c->in[0].rows * c->in[0].n, experts = (i64)attr(c->node, "experts");
    mark(c, ids, slot, next);
    memset(next, 0, (size_t)experts * sizeof *next);
    for (i64 a = 0; a < n; a++) next[ids[a]] += slot[a] == 0;
    for (i64 e = 0; e < experts; e++) {
        i32 here = next[e];
        offsets[e] = next[e] = total;
        total += here;
    }
    offsets[experts] = total;
    for (i64 a = 0; a < n; a++)
        if (slot[a] == 0) {
            slot[a] = next[ids[a]]++;
            order[slot[a]] = (i32)a;
        }
    for (i64 p = total; p < n; p++) order[p] = -1;
}

static op_cost cost(const node *op) { return (op_cost){6.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case cases[] = {
    {"dropless", "ids=2x17x2 fill.ids=below:8 experts=8 f32 tol=0"},
    {"capacity", "ids=33x3 fill.ids=below:4 experts=4 capacity=9 f32 tol=0"},
    {"capacity of a group", "ids=4x9x2 fill.ids=below:4 experts=4 capacity=5 group=9 f32 tol=0"},
    {"nobody's expert", "ids=9x1 fill.ids=zero experts=3 f32 tol=0"},
    {"one expert", "ids=9x1 fill.ids=zero experts=1 capacity=2 f32 tol=0"},
    {"more experts than tokens", "ids=2x2 fill.ids=below:40 experts=40 f32 tol=0"},
    {"135m", "ids=2048x2 fill.ids=below:8 experts=8 bench"},
    {0},
};

/* slot and order are each other's inverse, and places of an expert hold only its own. */
static double inverse(law *l)
{
    const double *offsets = law_run(l, 0), *order = law_run(l, 1), *slot = law_run(l, 2),
                 *ids = law_in(l, "ids");
    i64 n = law_count(l, "ids"), there = 0;
    for (i64 a = 0; a < n; a++) {
        if (slot[a] < 0) continue;
        i64 p = (i64)slot[a], e = (i64)ids[a];
        there++;
        if ((i64)order[p] != a || p < offsets[e] || p >= offsets[e + 1]) return 1;
    }
    return fabs((double)there - offsets[4]);
}
static const op_law laws[] = {
    {"dropless: an inverse", "ids=17x2 fill.ids=below:4 experts=4", inverse, 0},
    {"capacity: an inverse", "ids=17x2 fill.ids=below:4 experts=4 capacity=6", inverse, 0},
    {0}};

OP_DEF(moe_plan) = {
    .name = "moe_plan",
    .brief =
        "assignments sorted by expert: offsets of experts, assignment of a place, place of an assignment",
    .source = "capacity: GShard, arXiv:2006.16668; dropless: MegaBlocks, arXiv:2211.15841",
    .in = {{"ids", "[rows, k]", ARG_I32, .range = "0:experts"}},
    .out = {{"offsets", "[experts + 1]", ARG_I32}, {"order", "[n]", ARG_I32}, {"slot", "[rows, k]", ARG_I32}},
    .attrs = {{"experts", 1, 1, 4096, "experts there are"},
              {"capacity", 0, 0, 1 << 30, "assignments an expert takes of a group; 0: all"},
              {"group", 0, 0, 1 << 30, "rows of a group; 0: all"}},
    .infer = infer,
    .reference = reference,
    .cpu = cpu,
    .prepare = prepare,
    .cost = cost,
    .cases = cases,
    .laws = laws,
};
