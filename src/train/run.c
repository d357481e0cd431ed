/* Beginning and ending a run: folder, identity, resumption, length. See trainer.h.
 *
 * The order of beginning matters: the folder is locked before anything is read from it; a checkpoint is
 * found, and held against the configuration and data given now, before memory is taken; the peak is measured
 * before the model's memory is, so that the two never add up. */
#include "train/run.h"
#include "base/file.h"
#include "device/peak.h"
#include "train/corpus.h"
#include "train/identity.h"
#include "train/profile.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void talk_of_checkpoints(void *context, const char *line) { say(context, "%s", line); }

static status write_yaml(const trainer *t, const char *name, const text *yaml)
{
    char path[PATH_MAX];
    file_writer *w;
    snprintf(path, sizeof path, "%s/%s", t->o->out, name);
    TRY(file_create(path, &w));
    TRY(file_write(w, yaml->data, yaml->bytes));
    return file_commit(w);
}

static status write_configs(const trainer *t)
{
    text yaml = {0};
    config_write(t->c, &yaml);
    status s = write_yaml(t, "given.yaml", &t->given);
    if (!s) s = write_yaml(t, "config.yaml", &yaml);
    text_free(&yaml);
    return s;
}

/* ---- length */

static status set_steps(trainer *t, i64 steps)
{
    static const char *const others[] = {"train.tokens", "train.epochs", "train.time", "train.flops"};
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
        say(t, "timing steps to fix the length of the run ...");
        TRY(time_steps(t, b.value, &seconds));
        t->steps = ramp_steps(&t->ramp, b.value / seconds * tokens);
        say(t, "a step takes %.0f ms: %lld steps in the time given (evaluating and saving come on top)",
            seconds * 1e3, (long long)t->steps);
    } else if (b.kind == BUDGET_STEPS)
        t->steps = (i64)b.value;
    else if (b.kind == BUDGET_FLOPS)
        t->steps = ramp_steps(&t->ramp, b.value / t->s->figures.flops_per_token);
    else if (b.kind == BUDGET_TOKENS)
        t->steps = ramp_steps(&t->ramp, b.value);
    else
        t->steps = ramp_steps(&t->ramp, b.value * (double)loader_samples(t->loader) * (double)t->s->context);
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
    t->s->optimizer.steps = t->steps;
    t->s->optimizer.tokens_per_step = tokens;
    TRY(average_open(t->c, t->s->store, t->o->out, t->steps, tokens, &t->average));
    return schedule_from(t->c, ramp_progress(&t->ramp, t->steps - 1) + 1, tokens, &t->schedule);
}

/* ---- resuming */

static status read_yaml(const char *folder, const char *name, config **out)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return config_load(path, NULL, 0, out);
}

/* The number of steps that the run in FOLDER (a checkpoint, or the run's own folder) resolved, if it is of
 * the configuration T has, as given or as resolved then; else *differs is the first key that is not the same.
 */
static status recall_steps(const trainer *t, const char *folder, i64 *steps, const char **differs, text *was)
{
    config *given, *resolved;
    budget b;
    TRY(read_yaml(folder, "given.yaml", &given));
    status s = read_yaml(folder, "config.yaml", &resolved);
    if (s) {
        config_close(given);
        return s;
    }
    *differs = identity_differs(t->c, resolved) ? identity_differs(t->c, given) : NULL;
    if (*differs) text_add(was, "%s", identity_value(given, *differs));
    if (!*differs) s = config_budget(resolved, &b);
    if (!s && !*differs) *steps = b.kind == BUDGET_STEPS ? (i64)b.value : 0;
    config_close(given);
    config_close(resolved);
    return s;
}

/* The newest whole checkpoint (*path NULL: none) and the run's number of steps, which is never found anew:
 * not where there is a checkpoint, nor where the run died before its first. */
static status find_checkpoint(trainer *t, char **path)
{
    i64 step;
    const char *key = NULL;
    text was = {0};
    *path = NULL;
    if (!t->o->resume) return OK;
    TRY(checkpoint_latest(t->o->out, talk_of_checkpoints, t, path, &step));
    status s = recall_steps(t, *path ? *path : t->o->out, &t->steps, &key, &was);
    if (!*path) {
        say(t, "%s holds no checkpoint yet: starting afresh", t->o->out);
        status_drop(s);
        s = OK;
    } else if (!s && key)
        s = config_refuse(t->c, key, "is %s, but %s was trained with %s; give the same, or another --out",
                          identity_value(t->c, key), *path, was.data);
    text_free(&was);
    return s;
}

static status resume_from(trainer *t, const char *path)
{
    run_state now = t->state;
    TRY(load_session(t->s, path, true, &t->state));
    if (strcmp(now.data, t->state.data))
        return fail(
            ERR_CONFIG,
            "%s was trained on other data (hash %s, now %s); give the same data.train and tokenizer, or "
            "another --out",
            path, t->state.data, now.data);
    if (strcmp(now.code, t->state.code) || strcmp(now.isa, t->state.isa) || now.threads != t->state.threads)
        say(t,
            "warning: the run was saved by keel %s, %s, %lld threads; this is %s, %s, %lld: bits may differ",
            t->state.code, t->state.isa, (long long)t->state.threads, now.code, now.isa,
            (long long)now.threads);
    memcpy(t->state.code, now.code, sizeof now.code);
    memcpy(t->state.isa, now.isa, sizeof now.isa);
    t->state.threads = now.threads;
    TRY(loader_seek(t->loader, t->state.position));
    TRY(average_load(t->average, t->s->store, path, t->state.step));
    t->guard.now = t->state.guard;
    t->saved_at = t->state.step;
    t->resumed = true;
    say(t, "resuming from %s", path);
    return OK;
}

/* ---- beginning */

status train_folder_check(const char *out, bool resume)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/config.yaml", out);
    if (resume || (!path_exists(path) && !checkpoint_any(out))) return OK;
    return fail(ERR_INPUT, "%s holds a run already; go on with it by --resume, or choose another --out", out);
}

static void print_plan(const trainer *t)
{
    const session_memory *m = &t->s->memory;
    char p[32], g[32], o[32], a[32], e[32], b[32], all[32];
    say(t, "model: %s parameters; a step has %lld sequences of %lld tokens, %lld at a time, %s",
        show_count((double)t->s->figures.parameters, p), (long long)t->s->batch_rows,
        (long long)t->s->context, (long long)t->s->micro_rows, dtype_name(t->s->act));
    say(t,
        "memory: parameters %s, gradients %s, optimizer %s, activations %s, evaluation %s, batches %s; "
        "%s in all",
        show_bytes((double)m->parameters, p), show_bytes((double)m->gradients, g),
        show_bytes((double)m->optimizer, o), show_bytes((double)m->activations, a),
        show_bytes((double)m->evaluation, e), show_bytes((double)m->batches, b),
        show_bytes((double)m->total, all));
}

/* GFLOP/s of matrix products in the precision of the run. */
static status measure_peak(trainer *t)
{
    peak_probe *p;
    if ((!t->o->progress || t->o->no_peak) && !t->o->profile) return OK; // nobody will ask
    TRY(peak_probe_open(t->o->device, session_dtype(t->c, t->o->device) == DT_BF16 ? GEMM_BF16 : GEMM_F32,
                        &p));
    for (int k = 0; k < 5; k++) t->peak_gflops = MAX(t->peak_gflops, peak_probe_time(p));
    peak_probe_close(p);
    return OK;
}

static status open_probes(trainer *t)
{
    char size[32];
    if (*config_text(t->c, "train.probes") && !t->can_evaluate)
        return config_refuse(
            t->c, "train.probes",
            "is [%s]; probes are taken where a run evaluates, and there is no validation data for "
            "it",
            config_text(t->c, "train.probes"));
    TRY(probes_open(t->s, t->data, &t->probes));
    if (t->probes) say(t, "probes: %s more memory", show_bytes((double)probes_bytes(t->probes), size));
    return OK;
}

static status open_parts(trainer *t)
{
    session_options so = {.isa = t->o->isa, .no_fuse = t->o->no_fuse};
    TRY(measure_peak(t));
    TRY(session_open(t->c, t->o->device, &so, &t->s));
    print_plan(t);
    session_start(t->s);
    guard_from(t->c, &t->guard);
    TRY(ramp_from(t->c, t->s->batch_rows, t->s->micro_rows, t->s->context, &t->ramp));
    loader_options lo = loader_for(t->c, ramp_unit(&t->ramp), true);
    double weights[CORPUS_SOURCES];
    TRY(corpus_weights(t->c, weights, &lo.weights));
    lo.weight = weights;
    TRY(loader_open(t->data, DATA_TRAIN, &lo, &t->loader));
    TRY(batch_open(t->s->batch_rows, t->s->context, &t->batch));
    i64 have = dataset_tokens(t->data, DATA_VALIDATION);
    t->can_evaluate = have > t->s->context;
    if (!t->can_evaluate)
        say(t, "warning: %lld tokens of validation data are less than a sample (%lld): nothing is evaluated",
            (long long)have, (long long)t->s->context + 1);
    if (t->o->profile) program_profile(t->s->train_program, true);
    return open_probes(t);
}

static void identify(trainer *t)
{
    run_state *r = &t->state;
    u64 data = dataset_hash(t->data);
    config_write(t->c, &t->given);
    snprintf(r->identity, sizeof r->identity, "%016llx", (unsigned long long)identity_of(t->c, data));
    snprintf(r->data, sizeof r->data, "%016llx", (unsigned long long)data);
    snprintf(r->code, sizeof r->code, "%s", code_version());
    snprintf(r->isa, sizeof r->isa, "%s", isa_name(t->o->isa));
    r->threads = device_about(t->o->device)->threads;
}

/* How often the run reads each source of a mixture: beyond four times, repeated text teaches less and less
 * (Muennighoff et al., arXiv:2305.16264). */
static void tell_mixture(trainer *t)
{
    enum { MOST_EPOCHS = 4 };
    const i64 items = config_items(t->c, "data.train");
    double weights[CORPUS_SOURCES];
    i64 n;
    status s = corpus_weights(t->c, weights, &n);
    status_drop(s);
    for (i64 i = 0; !s && n && i < items; i++) {
        double epochs = loader_source_epochs(t->loader, i, t->steps * t->s->batch_rows);
        say(t, "%sdata.train[%lld], %s: %.2f epochs%s", epochs > MOST_EPOCHS ? "warning: " : "", (long long)i,
            config_item(t->c, "data.train", i, "path"), epochs,
            epochs > MOST_EPOCHS ? "; beyond 4, repeated text teaches less and less" : "");
    }
}

static status begin_at(trainer *t, const char *path)
{
    char log[PATH_MAX];
    TRY(open_parts(t));
    if (t->steps)
        TRY(set_steps(t, t->steps));
    else
        TRY(choose_length(t));
    tell_mixture(t);
    TRY(read_spans(t));
    TRY(checkpoint_milestones(t->checkpoints, t->milestones, t->n_milestones));
    if (path)
        TRY(resume_from(t, path));
    else
        TRY(average_load(t->average, t->s->store, NULL, 0));
    TRY(write_configs(t));
    snprintf(log, sizeof log, "%s/metrics.jsonl", t->o->out);
    return metrics_open(log, t->state.metrics_offset, &t->log);
}

static status begin(trainer *t)
{
    char *path;
    budget b;
    checkpoint_options co = {
        .keep = config_count(t->c, "train.checkpoint.keep"), .talk = talk_of_checkpoints, .talk_context = t};
    TRY(train_folder_check(t->o->out, t->o->resume));
    TRY(config_budget(t->c, &b));
    identify(t);
    TRY(checkpoint_open(t->o->out, &co, &t->checkpoints));
    status s = find_checkpoint(t, &path);
    if (!s) s = begin_at(t, path);
    free(path);
    return s;
}

/* ---- ending */

static const char *how_it_ended(status s)
{
    return !s ? "done" : s->code == ERR_STOPPED ? "stopped" : s->code == ERR_NUMERIC ? "diverged" : "failed";
}

static status finish(trainer *t, status s)
{
    t->result->step = t->state.step;
    t->result->tokens_seen = t->state.tokens_seen;
    t->result->seconds = t->state.seconds;
    if (t->log) record(t, how_it_ended(s));
    if (t->log && t->o->profile && t->o->talk)
        profile_tell(t->s->train_program, t->peak_gflops, t->o->talk, t->o->context);
    metrics_close(t->log);
    registry_close(t->registry);
    if (t->checkpoints) {
        status last = checkpoint_close(t->checkpoints);
        if (s)
            status_drop(last);
        else
            s = last;
    }
    average_close(t->average);
    batch_close(&t->batch);
    loader_close(t->loader);
    probes_close(t->probes);
    session_close(t->s);
    text_free(&t->given);
    return s;
}

status train_run(config *c, const dataset *d, const train_options *o, train_result *result)
{
    trainer t = {.c = c, .data = d, .o = o, .result = result, .saved_at = -1};
    *result = (train_result){.loss = NAN, .bits_per_byte = NAN, .perplexity = NAN};
    t.began = clock_seconds();
    t.cpu_before = (double)clock() / CLOCKS_PER_SEC; // of all threads
    status s = begin(&t);
    if (!s) {
        record(&t, "running");
        s = train_loop(&t);
    }
    return finish(&t, s);
}
