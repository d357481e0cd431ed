/* The memory plan: see plan.h. */
#include "graph/plan.h"
#include "ops/op.h"
#include <stdlib.h>
#include <string.h>

typedef struct planner {
    const graph *g;
    memory_plan *p;
    i32 *last_use; // by tensor id: the last node that reads it; n_nodes: a commit or the caller; -1: nobody
    bool *placed;
    bool *viewed;     // by tensor id: a split reads it, so views of it may outlive its own last reader
    i32 *next, *head; // tensors of one storage, as lists: next by tensor id, head by home
} planner;

/* When node I reads its inputs: a commit runs after all other nodes, wherever it stands in the list. */
static i32 read_at(const graph *g, i64 i)
{
    return (i32)(g->nodes[i]->phase == PHASE_COMMIT ? g->n_nodes : i);
}

static i32 new_home(planner *s, i64 bytes, i32 leaf)
{
    memory_plan *p = s->p;
    p->home[p->n_homes] = (home){.bytes = round_up(bytes, 64), .first = INT32_MAX, .last = -1, .leaf = leaf};
    s->head[p->n_homes] = -1;
    return (i32)p->n_homes++;
}

static void put(planner *s, const tensor *t, place at)
{
    s->p->place[t->id] = at;
    s->placed[t->id] = true;
    s->next[t->id] = s->head[at.home];
    s->head[at.home] = t->id;
}

static void put_alone(planner *s, const tensor *t)
{
    i32 leaf = t->role == ROLE_VALUE ? -1 : t->id;
    put(s, t, (place){new_home(s, count(t) * dtype_bytes(t->dtype), leaf), 0, cols(t)});
}

static place columns_of(place whole, i64 first)
{
    return (place){whole.home, whole.column + first, whole.stride};
}

/* The input whose place output 0 may take at node I, or NULL. Not one that the node reads twice: it may read
 * the second time after it wrote (a sum of three does). */
static const tensor *inplace_input(const planner *s, const node *n, i64 i)
{
    const tensor *out = n->out[0], *in = n->def->inplace ? n->in[n->def->inplace - 1] : NULL;
    if (!in || !out || in->role != ROLE_VALUE || in->keep || out->role != ROLE_VALUE) return NULL;
    if (s->last_use[in->id] != i || in->dtype != out->dtype || count(in) != count(out) ||
        cols(in) != cols(out))
        return NULL;
    for (int k = 0; k < n->n_in; k++)
        if (n->in[k] == in && k != n->def->inplace - 1) return NULL;
    return in;
}

/* Does node I, T's last reader, or a later one read any other tensor that overlaps T's columns? */
static bool overlapped(const planner *s, const tensor *t, i64 i)
{
    place at = s->p->place[t->id];
    for (i32 id = s->head[at.home]; id >= 0; id = s->next[id]) {
        const tensor *u = s->g->tensors[id];
        place other = s->p->place[id];
        if (u == t || other.column >= at.column + cols(t) || at.column >= other.column + cols(u)) continue;
        if (u->keep || s->last_use[id] >= i || u->role != ROLE_VALUE) return true;
    }
    return false;
}

/* Backwards: inputs of a concat are computed where the concat wants them, through in-place ops as well. */
static void place_concats(planner *s)
{
    for (i64 i = s->g->n_nodes - 1; i >= 0; i--) {
        const node *n = s->g->nodes[i];
        if (n->def->flags & OP_CONCAT && n->out[0]->role == ROLE_VALUE) {
            if (!s->placed[n->out[0]->id]) put_alone(s, n->out[0]);
            i64 column = 0;
            for (int k = 0; k < n->n_in; column += cols(n->in[k]), k++) {
                const tensor *t = n->in[k];
                bool own =
                    t->role == ROLE_VALUE && t->maker && !(t->maker->def->flags & (OP_SPLIT | OP_CONCAT));
                if (own && !t->keep && !s->placed[t->id] && t->dtype == n->out[0]->dtype)
                    put(s, t, columns_of(s->p->place[n->out[0]->id], column));
            }
        } else if (n->n_out && n->out[0] && s->placed[n->out[0]->id]) {
            const tensor *in = inplace_input(s, n, i);
            bool own = in && in->maker && !(in->maker->def->flags & (OP_SPLIT | OP_CONCAT));
            if (own && !s->placed[in->id] && !s->viewed[in->id]) put(s, in, s->p->place[n->out[0]->id]);
        }
    }
}

static void place_node(planner *s, const node *n, i64 i)
{
    i64 column = 0;
    for (int k = 0; k < n->n_out; k++) {
        const tensor *t = n->out[k];
        if (!t) continue;
        if (!s->placed[t->id]) {
            const tensor *in = k == 0 ? inplace_input(s, n, i) : NULL;
            if (n->def->flags & OP_SPLIT)
                put(s, t, columns_of(s->p->place[n->in[0]->id], column));
            else if (in && s->placed[in->id] && !overlapped(s, in, i))
                put(s, t, s->p->place[in->id]);
            else
                put_alone(s, t);
        }
        column += cols(t);
    }
}

static bool nothing_to_do(const planner *s, const node *n)
{
    const place *at = s->p->place;
    i64 column = 0;
    bool same = n->def->flags & (OP_SPLIT | OP_CONCAT);
    for (int k = 0; same && (n->def->flags & OP_SPLIT) && k < n->n_out; column += cols(n->out[k]), k++)
        same = at[n->out[k]->id].home == at[n->in[0]->id].home &&
               at[n->out[k]->id].column == at[n->in[0]->id].column + column;
    for (int k = 0; same && (n->def->flags & OP_CONCAT) && k < n->n_in; column += cols(n->in[k]), k++)
        same = at[n->in[k]->id].home == at[n->out[0]->id].home &&
               at[n->in[k]->id].column == at[n->out[0]->id].column + column;
    return same;
}

static void lifetimes(planner *s)
{
    for (i64 i = 0; i < s->g->n_nodes; i++) {
        const node *n = s->g->nodes[i];
        for (int k = 0; k < n->n_out; k++) {
            if (!n->out[k]) continue;
            home *h = &s->p->home[s->p->place[n->out[k]->id].home];
            h->first = MIN(h->first, (i32)i);
            h->last = MAX(h->last, MAX((i32)i, s->last_use[n->out[k]->id]));
        }
    }
}

/* ---- offsets */
typedef struct by_size {
    i64 bytes;
    i32 home;
} by_size;
static int larger_first(const void *a, const void *b)
{
    const by_size *x = a, *y = b;
    return x->bytes != y->bytes ? (x->bytes < y->bytes) - (x->bytes > y->bytes)
                                : (x->home > y->home) - (x->home < y->home);
}
static int lower_first(const void *a, const void *b)
{
    const home *const *x = a, *const *y = b;
    return ((*x)->offset > (*y)->offset) - ((*x)->offset < (*y)->offset);
}

static i64 best_gap(const home *h, home **busy, i64 n)
{
    i64 end = 0, best = -1, best_size = INT64_MAX;
    for (i64 k = 0; k < n; k++) {
        i64 gap = busy[k]->offset - end;
        if (gap >= h->bytes && gap < best_size) best = end, best_size = gap;
        end = MAX(end, busy[k]->offset + busy[k]->bytes);
    }
    return best >= 0 ? best : end;
}

static void assign_offsets(planner *s)
{
    memory_plan *p = s->p;
    arena *a = s->g->arena;
    by_size *order = arena_array(a, by_size, p->n_homes + 1);
    home **done = arena_array(a, home *, p->n_homes + 1), **busy = arena_array(a, home *, p->n_homes + 1);
    i64 n = 0, n_done = 0;
    for (i32 i = 0; i < p->n_homes; i++)
        if (p->home[i].leaf < 0 && p->home[i].last >= 0) order[n++] = (by_size){p->home[i].bytes, i};
    qsort(order, (size_t)n, sizeof *order, larger_first);
    for (i64 i = 0; i < n; i++) {
        home *h = &p->home[order[i].home];
        i64 n_busy = 0;
        for (i64 k = 0; k < n_done; k++)
            if (done[k]->first <= h->last && h->first <= done[k]->last) busy[n_busy++] = done[k];
        qsort(busy, (size_t)n_busy, sizeof *busy, lower_first);
        h->offset = best_gap(h, busy, n_busy);
        done[n_done++] = h;
        p->bytes = MAX(p->bytes, h->offset + h->bytes);
    }
    i64 *alive = arena_array(a, i64, s->g->n_nodes + 2);
    for (i64 i = 0; i < n_done; i++) {
        alive[done[i]->first] += done[i]->bytes;
        alive[MIN(done[i]->last, s->g->n_nodes) + 1] -= done[i]->bytes;
    }
    for (i64 i = 0, now = 0; i <= s->g->n_nodes; i++) {
        now += alive[i];
        p->lower_bound = MAX(p->lower_bound, now);
    }
}

status plan_memory(const graph *g, memory_plan *out)
{
    arena *a = g->arena;
    memory_plan p = {.place = arena_array(a, place, g->n_tensors),
                     .home = arena_array(a, home, g->n_tensors + 1),
                     .free_of_work = arena_array(a, bool, g->n_nodes + 1)};
    planner s = {.g = g,
                 .p = &p,
                 .last_use = arena_array(a, i32, g->n_tensors),
                 .placed = arena_array(a, bool, g->n_tensors),
                 .viewed = arena_array(a, bool, g->n_tensors),
                 .next = arena_array(a, i32, g->n_tensors),
                 .head = arena_array(a, i32, g->n_tensors + 1)};
    for (i64 i = 0; i < g->n_tensors; i++) {
        const tensor *t = g->tensors[i];
        s.last_use[i] = t->keep ? (i32)g->n_nodes : -1;
        p.place[i] = (place){-1, 0, cols(t)};
    }
    for (i64 i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i]->n_in; k++) {
            const tensor *t = g->nodes[i]->in[k];
            if (t && !t->keep) s.last_use[t->id] = MAX(s.last_use[t->id], read_at(g, i));
            if (t && g->nodes[i]->def->flags & OP_SPLIT) s.viewed[t->id] = true;
        }
    for (i64 i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->role != ROLE_VALUE) put_alone(&s, g->tensors[i]);
    place_concats(&s);
    for (i64 i = 0; i < g->n_nodes; i++) place_node(&s, g->nodes[i], i);
    for (i64 i = 0; i < g->n_nodes; i++) p.free_of_work[i] = nothing_to_do(&s, g->nodes[i]);
    lifetimes(&s);
    assign_offsets(&s);
    *out = p;
    return plan_verify(g, out);
}

/* ---- the rule that makes a plan right */

static bool overlap(const memory_plan *p, const tensor *a, const tensor *b)
{
    place x = p->place[a->id], y = p->place[b->id];
    const home *hx = &p->home[x.home], *hy = &p->home[y.home];
    if (x.home == y.home) return x.column < y.column + cols(b) && y.column < x.column + cols(a);
    if (hx->leaf >= 0 || hy->leaf >= 0) return false;
    return hx->offset < hy->offset + hy->bytes && hy->offset < hx->offset + hx->bytes;
}

/* An output may lie over the one input of its own node that the op allows, element by element. */
static status own_inputs(const node *n, const memory_plan *p)
{
    for (int k = 0; k < n->n_out && !(n->def->flags & (OP_SPLIT | OP_CONCAT)); k++)
        for (int m = 0; n->out[k] && n->out[k]->role == ROLE_VALUE && m < n->n_in; m++) {
            if (!n->in[m] || n->in[m]->role != ROLE_VALUE || !overlap(p, n->out[k], n->in[m])) continue;
            place x = p->place[n->out[k]->id], y = p->place[n->in[m]->id];
            bool same = x.home == y.home && x.column == y.column && x.stride == y.stride;
            if (k || m != n->def->inplace - 1 || !same)
                return fail(ERR_CHECK, "plan: output %d of %s (%s) lies over its own input %d", k,
                            n->def->name, n->path, m);
        }
    return OK;
}

status plan_verify(const graph *g, const memory_plan *p)
{
    arena *a = g->arena;
    i32 *made = arena_array(a, i32, g->n_tensors), *last = arena_array(a, i32, g->n_tensors);
    const tensor **live = arena_array(a, const tensor *, g->n_tensors + 1);
    i64 n_live = 0;
    for (i64 i = 0; i < g->n_tensors; i++) last[i] = g->tensors[i]->keep ? (i32)g->n_nodes : -1, made[i] = -1;
    for (i64 i = 0; i < g->n_nodes; i++) {
        for (int k = 0; k < g->nodes[i]->n_in; k++)
            if (g->nodes[i]->in[k])
                last[g->nodes[i]->in[k]->id] = MAX(last[g->nodes[i]->in[k]->id], read_at(g, i));
        for (int k = 0; k < g->nodes[i]->n_out; k++)
            if (g->nodes[i]->out[k]) made[g->nodes[i]->out[k]->id] = (i32)i;
    }
    for (i64 i = 0; i < g->n_nodes; i++) {
        const node *n = g->nodes[i];
        i64 kept = 0;
        for (i64 k = 0; k < n_live; k++) // values that a later node reads
            if (last[live[k]->id] > i) live[kept++] = live[k];
        n_live = kept;
        TRY(own_inputs(n, p));
        for (int k = 0; !p->free_of_work[i] && k < n->n_out; k++)
            for (i64 m = 0; n->out[k] && n->out[k]->role == ROLE_VALUE && m < n_live; m++)
                if (overlap(p, n->out[k], live[m]))
                    return fail(ERR_CHECK, "plan: %s (%s) overwrites output %d of %s, which is read later",
                                n->def->name, n->path, live[m]->maker_out, live[m]->path);
        for (int k = 0; k < n->n_out; k++)
            if (n->out[k] && n->out[k]->role == ROLE_VALUE) live[n_live++] = n->out[k];
    }
    return OK;
}
