/* probes: figures of health by layer (train.probes), in metrics.jsonl at the steps that evaluate.
 *
 *     probes *p;                                            // NULL when none is asked for: every call is
 * then free TRY(probes_open(session, dataset, &p)); probes_before_update(p, session, due);                //
 * gradients are there session_update(...); probes_after_update(p, session); TRY(probes_log_step(p, log,
 * step));                   // beside the step's line TRY(probes_evaluate(p, session, log, step)); // beside
 * the evaluation's
 *
 * A line has an array a figure, an element a layer: {"step":40,"probe/stream_variance":[1.1,1.9,2.4]}.
 *
 *   activation_norm    /attention, /ffn: root mean square of what the branch adds to the stream
 *   stream_variance    variance over the width, mean over tokens: of the embedding, then after each block
 *   effective_rank     of the stream after each block (probe_measure.h), of 128 tokens
 *   attention_entropy  nats, mean over heads and 64 tokens of a sequence
 *   gradient_norm      of the step's gradient before clipping, all parameters of the block; /rest: the others
 *   update_ratio       |change| / |weight| by the step, over the matrices of the block
 *   singular_value     /attention.q, ...: largest of each matrix (of an expert layer's: of all its experts)
 *
 * Activations are those of one sequence of validation data, always the same. The cost of a measurement is a
 * forward pass of that sequence and some products of its size; of singular values up to 200 passes over the
 * weights; update_ratio keeps a copy of the matrices while its step is done. */
#pragma once
#include "data/dataset.h"
#include "train/metrics.h"
#include "train/session.h"

typedef struct probes probes;
/* *OUT NULL: train.probes is empty. ERR_CONFIG: a probe that the model has no meaning for. S and D outlive
 * it. */
status probes_open(session *s, const dataset *d, probes **out) MUST;
void probes_close(probes *p); // NULL allowed
i64 probes_bytes(const probes *p);

void probes_before_update(probes *p, const session *s, bool due);
void probes_after_update(probes *p, const session *s);
status probes_log_step(probes *p, metrics_log *log, i64 step) MUST; // nothing where the step was not due
status probes_evaluate(probes *p, const session *s, metrics_log *log, i64 step) MUST;
