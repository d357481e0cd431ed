/* rewrite: the table of rewrites. A fused op names the sequence it replaces, in the names of its own inputs
 * and outputs (op_def.replaces, ops/op.h):
 *
 *     .replaces = {"h = joint(x, b); y, s = rms_norm(h, gain)"}
 *
 *     rewrite_rule *rules;
 *     i64 n;
 *     TRY(rewrite_rules(arena, &rules, &n));           // of the whole op table
 *
 * A name that only the sequence knows (d in "d = rms_norm_grad(...); dx = sum(add, d)") is a value that the
 * fused op never stores: the rule fits only where nobody else reads it. Inputs and outputs stand by position;
 * those left out must be absent. Attributes go over by name. */
#pragma once
#include "graph/graph.h"
#include "ops/op.h"

enum { MAX_STEPS = 4, MAX_NAMES = 32 };
typedef struct rewrite_step {
    op_id op;
    int n_in, n_out, in[MAX_IN], out[MAX_OUT]; // indices of names
} rewrite_step;
typedef struct rewrite_rule {
    op_id fused;
    const char *text; // as the op names it
    int n_steps, n_names;
    rewrite_step step[MAX_STEPS];
    const char *name[MAX_NAMES];
    bool made[MAX_NAMES];         // a step computes it; otherwise it is an input
    bool inner[MAX_NAMES];        // made, and no output of the fused op
    int in[MAX_IN], out[MAX_OUT]; // of the fused op: indices of names
    struct {
        int step, attr;
    } from[MAX_ATTRS]; // where each attribute of the fused op comes from
} rewrite_rule;

/* All rules, in the order of the op table; they live in A. ERR_CHECK names the op and what is wrong with its
 * sequence: an unknown op or name, an attribute that would be lost. */
status rewrite_rules(arena *a, rewrite_rule **out, i64 *n) MUST;
/* One sequence of the op FUSED. */
status rewrite_parse(arena *a, op_id fused, const char *text, rewrite_rule *out) MUST;
