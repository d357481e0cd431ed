/* graph: a model as a static graph of tensors and nodes, built once; passes turn it into a program.
 *
 *     graph *g = graph_new(arena, &(graph_options){.act = DT_BF16, .stream = DT_BF16});
 *     tensor *x = g_input(g, "tokens", DT_I32, 2, (i64[]){B, T});
 *     tensor *w = g_param(g, "embedding.weight", 2, (i64[]){V, d}, &(param_info){.kind = PARAM_EMBEDDING,
 * .std = 0.02}); tensor *h = g_out(g_node(g, OP_embedding, IN(w, x), NO_ATTRS), 0); TRY(graph_status(g)); //
 * the first error, if any node was refused
 *
 * Every tensor is rows x n: all axes but the last flattened, the last one dense. Errors are sticky: after the
 * first refused node the rest is skipped and graph_status tells. */
#pragma once
#include "base/base.h"

enum { MAX_DIMS = 4, MAX_IN = 16, MAX_OUT = 12, MAX_ATTRS = 12 };

typedef enum dtype { DT_F32, DT_BF16, DT_I32 } dtype;
static inline i64 dtype_bytes(dtype t) { return t == DT_BF16 ? 2 : 4; }
const char *dtype_name(dtype t); // "f32"

typedef enum role {
    ROLE_VALUE, // computed by a node, lives in planned activation memory
    ROLE_PARAM, // trained; f32 master, perhaps a bf16 copy that kernels read
    ROLE_TALLY, // accumulated over the micro-batches of a step (parameter gradients, counts), f32, zeroed per
                // step
    ROLE_STATE, // kept between steps or tokens (KV cache, running statistics); replaced only by commit nodes
    ROLE_INPUT, // written by the caller before each run
    ROLE_CONST, // known when the graph is built; a checkpoint holds it, and loading another one is refused
} role;

typedef enum mode { MODE_TRAIN, MODE_EVALUATE, MODE_DECODE } mode;
typedef enum phase { PHASE_FORWARD, PHASE_BACKWARD, PHASE_COMMIT } phase;

/* Parameter classes: what an optimizer treats alike (spec: optimization, parameter classes). */
typedef enum param_kind {
    PARAM_MATRIX,
    PARAM_HEAD,
    PARAM_EMBEDDING,
    PARAM_VECTOR,
    PARAM_GAIN,
    PARAM_EXPERT
} param_kind;
typedef struct param_info {
    param_kind kind;
    double std; // initial values N(0, std^2), truncated at TRUNCATE std (0: not truncated)
    double truncate;
    double constant;  // used where std is 0: 0 for biases, 1 for gains
    bool f32;         // kernels read the f32 master even under bf16 (vectors, gains)
    bool rows;        // its gradient may stay a list of rows (look-up tables)
    double low, high; // high > low and std 0: uniform in [low, high) instead of constant
    double lr_factor; // not 0: its learning rate is lr_factor times the others', falling linearly to 1 times
    const char
        *lr_until; // where that ends: canonical text of a span, "none": nowhere; lives as long as the graph
    double decay_factor; // not 0: multiplies the weight decay
    double orthogonal;   // > 0: what was drawn is made orthonormal, times this (each matrix of a stack)
    i64 eye;             // > 0: initial value is the identity over blocks of this size (connection matrices)
    i64 eye_shift; // its rows moved down by this many, round the block: column 0 has its 1 in row eye_shift
    const char
        *size_key; // the key that says how many rows a table has; a literal. NULL: no key, a vocabulary
} param_info;

typedef struct node node;
typedef struct graph graph;
typedef struct tensor tensor;
struct tensor {
    i32 id;
    role role;
    dtype dtype;
    int ndim;
    i64 dim[MAX_DIMS];
    const char *path; // parameters, states, inputs: the name; values: for listings
    node *maker;      // VALUE: who computes it, as which output
    int maker_out;
    param_info param;  // PARAM
    const void *fixed; // CONST: its values, dense (the graph's arena)
    tensor *grad;      // PARAM: its TALLY once something accumulated into it; NULL: no dense gradient
    // PARAM with param.rows whose gradient comes from nodes with OP_ROWS (embedding_grad) only: autodiff
    // drops those nodes and keeps their inputs, the look-ups of one micro-batch: row grad_ids[k] gets the
    // k-th row of grad_rows, whose rows may lie side by side (a vjp just adds the node). A table that is
    // looked up in several places has n_more further pairs, in the order in which their rows are added.
    tensor *grad_ids, *grad_rows, **more_ids, **more_rows;
    int n_more;
    bool keep;       // the caller reads it after the run
    bool boundary;   // recomputation `block` keeps it
    bool wants_grad; // a leaf whose gradient the caller asks for (checks)
    bool transient;  // STATE: made by g_cache
};
static inline i64 cols(const tensor *t) { return t->ndim ? t->dim[t->ndim - 1] : 1; }
static inline i64 count(const tensor *t)
{
    i64 n = 1;
    for (int i = 0; i < t->ndim; i++) n *= t->dim[i];
    return n;
}
static inline i64 rows_of(const tensor *t) { return cols(t) ? count(t) / cols(t) : 0; }
bool same_shape(const tensor *a, const tensor *b);

typedef int op_id; // OP_linear, ...: the order of ops/list.h
struct op_def;
struct node {
    i32 id;
    op_id op;
    const struct op_def *def;
    phase phase;
    const char *path; // "blocks.3.attention/rope": where it stands in the model
    int layer;        // -1 outside blocks
    int n_in, n_out;
    tensor *in[MAX_IN], *out[MAX_OUT]; // NULL: absent
    double attr[MAX_ATTRS];            // in the order of def->attrs
    u64 stream;          // random numbers: hash of the path of the forward node, kept by its clones
    unsigned accumulate; // bit i: output i adds into what is there (a TALLY)
    node *clone_of;      // recomputation
};

typedef struct graph_options {
    mode mode;
    dtype act, stream; // storage of activations and of the residual stream
} graph_options;

struct graph {
    arena *arena;
    graph_options options;
    node **nodes;
    i64 n_nodes, node_capacity;
    tensor **tensors; // all, by id
    i64 n_tensors, tensor_capacity;
    const char *scope; // prefix of the paths of nodes being added
    int layer;
    phase phase;
    u64 stream; // not 0: nodes being added take this stream (a vjp under way)
    status failed;
};

graph *graph_new(arena *a, const graph_options *options);
status graph_status(graph *g) MUST; // moves the sticky error out
void graph_close(graph *g);         // drops a sticky error; memory belongs to the arena

/* Leaves. A name used twice gives the same tensor (tying); ERR_CONFIG if the shapes differ. */
tensor *g_param(graph *g, const char *path, int ndim, const i64 *dim, const param_info *info);
tensor *g_input(graph *g, const char *path, dtype t, int ndim, const i64 *dim);
tensor *g_state(graph *g, const char *path, dtype t, int ndim, const i64 *dim);
/* A state that starts empty wherever the weights come from (a KV cache): only decoding has it, checkpoints do
 * not hold it. Every other state belongs to the weights, and loading them without it is refused. */
tensor *g_cache(graph *g, const char *path, dtype t, int ndim, const i64 *dim);
tensor *g_tally(graph *g, const char *path, int ndim, const i64 *dim);
/* VALUES: dense, of type T (DT_F32 or DT_I32); copied. What a model computes with and does not train, but
 * which its weights make sense with only: moduli of a hash, a fixed permutation. */
tensor *g_const(graph *g, const char *path, dtype t, int ndim, const i64 *dim, const void *values);
tensor *g_find(const graph *g, const char *path); // NULL if no leaf has that name

/* Nodes. */
typedef struct op_set {
    const char *name; // an attribute of the op
    double value;
} op_set;
#define IN(...)                                                                                              \
    (tensor *const[]){__VA_ARGS__}, (int)(sizeof((tensor *const[]){__VA_ARGS__}) / sizeof(tensor *))
#define WITH(...)                                                                                            \
    (const op_set[])                                                                                         \
    {                                                                                                        \
        __VA_ARGS__, { 0 }                                                                                   \
    }
#define NO_ATTRS NULL
node *g_node(graph *g, op_id op, tensor *const *in, int n_in, const op_set *attrs);
static inline tensor *g_out(const node *n, int i) { return n->out[i]; }
/* All attributes of FROM that the new op also has, by name (a backward op takes its forward op's). */
node *g_node_from(graph *g, op_id op, tensor *const *in, int n_in, const node *from);
/* Output I of N adds into the tally PATH instead of being a value: sums over a step's micro-batches. Later
 * nodes, of the forward phase too, read what was added so far. The op must have OP_ACCUMULATES. */
tensor *g_into_tally(graph *g, node *n, int i, const char *path);
double attr(const node *n, const char *name); // asserts that the op has it

/* Names of parts: nodes and parameters added between push and pop are called "blocks.3.attention...". */
const char *g_push(graph *g, const char *format, ...) PRINTF(2, 3); // returns what g_pop needs
void g_pop(graph *g, const char *previous);
char *g_path(graph *g, const char *name); // scope.name
void g_fail(graph *g, status s);          // records S as the sticky error (the first one wins)

/* Adds the backward nodes: from every node with OP_LOSS (its gradients are outputs of its forward pass), and
 * from outputs[i] with seeds[i]. Gradients of parameters become tallies (tensor->grad), of wanted leaves
 * values: *grad_of(leaf) afterwards by graph_grad. */
status graph_backward(graph *g, tensor *const *outputs, tensor *const *seeds, int n) MUST;
tensor *graph_grad(const graph *g, const tensor *leaf); // NULL: no path to it

typedef enum recompute_policy { RECOMPUTE_NONE, RECOMPUTE_CHEAP, RECOMPUTE_BLOCK } recompute_policy;
/* After graph_backward: backward nodes read clones of what POLICY does not keep. Every = 2: every second
 * block. */
status graph_recompute(graph *g, recompute_policy policy, int every) MUST;
/* Applies the table of rewrites (fused ops, graph/rewrite.h) until none fits; *applied counts them. After
 * autodiff and recomputation: fused ops have no gradient. */
status graph_rewrite(graph *g, i64 *applied) MUST;
/* The rules of a well-formed graph; run after every pass. ERR_CHECK names node and rule. */
status graph_verify(const graph *g) MUST;
/* Removes nodes whose outputs nobody reads. */
void graph_prune(graph *g);
/* For passes: a copy of N with outputs of its own, not yet in the list; and the end of the list. */
node *g_clone(graph *g, const node *n);
void g_append(graph *g, node *n);
struct text;
void graph_print(const graph *g, struct text *out);     // one line a node
void graph_print_dot(const graph *g, struct text *out); // for graphviz
