/* decoder: a model that reads tokens one after the other, keeping keys and values in caches: the same model
 * code as in training, built in MODE_DECODE, as three programs over one store: one token, a chunk of a
 * prompt, and a chunk whose logits nobody will read (and of whose tokens no copies are needed, model.repeat).
 *
 *     decoder *d;
 *     TRY(decoder_open(config, device, level, DT_F32, weights_path, 512, &d));
 *     const float *logits;
 *     TRY(decoder_feed(d, ids, n, &logits));        // [vocab], of the last token fed
 *     decoder_reset(d);                             // forget everything
 */
#pragma once
#include "config/config.h"
#include "device/device.h"
#include "graph/store.h"

typedef struct decoder decoder;
/* CAPACITY: tokens it can hold. ERR_INPUT: less than 1, or more than model.context where positions are
 * learned. ERR_MEMORY: weights and caches beyond this machine's memory. ACT bf16: the residual stream is
 * stored as train.stream says. */
status decoder_open(const config *c, device *d, isa level, dtype act, const char *weights, i64 capacity,
                    decoder **out) MUST;
void decoder_close(decoder *d); // NULL allowed
/* ERR_INPUT: more tokens than fit, or an id beyond the vocabulary (nothing is fed then). ERR_NUMERIC: logits
 * that are NaN or infinite, of which no token can be drawn. */
status decoder_feed(decoder *d, const i32 *ids, i64 n, const float **logits) MUST;
void decoder_reset(decoder *d);
i64 decoder_length(const decoder *d);
i64 decoder_capacity(const decoder *d);
i64 decoder_vocab(const decoder *d);
i64 decoder_cache_bytes(
    const decoder *d); // of keys and values: of the tokens, and of the copies that the next token may see
store *decoder_store(decoder *d); // its weights: tests set them directly, then store_sync
