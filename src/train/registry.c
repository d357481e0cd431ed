/* The registry of runs: see registry.h.
 *
 * Write-ahead logging, so that listing never waits for training, with synchronous = NORMAL: a power cut may
 * cost the last entries, never the file. Metrics are a table of (run, step, name, value); NULL is a value
 * that was not finite. */
#define _GNU_SOURCE // asprintf
#include "train/registry.h"
#include "base/file.h"
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SCHEMA_VERSION = 1, BUSY_MS = 2000 };

struct registry {
    sqlite3 *db;
    char *path;
    bool said, metrics_off;
};

static const char schema[] = "CREATE TABLE IF NOT EXISTS runs ("
#define COLUMN(kind, name) #name " " #kind ", "
    REGISTRY_COLUMNS(COLUMN)
#undef COLUMN
        "PRIMARY KEY (id)) WITHOUT ROWID;"
        "CREATE INDEX IF NOT EXISTS runs_folder ON runs (folder);"
        "CREATE TABLE IF NOT EXISTS metrics (run TEXT NOT NULL, step INTEGER NOT NULL, "
        "name TEXT NOT NULL, value REAL, PRIMARY KEY (run, step, name)) WITHOUT ROWID;"
        "PRAGMA user_version = 1;";
static const char columns[] =
#define COLUMN(kind, name) ", " #name
    REGISTRY_COLUMNS(COLUMN)
#undef COLUMN
    ;

status registry_path(char **out)
{
    const char *file = getenv("KEEL_REGISTRY"), *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    int n = -1;
    if (file && *file)
        n = asprintf(out, "%s", file);
    else if (data && *data == '/') // the XDG rules have relative paths ignored
        n = asprintf(out, "%s/keel/runs.db", data);
    else if (home && *home)
        n = asprintf(out, "%s/.local/share/keel/runs.db", home);
    else
        return fail(ERR_CONFIG,
                    "no place for the registry of runs: HOME is not set; set KEEL_REGISTRY to a file's path");
    return n < 0 ? fail(ERR_MEMORY, "out of memory") : OK;
}

/* SQLite's last error as a status. */
static status refused(registry *r, const char *verb)
{
    int code = sqlite3_errcode(r->db) & 0xff;
    const char *remedy = code == SQLITE_BUSY || code == SQLITE_LOCKED ? "; another process holds it"
                         : code == SQLITE_READONLY || code == SQLITE_PERM || code == SQLITE_CANTOPEN
                             ? "; check its permissions, or set KEEL_REGISTRY to another file"
                         : code == SQLITE_FULL ? "; free some space"
                         : code == SQLITE_CORRUPT || code == SQLITE_NOTADB
                             ? "; move it away and a new one is made"
                             : "";
    err_code kind = code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? ERR_FORMAT : ERR_IO;
    return fail(kind, "%s: cannot %s the registry of runs: %s%s", r->path, verb, sqlite3_errmsg(r->db),
                remedy);
}

static status execute(registry *r, const char *sql)
{
    return sqlite3_exec(r->db, sql, NULL, NULL, NULL) == SQLITE_OK ? OK : refused(r, "write");
}

static status prepare(registry *r, const char *sql, sqlite3_stmt **out)
{
    return sqlite3_prepare_v2(r->db, sql, -1, out, NULL) == SQLITE_OK ? OK : refused(r, "read");
}

/* Runs a statement that returns nothing, and frees it. */
static status finish(registry *r, sqlite3_stmt *q)
{
    int code = sqlite3_step(q);
    status s = code == SQLITE_DONE || code == SQLITE_ROW ? OK : refused(r, "write");
    sqlite3_finalize(q);
    return s;
}

/* The first column of a query's only row, as a number. */
static status number_of(registry *r, const char *sql, const char *parameter, i64 *out)
{
    sqlite3_stmt *q;
    TRY(prepare(r, sql, &q));
    if (parameter) sqlite3_bind_text(q, 1, parameter, -1, SQLITE_TRANSIENT);
    status s = sqlite3_step(q) == SQLITE_ROW ? OK : refused(r, "read");
    *out = s ? 0 : sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    return s;
}

static status set_up(registry *r, registry_mode mode)
{
    i64 version;
    sqlite3_busy_timeout(r->db, BUSY_MS);
    TRY(number_of(r, "PRAGMA user_version", NULL, &version));
    if (version > SCHEMA_VERSION)
        return fail(ERR_FORMAT, "%s: a registry of version %lld; this program knows %d: use a newer one",
                    r->path, (long long)version, SCHEMA_VERSION);
    if (mode == REGISTRY_READ) return OK;
    sqlite3_exec(r->db, "PRAGMA journal_mode = WAL", NULL, NULL,
                 NULL); // where refused, the rollback journal serves
    TRY(execute(r, "PRAGMA synchronous = NORMAL"));
    return version == SCHEMA_VERSION ? OK : execute(r, schema);
}

static status make_folder_of(const char *path)
{
    char *folder = strdup(path), *slash = folder ? strrchr(folder, '/') : NULL;
    status s = folder ? OK : fail(ERR_MEMORY, "out of memory");
    if (slash && slash != folder) {
        *slash = 0;
        s = dir_make(folder);
    }
    free(folder);
    return s;
}

status registry_open(const char *path, registry_mode mode, registry **out)
{
    *out = NULL;
    registry *r = calloc(1, sizeof *r);
    if (!r) return fail(ERR_MEMORY, "out of memory");
    status s = OK;
    if (!path)
        s = registry_path(&r->path);
    else if (!(r->path = strdup(path)))
        s = fail(ERR_MEMORY, "out of memory");
    bool none = !s && mode == REGISTRY_READ && !path_exists(r->path);
    if (!s && mode == REGISTRY_WRITE) s = wrap(make_folder_of(r->path), "the registry of runs");
    if (!s && !none) {
        int flags = mode == REGISTRY_READ ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
        if (sqlite3_open_v2(r->path, &r->db, flags, NULL) != SQLITE_OK)
            s = r->db ? refused(r, "open") : fail(ERR_MEMORY, "out of memory");
        else
            s = set_up(r, mode);
    }
    if (s || none)
        registry_close(r);
    else
        *out = r;
    return s;
}

void registry_close(registry *r)
{
    if (!r) return;
    sqlite3_close(r->db);
    free(r->path);
    free(r);
}

/* A failure is told once. */
static status once(registry *r, status s)
{
    if (!s) return OK;
    r->metrics_off = true;
    if (!r->said) {
        r->said = true;
        return s;
    }
    status_drop(s);
    return OK;
}

/* ---- writing. Each call is one transaction; IMMEDIATE, so that two processes cannot take the same number.
 */

static status in_transaction(registry *r, status s)
{
    if (!s) s = execute(r, "COMMIT");
    if (s && !sqlite3_get_autocommit(r->db)) sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL);
    return s;
}

static void bind_TEXT(sqlite3_stmt *q, int at, const char *s)
{
    sqlite3_bind_text(q, at, s, -1, SQLITE_TRANSIENT);
}
static void bind_INTEGER(sqlite3_stmt *q, int at, i64 x) { sqlite3_bind_int64(q, at, x); }
static void bind_REAL(sqlite3_stmt *q, int at, double x)
{
    sqlite3_bind_double(q, at, x);
} // NaN becomes NULL

static status insert(registry *r, const registry_run *run)
{
    sqlite3_stmt *q;
    char sql[1000];
    int at = 0;
#define COLUMN(kind, name) ", ?"
    static const char values[] = REGISTRY_COLUMNS(COLUMN);
#undef COLUMN
    snprintf(sql, sizeof sql, "INSERT OR REPLACE INTO runs (%s) VALUES (%s)", columns + 2, values + 2);
    TRY(prepare(r, sql, &q));
#define COLUMN(kind, name) bind_##kind(q, ++at, run->name);
    REGISTRY_COLUMNS(COLUMN)
#undef COLUMN
    return finish(r, q);
}

static status forget_after(registry *r, const char *id, i64 step)
{
    sqlite3_stmt *q;
    TRY(prepare(r, "DELETE FROM metrics WHERE run = ?1 AND step > ?2", &q));
    bind_TEXT(q, 1, id);
    bind_INTEGER(q, 2, step);
    return finish(r, q);
}

static status enter(registry *r, const registry_run *run, char id[REGISTRY_ID])
{
    registry_run row = *run;
    i64 number, began = 0;
    if (!run->id) {
        TRY(number_of(r,
                      "SELECT coalesce(max(CAST(substr(id, 18) AS INTEGER)), 0) FROM runs "
                      "WHERE substr(id, 1, 16) = substr(?1, 1, 16)",
                      run->identity, &number));
        snprintf(id, REGISTRY_ID, "%.16s-%lld", run->identity, (long long)number + 1);
    } else {
        TRY(forget_after(r, run->id, run->steps));
        TRY(number_of(r, "SELECT coalesce(max(started), 0) FROM runs WHERE id = ?1", run->id, &began));
    }
    row.id = id, row.status = "running", row.ended = 0;
    if (began) row.started = began;
    return insert(r, &row);
}

status registry_begin(registry *r, const registry_run *run, char id[REGISTRY_ID])
{
    if (run->id)
        snprintf(id, REGISTRY_ID, "%s", run->id);
    else
        snprintf(id, REGISTRY_ID, "%.16s-0", run->identity);
    if (!r) return OK;
    status s = execute(r, "BEGIN IMMEDIATE");
    return once(r, s ? s : in_transaction(r, enter(r, run, id)));
}

status registry_metrics(registry *r, const char *id, i64 step, const metric *values, i64 n)
{
    if (!r || r->metrics_off) return OK;
    status s = execute(r, "BEGIN IMMEDIATE");
    if (s) return once(r, s);
    for (i64 i = 0; !s && i < n; i++) {
        sqlite3_stmt *q;
        s = prepare(r, "INSERT OR REPLACE INTO metrics (run, step, name, value) VALUES (?1, ?2, ?3, ?4)", &q);
        if (s) break;
        bind_TEXT(q, 1, id);
        bind_INTEGER(q, 2, step);
        bind_TEXT(q, 3, values[i].name);
        bind_REAL(q, 4, values[i].value);
        s = finish(r, q);
    }
    return once(r, in_transaction(r, s));
}

status registry_end(registry *r, const char *id, const registry_run *end)
{
    sqlite3_stmt *q;
    if (!r) return OK;
    status s = prepare(r,
                       "UPDATE runs SET status = ?2, ended = ?3, steps = ?4, tokens = ?5, loss = ?6, "
                       "bits_per_byte = ?7 WHERE id = ?1",
                       &q);
    if (!s) {
        bind_TEXT(q, 1, id);
        bind_TEXT(q, 2, end->status);
        bind_INTEGER(q, 3, end->ended);
        bind_INTEGER(q, 4, end->steps);
        bind_INTEGER(q, 5, end->tokens);
        bind_REAL(q, 6, end->loss);
        bind_REAL(q, 7, end->bits_per_byte);
        s = finish(r, q);
    }
    return once(r, s);
}

static status delete_run(registry *r, const char *sql, const char *id)
{
    sqlite3_stmt *q;
    TRY(prepare(r, sql, &q));
    bind_TEXT(q, 1, id);
    return finish(r, q);
}

status registry_remove(registry *r, const char *id)
{
    if (!r) return OK;
    TRY(execute(r, "BEGIN IMMEDIATE"));
    status s = delete_run(r, "DELETE FROM metrics WHERE run = ?1", id);
    if (!s) s = delete_run(r, "DELETE FROM runs WHERE id = ?1", id);
    return in_transaction(r, s);
}

/* ---- reading */

static const char *get_TEXT(arena *a, sqlite3_stmt *q, int at)
{
    const char *s = (const char *)sqlite3_column_text(q, at);
    return arena_strdup(a, s ? s : "");
}
static i64 get_INTEGER(arena *a, sqlite3_stmt *q, int at) { return (void)a, sqlite3_column_int64(q, at); }
static double get_REAL(arena *a, sqlite3_stmt *q, int at)
{
    (void)a;
    return sqlite3_column_type(q, at) == SQLITE_NULL ? NAN : sqlite3_column_double(q, at);
}

/* The runs that CONDITION, a use of ?1 = PARAMETER, selects, newest first. */
static status select_runs(registry *r, arena *a, const char *condition, const char *parameter,
                          registry_run **rows, i64 *n)
{
    sqlite3_stmt *q;
    char sql[1000];
    i64 capacity = 0;
    int code;
    *rows = NULL, *n = 0;
    if (!r) return OK;
    snprintf(sql, sizeof sql, "SELECT %s FROM runs WHERE %s ORDER BY started DESC, id DESC", columns + 2,
             condition);
    TRY(prepare(r, sql, &q));
    if (parameter) bind_TEXT(q, 1, parameter);
    while ((code = sqlite3_step(q)) == SQLITE_ROW) {
        if (*n == capacity) {
            registry_run *more = arena_array(a, registry_run, capacity = 2 * capacity + 64);
            if (*n) memcpy(more, *rows, (size_t)*n * sizeof **rows);
            *rows = more;
        }
        registry_run *run = &(*rows)[(*n)++];
        int at = 0;
#define COLUMN(kind, name) run->name = get_##kind(a, q, at++);
        REGISTRY_COLUMNS(COLUMN)
#undef COLUMN
    }
    status s = code == SQLITE_DONE ? OK : refused(r, "read");
    sqlite3_finalize(q);
    return s;
}

status registry_list(registry *r, arena *a, registry_run **rows, i64 *n)
{
    return select_runs(r, a, "1", NULL, rows, n);
}

status registry_find(registry *r, arena *a, const char *what, registry_run *run)
{
    registry_run *rows = NULL;
    i64 n = 0;
    char *folder = realpath(what, NULL);
    status s = select_runs(r, a, "id = ?1", what, &rows, &n);
    if (!s && !n) s = select_runs(r, a, "folder = ?1", folder ? folder : what, &rows, &n);
    if (!s && n > 1) n = 1; // several runs in one folder, one after the other: the newest
    if (!s && !n && *what) s = select_runs(r, a, "substr(id, 1, length(?1)) = ?1", what, &rows, &n);
    free(folder);
    if (s) return s;
    if (!n)
        return fail(ERR_INPUT, "no run '%s' in the registry, by id or by folder; 'keel runs list' shows them",
                    what);
    if (n > 1)
        return fail(ERR_INPUT, "'%s' begins the ids of %lld runs, %s and %s among them; give more of it",
                    what, (long long)n, rows[0].id, rows[1].id);
    *run = rows[0];
    return OK;
}

status registry_last_metrics(registry *r, arena *a, const char *id, metric **values, i64 *n)
{
    sqlite3_stmt *q;
    i64 count;
    int code;
    *values = NULL, *n = 0;
    if (!r) return OK;
    TRY(number_of(r, "SELECT count(DISTINCT name) FROM metrics WHERE run = ?1", id, &count));
    /* SQLite takes the bare column from the row of the maximum. */
    TRY(prepare(r, "SELECT name, value, max(step) FROM metrics WHERE run = ?1 GROUP BY name ORDER BY name",
                &q));
    bind_TEXT(q, 1, id);
    *values = arena_array(a, metric, count);
    while ((code = sqlite3_step(q)) == SQLITE_ROW && *n < count)
        (*values)[(*n)++] = (metric){get_TEXT(a, q, 0), get_REAL(a, q, 1)};
    status s = code == SQLITE_DONE || code == SQLITE_ROW ? OK : refused(r, "read");
    sqlite3_finalize(q);
    return s;
}
