/* config: one YAML file, every key a row in a table. The rows say name, type, default, range, unit, help and
 * source; parsing, messages, `keel config explain` and docs/configuration.md all read them.
 *
 *     config *c;
 *     TRY(config_load("run.yaml", overrides, n, &c));      // built-in < preset < file < command line
 *     i64 width = config_count(c, "model.width");
 *     if (width % config_count(c, "model.attention.heads"))
 *         return config_refuse(c, "model.width", "is %lld; it must be a multiple of ...", (long long)width);
 *     config_close(c);                                      // "run.yaml:3: model.width is 100; it must be
 * ..."
 *
 * A path that no table holds, or a getter of another type than the row's, is a programmer's error (assert).
 */
#pragma once
#include "base/base.h"
#include "base/text.h"

typedef enum key_type {
    KEY_COUNT,    // whole number: 4, 32Ki, 10M
    KEY_NUMBER,   // 0.1, 3e-4
    KEY_NUMBERS,  // as many numbers as the default has: [0.9, 0.95]
    KEY_BOOL,     // true, false
    KEY_CHOICE,   // one of the choices
    KEY_CHOICES,  // a list of choices, each at most once; [] and none are empty
    KEY_STRING,   // text; the choices are words with a meaning of their own
    KEY_SHARE,    // "1%", or else text (a path)
    KEY_SPAN,     // "400 steps", "2M tokens", "3%" (of the run)
    KEY_DURATION, // "90 s", "4 min", "2 h", "1 d"
    KEY_LAYERS,   // "all", "0,3,6-8", "-1"
    KEY_LIST, // a list; the fields of its items are the rows "PATH[].FIELD", a plain item is the first field
} key_type;

typedef struct config_key {
    const char *path; // "model.residual.streams"
    key_type type;
    const char *initial; // the default as canonical text: "auto", "none", "4", "pre out"
    const char *choices; // "add hyper frac"; for other types words allowed beside the value: "auto none"
    double min, max;     // inclusive; of COUNT, NUMBER, NUMBERS (and of the seconds of DURATION)
    const char *unit, *help, *source;
    const char *only; // "model.residual.kind=hyper frac": elsewhere an error naming that kind; NULL: always
} config_key;

/* Where KEY is set to VALUE, SETS hold unless file or command line say otherwise: "model.layers=8
 * model.width=256". Settings are parted by spaces; a word without '=' belongs to the setting before it. A
 * preset that is merely the default sets nothing. */
typedef struct config_preset {
    const char *key, *value, *sets;
} config_preset;

typedef struct config config;

/* Reads the file PATH (NULL: none; "-": standard input) and N overrides "key=value". ERR_CONFIG names file,
 * line, key, value and remedy; ERR_IO when PATH cannot be read; ERR_USAGE for an override without '='. *out:
 * the caller's, closed by config_close. */
status config_load(const char *path, const char *const *overrides, i64 n, config **out) MUST;
/* The same from memory; NAME stands for the file in messages. */
status config_parse(const char *name, const char *yaml, size_t bytes, const char *const *overrides, i64 n,
                    config **out) MUST;
void config_close(config *c); // NULL allowed

/* ---- values. The forms ending in _at honour model.override for layer 0 .. layers-1; -1 asks for the
 * model's. */
const char *config_text_at(const config *c, i64 layer,
                           const char *path);                          // canonical text, lives as long as C
double config_number_at(const config *c, i64 layer, const char *path); // NAN where the value is a word (auto)
i64 config_count_at(const config *c, i64 layer, const char *path);     // -1 where the value is a word
bool config_flag_at(const config *c, i64 layer, const char *path);     // KEY_BOOL
i64 config_choice_at(const config *c, i64 layer,
                     const char *path); // KEY_CHOICE: index into the row's choices
bool config_is_at(const config *c, i64 layer, const char *path, const char *value); // value or word equals
bool config_has_choice_at(const config *c, i64 layer, const char *path,
                          const char *choice); // KEY_CHOICES holds it
static inline const char *config_text(const config *c, const char *p) { return config_text_at(c, -1, p); }
static inline double config_number(const config *c, const char *p) { return config_number_at(c, -1, p); }
static inline i64 config_count(const config *c, const char *p) { return config_count_at(c, -1, p); }
static inline bool config_flag(const config *c, const char *p) { return config_flag_at(c, -1, p); }
static inline i64 config_choice(const config *c, const char *p) { return config_choice_at(c, -1, p); }
static inline bool config_is(const config *c, const char *p, const char *v)
{
    return config_is_at(c, -1, p, v);
}
static inline bool config_has_choice(const config *c, const char *p, const char *choice)
{
    return config_has_choice_at(c, -1, p, choice);
}
/* KEY_NUMBERS: fills OUT[n], n as in the default. */
void config_numbers(const config *c, const char *path, double *out, i64 n);
/* KEY_DURATION in seconds; NAN for a word (none). */
double config_seconds(const config *c, const char *path);
/* KEY_SHARE: true and the share (0..1) for "1%"; false when the value is a path. */
bool config_share(const config *c, const char *path, double *share);
/* KEY_SPAN in steps, rounded to the nearest; a positive span is at least one step; none is 0.
 * TOTAL_STEPS is the run's length (for %), TOKENS_PER_STEP > 0 (for tokens). */
i64 config_span(const config *c, const char *path, i64 total_steps, i64 tokens_per_step);
i64 span_steps(const char *span, i64 total_steps,
               i64 tokens_per_step); // the same of canonical text (a list's field)
/* Does canonical LAYERS text name LAYER of LAYERS? */
bool layers_hold(const char *text, i64 layer, i64 layers);

/* ---- lists: KEY_LIST */
i64 config_items(const config *c, const char *path);
/* FIELD of item I: given or default, canonical text. field: "path" for the row "data.train[].path". */
const char *config_item(const config *c, const char *path, i64 i, const char *field);
double config_item_number(const config *c, const char *path, i64 i, const char *field); // NAN for a word
i64 config_item_choice(const config *c, const char *path, i64 i, const char *field); // KEY_CHOICE: its index

/* ---- where a value comes from, and refusing it */
/* "cfg.yaml:12: model.width", "command line: model.width", "preset llama-10m: model.width",
 * "default: model.width", "tokenizer: model.vocab" (config_set). Lives as long as C. */
const char *config_where(const config *c, const char *path);
const char *config_where_at(const config *c, i64 layer, const char *path);
bool config_applies(const config *c,
                    const char *path); // is the kind that PATH belongs to (its row's only) chosen?
bool config_given(const config *c, const char *path); // set by preset, file, command line or config_set
/* ERR_CONFIG "WHERE MESSAGE": write the message to follow the key: "is 3; it must divide ...". */
status config_refuse(const config *c, const char *path, const char *format, ...) PRINTF(3, 4) MUST;
/* The same of the value that LAYER has: names the line of model.override where that set it. */
status config_refuse_at(const config *c, i64 layer, const char *path, const char *format, ...) PRINTF(4, 5)
    MUST;
/* Sets what Keel computed; VALUE as on the command line, ORIGIN as messages should name it ("tokenizer").
 * ERR_CONFIG when the row does not allow it. */
status config_set(config *c, const char *path, const char *value, const char *origin) MUST;

/* Which of train.tokens, steps, epochs, time, flops is set. ERR_CONFIG when none or several are. A budget of
 * the command line replaces one of the file. */
typedef enum budget_kind {
    BUDGET_TOKENS,
    BUDGET_STEPS,
    BUDGET_EPOCHS,
    BUDGET_TIME,
    BUDGET_FLOPS
} budget_kind;
typedef struct budget {
    budget_kind kind;
    double value; // tokens, steps, epochs, seconds or flops
} budget;
status config_budget(const config *c, budget *out) MUST;
bool config_budget_given(const config *c); // is at least one of them set?

/* ---- writing: canonical YAML of every key that applies; loading it gives the same configuration again. */
void config_write(const config *c, text *out);
u64 config_hash(const config *c); // XXH3 of that text

/* ---- the tables themselves */
typedef struct key_list {
    const config_key *rows[512];
    i64 n;
} key_list;
void config_keys(key_list *out);                     // every row in table order, "PATH[].FIELD" rows included
const config_key *config_find_key(const char *path); // NULL if unknown
bool word_in(const char *words, const char *word);   // is WORD one of the space-separated WORDS (NULL: none)?
void config_describe(const config_key *key, text *out); // "whole number from 1 to 1000, or auto"
status config_explain(const char *path, text *out)
    MUST;                         // one key or a group (NULL: all); ERR_USAGE if unknown
void config_reference(text *out); // docs/configuration.md
