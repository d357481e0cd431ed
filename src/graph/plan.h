/* plan: where every value lives. Decides which values are views of others (split, concat, in place), how long
 * each storage is alive, and its offset in the one region of activations (best fit, largest first).
 *
 *     memory_plan p;
 *     TRY(plan_memory(g, &p));
 *     place at = p.place[t->id];     // VALUE: byte offset p.home[at.home].offset + at.column * size,
 * at.stride
 */
#pragma once
#include "graph/graph.h"

typedef struct place {
    i32 home;   // index of a storage; -1: a leaf, whose address comes from elsewhere
    i64 column; // first element of a row within the storage's row
    i64 stride; // elements from row to row
} place;
typedef struct home {
    i64 bytes, offset;
    i32 first, last; // alive from the node that first writes it to the one that last reads it, inclusive
    i32 leaf;        // id of the leaf tensor this storage is; -1: planned
} home;
typedef struct memory_plan {
    place *place; // by tensor id
    home *home;
    i64 n_homes;
    bool *free_of_work; // by node id: a split or concat whose parts already lie in place
    i64 bytes;          // of the region
    i64 lower_bound;    // the most that is alive at once: no plan can be smaller
} memory_plan;

status plan_memory(const graph *g, memory_plan *out) MUST; // arrays live in g's arena
/* No node writes what a later node still reads through another name. ERR_CHECK names both. */
status plan_verify(const graph *g, const memory_plan *p) MUST;
