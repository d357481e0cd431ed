/* Cases and trials: see trial.h; the language of case lines is described at op_case in ops/op.h. */
#include "graph/trial.h"
#include "base/random.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- case lines */

static int arg_index(const op_arg *args, const char *name, size_t n)
{
    for (int i = 0; i < MAX_IN && args[i].name; i++)
        if (strlen(args[i].name) == n && !strncmp(args[i].name, name, n)) return i;
    return -1;
}

static bool parse_shape(const char *s, case_input *in)
{
    char *end;
    for (in->ndim = 0; in->ndim < MAX_DIMS; s = end + 1) {
        long long d = strtoll(s, &end, 10);
        if (end == s || d < 1 || d > 1 << 30) return false;
        in->dim[in->ndim++] = d;
        if (*end == 0) return true;
        if (*end != 'x') return false;
    }
    return false;
}

static status parse_fill(const op_def *def, const char *word, const char *value, case_spec *out)
{
    int one = -1;
    if (word[4] == '.') {
        one = arg_index(def->in, word + 5, strcspn(word + 5, "="));
        if (one < 0) return fail(ERR_USAGE, "case of %s: '%s' names no input", def->name, word);
    }
    for (int i = 0; i < MAX_IN && def->in[i].name; i++)
        if ((one < 0 && def->in[i].kind != ARG_I32) || one == i)
            snprintf(out->in[i].fill, sizeof out->in[i].fill, "%s", value);
    return OK;
}

static status parse_word(const op_def *def, const char *word, int *n_attrs, case_spec *out)
{
    const char *equals = strchr(word, '=');
    if (!strcmp(word, "f32")) return out->f32 = true, OK;
    if (!strcmp(word, "bf16")) return out->bf16 = true, OK;
    if (!strcmp(word, "bench")) return out->bench = true, OK;
    if (!equals) return fail(ERR_USAGE, "case of %s: cannot read '%s'", def->name, word);
    const char *value = equals + 1;
    size_t n = (size_t)(equals - word);
    if (!strncmp(word, "fill", 4) && (n == 4 || word[4] == '.')) return parse_fill(def, word, value, out);
    if (!strcmp(word, "grad=0")) return out->no_grad = true, OK;
    if (!strncmp(word, "tol=", 4) && parse_double(value, &out->tolerance)) return OK;
    if (!strncmp(word, "tol.bf16=", 9) && parse_double(value, &out->tolerance_bf16)) return OK;
    int i = arg_index(def->in, word, n);
    if (i >= 0 && parse_shape(value, &out->in[i])) return out->in[i].present = true, OK;
    for (int k = 0; i < 0 && k < MAX_ATTRS && def->attrs[k].name; k++)
        if (strlen(def->attrs[k].name) == n && !strncmp(def->attrs[k].name, word, n) &&
            *n_attrs < MAX_ATTRS && parse_double(value, &out->attrs[*n_attrs].value)) {
            out->attrs[(*n_attrs)++].name = def->attrs[k].name;
            return OK;
        }
    return fail(ERR_USAGE, "case of %s: cannot read '%s'", def->name, word);
}

status case_parse(const op_def *def, const char *line, case_spec *out)
{
    int n_attrs = 0;
    char word[128];
    *out = (case_spec){.tolerance = -1, .tolerance_bf16 = -1};
    for (int i = 0; i < MAX_IN && def->in[i].name; i++)
        snprintf(out->in[i].fill, sizeof out->in[i].fill, "%s", def->in[i].fill ? def->in[i].fill : "normal");
    for (const char *p = line; *p;) {
        size_t n = strcspn(p, " ");
        snprintf(word, sizeof word, "%.*s", (int)n, p);
        if (n) TRY(parse_word(def, word, &n_attrs, out));
        p += n + (p[n] == ' ');
    }
    return OK;
}

/* ---- values */

static double round_to(double x, dtype t)
{
    return t == DT_BF16 ? (double)bf16_to_f32(f32_to_bf16((float)x)) : t == DT_F32 ? (double)(float)x : x;
}

static status fill_values(const char *fill, u64 stream, const tensor *t, double *x)
{
    const char *colon = strchr(fill, ':');
    double k = colon ? atof(colon + 1) : 0;
    size_t n = colon ? (size_t)(colon - fill) : strlen(fill);
    static const char *const kinds[] = {"normal", "zero",    "one",      "pm2",  "ints",
                                        "pow2",   "big",     "below",    "iota", "targets",
                                        "starts", "around1", "positive", "cuts", "reverse"};
    int kind = 0;
    while (kind < COUNT(kinds) && (strlen(kinds[kind]) != n || strncmp(kinds[kind], fill, n))) kind++;
    i64 width = cols(t);
    for (i64 i = 0; i < count(t); i++) {
        double u = random_uniform(1, stream, 0, (u64)i), z = random_normal(2, stream, 0, (u64)i);
        switch (kind) {
        case 0:
            x[i] = z;
            break;
        case 1:
            x[i] = 0;
            break;
        case 2:
            x[i] = 1;
            break;
        case 3:
            x[i] = u < 0.5 ? -2 : 2;
            break;
        case 4:
            x[i] = floor(u * 7) - 3;
            break;
        case 5:
            x[i] = ldexp(u < 0.5 ? -1 : 1, (int)(z * 2));
            break;
        case 6:
            x[i] = i % 7 == 3 ? 1e4 : z;
            break;
        case 7:
            x[i] = floor(u * k);
            break;
        case 8:
            x[i] = (double)(i % width);
            break;
        case 9:
            x[i] = i % 5 == 2 ? -1 : floor(u * k);
            break;
        case 10:
            x[i] = i % width == 0 ? 0 : u < 1 / k ? (double)(i % width) : x[i - 1];
            break;
        case 11:
            x[i] = 1 + 0.1 * z;
            break;
        case 12:
            x[i] = 0.5 + u;
            break;
        case 13: // 0 at the start, K at the end, uneven steps up between them, some of none
            x[i] = i ? fmax(x[i - 1], floor(k * fmin(1, ((double)i + 2 * u - 1) / (double)(width - 1)))) : 0;
            if (i == width - 1) x[i] = k;
            break;
        case 14:
            x[i] = (double)(count(t) - 1 - i);
            break;
        default:
            return fail(ERR_USAGE, "fill=%s is not known", fill);
        }
        x[i] = round_to(x[i], t->dtype);
    }
    return OK;
}

/* ---- trials */

/* The inputs' values: those given (rounded to their storage unless exact), or made from the case's line. */
static status input_values(trial *t, const op_def *def, const char *line, const trial_given *given)
{
    u64 stream = line ? random_stream(line) : 0;
    for (int i = 0; i < MAX_IN; i++) {
        const tensor *in = t->in[i];
        if (!in) continue;
        double *x = t->value[i] = arena_array(t->arena, double, count(in));
        for (i64 k = 0; given && k < count(in); k++)
            x[k] = given->exact ? given->in[i][k] : round_to(given->in[i][k], in->dtype);
        if (!given)
            TRY(wrap(fill_values(t->spec.in[i].fill, stream ^ random_stream(def->in[i].name), in, x),
                     "case of %s", def->name));
        if (in->dtype == DT_I32) TRY(index_check(t->n, i, x));
    }
    return OK;
}

static status seed_values(trial *t, const op_def *def, const char *line, const trial_given *given)
{
    u64 stream = line ? random_stream(line) : 0;
    for (int i = 0; i < MAX_OUT; i++) {
        const tensor *seed = t->seed[i];
        if (!seed) continue;
        double *x = t->seed_value[i] = arena_array(t->arena, double, count(seed));
        for (i64 k = 0; given && k < count(seed); k++)
            x[k] = given->exact ? given->seed[i][k] : round_to(given->seed[i][k], seed->dtype);
        if (!given) TRY(fill_values("normal", stream ^ random_stream(def->out[i].name), seed, x));
    }
    return OK;
}

static status seed_fits(const op_def *def, int i, const tensor *out, const case_input *given)
{
    if (given->ndim == out->ndim && !memcmp(given->dim, out->dim, sizeof *out->dim * (size_t)out->ndim))
        return OK;
    return fail(ERR_INPUT,
                "%s: grad.%s must have the shape of output %s: %lld rows of %lld, as many axes (%d)",
                def->name, def->out[i].name, def->out[i].name, (long long)rows_of(out), (long long)cols(out),
                out->ndim);
}

static status trial_backward(trial *t, const op_def *def, const trial_given *given)
{
    tensor *outputs[MAX_OUT], *seeds[MAX_OUT];
    int n = 0;
    for (int i = 0; i < t->n->n_out; i++) {
        tensor *out = t->n->out[i];
        if (!out || out->dtype == DT_I32 || def->out[i].fixed || def->flags & OP_LOSS) continue;
        if (given && !given->seed[i]) continue;
        if (given) TRY(seed_fits(def, i, out, &given->seed_shape[i]));
        char *path = arena_printf(t->arena, "grad.%s", def->out[i].name);
        t->seed[i] = g_input(t->g, path, out->dtype, out->ndim, out->dim);
        outputs[n] = out;
        seeds[n++] = t->seed[i];
    }
    TRY(graph_backward(t->g, outputs, seeds, n));
    for (int i = 0; i < MAX_IN; i++) t->grad[i] = t->in[i] ? graph_grad(t->g, t->in[i]) : NULL;
    return OK;
}

/* Parameter gradients are added into f32 buffers: rebind those outputs to tallies, as autodiff does. */
static void trial_accumulate(trial *t, const op_def *def)
{
    for (int i = 0; i < t->n->n_out; i++) {
        tensor *out = t->n->out[i];
        if (!out || def->out[i].kind != ARG_F32 || def->out[i].fixed) continue;
        t->n->out[i] =
            g_tally(t->g, arena_printf(t->arena, "tally.%s", def->out[i].name), out->ndim, out->dim);
        t->n->accumulate |= 1u << i;
    }
}

/* The leaves and the node; outputs are kept before graph_backward, which prunes what nobody reads. */
static status trial_node(trial *t, op_id op, const op_def *def, dtype act, bool backward)
{
    int n_in = 0;
    t->g = graph_new(t->arena, &(graph_options){.act = act, .stream = act});
    for (int i = 0; i < MAX_IN && def->in[i].name; i++) {
        const op_arg *a = &def->in[i];
        if (!t->spec.in[i].present) continue;
        dtype type = a->kind == ARG_I32 ? DT_I32 : a->kind == ARG_F32 ? DT_F32 : act;
        bool state = i == 0 && def->flags & OP_COMMIT; // what it writes is what it is given
        t->in[i] = (state ? g_state : g_input)(t->g, a->name, type, t->spec.in[i].ndim, t->spec.in[i].dim);
        t->in[i]->wants_grad = type != DT_I32 && !a->fixed && backward;
        n_in = i + 1;
    }
    t->n = g_node(t->g, op, t->in, n_in, t->spec.attrs);
    TRY(graph_status(t->g));
    TRY(shapes_check(t->n));
    for (int i = 0; i < t->n->n_out; i++)
        if (t->n->out[i]) t->n->out[i]->keep = true;
    return OK;
}

static status trial_build(trial *t, op_id op, const char *line, const trial_given *given, dtype act, int what)
{
    const op_def *def = op_table(ISA_PLAIN, op);
    if (given)
        t->spec = given->spec;
    else
        TRY(case_parse(def, line, &t->spec));
    TRY(trial_node(t, op, def, act, what & TRIAL_BACKWARD));
    TRY(input_values(t, def, line, given));
    if (what & TRIAL_BACKWARD) TRY(trial_backward(t, def, given));
    if (what & TRIAL_ACCUMULATE) trial_accumulate(t, def);
    for (int i = 0; i < t->n->n_out; i++) t->out[i] = t->n->out[i]; // now perhaps a tally
    TRY(graph_verify(t->g));
    return seed_values(t, def, line, given);
}

static status open_any(op_id op, const char *line, const trial_given *given, dtype act, int what, trial **out)
{
    arena *a;
    TRY(arena_open(&a));
    trial *t = arena_new(a, trial);
    t->arena = a;
    t->step = given ? given->step : (step_info){.seed = 1, .step = 3};
    status s = trial_build(t, op, line, given, act, what);
    if (s)
        trial_close(t);
    else
        *out = t;
    return s;
}

status trial_open(op_id op, const char *line, dtype act, int what, trial **out)
{
    return open_any(op, line, NULL, act, what, out);
}

status trial_open_given(op_id op, const trial_given *given, dtype act, trial **out)
{
    return open_any(op, NULL, given, act, given->backward ? TRIAL_BACKWARD : 0, out);
}

void trial_close(trial *t)
{
    if (!t) return;
    oracle_close(t->oracle);
    program_close(t->program);
    store_close(t->store);
    graph_close(t->g);
    arena_close(t->arena);
}

static void copy_values(double *to, const double *from, const tensor *t)
{
    memcpy(to, from, sizeof(double) * (size_t)count(t));
}

status trial_oracle(trial *t)
{
    if (!t->oracle) TRY(oracle_open(t->g, &t->oracle));
    for (int i = 0; i < MAX_IN; i++)
        if (t->in[i]) copy_values(oracle_data(t->oracle, t->in[i]), t->value[i], t->in[i]);
    for (int i = 0; i < MAX_OUT; i++)
        if (t->seed[i]) copy_values(oracle_data(t->oracle, t->seed[i]), t->seed_value[i], t->seed[i]);
    return oracle_run(t->oracle, &t->step, true);
}

static void write_leaf(const program *p, const tensor *t, const double *from)
{
    void *to = program_data(p, t);
    for (i64 i = 0; i < count(t); i++)
        if (t->dtype == DT_F32)
            ((float *)to)[i] = (float)from[i];
        else if (t->dtype == DT_BF16)
            ((bf16 *)to)[i] = f32_to_bf16((float)from[i]);
        else
            ((i32 *)to)[i] = (i32)from[i];
}

void trial_write(const trial *t)
{
    for (int i = 0; i < MAX_IN; i++)
        if (t->in[i]) write_leaf(t->program, t->in[i], t->value[i]);
    for (int i = 0; i < MAX_OUT; i++)
        if (t->seed[i]) write_leaf(t->program, t->seed[i], t->seed_value[i]);
}

status trial_kernel(trial *t, device *d, isa level)
{
    if (t->n->def->flags & OP_COMMIT && !t->store) TRY(store_open(t->arena, t->g, 0, &t->store));
    if (!t->program)
        TRY(program_open(t->g, t->store, &(program_options){.device = d, .isa = level}, &t->program));
    trial_write(t);
    program_run(t->program, &t->step, PHASE_BACKWARD);
    program_commit(t->program, &t->step);
    return OK;
}

void trial_read(const trial *t, const tensor *x, double *out)
{
    view v = program_view(t->program, x);
    for (i64 r = 0; r < v.rows; r++)
        for (i64 j = 0; j < v.n; j++) {
            i64 at = r * v.stride + j;
            out[r * v.n + j] = v.dtype == DT_F32    ? (double)((const float *)v.p)[at]
                               : v.dtype == DT_BF16 ? (double)bf16_to_f32(((const bf16 *)v.p)[at])
                                                    : (double)((const i32 *)v.p)[at];
        }
}
