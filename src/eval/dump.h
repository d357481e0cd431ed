/* dump: what a model computes on given tokens, written down as safetensors, so that anything else can be held
 * against it: logits, loss and the gradient of every parameter.
 *
 *     dump_result r;
 *     TRY(dump_write(config, "run/step_9/model.safetensors", &rows, &(dump_options){.out = "g.safetensors"},
 * &r)); printf("loss %.17g\n", r.loss);
 *
 * The file holds, for R rows of T tokens and V words:
 *     logits       [R, T, V]
 *     loss         a scalar: mean of -log p(next token) in nats; a row's last token has no next one
 *     objective    a scalar: what the gradients are of: loss + the terms that the configuration adds (z_loss)
 *     grad.NAME    for every parameter NAME of model.safetensors, in its shape
 * Every row is one document; positions count from 0; dropout is off. */
#pragma once
#include "config/config.h"
#include "device/device.h"
#include "eval/token_rows.h"
#include "graph/graph.h"

typedef struct dump_options {
    const char *out;
    device *
        device; // NULL: F64, by the double interpreter; else F32, by the program that training runs on DEVICE
    isa isa;    // of that program
    dtype act;  // of that program: DT_F32, DT_BF16 (then model and stream as in training)
    i64 memory; // bytes it may use; 0: what the machine has
    void (*talk)(void *context, const char *line); // one line about the plan; NULL allowed
    void *context;
} dump_options;

typedef struct dump_result {
    double loss, objective;
    i64 gradients, bytes; // tensors; planned memory
} dump_result;

/* C is changed (model.dropout). ERR_MEMORY, before anything is taken, says what the plan needs; ERR_FORMAT:
 * WEIGHTS do not fit the configuration; ERR_NUMERIC: the loss is not finite. After a failure nothing new
 * stands at OUT. */
status dump_write(config *c, const char *weights, const token_rows *rows, const dump_options *o,
                  dump_result *result) MUST;
