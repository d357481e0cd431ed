/* autodiff: the backward nodes, by the vjp of each op, in reverse order.
 *
 * Gradients of one tensor that come from several readers are added by `sum`, in program order. A parameter's
 * gradient is a TALLY in f32: where the last node of a gradient can accumulate (OP_ACCUMULATES), its output
 * is bound to the tally, so that GEMMs add into the buffer themselves; otherwise an `accumulate` node is
 * added. A look-up's gradient stays a list of rows (grad_ids, grad_rows) where the parameter allows it
 * (param.rows) and nothing dense reaches it. */
#include "graph/graph.h"
#include "ops/op.h"
#include <string.h>

enum { MAX_PARTS = 4 }; // inputs of one sum node

typedef struct parts {
    tensor **part;
    int n, capacity;
} parts;

typedef struct backward {
    graph *g;
    i64 n_forward; // nodes and tensors before the pass
    i64 n_tensors;
    u8 *wanted;     // by tensor id: a gradient must reach it
    parts *parts;   // by tensor id: contributions so far
    tensor **total; // by tensor id: their sum, once asked for
} backward;

static void contribute(backward *b, const tensor *t, tensor *gradient)
{
    parts *p = &b->parts[t->id];
    if (p->n == p->capacity) {
        p->capacity = MAX(4, 2 * p->capacity);
        tensor **bigger = arena_array(b->g->arena, tensor *, p->capacity);
        if (p->n) memcpy(bigger, p->part, (size_t)p->n * sizeof *bigger);
        p->part = bigger;
    }
    p->part[p->n++] = gradient;
}

/* The sum of all contributions to T, or NULL. */
static tensor *total(backward *b, const tensor *t)
{
    parts *p = &b->parts[t->id];
    tensor *sum = p->n ? p->part[0] : NULL;
    for (int i = 1; i < p->n;) {
        tensor *in[MAX_PARTS] = {sum};
        int n = 1;
        while (n < MAX_PARTS && i < p->n) in[n++] = p->part[i++];
        sum = g_out(g_node(b->g, OP_sum, in, n, NO_ATTRS), 0);
    }
    return sum;
}

/* One more contribution to a parameter's gradient. The node that makes it may add into the tally itself if
 * nothing else can hold the gradient: it is FRESH, made by the vjp under way and meant for this parameter
 * alone. */
static void into_param(backward *b, tensor *param, tensor *gradient, bool fresh)
{
    graph *g = b->g;
    if (!param->grad)
        param->grad = g_tally(g, arena_printf(g->arena, "grad.%s", param->path), param->ndim, param->dim);
    node *maker = gradient->maker;
    bool whole = fresh && gradient->role == ROLE_VALUE && maker && maker->def->flags & OP_ACCUMULATES &&
                 maker->def->out[gradient->maker_out].kind == ARG_F32 && !gradient->keep &&
                 count(gradient) == count(param);
    for (i64 i = maker ? maker->id + 1 : 0; whole && i < g->n_nodes; i++) // nobody else may read it
        for (int k = 0; k < g->nodes[i]->n_in; k++) whole &= g->nodes[i]->in[k] != gradient;
    if (!whole) {
        node *n = g_node(g, OP_accumulate, IN(gradient), NO_ATTRS);
        if (g->failed) return;
        maker = n, gradient = n->out[0];
    }
    maker->out[gradient->maker_out] = param->grad;
    maker->accumulate |= 1u << gradient->maker_out;
}

static bool stays_rows(const tensor *param, const tensor *gradient)
{
    return param->param.rows && gradient->maker && gradient->maker->def->flags & OP_ROWS;
}

static void keep_look_up(const node *lookup, tensor **ids, tensor **rows)
{
    *ids = lookup->in[0];
    *rows = lookup->in[1];
    (*ids)->keep = (*rows)->keep = true;
}

/* Gradients that could stay rows were put aside: they do if there is nothing dense. */
static void finish_param(backward *b, tensor *param)
{
    parts *p = &b->parts[param->id];
    if (p->n && !param->grad) {
        param->n_more = p->n - 1;
        param->more_ids = arena_array(b->g->arena, tensor *, p->n);
        param->more_rows = arena_array(b->g->arena, tensor *, p->n);
        keep_look_up(p->part[0]->maker, &param->grad_ids, &param->grad_rows);
        for (int i = 1; i < p->n; i++)
            keep_look_up(p->part[i]->maker, &param->more_ids[i - 1], &param->more_rows[i - 1]);
    } else
        for (int i = 0; i < p->n; i++) into_param(b, param, p->part[i], true); // each a look-up's own node
}

static void mark_wanted(backward *b)
{
    graph *g = b->g;
    for (i64 i = 0; i < g->n_tensors; i++)
        b->wanted[i] = g->tensors[i]->role == ROLE_PARAM || g->tensors[i]->wants_grad;
    for (i64 i = 0; i < b->n_forward; i++) {
        const node *n = g->nodes[i];
        bool any = false;
        for (int k = 0; k < n->n_in; k++) any |= n->in[k] && b->wanted[n->in[k]->id];
        for (int k = 0; any && k < n->n_out; k++)
            if (n->out[k] && n->out[k]->dtype != DT_I32 && !n->def->out[k].fixed)
                b->wanted[n->out[k]->id] = 1;
    }
}

/* Input K's gradient was made by the vjp of N (its nodes start at FIRST) and goes nowhere else: `sum` hands
 * one tensor, which an earlier vjp made, to all of its inputs. */
static bool is_fresh(const node *n, tensor *const *din, int k, i64 first)
{
    const node *maker = din[k]->maker;
    for (int i = 0; i < n->n_in; i++)
        if (i != k && din[i] == din[k]) return false;
    return maker && (maker->id >= first || maker == n);
}

static status node_backward(backward *b, const node *n)
{
    graph *g = b->g;
    tensor *dout[MAX_OUT] = {0}, *din[MAX_IN] = {0};
    bool any = (n->def->flags & OP_LOSS) != 0, reach = false;
    for (int k = 0; k < n->n_in; k++) reach |= n->in[k] && b->wanted[n->in[k]->id];
    if (!reach) return OK;
    g->scope = n->path; // the gradient's nodes are called after the forward node
    g->layer = n->layer;
    g->stream = n->stream;
    for (int k = 0; k < n->n_out; k++)
        if (n->out[k] && n->out[k]->id < b->n_tensors) any |= !!(dout[k] = total(b, n->out[k]));
    i64 first = g->n_nodes;
    if (any) {
        if (!n->def->vjp) return fail(ERR_CHECK, "%s (%s) has no gradient", n->def->name, n->path);
        n->def->vjp(g, n, dout, din);
    }
    if (g->failed) return graph_status(g);
    for (int k = 0; k < n->n_in; k++) {
        tensor *t = n->in[k];
        if (!din[k] || !t || !b->wanted[t->id]) continue;
        if (t->role == ROLE_PARAM && !t->wants_grad && !stays_rows(t, din[k]))
            into_param(b, t, din[k], is_fresh(n, din, k, first));
        else
            contribute(b, t, din[k]);
    }
    return graph_status(g);
}

status graph_backward(graph *g, tensor *const *outputs, tensor *const *seeds, int n)
{
    TRY(graph_status(g));
    i64 nt = g->n_tensors;
    // Ids grow during the pass; contributions only ever go to tensors that exist now.
    backward b = {.g = g,
                  .n_forward = g->n_nodes,
                  .n_tensors = nt,
                  .wanted = arena_array(g->arena, u8, nt),
                  .parts = arena_array(g->arena, parts, nt)};
    mark_wanted(&b);
    for (int i = 0; i < n; i++) contribute(&b, outputs[i], seeds[i]);
    g->phase = PHASE_BACKWARD;
    const char *scope = g->scope;
    status s = OK;
    for (i64 i = b.n_forward - 1; i >= 0 && !s; i--)
        if (g->nodes[i]->phase == PHASE_FORWARD) s = node_backward(&b, g->nodes[i]);
    g->layer = -1;
    g->stream = 0;
    g->scope = "backward";
    for (i64 i = 0; i < nt && !s; i++) {
        tensor *t = g->tensors[i];
        if (t->role == ROLE_PARAM && !t->wants_grad)
            finish_param(&b, t);
        else if (t->wants_grad) {
            t->grad = total(&b, t);
            if (t->grad) t->grad->keep = true;
        }
        s = graph_status(g);
    }
    g->scope = scope;
    g->phase = PHASE_FORWARD;
    if (!s) graph_prune(g);
    return s;
}

tensor *graph_grad(const graph *g, const tensor *leaf)
{
    (void)g;
    return leaf->grad;
}
