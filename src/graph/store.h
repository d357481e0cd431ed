/* store: the memory of a model that outlives a step: parameters, gradients, moments, states. Several programs
 * (training, evaluation, decoding) share one store; a parameter is found by its path.
 *
 *     store *s;
 *     TRY(store_open(arena, graph, STORE_GRADIENTS | STORE_MOMENTS, &s));  // layout from the graph's leaves
 *     store_initialize(s, seed);
 *     store_sync(s);                                // after writing masters: refresh the bf16 copies
 */
#pragma once
#include "graph/graph.h"

/* A gradient as a list of rows: row ids[k] of the parameter gets values[k]; ids ascend, other rows get
 * nothing. Who collects it (train/row_gradients.h) owns the arrays. */
typedef struct row_list {
    const i32 *ids;
    float *values; // [count, width], dense
    i64 count;
} row_list;

typedef struct stored {
    const char *path;
    int ndim;
    i64 dim[MAX_DIMS];
    i64 count;
    role role;      // ROLE_PARAM, ROLE_STATE or ROLE_CONST
    dtype dtype;    // what kernels read
    bool transient; // STATE: no checkpoint holds it (g_cache)
    param_info param;
    i64 offset;     // PARAM: elements from the start of the regions below
    float *master;  // PARAM: f32
    void *data;     // what kernels read: the master, the bf16 copy, the state, or the constant (the graph's)
    float *grad;    // PARAM: NULL without STORE_GRADIENTS and where the gradient is rows
    row_list *rows; // PARAM: not NULL: its gradient is this list (its tensor has grad_ids)
    float *moment[2]; // PARAM: NULL without STORE_MOMENTS
} stored;

typedef struct store {
    stored *entry;             // parameters in the order of the graph, then states, then constants
    i64 n, n_params, elements; // elements: of one region, padding included
    i64 trained;               // parameters without padding
    i64 bytes_copy;            // part of bytes_params: bf16 copies
    i64 bytes_params, bytes_grads, bytes_moments, bytes_states;
    float *master, *grad, *moment[2];
    u16 *copy;
    char *states;
} store;

enum { STORE_GRADIENTS = 1, STORE_MOMENTS = 2 };
/* Only the layout: sizes are set, no memory is taken (pointers stay NULL). */
void store_plan(arena *a, const graph *g, int what, store **out);
/* Layout and memory, zeroed. ERR_MEMORY names the part that does not fit. */
status store_open(arena *a, const graph *g, int what, store **out) MUST;
void store_close(store *s); // NULL allowed; the description stays in the arena
stored *store_find(const store *s, const char *path);
/* Initial values from each parameter's param_info; element i of a path depends on (seed, path, i) only. */
void store_initialize(store *s, u64 seed);
double store_start(const stored *e, i64 i); // element i where nothing is drawn (std 0)
/* W [rows, n], drawn at random, becomes a matrix of orthonormal rows (columns, where it has more rows than
 * columns) times LENGTH (graph/orthogonal.c). */
void orthogonalize(float *w, i64 rows, i64 n, double length);
/* All moments zero. Those of a parameter whose gradient is rows take no page until a row is updated. */
void store_clear_moments(store *s);
/* Moment K of E becomes VALUES (f32, from a checkpoint); rows never updated take no page here either. */
void store_load_moment(stored *e, int k, const void *values);
void store_sync(store *s); // masters -> bf16 copies
