/* The list of key tables and preset tables, in the order of the written file and of the reference page.
 * A module exports `const config_key NAME_keys[]`, ended by {0}, and adds one line here.
 *
 *     #define DECLARE(name) extern const config_key name[];
 *     KEY_TABLES(DECLARE)
 *
 * Presets apply in the order listed: a later table's settings win over an earlier one's. */
#pragma once
#include "config/config.h"

#define KEY_TABLES(T)                                                                                        \
    T(model_keys)                                                                                            \
    T(position_keys)                                                                                         \
    T(init_keys)                                                                                             \
    T(norm_keys)                                                                                             \
    T(linear_keys)                                                                                           \
    T(residual_keys)                                                                                         \
    T(attention_keys)                                                                                        \
    T(ffn_keys)                                                                                              \
    T(moe_keys)                                                                                              \
    T(memory_keys)                                                                                           \
    T(embedding_keys)                                                                                        \
    T(head_keys)                                                                                             \
    T(repeat_keys)                                                                                           \
    T(train_keys)                                                                                            \
    T(transfer_keys)                                                                                         \
    T(schedule_keys)                                                                                         \
    T(data_keys)

#define PRESET_TABLES(T)                                                                                     \
    T(model_presets)                                                                                         \
    T(linear_presets)                                                                                        \
    T(ffn_presets)                                                                                           \
    T(norm_presets)
