/* drop_layers: what each block of a model is worth: the loss without it.
 *
 *     drop_result r;                                          // SESSION: weights loaded, or just trained
 *     drop_options o = {.split = DATA_VALIDATION, .tokens = 100000};
 *     TRY(eval_drop_layers(s, dataset, &o, arena, &r));
 *     for (i64 l = 0; l < r.layers; l++) printf("%lld %+.4f\n", (long long)l, r.layer[l].block - r.loss);
 *
 * A dropped block leaves the residual stream as it found it: neither its branches nor the norms and
 * connections on the stream that belong to them act. What a memory layer (model.memory) adds stays. */
#pragma once
#include "train/trainer.h"

typedef struct drop_options {
    data_split split;
    i64 tokens;    // at most so many, each time the same ones; 0: all
    bool branches; // also each branch by itself
    const volatile sig_atomic_t *stop;
    void (*progress)(void *context, i64 done, i64 of); // after every evaluation; NULL: nobody asks
    void *context;
} drop_options;

typedef struct layer_drop {       // nats a token, without ...
    double block, attention, ffn; // the last two NaN unless options.branches
} layer_drop;

typedef struct drop_result {
    i64 layers;
    evaluation whole;  // of the model as it is
    double loss;       // its nats a token
    layer_drop *layer; // [layers]
} drop_result;

/* OUT's array lies in A. S is left as it was: its weights, its programs, its gradients. One more evaluation
 * program is alive at a time. ERR_STOPPED once *stop is not 0; ERR_INPUT: the split holds no whole sample.
 * ERR_NUMERIC: the whole model's loss is not finite. */
status eval_drop_layers(session *s, const dataset *d, const drop_options *o, arena *a, drop_result *out) MUST;
