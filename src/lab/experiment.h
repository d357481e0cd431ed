/* experiment: a question put to several configurations: a YAML file of arms, seeds and a budget.
 *
 *     experiment *e;
 *     TRY(experiment_load("configs/lab/sdd.yaml", "small", &e));
 *     for (i64 i = 0; i < e->n_arms; i++) puts(e->arms[i].name);
 *     experiment_close(e);
 *
 * The file, every key of it (settings are configuration keys, dotted or as nested maps):
 *
 *     title: Post-norm with and without SDD        # shown above the report
 *     question: Does post-norm stall where SDD trains?
 *     claim: what the paper found, in a sentence
 *     base: base.yaml                              # a configuration, beside this file
 *     set: {model.layers: 8}                       # settings of every arm
 *     arms:                                        # a name and what it sets
 *       pre: {}
 *       sdd: {model.norm.preset: sdd}
 *     grid: {train.tokens: [1M, 2M]}               # every arm at every point; the baseline of the same point
 *     baseline: pre                                # what the others are compared with
 *     seeds: [1, 2, 3]                             # or how many: 3
 *     tune: {key: train.optimizer.lr, values: [1e-3, 3e-3], seeds: first}
 *     match: {by: parameters, key: model.ffn.width, multiple: 8}
 *     trend: model.embedding.slots                 # also fit bits per byte = a + b log10(its value)
 *     layers: true                                 # also drop each layer in turn, after training
 *     scales:                                      # what is otherwise at this scale; `set` adds to `set`
 *       small: {set: {train.tokens: 2M}}
 *       spec: {set: {train.tokens: 40M}, seeds: 5}
 *
 * tune: every arm is run at every value with the first seed (all: with all of them), and goes on at the value
 * of its lowest loss. match: the key's value of every arm but the baseline is chosen so that it has the
 * baseline's parameters, flops_per_token, or compute (flops of the whole run). */
#pragma once
#include "base/text.h"

typedef struct lab_setting {
    const char *key, *value; // "model.norm.preset", "sdd"; a list as flow YAML
} lab_setting;

typedef struct lab_arm {
    const char *name;   // "sdd", with a grid "sdd, train.tokens=1M"
    const char *family; // "sdd": the name in `arms`
    const char *point;  // "train.tokens=1M"; "" without a grid
    lab_setting *set;   // what it sets beyond the settings of all
    i64 n_set;
    i64 baseline; // the arm it is compared with; its own index when it is one
} lab_arm;

typedef enum lab_match { MATCH_NONE, MATCH_PARAMETERS, MATCH_FLOPS_PER_TOKEN, MATCH_COMPUTE } lab_match;

enum { MOST_ARMS = 256, MOST_SEEDS = 64, MOST_VALUES = 32 };
typedef struct experiment {
    arena *arena;
    const char *path, *name; // name: the file's without folder and ending
    const char *scale, *title, *question, *claim, *base, *trend;
    const char *overrides; // " key=value ..." of the command line
    lab_setting *set;      // of all arms
    i64 n_set;
    lab_arm *arms;
    i64 n_arms;
    i64 seeds[MOST_SEEDS], n_seeds;
    const char *tune_key, *tune_values[MOST_VALUES];
    i64 n_values; // 0: nothing is tuned
    bool tune_all_seeds, layers;
    lab_match match;
    const char *match_key;
    i64 match_multiple;
} experiment;

/* SCALE NULL: the file's first one, or none where it has none. ERR_CONFIG names file, line, what stands there
 * and the remedy; ERR_IO. */
status experiment_load(const char *path, const char *scale, experiment **out) MUST;
void experiment_close(experiment *e); // NULL allowed

/* All settings of an arm, in A: those of all arms, its own, MORE; of one key, and of the budgets, the last.
 */
void experiment_settings(arena *a, const experiment *e, i64 arm, const lab_setting *more, i64 n_more,
                         lab_setting **out, i64 *n);

/* Adds "key=value" of the command line to the settings of all arms; they win over the file's, also over those
 * of an arm. ERR_USAGE for one without '='; ERR_CONFIG where an arm or the tuning sets that key too. */
status experiment_override(experiment *e, const char *word) MUST;
