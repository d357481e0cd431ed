/* The one list of operations: prototypes, table, checks, benchmarks and the reference page come from it. */
#pragma once
#define OP_LIST(OP)                                                                                          \
    OP(rms_norm)                                                                                             \
    OP(rms_norm_grad)                                                                                        \
    OP(sum)                                                                                                  \
    OP(accumulate)                                                                                           \
    OP(split)                                                                                                \
    OP(concat)                                                                                               \
    OP(layer_norm)                                                                                           \
    OP(layer_norm_grad)                                                                                      \
    OP(activation)                                                                                           \
    OP(activation_grad)                                                                                      \
    OP(gated)                                                                                                \
    OP(gated_grad)                                                                                           \
    OP(frac_open)                                                                                            \
    OP(frac_open_grad)                                                                                       \
    OP(frac_close)                                                                                           \
    OP(frac_close_grad)                                                                                      \
    OP(joint)                                                                                                \
    OP(joint_rms_norm)                                                                                       \
    OP(joint_layer_norm)                                                                                     \
    OP(scale)                                                                                                \
    OP(cast)                                                                                                 \
    OP(embedding)                                                                                            \
    OP(embedding_grad)                                                                                       \
    OP(rows_merge)                                                                                           \
    OP(dropout)                                                                                              \
    OP(linear)                                                                                               \
    OP(linear_grad)                                                                                          \
    OP(linear_xent)                                                                                          \
    OP(rope)                                                                                                 \
    OP(attention)                                                                                            \
    OP(attention_grad)                                                                                       \
    OP(cache_append)
