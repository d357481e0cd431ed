/* The registry's runs as a table: see run_table.h. What the registry does not hold (parameters, compute)
 * follows from the run's configuration, by building its graph. A configuration of another version that this
 * one cannot read leaves those cells empty: the run is then counted as incomplete where a law needs them. */
#include "config/config.h"
#include "lab/run_table.h"
#include "model/model.h"
#include "train/registry.h"
#include <math.h>
#include <string.h>

/* clang-format off */ // it has no resting place for such a list
#define COLUMNS(C)                                                                                           \
    C(id) C(name) C(status) C(params) C(params_total) C(params_vocab) C(tokens) C(flops) C(steps) C(loss)    \
    C(train_loss) C(bits_per_byte) C(lr) C(batch) C(bits) C(seed) C(layers) C(width) C(context) C(vocab)
/* clang-format on */
enum {
#define C(name) AT_##name,
    COLUMNS(C)
#undef C
        N_COLUMNS
};
static const char *const names[] = {
#define C(name) #name,
    COLUMNS(C)
#undef C
};

static const char *number(arena *a, double x) { return isfinite(x) ? arena_printf(a, "%.17g", x) : NULL; }
static const char *whole(arena *a, i64 x) { return x >= 0 ? arena_printf(a, "%lld", (long long)x) : NULL; }

/* Parameters by where they are: tables and head belong to the vocabulary; positions to neither. */
static status count_parameters(const config *c, arena *out, double tokens, const char **row)
{
    arena *a;
    model m;
    model_figures f;
    i64 context = config_count(c, "model.context"), vocab = 0, position = 0;
    model_shape shape = {
        .rows = 1, .tokens = context, .mode = MODE_EVALUATE, .act = DT_F32, .stream = DT_F32};
    TRY(arena_open(&a));
    status s = model_build(a, c, &shape, &m);
    if (!s) {
        model_about(&m, c, context, &f);
        for (i64 i = 0; i < m.g->n_tensors; i++) {
            const tensor *t = m.g->tensors[i];
            if (t->role != ROLE_PARAM) continue;
            if (!strncmp(t->path, "position", 8))
                position += count(t);
            else if (t->param.kind == PARAM_EMBEDDING || t->param.kind == PARAM_HEAD)
                vocab += count(t);
        }
        row[AT_params] = whole(out, f.parameters - vocab - position);
        row[AT_params_total] = whole(out, f.parameters);
        row[AT_params_vocab] = whole(out, vocab);
        row[AT_flops] = number(out, f.flops_per_token * tokens);
    }
    arena_close(a);
    return s;
}

static status from_config(const registry_run *run, arena *a, const char **row)
{
    config *c;
    TRY(config_parse(run->id, run->config, strlen(run->config), NULL, 0, &c));
    const char *precision = config_text(c, "train.precision");
    row[AT_lr] = number(a, config_number(c, "train.optimizer.lr"));
    row[AT_batch] = whole(a, config_count(c, "train.batch_tokens"));
    row[AT_bits] = !strcmp(precision, "bf16") ? "16" : !strcmp(precision, "f32") ? "32" : NULL;
    row[AT_seed] = whole(a, config_count(c, "train.seed.init"));
    row[AT_layers] = whole(a, config_count(c, "model.layers"));
    row[AT_width] = whole(a, config_count(c, "model.width"));
    row[AT_context] = whole(a, config_count(c, "model.context"));
    row[AT_vocab] = whole(a, config_count(c, "model.vocab"));
    status s = row[AT_vocab] ? count_parameters(c, a, (double)run->tokens, row) : OK;
    config_close(c);
    return s;
}

static status fill_row(registry *r, const registry_run *run, arena *a, const char **row)
{
    metric *m;
    i64 n;
    row[AT_id] = run->id, row[AT_name] = *run->name ? run->name : NULL, row[AT_status] = run->status;
    row[AT_tokens] = run->tokens > 0 ? whole(a, run->tokens) : NULL;
    row[AT_steps] = whole(a, run->steps);
    row[AT_loss] = number(a, run->loss);
    row[AT_bits_per_byte] = number(a, run->bits_per_byte);
    TRY(registry_last_metrics(r, a, run->id, &m, &n));
    for (i64 i = 0; i < n; i++)
        if (!strcmp(m[i].name, "loss")) row[AT_train_loss] = number(a, m[i].value);
    status_drop(from_config(run, a, row)); // of another version: those cells stay empty
    return OK;
}

status run_table_registry(const char *path, arena *a, run_table *out)
{
    registry *r;
    registry_run *runs;
    TRY(registry_open(path, REGISTRY_READ, &r));
    *out = (run_table){.source = "the registry of runs", .columns = N_COLUMNS, .name = (const char **)names};
    status s = registry_list(r, a, &runs, &out->rows);
    out->cell = arena_array(a, const char *, out->rows *N_COLUMNS + 1);
    out->label = arena_array(a, const char *, out->rows + 1);
    for (i64 i = 0; i < out->rows && !s; i++) {
        const registry_run *run = &runs[out->rows - 1 - i]; // oldest first
        out->label[i] = run->id;
        s = fill_row(r, run, a, out->cell + i * N_COLUMNS);
    }
    registry_close(r);
    return s;
}
