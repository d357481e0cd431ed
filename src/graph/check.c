/* The proof of an op: kernel against definition, gradient against central differences, laws. See trial.h.
 *
 * Errors are relative to |reference| + rms(reference): a sum that nearly cancels is held to the scale of its
 * tensor. Limits: f32 1e-5 (sums of a few thousand terms in another order); bf16 2^-8 (outputs are rounded
 * once, 2^-9; kernels may round one intermediate); gradients 1e-6 (central differences at 1e-5 in double). */
#include "base/random.h"
#include "graph/trial.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const double LIMIT_F32 = 1e-5, LIMIT_BF16 = 1.0 / 256, LIMIT_GRADIENT = 1e-6;

static double relative_error(const double *x, const double *reference, i64 n)
{
    double sum = 0, worst = 0;
    for (i64 i = 0; i < n; i++) sum += reference[i] * reference[i];
    double scale = sqrt(sum / (double)MAX(n, 1));
    for (i64 i = 0; i < n; i++) {
        double d = fabs(x[i] - reference[i]);
        if (!(d == 0))
            worst = fmax(worst, isfinite(d) ? d / (fabs(reference[i]) + scale + 1e-300) : INFINITY);
    }
    return worst;
}

typedef struct checker {
    device *d;
    op_id op;
    const op_def *def;
    const op_case *one;
    isa level; // ISA_COUNT: all
    check_report *r;
} checker;

/* One line, ending with the command that repeats the failure. LEVEL: ISA_COUNT where none matters. */
static void note(checker *c, const char *what, dtype t, isa level, double error, double limit)
{
    text *out = c->r->failures;
    c->r->failed++;
    text_add(out, "%s", c->def->name);
    if (c->one) text_add(out, ", case '%s'", c->one->label);
    if (level < ISA_COUNT) text_add(out, ", %s %s", isa_name(level), dtype_name(t));
    text_add(out, ": %s: error %.3g, limit %.3g; repeat: keel op check", what, error, limit);
    if (level < ISA_COUNT) text_add(out, " --isa %s", isa_name(level));
    text_add(out, c->one ? " %s \"%s\"\n" : " %s\n", c->def->name, c->one ? c->one->line : "");
}

/* A case that could not be run at all is a failure like any other; the next case goes on. */
static void note_status(checker *c, status s)
{
    if (!s) return;
    c->r->failed++;
    text_add(c->r->failures, "%s, case '%s': %s; repeat: keel op check %s \"%s\"\n", c->def->name,
             c->one->label, s->message, c->def->name, c->one->line);
    status_drop(s);
}

static double *scratch(trial *t, i64 n) { return arena_array(t->arena, double, n); }

/* Compares one tensor of the kernel run with the oracle's, scaled (an accumulated output has run twice). */
static void compare(checker *c, trial *t, const tensor *x, const char *name, double times, dtype act,
                    isa level)
{
    i64 n = count(x);
    double *got = scratch(t, n), *want = scratch(t, n), limit;
    trial_read(t, x, got);
    memcpy(want, oracle_data(t->oracle, x), sizeof(double) * (size_t)n);
    for (i64 i = 0; i < n; i++) want[i] *= times;
    double error = relative_error(got, want, n);
    limit = x->dtype == DT_I32                              ? 0
            : act == DT_BF16 && t->spec.tolerance_bf16 >= 0 ? t->spec.tolerance_bf16
            : t->spec.tolerance >= 0                        ? t->spec.tolerance
            : act == DT_BF16                                ? LIMIT_BF16
                                                            : LIMIT_F32;
    double *worst = act == DT_BF16 ? &c->r->worst_kernel_bf16 : &c->r->worst_kernel_f32;
    *worst = fmax(*worst, error);
    c->r->comparisons++;
    if (!(error <= limit)) note(c, name, act, level, error, limit);
}

static bool same_bits_again(trial *t, device *d, isa level)
{
    i64 n = 0, at = 0;
    for (int i = 0; i < t->n->n_out; i++) n += t->out[i] ? count(t->out[i]) : 0;
    double *first = scratch(t, n), *second = scratch(t, n);
    for (int i = 0; i < t->n->n_out; at += t->out[i] ? count(t->out[i]) : 0, i++)
        if (t->out[i]) trial_read(t, t->out[i], first + at);
    status_drop(trial_kernel(t, d, level));
    at = 0;
    for (int i = 0; i < t->n->n_out; at += t->out[i] ? count(t->out[i]) : 0, i++)
        if (t->out[i]) trial_read(t, t->out[i], second + at);
    return !memcmp(first, second, sizeof(double) * (size_t)n);
}

static status check_kernel(checker *c, dtype act, isa level)
{
    trial *t;
    TRY(trial_open(c->op, c->one->line, act, 0, &t));
    status s = trial_oracle(t);
    if (!s) s = trial_kernel(t, c->d, level);
    for (int i = 0; !s && i < t->n->n_out; i++)
        if (t->out[i]) compare(c, t, t->out[i], c->def->out[i].name, 1, act, level);
    if (!s && !same_bits_again(t, c->d, level)) note(c, "equal runs differ in bits", act, level, 1, 0);
    trial_close(t);
    return s;
}

static status check_accumulation(checker *c, dtype act, isa level)
{
    trial *t;
    TRY(trial_open(c->op, c->one->line, act, TRIAL_ACCUMULATE, &t));
    status s = trial_oracle(t);
    if (!s) s = trial_kernel(t, c->d, level);
    if (!s) s = trial_kernel(t, c->d, level);
    for (int i = 0; !s && i < t->n->n_out; i++)
        if (t->n->accumulate >> i & 1) compare(c, t, t->out[i], c->def->out[i].name, 2, act, level);
    trial_close(t);
    return s;
}

/* The scalar that gradients are checked on: outputs weighted by the seeds; of a loss, the sum of output 0. */
static double objective(const trial *t)
{
    double sum = 0;
    bool loss = t->n->def->flags & OP_LOSS;
    for (int i = 0; i < (loss ? 1 : t->n->n_out); i++) {
        const tensor *out = t->n->out[i];
        if (!out || (!loss && !t->seed[i])) continue;
        const double *y = oracle_data(t->oracle, out);
        for (i64 j = 0; j < count(out); j++) sum += y[j] * (loss ? 1 : t->seed_value[i][j]);
    }
    return sum;
}

/* The derivative along DIRECTION by five points: (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12 h, wrong by h^4
 * f^(5) / 30. Three points are not enough where the scale of a curve is an epsilon of 1e-5 (a norm of a row
 * of zeros). */
static status slope(trial *t, int input, const double *direction, double h, double *out)
{
    static const double at[4] = {1, -1, 2, -2}, weight[4] = {8, -8, -1, 1};
    i64 n = count(t->in[input]);
    double *x = t->value[input], sum = 0;
    double *saved = scratch(t, n);
    memcpy(saved, x, sizeof(double) * (size_t)n);
    for (int k = 0; k < 4; k++) {
        for (i64 j = 0; j < n; j++) x[j] = saved[j] + at[k] * h * direction[j];
        TRY(trial_oracle(t));
        sum += weight[k] * objective(t);
    }
    memcpy(x, saved, sizeof(double) * (size_t)n);
    *out = sum / (12 * h);
    return OK;
}

static status check_input_gradient(checker *c, trial *t, int input)
{
    i64 n = count(t->in[input]);
    double *g = scratch(t, n), *direction = scratch(t, n), norm = 0;
    if (t->grad[input]) memcpy(g, oracle_data(t->oracle, t->grad[input]), sizeof(double) * (size_t)n);
    for (i64 j = 0; j < n; j++) norm += g[j] * g[j];
    norm = sqrt(norm);
    oracle_hold(t->oracle, true);
    for (int trial_no = 0; trial_no < 5; trial_no++) { // two random directions, three coordinates
        double along = 0, measured;
        for (i64 j = 0; j < n; j++)
            direction[j] = trial_no < 2 ? random_normal(7, (u64)input, (u64)trial_no, (u64)j) : 0;
        if (trial_no >= 2) direction[random_bits(9, (u64)input, (u64)trial_no, 0) % (u64)n] = 1;
        for (i64 j = 0; j < n; j++) along += g[j] * direction[j];
        TRY(slope(t, input, direction, 1e-5, &measured));
        double error = fabs(along - measured) / (fabs(along) + fabs(measured) + 0.01 * norm + 1e-9);
        c->r->worst_gradient = fmax(c->r->worst_gradient, isfinite(error) ? error : INFINITY);
        if (!(error <= LIMIT_GRADIENT)) {
            char what[96];
            snprintf(what, sizeof what, "gradient of %s", c->def->in[input].name);
            note(c, what, DT_F32, ISA_COUNT, error, LIMIT_GRADIENT);
            break;
        }
    }
    oracle_hold(t->oracle, false);
    return OK;
}

static status check_gradient(checker *c)
{
    trial *t;
    TRY(trial_open(c->op, c->one->line, DT_F32, TRIAL_BACKWARD, &t));
    status s = trial_oracle(t);
    for (int i = 0; !s && i < MAX_IN; i++)
        if (t->in[i] && t->in[i]->wants_grad) {
            s = trial_oracle(t);
            if (!s) s = check_input_gradient(c, t, i);
        }
    trial_close(t);
    return s;
}

static status check_case(checker *c)
{
    cpu_facts cpu;
    case_spec spec;
    TRY(case_parse(c->def, c->one->line, &spec));
    if (spec.bench) return OK;
    c->r->cases++;
    cpu_detect(&cpu);
    for (isa level = ISA_PLAIN; level <= cpu.level; level++) {
        if (!op_table(level, c->op) || (c->level != ISA_COUNT && c->level != level)) continue;
        for (dtype act = DT_F32; act <= DT_BF16; act++) {
            if (act == DT_F32 ? !spec.f32 && spec.bf16 : !spec.bf16) continue;
            TRY(check_kernel(c, act, level));
            if (c->def->flags & OP_ACCUMULATES) TRY(check_accumulation(c, act, level));
        }
    }
    bool differences = c->def->vjp && !spec.no_grad && !(c->def->flags & OP_SURROGATE);
    return differences ? check_gradient(c) : OK;
}

/* ---- laws: they run the definition only */
struct law {
    trial *t;
    status failed;
};
static int law_index(law *l, const char *name)
{
    for (int i = 0; i < MAX_IN && l->t->n->def->in[i].name; i++)
        if (!strcmp(l->t->n->def->in[i].name, name) && l->t->in[i]) return i;
    return -1;
}
double *law_in(law *l, const char *name)
{
    int i = law_index(l, name);
    return i < 0 ? NULL : l->t->value[i];
}
i64 law_count(law *l, const char *name)
{
    int i = law_index(l, name);
    return i < 0 ? 0 : count(l->t->in[i]);
}
const double *law_run(law *l, int output)
{
    if (!l->failed) l->failed = trial_oracle(l->t);
    return oracle_data(l->t->oracle, l->t->n->out[output]);
}

static status check_law(checker *c, const op_law *the)
{
    law l = {0};
    TRY(trial_open(c->op, the->line, DT_F32, 0, &l.t));
    status s = oracle_open(l.t->g, &l.t->oracle);
    double v = s ? 0 : the->violation(&l);
    if (!s) s = l.failed;
    c->r->worst_law = fmax(c->r->worst_law, v);
    if (!s && !(v <= the->limit)) note(c, "law broken", DT_F32, ISA_COUNT, v, the->limit);
    trial_close(l.t);
    return s;
}

static bool chosen(const char *only, const char *label, const char *line)
{
    return !only || !strcmp(only, label) || !strcmp(only, line);
}

static status no_such_case(const checker *c, const char *only)
{
    text t = {0};
    for (const op_case *k = c->def->cases; k && k->label; k++)
        text_add(&t, "%s'%s'", t.bytes ? ", " : "", k->label);
    for (const op_law *k = c->def->laws; k && k->label; k++)
        text_add(&t, "%s'%s'", t.bytes ? ", " : "", k->label);
    status s =
        fail(ERR_USAGE, "%s has no case '%s'; it has %s; a case of your own is a line like \"x=5x129 bf16\"",
             c->def->name, only, t.data ? t.data : "none");
    text_free(&t);
    return s;
}

status op_check(device *d, op_id op, const char *only, isa level, check_report *r)
{
    checker c = {.d = d, .op = op, .def = op_table(ISA_PLAIN, op), .level = level, .r = r};
    i64 matched = 0;
    for (const op_case *k = c.def->cases; k && k->label; k++)
        if (chosen(only, k->label, k->line)) {
            c.one = k;
            matched++;
            note_status(&c, check_case(&c));
        }
    for (const op_law *k = c.def->laws; k && k->label; k++)
        if (chosen(only, k->label, k->line)) {
            matched++;
            c.one = &(op_case){k->label, k->line};
            note_status(&c, check_law(&c, k));
        }
    if (!matched && only) { // a line that is not in the table is a case all the same
        c.one = &(op_case){"given", only};
        return strchr(only, '=') ? check_case(&c) : no_such_case(&c, only);
    }
    if (!r->cases && !only) {
        c.one = NULL;
        note(&c, "has no cases", DT_F32, ISA_COUNT, 1, 0);
    }
    return OK;
}
