/* The rules of a well-formed graph, as a table; run after every pass. See graph.h. */
#include "graph/graph.h"
#include "ops/op.h"
#include <string.h>

typedef struct seen {
    const graph *g;
    i32 *made; // by tensor id: the node that made it; -1: nobody yet
} seen;

static const char *inputs_exist(const seen *s, const node *n)
{
    for (int k = 0; k < n->n_in; k++) {
        const tensor *t = n->in[k];
        if (!t && !n->def->in[k].optional) return "a required input is missing";
        if (t && t->role == ROLE_VALUE && s->made[t->id] < 0)
            return "reads a value that no earlier node computes";
    }
    return NULL;
}
static const char *outputs_are_new(const seen *s, const node *n)
{
    for (int k = 0; k < n->n_out; k++) {
        const tensor *t = n->out[k];
        if (!t) continue;
        if (t->role == ROLE_VALUE && s->made[t->id] >= 0)
            return "computes a value that another node computed";
        if (t->role == ROLE_VALUE && (t->maker != n || t->maker_out != k))
            return "is not the maker its output names";
        if (t->role == ROLE_PARAM || t->role == ROLE_INPUT || t->role == ROLE_CONST) return "writes a leaf";
        if (t->role == ROLE_STATE && n->phase != PHASE_COMMIT) return "writes a state outside a commit";
    }
    return NULL;
}
static const char *accumulates_into_tallies(const seen *s, const node *n)
{
    (void)s;
    for (int k = 0; k < n->n_out; k++) {
        bool tally = n->out[k] && n->out[k]->role == ROLE_TALLY, adds = n->accumulate >> k & 1;
        if (tally != adds) return "a tally must be added to, and only a tally";
        if (adds && (!(n->def->flags & OP_ACCUMULATES) || n->def->out[k].kind != ARG_F32))
            return "accumulates into an output whose kernel overwrites";
    }
    return NULL;
}
static const char *phases_in_order(const seen *s, const node *n)
{
    for (int k = 0; k < n->n_in; k++)
        if (n->in[k] && n->in[k]->maker && n->in[k]->role == ROLE_VALUE &&
            n->in[k]->maker->phase > n->phase && n->phase == PHASE_FORWARD)
            return "a forward node reads a backward value";
    (void)s;
    return NULL;
}
static const char *kinds_fit(const seen *s, const node *n)
{
    (void)s;
    for (int k = 0; k < n->n_in; k++)
        if (n->in[k] && (n->in[k]->dtype == DT_I32) != (n->def->in[k].kind == ARG_I32))
            return "mixes indices and numbers";
    return NULL;
}

static const char *(*const rules[])(const seen *s, const node *n) = {
    inputs_exist, outputs_are_new, accumulates_into_tallies, phases_in_order, kinds_fit,
};

status graph_verify(const graph *g)
{
    seen s = {g, arena_array(g->arena, i32, g->n_tensors + 1)};
    for (i64 i = 0; i < g->n_tensors; i++) s.made[i] = -1;
    for (i64 i = 0; i < g->n_nodes; i++) {
        const node *n = g->nodes[i];
        for (int r = 0; r < COUNT(rules); r++) {
            const char *broken = rules[r](&s, n);
            if (broken)
                return fail(ERR_CHECK, "node %lld, %s (%s): %s", (long long)i, n->def->name, n->path, broken);
        }
        for (int k = 0; k < n->n_out; k++)
            if (n->out[k]) s.made[n->out[k]->id] = (i32)i;
    }
    return OK;
}
