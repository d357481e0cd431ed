/* From an experiment to its runs: see plan.h. */
#include "lab/plan_parts.h"
#include "base/file.h"
#include "lab/table.h"
#include "train/corpus.h"
#include "train/dial.h"
#include "train/identity.h"
#include "train/registry.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

void plan_say(const lab_plan *p, const char *format, ...)
{
    char line[512];
    va_list args;
    if (!p->o.talk) return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    p->o.talk(p->o.context, line);
}

/* ---- data */

static u64 data_key(const config *c)
{
    text all = {0};
    key_list keys;
    config_keys(&keys);
    for (i64 i = 0; i < keys.n; i++)
        if (!strncmp(keys.rows[i]->path, "data.", 5) && !strstr(keys.rows[i]->path, "[]"))
            text_add(&all, "%s=%s\n", keys.rows[i]->path, identity_value(c, keys.rows[i]->path));
    for (i64 i = 0; i < config_items(c, "data.train"); i++)
        text_add(&all, "%s %s\n", config_item(c, "data.train", i, "path"),
                 config_item(c, "data.train", i, "weight"));
    u64 key = XXH3_64bits(all.data, all.bytes);
    text_free(&all);
    return key;
}

static status open_shards(lab_plan *p, config *c, lab_shards **out)
{
    u64 key = data_key(c);
    for (lab_shards *s = p->shards; s; s = s->next)
        if (s->key == key) {
            *out = s;
            return OK;
        }
    lab_shards *s = arena_new(p->arena, lab_shards);
    const char *cache = arena_printf(p->arena, "%s/data-%016llx", p->o.root, (unsigned long long)key);
    TRY(dir_make(cache));
    TRY(corpus_open(c, &(corpus_options){.cache = cache, .talk = p->o.talk, .context = p->o.context},
                    &s->data));
    s->key = key;
    s->folder = arena_strdup(p->arena, dataset_folder(s->data));
    s->next = p->shards;
    p->shards = s;
    *out = s;
    return OK;
}

/* ---- configurations */

static const char **as_words(arena *a, const lab_setting *set, i64 n)
{
    const char **words = arena_array(a, const char *, n + 1);
    for (i64 i = 0; i < n; i++) words[i] = arena_printf(a, "%s=%s", set[i].key, set[i].value);
    return words;
}

status plan_config(lab_plan *p, i64 arm, const lab_setting *more, i64 n_more, config **out,
                   const char ***words, i64 *n_words, u64 *data)
{
    lab_setting *set, last[MOST_SEEDS];
    lab_shards *shards;
    i64 n, m = 0;
    for (i64 i = 0; i < n_more; i++) last[m++] = more[i];
    if (p->matched[arm]) last[m++] = (lab_setting){p->e->match_key, p->matched[arm]};
    experiment_settings(p->arena, p->e, arm, last, m, &set, &n);
    const char **w = as_words(p->arena, set, n);
    TRY(wrap(config_load(p->e->base, w, n, out), "arm '%s'", p->e->arms[arm].name));
    status s = open_shards(p, *out, &shards);
    config_close(*out);
    if (s) return wrap(s, "arm '%s'", p->e->arms[arm].name);
    last[m++] = (lab_setting){"data.train", shards->folder}; // made once, not by every run
    experiment_settings(p->arena, p->e, arm, last, m, &set, &n);
    w = as_words(p->arena, set, n);
    TRY(config_load(p->e->base, w, n, out));
    s = dial_apply(*out, p->o.device, NULL, NULL);
    if (!s) s = corpus_fit(*out, shards->data);
    if (s) {
        config_close(*out);
        return wrap(s, "arm '%s'", p->e->arms[arm].name);
    }
    if (words) *words = w, *n_words = n;
    if (data) *data = dataset_hash(shards->data);
    return OK;
}

status plan_figures(lab_plan *p, config *c, model_figures *out)
{
    session *s;
    TRY(session_open(c, p->o.device, &(session_options){.isa = p->o.isa, .plan_only = true}, &s));
    *out = s->figures;
    p->most_memory = fmax(p->most_memory, (double)s->memory.total);
    session_close(s);
    return OK;
}

status plan_size(lab_plan *p, config *c, i64 *steps, double *flops, double *seconds)
{
    budget b;
    model_figures f;
    double batch = (double)config_count(c, "train.batch_tokens"), tokens = 0;
    *steps = 0;
    *flops = *seconds = 0;
    TRY(config_budget(c, &b));
    TRY(plan_figures(p, c, &f));
    if (b.kind == BUDGET_TIME) {
        *seconds = b.value;
        return OK;
    }
    if (b.kind == BUDGET_EPOCHS)
        return config_refuse(c, "train.epochs",
                             "is no budget for an experiment; give train.tokens or train.steps");
    tokens = b.kind == BUDGET_TOKENS  ? b.value
             : b.kind == BUDGET_STEPS ? b.value * batch
                                      : b.value / f.flops_per_token;
    *steps = MAX((i64)(tokens / batch + 0.5), 1);
    *flops = (double)*steps * batch * f.flops_per_token;
    return OK;
}

static status check_length(const lab_plan *p, config *c, i64 arm, i64 steps)
{
    if (!steps) return OK;
    i64 warm = config_span(c, "train.schedule.warmup", steps, config_count(c, "train.batch_tokens"));
    if (warm < steps) return OK;
    return fail(
        ERR_CONFIG,
        "%s: arm '%s': the warm-up of %lld steps (train.schedule.warmup) is as long as the run, %lld; "
        "give it more tokens, or shorten the warm-up",
        p->e->path, p->e->arms[arm].name, (long long)warm, (long long)steps);
}

/* ---- runs */

static const char *slug(arena *a, const char *name)
{
    char *out = arena_strdup(a, name), *to = out;
    for (const char *c = name; *c && to - out < 60; c++) {
        bool word = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
                    (*c == '.' && to > out);
        if (word)
            *to++ = *c;
        else if (to > out && to[-1] != '-')
            *to++ = '-';
    }
    *to = 0;
    return out;
}

static const char *short_key(const char *key)
{
    const char *dot = strrchr(key, '.');
    return dot ? dot + 1 : key;
}

static const char *settings_text(arena *a, const char **words, i64 n)
{
    text t = {0};
    for (i64 i = 0; i < n; i++)
        if (strncmp(words[i], "data.train=", 11)) text_add(&t, "%s%s", t.bytes ? " " : "", words[i]);
    const char *kept = arena_strdup(a, t.data ? t.data : "");
    text_free(&t);
    return kept;
}

static lab_job *new_job(lab_plan *p)
{
    if (p->n_jobs == p->room) {
        lab_job *grown = arena_array(p->arena, lab_job, p->room = 2 * p->room + 64);
        if (p->n_jobs) memcpy(grown, p->jobs, (size_t)p->n_jobs * sizeof *grown);
        p->jobs = grown;
    }
    p->jobs[p->n_jobs] = (lab_job){0};
    return &p->jobs[p->n_jobs];
}

static lab_job *find_job(const lab_plan *p, i64 arm, i64 value, i64 seed)
{
    for (i64 i = 0; i < p->n_jobs; i++)
        if (p->jobs[i].arm == arm && p->jobs[i].value == value && p->jobs[i].seed == seed) return &p->jobs[i];
    return NULL;
}

static status fill_job(lab_plan *p, lab_job *j)
{
    const experiment *e = p->e;
    arena *a = p->arena;
    i64 seed = e->seeds[j->seed], n = 2, steps;
    const char *number = arena_printf(a, "%lld", (long long)seed);
    const char *value = j->value >= 0 ? e->tune_values[j->value] : "";
    lab_setting more[3] = {{"train.seed.init", number}, {"train.seed.data", number}, {e->tune_key, value}};
    config *c;
    u64 data;
    if (j->value >= 0) n = 3;
    TRY(plan_config(p, j->arm, more, n, &c, &j->words, &j->n_words, &data));
    status s = plan_size(p, c, &steps, &j->flops, &j->seconds);
    if (!s) s = check_length(p, c, j->arm, steps);
    unsigned long long identity = identity_of(c, data);
    config_close(c);
    if (s) return wrap(s, "arm '%s'", e->arms[j->arm].name);
    const char *arm = e->arms[j->arm].name;
    const char *tuned = j->value >= 0 ? arena_printf(a, ", %s=%s", short_key(e->tune_key), value) : "";
    j->label = arena_printf(a, "%s%s, seed %s", arm, tuned, number);
    j->folder = arena_printf(a, "%s/%s-%016llx", p->folder, slug(a, j->label), identity);
    j->result = (lab_result){.experiment = e->name,
                             .scale = e->scale ? e->scale : "",
                             .arm = arm,
                             .value = value,
                             .identity = arena_printf(a, "%016llx", identity),
                             .settings = settings_text(a, j->words, j->n_words),
                             .seed = seed,
                             .message = ""};
    return OK;
}

/* Two arms that are one configuration would be compared with themselves. */
static status check_distinct(const lab_plan *p, const lab_job *j)
{
    for (const lab_job *k = p->jobs; k < j; k++)
        if (!strcmp(k->result.identity, j->result.identity))
            return fail(ERR_CONFIG,
                        "%s: '%s' and '%s' are the same configuration: what varies changes nothing",
                        p->e->path, k->label, j->label);
    return OK;
}

/* ---- what is known already */

/* What the results written last say of the run that R is read from; NULL: it was not one of this experiment.
 */
static const lab_result *result_before(const lab_plan *p, const lab_result *r)
{
    for (i64 i = 0; i < p->before.n; i++) {
        const lab_result *x = &p->before.item[i];
        if (!strcmp(x->identity, r->identity) && !strcmp(x->run, r->run) && !strcmp(x->code, r->code))
            return x;
    }
    return NULL;
}

static status look_into(lab_plan *p, lab_job *j, const char *folder)
{
    lab_result r = j->result;
    status s = result_of_run(p->arena, folder, &r);
    if (s) { // no run there, or none that can be read: it will be run
        status_drop(s);
        return OK;
    }
    if (strcmp(r.status, "done") && strcmp(r.status, "diverged")) return OK;
    const lab_result *before = result_before(p, &r);
    if (before) {
        r.session = before->session;
        r.layers = before->layers;
        r.n_layers = before->n_layers;
    }
    if (p->e->layers && result_is(&r, "done") && !r.n_layers)
        return OK; // it was not asked what this one asks
    j->result = r;
    j->known = true;
    j->folder = folder;
    return OK;
}

static status look_up(lab_plan *p, lab_job *j, const registry_run *runs, i64 n)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/summary.json", j->folder);
    if (path_exists(path)) TRY(look_into(p, j, j->folder));
    for (i64 i = 0; i < n && !j->result.status; i++)
        if (!strcmp(runs[i].identity, j->result.identity) &&
            (!strcmp(runs[i].status, "done") || !strcmp(runs[i].status, "diverged")) &&
            path_is_dir(runs[i].folder))
            TRY(look_into(p, j, runs[i].folder));
    return OK;
}

static status look_up_all(lab_plan *p, i64 from)
{
    registry *r = NULL;
    registry_run *runs = NULL;
    i64 n = 0;
    if (p->o.again) return OK;
    status s = registry_open(NULL, REGISTRY_READ, &r);
    if (!s && r) s = registry_list(r, p->arena, &runs, &n);
    if (s) plan_say(p, "warning: the registry is not read: %s", s->message);
    status_drop(s);
    s = OK;
    for (i64 i = from; i < p->n_jobs && !s; i++) s = look_up(p, &p->jobs[i], runs, n);
    registry_close(r);
    return s;
}

/* ---- stages */

static status add_job(lab_plan *p, i64 arm, i64 value, i64 seed)
{
    lab_job *j = new_job(p);
    *j = (lab_job){.arm = arm, .value = value, .seed = seed};
    TRY(fill_job(p, j));
    TRY(check_distinct(p, j));
    p->n_jobs++;
    return OK;
}

/* By seeds first: what drifts with time (the machine's clock) then falls on all arms alike. */
static status add_stage(lab_plan *p, bool first, i64 *added)
{
    const experiment *e = p->e;
    i64 before = p->n_jobs;
    for (i64 seed = 0; seed < e->n_seeds; seed++)
        for (i64 arm = 0; arm < e->n_arms; arm++) {
            if (first && e->n_values && !seed)
                for (i64 v = 0; v < e->n_values; v++) TRY(add_job(p, arm, v, seed));
            else if (first && e->n_values && e->tune_all_seeds)
                for (i64 v = 0; v < e->n_values; v++) TRY(add_job(p, arm, v, seed));
            else if (first && !e->n_values)
                TRY(add_job(p, arm, -1, seed));
            else if (!first && seed && p->chosen[arm] >= 0 && !find_job(p, arm, p->chosen[arm], seed))
                TRY(add_job(p, arm, p->chosen[arm], seed));
        }
    *added = p->n_jobs - before;
    return look_up_all(p, before);
}

/* The value that the most seeds finished with, of those the one of the lowest mean. */
static i64 best_value(const lab_plan *p, i64 arm)
{
    const experiment *e = p->e;
    double least = INFINITY;
    i64 best = -1, most = 1;
    for (i64 v = 0; v < e->n_values; v++) {
        double bits[MOST_SEEDS];
        i64 n = 0, all = e->tune_all_seeds ? e->n_seeds : 1;
        for (i64 s = 0; s < all; s++) {
            const lab_job *j = find_job(p, arm, v, s);
            if (j && result_is(&j->result, "done") && isfinite(j->result.bits_per_byte))
                bits[n++] = j->result.bits_per_byte;
        }
        double mean = lab_mean_of(bits, n).mean;
        if (n > most || (n == most && mean < least)) most = n, least = mean, best = v;
    }
    return best;
}

status lab_plan_extend(lab_plan *p, i64 *added)
{
    *added = 0;
    if (!p->e->n_values) return OK;
    p->extended = true;
    for (i64 arm = 0; arm < p->e->n_arms; arm++) p->chosen[arm] = best_value(p, arm);
    return add_stage(p, false, added);
}

void lab_plan_count(const lab_plan *p, i64 *all, i64 *known)
{
    const experiment *e = p->e;
    *known = 0;
    for (i64 i = 0; i < p->n_jobs; i++) *known += p->jobs[i].result.status != NULL;
    if (!e->n_values)
        *all = e->n_arms * e->n_seeds;
    else
        *all = e->n_arms * (e->tune_all_seeds ? e->n_values * e->n_seeds : e->n_values + e->n_seeds - 1);
    *all = p->extended ? p->n_jobs : MAX(*all, p->n_jobs); // an arm that always diverged is not gone on with
}

void lab_plan_fit(lab_plan *p)
{
    double there = session_memory_there();
    i64 fit = MAX((i64)(0.9 * there / fmax(p->most_memory, 1)), (i64)1);
    char most[32], have[32];
    if (there <= 0 || fit >= p->o.jobs) return;
    plan_say(p, "%lld runs at a time, not %lld: one takes up to %s, and there are %s", (long long)fit,
             (long long)p->o.jobs, show_bytes(p->most_memory, most), show_bytes(there, have));
    p->o.jobs = fit;
}

status lab_plan_save(const lab_plan *p)
{
    const lab_result **list = arena_array(p->arena, const lab_result *, p->n_jobs + 1);
    i64 n = 0;
    for (i64 i = 0; i < p->n_jobs; i++)
        if (p->jobs[i].result.status) list[n++] = &p->jobs[i].result;
    return results_write(lab_results_path(p), list, n);
}

const char *lab_results_path(const lab_plan *p)
{
    return arena_printf(p->arena, "%s/results.jsonl", p->folder);
}

status lab_plan_open(const experiment *e, const lab_options *o, lab_plan **out)
{
    arena *a;
    i64 added;
    TRY(arena_open(&a));
    lab_plan *p = arena_new(a, lab_plan);
    *p = (lab_plan){.arena = a, .e = e, .o = *o, .session = (i64)time(NULL)};
    p->folder = e->scale ? arena_printf(a, "%s/%s-%s", o->root, e->name, e->scale)
                         : arena_printf(a, "%s/%s", o->root, e->name);
    p->chosen = arena_array(a, i64, e->n_arms);
    p->matched = arena_array(a, const char *, e->n_arms);
    p->match_ratio = arena_array(a, double, e->n_arms);
    for (i64 i = 0; i < e->n_arms; i++) p->chosen[i] = -1, p->match_ratio[i] = NAN;
    status s = dir_make(p->folder);
    if (!s && path_exists(lab_results_path(p))) {
        status damaged = results_read(a, lab_results_path(p), &p->before);
        if (damaged) plan_say(p, "warning: %s", damaged->message), p->before.n = 0;
        status_drop(damaged);
    }
    if (!s) s = plan_match(p);
    if (!s) s = add_stage(p, true, &added);
    i64 all, known;
    lab_plan_count(p, &all, &known);
    if (!s && known == p->n_jobs) s = lab_plan_extend(p, &added);
    if (s)
        lab_plan_close(p);
    else
        *out = p;
    return s;
}

void lab_plan_close(lab_plan *p)
{
    if (!p) return;
    for (lab_shards *s = p->shards; s; s = s->next) dataset_close(s->data);
    arena_close(p->arena);
}
