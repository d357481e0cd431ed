/* op: what an operation is. One file a method: equation, definition, gradient, kernel, cases.
 *
 * A file under ops/ is compiled once per instruction set (ISA = plain, v3, v4) and ends with
 *     OP_DEF(unit_rms) = {.name = "unit_rms", .brief = "y = x / sqrt(mean x^2 + eps)", .in = {...}, ...};
 * One more line in ops/list.h, OP(unit_rms), enters it into the table that checks, benchmarks, documentation,
 * planner and profiler read.
 *
 * infer      shapes and dtypes of the outputs, or why not. It runs when the node is built.
 * vjp        adds the nodes of the gradient: din[i] for every input that has one. NULL: no gradient.
 * reference  the meaning, in double, from the equation, sharing no line with the kernel. All arrays dense.
 * cpu        the fast kernel. f32 inside; bf16 is a load/store matter (row_in, row_out, row_done).
 * prepare    once per program: make GEMM plans, ask for scratch.
 * replaces   of a fused op: the sequence of ops that the rewrites turn into it.
 * cost       flops and bytes of one run.
 */
#pragma once
#include "base/base.h"
#include "device/cpu.h"
#include "device/cpu.h"
#include "graph/graph.h"
#include "ops/list.h"

typedef enum { // the order of the table
#define OP(name) OP_##name,
    OP_LIST(OP)
#undef OP
        OP_COUNT
} op_id_values;

/* ---- tables an op file fills in */
typedef enum arg_kind {
    ARG_ACT,    // an activation: stored in the graph's activation dtype
    ARG_WEIGHT, // a matrix parameter: bf16 copy under bf16
    ARG_F32,    // always f32 (gains, statistics)
    ARG_I32,    // indices: no gradient
} arg_kind;
typedef struct op_arg {
    const char *name;  // as `keel op eval` calls it
    const char *shape; // "[rows, n/heads]": enforced for inputs from outside, see graph/shapes.c
    arg_kind kind;
    bool optional;
    bool fixed;       // no gradient although it is a float
    const char *fill; // how cases fill it (see op_case); NULL: normal
    const char
        *range; // ARG_I32, required: the values a kernel can take without reading or writing outside, as
                // "LOW:BOUND", LOW <= i < BOUND. BOUND is "w.0" (axis 0 of input w; "x.-1": its last axis),
                // an attribute, a number, or "column" (i <= its own column); "any": nothing can go wrong
} op_arg;
typedef struct op_attr {
    const char *name;
    double initial, min, max;
    const char *help;
} op_attr;

/* A case: a label and one line that is its name, its benchmark's name and the argument that repeats it:
 *     "x=64x768 gain=768 eps=1e-6 f32 bf16 fill.x=pm2 tol=0"
 * input=SHAPE for inputs (missing optional inputs are absent), attribute=value, the dtypes to run in,
 * fill[.input]=KIND: normal zero one pm2 (+-2) ints (-3..3) pow2 big (1e4) below:K (ints in [0,K)) iota
 * targets:K (as below, one in 5 is -1) starts:K (document starts, about K tokens a document) around1 (1 + 0.1
 * N) positive cuts:K (ascending from 0 to K: offsets of segments) reverse (n-1 .. 0: its own inverse); tol=X
 * overrides the tolerance of outputs (0: equal bits), tol.bf16=X in bf16 only, grad=0 skips the gradient
 * check, bench marks a case that is only timed (`keel op bench`), not checked. */
typedef struct op_case {
    const char *label, *line;
} op_case;

/* A law: a property of the definition that needs no second implementation. Returns the violation (0 is
 * perfect), which must not exceed LIMIT. It may change inputs (law_in) and run again (law_run). */
typedef struct law law;
double *law_in(law *l, const char *name); // the input, in double; dense
i64 law_count(law *l, const char *name);
const double *law_run(law *l, int output); // runs the definition on the inputs as they are now
typedef struct op_law {
    const char *label, *line; // the line of a case
    double (*violation)(law *l);
    double limit;
} op_law;

typedef struct op_cost {
    double flops, bytes;
} op_cost;

typedef struct op_build {
    graph *g;
    node *n;
} op_build;

/* One side of a call: rows x n, row r starting at p + r * stride elements. */
typedef struct view {
    void *p; // NULL: absent
    dtype dtype;
    i64 rows, n, stride;
} view;

/* What changes from run to run; read by ops that draw random numbers. */
typedef struct step_info {
    u64 seed, step;
    i64 row_offset; // tokens of this step's earlier micro-batches: numbers do not depend on the micro-batch
                    // size
} step_info;

typedef struct device device; // device/gemm.h
typedef struct op_call {
    const node *node;
    view in[MAX_IN], out[MAX_OUT];
    unsigned accumulate; // bit i: output i is added to
    int threads;
    char *scratch;        // aligned to 64; shared by all calls of a program: nothing survives a call
    size_t scratch_bytes; // prepare may raise it
    size_t row_slot;      // bytes of one row buffer (0: none needed)
    const step_info *step;
    device *device;
    void *plan; // prepare's own (from ARENA)
    arena *arena;
} op_call;

typedef struct op_call64 {
    const node *node;
    const double *in[MAX_IN];    // dense, NULL if absent; indices are whole numbers
    double *out[MAX_OUT];        // dense; to be overwritten whole; NULL if absent
    const double *held[MAX_OUT]; // ops that select: not NULL = use these indices (gradient checks hold them)
    const step_info *step;
} op_call64;

enum op_flags {
    OP_LOSS = 1,          // gradients are outputs of its forward pass; graph_backward starts here
    OP_CHEAP = 2,         // recompute: cheap may run it again
    OP_SELECTS = 4,       // outputs indices that gradients and recomputation hold fixed
    OP_RANDOM = 8,        // reads node->stream
    OP_SURROGATE = 16,    // its gradient is not that of the definition (documented): no finite differences
    OP_COMMIT = 32,       // writes a state; runs at the end of the step or token
    OP_SPLIT = 64,        // outputs are column ranges of in[0]: the planner makes them views
    OP_CONCAT = 128,      // output is the inputs side by side: the planner places the inputs in it
    OP_ROWS = 512,        // output 0 [V, n] is the sum of the rows in[1] [k, n] at the indices in[0] [k]
                          // (embedding_grad); a row of in[1] may hold several, side by side
    OP_ACCUMULATES = 256, // its kernel honours call->accumulate on outputs of kind ARG_F32
};

enum { MAX_REPLACES = 4 };
typedef struct op_def {
    const char *name;
    const char *brief; // the equation, one line
    const char *source;
    op_arg in[MAX_IN], out[MAX_OUT]; // ended by a NULL name
    op_attr attrs[MAX_ATTRS];
    unsigned flags;
    // Fused ops: the sequences this op replaces, in the names of its own inputs and outputs; see
    // graph/rewrite.h. "h = joint(x, b); y, s = rms_norm(h, gain)"
    const char *replaces[MAX_REPLACES];
    int inplace; // 1 + index of the input whose place output 0 may take (element by element); 0: none
    status (*infer)(op_build *b);
    void (*vjp)(graph *g, const node *n, tensor *const *dout, tensor **din);
    void (*reference)(const op_call64 *c);
    void (*cpu)(const op_call *c);
    status (*prepare)(op_call *c);
    op_cost (*cost)(const node *n);
    const op_case *cases;
    const op_law *laws;
} op_def;

#define OP_JOIN_(a, b, c) a##b##_##c
#define OP_JOIN(a, b, c) OP_JOIN_(a, b, c)
#ifdef ISA
#define OP_DEF(name) const op_def OP_JOIN(op_, name, ISA)
#endif

/* ---- the tables (graph/table.c) */
const op_def *op_table(isa level, op_id op);        // NULL if that level is not compiled in
const op_def *op_find(const char *name, op_id *id); // NULL: unknown

/* ---- infer's vocabulary. b->n->in is filled; attributes are set and in range. */
const char *where(const op_build *b); // "linear (blocks.3.attention)": for messages
status need(op_build *b, bool ok, const char *format, ...) PRINTF(3, 4)
    MUST;                                                  // ERR_CONFIG with where() unless ok
status out_like(op_build *b, int i, const tensor *t) MUST; // same shape and dtype
status out_act(op_build *b, int i, const tensor *t) MUST;  // same shape, activation dtype
status out_rows(op_build *b, int i, const tensor *t)
    MUST; // one f32 a row of t: [rows] with the leading axes of t
status out_shape(op_build *b, int i, dtype type, int ndim, const i64 *dim) MUST;
double traffic(const node *n); // bytes of all inputs and outputs once
#ifndef __cplusplus

/* ---- the kernel's vocabulary: rows in f32, whatever the storage. Buffers are per thread and per argument.
 */
#ifdef _OPENMP
#include <omp.h>
static inline int thread_index(void) { return omp_get_thread_num(); }
#else
static inline int thread_index(void) { return 0; }
#endif
typedef u16 bf16;
static inline float bf16_to_f32(bf16 x)
{
    union {
        u32 u;
        float f;
    } v = {.u = (u32)x << 16};
    return v.f;
}
/* Round to nearest even; NaN stays NaN, subnormals stay (the hardware instruction flushes them). */
static inline bf16 f32_to_bf16(float x)
{
    union {
        float f;
        u32 u;
    } v = {.f = x};
    u32 rounded = (v.u + 0x7FFF + (v.u >> 16 & 1)) >> 16;
    return (bf16)((v.u & 0x7FFFFFFF) > 0x7F800000 ? (v.u >> 16 | 0x40) : rounded);
}
static inline void widen(float *restrict to, const bf16 *restrict from, i64 n)
{
#pragma omp simd
    for (i64 j = 0; j < n; j++) to[j] = bf16_to_f32(from[j]);
}
static inline void narrow(bf16 *restrict to, const float *restrict from, i64 n)
{
#pragma omp simd
    for (i64 j = 0; j < n; j++) to[j] = f32_to_bf16(from[j]);
}
/* Slots: inputs first, then outputs; then the file's own scratch, which starts at call_scratch. */
static inline float *row_slot(const op_call *c, int slot)
{
    int slots = c->node->n_in + c->node->n_out;
    return (float *)(c->scratch + ((size_t)thread_index() * (size_t)slots + (size_t)slot) * c->row_slot);
}
static inline char *call_scratch(const op_call *c)
{
    return c->scratch + (size_t)c->threads * (size_t)(c->node->n_in + c->node->n_out) * c->row_slot;
}
/* Row R of input I as f32: the row itself, or widened into this thread's buffer. */
static inline const float *row_in(const op_call *c, int i, i64 r)
{
    const view *v = &c->in[i];
    if (v->dtype == DT_F32) return (const float *)v->p + r * v->stride;
    float *buffer = row_slot(c, i);
    widen(buffer, (const bf16 *)v->p + r * v->stride, v->n);
    return buffer;
}
/* Where to compute row R of output I; row_done rounds it into place. */
static inline float *row_out(const op_call *c, int i, i64 r)
{
    const view *v = &c->out[i];
    return v->dtype == DT_F32 ? (float *)v->p + r * v->stride : row_slot(c, c->node->n_in + i);
}
static inline void row_done(const op_call *c, int i, i64 r, const float *row)
{
    const view *v = &c->out[i];
    if (v->dtype == DT_BF16) narrow((bf16 *)v->p + r * v->stride, row, v->n);
}
static inline bool accumulates(const op_call *c, int i) { return c->accumulate >> i & 1; }
/* Thread t of n takes rows [first, last): a fixed partition, so that sums do not depend on scheduling. */
static inline void part(i64 rows, int t, int n, i64 *first, i64 *last)
{
    *first = rows * t / n;
    *last = rows * (t + 1) / n;
}
/* The usual prepare: scratch of BYTES behind the row buffers. */
static inline status want_scratch(op_call *c, size_t bytes)
{
    size_t rows = (size_t)c->threads * (size_t)(c->node->n_in + c->node->n_out) * c->row_slot;
    c->scratch_bytes = rows + bytes;
    return OK;
}
#endif
