/* recompute: trade time for memory. A backward node that would read a forward value the policy does not keep
 * reads a clone of it instead, computed again just before its first use; so the original dies early.
 *
 *   none    everything is kept
 *   cheap   values of ops marked OP_CHEAP (norms, activations) are computed again from what is kept
 *   block   only the block boundaries, and indices that ops selected, are kept (of every EVERY-th block)
 *
 * A clone has its original's attributes, random stream and kernels, so gradients are equal to the bit. */
#include "graph/graph.h"
#include "ops/op.h"

typedef struct recomputer {
    graph *g;
    recompute_policy policy;
    int every;
    tensor **clone; // by tensor id of the original
} recomputer;

static bool kept(const recomputer *r, const tensor *t)
{
    const node *n = t->maker;
    if (t->role != ROLE_VALUE || t->keep || n->phase != PHASE_FORWARD) return true;
    if (n->def->flags & OP_LOSS || (n->def->flags & OP_SELECTS && t->dtype == DT_I32)) return true;
    if (r->policy == RECOMPUTE_CHEAP) return !(n->def->flags & OP_CHEAP);
    return t->boundary || n->layer < 0 || n->layer % r->every != 0;
}

static tensor *again(recomputer *r, tensor *t)
{
    if (!t || kept(r, t)) return t;
    if (r->clone[t->id]) return r->clone[t->id];
    const node *n = t->maker;
    tensor *in[MAX_IN];
    for (int k = 0; k < n->n_in; k++) in[k] = again(r, n->in[k]);
    node *copy = g_clone(r->g, n);
    copy->phase = PHASE_BACKWARD;
    for (int k = 0; k < n->n_in; k++) copy->in[k] = in[k];
    for (int k = 0; k < n->n_out; k++)
        if (n->out[k]) r->clone[n->out[k]->id] = copy->out[k];
    g_append(r->g, copy);
    return r->clone[t->id];
}

status graph_recompute(graph *g, recompute_policy policy, int every)
{
    if (policy == RECOMPUTE_NONE) return OK;
    node **old = g->nodes;
    i64 n_old = g->n_nodes;
    recomputer r = {g, policy, MAX(every, 1), arena_array(g->arena, tensor *, g->n_tensors)};
    g->nodes = NULL;
    g->n_nodes = g->node_capacity = 0;
    for (i64 i = 0; i < n_old; i++) {
        node *n = old[i];
        if (n->phase == PHASE_BACKWARD)
            for (int k = 0; k < n->n_in; k++) n->in[k] = again(&r, n->in[k]);
        g_append(g, n);
    }
    graph_prune(g);
    return graph_verify(g);
}
