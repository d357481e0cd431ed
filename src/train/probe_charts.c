/* Charts of a run's probes: see probe_charts.h. */
#include "train/probe_charts.h"
#include <stdlib.h>
#include <string.h>

enum { LINES = 5 };
static const char prefix[] = "probe/";

static const struct {
    const char *name, *title, *unit; // name: behind the prefix, up to a further '/'
} titles[] = {
    {"activation_norm", "What a branch adds", "root mean square"},
    {"stream_variance", "Variance of the stream (0: embedding)", "variance"},
    {"effective_rank", "Effective rank of the stream", "dimensions"},
    {"attention_entropy", "Entropy of attention", "nats"},
    {"gradient_norm", "Gradient norm by layer", "norm"},
    {"update_ratio", "Relative update of the matrices", "|change| / |weight|"},
    {"singular_value", "Largest singular value", "value"},
};

/* Length of the array's name: what stands before the element's number; 0: no element of a probe. */
static size_t base_of(const char *name)
{
    const char *slash = strrchr(name, '/');
    if (strncmp(name, prefix, sizeof prefix - 1) || !slash || !slash[1] ||
        strspn(slash + 1, "0123456789") != strlen(slash + 1))
        return 0;
    return (size_t)(slash - name) > sizeof prefix - 1 ? (size_t)(slash - name) : 0;
}

static const metrics_series *element(const metrics_data *d, arena *a, const char *base, i64 k)
{
    return metrics_find(d, arena_printf(a, "%s/%lld", base, (long long)k));
}

static void name_chart(arena *a, const char *base, report_chart *c)
{
    const char *what = base + sizeof prefix - 1, *part = strchr(what, '/');
    size_t n = part ? (size_t)(part - what) : strlen(what);
    c->title = what, c->y_label = "value";
    for (i64 i = 0; i < COUNT(titles); i++)
        if (strlen(titles[i].name) == n && !strncmp(titles[i].name, what, n))
            c->title = part ? arena_printf(a, "%s: %s", titles[i].title, part + 1) : titles[i].title,
            c->y_label = titles[i].unit;
    c->x_label = "layer";
}

/* Of the array BASE; false: it has no two elements. */
static bool make_chart(arena *a, const metrics_data *d, const char *base, report_chart *c)
{
    i64 n = 0, steps = INT64_MAX;
    for (const metrics_series *s; (s = element(d, a, base, n)); n++) steps = MIN(steps, s->n);
    if (n < 2 || !steps) return false;
    i64 lines = MIN(steps, LINES);
    report_line *line = arena_array(a, report_line, lines);
    double *x = arena_array(a, double, n);
    for (i64 k = 0; k < n; k++) x[k] = (double)k;
    for (i64 i = 0; i < lines; i++) {
        i64 at = lines > 1 ? i * (steps - 1) / (lines - 1) : 0;
        double *y = arena_array(a, double, n), step = element(d, a, base, 0)->step[at];
        for (i64 k = 0; k < n; k++) y[k] = element(d, a, base, k)->value[at];
        line[i] = (report_line){
            .label = arena_printf(a, "step %.0f", step), .style = REPORT_POINTS, .x = x, .y = y, .n = n};
    }
    *c = (report_chart){.lines = line, .n_lines = lines};
    name_chart(a, base, c);
    return true;
}

i64 probe_charts(arena *a, const metrics_data *d, report_chart **out)
{
    i64 n = 0;
    *out = arena_array(a, report_chart, d->n);
    for (i64 i = 0; i < d->n; i++) {
        const char *name = d->series[i].name;
        size_t base = base_of(name);
        if (!base || strcmp(name + base, "/0")) continue;
        n += make_chart(a, d, arena_printf(a, "%.*s", (int)base, name), *out + n);
    }
    return n;
}
