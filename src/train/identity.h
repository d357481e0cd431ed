/* identity: what makes two runs the same run: the configuration as it was given (before the run's length is
 * resolved) and the data. Equal identities compute equal bits on one machine and binary.
 *
 *     u64 id = identity_of(config, dataset_hash(data));
 *     const char *key = identity_differs(config, saved);     // "train.optimizer.lr"
 *     if (key) return config_refuse(config, key, "is %s; it was %s", identity_value(config, key), ...);
 *
 * Where the data lie (data.train, data.tokenizer) is no part of it: what they hold is, by the hash. */
#pragma once
#include "config/config.h"

u64 identity_of(const config *c, u64 data);
/* The first key in table order whose value differs, or NULL; one that A was given before one that it was not.
 */
const char *identity_differs(const config *a, const config *b);
/* KEY's canonical value, or "unset" where its kind is not chosen. */
const char *identity_value(const config *c, const char *key);
