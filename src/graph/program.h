/* program: a graph turned into a flat array of kernel calls on planned addresses. Running it allocates
 * nothing.
 *
 *     program *p;
 *     TRY(program_open(g, s, &(program_options){.device = d, .isa = ISA_V4}, &p));
 *     memcpy(program_data(p, tokens), ids, bytes);          // ROLE_INPUT leaves
 *     program_run(p, &step, PHASE_BACKWARD);                // forward and backward of one micro-batch
 *     program_commit(p, &step);                             // once a step or token: states
 *     float loss = *(float *)program_data(p, loss_tensor);  // keep = true
 */
#pragma once
#include "device/device.h"
#include "graph/plan.h"
#include "graph/store.h"
#include "ops/op.h"

typedef struct program_options {
    device *device;
    isa isa;     // which table of kernels
    int threads; // 0: the device's
} program_options;

typedef struct program_sizes { // bytes; all known before memory is taken
    i64 activations, inputs, tallies, scratch;
    i64 activations_lower_bound;
} program_sizes;

typedef struct program program;
/* G must have passed graph_verify. S may be NULL if G has no parameters or states; every parameter of G must
 * be in S under its path with its shape. Tallies that are gradients live in S. */
status program_open(graph *g, store *s, const program_options *options, program **out) MUST;
/* Everything but taking memory: the sizes of a program (plan memory). S comes from store_plan. */
status program_measure(graph *g, store *s, const program_options *options, program_sizes *out) MUST;
void program_close(program *p);
const program_sizes *program_about(const program *p);
void *program_data(const program *p, const tensor *t); // input, state, tally, or kept value
view program_view(const program *p, const tensor *t);

/* Runs the nodes of PHASE_FORWARD, and those of PHASE_BACKWARD if LAST is that. */
void program_run(program *p, const step_info *step, phase last);
void program_commit(program *p, const step_info *step);
void program_zero_tallies(program *p); // those that are not gradients in the store

/* Names the first node whose output holds NaN or infinity when the micro-batch in the inputs runs again. The
 * message says op, layer, output; OK if all is finite. Gradients in the store are changed by it. */
status program_find_nonfinite(program *p, const step_info *step) MUST;

typedef struct profile_row {
    const char *op;
    i64 calls;
    double seconds, flops, bytes;
} profile_row;
void program_profile(program *p, bool on);
/* Rows by op, the most expensive first; returns their number (at most OP_COUNT). */
i64 program_profile_rows(const program *p, profile_row rows[OP_COUNT]);
