/* describe: the command line as data: every command with the argp tables that parse it and print its --help,
 * for manual pages and completion.
 *
 *     command *all;
 *     i64 n;
 *     TRY(describe(arena, &all, &n));                  // "train", "data", "data build", "data inspect", ...
 *     option_row rows[MOST_OPTIONS];
 *     i64 k = command_options(&all[0], rows);          // {"out", 'o', "DIR", "The run's folder ..."}, ...
 */
#pragma once
#include "base/base.h"
#include <argp.h>

typedef struct command {
    const char *words; // "train", "data build"
    const char *help;  // its line in the list
    struct argp argp;  // all NULL: a verb that only has parts
    i64 parts;         // commands behind it in the list that are its parts
} command;
/* All commands in the order of `keel --help`, each verb before its parts. They live in A. */
status describe(arena *a, command **out, i64 *n) MUST;

enum { MOST_OPTIONS = 64 };
typedef struct option_row {
    const char *name; // "out"; NULL: a heading of what follows
    char letter;      // 'o'; 0: none
    const char *arg;  // "DIR", or words to choose from: "plain|v3|v4"; NULL: a flag
    const char *doc;  // or the heading
    bool arg_optional;
} option_row;
i64 command_options(const command *c, option_row out[MOST_OPTIONS]);
/* Is ARG a list of words to choose from, such as "plain|v3|v4"? */
bool arg_is_words(const char *arg);
