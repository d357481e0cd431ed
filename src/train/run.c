/* Beginning and ending a run: folder, identity, length, resumption, registry. See trainer.h. */
#include "train/run.h"
#include "base/file.h"
#include "base/text.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>
#ifndef KEEL_VERSION
#define KEEL_VERSION "0.1.0"
#endif

static void talk_of_checkpoints(void *context, const char *line) { say(context, "%s", line); }

/* Hash of configuration as given, data and tokenizer: equal identities compute equal runs. */
static void identify(const trainer *t, char out[17])
{
    u64 parts[] = {config_hash(t->c), dataset_hash(t->data), dataset_tokenizer_hash(t->data)};
    snprintf(out, 17, "%016llx", (unsigned long long)XXH3_64bits(parts, sizeof parts));
}

static status write_config(const trainer *t)
{
    char path[PATH_MAX];
    file_writer *w;
    text yaml = {0};
    config_write(t->c, &yaml);
    snprintf(path, sizeof path, "%s/config.yaml", t->o->out);
    status s = file_create(path, &w);
    if (!s) s = file_write(w, yaml.data, yaml.bytes);
    if (!s) s = file_commit(w);
    text_free(&yaml);
    return s;
}

/* ---- length */

static status set_steps(trainer *t, i64 steps)
{
    static const char *const others[] = {"train.tokens", "train.epochs", "train.time"};
    char number[32];
    for (int k = 0; k < COUNT(others); k++) TRY(config_set(t->c, others[k], "none", "the run's length"));
    snprintf(number, sizeof number, "%lld", (long long)steps);
    return config_set(t->c, "train.steps", number, "the run's length");
}

static status choose_length(trainer *t)
{
    budget b;
    double tokens = (double)(t->s->batch_rows * t->s->context), seconds;
    TRY(config_budget(t->c, &b));
    if (b.kind == BUDGET_TIME) {
        say(t, "timing 20 steps to fix the length of the run ...");
        TRY(time_steps(t, &seconds));
        t->steps = (i64)fmax(1, b.value / seconds);
        say(t, "a step takes %.0f ms: %lld steps in the time given", seconds * 1e3, (long long)t->steps);
    } else if (b.kind == BUDGET_STEPS)
        t->steps = (i64)b.value;
    else if (b.kind == BUDGET_TOKENS)
        t->steps = (i64)fmax(1, round(b.value / tokens));
    else
        t->steps =
            (i64)fmax(1, round(b.value * (double)loader_samples(t->loader) / (double)t->s->batch_rows));
    return set_steps(t, t->steps);
}

static status read_spans(trainer *t)
{
    i64 tokens = t->s->batch_rows * t->s->context;
    t->save_every = config_span(t->c, "train.checkpoint.every", t->steps, tokens);
    t->evaluate_every = config_span(t->c, "train.evaluate.every", t->steps, tokens);
    t->n_milestones = MIN(config_items(t->c, "train.checkpoint.milestones"), COUNT(t->milestones));
    for (i64 i = 0; i < t->n_milestones; i++)
        t->milestones[i] =
            span_steps(config_item(t->c, "train.checkpoint.milestones", i, "at"), t->steps, tokens);
    return schedule_from(t->c, t->steps, tokens, &t->schedule);
}

/* ---- beginning */

static void print_plan(const trainer *t)
{
    const session_memory *m = &t->s->memory;
    char p[32], g[32], o[32], a[32], e[32], all[32], n[32];
    say(t, "model: %s parameters, %s a step (%lld sequences of %lld tokens, %lld at a time), %s",
        show_count((double)t->s->figures.parameters, p), "tokens", (long long)t->s->batch_rows,
        (long long)t->s->context, (long long)t->s->micro_rows, dtype_name(t->s->act));
    say(t, "memory: parameters %s, gradients %s, optimizer %s, activations %s, evaluation %s; %s in all",
        show_bytes((double)m->parameters, p), show_bytes((double)m->gradients, g),
        show_bytes((double)m->optimizer, o), show_bytes((double)m->activations, a),
        show_bytes((double)m->evaluation, e), show_bytes((double)m->total, all));
    (void)n;
}

static status open_parts(trainer *t)
{
    session_options so = {.isa = t->o->isa, .no_fuse = t->o->no_fuse};
    loader_options lo;
    TRY(session_open(t->c, t->o->device, &so, &t->s));
    print_plan(t);
    session_start(t->s);
    lo = loader_for(t->c, t->s->batch_rows, true);
    TRY(loader_open(t->data, DATA_TRAIN, &lo, &t->loader));
    TRY(batch_open(t->s->batch_rows, t->s->context, &t->batch));
    TRY(peak_probe_open(t->o->device, t->s->act == DT_BF16 ? GEMM_BF16 : GEMM_F32, &t->peak));
    for (int k = 0; k < 5; k++) t->peak_gflops = MAX(t->peak_gflops, peak_probe_time(t->peak));
    if (t->o->profile) program_profile(t->s->train_program, true);
    return OK;
}

static status resume_from(trainer *t, const char *path)
{
    char identity[17];
    memcpy(identity, t->state.identity, sizeof identity);
    TRY(load_session(t->s, path, true, &t->state));
    if (strcmp(identity, t->state.identity))
        return fail(ERR_CONFIG,
                    "%s was trained with another configuration or other data (identity %s, now %s); "
                    "give the same ones, or another --out",
                    path, t->state.identity, identity);
    const char *level = isa_name(t->o->isa);
    if (strcmp(t->state.code, KEEL_VERSION) || strcmp(t->state.isa, level) ||
        t->state.threads != device_about(t->o->device)->threads)
        say(t,
            "warning: the run was saved by keel %s, %s, %lld threads; this is %s, %s, %lld: bits may differ",
            t->state.code, t->state.isa, (long long)t->state.threads, KEEL_VERSION, level,
            (long long)device_about(t->o->device)->threads);
    TRY(loader_seek(t->loader, t->state.position));
    t->saved_at = t->evaluated_at = t->state.step;
    say(t, "resuming from %s", path);
    return OK;
}

/* A resumed run goes on with the configuration it resolved then (its number of steps above all). */
static status find_checkpoint(trainer *t, char **path)
{
    i64 step;
    *path = NULL;
    if (!t->o->resume) return OK;
    TRY(checkpoint_latest(t->o->out, talk_of_checkpoints, t, path, &step));
    if (!*path) {
        say(t, "%s holds no checkpoint yet: starting afresh", t->o->out);
        return OK;
    }
    char file[PATH_MAX];
    config *saved;
    snprintf(file, sizeof file, "%s/config.yaml", *path);
    TRY(config_load(file, NULL, 0, &saved));
    budget b;
    status s = config_budget(saved, &b);
    t->steps = b.kind == BUDGET_STEPS ? (i64)b.value : 0;
    config_close(saved);
    return s;
}

static status refuse_occupied(const trainer *t)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/config.yaml", t->o->out);
    if (t->o->resume || !path_exists(path)) return OK;
    return fail(ERR_INPUT, "%s holds a run already; go on with it by --resume, or choose another --out",
                t->o->out);
}

static status begin(trainer *t)
{
    char *path;
    TRY(refuse_occupied(t));
    identify(t, t->state.identity);
    checkpoint_options co = {
        .keep = config_count(t->c, "train.checkpoint.keep"), .talk = talk_of_checkpoints, .talk_context = t};
    TRY(open_parts(t));
    TRY(dir_make(t->o->out));
    TRY(find_checkpoint(t, &path));
    status s = t->steps ? set_steps(t, t->steps) : choose_length(t);
    if (!s) s = read_spans(t);
    if (!s) {
        co.milestones = t->milestones;
        co.n_milestones = t->n_milestones;
        s = checkpoint_open(t->o->out, &co, &t->checkpoints);
    }
    if (!s && path) s = resume_from(t, path);
    free(path);
    if (!s) s = write_config(t);
    if (s) return s;
    char log[PATH_MAX];
    snprintf(log, sizeof log, "%s/metrics.jsonl", t->o->out);
    snprintf(t->state.code, sizeof t->state.code, "%s", KEEL_VERSION);
    snprintf(t->state.isa, sizeof t->state.isa, "%s", isa_name(t->o->isa));
    t->state.threads = device_about(t->o->device)->threads;
    return metrics_open(log, t->state.metrics_offset, &t->log);
}

/* ---- the registry: never a reason to stop */

static void warn(trainer *t, status s)
{
    if (s) say(t, "warning: %s", s->message);
    status_drop(s);
}

static registry_run as_registered(const trainer *t, const char *folder, const char *yaml, const char *how)
{
    const char *slash = strrchr(folder, '/');
    return (registry_run){.name = t->o->name ? t->o->name
                                  : slash    ? slash + 1
                                             : folder,
                          .folder = folder,
                          .identity = t->state.identity,
                          .config = yaml,
                          .code = KEEL_VERSION,
                          .isa = isa_name(t->o->isa),
                          .libraries = "oneDNN",
                          .host = device_about(t->o->device)->cpu,
                          .status = how,
                          .threads = device_about(t->o->device)->threads,
                          .started = (i64)time(NULL),
                          .ended = (i64)time(NULL),
                          .steps = t->state.step,
                          .tokens = t->state.tokens_seen,
                          .loss = t->result->loss,
                          .bits_per_byte = t->result->bits_per_byte};
}

static void with_registry(trainer *t, const char *how)
{
    text yaml = {0};
    char folder[PATH_MAX];
    if (!realpath(t->o->out, folder)) snprintf(folder, sizeof folder, "%s", t->o->out);
    config_write(t->c, &yaml);
    registry_run r = as_registered(t, folder, yaml.data, how);
    if (!strcmp(how, "running")) {
        warn(t, registry_open(NULL, REGISTRY_WRITE, &t->registry));
        warn(t, registry_begin(t->registry, &r, t->result->id));
    } else
        warn(t, registry_end(t->registry, t->result->id, &r));
    text_free(&yaml);
}

static const char *how_it_ended(status s)
{
    return !s ? "done" : s->code == ERR_STOPPED ? "stopped" : s->code == ERR_NUMERIC ? "diverged" : "failed";
}

static status finish(trainer *t, status s)
{
    t->result->step = t->state.step;
    t->result->tokens_seen = t->state.tokens_seen;
    t->result->seconds = t->state.seconds;
    if (t->registry || t->log) with_registry(t, how_it_ended(s));
    metrics_close(t->log);
    registry_close(t->registry);
    if (t->checkpoints) {
        status last = checkpoint_close(t->checkpoints);
        if (s)
            status_drop(last);
        else
            s = last;
    }
    peak_probe_close(t->peak);
    batch_close(&t->batch);
    loader_close(t->loader);
    session_close(t->s);
    return s;
}

status train_run(config *c, const dataset *d, const train_options *o, train_result *result)
{
    trainer t = {.c = c, .data = d, .o = o, .result = result, .saved_at = -1, .evaluated_at = -1};
    *result = (train_result){.loss = NAN, .bits_per_byte = NAN, .perplexity = NAN};
    status s = begin(&t);
    if (!s) {
        with_registry(&t, "running");
        s = train_loop(&t);
    }
    return finish(&t, s);
}
