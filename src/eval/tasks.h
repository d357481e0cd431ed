/* tasks: benchmarks of multiple choice in the layouts their authors publish them in: how a line of JSON
 * becomes contexts and continuations.
 *
 *     const task *t = task_find("hellaswag");
 *     example_list list;
 *     TRY(examples_read(t, "val.jsonl", NULL, 0, &list));
 *     ... list.example[i].choice[k].context, .continuation; list.example[i].gold ...
 *     examples_free(&list);
 *
 * Strings are those of lm-evaluation-harness, so that numbers can be compared. */
#pragma once
#include "base/base.h"

enum { MOST_CHOICES = 16 };
typedef struct choice {
    const char *context;      // may be empty
    const char *continuation; // what is scored; begins with the delimiter, if the task has one
    i64 chars, bytes;         // of the choice without the delimiter: what acc_norm and acc_bytes divide by
} choice;

typedef struct example {
    choice choice[MOST_CHOICES];
    int choices, gold; // gold: -1 where the record does not say (a file of labels does)
} example;

typedef struct record record;
typedef struct task {
    const char *name, *layout;
    status (*read)(record *r, example *out);
    bool greedy; // one continuation: is it what the model would say? accuracy and perplexity
    bool labels; // the gold answer may stand in a file beside the records
} task;

extern const task tasks[];
extern const i64 n_tasks;
const task *task_find(const char *name); // NULL: none of that name
void task_names(char *out, size_t room); // "hellaswag, arc, ..."

typedef struct example_list {
    arena *arena; // holds everything
    example *example;
    i64 count;
} example_list;

/* The examples of a JSONL file (blank lines are passed over), the first LIMIT of them (0: all). LABELS: a
 * file with one whole number a line, for tasks that have one; NULL: none. ERR_INPUT names file, line, field
 * and remedy: no JSON, a field that is missing or of a wrong type, an answer that is none of the choices, an
 * empty choice, another number of labels than records (with LIMIT: fewer), a file without records. */
status examples_read(const task *t, const char *path, const char *labels, i64 limit, example_list *out) MUST;
/* The same from memory; NAME stands for the path in messages. */
status examples_parse(const task *t, const char *data, size_t bytes, const char *name, i64 limit,
                      example_list *out) MUST;
void examples_free(example_list *list);
