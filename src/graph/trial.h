/* trial: one op by itself, on inputs made from a one-line case or given by the caller: what op checks, op
 * benchmarks and `keel op eval` are built from.
 *
 *     trial *t;
 *     TRY(trial_open(op, "x=64x768 gain=768 bf16", DT_BF16, TRIAL_BACKWARD, &t));
 *     TRY(trial_oracle(t));                       // the definition, in double
 *     TRY(trial_kernel(t, device, ISA_V4));       // the kernel, on the same (rounded) inputs
 *     trial_close(t);
 */
#pragma once
#include "graph/interpret.h"
#include "base/text.h"
#include "graph/program.h"

typedef struct case_input {
    bool present;
    int ndim;
    i64 dim[MAX_DIMS];
    char fill[32];
} case_input;
typedef struct case_spec { // a parsed line
    case_input in[MAX_IN];
    op_set attrs[MAX_ATTRS + 1];
    bool f32, bf16, bench, no_grad;
    double tolerance, tolerance_bf16; // < 0: the default of the dtype
} case_spec;
/* ERR_USAGE names the word it could not use. */
status case_parse(const op_def *def, const char *line, case_spec *out) MUST;

/* VALUES of the index input INPUT of N against what the op documents (op_arg.range). ERR_INPUT names the
 * first value outside and the range; ERR_CHECK: the op documents none, or one that cannot be read. */
status index_check(const node *n, int input, const double *values) MUST;

/* The shapes of N's inputs against those the op documents (op_arg.shape). ERR_CONFIG names input, axis and
 * both sizes. */
status shapes_check(const node *n) MUST;

enum { TRIAL_BACKWARD = 1, TRIAL_ACCUMULATE = 2 };
typedef struct trial {
    arena *arena;
    graph *g;
    node *n;
    case_spec spec;
    tensor *in[MAX_IN], *seed[MAX_OUT]; // leaves; seeds only with TRIAL_BACKWARD
    tensor *out[MAX_OUT], *grad[MAX_IN];
    double *value[MAX_IN], *seed_value[MAX_OUT]; // what the leaves hold, already rounded to their storage
    step_info step;                              // what ops that draw random numbers read
    oracle *oracle;
    program *program;
    store *store; // of the state that a commit op writes
} trial;
status trial_open(op_id op, const char *line, dtype act, int what, trial **out) MUST;
/* The same on the caller's values instead of a case's. */
typedef struct trial_given {
    case_spec spec;           // attrs; in[]: present and shapes (fills are not read)
    const double *in[MAX_IN]; // dense, for every present input; copied
    case_input seed_shape[MAX_OUT];
    const double *seed[MAX_OUT]; // gradients of outputs; NULL: none arrives
    bool backward;               // add the gradient
    bool exact; // keep the values in double as they are: for trial_oracle, not for trial_kernel
    step_info step;
} trial_given;
/* ERR_CONFIG: the op refuses; ERR_INPUT: an index out of range, a gradient of another shape than its output.
 */
status trial_open_given(op_id op, const trial_given *given, dtype act, trial **out) MUST;
void trial_close(trial *t);
status trial_oracle(trial *t) MUST;
status trial_kernel(trial *t, device *d, isa level) MUST; // makes the program once, then runs it
/* Reads output or gradient X of the kernel run into dense doubles. */
void trial_read(const trial *t, const tensor *x, double *out);
void trial_write(const trial *t); // the leaves' values into the program's inputs

/* ---- the checks of `keel op check` */
typedef struct check_report {
    i64 cases, comparisons;
    double worst_kernel_f32, worst_kernel_bf16, worst_gradient, worst_law; // relative errors
    text *failures; // one line each, ending with the command that repeats it
    i64 failed;
} check_report;
/* All cases of OP (or those whose line or label is ONLY, or ONLY itself as a case), all dtypes, the kernels
 * of LEVEL (ISA_COUNT: all levels compiled in that the machine runs). Failures go to the report; ERR_USAGE:
 * ONLY is no case. */
status op_check(device *d, op_id op, const char *only, isa level, check_report *r) MUST;
