/* The report of an experiment as Markdown, JSON and a page: see table.h. */
#include "format/report.h"
#include "lab/table.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const char *what_matched(const experiment *e)
{
    return e->match == MATCH_PARAMETERS        ? "parameters"
           : e->match == MATCH_FLOPS_PER_TOKEN ? "FLOPs a token"
                                               : "compute";
}

/* ---- cells of the tables, shared by Markdown and the page */

static const char *bits_text(arena *a, const lab_cell *c)
{
    text t = {0};
    if (c->done && c->done >= 2)
        text_add(&t, "%.4f ± %.4f", c->bits.mean, c->bits.se);
    else if (c->done)
        text_add(&t, "%.4f", c->bits.mean);
    else
        text_add(&t, "-");
    if (c->done < c->wanted) text_add(&t, " (%lld of %lld)", (long long)c->done, (long long)c->wanted);
    const char *kept = arena_strdup(a, t.data);
    text_free(&t);
    return kept;
}

static const char *difference_text(arena *a, const lab_mean *d)
{
    if (!d->n) return "-";
    if (d->n < 2) return arena_printf(a, "%+.4f", d->mean);
    return arena_printf(a, "%+.4f ± %.4f%s", d->mean, d->half, lab_resolved(d) ? " *" : "");
}

static const char *count_text(arena *a, double x)
{
    char out[32];
    return isfinite(x) ? arena_strdup(a, show_count(x, out)) : "-";
}

enum { COLUMNS = 9 };
/* [rows, COLUMNS], the head first. */
static const char *const *main_cells(arena *a, const lab_table *t, i64 *columns)
{
    const experiment *e = t->e;
    const char **cell = arena_array(a, const char *, (e->n_arms + 1) * COLUMNS);
    char out[32];
    i64 n = 0;
    *columns = COLUMNS - !e->n_values;
    cell[n++] = "arm";
    if (e->n_values) cell[n++] = strrchr(e->tune_key, '.') + 1;
    cell[n++] = "bits/byte";
    cell[n++] = "against the baseline";
    cell[n++] = "tokens/s";
    cell[n++] = "memory";
    cell[n++] = "parameters";
    cell[n++] = "MFLOPs a token";
    cell[n++] = "diverged";
    for (i64 i = 0; i < e->n_arms; i++) {
        const lab_row *r = &t->rows[i];
        cell[n++] = r->arm->name;
        if (e->n_values)
            cell[n++] = r->chosen < 0 ? "-"
                        : r->edge     ? arena_printf(a, "%s !", e->tune_values[r->chosen])
                                      : e->tune_values[r->chosen];
        cell[n++] = bits_text(a, &r->cell);
        cell[n++] = e->arms[i].baseline == i ? "baseline" : difference_text(a, &r->difference);
        cell[n++] = count_text(a, r->tokens_per_s);
        cell[n++] = isfinite(r->memory) ? arena_strdup(a, show_bytes(r->memory, out)) : "-";
        cell[n++] = count_text(a, r->parameters);
        cell[n++] = isfinite(r->flops_per_token) ? arena_printf(a, "%.2f", r->flops_per_token / 1e6) : "-";
        cell[n++] = arena_printf(a, "%lld", (long long)r->cell.diverged);
    }
    return cell;
}

/* Bits per byte by arm and tuned value. */
static const char *const *tuning_cells(arena *a, const lab_table *t)
{
    const experiment *e = t->e;
    const char **cell = arena_array(a, const char *, (e->n_arms + 1) * (e->n_values + 1));
    i64 n = 0;
    cell[n++] = e->tune_key;
    for (i64 v = 0; v < e->n_values; v++) cell[n++] = e->tune_values[v];
    for (i64 i = 0; i < e->n_arms; i++) {
        cell[n++] = e->arms[i].name;
        for (i64 v = 0; v < e->n_values; v++) {
            const lab_cell *c = &t->rows[i].values[v];
            const char *bits = bits_text(a, c);
            cell[n++] =
                c->diverged ? arena_printf(a, "%s, %lld diverged", bits, (long long)c->diverged) : bits;
        }
    }
    return cell;
}

static i64 most_layers(const lab_table *t)
{
    i64 n = 0;
    for (i64 i = 0; i < t->e->n_arms; i++) n = MAX(n, t->rows[i].n_layers);
    return n;
}

static const char *const *layer_cells(arena *a, const lab_table *t, i64 layers)
{
    const experiment *e = t->e;
    const char **cell = arena_array(a, const char *, (e->n_arms + 1) * (layers + 1));
    i64 n = 0;
    cell[n++] = "arm";
    for (i64 l = 0; l < layers; l++) cell[n++] = arena_printf(a, "%lld", (long long)l);
    for (i64 i = 0; i < e->n_arms; i++) {
        cell[n++] = e->arms[i].name;
        for (i64 l = 0; l < layers; l++)
            cell[n++] = l < t->rows[i].n_layers ? arena_printf(a, "%+.3f", t->rows[i].layers[l]) : "-";
    }
    return cell;
}

static const char *trend_text(arena *a, const lab_table *t)
{
    if (!t->e->trend || !t->trend.n) return NULL;
    if (t->trend.n < 2)
        return arena_printf(a,
                            "bits/byte falls by %.4f for each tenfold %s (%lld arms, one seed: no interval).",
                            -t->trend.mean, t->e->trend, (long long)t->trend_arms);
    return arena_printf(a, "Trend: %+.4f ± %.4f bits/byte for each tenfold %s (%lld arms, slopes by seed)%s.",
                        t->trend.mean, t->trend.half, t->e->trend, (long long)t->trend_arms,
                        lab_resolved(&t->trend) ? "" : ": not resolved at this scale");
}

/* ---- Markdown */

/* S inside of a line, or (BAR) of a cell: a value may hold line ends and bars. */
static void add_inline(text *out, const char *s, bool bar)
{
    for (; *s; s++)
        if (*s == '\n')
            text_add(out, "\\n");
        else if (*s == '|' && bar)
            text_add(out, "\\|");
        else
            text_add_bytes(out, s, 1);
}

static void grid(text *out, const char *const *cell, i64 rows, i64 columns)
{
    for (i64 i = 0; i < rows; i++) {
        text_add(out, "|");
        for (i64 k = 0; k < columns; k++) {
            text_add(out, " ");
            add_inline(out, cell[i * columns + k], true);
            text_add(out, " |");
        }
        text_add(out, "\n");
        if (i) continue;
        text_add(out, "|");
        for (i64 k = 0; k < columns; k++) text_add(out, "---|");
        text_add(out, "\n");
    }
    text_add(out, "\n");
}

static void settings(text *out, const char *name, const lab_setting *set, i64 n)
{
    text_add(out, "- ");
    add_inline(out, name, false);
    text_add(out, ":");
    for (i64 i = 0; i < n; i++) {
        text_add(out, " `%s=", set[i].key);
        add_inline(out, set[i].value, false);
        text_add(out, "`");
    }
    text_add(out, n ? "\n" : " nothing beyond these\n");
}

static const char *seeds_text(arena *a, const experiment *e)
{
    text t = {0};
    for (i64 i = 0; i < e->n_seeds; i++) text_add(&t, "%s%lld", i ? ", " : "", (long long)e->seeds[i]);
    const char *kept = arena_strdup(a, t.data);
    text_free(&t);
    return kept;
}

static void markdown(arena *a, const lab_table *t, text *out)
{
    const experiment *e = t->e;
    i64 columns, layers = most_layers(t);
    const char *const *cells = main_cells(a, t, &columns);
    text_add(out, "# %s\n\n", e->title);
    if (e->question) text_add(out, "**Question.** %s\n\n", e->question);
    if (e->claim) text_add(out, "**The claim.** %s\n\n", e->claim);
    text_add(out, "**Found here**%s%s:\n\n", e->scale ? ", scale " : "", e->scale ? e->scale : "");
    for (i64 i = 0; i < e->n_arms; i++)
        if (e->arms[i].baseline != i) {
            text_add(out, "- ");
            add_inline(out, e->arms[i].name, false);
            text_add(out, ": %s.\n", t->rows[i].verdict);
        }
    const char *trend = trend_text(a, t);
    if (trend) text_add(out, "- %s\n", trend);
    text_add(out, "\n");
    grid(out, cells, e->n_arms + 1, columns);
    text_add(
        out,
        "Bits per byte of validation text at the end: mean ± standard error over seeds %s. Differences are "
        "paired by seed, with 95 %% intervals (Student's t); * marks those whose interval excludes 0.\n\n",
        seeds_text(a, e));
    for (i64 i = 0; i < t->n_notes; i++) text_add(out, "- %s\n", t->notes[i]);
    for (i64 i = 0; i < t->n_machines; i++) text_add(out, "- Machine: %s.\n", t->machines[i]);
    for (i64 i = 0; t->n_codes == 1 && i < 1; i++) text_add(out, "- Code: keel %s.\n", t->codes[0]);
    if (e->n_values) {
        text_add(out, "\n## Tuning: bits per byte by %s\n\n", e->tune_key);
        grid(out, tuning_cells(a, t), e->n_arms + 1, e->n_values + 1);
    }
    if (layers) {
        text_add(out, "\n## What each layer is worth: nats a token lost without it\n\n");
        grid(out, layer_cells(a, t, layers), e->n_arms + 1, layers + 1);
    }
    text_add(out, "\n## Settings\n\nCommand: `keel lab run %s%s%s%s`.\n\n", e->path,
             e->scale ? " --scale " : "", e->scale ? e->scale : "", e->overrides);
    if (e->match) text_add(out, "Matched to the baseline's %s by `%s`.\n\n", what_matched(e), e->match_key);
    settings(out, "all arms", e->set, e->n_set);
    for (i64 i = 0; i < e->n_arms; i++) settings(out, e->arms[i].name, e->arms[i].set, e->arms[i].n_set);
}

void lab_markdown(const lab_table *t, text *out)
{
    arena *a;
    status s = arena_open(&a);
    if (s) {
        text_add(out, "%s\n", s->message);
        status_drop(s);
        return;
    }
    markdown(a, t, out);
    arena_close(a);
}

/* ---- JSON */

static json_t *number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static json_t *mean_json(const lab_mean *m)
{
    return json_pack("{s:I, s:o, s:o, s:o}", "n", (json_int_t)m->n, "mean", number(m->mean), "se",
                     number(m->se), "half_width_95", number(m->half));
}

static json_t *row_json(const experiment *e, const lab_row *r)
{
    json_t *j =
        json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:s}", "arm",
                  r->arm->name, "baseline", e->arms[r->arm->baseline].name, "tuned",
                  r->chosen >= 0 ? json_string(e->tune_values[r->chosen]) : json_null(), "bits_per_byte",
                  mean_json(&r->cell.bits), "difference", mean_json(&r->difference), "log_speed_ratio",
                  mean_json(&r->speed), "difference_at_equal_time", mean_json(&r->equal_time), "tokens_per_s",
                  number(r->tokens_per_s), "memory", number(r->memory), "parameters", number(r->parameters),
                  "wanted", (json_int_t)r->cell.wanted, "done", (json_int_t)r->cell.done, "diverged",
                  (json_int_t)r->cell.diverged, "failed", (json_int_t)r->cell.failed, "missing",
                  (json_int_t)r->cell.missing, "verdict", r->verdict);
    json_t *layers = j && r->n_layers ? json_array() : NULL;
    for (i64 l = 0; layers && l < r->n_layers; l++) json_array_append_new(layers, number(r->layers[l]));
    if (layers) json_object_set_new(j, "layers", layers);
    return j;
}

status lab_json(const lab_table *t, text *out)
{
    const experiment *e = t->e;
    json_t *rows = json_array(), *notes = json_array();
    for (i64 i = 0; rows && i < e->n_arms; i++) json_array_append_new(rows, row_json(e, &t->rows[i]));
    for (i64 i = 0; notes && i < t->n_notes; i++) json_array_append_new(notes, json_string(t->notes[i]));
    json_t *j = rows && notes ? json_pack("{s:s, s:s, s:s, s:o, s:o, s:o}", "experiment", e->name, "scale",
                                          e->scale ? e->scale : "", "title", e->title, "arms", rows, "notes",
                                          notes, "trend", e->trend ? mean_json(&t->trend) : json_null())
                              : NULL;
    char *s = j ? json_dumps(j, JSON_INDENT(1) | JSON_REAL_PRECISION(8)) : NULL;
    json_decref(j);
    if (!s) return fail(ERR_INPUT, "%s: a name in it is not valid UTF-8, which JSON cannot hold", e->path);
    text_add(out, "%s\n", s);
    free(s);
    return OK;
}

/* ---- the page */

/* The mean curve over the seeds that finished, with a band of one standard error; false: there is none. */
static bool curve(arena *a, const lab_row *r, report_line *line)
{
    const lab_result *first = NULL;
    double value[MOST_SEEDS];
    for (i64 s = 0; s < r->cell.wanted; s++)
        if (result_is(r->cell.run[s], "done") && (!first || r->cell.run[s]->n_curve < first->n_curve))
            first = r->cell.run[s];
    if (!first || first->n_curve < 2) return false;
    double *y = arena_array(a, double, 3 * first->n_curve), *low = y + first->n_curve,
           *high = low + first->n_curve;
    for (i64 i = 0; i < first->n_curve; i++) {
        i64 n = 0;
        for (i64 s = 0; s < r->cell.wanted; s++) {
            const lab_result *x = r->cell.run[s];
            if (result_is(x, "done") && i < x->n_curve && isfinite(x->curve_bits[i]))
                value[n++] = x->curve_bits[i];
        }
        lab_mean m = lab_mean_of(value, n);
        double se = isfinite(m.se) ? m.se : 0;
        y[i] = m.mean, low[i] = m.mean - se, high[i] = m.mean + se;
    }
    *line = (report_line){.label = r->arm->name,
                          .style = REPORT_POINTS,
                          .x = first->curve_tokens,
                          .y = y,
                          .low = low,
                          .high = high,
                          .n = first->n_curve};
    return true;
}

static i64 curves(arena *a, const lab_table *t, report_chart *out)
{
    enum { A_CHART = 8 };
    i64 n = 0;
    for (i64 i = 0; i < t->e->n_arms; i += A_CHART) {
        report_line *lines = arena_array(a, report_line, A_CHART);
        i64 m = 0;
        for (i64 k = i; k < MIN(i + A_CHART, t->e->n_arms); k++) m += curve(a, &t->rows[k], &lines[m]);
        if (!m) continue;
        out[n++] = (report_chart){.title = "Validation, mean and standard error over seeds",
                                  .x_label = "tokens",
                                  .y_label = "bits per byte",
                                  .robust = true,
                                  .lines = lines,
                                  .n_lines = m};
    }
    return n;
}

static void layer_chart(arena *a, const lab_table *t, i64 layers, report_chart *out)
{
    report_line *lines = arena_array(a, report_line, t->e->n_arms);
    double *x = arena_array(a, double, layers);
    i64 m = 0;
    for (i64 l = 0; l < layers; l++) x[l] = (double)l;
    for (i64 i = 0; i < t->e->n_arms && m < 8; i++)
        if (t->rows[i].n_layers)
            lines[m++] = (report_line){.label = t->e->arms[i].name,
                                       .style = REPORT_POINTS,
                                       .x = x,
                                       .y = t->rows[i].layers,
                                       .n = t->rows[i].n_layers};
    *out = (report_chart){.title = "What each layer is worth",
                          .x_label = "layer",
                          .y_label = "nats a token lost without it",
                          .from_zero = true,
                          .lines = lines,
                          .n_lines = m};
}

/* Bits per byte over what is tuned, where all seeds were run; false: its values are no numbers. */
static bool tuning_chart(arena *a, const lab_table *t, report_chart *out)
{
    const experiment *e = t->e;
    double *x = arena_array(a, double, e->n_values + 1), value;
    report_line *lines = arena_array(a, report_line, e->n_arms);
    i64 n = 0;
    for (i64 v = 0; v < e->n_values; v++) {
        if (!parse_count(e->tune_values[v], &value) || value <= 0) return false;
        x[v] = log10(value);
        if (v && x[v] <= x[v - 1]) return false;
    }
    for (i64 i = 0; i < e->n_arms && n < 8; i++) {
        double *y = arena_array(a, double, 3 * e->n_values + 1), *low = y + e->n_values,
               *high = low + e->n_values;
        for (i64 v = 0; v < e->n_values; v++) {
            const lab_mean *m = &t->rows[i].values[v].bits;
            double se = isfinite(m->se) ? m->se : 0;
            y[v] = m->mean, low[v] = m->mean - se, high[v] = m->mean + se;
        }
        lines[n++] = (report_line){.label = e->arms[i].name,
                                   .style = REPORT_POINTS,
                                   .x = x,
                                   .y = y,
                                   .low = low,
                                   .high = high,
                                   .n = e->n_values};
    }
    *out = (report_chart){.x_free = true,
                          .title = "Tuning",
                          .x_label = arena_printf(a, "log10 of %s", e->tune_key),
                          .y_label = "bits per byte",
                          .lines = lines,
                          .n_lines = n};
    return n > 0;
}

status lab_page(arena *a, const lab_table *t, text *out)
{
    const experiment *e = t->e;
    i64 columns, layers = most_layers(t), n_grids = 0, n_facts = 0, n_config = 0, n_charts;
    report_chart *charts = arena_array(a, report_chart, e->n_arms + 3);
    report_grid grids[4];
    report_row *facts = arena_array(a, report_row, t->n_notes + t->n_machines + t->n_codes + 6);
    report_row *config = arena_array(a, report_row, e->n_set + 2 * e->n_arms + 2);
    const char *const *cells = main_cells(a, t, &columns);
    const char **verdicts = arena_array(a, const char *, 2 * (e->n_arms + 2));
    i64 n_verdicts = 0;
    verdicts[n_verdicts++] = "arm";
    verdicts[n_verdicts++] = "found";
    for (i64 i = 0; i < e->n_arms; i++) {
        if (e->arms[i].baseline == i) continue;
        verdicts[n_verdicts++] = e->arms[i].name;
        verdicts[n_verdicts++] = t->rows[i].verdict;
    }
    const char *trend = trend_text(a, t);
    if (trend) {
        verdicts[n_verdicts++] = "trend";
        verdicts[n_verdicts++] = trend;
    }
    grids[n_grids++] = (report_grid){"Found here", verdicts, n_verdicts / 2, 2};
    grids[n_grids++] =
        (report_grid){"Figures (mean ± standard error; differences ± 95 %)", cells, e->n_arms + 1, columns};
    if (e->n_values)
        grids[n_grids++] = (report_grid){"Tuning", tuning_cells(a, t), e->n_arms + 1, e->n_values + 1};
    if (layers)
        grids[n_grids++] =
            (report_grid){"Layers dropped", layer_cells(a, t, layers), e->n_arms + 1, layers + 1};
    n_charts = curves(a, t, charts);
    if (layers) layer_chart(a, t, layers, &charts[n_charts++]);
    if (e->n_values && e->tune_all_seeds) n_charts += tuning_chart(a, t, &charts[n_charts]);
    if (e->claim) facts[n_facts++] = (report_row){"claim", e->claim};
    facts[n_facts++] = (report_row){"seeds", seeds_text(a, e)};
    for (i64 i = 0; i < t->n_notes; i++) facts[n_facts++] = (report_row){"note", t->notes[i]};
    for (i64 i = 0; i < t->n_machines; i++) facts[n_facts++] = (report_row){"machine", t->machines[i]};
    for (i64 i = 0; i < t->n_codes; i++) facts[n_facts++] = (report_row){"code", t->codes[i]};
    for (i64 i = 0; i < e->n_set; i++) config[n_config++] = (report_row){e->set[i].key, e->set[i].value};
    report_html(out, &(report_page){.title = e->title,
                                    .subtitle = e->question,
                                    .charts = charts,
                                    .n_charts = n_charts,
                                    .facts = facts,
                                    .n_facts = n_facts,
                                    .config = config,
                                    .n_config = n_config,
                                    .grids = grids,
                                    .n_grids = n_grids});
    return OK;
}
