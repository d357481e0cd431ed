/* rewrite: speed that crosses slots. Where a graph holds a sequence that a fused op names (rewrite.h), the
 * fused op takes its place, after autodiff and recomputation; `--no-fuse` leaves the graph as it was. Every
 * rule is proven equal to its sequence in double, and to the bit in f32 and bf16, by tests/test_rewrite.c.
 *
 * The fused node takes over the output tensors of the nodes it replaces (keep flags, tallies, accumulation),
 * so that readers need no change. A rule fits only nodes that stand side by side, of one phase: nobody can
 * then read between them, what the fused node reads lives no longer than it did, and a recomputation that put
 * a clone just before its first use keeps its memory. */
#include "graph/rewrite.h"
#include <string.h>

typedef struct rewriter {
    graph *g;
    i32 *readers; // by tensor id: how many times nodes read it
} rewriter;

typedef struct match {
    const rewrite_rule *rule;
    node *step[MAX_STEPS]; // in order
    tensor *bound[MAX_NAMES];
    i64 at; // where the last one stands
} match;

static bool made_inside(const match *m, const tensor *t)
{
    for (int k = 0; k < m->rule->n_steps; k++)
        if (t && t->maker == m->step[k]) return true;
    return false;
}

/* Binds the names of step K to the tensors of its node; false: it has others than the rule says. */
static bool bind(match *m, int k, bool *known)
{
    const rewrite_step *s = &m->rule->step[k];
    const node *n = m->step[k];
    for (int i = 0; i < MAX(n->n_in, s->n_in); i++) {
        tensor *t = i < n->n_in ? n->in[i] : NULL;
        if (i >= s->n_in && t) return false;
        if (i >= s->n_in) continue;
        int name = s->in[i];
        if (known[name] ? m->bound[name] != t : made_inside(m, t)) return false;
        known[name] = true;
        m->bound[name] = t;
    }
    for (int i = 0; i < MAX(n->n_out, s->n_out); i++) {
        tensor *t = i < n->n_out ? n->out[i] : NULL;
        if (i >= s->n_out && t) return false;
        if (i >= s->n_out) continue;
        known[s->out[i]] = true;
        m->bound[s->out[i]] = t;
    }
    return true;
}

/* An inner value disappears: only the sequence may read it. */
static bool inner_is_private(const rewriter *r, const match *m)
{
    for (int name = 0; name < m->rule->n_names; name++) {
        const tensor *t = m->bound[name];
        if (!m->rule->inner[name] || !t) continue;
        if (t->role != ROLE_VALUE || t->keep || t->wants_grad) return false;
        i32 own = 0;
        for (int k = 0; k < m->rule->n_steps; k++)
            for (int i = 0; i < m->step[k]->n_in; i++) own += m->step[k]->in[i] == t;
        if (r->readers[t->id] != own) return false;
    }
    return true;
}

/* The sequence of RULE, ending at the node that stands at AT. */
static bool fits(const rewriter *r, const rewrite_rule *rule, i64 at, match *m)
{
    bool known[MAX_NAMES] = {0};
    *m = (match){.rule = rule, .at = at};
    int k = rule->n_steps;
    if (!r->g->nodes[at]) return false;
    for (i64 i = at; i >= 0 && k; i--) { // slots of nodes already replaced are empty
        node *n = r->g->nodes[i];
        if (!n) continue;
        if (n->op != rule->step[--k].op || n->phase != r->g->nodes[at]->phase) return false;
        m->step[k] = n;
    }
    for (int s = 0; !k && s < rule->n_steps; s++)
        if (!bind(m, s, known)) return false;
    return !k && inner_is_private(r, m);
}

/* The node that names the place in the model: the one that reads a parameter, or the last. */
static const node *leading(const match *m)
{
    for (int k = 0; k < m->rule->n_steps; k++)
        for (int i = 0; i < m->step[k]->n_in; i++)
            if (m->step[k]->in[i] && m->step[k]->in[i]->role == ROLE_PARAM) return m->step[k];
    return m->step[m->rule->n_steps - 1];
}

/* The fused node, with outputs of its own; NULL if the op refuses (its shapes are narrower). */
static node *build(graph *g, const match *m)
{
    const rewrite_rule *u = m->rule;
    const op_def *def = op_table(ISA_PLAIN, u->fused);
    const node *like = leading(m);
    tensor *in[MAX_IN] = {0};
    op_set attrs[MAX_ATTRS + 1] = {0};
    int n_in = 0;
    for (int i = 0; i < MAX_IN && def->in[i].name; i++)
        if ((in[i] = m->bound[u->in[i]])) n_in = i + 1;
    for (int i = 0; i < MAX_ATTRS && def->attrs[i].name; i++)
        attrs[i] = (op_set){def->attrs[i].name, m->step[u->from[i].step]->attr[u->from[i].attr]};
    node *n = g_node(g, u->fused, in, n_in, attrs);
    if (g->failed) {
        status_drop(graph_status(g));
        return NULL;
    }
    g->n_nodes--; // it is put where the last of the sequence stands
    n->phase = like->phase;
    n->layer = like->layer;
    n->path = like->path;
    n->clone_of = like->clone_of;
    n->stream = like->stream;
    for (int k = 0; k < u->n_steps; k++)
        if (m->step[k]->def->flags & OP_RANDOM) n->stream = m->step[k]->stream;
    return n;
}

/* Output I of the sequence fits the fused node's: same shape and storage, and it can add where that did. */
static bool can_take(const match *m, const node *n, int i)
{
    const tensor *t = m->bound[m->rule->out[i]], *own = i < n->n_out ? n->out[i] : NULL;
    if (!t || !own) return t == own;
    if (!same_shape(t, own) || t->dtype != own->dtype) return false;
    return t->role == ROLE_VALUE ||
           (t->role == ROLE_TALLY && n->def->flags & OP_ACCUMULATES && n->def->out[i].kind == ARG_F32);
}

static void take(const match *m, node *n, int i)
{
    tensor *t = m->bound[m->rule->out[i]];
    if (!t) return;
    n->out[i] = t;
    if (t->role == ROLE_TALLY)
        n->accumulate |= 1u << i;
    else {
        t->maker = n;
        t->maker_out = i;
    }
}

static bool apply(rewriter *r, const rewrite_rule *rule, i64 at)
{
    match m;
    if (!fits(r, rule, at, &m)) return false;
    node *n = build(r->g, &m);
    if (!n) return false;
    int n_out = 0;
    while (n_out < MAX_OUT && n->def->out[n_out].name)
        if (!can_take(&m, n, n_out++)) return false;
    for (int i = 0; i < n_out; i++) take(&m, n, i);
    for (i64 i = at, k = rule->n_steps; k; i--) {
        node *old = r->g->nodes[i];
        if (!old) continue;
        for (int j = 0; j < old->n_in; j++)
            if (old->in[j]) r->readers[old->in[j]->id]--;
        r->g->nodes[i] = NULL;
        k--;
    }
    for (int j = 0; j < n->n_in; j++)
        if (n->in[j]) r->readers[n->in[j]->id]++;
    r->g->nodes[at] = n;
    return true;
}

/* Once over the graph; how many rules applied. */
static i64 pass(graph *g, const rewrite_rule *rules, i64 n_rules)
{
    rewriter r = {g, arena_array(g->arena, i32, g->n_tensors + 1)};
    i64 n_nodes = g->n_nodes, kept = 0, applied = 0;
    for (i64 i = 0; i < n_nodes; i++)
        for (int k = 0; k < g->nodes[i]->n_in; k++)
            if (g->nodes[i]->in[k]) r.readers[g->nodes[i]->in[k]->id]++;
    for (i64 i = 0; i < n_nodes; i++)
        for (i64 k = 0; k < n_rules; k++) applied += apply(&r, &rules[k], i);
    for (i64 i = 0; i < n_nodes; i++)
        if (g->nodes[i]) {
            g->nodes[i]->id = (i32)kept;
            g->nodes[kept++] = g->nodes[i];
        }
    g->n_nodes = kept;
    return applied;
}

status graph_rewrite(graph *g, i64 *applied)
{
    rewrite_rule *rules;
    i64 n, now;
    *applied = 0;
    TRY(graph_status(g));
    TRY(rewrite_rules(g->arena, &rules, &n));
    do *applied += now = pass(g, rules, n);
    while (now);
    return graph_verify(g);
}
