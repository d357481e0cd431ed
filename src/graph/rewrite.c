/* rewrite: speed that crosses slots. A fused op names the sequence it replaces; this table is applied after
 * autodiff and recomputation; every rule is proven equal to its sequence in double (tests/test_rewrite.c),
 * and
 * `--no-fuse` leaves the graph as it was.
 *
 * A rule looks at one node and may build a replacement. It takes over the output tensors of the nodes it
 * replaces (so readers need no change), marks those nodes dead, and puts the new node where the last of them
 * stood. */
#include "graph/graph.h"
#include "ops/op.h"
#include <string.h>

typedef struct rewriter {
    graph *g;
    i32 *readers; // by tensor id: nodes that read it
    u8 *dead;     // by node id
} rewriter;

typedef struct rewrite_rule {
    const char *name;
    bool (*apply)(rewriter *r, node *n);
} rewrite_rule;

static const rewrite_rule rules[] = {
    {0},
};

static void count_readers(rewriter *r)
{
    for (i64 i = 0; i < r->g->n_nodes; i++)
        for (int k = 0; k < r->g->nodes[i]->n_in; k++)
            if (r->g->nodes[i]->in[k]) r->readers[r->g->nodes[i]->in[k]->id]++;
}

status graph_rewrite(graph *g, i64 *applied)
{
    rewriter r = {g, arena_array(g->arena, i32, g->n_tensors), arena_array(g->arena, u8, g->n_nodes + 1)};
    i64 kept = 0;
    *applied = 0;
    count_readers(&r);
    for (i64 i = 0; i < g->n_nodes; i++)
        for (const rewrite_rule *rule = rules; rule->name; rule++)
            if (!r.dead[i]) *applied += rule->apply(&r, g->nodes[i]);
    for (i64 i = 0; i < g->n_nodes; i++)
        if (!r.dead[i]) {
            g->nodes[i]->id = (i32)kept;
            g->nodes[kept++] = g->nodes[i];
        }
    g->n_nodes = kept;
    return graph_verify(g);
}
