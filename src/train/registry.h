/* registry: every run ever started, in one SQLite file: what it was, how it went, its metrics.
 *
 *     registry *r = NULL;
 *     status s = registry_open(NULL, REGISTRY_WRITE, &r);        // NULL: the user's own; a failure is a
 * warning: if (s) warn_once(s);                                       // every call below takes r == NULL and
 * does nothing warn(registry_begin(r, &run, id)); warn(registry_metrics(r, id, step, metrics, n));
 *     warn(registry_end(r, id, "done", &figures));
 *
 * A registry that is locked, read-only or on a full disk never stops training: a failing call says so once,
 * later metrics are then not tried again (metrics.jsonl in the run's folder has them all), registry_end is.
 */
#pragma once
#include "train/metrics.h"

typedef struct registry registry;
typedef enum registry_mode {
    REGISTRY_READ, // never creates anything
    REGISTRY_WRITE
} registry_mode;

/* COLUMN(kind, name, SQL type): a run as a row, in order. Times are seconds since 1970, UTC; 0 is unknown. */
#define REGISTRY_COLUMNS(COLUMN)                                                                             \
    COLUMN(TEXT, id)       /* 16 digits of the identity, '-', how many runs had it */                        \
    COLUMN(TEXT, name)     /* the user's word for it */                                                      \
    COLUMN(TEXT, folder)   /* absolute */                                                                    \
    COLUMN(TEXT, identity) /* hash of configuration, data and seeds: at least 16 hexadecimal digits */       \
    COLUMN(TEXT, config)   /* resolved, YAML */                                                              \
    COLUMN(TEXT, code)     /* version of the program */                                                      \
    COLUMN(TEXT, isa)                                                                                        \
    COLUMN(TEXT, libraries)                                                                                  \
    COLUMN(TEXT, host)                                                                                       \
    COLUMN(TEXT, status) /* running, done, stopped, diverged, failed */                                      \
    COLUMN(INTEGER, threads)                                                                                 \
    COLUMN(INTEGER, started)                                                                                 \
    COLUMN(INTEGER, ended)                                                                                   \
    COLUMN(INTEGER, steps)                                                                                   \
    COLUMN(INTEGER, tokens)                                                                                  \
    COLUMN(REAL, loss)          /* nats a token, at the end; NaN is unknown */                               \
    COLUMN(REAL, bits_per_byte) /* of validation, at the end; NaN is unknown */

#define REGISTRY_TYPE_TEXT const char *
#define REGISTRY_TYPE_INTEGER i64
#define REGISTRY_TYPE_REAL double
typedef struct registry_run {
#define COLUMN(kind, name) REGISTRY_TYPE_##kind name;
    REGISTRY_COLUMNS(COLUMN)
#undef COLUMN
} registry_run;

enum { REGISTRY_ID = 40 };

/* Where the registry is: $KEEL_REGISTRY, else $XDG_DATA_HOME/keel/runs.db, else ~/.local/share/keel/runs.db.
 * Released with free. ERR_CONFIG when none of the three is set. */
status registry_path(char **out) MUST;
/* Opens PATH (NULL: registry_path). To write, makes file and folders. To read a registry that does not exist:
 * OK with *out NULL, and there are no runs. ERR_FORMAT for a file that is none, or of a newer version. */
status registry_open(const char *path, registry_mode mode, registry **out) MUST;
void registry_close(registry *r);

/* Enters RUN as running. run->id NULL: a new run, whose id is made; else the run of that id goes on (entered
 * anew if unknown), and its metrics after step run->steps are removed. ID is filled in whatever happens. */
status registry_begin(registry *r, const registry_run *run, char id[REGISTRY_ID]) MUST;
/* Adds N metrics of a step, replacing those already there. */
status registry_metrics(registry *r, const char *id, i64 step, const metric *values, i64 n) MUST;
/* Enters how the run ended: status, ended, steps, tokens, loss, bits_per_byte of END. */
status registry_end(registry *r, const char *id, const registry_run *end) MUST;

/* Removes the entry of run ID and its metrics; an unknown one is fine. */
status registry_remove(registry *r, const char *id) MUST;

/* All runs, newest first; rows and strings live in A. */
status registry_list(registry *r, arena *a, registry_run **rows, i64 *n) MUST;
/* The run of id WHAT (or the only one whose id begins so), or the newest one in folder WHAT.
 * ERR_INPUT when there is none or several. */
status registry_find(registry *r, arena *a, const char *what, registry_run *run) MUST;
/* The last value of every metric of a run, by name. A value that was not finite is NaN. */
status registry_last_metrics(registry *r, arena *a, const char *id, metric **values, i64 *n) MUST;
