/* The training loop: see trainer.h. */
#include "train/trainer.h"
#include "base/file.h"
#include "base/text.h"
#include "data/loader.h"
#include "device/peak.h"
#include "train/expert_load.h"
#include "train/metrics.h"
#include "train/registry.h"
#include "train/run.h"
#include "train/save.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { WARM_STEPS = 3, FEWEST_TIMED = 3, TIMED_STEPS = 20 };

double clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void say(const trainer *t, const char *format, ...)
{
    char line[1024];
    va_list args;
    if (!t->o->talk) return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    t->o->talk(t->o->context, line);
}

void warn(const trainer *t, status s)
{
    if (s) say(t, "warning: %s", s->message);
    status_drop(s);
}

bool stopping(const trainer *t) { return t->o->stop && *t->o->stop; }

/* ---- batches */

status batch_open(i64 rows, i64 context, batch *b)
{
    i64 n = rows * context;
    i32 **array[] = {&b->tokens, &b->targets, &b->doc_start, &b->position};
    *b = (batch){0};
    for (int k = 0; k < 4; k++) {
        status s = mem_alloc((size_t)n * sizeof(i32), "batch", array[k]);
        if (s) {
            batch_close(b);
            return s;
        }
    }
    return OK;
}

void batch_close(batch *b)
{
    mem_free(b->tokens);
    mem_free(b->targets);
    mem_free(b->doc_start);
    mem_free(b->position);
    *b = (batch){0};
}

static step_batch as_step(const batch *b)
{
    return (step_batch){b->tokens, b->targets, b->doc_start, b->position, b->rows, b->n_valid};
}

loader_options loader_for(const config *c, i64 rows, bool train)
{
    return (loader_options){.context = config_count(c, "model.context"),
                            .rows = rows,
                            .seed = (u64)config_count(c, "train.seed.data"),
                            .shuffle = train && config_is(c, "data.order", "shuffle"),
                            .once = !train,
                            .best_fit = train && config_is(c, "data.pack", "best_fit"),
                            .document_mask = config_flag(c, "data.document_mask"),
                            .mask_boundary_loss = config_flag(c, "data.mask_boundary_loss")};
}

/* ---- evaluation */

status train_evaluate(session *s, const dataset *d, data_split split, i64 tokens,
                      const volatile sig_atomic_t *stop, evaluation *out)
{
    return train_evaluate_parts(s, d, split, tokens, stop, NULL, NULL, out);
}

status train_evaluate_parts(session *s, const dataset *d, data_split split, i64 tokens,
                            const volatile sig_atomic_t *stop, evaluation_part *take, void *context,
                            evaluation *out)
{
    loader_options lo = loader_for(s->c, s->micro_rows, false);
    loader *l;
    batch b;
    *out = (evaluation){0};
    TRY(loader_open(d, split, &lo, &l));
    status failed = batch_open(s->micro_rows, s->context, &b);
    session_gauges_clear(s);
    while (!failed && (tokens <= 0 || out->rows * s->context < tokens)) {
        if (stop && *stop) {
            failed = fail(ERR_STOPPED, "stopped while evaluating");
            break;
        }
        loader_next(l, &b);
        if (!b.rows) break;
        step_batch step = as_step(&b);
        evaluation part = {
            .tokens = b.n_valid, .bytes = b.bytes, .rows = b.rows, .nats = session_evaluate(s, &step)};
        if (take) take(context, &part);
        out->nats += part.nats;
        out->tokens += part.tokens;
        out->bytes += part.bytes;
        out->rows += part.rows;
    }
    batch_close(&b);
    loader_close(l);
    return failed;
}

static double bits(double nats, i64 bytes) { return bytes ? nats / ((double)bytes * log(2)) : NAN; }

/* The same of the mean of the weights, where there is one. */
static status evaluate_average(trainer *t)
{
    evaluation e;
    bool there;
    TRY(average_enter(t->average, t->s->store, &there));
    if (!there) return OK;
    status s = train_evaluate(t->s, t->data, DATA_VALIDATION, config_count(t->c, "train.evaluate.tokens"),
                              t->o->stop, &e);
    average_leave(t->average, t->s->store);
    if (s && s->code == ERR_STOPPED) {
        status_drop(s);
        return OK;
    }
    if (s || !e.tokens) return s;
    metric m[] = {{"average_val_loss", e.nats / (double)e.tokens},
                  {"average_val_bits_per_byte", bits(e.nats, e.bytes)}};
    TRY(metrics_append(t->log, t->state.step, m, COUNT(m)));
    warn(t, registry_metrics(t->registry, t->result->id, t->state.step, m, COUNT(m)));
    say(t, "step %lld: of the averaged weights %.4f, %.4f bits per byte", (long long)t->state.step,
        m[0].value, m[1].value);
    return OK;
}

/* The state was saved before: what an evaluation costs, or breaks, never costs the weights. */
static status evaluate(trainer *t)
{
    evaluation e;
    i64 most = config_count(t->c, "train.evaluate.tokens");
    status s = train_evaluate(t->s, t->data, DATA_VALIDATION, most, t->o->stop, &e);
    if (s && s->code == ERR_STOPPED) { // the caller sees the flag and leaves; resuming evaluates
        status_drop(s);
        return OK;
    }
    if (s || !e.tokens) return s;
    t->result->loss = e.nats / (double)e.tokens;
    t->result->bits_per_byte = bits(e.nats, e.bytes);
    t->result->perplexity = exp(t->result->loss);
    metric m[2 + MOST_GAUGES] = {{"val_loss", t->result->loss},
                                 {"val_bits_per_byte", t->result->bits_per_byte}};
    const char *name[MOST_GAUGES];
    double value[MOST_GAUGES];
    i64 gauges = session_gauges(t->s, name, value);
    for (i64 k = 0; k < gauges; k++) m[2 + k] = (metric){name[k], value[k]};
    TRY(metrics_append(t->log, t->state.step, m, 2 + gauges));
    warn(t, registry_metrics(t->registry, t->result->id, t->state.step, m, 2 + gauges));
    if (!isfinite(t->result->loss))
        return fail(ERR_NUMERIC, "step %lld: the validation loss is %g", (long long)t->state.step,
                    t->result->loss);
    say(t, "step %lld: validation loss %.4f, %.4f bits per byte", (long long)t->state.step, t->result->loss,
        t->result->bits_per_byte);
    for (i64 k = 0; k < gauges; k++)
        say(t, "step %lld: %s %.4f", (long long)t->state.step, name[k], value[k]);
    TRY(probes_evaluate(t->probes, t->s, t->log, t->state.step));
    return evaluate_average(t);
}

static status save(trainer *t)
{
    t->state.position = loader_tell(t->loader);
    t->state.metrics_offset = metrics_offset(t->log);
    TRY(metrics_sync(t->log));
    t->state.guard = t->guard.now;
    TRY(save_session(t->checkpoints, t->s, &t->state, &t->given, dataset_tokenizer_path(t->data), t->average,
                     t->state.step == t->steps));
    t->saved_at = t->state.step;
    return OK;
}

/* ---- steps */

/* What is the matter with a step whose loss or gradient is not finite, and what is left. */
static status blame(trainer *t, const step_batch *b, double loss, double norm)
{
    char left[64] = "no checkpoint was written yet";
    metric m[] = {{"loss", loss}, {"grad_norm", norm}};
    if (t->log) warn(t, metrics_append(t->log, t->state.step + 1, m, COUNT(m)));
    if (t->saved_at >= 0)
        snprintf(left, sizeof left, "the last good checkpoint is step_%lld", (long long)t->saved_at);
    return wrap(
        session_blame(t->s, b, t->state.step),
        "step %lld is not finite (loss %g, gradient norm %g; samples %lld to %lld of the data's order); "
        "%s; lower train.optimizer.lr or look at the data",
        // fabs: the sign of a NaN says nothing
        (long long)t->state.step + 1, fabs(loss), fabs(norm), (long long)t->batch.index,
        (long long)(t->batch.index + t->batch.rows - 1), left);
}

/* The next rows of the data, as many as this step takes. */
static void next_batch(trainer *t)
{
    i64 rows = ramp_rows(&t->ramp, t->state.step), unit = ramp_unit(&t->ramp), n = unit * t->s->context;
    batch all = t->batch, part = t->batch;
    for (i64 at = 0; at < rows; at += unit) {
        loader_next(t->loader, &part);
        if (!at) all.rows = all.n_valid = all.bytes = 0, all.index = part.index;
        all.rows += part.rows, all.n_valid += part.n_valid, all.bytes += part.bytes;
        part.tokens += n, part.targets += n, part.doc_start += n, part.position += n;
    }
    t->batch = all;
}

static bool due(i64 step, i64 every) { return every > 0 && step % every == 0; }

static bool look_due(const trainer *t, i64 step)
{
    return t->can_evaluate && (step == t->steps || due(step, t->evaluate_every));
}

/* Forward, backward and the update, unless the guard says otherwise. *BACK: the run went back to a
 * checkpoint, and no step was done. */
static status one_step(trainer *t, double *loss, double *norm, double *lr, bool *back)
{
    double nats;
    bool updated = false;
    next_batch(t);
    step_batch b = as_step(&t->batch);
    *back = false;
    *norm = NAN;
    *lr = schedule_at(&t->schedule, ramp_progress(&t->ramp, t->state.step));
    session_forward_backward(t->s, &b, t->state.step, &nats);
    *loss = b.n_valid ? nats / (double)b.n_valid : 0;
    guard_verdict v = guard_look(&t->guard, t->state.step, *loss);
    if (v == GUARD_GO) {
        updated = true;
        probes_before_update(t->probes, t->s, look_due(t, t->state.step + 1));
        session_update(t->s, t->state.step, *lr, t->schedule.peak, norm);
        if (isfinite(*norm)) {
            probes_after_update(t->probes, t->s);
            return OK;
        }
        v = guard_nonfinite(&t->guard, t->state.step);
    }
    if (v == GUARD_STOP && isfinite(*loss) && !updated)
        return fail(ERR_NUMERIC,
                    "step %lld: a loss of %.4f, and more than %d interventions of train.guard did not help; "
                    "lower train.optimizer.lr or look at the data",
                    (long long)t->state.step + 1, *loss, GUARD_MOST);
    if (v == GUARD_STOP) return blame(t, &b, *loss, *norm);
    session_drop(t->s);
    if (v == GUARD_SKIP) {
        say(t, "step %lld: loss %.4f, gradient norm %.4g: the step is dropped (train.guard)",
            (long long)t->state.step + 1, isnan(*loss) ? fabs(*loss) : *loss, fabs(*norm));
        return OK;
    }
    *back = true;
    return roll_back(t, *loss, v == GUARD_MERGE);
}

/* The length of a run given as time: from steps timed now, whose updates are thrown away. Ends early once it
 * has taken a twentieth of BUDGET seconds: on a busy machine 20 steps can take longer than the run. */
status time_steps(trainer *t, double budget, double *seconds_a_step)
{
    double loss, norm, lr, start = clock_seconds(), elapsed = 0;
    int timed = 0;
    guard were = t->guard;
    t->schedule = schedule_constant(1e-9, TIMED_STEPS);
    t->guard = (guard){.nonfinite = GUARD_STOP}; // there is nothing to go back to, and no step to leave out
    for (int k = 0; timed < TIMED_STEPS && (timed < FEWEST_TIMED || elapsed < budget / 20); k++) {
        bool back;
        TRY(one_step(t, &loss, &norm, &lr, &back));
        if (stopping(t)) return fail(ERR_STOPPED, "stopped before step 0; there is nothing to save yet");
        if (k < WARM_STEPS)
            start = clock_seconds();
        else
            timed++;
        elapsed = clock_seconds() - start;
        if (t->o->progress)
            t->o->progress(
                t->o->context,
                &(train_progress){.timing = true, .step = k + 1, .steps = WARM_STEPS + TIMED_STEPS});
    }
    *seconds_a_step = elapsed / timed * (double)t->ramp.rows / (double)ramp_rows(&t->ramp, 0);
    t->guard = were;
    session_start(t->s);
    return loader_seek(t->loader, 0);
}

static status log_step(trainer *t, double loss, double norm, double lr, double seconds)
{
    double tokens = (double)(t->batch.rows * t->s->context);
    t->tokens_per_s = t->tokens_per_s > 0 ? 0.9 * t->tokens_per_s + 0.1 * tokens / seconds : tokens / seconds;
    expert_load experts;
    metric m[8] = {{"loss", loss},
                   {"bits_per_byte", bits(loss * (double)t->batch.n_valid, t->batch.bytes)},
                   {"lr", lr},
                   {"grad_norm", norm},
                   {"tokens_per_s", tokens / seconds}};
    i64 n = 5;
    if (expert_load_read(t->s, &experts)) {
        m[n++] = (metric){"expert_load", experts.load};
        m[n++] = (metric){"expert_drop", experts.dropped};
    }
    TRY(metrics_append(t->log, t->state.step, m, n));
    TRY(probes_log_step(t->probes, t->log, t->state.step));
    if (t->state.step % 10 == 0) warn(t, registry_metrics(t->registry, t->result->id, t->state.step, m, n));
    if (!t->o->progress) return OK;
    double left =
        (double)(ramp_tokens(&t->ramp, t->steps) - ramp_tokens(&t->ramp, t->state.step)) / t->tokens_per_s;
    t->o->progress(t->o->context,
                   &(train_progress){.step = t->state.step,
                                     .steps = t->steps,
                                     .tokens = t->state.tokens_seen,
                                     .loss = loss,
                                     .bits_per_byte = m[1].value,
                                     .validation = t->result->bits_per_byte,
                                     .lr = lr,
                                     .norm = norm,
                                     .tokens_per_s = t->tokens_per_s,
                                     .share_of_peak = t->peak_gflops > 0
                                                          ? t->tokens_per_s * t->s->figures.flops_per_token /
                                                                (t->peak_gflops * 1e9)
                                                          : NAN,
                                     .seconds_left = left});
    return OK;
}

static bool save_due(const trainer *t)
{
    bool milestone = false;
    for (i64 i = 0; i < t->n_milestones; i++) milestone |= t->milestones[i] == t->state.step;
    return milestone || t->state.step == t->steps || due(t->state.step, t->save_every) ||
           look_due(t, t->state.step);
}

static status after_step(trainer *t)
{
    if (save_due(t) || stopping(t)) TRY(save(t));
    if (look_due(t, t->state.step) && !stopping(t)) TRY(evaluate(t));
    if (!stopping(t)) return OK;
    if (t->saved_at != t->state.step)
        TRY(save(t)); // the signal came just now, in the evaluation above or not
    TRY(checkpoint_wait(t->checkpoints));
    return fail(ERR_STOPPED, "stopped at step %lld of %lld; the state is saved, go on with --resume",
                (long long)t->state.step, (long long)t->steps);
}

status train_loop(trainer *t)
{
    // A checkpoint is written before its evaluation, and its place in the log is before that evaluation's
    // line.
    if (t->resumed && look_due(t, t->state.step)) TRY(evaluate(t));
    while (t->state.step < t->steps) {
        double loss, norm, lr, start = clock_seconds();
        bool back;
        TRY(one_step(t, &loss, &norm, &lr, &back));
        if (back) continue;
        double seconds = clock_seconds() - start;
        t->state.step++;
        t->state.seconds += seconds;
        t->state.tokens_seen += t->batch.rows * t->s->context;
        t->state.bytes_seen += t->batch.bytes;
        TRY(average_step(t->average, t->s->store, t->state.step));
        TRY(log_step(t, loss, norm, lr, seconds));
        TRY(after_step(t));
    }
    TRY(checkpoint_wait(t->checkpoints));
    return average_end(t->average);
}
