/* From results to verdicts: see table.h. */
#include "lab/table.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* P(|T| < t) of Student's t with N degrees of freedom: the finite sums of Abramowitz and Stegun, 26.7.3 and
 * 26.7.4. */
static double student_inside(double t, i64 n)
{
    double angle = atan(t / sqrt((double)n)), c = cos(angle), s = sin(angle), term = n % 2 ? c : 1, sum = 0;
    for (i64 k = n % 2 ? 1 : 0; k <= n - 2; k += 2) {
        sum += term;
        term *= c * c * (double)(k + 1) / (double)(k + 2);
    }
    return n % 2 ? 2 / M_PI * (angle + s * sum) : s * sum;
}

/* The t that 95 % lie within, by bisection. */
static double student_95(i64 n)
{
    double low = 1.9, high = 12.8; // at infinitely many degrees 1.960, at one 12.706
    for (int i = 0; i < 60; i++) {
        double middle = 0.5 * (low + high);
        *(student_inside(middle, n) < 0.95 ? &low : &high) = middle;
    }
    return high;
}

lab_mean lab_mean_of(const double *x, i64 n)
{
    lab_mean m = {.n = n, .mean = NAN, .se = NAN, .half = NAN};
    double sum = 0, squares = 0;
    if (!n) return m;
    for (i64 i = 0; i < n; i++) sum += x[i];
    m.mean = sum / (double)n;
    if (n < 2) return m;
    for (i64 i = 0; i < n; i++) squares += (x[i] - m.mean) * (x[i] - m.mean);
    m.se = sqrt(squares / (double)(n - 1) / (double)n);
    m.half = student_95(n - 1) * m.se;
    return m;
}

bool lab_resolved(const lab_mean *m) { return m->n >= 2 && fabs(m->mean) > m->half; }

/* ---- cells */

static const lab_result *find(const lab_result *all, i64 n, const experiment *e, const lab_arm *arm,
                              const char *value, i64 seed)
{
    for (i64 i = n - 1; i >= 0; i--)
        if (all[i].seed == seed && !strcmp(all[i].arm, arm->name) && !strcmp(all[i].value, value) &&
            !strcmp(all[i].experiment, e->name) && !strcmp(all[i].scale, e->scale ? e->scale : ""))
            return &all[i];
    return NULL;
}

static bool finished(const lab_result *r) { return result_is(r, "done") && isfinite(r->bits_per_byte); }

static void fill_cell(lab_cell *c, const experiment *e, const lab_result *all, i64 n, const lab_arm *arm,
                      const char *value, i64 seeds)
{
    double bits[MOST_SEEDS];
    *c = (lab_cell){.wanted = seeds};
    for (i64 s = 0; s < seeds; s++) {
        const lab_result *r = find(all, n, e, arm, value, e->seeds[s]);
        c->run[s] = r;
        if (finished(r))
            bits[c->done++] = r->bits_per_byte;
        else if (result_is(r, "done") || result_is(r, "diverged")) // ended with a loss that is no number
            c->diverged++;
        else if (r)
            c->failed++;
        else
            c->missing++;
    }
    c->bits = lab_mean_of(bits, c->done);
}

/* A number, and the unit behind it ("2M", "3%", "100 steps"). */
static bool tuned_number(const char *s, double *x, const char **unit)
{
    char *end;
    *unit = "";
    if (parse_count(s, x)) return true;
    *x = strtod(s, &end);
    *unit = end;
    return end != s && isfinite(*x);
}

/* Is value V the lowest or the highest of those tried? Values that are no numbers of one unit have no order.
 */
static bool at_edge(const experiment *e, i64 v)
{
    double x, y;
    const char *unit, *other;
    bool lower = false, higher = false;
    if (v < 0 || !tuned_number(e->tune_values[v], &x, &unit)) return false;
    for (i64 k = 0; k < e->n_values; k++) {
        if (!tuned_number(e->tune_values[k], &y, &other) || strcmp(unit, other)) return false;
        lower |= y<x, higher |= y> x;
    }
    return !lower || !higher;
}

/* As the plan chooses: the most seeds that finished, then the lowest mean. */
static void choose(const experiment *e, lab_row *r)
{
    double least = INFINITY;
    i64 most = 1;
    r->chosen = -1;
    for (i64 v = 0; v < e->n_values; v++) {
        const lab_cell *c = &r->values[v];
        if (c->done > most || (c->done == most && c->bits.mean < least))
            most = c->done, least = c->bits.mean, r->chosen = v;
    }
    r->edge = at_edge(e, r->chosen);
}

static double mean_over(const lab_cell *c, double (*get)(const lab_result *r))
{
    double sum = 0;
    i64 n = 0;
    for (i64 s = 0; s < c->wanted; s++) {
        double x = finished(c->run[s]) ? get(c->run[s]) : NAN;
        if (isfinite(x)) sum += x, n++;
    }
    return n ? sum / (double)n : NAN;
}
static double get_rate(const lab_result *r) { return r->tokens_per_s; }
static double get_memory(const lab_result *r) { return r->memory; }
static double get_parameters(const lab_result *r) { return (double)r->parameters; }
static double get_flops(const lab_result *r) { return r->flops_per_token; }
static double get_tokens(const lab_result *r) { return (double)r->tokens; }
static double get_seconds(const lab_result *r) { return r->seconds; }

static void fill_layers(lab_row *r)
{
    i64 runs = 0;
    for (i64 s = 0; s < r->cell.wanted; s++) {
        const lab_result *x = r->cell.run[s];
        if (!finished(x) || !x->n_layers || x->n_layers > COUNT(r->layers)) continue;
        for (i64 l = 0; l < x->n_layers; l++) r->layers[l] += x->layers[l];
        r->n_layers = x->n_layers;
        runs++;
    }
    for (i64 l = 0; l < r->n_layers; l++) r->layers[l] /= (double)runs;
}

/* ---- pairs */

/* Bits per byte when SHARE of the run's tokens were seen: between its evaluations by a straight line. Its
 * schedule had not ended there, which counts against it. */
static double bits_at(const lab_result *r, double share)
{
    double at = share * (double)r->tokens;
    if (share >= 1) return r->bits_per_byte;
    for (i64 i = 1; i < r->n_curve; i++)
        if (r->curve_tokens[i] >= at && r->curve_tokens[i - 1] <= at &&
            r->curve_tokens[i] > r->curve_tokens[i - 1]) {
            double part = (at - r->curve_tokens[i - 1]) / (r->curve_tokens[i] - r->curve_tokens[i - 1]);
            return r->curve_bits[i - 1] + part * (r->curve_bits[i] - r->curve_bits[i - 1]);
        }
    return NAN;
}

static const double UNDISTURBED = 0.85; // of its processors' time

/* May their speeds be compared? Both had their processors, and one call of keel lab run ran them, in turn. */
static bool same_conditions(const lab_result *x, const lab_result *y)
{
    return x->tokens_per_s > 0 && y->tokens_per_s > 0 && x->processor_share >= UNDISTURBED &&
           y->processor_share >= UNDISTURBED && x->session && x->session == y->session;
}

static void compare(const experiment *e, lab_row *r, const lab_row *base)
{
    double difference[MOST_SEEDS], speed[MOST_SEEDS], equal[MOST_SEEDS];
    i64 n = 0, n_speed = 0, n_equal = 0;
    for (i64 s = 0; s < e->n_seeds; s++) {
        const lab_result *x = r->cell.run[s], *y = base->cell.run[s];
        if (!finished(x) || !finished(y)) continue;
        difference[n++] = x->bits_per_byte - y->bits_per_byte;
        if (!same_conditions(x, y)) continue;
        speed[n_speed++] = log(x->tokens_per_s / y->tokens_per_s);
        double tx = (double)x->tokens / x->tokens_per_s, ty = (double)y->tokens / y->tokens_per_s;
        double least = fmin(tx, ty), d = bits_at(x, least / tx) - bits_at(y, least / ty);
        if (isfinite(d)) equal[n_equal++] = d;
    }
    r->difference = lab_mean_of(difference, n);
    r->speed = lab_mean_of(speed, n_speed);
    r->equal_time = lab_mean_of(equal, n_equal);
}

/* ---- words */

/* RATIO of what is called WHAT: "equal tokens", "2.00 times the tokens". */
static void add_ratio(text *t, double ratio, const char *what)
{
    if (fabs(ratio - 1) < 0.01 || !isfinite(ratio))
        text_add(t, "equal %s", what);
    else
        text_add(t, "%.2f times the %s", ratio, what);
}

/* At equal what? As the runs were, not as the file wished: of a matched key only whole multiples are taken.
 */
static void add_equal(text *t, const experiment *e, const lab_row *r, const lab_row *base)
{
    double tokens = mean_over(&r->cell, get_tokens) / mean_over(&base->cell, get_tokens),
           flops = r->flops_per_token / base->flops_per_token;
    text_add(t, " at ");
    if (e->match == MATCH_COMPUTE) {
        add_ratio(t, flops * tokens, "compute");
        return;
    }
    bool as_many = fabs(tokens - 1) < 0.01;
    if (e->match == MATCH_PARAMETERS)
        add_ratio(t, r->parameters / base->parameters, "parameters");
    else if (e->match == MATCH_FLOPS_PER_TOKEN)
        add_ratio(t, flops, "FLOPs a token");
    if (e->match) text_add(t, " and ");
    if (e->match && as_many && strstr(t->data, " at equal "))
        text_add(t, "tokens");
    else
        add_ratio(t, tokens, "tokens");
}

static void add_speed(text *t, const lab_row *r)
{
    double ratio = exp(r->speed.mean) - 1;
    if (!r->speed.n) return;
    if (fabs(ratio) < 0.015)
        text_add(t, ", as fast");
    else
        text_add(t, ", %.0f %% %s%s", 100 * fabs(ratio), ratio > 0 ? "faster" : "slower",
                 lab_resolved(&r->speed) ? "" : " (not resolved)");
    if (fabs(ratio) < 0.015 || !r->equal_time.n || !lab_resolved(&r->speed)) return;
    text_add(t, "; at equal time %s by %.4f", r->equal_time.mean < 0 ? "better" : "worse",
             fabs(r->equal_time.mean));
    if (isfinite(r->equal_time.half)) text_add(t, " ± %.4f", r->equal_time.half);
}

static const char *verdict(arena *a, const experiment *e, const lab_row *r, const lab_row *base)
{
    text t = {0};
    const lab_mean *d = &r->difference;
    const lab_cell *c = &r->cell;
    if (r == base)
        text_add(&t, "the baseline");
    else if (!c->done && c->diverged)
        text_add(&t, "diverged with every seed that was run (%lld)", (long long)c->diverged);
    else if (!d->n)
        text_add(&t, "no pair of finished runs to compare");
    else if (d->n < 2)
        text_add(&t, "not resolved: one pair of runs (difference %+.4f)", d->mean);
    else if (!lab_resolved(d))
        text_add(&t, "not resolved at this scale: %+.4f ± %.4f bits/byte", d->mean, d->half);
    else
        text_add(&t, "%s by %.4f ± %.4f bits/byte", d->mean < 0 ? "better" : "worse", fabs(d->mean), d->half);
    if (r != base && d->n >= 2) add_equal(&t, e, r, base);
    if (r != base && d->n >= 2 && d->n < e->n_seeds)
        text_add(&t, " (%lld of %lld pairs)", (long long)d->n, (long long)e->n_seeds);
    if (r != base && d->n) add_speed(&t, r);
    if (c->diverged && c->done)
        text_add(&t, "; %lld of %lld seeds diverged", (long long)c->diverged, (long long)c->wanted);
    if (c->failed) text_add(&t, "; %lld of %lld runs failed", (long long)c->failed, (long long)c->wanted);
    if (c->missing && e->n_values && r->chosen < 0 && !c->diverged)
        text_add(&t, "; not tuned yet");
    else if (c->missing)
        text_add(&t, "; %lld of %lld seeds are missing", (long long)c->missing, (long long)c->wanted);
    const char *kept = arena_strdup(a, t.data ? t.data : "");
    text_free(&t);
    return kept;
}

/* ---- the whole */

static void add_name(arena *a, const char ***list, i64 *n, const char *name)
{
    for (i64 i = 0; i < *n; i++)
        if (!strcmp((*list)[i], name)) return;
    const char **grown = arena_array(a, const char *, *n + 1);
    if (*n) memcpy(grown, *list, (size_t)*n * sizeof *grown);
    grown[(*n)++] = name;
    *list = grown;
}

static double value_of(const lab_arm *arm, const char *key)
{
    double x;
    for (i64 i = 0; i < arm->n_set; i++)
        if (!strcmp(arm->set[i].key, key) && parse_count(arm->set[i].value, &x) && x > 0) return x;
    return NAN;
}

/* A slope a seed, over the arms that it finished; then their mean. */
static void fit_trend(lab_table *t)
{
    const experiment *e = t->e;
    double slope[MOST_SEEDS];
    i64 n = 0;
    for (i64 s = 0; e->trend && s < e->n_seeds; s++) {
        double sx = 0, sy = 0, sxx = 0, sxy = 0, m = 0;
        for (i64 i = 0; i < e->n_arms; i++) {
            double x = log10(value_of(&e->arms[i], e->trend));
            const lab_result *r = t->rows[i].cell.run[s];
            if (!isfinite(x) || !finished(r)) continue;
            sx += x, sy += r->bits_per_byte, sxx += x * x, sxy += x * r->bits_per_byte, m++;
        }
        double spread = sxx - sx * sx / fmax(m, 1);
        t->trend_arms = MAX(t->trend_arms, (i64)m);
        if (m >= 3 && spread > 1e-9) slope[n++] = (sxy - sx * sy / m) / spread;
    }
    t->trend = lab_mean_of(slope, n);
}

static void add_note(arena *a, lab_table *t, const char *note) { add_name(a, &t->notes, &t->n_notes, note); }

/* The failed runs by name, each with what it said last. */
static void add_failures(arena *a, lab_table *t, const lab_result *results, i64 n)
{
    enum { MOST_NAMED = 8 };
    i64 named = 0;
    for (i64 i = 0; i < n && named < MOST_NAMED; i++) {
        const lab_result *r = &results[i];
        if (strcmp(r->experiment, t->e->name) || !result_is(r, "failed")) continue;
        named++;
        add_note(a, t,
                 arena_printf(a, "Failed: %s%s%s, seed %lld: %s", r->arm, *r->value ? ", " : "", r->value,
                              (long long)r->seed, *r->message ? r->message : "it said nothing"));
    }
}

/* Does TEXT hold " WORD " ? */
static bool holds(const char *all, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = all; (at = strstr(at, word)); at++)
        if ((at == all || at[-1] == ' ') && (!at[n] || at[n] == ' ')) return true;
    return false;
}

/* What the file asks of R's run and the run did not have, as "key=value"; NULL: nothing. Matched values
 * follow from the rest, data are told apart by their hash. */
static const char *not_held(arena *a, const experiment *e, i64 arm, const lab_result *r)
{
    lab_setting *set;
    i64 n;
    experiment_settings(a, e, arm, NULL, 0, &set, &n);
    for (i64 i = 0; i < n; i++) {
        const char *word = arena_printf(a, "%s=%s", set[i].key, set[i].value);
        bool free = !strcmp(set[i].key, "data.train") || (e->match && !strcmp(set[i].key, e->match_key)) ||
                    (e->n_values && !strcmp(set[i].key, e->tune_key));
        if (!free && !holds(r->settings, word)) return word;
    }
    return NULL;
}

/* Results of another file, or of this one before it was changed. */
static void add_strangers(arena *a, lab_table *t)
{
    const experiment *e = t->e;
    i64 strangers = 0;
    const char *example = "";
    for (i64 i = 0; i < e->n_arms; i++)
        for (i64 s = 0; s < t->rows[i].cell.wanted; s++) {
            const lab_result *r = t->rows[i].cell.run[s];
            const char *word = r && *r->settings ? not_held(a, e, i, r) : NULL;
            if (!word) continue;
            if (!strangers++)
                example = arena_printf(a, "%s, seed %lld: not %s", r->arm, (long long)r->seed, word);
        }
    if (strangers)
        add_note(a, t,
                 arena_printf(a,
                              "%lld of the runs had other settings than the experiment has now (%s): run "
                              "it again, or report it with the settings of then.",
                              (long long)strangers, example));
}

/* A value that was not run to its end cannot be chosen: the choice is then among the others. */
static void add_tuning_gaps(arena *a, lab_table *t)
{
    i64 lacking = 0;
    for (i64 i = 0; i < t->e->n_arms; i++)
        for (i64 v = 0; v < t->e->n_values; v++)
            if (t->rows[i].chosen >= 0 && v != t->rows[i].chosen)
                lacking += t->rows[i].values[v].missing + t->rows[i].values[v].failed;
    if (lacking)
        add_note(a, t,
                 arena_printf(a,
                              "%lld of the runs that tune %s are missing or failed: another value may be "
                              "better than the one chosen.",
                              (long long)lacking, t->e->tune_key));
}

static void add_notes(arena *a, lab_table *t)
{
    const experiment *e = t->e;
    i64 edges = 0, lacking = 0, diverged = 0, failed = 0, disturbed = 0, foreign = 0;
    for (i64 i = 0; i < e->n_arms; i++) {
        const lab_row *r = &t->rows[i];
        edges += r->edge;
        lacking += r->cell.missing;
        diverged += r->cell.diverged;
        failed += r->cell.failed;
        for (i64 s = 0; s < r->cell.wanted; s++) {
            disturbed += r->cell.run[s] && r->cell.run[s]->processor_share < UNDISTURBED;
            foreign += r->cell.run[s] && !r->cell.run[s]->session;
        }
    }
    if (e->n_values)
        add_note(a, t,
                 arena_printf(a, "%s was tuned for each arm, over %lld values with %s.", e->tune_key,
                              (long long)e->n_values,
                              e->tune_all_seeds ? "all seeds"
                                                : "the first seed (which is one of those averaged)"));
    else
        add_note(a, t, "Nothing was tuned: all arms share one learning rate, which may suit some better.");
    if (edges)
        add_note(a, t,
                 arena_printf(a,
                              "%lld arm%s chose the lowest or highest value tried (marked !): the best may "
                              "lie outside.",
                              (long long)edges, edges > 1 ? "s" : ""));
    if (t->n_codes > 1) {
        text names = {0};
        for (i64 i = 0; i < t->n_codes; i++) text_add(&names, "%s%s", i ? ", " : "", t->codes[i]);
        add_note(a, t,
                 arena_printf(a, "The runs come from %lld versions of the code: %s.", (long long)t->n_codes,
                              names.data));
        text_free(&names);
    }
    if (disturbed)
        add_note(a, t,
                 arena_printf(a,
                              "%lld of the runs got less than 85 %% of their processors: other work "
                              "disturbed them; their tokens/s say little and are compared with nothing.",
                              (long long)disturbed));
    if (foreign)
        add_note(a, t,
                 arena_printf(a,
                              "%lld of the runs are another experiment's: speeds are not compared with "
                              "theirs, which were not measured side by side.",
                              (long long)foreign));
    if (diverged) add_note(a, t, arena_printf(a, "%lld runs diverged.", (long long)diverged));
    if (failed) add_note(a, t, arena_printf(a, "%lld runs failed; no mean holds them.", (long long)failed));
    if (lacking)
        add_note(a, t,
                 arena_printf(a, "%lld runs are missing: the report is not complete.", (long long)lacking));
}

void lab_table_make(arena *a, const experiment *e, const lab_result *results, i64 n, lab_table *t)
{
    *t = (lab_table){.e = e, .rows = arena_array(a, lab_row, e->n_arms), .n_results = n};
    for (i64 i = 0; i < e->n_arms; i++) {
        lab_row *r = &t->rows[i];
        *r = (lab_row){.arm = &e->arms[i], .chosen = -1};
        r->values = arena_array(a, lab_cell, e->n_values + 1);
        for (i64 v = 0; v < e->n_values; v++)
            fill_cell(&r->values[v], e, results, n, r->arm, e->tune_values[v],
                      e->tune_all_seeds ? e->n_seeds : 1);
        choose(e, r);
        if (!e->n_values || r->chosen >= 0)
            fill_cell(&r->cell, e, results, n, r->arm, r->chosen >= 0 ? e->tune_values[r->chosen] : "",
                      e->n_seeds);
        else { // every value tried diverged, or is missing
            r->cell = (lab_cell){.wanted = e->n_seeds};
            for (i64 v = 0; v < e->n_values; v++) { // by seed: the most that one value lost
                r->cell.diverged = MAX(r->cell.diverged, r->values[v].diverged);
                r->cell.failed = MAX(r->cell.failed, r->values[v].failed);
            }
            r->cell.missing = r->cell.diverged ? 0 : e->n_seeds - MIN(r->cell.failed, e->n_seeds);
        }
        r->tokens_per_s = mean_over(&r->cell, get_rate);
        r->memory = mean_over(&r->cell, get_memory);
        r->parameters = mean_over(&r->cell, get_parameters);
        r->flops_per_token = mean_over(&r->cell, get_flops);
        r->seconds = mean_over(&r->cell, get_seconds);
        fill_layers(r);
        t->n_wanted += r->cell.wanted;
    }
    for (i64 i = 0; i < n; i++) {
        if (strcmp(results[i].experiment, e->name)) continue;
        if (*results[i].code) add_name(a, &t->codes, &t->n_codes, results[i].code);
        if (results[i].host && *results[i].host)
            add_name(a, &t->machines, &t->n_machines,
                     arena_printf(a, "%s, %s kernels, %lld thread%s a run", results[i].host, results[i].isa,
                                  (long long)results[i].threads, results[i].threads == 1 ? "" : "s"));
    }
    for (i64 i = 0; i < e->n_arms; i++) {
        compare(e, &t->rows[i], &t->rows[e->arms[i].baseline]);
        t->rows[i].verdict = verdict(a, e, &t->rows[i], &t->rows[e->arms[i].baseline]);
    }
    fit_trend(t);
    add_notes(a, t);
    add_strangers(a, t);
    add_tuning_gaps(a, t);
    add_failures(a, t, results, n);
}
