/* The double interpreter: see interpret.h. Every tensor is a dense array of its own: no aliasing, no plan. */
#include "graph/interpret.h"
#include <string.h>

struct oracle {
    const graph *g;
    double **data; // by tensor id
    i64 n;
    bool hold;
};

status oracle_open(const graph *g, oracle **out)
{
    oracle *o;
    TRY(mem_alloc(sizeof *o, "double interpreter", &o));
    o->g = g;
    o->n = g->n_tensors;
    status s = mem_alloc(sizeof(double *) * (size_t)MAX(o->n, 1), "double interpreter", &o->data);
    for (i64 i = 0; i < o->n && !s; i++) {
        i64 bytes;
        s = mul_i64(count(g->tensors[i]), sizeof(double), &bytes);
        if (!s) s = mem_alloc((size_t)bytes, "double interpreter", &o->data[i]);
    }
    for (i64 i = 0; i < o->n && !s; i++) {
        const tensor *t = g->tensors[i];
        for (i64 k = 0; t->role == ROLE_CONST && k < count(t); k++)
            o->data[i][k] = t->dtype == DT_I32 ? ((const i32 *)t->fixed)[k] : ((const float *)t->fixed)[k];
    }
    if (s)
        oracle_close(o);
    else
        *out = o;
    return s;
}

void oracle_close(oracle *o)
{
    if (!o) return;
    for (i64 i = 0; i < o->n && o->data; i++) mem_free(o->data[i]);
    mem_free(o->data);
    mem_free(o);
}

double *oracle_data(oracle *o, const tensor *t) { return o->data[t->id]; }
void oracle_hold(oracle *o, bool hold) { o->hold = hold; }

static status run_node(oracle *o, const node *n, const step_info *step)
{
    op_call64 c = {.node = n, .step = step};
    double *held[MAX_OUT] = {0}, *sum[MAX_OUT] = {0};
    status s = OK;
    for (int i = 0; i < n->n_in; i++) c.in[i] = n->in[i] ? o->data[n->in[i]->id] : NULL;
    for (int i = 0; i < n->n_out && !s; i++) {
        if (!n->out[i]) continue;
        c.out[i] = o->data[n->out[i]->id];
        size_t bytes = sizeof(double) * (size_t)count(n->out[i]);
        if (n->accumulate >> i & 1) { // the definition overwrites: let it, elsewhere, and add
            s = mem_alloc(bytes, "double interpreter", &sum[i]);
            c.out[i] = sum[i];
        } else if (o->hold && n->out[i]->dtype == DT_I32 && n->def->flags & OP_SELECTS) {
            s = mem_alloc(bytes, "double interpreter", &held[i]);
            if (!s) c.held[i] = memcpy(held[i], c.out[i], bytes);
        }
    }
    if (!s) n->def->reference(&c);
    for (int i = 0; i < n->n_out; i++) {
        for (i64 j = 0; !s && sum[i] && j < count(n->out[i]); j++) o->data[n->out[i]->id][j] += sum[i][j];
        mem_free(sum[i]);
        mem_free(held[i]);
    }
    return s;
}

status oracle_run(oracle *o, const step_info *step, bool backward)
{
    for (i64 i = 0; i < o->n; i++)
        if (o->g->tensors[i]->role == ROLE_TALLY)
            memset(o->data[i], 0, sizeof(double) * (size_t)count(o->g->tensors[i]));
    for (i64 i = 0; i < o->g->n_nodes; i++) {
        phase p = o->g->nodes[i]->phase;
        if (p == PHASE_FORWARD || (p == PHASE_BACKWARD && backward)) TRY(run_node(o, o->g->nodes[i], step));
    }
    for (i64 i = 0; i < o->g->n_nodes; i++) // everybody has read the states
        if (o->g->nodes[i]->phase == PHASE_COMMIT) TRY(run_node(o, o->g->nodes[i], step));
    return OK;
}
