/* keel op eval: one operation on the tensors of a safetensors file, by its kernel or by its definition in
 * double. */
#include "base/text.h"
#include "cli/cli.h"
#include "cli/op.h"
#include "format/safetensors.h"
#include "graph/trial.h"
#include <argp.h>
#include <stdio.h>
#include <string.h>

enum { OPT_IN = 256, OPT_OUT, OPT_REFERENCE, OPT_PRECISION, OPT_ISA, OPT_SEED, OPT_STEP };
/* Values are held in double, in arenas: bounds that keep them well below the arenas' address space. */
static const i64 MAX_ELEMENTS_IN = (i64)1 << 27, MAX_ELEMENTS_OUT = (i64)1 << 29;

typedef struct eval_args {
    const char *name, *in, *out, *isa;
    const char *attrs[MAX_ATTRS];
    int n_attrs;
    bool reference;
    dtype act;
    i64 seed, step;
} eval_args;

static const struct argp_option options[] = {
    {"in", OPT_IN, "FILE", 0, "safetensors file with the inputs by name, and grad.OUTPUT for gradients", 0},
    {"out", OPT_OUT, "FILE", 0, "safetensors file to write: outputs by name, and grad.INPUT", 0},
    {"reference", OPT_REFERENCE, 0, 0, "The definition in double, written as F64, instead of the kernel", 0},
    {"precision", OPT_PRECISION, "f32|bf16", 0, "Storage of the kernel's activations (default: f32)", 0},
    {"isa", OPT_ISA, "plain|v3|v4", 0, "Kernels of this level (default: the best this machine has)", 0},
    {"seed", OPT_SEED, "N", 0, "Seed of an operation that draws random numbers (default: 1)", 0},
    {"step", OPT_STEP, "N", 0, "Step of an operation that draws random numbers (default: 0)", 0},
    {0}};

static void take_number(const char *name, const char *arg, i64 *out, struct argp_state *state)
{
    if (!parse_i64(arg, out) || *out < 0)
        argp_error(state, "--%s is '%s'; it must be a number >= 0", name, arg);
}

static void take_argument(eval_args *a, char *arg, struct argp_state *state)
{
    if (!strchr(arg, '=')) {
        if (a->name)
            argp_error(state, "two operations, '%s' and '%s'; attributes are NAME=VALUE", a->name, arg);
        a->name = arg;
    } else {
        if (a->n_attrs == MAX_ATTRS) argp_error(state, "at most %d attributes", MAX_ATTRS);
        a->attrs[a->n_attrs++] = arg;
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    eval_args *a = state->input;
    switch (key) {
    case OPT_IN:
        a->in = arg;
        return 0;
    case OPT_OUT:
        a->out = arg;
        return 0;
    case OPT_REFERENCE:
        a->reference = true;
        return 0;
    case OPT_PRECISION:
        if (strcmp(arg, "f32") && strcmp(arg, "bf16"))
            argp_error(state, "--precision is '%s'; it must be f32 or bf16", arg);
        a->act = strcmp(arg, "f32") ? DT_BF16 : DT_F32;
        return 0;
    case OPT_ISA:
        a->isa = arg;
        return 0;
    case OPT_SEED:
        take_number("seed", arg, &a->seed, state);
        return 0;
    case OPT_STEP:
        take_number("step", arg, &a->step, state);
        return 0;
    case ARGP_KEY_ARG:
        take_argument(a, arg, state);
        return 0;
    case ARGP_KEY_END:
        if (!a->name) argp_error(state, "name an operation; 'keel op list' lists them");
        if (!a->in || !a->out) argp_error(state, "give --in FILE and --out FILE");
        if (a->reference && a->act == DT_BF16)
            argp_error(state, "--reference computes in double; leave --precision out");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {options,
                                 parse,
                                 "OP [ATTRIBUTE=VALUE...]",
                                 "Runs one operation on the tensors of a file. Numbers may be F64, F32 or "
                                 "BF16, indices I64 or I32. Where the file "
                                 "holds grad.OUTPUT, the gradients grad.INPUT are computed too (a loss needs "
                                 "none). Outputs are F32 (F64 with "
                                 "--reference), indices I64.",
                                 NULL,
                                 NULL,
                                 NULL};

/* ---- reading */

static status take_attrs(const eval_args *a, const op_def *def, op_set *out)
{
    for (int k = 0; k < a->n_attrs; k++) {
        size_t n = strcspn(a->attrs[k], "=");
        int i = 0;
        while (i < MAX_ATTRS && def->attrs[i].name &&
               (strlen(def->attrs[i].name) != n || strncmp(def->attrs[i].name, a->attrs[k], n)))
            i++;
        if (i == MAX_ATTRS || !def->attrs[i].name)
            return fail(ERR_USAGE, "%s has no attribute '%.*s'; 'keel op list %s' shows them", def->name,
                        (int)n, a->attrs[k], def->name);
        out[k].name = def->attrs[i].name;
        if (!parse_double(a->attrs[k] + n + 1, &out[k].value))
            return fail(ERR_USAGE, "%s: '%s' is not NAME=NUMBER", def->name, a->attrs[k]);
    }
    return OK;
}

static double element(const st_entry *e, i64 i)
{
    const char *at = (const char *)e->data + i * st_dtype_bytes(e->dtype);
    union {
        double f64;
        float f32;
        u16 bf16;
        i64 i64_;
        i32 i32_;
    } v;
    memcpy(&v, at, (size_t)st_dtype_bytes(e->dtype));
    return e->dtype == ST_F64    ? v.f64
           : e->dtype == ST_F32  ? (double)v.f32
           : e->dtype == ST_BF16 ? (double)bf16_to_f32(v.bf16)
           : e->dtype == ST_I64  ? (double)v.i64_
                                 : (double)v.i32_;
}

/* Shape and values of E, for an argument that holds indices or numbers. A scalar becomes [1]. */
static status take_tensor(arena *a, const st_entry *e, bool index, case_input *shape, const double **values)
{
    bool fits = index ? e->dtype == ST_I64 || e->dtype == ST_I32
                      : e->dtype == ST_F64 || e->dtype == ST_F32 || e->dtype == ST_BF16;
    if (!fits)
        return fail(ERR_INPUT, "%s holds %s; it must hold %s", e->name, st_dtype_name(e->dtype),
                    index ? "indices (I64 or I32)" : "numbers (F64, F32 or BF16)");
    if (e->n_dims > MAX_DIMS)
        return fail(ERR_INPUT, "%s has %d axes; at most %d", e->name, e->n_dims, MAX_DIMS);
    shape->present = true;
    shape->ndim = MAX(e->n_dims, 1);
    shape->dim[0] = 1;
    for (int i = 0; i < e->n_dims; i++) shape->dim[i] = e->dims[i];
    i64 n = e->bytes / st_dtype_bytes(e->dtype);
    if (!n) return fail(ERR_INPUT, "%s is empty", e->name);
    double *x = arena_array(a, double, n);
    for (i64 i = 0; i < n; i++) {
        x[i] = element(e, i);
        if (index && !(x[i] >= INT32_MIN && x[i] <= INT32_MAX))
            return fail(ERR_INPUT, "%s: value %lld is %.17g; an index must fit 32 bits", e->name,
                        (long long)i, x[i]);
    }
    *values = x;
    return OK;
}

static int arg_named(const op_arg *args, int n, const char *name)
{
    for (int i = 0; i < n && args[i].name; i++)
        if (!strcmp(args[i].name, name)) return i;
    return -1;
}

static status unknown_tensor(const op_def *def, const char *file, const char *name)
{
    text t = {0};
    for (int i = 0; i < MAX_IN && def->in[i].name; i++) text_add(&t, "%s, ", def->in[i].name);
    for (int i = 0; i < MAX_OUT && def->out[i].name; i++)
        if (!def->out[i].fixed && def->out[i].kind != ARG_I32) text_add(&t, "grad.%s, ", def->out[i].name);
    status s = fail(ERR_INPUT, "%s: %s has no input '%s'; it takes %.*s", file, def->name, name,
                    (int)MAX(t.bytes, 2) - 2, t.data ? t.data : "");
    text_free(&t);
    return s;
}

static status take_file(arena *a, const op_def *def, const char *path, const st_file *f, trial_given *out)
{
    i64 elements = 0;
    for (i64 k = 0; k < st_count(f); k++) {
        const st_entry *e = st_at(f, k);
        elements += e->bytes / st_dtype_bytes(e->dtype);
        if (elements > MAX_ELEMENTS_IN)
            return fail(ERR_INPUT, "%s: more than %lld elements in all; evaluate a part of them", path,
                        (long long)MAX_ELEMENTS_IN);
        int i = arg_named(def->in, MAX_IN, e->name);
        bool grad = i < 0 && !strncmp(e->name, "grad.", 5);
        if (grad) i = arg_named(def->out, MAX_OUT, e->name + 5);
        if (i < 0 || (grad && (def->out[i].fixed || def->out[i].kind == ARG_I32 || def->flags & OP_LOSS)))
            return unknown_tensor(def, path, e->name);
        if (grad)
            TRY(wrap(take_tensor(a, e, false, &out->seed_shape[i], &out->seed[i]), "%s", path));
        else
            TRY(wrap(take_tensor(a, e, def->in[i].kind == ARG_I32, &out->spec.in[i], &out->in[i]), "%s",
                     path));
        out->backward |= grad;
    }
    return OK;
}

/* ---- writing */

typedef struct result {
    arena *memory;
    trial *t;
    bool reference;
    st_entry entry[MAX_OUT + MAX_IN];
    i64 n, elements;
} result;

/* X's values go out under NAME. X NULL: zeros in the shape of LIKE (no path leads to that input). */
static status add_result(result *r, const char *name, const tensor *x, const tensor *like)
{
    bool index = like->dtype == DT_I32;
    i64 n = count(like);
    r->elements += n;
    if (r->elements > MAX_ELEMENTS_OUT)
        return fail(ERR_MEMORY, "%s: more than %lld elements of output; evaluate a part of them",
                    r->t->n->def->name, (long long)MAX_ELEMENTS_OUT);
    double *v = arena_array(r->memory, double, n);
    st_entry *e = &r->entry[r->n++];
    *e = (st_entry){.name = name, .n_dims = like->ndim, .data = v};
    e->dtype = index ? ST_I64 : r->reference ? ST_F64 : ST_F32;
    for (int i = 0; i < like->ndim; i++) e->dims[i] = like->dim[i];
    if (x && r->reference)
        memcpy(v, oracle_data(r->t->oracle, x), sizeof *v * (size_t)n);
    else if (x)
        trial_read(r->t, x, v);
    float *narrow_to = (float *)v; // in place: element i is read before anything is written over it
    i64 *whole = (i64 *)v;
    for (i64 i = 0; i < n && e->dtype != ST_F64; i++) {
        double value;
        memcpy(&value, (char *)v + i * 8, sizeof value);
        float f = (float)value;
        i64 k = (i64)value;
        if (index)
            memcpy(&whole[i], &k, sizeof k);
        else
            memcpy(&narrow_to[i], &f, sizeof f);
    }
    return OK;
}

static status write_results(result *r, const char *path)
{
    trial *t = r->t;
    const op_def *def = t->n->def;
    for (int i = 0; i < t->n->n_out; i++)
        if (t->out[i]) TRY(add_result(r, def->out[i].name, t->out[i], t->out[i]));
    for (int i = 0; i < MAX_IN; i++)
        if (t->in[i] && t->in[i]->wants_grad)
            TRY(add_result(r, arena_printf(r->memory, "grad.%s", def->in[i].name), t->grad[i], t->in[i]));
    return st_save(path, r->entry, r->n, NULL, 0, NULL);
}

static status run(const eval_args *a, trial *t)
{
    device *d;
    if (a->reference) return trial_oracle(t);
    TRY(device_open(&(device_options){.isa = a->isa}, &d));
    status s = trial_kernel(t, d, device_about(d)->level);
    device_close(d);
    return s;
}

static status evaluate(const eval_args *a, op_id op, arena *memory, const st_file *f)
{
    const op_def *def = op_table(ISA_PLAIN, op);
    trial_given *given = arena_new(memory, trial_given);
    result *r = arena_new(memory, result);
    TRY(take_attrs(a, def, given->spec.attrs));
    TRY(take_file(memory, def, a->in, f, given));
    given->exact = a->reference;
    given->step = (step_info){.seed = (u64)a->seed, .step = (u64)a->step};
    given->backward |= def->flags & OP_LOSS && def->vjp;
    TRY(trial_open_given(op, given, a->act, &r->t));
    status s = run(a, r->t);
    r->memory = memory;
    r->reference = a->reference;
    if (!s) s = write_results(r, a->out);
    trial_close(r->t);
    return s;
}

status op_eval_verb(int argc, char **argv)
{
    eval_args a = {.seed = 1};
    op_id op;
    arena *memory;
    st_file *f;
    TRY(cli_parse(&argp, argc, argv, &a));
    TRY(op_named(a.name, &op));
    TRY(st_open(a.in, &f));
    status s = arena_open(&memory);
    if (!s) {
        s = evaluate(&a, op, memory, f);
        arena_close(memory);
    }
    st_close(f);
    return s;
}
