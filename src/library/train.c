/* Training: a whole run, as `keel train` does it, and single steps on the caller's rows. See handle.h and
 * keel/keel.h. */
#include "library/handle.h"
#include "train/corpus.h"
#include "train/dial.h"
#include "train/trainer.h"
#include <math.h>

/* ---- a run */

typedef struct listener {
    keel_model *m;
    const keel_train_options *o;
} listener;

static void hear(void *context, const char *line)
{
    const listener *l = context;
    if (!l->o->line) return;
    handle_outside(l->m);
    if (l->o->line(l->o->context, line)) l->m->stop = 1;
    handle_inside(l->m);
}

static void watch(void *context, const train_progress *p)
{
    const listener *l = context;
    keel_progress outside = {.step = p->step,
                             .steps = p->steps,
                             .tokens = p->tokens,
                             .loss = p->loss,
                             .bits_per_byte = p->bits_per_byte,
                             .validation = p->validation,
                             .lr = p->lr,
                             .gradient_norm = p->norm,
                             .tokens_per_second = p->tokens_per_s,
                             .seconds_left = p->seconds_left,
                             .timing = p->timing};
    handle_outside(l->m);
    if (l->o->step(l->o->context, &outside)) l->m->stop = 1;
    handle_inside(l->m);
}

static status run(keel_model *m, listener *l, config *c, keel_train_result *out)
{
    const keel_train_options *o = l->o;
    dataset *data;
    train_result r;
    train_options to = {.out = o->folder,
                        .resume = o->resume,
                        .device = m->device,
                        .isa = m->isa,
                        .name = o->name,
                        .unregistered = !o->registry,
                        .no_peak = true,
                        .stop = &m->stop,
                        .talk = hear,
                        .progress = o->step ? watch : NULL,
                        .context = l};
    TRY(train_folder_check(o->folder, o->resume)); // before data are prepared in it
    if (o->resume) TRY(dial_recall(c, o->folder));
    TRY(dial_apply(c, m->device, hear, l));
    TRY(corpus_open(c, &(corpus_options){o->folder, &m->stop, hear, l}, &data));
    status s = train_run(c, data, &to, &r);
    dataset_close(data);
    *out = (keel_train_result){r.step, r.tokens_seen, r.seconds, r.loss, r.bits_per_byte};
    return s;
}

static status train(keel_model *m, const keel_train_options *o, keel_train_result *out)
{
    config *c;
    listener l = {m, o};
    if (!o || !o->folder || !*o->folder) return fail(ERR_USAGE, "no folder for the run; set options.folder");
    TRY(need_config(m));
    if (m->source == MODEL_OPENED)
        return fail(
            ERR_USAGE,
            "the model was opened from %s; to go on with a run, keel_configure_file its given.yaml and "
            "set options.resume (keel_step trains an opened model)",
            m->files.folder);
    TRY(need_device(m));
    TRY(configured_again(m, &c));
    status s = run(m, &l, c, out);
    config_close(c);
    bool stopped = s && s->code == ERR_STOPPED && out->step > 0;
    if (s && !stopped) return s;
    status opened = open_files(m, o->folder);
    if (!s) return opened;
    status_drop(opened);
    return s;
}

keel_status keel_train(keel_model *m, const keel_train_options *options, keel_train_result *result)
{
    keel_train_result r = {.loss = NAN, .bits_per_byte = NAN};
    if (!handle_enter(m)) return KEEL_ERROR_USAGE;
    status s = train(m, options, &r);
    if (result) *result = r;
    return handle_leave(m, s);
}

/* ---- a step */

static status check_rows(const session *s, const keel_rows *x)
{
    const i64 vocab = config_count(s->c, "model.vocab");
    if (!x || !x->tokens || !x->targets) return fail(ERR_USAGE, "no rows, or no tokens or targets in them");
    if (x->rows < 1 || x->rows > s->batch_rows)
        return fail(ERR_USAGE, "%lld rows; a step takes 1 to %lld (train.batch_tokens / model.context)",
                    (long long)x->rows, (long long)s->batch_rows);
    if (!(x->lr >= 0 && x->lr < 1e3))
        return fail(ERR_USAGE, "a learning rate of %g; it must be from 0 on", x->lr);
    for (i64 i = 0; i < x->rows * s->context; i++) {
        i64 row = i / s->context, at = i % s->context;
        if (x->tokens[i] < 0 || x->tokens[i] >= vocab || x->targets[i] < -1 || x->targets[i] >= vocab)
            return fail(
                ERR_INPUT,
                "row %lld, place %lld: token %d, target %d; the vocabulary is %lld (a target may be -1)",
                (long long)row, (long long)at, x->tokens[i], x->targets[i], (long long)vocab);
        if (x->document &&
            (x->document[i] < 0 || x->document[i] > at || (at && x->document[i] < x->document[i - 1])))
            return fail(ERR_INPUT,
                        "row %lld, place %lld: a document that begins at %d; it must lie from the one "
                        "before on to %lld",
                        (long long)row, (long long)at, x->document[i], (long long)at);
    }
    return OK;
}

/* The learning rate of the step, and the peak it is held against. */
static status choose_lr(const keel_model *m, const keel_rows *x, double *lr, double *peak)
{
    const model_engine *e = &m->engine;
    *peak = config_number(m->config, "train.optimizer.lr");
    *lr = x->lr;
    if (x->lr > 0) return OK;
    if (!e->steps)
        return fail(ERR_CONFIG,
                    "the rows give no learning rate, and the configuration no length to schedule one "
                    "over; set train.steps or train.tokens, or rows.lr");
    if (e->step >= e->steps)
        return fail(ERR_USAGE, "all %lld steps of the schedule are done; set rows.lr to go on",
                    (long long)e->steps);
    *lr = schedule_at(&e->schedule, e->step);
    *peak = e->schedule.peak;
    return OK;
}

typedef struct places {
    i32 *start, *position;
} places;

static status fill_places(const session *s, const keel_rows *x, places *p)
{
    const i64 n = x->rows * s->context;
    TRY(mem_alloc((size_t)n * sizeof(i32), "rows", &p->start));
    TRY(mem_alloc((size_t)n * sizeof(i32), "rows", &p->position));
    for (i64 i = 0; i < n; i++) {
        p->start[i] = x->document ? x->document[i] : 0;
        p->position[i] = (i32)(i % s->context) - p->start[i];
    }
    return OK;
}

static status step_with(keel_model *m, const keel_rows *x, const places *p, double lr, double peak,
                        keel_step_result *out)
{
    model_engine *e = &m->engine;
    step_batch b = {x->tokens, x->targets, p->start, p->position, x->rows, 0};
    double nats;
    for (i64 i = 0; i < x->rows * e->session->context; i++) b.n_valid += x->targets[i] >= 0;
    if (!b.n_valid) return fail(ERR_INPUT, "no row has a target; -1 is no loss");
    session_forward_backward(e->session, &b, e->step, &nats);
    *out = (keel_step_result){e->step, nats / (double)b.n_valid, NAN, lr};
    if (isfinite(out->loss)) session_update(e->session, e->step, lr, peak, &out->gradient_norm);
    if (!isfinite(out->loss) || !isfinite(out->gradient_norm)) {
        status s = session_blame(e->session, &b, e->step);
        session_drop(e->session);
        return wrap(s, "step %lld is not finite (loss %g, gradient norm %g)", (long long)e->step + 1,
                    fabs(out->loss), fabs(out->gradient_norm));
    }
    e->decoder_stale = e->scorer_stale = true;
    out->step = ++e->step;
    e->tokens_seen += x->rows * e->session->context;
    return OK;
}

static status one_step(keel_model *m, const keel_rows *x, keel_step_result *out)
{
    places p = {0};
    double lr, peak;
    TRY(need_session(m));
    TRY(check_rows(m->engine.session, x));
    TRY(choose_lr(m, x, &lr, &peak));
    status s = fill_places(m->engine.session, x, &p);
    if (!s) s = step_with(m, x, &p, lr, peak, out);
    mem_free(p.start);
    mem_free(p.position);
    return s;
}

keel_status keel_step(keel_model *m, const keel_rows *rows, keel_step_result *result)
{
    keel_step_result r = {.loss = NAN, .gradient_norm = NAN};
    if (!handle_enter(m)) return KEEL_ERROR_USAGE;
    status s = one_step(m, rows, &r);
    if (result) *result = r;
    return handle_leave(m, s);
}
