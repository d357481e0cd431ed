/* methods: every method as one row that says how to switch it on, so that `keel bench method` and `keel lab
 * matrix` need no list of their own. A slot file exports `const method_row NAME_methods[]`, ended by {0}, and
 * adds one line to METHOD_TABLES.
 *
 *     const method_row ffn_methods[] = {
 *         {"relu2", "ffn", .settings = "model.ffn.kind=mlp model.ffn.activation=relu2"}, {0}};
 *
 * Settings are key=value words as on the command line, without spaces inside a word. */
#pragma once
#include "base/base.h"

typedef struct method_row {
    const char *name;     // "frac": as `keel bench method` and the grid call it
    const char *slot;     // "residual": two methods compose if their slots differ
    const char *settings; // "model.residual.kind=frac model.residual.streams=4", on a model of any size
    const char *against;  // what its cost is compared with, as settings; NULL: the model as it is
    const char *small; // for the grid's models (2 layers, width 32): sizes of tables, spans; more settings,
                       // or other values of keys that `settings` has
    bool common;       // one of the at most 20 of which the suite tries all pairs
    double limit;      // of step time with it / without it on llama-135m, 2x1024, bf16; 0: none
} method_row;

#define METHOD_TABLES(T)                                                                                     \
    T(norm_methods)                                                                                          \
    T(residual_methods)                                                                                      \
    T(repeat_methods)                                                                                        \
    T(linear_methods)                                                                                        \
    T(ffn_methods)                                                                                           \
    T(moe_methods)                                                                                           \
    T(embedding_methods)                                                                                     \
    T(head_methods)                                                                                          \
    T(memory_methods)                                                                                        \
    T(transfer_methods)

enum { MOST_METHODS = 128, MOST_WORDS = 24 };
/* Fills OUT with all rows in the order of the tables, at most MOST; returns how many there are. */
i64 methods_all(const method_row **out, i64 most);
const method_row *method_find(const char *name); // NULL: unknown
/* Cuts SETTINGS (NULL allowed) into words that live in A and appends them to WORDS, which holds *N of at most
 * MOST. ERR_CONFIG when they do not fit. */
status method_words(arena *a, const char *settings, const char **words, i64 *n, i64 most) MUST;
/* The same of settings and small of M: a key that both have takes the value of small. */
status method_small_words(arena *a, const method_row *m, const char **words, i64 *n, i64 most) MUST;
