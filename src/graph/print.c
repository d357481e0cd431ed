/* Listings of a graph: one line a node, or a drawing for graphviz. See graph.h. */
#include "base/text.h"
#include "graph/graph.h"
#include "ops/op.h"
#include <string.h>

static void add_tensor(text *out, const tensor *t)
{
    if (!t) return text_add(out, "-");
    if (t->role == ROLE_VALUE)
        text_add(out, "%%%d:%s[", t->id, dtype_name(t->dtype));
    else
        text_add(out, "%s:%s[", t->path, dtype_name(t->dtype));
    for (int i = 0; i < t->ndim; i++) text_add(out, "%s%lld", i ? "," : "", (long long)t->dim[i]);
    text_add(out, "]");
}

void graph_print(const graph *g, text *out)
{
    static const char *const phase_name[] = {"F", "B", "C"};
    for (i64 i = 0; i < g->n_nodes; i++) {
        const node *n = g->nodes[i];
        text_add(out, "%4lld %s ", (long long)i, phase_name[n->phase]);
        for (int k = 0; k < n->n_out; k++) {
            if (k) text_add(out, ", ");
            add_tensor(out, n->out[k]);
        }
        text_add(out, " %s %s", n->accumulate ? "+=" : "=", n->def->name);
        for (int k = 0; k < MAX_ATTRS && n->def->attrs[k].name; k++)
            if (n->attr[k] != n->def->attrs[k].initial)
                text_add(out, " %s=%g", n->def->attrs[k].name, n->attr[k]);
        text_add(out, " (");
        for (int k = 0; k < n->n_in; k++) {
            if (k) text_add(out, ", ");
            add_tensor(out, n->in[k]);
        }
        text_add(out, ")  # %s%s\n", n->path, n->clone_of ? " (recomputed)" : "");
    }
}

void graph_print_dot(const graph *g, text *out)
{
    static const char *const colour[] = {"#dbe9ff", "#ffe3d4", "#e2f4dd"};
    text_add(out, "digraph keel {\n  rankdir=TB; node [shape=box, style=filled, fontname=\"sans-serif\", "
                  "fontsize=10];\n");
    for (i64 i = 0; i < g->n_nodes; i++) {
        const node *n = g->nodes[i];
        text_add(out, "  n%lld [label=\"%s\\n%s\", fillcolor=\"%s\"];\n", (long long)i, n->def->name, n->path,
                 colour[n->phase]);
        for (int k = 0; k < n->n_in; k++) {
            const tensor *t = n->in[k];
            if (!t) continue;
            if (t->role == ROLE_VALUE)
                text_add(out, "  n%d -> n%lld [label=\"", t->maker->id, (long long)i);
            else
                text_add(out, "  \"%s\" [shape=ellipse, fillcolor=\"#eeeeee\"];\n  \"%s\" -> n%lld [label=\"",
                         t->path, t->path, (long long)i);
            for (int d = 0; d < t->ndim; d++) text_add(out, "%s%lld", d ? "x" : "", (long long)t->dim[d]);
            text_add(out, "\"];\n");
        }
    }
    text_add(out, "}\n");
}
