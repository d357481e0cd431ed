/* Configuring, opening, describing and saving a model. See handle.h and keel/keel.h. */
#define _GNU_SOURCE // asprintf
#include "base/file.h"
#include "library/handle.h"
#include "train/identity.h"
#include "train/save.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- what a handle was given */

typedef struct given {
    char *name, *yaml;
    size_t bytes;
    char **settings;
    i64 n;
} given;

static void given_free(given *g)
{
    for (i64 i = 0; g->settings && i < g->n; i++) free(g->settings[i]);
    free(g->settings);
    free(g->name);
    free(g->yaml);
}

static status no_memory(void) { return fail(ERR_MEMORY, "a configuration: out of memory"); }

static status given_copy(const char *name, const char *yaml, size_t bytes, const char *const *settings,
                         size_t n, given *g)
{
    *g = (given){.name = strdup(name), .yaml = malloc(bytes + 1), .bytes = bytes, .n = (i64)n};
    g->settings = calloc(n + 1, sizeof *g->settings);
    if (!g->name || !g->yaml || !g->settings) return no_memory();
    if (bytes) memcpy(g->yaml, yaml, bytes);
    g->yaml[bytes] = 0;
    for (size_t i = 0; i < n; i++) {
        if (!settings[i]) return fail(ERR_USAGE, "setting %zu of %zu is NULL; write key=value", i + 1, n);
        if (!(g->settings[i] = strdup(settings[i]))) return no_memory();
    }
    return OK;
}

/* Everything of the model that was there is released; the device stays. */
static void forget(keel_model *m)
{
    given old = {m->name, m->yaml, 0, m->settings, m->n_settings};
    engine_close(&m->engine);
    if (m->source == MODEL_OPENED)
        model_files_close(&m->files);
    else {
        config_close(m->config);
        tokenizer_close(m->tokenizer);
    }
    given_free(&old);
    m->name = m->yaml = NULL, m->settings = NULL, m->n_settings = 0;
    m->config = NULL, m->tokenizer = NULL, m->source = MODEL_NONE;
}

static status parse(const given *g, config **out)
{
    return config_parse(g->name, g->yaml, g->bytes, (const char *const *)g->settings, g->n, out);
}

static status configure(keel_model *m, const char *name, const char *yaml, size_t bytes,
                        const char *const *settings, size_t n)
{
    given g = {0};
    config *c = NULL;
    if ((!yaml && bytes) || (!settings && n))
        return fail(ERR_USAGE, "a configuration of %zu bytes and %zu settings at NULL", bytes, n);
    status s = given_copy(name, yaml, bytes, settings, n, &g);
    if (!s) s = parse(&g, &c);
    if (s) {
        given_free(&g);
        return s;
    }
    forget(m);
    m->name = g.name, m->yaml = g.yaml, m->yaml_bytes = g.bytes;
    m->settings = g.settings, m->n_settings = g.n;
    m->config = c, m->source = MODEL_CONFIGURED;
    return OK;
}

status configured_again(const keel_model *m, config **out)
{
    return parse(&(given){m->name, m->yaml, m->yaml_bytes, m->settings, m->n_settings}, out);
}

keel_status keel_configure(keel_model *m, const char *yaml, size_t bytes, const char *const *settings,
                           size_t n)
{
    if (!handle_enter(m)) return KEEL_ERROR_USAGE;
    return handle_leave(m, configure(m, "configuration", yaml, bytes, settings, n));
}

static status configure_file(keel_model *m, const char *path, const char *const *settings, size_t n)
{
    char *yaml;
    size_t bytes;
    if (!path || !*path) return fail(ERR_USAGE, "no path of a configuration");
    TRY(file_read(path, &yaml, &bytes));
    status s = configure(m, path, yaml, bytes, settings, n);
    mem_free(yaml);
    return s;
}

keel_status keel_configure_file(keel_model *m, const char *path, const char *const *settings, size_t n)
{
    if (!handle_enter(m)) return KEEL_ERROR_USAGE;
    return handle_leave(m, configure_file(m, path, settings, n));
}

status open_files(keel_model *m, const char *path)
{
    model_files f;
    if (!path || !*path)
        return fail(ERR_USAGE, "no path of a model; name a run's folder or one of its step_N");
    TRY(model_files_open(path, NULL, NULL, &f));
    forget(m);
    m->files = f, m->source = MODEL_OPENED;
    m->config = f.config, m->tokenizer = f.tokenizer;
    m->engine.step = MAX(f.step, 0);
    return OK;
}

keel_status keel_open(keel_model *m, const char *path)
{
    if (!handle_enter(m)) return KEEL_ERROR_USAGE;
    return handle_leave(m, open_files(m, path));
}

/* ---- what calls need */

status need_config(keel_model *m)
{
    if (m->source == MODEL_NONE)
        return fail(ERR_USAGE, "the handle has no model yet; call keel_configure or keel_open first");
    return OK;
}

static bool names_tokenizer(const keel_model *m)
{
    return m->source == MODEL_CONFIGURED && !config_is(m->config, "data.tokenizer", "auto");
}

status need_tokenizer(keel_model *m)
{
    TRY(need_config(m));
    if (m->tokenizer) return OK;
    if (!names_tokenizer(m))
        return fail(ERR_USAGE, m->source == MODEL_OPENED
                                   ? "the checkpoint holds no tokenizer.json; use tokens instead of text"
                                   : "the model has no tokenizer yet; set data.tokenizer to a file, or train "
                                     "(keel_train makes one)");
    return tokenizer_open(config_text(m->config, "data.tokenizer"), &m->tokenizer);
}

status need_model(keel_model *m)
{
    char number[32];
    TRY(need_config(m));
    TRY(need_device(m));
    i64 room = config_count(m->config, "model.vocab");
    if (room < 0 && !names_tokenizer(m))
        return config_refuse(
            m->config, "model.vocab",
            "is auto; set it to a number, or data.tokenizer to a file, or train (keel_train)");
    if (!names_tokenizer(m)) return OK;
    TRY(need_tokenizer(m));
    i64 have = tokenizer_vocab(m->tokenizer);
    snprintf(number, sizeof number, "%lld", (long long)have);
    if (room < 0) return config_set(m->config, "model.vocab", number, "tokenizer");
    if (room < have)
        return config_refuse(
            m->config, "model.vocab",
            "is %lld, but the tokenizer has %lld tokens; set it to at least that, or to auto",
            (long long)room, (long long)have);
    return OK;
}

/* The learning rate of keel_step: a schedule needs a length. */
static status need_schedule(const keel_model *m, model_engine *e)
{
    budget b;
    session *s = e->session;
    i64 tokens = s->batch_rows * s->context;
    if (config_budget_given(m->config)) {
        TRY(config_budget(m->config, &b));
        if (b.kind == BUDGET_STEPS) e->steps = (i64)b.value;
        if (b.kind == BUDGET_TOKENS)
            e->steps = MAX(1, (i64)((b.value + (double)tokens - 1) / (double)tokens));
    }
    s->optimizer.steps = MAX(e->steps, 1);
    s->optimizer.tokens_per_step = tokens;
    return e->steps ? schedule_from(m->config, e->steps, tokens, &e->schedule) : OK;
}

static status load_opened(const keel_model *m, session *s, run_state *state)
{
    char *moments;
    if (asprintf(&moments, "%s/optimizer.safetensors", m->files.folder) < 0)
        return fail(ERR_MEMORY, "%s: out of memory", m->files.folder);
    status failed = load_session(s, m->files.folder, path_exists(moments), state);
    free(moments);
    return failed ? failed : load_weights(s->store, m->files.weights); // of PATH@average they are others
}

status need_session(keel_model *m)
{
    model_engine e = {.decoder = m->engine.decoder, .scorer = m->engine.scorer};
    run_state state = {0};
    TRY(need_model(m));
    if (m->engine.session) return OK;
    TRY(session_open(m->config, m->device, &(session_options){.isa = m->isa}, &e.session));
    session_start(e.session);
    status s = need_schedule(m, &e);
    if (!s && m->source == MODEL_OPENED) s = load_opened(m, e.session, &state);
    if (s) {
        session_close(e.session);
        return s;
    }
    e.step = state.step, e.tokens_seen = state.tokens_seen;
    m->engine = e;
    return OK;
}

/* Masters, and states that both have; the constants are the configuration's. */
static void copy_store(const store *from, store *to)
{
    for (i64 i = 0; i < to->n; i++) {
        stored *x = &to->entry[i];
        const stored *y = x->role == ROLE_CONST ? NULL : store_find(from, x->path);
        if (!y || y->count != x->count) continue;
        if (x->role == ROLE_PARAM)
            memcpy(x->master, y->master, (size_t)x->count * sizeof *x->master);
        else if (x->dtype == y->dtype)
            memcpy(x->data, y->data, (size_t)(x->count * dtype_bytes(x->dtype)));
    }
    store_sync(to);
}

status copy_weights(keel_model *m, store *to)
{
    if (m->engine.session)
        copy_store(m->engine.session->store, to);
    else if (m->source == MODEL_OPENED)
        return load_weights(to, m->files.weights);
    else {
        store_initialize(to, (u64)config_count(m->config, "train.seed.init"));
        store_sync(to);
    }
    return OK;
}

/* ---- describing */

static status about(keel_model *m, keel_facts *out)
{
    session *s = m->engine.session, *plan = NULL;
    if (!out) return fail(ERR_USAGE, "no place for the facts");
    TRY(need_model(m));
    if (!s)
        TRY(session_open(m->config, m->device, &(session_options){.isa = m->isa, .plan_only = true}, &plan));
    if (!s) s = plan;
    *out = (keel_facts){.vocab = config_count(m->config, "model.vocab"),
                        .context = s->context,
                        .layers = config_count(m->config, "model.layers"),
                        .width = config_count(m->config, "model.width"),
                        .parameters = s->figures.parameters,
                        .batch_rows = s->batch_rows,
                        .training_bytes = s->memory.total,
                        .step = m->engine.step,
                        .end = m->tokenizer ? tokenizer_end(m->tokenizer) : -1,
                        .threads = (int)device_about(m->device)->threads};
    snprintf(out->isa, sizeof out->isa, "%s", isa_name(m->isa));
    session_close(plan);
    return OK;
}

keel_status keel_about(keel_model *m, keel_facts *out)
{
    if (!handle_enter(m)) return KEEL_ERROR_USAGE;
    return handle_leave(m, about(m, out));
}

static status value(keel_model *m, const char *key, char **out)
{
    if (!key || !out) return fail(ERR_USAGE, "no key, or no place for its value");
    TRY(need_config(m));
    const config_key *row = config_find_key(key);
    if (!row || strstr(key, "[]") || row->type == KEY_LIST)
        return fail(ERR_USAGE, "%s: %s; 'keel config explain' lists the keys", key,
                    row ? "a list, not one value" : "no such key");
    const char *text = config_applies(m->config, key) ? config_text(m->config, key) : "none";
    *out = strdup(text ? text : "none");
    return *out ? OK : no_memory();
}

keel_status keel_value(keel_model *m, const char *key, char **out)
{
    if (!handle_enter(m)) return KEEL_ERROR_USAGE;
    return handle_leave(m, value(m, key, out));
}

/* ---- saving */

static run_state state_now(const keel_model *m)
{
    run_state r = {.step = m->engine.step,
                   .tokens_seen = m->engine.tokens_seen,
                   .threads = device_about(m->device)->threads};
    snprintf(r.identity, sizeof r.identity, "%016llx", (unsigned long long)identity_of(m->config, 0));
    snprintf(r.data, sizeof r.data, "%016x", 0);
    snprintf(r.code, sizeof r.code, "%s", code_version());
    snprintf(r.isa, sizeof r.isa, "%s", isa_name(m->isa));
    return r;
}

static status save_into(keel_model *m, checkpoint_store *to, const char *tokenizer)
{
    text given = {0};
    run_state state = state_now(m);
    config_write(m->config, &given);
    status s = save_session(to, m->engine.session, &state, &given, tokenizer, NULL, true);
    text_free(&given);
    return s ? s : checkpoint_wait(to);
}

/* The checkpoint takes its tokenizer from a file: one that stands there meanwhile, under a name that is swept
 * with others' if this process dies. */
static status write_tokenizer(const keel_model *m, const char *folder, char **path)
{
    if (asprintf(path, "%s/tokenizer.json.tmp-%ld", folder, (long)getpid()) < 0) {
        *path = NULL;
        return fail(ERR_MEMORY, "%s: out of memory", folder);
    }
    return tokenizer_save(m->tokenizer, *path);
}

static status save_model(keel_model *m, const char *folder)
{
    checkpoint_store *to;
    char *tokenizer = NULL;
    if (!folder || !*folder) return fail(ERR_USAGE, "no folder to save into");
    TRY(need_session(m));
    if (names_tokenizer(m)) TRY(need_tokenizer(m));
    TRY(checkpoint_open(folder, &(checkpoint_options){0}, &to));
    status s = m->tokenizer ? write_tokenizer(m, folder, &tokenizer) : OK;
    if (!s) s = save_into(m, to, tokenizer);
    if (tokenizer) unlink(tokenizer);
    free(tokenizer);
    status last = checkpoint_close(to);
    if (!s) return last;
    status_drop(last);
    return s;
}

keel_status keel_save(keel_model *m, const char *folder)
{
    if (!handle_enter(m)) return KEEL_ERROR_USAGE;
    return handle_leave(m, save_model(m, folder));
}
