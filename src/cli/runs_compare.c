/* keel runs compare: figures of several runs and the configuration in which they differ, as a table or JSON.
 */
#include "cli/runs_parts.h"
#include "train/run_compare.h"
#include <stdio.h>

static json_t *figures_json(const run_files *r, const char *label, const registry_run *place)
{
    json_t *o = json_object(), *how = json_object_get(r->summary, "status");
    run_figures f = run_figures_of(r);
    json_object_set_new(o, "run", json_string(label));
    json_object_set_new(o, "id", *place->id ? json_string(place->id) : json_null());
    json_object_set_new(o, "folder", json_string(r->folder));
    json_object_set(o, "status", json_is_string(how) ? how : json_null());
#define FIGURE(name, what, form) json_object_set_new(o, #name, runs_real(f.name));
    RUN_FIGURES(FIGURE)
#undef FIGURE
    return o;
}

static void put_json(arena *a, const run_files *runs, const registry_run *places, i64 n)
{
    json_t *o = json_object(), *all = json_array(), *config = json_object();
    const char *const *labels = run_labels(a, runs, n);
    run_difference *d;
    i64 n_d;
    run_differences(a, runs, n, &d, &n_d);
    for (i64 i = 0; i < n; i++) json_array_append_new(all, figures_json(&runs[i], labels[i], &places[i]));
    for (i64 r = 0; r < n_d; r++) {
        json_t *values = json_array();
        for (i64 i = 0; i < n; i++)
            json_array_append_new(values, d[r].value[i] ? json_string(d[r].value[i]) : json_null());
        json_object_set_new(config, d[r].key, values);
    }
    json_object_set_new(o, "runs", all);
    json_object_set_new(o, "configuration", config);
    runs_put_json(o);
}

static void put_tables(arena *a, const run_files *runs, i64 n)
{
    i64 rows, n_differences;
    const char *const *cells = run_figure_cells(a, runs, n, &rows);
    const char *const *config = run_difference_cells(a, runs, n, &n_differences);
    const char **both = arena_array(a, const char *, (rows + n_differences) * (n + 1));
    i64 at = 0;
    for (i64 i = 0; i < rows * (n + 1); i++) both[at++] = cells[i];
    for (i64 i = n + 1; i < n_differences * (n + 1); i++) both[at++] = config[i]; // one head is enough
    runs_put_table(both, at / (n + 1), n + 1, 1, false);
    if (n_differences == 1) fprintf(stderr, "the configurations do not differ\n");
}

status runs_compare(const runs_args *args, arena *a)
{
    run_files *runs = arena_array(a, run_files, args->n_what);
    registry_run *places = arena_array(a, registry_run, args->n_what);
    status s = OK;
    for (i64 i = 0; !s && i < args->n_what; i++) {
        s = runs_place(args, a, args->what[i], &places[i]);
        if (!s) s = run_files_load(a, places[i].folder, &runs[i]);
    }
    if (!s && args->json) put_json(a, runs, places, args->n_what);
    if (!s && !args->json) put_tables(a, runs, args->n_what);
    for (i64 i = 0; i < args->n_what; i++) run_files_free(&runs[i]);
    return s;
}
