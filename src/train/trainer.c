/* The training loop: see trainer.h. */
#include "train/trainer.h"
#include "base/file.h"
#include "base/text.h"
#include "data/loader.h"
#include "device/peak.h"
#include "train/metrics.h"
#include "train/registry.h"
#include "train/run.h"
#include "train/save.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { TIMED_STEPS = 20 };

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

/* A failure that must not stop a run: said once, then dropped. */
static void warn(trainer *t, status s)
{
    if (s) say(t, "warning: %s", s->message);
    status_drop(s);
}

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
                            .document_mask = config_flag(c, "data.document_mask"),
                            .mask_boundary_loss = config_flag(c, "data.mask_boundary_loss")};
}

/* ---- evaluation */

status train_evaluate(session *s, const dataset *d, data_split split, i64 tokens, evaluation *out)
{
    loader_options lo = loader_for(s->c, s->micro_rows, false);
    loader *l;
    batch b;
    *out = (evaluation){0};
    TRY(loader_open(d, split, &lo, &l));
    status failed = batch_open(s->micro_rows, s->context, &b);
    while (!failed && (tokens <= 0 || out->rows * s->context < tokens)) {
        loader_next(l, &b);
        if (!b.rows) break;
        step_batch step = as_step(&b);
        out->nats += session_evaluate(s, &step);
        out->tokens += b.n_valid;
        out->bytes += b.bytes;
        out->rows += b.rows;
    }
    if (!failed) batch_close(&b);
    loader_close(l);
    return failed;
}

static double bits(double nats, i64 bytes) { return bytes ? nats / ((double)bytes * log(2)) : NAN; }

static status evaluate(trainer *t)
{
    evaluation e;
    if (!dataset_tokens(t->data, DATA_VALIDATION)) return OK;
    TRY(train_evaluate(t->s, t->data, DATA_VALIDATION, config_count(t->c, "train.evaluate.tokens"), &e));
    if (!e.tokens) return OK;
    t->result->loss = e.nats / (double)e.tokens;
    t->result->bits_per_byte = bits(e.nats, e.bytes);
    t->result->perplexity = exp(t->result->loss);
    metric m[] = {{"val_loss", t->result->loss}, {"val_bits_per_byte", t->result->bits_per_byte}};
    TRY(metrics_append(t->log, t->state.step, m, COUNT(m)));
    warn(t, registry_metrics(t->registry, t->result->id, t->state.step, m, COUNT(m)));
    t->evaluated_at = t->state.step;
    if (t->peak) t->peak_gflops = MAX(t->peak_gflops, peak_probe_time(t->peak));
    return OK;
}

static status save(trainer *t)
{
    t->state.position = loader_tell(t->loader);
    t->state.metrics_offset = metrics_offset(t->log);
    TRY(metrics_sync(t->log));
    TRY(save_session(t->checkpoints, t->s, &t->state, dataset_tokenizer_path(t->data)));
    t->saved_at = t->state.step;
    return OK;
}

/* ---- steps */

static status one_step(trainer *t, double *loss, double *norm, double *lr)
{
    double nats;
    loader_next(t->loader, &t->batch);
    step_batch b = as_step(&t->batch);
    *lr = schedule_at(&t->schedule, t->state.step);
    session_forward_backward(t->s, &b, t->state.step, &nats);
    *loss = b.n_valid ? nats / (double)b.n_valid : 0;
    session_update(t->s, t->state.step, *lr, t->schedule.peak, norm);
    if (isfinite(*loss) && isfinite(*norm)) return OK;
    status why = session_blame(t->s, &b, t->state.step);
    return wrap(why,
                "step %lld is not finite (loss %g, gradient norm %g; sequences %lld to %lld); the last good "
                "state is %s%lld",
                (long long)t->state.step, *loss, *norm, (long long)t->batch.index,
                (long long)(t->batch.index + t->batch.rows - 1),
                t->saved_at >= 0 ? "step_" : "none: ", (long long)MAX(t->saved_at, 0));
}

/* The length of a run given as time: from steps timed now, whose updates are thrown away. */
status time_steps(trainer *t, double *seconds_a_step)
{
    double loss, norm, lr, start = 0;
    t->schedule = (schedule){.kind = SCHEDULE_CONSTANT, .peak = 1e-9, .end = 1e-9, .steps = TIMED_STEPS};
    for (int k = -3; k < TIMED_STEPS; k++) {
        if (k == 0) start = clock_seconds();
        TRY(one_step(t, &loss, &norm, &lr));
        if (t->o->stop && *t->o->stop) return fail(ERR_STOPPED, "stopped before step 0; nothing was saved");
    }
    *seconds_a_step = (clock_seconds() - start) / TIMED_STEPS;
    session_start(t->s);
    return loader_seek(t->loader, 0);
}

static bool due(i64 step, i64 every) { return every > 0 && step % every == 0; }

static status log_step(trainer *t, double loss, double norm, double lr, double seconds)
{
    double tokens = (double)(t->s->batch_rows * t->s->context);
    t->tokens_per_s = t->tokens_per_s > 0 ? 0.9 * t->tokens_per_s + 0.1 * tokens / seconds : tokens / seconds;
    metric m[] = {{"loss", loss},
                  {"bits_per_byte", bits(loss * (double)t->batch.n_valid, t->batch.bytes)},
                  {"lr", lr},
                  {"grad_norm", norm},
                  {"tokens_per_s", tokens / seconds}};
    TRY(metrics_append(t->log, t->state.step, m, COUNT(m)));
    if (t->state.step % 10 == 0)
        warn(t, registry_metrics(t->registry, t->result->id, t->state.step, m, COUNT(m)));
    if (!t->o->progress) return OK;
    double left = (double)(t->steps - t->state.step) * tokens / t->tokens_per_s;
    t->o->progress(t->o->context,
                   &(train_progress){.step = t->state.step,
                                     .steps = t->steps,
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

static status after_step(trainer *t)
{
    bool last = t->state.step == t->steps, stop = t->o->stop && *t->o->stop;
    bool milestone = false;
    for (i64 i = 0; i < t->n_milestones; i++) milestone |= t->milestones[i] == t->state.step;
    bool look = last || due(t->state.step, t->evaluate_every);
    // Always saved before an evaluation: what an evaluation costs, or breaks, never costs the weights.
    if (last || stop || milestone || look || due(t->state.step, t->save_every)) TRY(save(t));
    if (look && !stop) TRY(evaluate(t));
    if (stop && !last) {
        TRY(checkpoint_wait(t->checkpoints));
        return fail(ERR_STOPPED, "stopped at step %lld of %lld; the state is saved, go on with --resume",
                    (long long)t->state.step, (long long)t->steps);
    }
    return OK;
}

status train_loop(trainer *t)
{
    while (t->state.step < t->steps) {
        double loss, norm, lr, start = clock_seconds();
        TRY(one_step(t, &loss, &norm, &lr));
        double seconds = clock_seconds() - start;
        t->state.step++;
        t->state.seconds += seconds;
        t->state.tokens_seen += t->batch.rows * t->s->context;
        t->state.bytes_seen += t->batch.bytes;
        TRY(log_step(t, loss, norm, lr, seconds));
        TRY(after_step(t));
    }
    if (t->evaluated_at != t->steps) TRY(evaluate(t));
    return checkpoint_wait(t->checkpoints);
}
