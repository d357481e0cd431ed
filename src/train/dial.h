/* dial: one number instead of a shape, a learning rate, a batch and a length (model.size). Everything it
 * chooses is said, with the law it comes from, and can be set by hand instead.
 *
 *     TRY(dial_apply(config, device, talk, context));     // before the session is opened; nothing without
 *                                                         // model.size
 */
#pragma once
#include "config/config.h"
#include "device/device.h"

typedef struct dial_shape {
    i64 layers, width, heads;
    double parameters, inner; // all; without the embedding
} dial_shape;
/* The Llama-like shape (heads of 64, tied embedding of VOCAB rows, gated feed-forward of 8/3 width) whose
 * number of parameters is nearest to SIZE, with width / layers not far from 40. */
dial_shape dial_shape_for(double size, i64 vocab);
/* Step Law, arXiv:2503.04715: 1.79 N^-0.713 D^0.307 and 0.58 D^0.571 tokens. */
double dial_lr(double inner, double tokens);
double dial_batch(double tokens);

/* Sets model.layers, .width, .attention.heads, train.optimizer.lr, train.batch_tokens and, without a budget,
 * train.tokens, where the configuration does not say them. model.size auto: the size that train.time (at the
 * speed measured now) or train.flops pays for at 20 tokens a parameter. ERR_CONFIG: auto without such a
 * budget, a size too small or too large. TALK gets a line a choice. */
status dial_apply(config *c, device *d, void (*talk)(void *context, const char *line), void *context) MUST;
/* Resuming, before that: takes over what the dial chose for the run in FOLDER where the configuration does
 * not say it, so that nothing is measured or derived anew. A size other than the run's is left to be refused.
 */
status dial_recall(config *c, const char *folder) MUST;
