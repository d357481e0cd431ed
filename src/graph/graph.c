/* Building a graph: leaves, nodes, names. See graph.h. */
#include "graph/graph.h"
#include "base/random.h"
#include "ops/op.h"
#include <assert.h>
#include <stdio.h>
#include <string.h>

graph *graph_new(arena *a, const graph_options *options)
{
    graph *g = arena_new(a, graph);
    g->arena = a;
    g->options = *options;
    g->scope = "";
    g->layer = -1;
    return g;
}

void g_fail(graph *g, status s)
{
    if (g->failed)
        status_drop(s);
    else
        g->failed = s;
}

status graph_status(graph *g)
{
    status s = g->failed;
    g->failed = OK;
    return s;
}

void graph_close(graph *g)
{
    if (g) status_drop(graph_status(g));
}

const char *dtype_name(dtype t) { return t == DT_F32 ? "f32" : t == DT_BF16 ? "bf16" : "i32"; }

bool same_shape(const tensor *a, const tensor *b)
{
    return a->ndim == b->ndim && !memcmp(a->dim, b->dim, (size_t)a->ndim * sizeof *a->dim);
}

/* Appends P to a growing array of pointers in the graph's arena. */
static void append(graph *g, void ***array, i64 *n, i64 *capacity, void *p)
{
    if (*n == *capacity) {
        *capacity = MAX(256, *capacity * 2);
        void **bigger = arena_array(g->arena, void *, *capacity);
        if (*n) memcpy(bigger, *array, (size_t)*n * sizeof *bigger);
        *array = bigger;
    }
    (*array)[(*n)++] = p;
}

static tensor *new_tensor(graph *g, role r, dtype t, const char *path, int ndim, const i64 *dim)
{
    assert(ndim >= 1 && ndim <= MAX_DIMS);
    tensor *x = arena_new(g->arena, tensor);
    x->id = (i32)g->n_tensors;
    x->role = r;
    x->dtype = t;
    x->path = path;
    x->ndim = ndim;
    memcpy(x->dim, dim, (size_t)ndim * sizeof *dim);
    append(g, (void ***)&g->tensors, &g->n_tensors, &g->tensor_capacity, x);
    return x;
}

/* ---- leaves */

tensor *g_find(const graph *g, const char *path)
{
    for (i64 i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->role != ROLE_VALUE && !strcmp(g->tensors[i]->path, path)) return g->tensors[i];
    return NULL;
}

static tensor *leaf(graph *g, role r, const char *path, dtype t, int ndim, const i64 *dim)
{
    tensor *x = g_find(g, path);
    if (!x) return new_tensor(g, r, t, arena_strdup(g->arena, path), ndim, dim);
    bool same = x->role == r && x->ndim == ndim && !memcmp(x->dim, dim, (size_t)ndim * sizeof *dim);
    if (!same)
        g_fail(g, fail(ERR_CONFIG, "%s is used with two shapes or roles; tied tensors must agree", path));
    return x;
}

tensor *g_param(graph *g, const char *path, int ndim, const i64 *dim, const param_info *info)
{
    tensor *known = g_find(g, path), *x = leaf(g, ROLE_PARAM, path, DT_F32, ndim, dim);
    if (known) return x;
    x->param = *info;
    if (!info->f32) x->dtype = g->options.act;
    return x;
}
tensor *g_input(graph *g, const char *path, dtype t, int ndim, const i64 *dim)
{
    return leaf(g, ROLE_INPUT, path, t, ndim, dim);
}
tensor *g_state(graph *g, const char *path, dtype t, int ndim, const i64 *dim)
{
    return leaf(g, ROLE_STATE, path, t, ndim, dim);
}
tensor *g_cache(graph *g, const char *path, dtype t, int ndim, const i64 *dim)
{
    tensor *x = leaf(g, ROLE_STATE, path, t, ndim, dim);
    x->transient = true;
    return x;
}
tensor *g_tally(graph *g, const char *path, int ndim, const i64 *dim)
{
    return leaf(g, ROLE_TALLY, path, DT_F32, ndim, dim);
}
tensor *g_const(graph *g, const char *path, dtype t, int ndim, const i64 *dim, const void *values)
{
    bool known = g_find(g, path) != NULL;
    tensor *x = leaf(g, ROLE_CONST, path, t, ndim, dim);
    size_t bytes = (size_t)(count(x) * dtype_bytes(t));
    if (!known)
        x->fixed = arena_copy(g->arena, values, bytes);
    else if (!g->failed && memcmp(x->fixed, values, bytes) != 0)
        g_fail(g, fail(ERR_CONFIG, "%s is used with two values", path));
    return x;
}

/* ---- names */

char *g_path(graph *g, const char *name)
{
    return *g->scope ? arena_printf(g->arena, "%s.%s", g->scope, name) : arena_strdup(g->arena, name);
}

const char *g_push(graph *g, const char *format, ...)
{
    char name[128];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    const char *previous = g->scope;
    g->scope = g_path(g, name);
    return previous;
}

void g_pop(graph *g, const char *previous) { g->scope = previous; }

/* ---- nodes */

double attr(const node *n, const char *name)
{
    for (int i = 0; i < MAX_ATTRS && n->def->attrs[i].name; i++)
        if (!strcmp(n->def->attrs[i].name, name)) return n->attr[i];
    assert(!"the op has that attribute");
    return 0;
}

const char *where(const op_build *b)
{
    return arena_printf(b->g->arena, "%s (%s)", b->n->def->name, b->n->path);
}

status need(op_build *b, bool ok, const char *format, ...)
{
    char text[400];
    va_list args;
    if (ok) return OK;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return fail(ERR_CONFIG, "%s: %s", where(b), text);
}

status out_shape(op_build *b, int i, dtype type, int ndim, const i64 *dim)
{
    node *n = b->n;
    i64 total = 1;
    for (int k = 0; k < ndim; k++) {
        TRY(need(b, dim[k] > 0, "output %s would have a dimension of %lld", n->def->out[i].name,
                 (long long)dim[k]));
        TRY(need(b, !__builtin_mul_overflow(total, dim[k], &total), "output %s overflows",
                 n->def->out[i].name));
    }
    n->out[i] = new_tensor(b->g, ROLE_VALUE, type, n->path, ndim, dim);
    n->out[i]->maker = n;
    n->out[i]->maker_out = i;
    n->n_out = MAX(n->n_out, i + 1);
    return OK;
}
status out_like(op_build *b, int i, const tensor *t) { return out_shape(b, i, t->dtype, t->ndim, t->dim); }
status out_act(op_build *b, int i, const tensor *t)
{
    return out_shape(b, i, b->g->options.act, t->ndim, t->dim);
}
status out_rows(op_build *b, int i, const tensor *t)
{
    return out_shape(b, i, DT_F32, 2, (i64[]){rows_of(t), 1});
}

double traffic(const node *n)
{
    double bytes = 0;
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i]) bytes += (double)(count(n->in[i]) * dtype_bytes(n->in[i]->dtype));
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i]) bytes += (double)(count(n->out[i]) * dtype_bytes(n->out[i]->dtype));
    return bytes;
}

static status check_inputs(op_build *b)
{
    const op_def *def = b->n->def;
    int declared = 0;
    while (declared < MAX_IN && def->in[declared].name) declared++;
    TRY(need(b, b->n->n_in <= declared, "takes at most %d inputs", declared));
    for (int i = 0; i < declared; i++) {
        const tensor *t = i < b->n->n_in ? b->n->in[i] : NULL;
        TRY(need(b, t || def->in[i].optional, "input %s is missing", def->in[i].name));
        if (!t) continue;
        bool index = def->in[i].kind == ARG_I32;
        TRY(need(b, (t->dtype == DT_I32) == index, "input %s must hold %s", def->in[i].name,
                 index ? "indices (i32)" : "numbers"));
        TRY(need(b, def->in[i].kind != ARG_F32 || t->dtype == DT_F32, "input %s must be f32",
                 def->in[i].name));
    }
    return OK;
}

static status set_attrs(op_build *b, const op_set *attrs)
{
    const op_def *def = b->n->def;
    for (int i = 0; i < MAX_ATTRS && def->attrs[i].name; i++) b->n->attr[i] = def->attrs[i].initial;
    for (; attrs && attrs->name; attrs++) {
        int i = 0;
        while (i < MAX_ATTRS && def->attrs[i].name && strcmp(def->attrs[i].name, attrs->name)) i++;
        TRY(need(b, i < MAX_ATTRS && def->attrs[i].name, "has no attribute %s", attrs->name));
        TRY(need(b, attrs->value >= def->attrs[i].min && attrs->value <= def->attrs[i].max,
                 "%s is %g; it must be between %g and %g (%s)", attrs->name, attrs->value, def->attrs[i].min,
                 def->attrs[i].max, def->attrs[i].help));
        b->n->attr[i] = attrs->value;
    }
    return OK;
}

static status build(op_build *b, const op_set *attrs)
{
    TRY(check_inputs(b));
    TRY(set_attrs(b, attrs));
    return b->n->def->infer(b);
}

node *g_node(graph *g, op_id op, tensor *const *in, int n_in, const op_set *attrs)
{
    node *n = arena_new(g->arena, node);
    n->op = op;
    n->def = op_table(ISA_PLAIN, op);
    n->phase = n->def->flags & OP_COMMIT ? PHASE_COMMIT : g->phase;
    n->layer = g->layer;
    n->n_in = n_in;
    n->path = g_path(g, n->def->name);
    n->stream = g->stream ? g->stream : random_stream(n->path);
    memcpy(n->in, in, (size_t)n_in * sizeof *in);
    if (!g->failed) g_fail(g, build(&(op_build){g, n}, attrs));
    if (g->failed) { // outputs that later calls may pass on; the graph is refused by graph_status
        for (int i = 0; i < MAX_OUT; i++)
            n->out[i] = new_tensor(g, ROLE_VALUE, DT_F32, n->path, 1, (i64[]){1});
        return n;
    }
    g_append(g, n);
    return n;
}

node *g_node_from(graph *g, op_id op, tensor *const *in, int n_in, const node *from)
{
    const op_def *to = op_table(ISA_PLAIN, op);
    op_set attrs[MAX_ATTRS + 1] = {0};
    int n = 0;
    for (int i = 0; i < MAX_ATTRS && to->attrs[i].name; i++)
        for (int k = 0; k < MAX_ATTRS && from->def->attrs[k].name; k++)
            if (!strcmp(to->attrs[i].name, from->def->attrs[k].name))
                attrs[n++] = (op_set){to->attrs[i].name, from->attr[k]};
    return g_node(g, op, in, n_in, attrs);
}

tensor *g_into_tally(graph *g, node *n, int i, const char *path)
{
    if (g->failed) return n->out[i];
    n->out[i] = g_tally(g, path, n->out[i]->ndim, n->out[i]->dim);
    n->accumulate |= 1u << i;
    return n->out[i];
}

void g_append(graph *g, node *n)
{
    n->id = (i32)g->n_nodes;
    append(g, (void ***)&g->nodes, &g->n_nodes, &g->node_capacity, n);
}

node *g_clone(graph *g, const node *n)
{
    node *copy = arena_copy(g->arena, n, sizeof *n);
    copy->clone_of = (node *)n;
    for (int i = 0; i < n->n_out; i++) {
        if (!n->out[i]) continue;
        copy->out[i] = new_tensor(g, ROLE_VALUE, n->out[i]->dtype, n->path, n->out[i]->ndim, n->out[i]->dim);
        copy->out[i]->maker = copy;
        copy->out[i]->maker_out = i;
    }
    return copy;
}

void graph_prune(graph *g)
{
    u8 *used = arena_array(g->arena, u8, g->n_tensors + 1);
    i64 kept = 0;
    for (i64 i = 0; i < g->n_tensors; i++) {
        const tensor *t = g->tensors[i];
        if (t->keep || t->role != ROLE_VALUE) used[t->id] = 1;
    }
    for (i64 i = g->n_nodes - 1; i >= 0; i--) {
        node *n = g->nodes[i];
        bool live = n->phase == PHASE_COMMIT || n->accumulate;
        for (int k = 0; k < n->n_out; k++) live |= n->out[k] && used[n->out[k]->id];
        for (int k = 0; live && k < n->n_in; k++)
            if (n->in[k]) used[n->in[k]->id] = 1;
        if (!live) g->nodes[i] = NULL;
    }
    for (i64 i = 0; i < g->n_nodes; i++)
        if (g->nodes[i]) {
            g->nodes[i]->id = (i32)kept;
            g->nodes[kept++] = g->nodes[i];
        }
    g->n_nodes = kept;
}
