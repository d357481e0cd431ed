/* convert: a Pre-LayerNorm model as the same function with cheaper norms, exactly: Pre-RMSNorm, whose stream
 * has mean 0, and Pre-CRMSNorm, which does not keep the stream's last value.
 *
 *     config *to;
 *     TRY(convert_config(from, from_graph, FORM_CRMS, &to));   // width - 1, head untied, norm.kind: crms
 *     ... model_build(arena, to, ...) ...
 *     TRY(convert_parameter(&(conversion){from_graph, FORM_CRMS, false, read, context}, target, values));
 *     TRY(convert_run(&files, FORM_CRMS, "runs/b", talk, NULL, &result));   // all of it, on disk
 */
#pragma once
#include "config/config.h"
#include "graph/graph.h"
#include "infer/model_files.h"

typedef enum norm_form { FORM_RMS, FORM_CRMS } norm_form;

/* The configuration of FROM, whose graph (of any shape, evaluating) is G, in the form TO. ERR_CONFIG names
 * the key for which stream' = C stream, LN(x) = RMS(C x) does not hold, and why. *out: the caller's. */
status convert_config(const config *from, const graph *g, norm_form to, config **out) MUST;

typedef struct conversion {
    const graph *from;
    norm_form to;
    bool centred; // FROM is a model of rms norms: refused unless its stream has mean 0 already
    void (*read)(void *context, const tensor *t, double *out); // a parameter of FROM, dense
    void *context;
} conversion;
/* Fills OUT [count(target)] with the parameter TARGET of the converted model. ERR_CONFIG: the values do not
 * allow it (a final bias that no head can hold; to crms from rms: a stream that is not centred). */
status convert_parameter(const conversion *c, const tensor *target, double *out) MUST;

typedef struct convert_result {
    i64 step, parameters_before, parameters;
} convert_result;
/* Reads F's weights and writes OUT/step_N: model.safetensors (f32), config.yaml, given.yaml, state.json and
 * tokenizer.json; no optimizer's moments. ERR_INPUT: OUT is there already. */
status convert_run(const model_files *f, norm_form to, const char *out, convert_result *result) MUST;
