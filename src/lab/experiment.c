/* Reading experiments: see experiment.h. */
#include "lab/experiment.h"
#include "base/file.h"
#include "config/parts.h"
#include <stdio.h>
#include <string.h>

typedef struct reader {
    experiment *e;
    const char *path, *baseline;
    const yaml_node *arms, *grid;
} reader;

static status refuse(const reader *r, const yaml_node *at, const char *format, ...) PRINTF(3, 4) MUST;
static status refuse(const reader *r, const yaml_node *at, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    return fail(ERR_CONFIG, "%s:%d: %s", r->path, at ? at->line : 1, line);
}

/* ---- settings */

/* A list or a value inside one, as flow YAML. */
static void flow(const yaml_node *n, text *out)
{
    if (n->kind == YAML_SCALAR) {
        if (n->plain) {
            text_add(out, "%s", n->text);
            return;
        }
        text_add(out, "\"");
        for (const char *p = n->text; *p; p++) text_add(out, strchr("\"\\", *p) ? "\\%c" : "%c", *p);
        text_add(out, "\"");
        return;
    }
    text_add(out, n->kind == YAML_LIST ? "[" : "{");
    for (const yaml_node *x = n->first; x; x = x->next) {
        if (n->kind == YAML_MAP) text_add(out, "%s: ", x->name);
        flow(x, out);
        if (x->next) text_add(out, ", ");
    }
    text_add(out, n->kind == YAML_LIST ? "]" : "}");
}

static const char *value_text(arena *a, const yaml_node *n)
{
    text t = {0};
    if (n->kind == YAML_SCALAR)
        text_add(&t, "%s", n->text);
    else
        flow(n, &t);
    const char *kept = arena_strdup(a, t.data ? t.data : "");
    text_free(&t);
    return kept;
}

typedef struct settings {
    lab_setting *item;
    i64 n, room;
} settings;

static const char budgets[] = "train.tokens train.steps train.epochs train.time train.flops";

static const char seed_keys[] = "train.seed.init train.seed.data"; // every run gets both: a seed of `seeds`
static const char no_seed[] = "%s is the experiment's to set: every run has a seed of its list seeds";

static bool same_setting(const char *a, const char *b)
{
    return !strcmp(a, b) || (word_in(budgets, a) && word_in(budgets, b));
}

/* A later setting of a key replaces the earlier one, a later budget every budget: a run has one. */
static void put(arena *a, settings *s, const char *key, const char *value)
{
    for (i64 i = 0; i < s->n; i++)
        if (same_setting(s->item[i].key, key)) {
            s->item[i] = (lab_setting){key, value};
            return;
        }
    if (s->n == s->room) {
        lab_setting *grown = arena_array(a, lab_setting, s->room = 2 * s->room + 8);
        if (s->n) memcpy(grown, s->item, (size_t)s->n * sizeof *grown);
        s->item = grown;
    }
    s->item[s->n++] = (lab_setting){key, value};
}

/* NODE's settings under PREFIX: maps are walked down to keys of the configuration. */
static status read_settings(const reader *r, const yaml_node *node, const char *prefix, settings *out)
{
    arena *a = r->e->arena;
    if (node->kind != YAML_MAP)
        return refuse(r, node, "expected settings, as {model.layers: 4}, not '%s'", value_text(a, node));
    for (const yaml_node *x = node->first; x; x = x->next) {
        const char *key = *prefix ? arena_printf(a, "%s.%s", prefix, x->name) : x->name;
        const config_key *row = config_find_key(key);
        if (!row && x->kind == YAML_MAP) {
            TRY(read_settings(r, x, key, out));
            continue;
        }
        if (!row) return refuse(r, x, "no key '%s'%s", key, did_you_mean(a, key));
        if (word_in(seed_keys, key)) return refuse(r, x, no_seed, key);
        put(a, out, key, value_text(a, x));
    }
    return OK;
}

/* ---- the other keys */

static status read_text(const reader *r, const yaml_node *n, const char **out)
{
    if (n->kind != YAML_SCALAR || !*n->text) return refuse(r, n, "%s: expected text", n->name);
    *out = arena_strdup(r->e->arena, n->text);
    return OK;
}

static status read_number(const reader *r, const yaml_node *n, i64 least, i64 most, i64 *out)
{
    if (n->kind != YAML_SCALAR || !parse_i64(n->text, out) || *out < least || *out > most)
        return refuse(r, n, "%s: '%s' is no whole number from %lld to %lld", n->name ? n->name : "seeds",
                      value_text(r->e->arena, n), (long long)least, (long long)most);
    return OK;
}

static status read_flag(const reader *r, const yaml_node *n, bool *out)
{
    bool yes = n->kind == YAML_SCALAR && !strcmp(n->text, "true");
    if (!yes && (n->kind != YAML_SCALAR || strcmp(n->text, "false")))
        return refuse(r, n, "%s: expected true or false", n->name);
    *out = yes;
    return OK;
}

static status read_seeds(const reader *r, const yaml_node *n)
{
    experiment *e = r->e;
    if (n->kind == YAML_SCALAR) {
        TRY(read_number(r, n, 1, MOST_SEEDS, &e->n_seeds));
        for (i64 i = 0; i < e->n_seeds; i++) e->seeds[i] = i + 1;
        return OK;
    }
    if (n->kind != YAML_LIST || !n->count || n->count > MOST_SEEDS)
        return refuse(r, n, "seeds: expected a number of them, or a list of 1 to %d", MOST_SEEDS);
    e->n_seeds = 0;
    for (const yaml_node *x = n->first; x; x = x->next) {
        i64 seed;
        TRY(read_number(r, x, 0, INT32_MAX, &seed));
        for (i64 i = 0; i < e->n_seeds; i++)
            if (e->seeds[i] == seed) return refuse(r, x, "seeds: %lld stands there twice", (long long)seed);
        e->seeds[e->n_seeds++] = seed;
    }
    return OK;
}

static status read_key(const reader *r, const yaml_node *n, const char **out)
{
    TRY(read_text(r, n, out));
    if (!config_find_key(*out)) return refuse(r, n, "no key '%s'%s", *out, did_you_mean(r->e->arena, *out));
    return OK;
}

static status unknown(const reader *r, const yaml_node *x, const char *where, const char *known)
{
    return refuse(r, x, "%s: no '%s'; there are: %s", where, x->name, known);
}

static status read_tune(const reader *r, const yaml_node *n)
{
    experiment *e = r->e;
    if (n->kind != YAML_MAP) return refuse(r, n, "tune: expected {key: KEY, values: [...]}");
    e->tune_key = "train.optimizer.lr"; // a scale's own replaces all of it
    e->tune_all_seeds = false;
    e->n_values = 0;
    for (const yaml_node *x = n->first; x; x = x->next) {
        if (!strcmp(x->name, "key"))
            TRY(read_key(r, x, &e->tune_key));
        else if (!strcmp(x->name, "seeds")) {
            if (x->kind != YAML_SCALAR || (strcmp(x->text, "first") && strcmp(x->text, "all")))
                return refuse(r, x, "tune.seeds: expected first or all");
            e->tune_all_seeds = !strcmp(x->text, "all");
        } else if (!strcmp(x->name, "values")) {
            if (x->kind != YAML_LIST || x->count < 2 || x->count > MOST_VALUES)
                return refuse(r, x, "tune.values: expected a list of 2 to %d values", MOST_VALUES);
            for (const yaml_node *v = x->first; v; v = v->next)
                e->tune_values[e->n_values++] = value_text(e->arena, v);
        } else
            return unknown(r, x, "tune", "key values seeds");
    }
    return e->n_values ? OK : refuse(r, n, "tune: has no values");
}

static status read_match(const reader *r, const yaml_node *n)
{
    static const char *const kinds[] = {"none", "parameters", "flops_per_token", "compute"};
    experiment *e = r->e;
    const char *by = NULL;
    if (n->kind != YAML_MAP) return refuse(r, n, "match: expected {by: parameters, key: model.ffn.width}");
    for (const yaml_node *x = n->first; x; x = x->next) {
        if (!strcmp(x->name, "by"))
            TRY(read_text(r, x, &by));
        else if (!strcmp(x->name, "key"))
            TRY(read_key(r, x, &e->match_key));
        else if (!strcmp(x->name, "multiple"))
            TRY(read_number(r, x, 1, 1 << 30, &e->match_multiple));
        else
            return unknown(r, x, "match", "by key multiple");
    }
    for (int i = 0; by && i < COUNT(kinds); i++)
        if (!strcmp(by, kinds[i])) {
            e->match = (lab_match)i;
            if (i && !e->match_key) return refuse(r, n, "match: has no key to change, as model.ffn.width");
            return OK;
        }
    return refuse(r, n, "match.by: expected none, parameters, flops_per_token or compute");
}

static status read_entry(reader *r, const yaml_node *x, settings *set, bool in_scale)
{
    experiment *e = r->e;
    static const char known[] = "title question claim base set arms grid baseline seeds tune match trend "
                                "layers scales";
    const struct {
        const char *name;
        const char **out;
    } words[] = {{"title", &e->title},
                 {"question", &e->question},
                 {"claim", &e->claim},
                 {"base", &e->base},
                 {"baseline", &r->baseline}};
    for (int i = 0; i < COUNT(words); i++)
        if (!strcmp(x->name, words[i].name)) return read_text(r, x, words[i].out);
    if (!strcmp(x->name, "set")) return read_settings(r, x, "", set);
    if (!strcmp(x->name, "seeds")) return read_seeds(r, x);
    if (!strcmp(x->name, "tune")) return read_tune(r, x);
    if (!strcmp(x->name, "match")) return read_match(r, x);
    if (!strcmp(x->name, "trend")) return read_key(r, x, &e->trend);
    if (!strcmp(x->name, "layers")) return read_flag(r, x, &e->layers);
    if (!strcmp(x->name, "arms"))
        r->arms = x;
    else if (!strcmp(x->name, "grid"))
        r->grid = x;
    else if (in_scale || strcmp(x->name, "scales"))
        return unknown(r, x, in_scale ? "a scale" : "an experiment", known);
    return OK;
}

static status read_scale(reader *r, const yaml_node *scales, settings *set)
{
    const yaml_node *at = scales->first;
    text names = {0};
    if (scales->kind != YAML_MAP || !at) return refuse(r, scales, "scales: expected a map of them");
    if (r->e->scale)
        while (at && strcmp(at->name, r->e->scale)) at = at->next;
    if (!at) {
        for (const yaml_node *x = scales->first; x; x = x->next) text_add(&names, " %s", x->name);
        status s = refuse(r, scales, "no scale '%s'; there are:%s", r->e->scale, names.data);
        text_free(&names);
        return s;
    }
    r->e->scale = arena_strdup(r->e->arena, at->name);
    if (at->kind != YAML_MAP) return refuse(r, at, "scale %s: expected a map", at->name);
    for (const yaml_node *x = at->first; x; x = x->next) TRY(read_entry(r, x, set, true));
    return OK;
}

/* ---- arms: those of the file times the points of the grid */

static status check_grid(const reader *r, i64 *points)
{
    *points = 1;
    if (!r->grid) return OK;
    if (r->grid->kind != YAML_MAP || !r->grid->first)
        return refuse(r, r->grid, "grid: expected keys with lists of values, as {train.tokens: [1M, 2M]}");
    for (const yaml_node *x = r->grid->first; x; x = x->next) {
        if (!config_find_key(x->name))
            return refuse(r, x, "no key '%s'%s", x->name, did_you_mean(r->e->arena, x->name));
        if (word_in(seed_keys, x->name)) return refuse(r, x, no_seed, x->name);
        if (x->kind != YAML_LIST || !x->count)
            return refuse(r, x, "grid: %s: expected a list of values", x->name);
        TRY(mul_i64(*points, x->count, points));
        if (*points > MOST_ARMS) return refuse(r, x, "grid: more than %d points", MOST_ARMS);
    }
    return OK;
}

/* The POINT-th point of the grid (the last key fastest) into SET; its words into LABEL. */
static void add_point(const reader *r, i64 point, settings *set, text *label)
{
    i64 below = 1;
    for (const yaml_node *x = r->grid->first; x; x = x->next) below *= x->count;
    for (const yaml_node *x = r->grid->first; x; x = x->next) {
        below /= x->count;
        const yaml_node *v = x->first;
        for (i64 i = point / below % x->count; i > 0; i--) v = v->next;
        const char *value = value_text(r->e->arena, v);
        put(r->e->arena, set, x->name, value);
        text_add(label, "%s%s=%s", label->bytes ? " " : "", x->name, value);
    }
}

static status add_arm(reader *r, const yaml_node *node, i64 point)
{
    experiment *e = r->e;
    lab_arm *arm = &e->arms[e->n_arms];
    settings set = {0};
    text label = {0};
    if (r->grid) add_point(r, point, &set, &label);
    arm->point = arena_strdup(e->arena, label.data ? label.data : "");
    text_free(&label);
    arm->family = node ? arena_strdup(e->arena, node->name) : arm->point;
    arm->name = !node              ? arm->point
                : *arm->point == 0 ? arm->family
                                   : arena_printf(e->arena, "%s, %s", arm->family, arm->point);
    if (node && !(node->kind == YAML_SCALAR && !*node->text)) TRY(read_settings(r, node, "", &set));
    arm->set = set.item;
    arm->n_set = set.n;
    e->n_arms++;
    return OK;
}

static status pair_arms(const reader *r, const yaml_node *root)
{
    experiment *e = r->e;
    for (i64 i = 0; i < e->n_arms; i++) {
        e->arms[i].baseline = -1;
        for (i64 k = 0; k < e->n_arms && e->arms[i].baseline < 0; k++)
            if (!strcmp(e->arms[k].family, r->baseline) &&
                (!r->arms || !strcmp(e->arms[k].point, e->arms[i].point)))
                e->arms[i].baseline = k;
        if (e->arms[i].baseline >= 0) continue;
        text names = {0};
        for (i64 k = 0; k < MIN(e->n_arms, (i64)12); k++)
            text_add(&names, "%s'%s'", k ? ", " : "", r->arms ? e->arms[k].family : e->arms[k].name);
        status s = refuse(r, root, "baseline: no arm '%s'; there are: %s", r->baseline, names.data);
        text_free(&names);
        return s;
    }
    return OK;
}

static status make_arms(reader *r, const yaml_node *root)
{
    experiment *e = r->e;
    i64 points, n = 1, all;
    TRY(check_grid(r, &points));
    if (!r->arms && !r->grid) return refuse(r, root, "has neither arms nor a grid: nothing is compared");
    if (r->arms) {
        if (r->arms->kind != YAML_MAP || !r->arms->first)
            return refuse(r, r->arms, "arms: expected a map of names and settings");
        n = r->arms->count;
        for (const yaml_node *x = r->arms->first; x; x = x->next)
            if (!*x->name || strpbrk(x->name, "|\n\r"))
                return refuse(r, x, "arms: not a name: '%s'", x->name);
    }
    TRY(mul_i64(n, points, &all));
    if (all > MOST_ARMS) return refuse(r, root, "%lld arms; at most %d", (long long)all, MOST_ARMS);
    e->arms = arena_array(e->arena, lab_arm, all);
    for (i64 p = 0; p < points; p++) {
        const yaml_node *x = r->arms ? r->arms->first : NULL;
        do {
            TRY(add_arm(r, x, p));
            if (x) x = x->next;
        } while (x);
    }
    if (all < 2) return refuse(r, root, "has one arm: nothing to compare it with");
    if (!r->baseline) return refuse(r, root, "names no baseline: which arm are the others compared with?");
    return pair_arms(r, root);
}

/* ---- the whole file */

static const lab_setting *setting_of(const lab_setting *set, i64 n, const char *key)
{
    for (i64 i = 0; i < n; i++)
        if (same_setting(set[i].key, key)) return &set[i];
    return NULL;
}

static status check_tune(const reader *r)
{
    const experiment *e = r->e;
    for (i64 i = 0; e->n_values && i < e->n_arms; i++)
        if (setting_of(e->arms[i].set, e->arms[i].n_set, e->tune_key))
            return fail(ERR_CONFIG, "%s: arm '%s' sets %s, which the experiment tunes", r->path,
                        e->arms[i].name, e->tune_key);
    return OK;
}

static status read_all(reader *r, const yaml_node *root)
{
    experiment *e = r->e;
    settings set = {0};
    const yaml_node *scales = NULL;
    if (root->kind != YAML_MAP) return refuse(r, root, "expected a map of keys");
    for (const yaml_node *x = root->first; x; x = x->next) {
        TRY(read_entry(r, x, &set, false));
        if (!strcmp(x->name, "scales")) scales = x;
    }
    if (scales)
        TRY(read_scale(r, scales, &set));
    else if (e->scale)
        return refuse(r, root, "has no scales, so no '%s'", e->scale);
    e->set = set.item;
    e->n_set = set.n;
    if (!e->title) e->title = e->name;
    if (e->base && *e->base != '/') {
        const char *slash = strrchr(e->path, '/');
        if (slash) e->base = arena_printf(e->arena, "%.*s/%s", (int)(slash - e->path), e->path, e->base);
    }
    TRY(make_arms(r, root));
    return check_tune(r);
}

status experiment_load(const char *path, const char *scale, experiment **out)
{
    arena *a;
    char *data = NULL;
    size_t bytes;
    yaml_node *root;
    TRY(arena_open(&a));
    experiment *e = arena_new(a, experiment);
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *end = strrchr(base, '.');
    int bytes_of_name = (int)(end && end > base ? (size_t)(end - base) : strlen(base));
    *e = (experiment){.arena = a,
                      .path = arena_strdup(a, path),
                      .name = arena_printf(a, "%.*s", bytes_of_name, base),
                      .scale = scale,
                      .overrides = "",
                      .seeds = {1, 2, 3},
                      .n_seeds = 3,
                      .match_multiple = 1};
    reader r = {.e = e, .path = e->path};
    status s = file_read(path, &data, &bytes);
    if (!s) s = yaml_read(a, e->path, true, data, bytes, &root);
    if (!s) s = read_all(&r, root);
    mem_free(data);
    if (s)
        arena_close(a);
    else
        *out = e;
    return s;
}

void experiment_settings(arena *a, const experiment *e, i64 arm, const lab_setting *more, i64 n_more,
                         lab_setting **out, i64 *n)
{
    settings set = {0};
    for (i64 i = 0; i < e->n_set; i++) put(a, &set, e->set[i].key, e->set[i].value);
    for (i64 i = 0; i < e->arms[arm].n_set; i++)
        put(a, &set, e->arms[arm].set[i].key, e->arms[arm].set[i].value);
    for (i64 i = 0; i < n_more; i++) put(a, &set, more[i].key, more[i].value);
    *out = set.item;
    *n = set.n;
}

void experiment_close(experiment *e)
{
    if (e) arena_close(e->arena);
}

status experiment_override(experiment *e, const char *word)
{
    const char *equals = strchr(word, '=');
    if (!equals || equals == word) return fail(ERR_USAGE, "'%s': expected KEY=VALUE", word);
    const char *key = arena_printf(e->arena, "%.*s", (int)(equals - word), word);
    if (!config_find_key(key))
        return fail(ERR_CONFIG, "command line: no key '%s'%s", key, did_you_mean(e->arena, key));
    bool taken = (e->n_values && same_setting(key, e->tune_key)) || word_in(seed_keys, key);
    for (i64 i = 0; i < e->n_arms; i++) taken |= setting_of(e->arms[i].set, e->arms[i].n_set, key) != NULL;
    if (taken)
        return fail(ERR_CONFIG, "command line: %s is what %s varies; change the file instead", key, e->path);
    settings set = {.item = e->set, .n = e->n_set, .room = e->n_set};
    put(e->arena, &set, key, arena_strdup(e->arena, equals + 1));
    e->overrides = arena_printf(e->arena, "%s %s", e->overrides, word);
    e->set = set.item;
    e->n_set = set.n;
    return OK;
}
