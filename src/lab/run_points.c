/* From a table's rows to a law's points: which column is which, which rows count. See run_table.h. */
#include "lab/run_table.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { NONE = -1, FROM_COMPUTE = -2, FROM_DIFFERENCE = -3, MOST_NAMED = 6 };

typedef struct picking {
    const run_table *t;
    const law *l;
    const run_choice *c;
    arena *a;
    i64 column[LAW_INPUTS + 1], other[2]; // other: what a value is made of
    i64 status_column;
} picking;

static i64 find_column(const run_table *t, const char *name)
{
    for (i64 k = 0; k < t->columns; k++)
        if (!strcmp(t->name[k], name)) return k;
    for (i64 k = 0; k < t->columns; k++)
        if (name[1] && !strcasecmp(t->name[k], name)) return k; // not of one letter: D is tokens, d a width
    return NONE;
}

static i64 find_any(const run_table *t, arena *a, const char *names)
{
    char *words = arena_strdup(a, names), *rest;
    for (char *w = strtok_r(words, " ", &rest); w; w = strtok_r(NULL, " ", &rest)) {
        i64 k = find_column(t, w);
        if (k != NONE) return k;
    }
    return NONE;
}

static const char *column_list(const run_table *t, arena *a)
{
    text all = {0};
    for (i64 k = 0; k < t->columns; k++) text_add(&all, "%s%s", k ? ", " : "", t->name[k]);
    const char *out = arena_strdup(a, all.bytes ? all.data : "no columns");
    text_free(&all);
    return out;
}

static status no_column(const run_table *t, arena *a, err_code code, const char *what, const char *name)
{
    const char *near = nearest_name(name, t->name, t->columns);
    if (near) return fail(code, "%s: no column '%s'; did you mean '%s'?", what, name, near);
    return fail(code, "%s: no column '%s'; %s has: %s", what, name, t->source, column_list(t, a));
}

/* The column that the map gives NAME, or NONE. */
static status mapped(const picking *p, const char *name, i64 *out)
{
    *out = NONE;
    for (i64 k = 0; k < p->c->n_map; k++) {
        if (strcasecmp(p->c->map[k].name, name)) continue;
        *out = find_column(p->t, p->c->map[k].value);
        if (*out == NONE)
            return no_column(p->t, p->a, ERR_USAGE,
                             arena_printf(p->a, "--map %s=%s", name, p->c->map[k].value), p->c->map[k].value);
    }
    return OK;
}

static status missing(const picking *p, const char *name, const char *help, const char *also,
                      const char *more)
{
    char *words = arena_printf(p->a, "%s %s", name, also), *rest;
    const char *near = NULL;
    for (char *w = strtok_r(words, " ", &rest); w && !near; w = strtok_r(NULL, " ", &rest))
        if (strlen(w) > 2) near = nearest_name(w, p->t->name, p->t->columns);
    return fail(
        ERR_INPUT,
        "the law %s needs %s (%s); %s has no such column%s%s%s%s: it has %s; name it with --map %s=%s",
        p->l->name, name, help, p->t->source, more, near ? "; did you mean '" : "", near ? near : "",
        near ? "'?" : "", column_list(p->t, p->a), name, near ? near : "COLUMN");
}

static status find_input(picking *p, int k)
{
    const law_input *in = &p->l->input[k];
    TRY(mapped(p, in->name, &p->column[k]));
    if (p->column[k] == NONE) p->column[k] = find_column(p->t, in->name);
    if (p->column[k] == NONE) p->column[k] = find_any(p->t, p->a, in->also);
    return OK;
}

/* Tokens or parameters from compute and the other of the two. */
static status from_compute(picking *p)
{
    i64 c = NONE;
    if (p->l->inputs < 2 || strcmp(p->l->input[0].name, "N") || strcmp(p->l->input[1].name, "D")) return OK;
    if ((p->column[0] == NONE) == (p->column[1] == NONE)) return OK;
    TRY(mapped(p, "C", &c));
    if (c == NONE) c = find_any(p->t, p->a, "C flops compute");
    if (c != NONE) p->other[0] = c, p->column[p->column[0] == NONE ? 0 : 1] = FROM_COMPUTE;
    return OK;
}

static status find_target(picking *p)
{
    const law *l = p->l;
    i64 *at = &p->column[l->inputs];
    const char *more = "";
    TRY(mapped(p, l->target, at));
    if (*at == NONE) *at = find_column(p->t, l->target);
    if (*at == NONE) *at = find_any(p->t, p->a, l->target_also);
    if (*at == NONE && l->minus) {
        i64 loss, base;
        TRY(mapped(p, "loss", &loss));
        TRY(mapped(p, l->minus, &base));
        if (loss == NONE) loss = find_any(p->t, p->a, "loss val_loss");
        if (base == NONE) base = find_column(p->t, l->minus);
        if (loss != NONE && base != NONE) p->other[0] = loss, p->other[1] = base, *at = FROM_DIFFERENCE;
        more = arena_printf(p->a, ", nor both loss and %s", l->minus);
    }
    return *at == NONE ? missing(p, l->target, l->target_help, l->target_also, more) : OK;
}

static status check_map(const picking *p)
{
    static const char *const common[] = {"group", "seed", "status", "C", "loss"};
    const char *names[LAW_INPUTS + MOST_NAMED + 1];
    i64 n = 0;
    for (int k = 0; k < p->l->inputs; k++) names[n++] = p->l->input[k].name;
    names[n++] = p->l->target;
    for (int k = 0; k < COUNT(common); k++) names[n++] = common[k];
    for (i64 k = 0; k < p->c->n_map; k++) {
        bool known = p->l->minus && !strcmp(p->c->map[k].name, p->l->minus);
        text all = {0};
        for (i64 i = 0; i < n && !known; i++) known = !strcasecmp(p->c->map[k].name, names[i]);
        if (known) continue;
        for (i64 i = 0; i <= p->l->inputs; i++) text_add(&all, "%s%s", i ? ", " : "", names[i]);
        status s = fail(ERR_USAGE,
                        "--map %s=%s: the law %s has no '%s'; it has %s; group, seed, status and C serve all",
                        p->c->map[k].name, p->c->map[k].value, p->l->name, p->c->map[k].name, all.data);
        text_free(&all);
        return s;
    }
    return OK;
}

static status find_columns(picking *p)
{
    TRY(check_map(p));
    for (int k = 0; k < p->l->inputs; k++) TRY(find_input(p, k));
    TRY(from_compute(p));
    for (int k = 0; k < p->l->inputs; k++)
        if (p->column[k] == NONE)
            return missing(p, p->l->input[k].name, p->l->input[k].help, p->l->input[k].also, "");
    TRY(mapped(p, "status", &p->status_column));
    if (p->status_column == NONE) p->status_column = find_column(p->t, "status");
    return find_target(p);
}

/* ---- conditions */

static bool number(const char *s, double *out) { return parse_double(s, out) || parse_count(s, out); }

static bool holds(const char *cell, const run_pair *w)
{
    double a, b;
    if (!cell) return w->op == '!';
    bool both = number(cell, &a) && number(w->value, &b);
    switch (w->op) {
    case '<':
        return both && a < b;
    case '>':
        return both && a > b;
    case '!':
        return both ? a != b : strcmp(cell, w->value) != 0;
    default:
        return both ? a == b : !strcmp(cell, w->value);
    }
}

static status select_rows(const picking *p, i64 *row, i64 *n)
{
    i64 column[RUN_PAIRS];
    for (i64 k = 0; k < p->c->n_where; k++) {
        column[k] = find_column(p->t, p->c->where[k].name);
        if (column[k] == NONE)
            return no_column(p->t, p->a, ERR_USAGE, arena_printf(p->a, "--where %s", p->c->where[k].name),
                             p->c->where[k].name);
    }
    *n = 0;
    for (i64 r = 0; r < p->t->rows; r++) {
        bool in = true;
        for (i64 k = 0; k < p->c->n_where; k++)
            in = in && holds(p->t->cell[r * p->t->columns + column[k]], &p->c->where[k]);
        if (in) row[(*n)++] = r;
    }
    if (*n) return OK;
    if (!p->t->rows) return fail(ERR_INPUT, "%s: no rows", p->t->source);
    return fail(ERR_INPUT, "%s: none of the %lld rows is as --where asks", p->t->source,
                (long long)p->t->rows);
}

/* ---- rows */

typedef enum left_out { KEPT, DIVERGED, UNFINISHED, INCOMPLETE, REASONS } left_out;

typedef struct reason {
    left_out why;
    const char *what; // "tokens", the column that is empty; a status
} reason;

/* A cell as a number. KEPT, or why the row does not count; text that is no number is refused. */
static status read_cell(const picking *p, i64 r, i64 column, double *out, reason *why)
{
    const char *cell = p->t->cell[r * p->t->columns + column];
    char *end;
    if (!cell || !strcasecmp(cell, "null") || !strcasecmp(cell, "na")) {
        *why = (reason){INCOMPLETE, p->t->name[column]};
        return OK;
    }
    if (number(cell, out)) return OK;
    double v = strtod(cell, &end);
    if (!*end && !isfinite(v)) {
        *why = (reason){DIVERGED, p->t->name[column]};
        return OK;
    }
    return fail(ERR_INPUT, "%s, %s: %s is '%s'; expected a number", p->t->source, p->t->label[r],
                p->t->name[column], cell);
}

static status value_of(const picking *p, i64 r, int k, const double *x, double *out, reason *why)
{
    double a = 0, b = 0;
    if (p->column[k] >= 0) return read_cell(p, r, p->column[k], out, why);
    TRY(read_cell(p, r, p->other[0], &a, why));
    if (p->column[k] == FROM_COMPUTE)
        *out = a / 6 / x[1 - k];
    else {
        TRY(read_cell(p, r, p->other[1], &b, why));
        *out = a - b;
    }
    return OK;
}

static const char *made_of(const picking *p, int k)
{
    if (p->column[k] >= 0) return p->t->name[p->column[k]];
    if (p->column[k] == FROM_COMPUTE)
        return arena_printf(p->a, "%s / 6 %s", p->t->name[p->other[0]], p->l->input[1 - k].name);
    return arena_printf(p->a, "%s - %s", p->t->name[p->other[0]], p->t->name[p->other[1]]);
}

static status check_sign(const picking *p, i64 r, int k, double v)
{
    bool target = k == p->l->inputs;
    double above = target ? 0 : p->l->input[k].above;
    if (v > above || (target && p->l->absolute)) return OK;
    return fail(ERR_INPUT, "%s, %s: %s is %g; the law %s takes its logarithm: it must be above %g%s",
                p->t->source, p->t->label[r], made_of(p, k), v, p->l->name, above,
                target && p->l->minus ? " (leave out rows whose difference is within the noise of seeds)"
                                      : "");
}

static status read_row(const picking *p, i64 r, double *x, double *y, reason *why)
{
    *why = (reason){KEPT, NULL};
    if (p->status_column != NONE) {
        const char *s = p->t->cell[r * p->t->columns + p->status_column];
        if (s && !strcasecmp(s, "diverged")) return *why = (reason){DIVERGED, s}, OK;
        if (s && strcasecmp(s, "done") && strcasecmp(s, "finished") && strcasecmp(s, "ok"))
            return *why = (reason){UNFINISHED, s}, OK;
    }
    for (int pass = 0; pass < 2; pass++) // what follows from compute comes second
        for (int k = 0; k < p->l->inputs && why->why == KEPT; k++)
            if ((p->column[k] == FROM_COMPUTE) == pass) {
                TRY(value_of(p, r, k, x, &x[k], why));
                if (why->why == KEPT) TRY(check_sign(p, r, k, x[k]));
            }
    if (why->why == KEPT) TRY(value_of(p, r, p->l->inputs, x, y, why));
    return why->why == KEPT ? check_sign(p, r, p->l->inputs, *y) : OK;
}

/* "2 diverged (line 4, line 9), 1 not finished (line 5: running)" */
static const char *tell_left_out(const picking *p, const i64 *row, const reason *why, i64 n)
{
    static const char *const word[REASONS] = {NULL, "diverged", "not finished", "incomplete"};
    text t = {0};
    for (int w = DIVERGED; w < REASONS; w++) {
        i64 count = 0, named = 0;
        for (i64 i = 0; i < n; i++) count += why[i].why == (left_out)w;
        if (!count) continue;
        text_add(&t, "%s%lld %s (", t.bytes ? ", " : "", (long long)count, word[w]);
        for (i64 i = 0; i < n; i++) {
            if (why[i].why != (left_out)w) continue;
            if (named == MOST_NAMED && count > MOST_NAMED + 1) {
                text_add(&t, ", and %lld more", (long long)(count - named));
                break;
            }
            text_add(&t, "%s%s", named++ ? ", " : "", p->t->label[row[i]]);
            if (w == INCOMPLETE) text_add(&t, ": no %s", why[i].what);
            if (w == UNFINISHED) text_add(&t, ": %s", why[i].what);
        }
        text_add(&t, ")");
    }
    const char *out = arena_strdup(p->a, t.bytes ? t.data : "");
    text_free(&t);
    return out;
}

/* ---- groups: by the column group; else, where there are seeds, runs that differ only in the seed together
 */

static bool same_key(const picking *p, const i64 *row, const law_points *pts, i64 column, i64 i, i64 k)
{
    if (column == NONE) return !memcmp(pts->x[i], pts->x[k], sizeof pts->x[i]);
    const char *a = p->t->cell[row[i] * p->t->columns + column],
               *b = p->t->cell[row[k] * p->t->columns + column];
    return a && b && !strcmp(a, b); // rows without a group stay by themselves
}

static status set_groups(const picking *p, const i64 *row, run_points *out)
{
    law_points *pts = &out->points;
    i64 column, seed;
    TRY(mapped(p, "group", &column));
    TRY(mapped(p, "seed", &seed));
    if (column == NONE) column = find_column(p->t, "group");
    if (seed == NONE) seed = find_column(p->t, "seed");
    if (column == NONE && seed == NONE) return OK;
    i64 *group = arena_array(p->a, i64, pts->n + 1);
    for (i64 i = 0; i < pts->n; i++) {
        i64 k = 0;
        while (k < i && !same_key(p, row, pts, column, i, k)) k++;
        group[i] = k < i ? group[k] : pts->groups++;
    }
    if (pts->groups == pts->n) return pts->groups = 0, OK;
    pts->group = group;
    out->grouped = column == NONE ? "runs that differ only in the seed" : p->t->name[column];
    return OK;
}

static const char *find_mixed(const picking *p, const i64 *row, i64 n)
{
    static const char *const once[] = {"schedule", "tokenizer", "dataset", "data", "vocab"};
    for (int w = 0; w < COUNT(once); w++) {
        i64 k = find_column(p->t, once[w]);
        if (k == NONE || (!strcmp(once[w], "vocab") && !strncmp(p->l->name, "vocab", 5))) continue;
        for (i64 i = 1; i < n; i++) {
            const char *a = p->t->cell[row[0] * p->t->columns + k],
                       *b = p->t->cell[row[i] * p->t->columns + k];
            if (a && b && strcmp(a, b) != 0) return p->t->name[k];
        }
    }
    return NULL;
}

status run_table_points(const run_table *t, const law *l, const run_choice *c, arena *a, run_points *out)
{
    picking p = {.t = t, .l = l, .c = c, .a = a};
    i64 *row = arena_array(a, i64, t->rows + 1), n, kept = 0;
    *out = (run_points){0};
    TRY(find_columns(&p));
    TRY(select_rows(&p, row, &n));
    double(*x)[LAW_INPUTS] = arena_alloc(a, sizeof *x * (size_t)(n + 1)), *y = arena_array(a, double, n + 1);
    reason *why = arena_array(a, reason, n + 1);
    out->label = arena_array(a, const char *, n + 1);
    out->considered = n;
    for (i64 i = 0; i < n; i++) {
        TRY(read_row(&p, row[i], x[kept], &y[kept], &why[i]));
        out->diverged += why[i].why == DIVERGED, out->unfinished += why[i].why == UNFINISHED;
        out->incomplete += why[i].why == INCOMPLETE;
        if (why[i].why == KEPT) out->label[kept++] = t->label[row[i]];
    }
    out->left_out = tell_left_out(&p, row, why, n);
    for (i64 i = 0, k = 0; i < n; i++)
        if (why[i].why == KEPT) row[k++] = row[i];
    out->points = (law_points){.n = kept, .x = x, .y = y};
    for (int k = 0; k <= l->inputs; k++) out->column[k] = made_of(&p, k);
    if (kept < l->params)
        return fail(
            ERR_INPUT,
            "%s: %lld points for the %d parameters of the law %s%s%s; add runs: at least %d, better %d",
            t->source, (long long)kept, l->params, l->name, *out->left_out ? "; left out: " : "",
            out->left_out, l->params, 3 * l->params);
    out->mixed = find_mixed(&p, row, kept);
    return set_groups(&p, row, out);
}
