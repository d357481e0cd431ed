/* keel op check: every kernel against its definition, every gradient against central differences of the
 * definition, every law; prints the worst relative errors of each op, then the failures. */
#include "cli/cli.h"
#include "cli/op.h"
#include "device/device.h"
#include "graph/trial.h"
#include <argp.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { OPT_JSON = 256, OPT_ISA };
typedef struct check_args {
    bool json;
    const char *isa, *name, *only;
} check_args;

static const struct argp_option options[] = {
    {"json", OPT_JSON, 0, 0, "Print one JSON object", 0},
    {"isa", OPT_ISA, "plain|v3|v4", 0, "Only the kernels of this level (default: all this machine runs)", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    check_args *a = state->input;
    switch (key) {
    case OPT_JSON:
        a->json = true;
        return 0;
    case OPT_ISA:
        a->isa = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 1) argp_error(state, "at most NAME and CASE");
        *(state->arg_num ? &a->only : &a->name) = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}
static const struct argp argp = {
    options,
    parse,
    "[OP [CASE]]",
    "Checks one operation or all. CASE is a case's label, its whole line, or a line of "
    "your own, for example \"x=5x129 gain=129 bf16\". Errors are relative to the "
    "definition in double. Exits with 1 if anything fails.",
    NULL,
    NULL,
    NULL};

static const char *show_error(double e, char out[16])
{
    if (e < 0)
        snprintf(out, 16, "-");
    else
        snprintf(out, 16, "%.1e", e);
    return out;
}

static void print_row(const char *name, const check_report *r, i64 failed)
{
    char a[16], b[16], c[16], d[16];
    printf("%-28s %5lld %11s %11s %11s %11s%s\n", name, (long long)r->cases,
           show_error(r->worst_kernel_f32, a), show_error(r->worst_kernel_bf16, b),
           show_error(r->worst_gradient, c), show_error(r->worst_law, d), failed ? "  FAILED" : "");
    fflush(stdout);
}

static json_t *error_number(double e) { return e >= 0 && isfinite(e) ? json_real(e) : json_null(); }
static json_t *json_row(const char *name, const check_report *r, i64 failed)
{
    return json_pack("{s:s,s:I,s:I,s:o,s:o,s:o,s:o,s:I}", "name", name, "cases", (json_int_t)r->cases,
                     "comparisons", (json_int_t)r->comparisons, "kernel_f32",
                     error_number(r->worst_kernel_f32), "kernel_bf16", error_number(r->worst_kernel_bf16),
                     "gradient", error_number(r->worst_gradient), "law", error_number(r->worst_law), "failed",
                     (json_int_t)failed);
}

static status check_range(const check_args *a, device *d, isa level, op_id first, op_id last, json_t *rows,
                          text *failures, i64 *failed)
{
    if (!a->json)
        printf("%-28s %5s %11s %11s %11s %11s\n", "operation", "cases", "kernel f32", "kernel bf16",
               "gradient", "law");
    for (op_id i = first; i < last; i++) {
        const char *name = op_table(ISA_PLAIN, i)->name;
        check_report r = {.worst_kernel_f32 = -1,
                          .worst_kernel_bf16 = -1,
                          .worst_gradient = -1,
                          .worst_law = -1,
                          .failures = failures};
        TRY(op_check(d, i, a->only, level, &r));
        *failed += r.failed;
        if (a->json)
            json_array_append_new(rows, json_row(name, &r, r.failed));
        else
            print_row(name, &r, r.failed);
    }
    return OK;
}

static status print_json(json_t *rows, const text *failures)
{
    json_t *o = json_pack("{s:O,s:s}", "operations", rows, "failures", failures->data ? failures->data : "");
    char *s = o ? json_dumps(o, JSON_REAL_PRECISION(6) | JSON_INDENT(1)) : NULL;
    json_decref(o);
    if (!s) return fail(ERR_MEMORY, "op check: cannot build the JSON object");
    puts(s);
    free(s);
    return OK;
}

status op_check_verb(int argc, char **argv)
{
    check_args a = {0};
    device *d;
    isa level = ISA_COUNT;
    op_id first = 0, last = OP_COUNT;
    i64 failed = 0;
    text failures = {0};
    TRY(cli_parse(&argp, argc, argv, &a));
    if (a.isa) TRY(isa_parse(a.isa, &level));
    if (a.name) {
        TRY(op_named(a.name, &first));
        last = first + 1;
    }
    TRY(device_open(&(device_options){.isa = a.isa}, &d));
    json_t *rows = json_array();
    status s = check_range(&a, d, level, first, last, rows, &failures, &failed);
    if (!s && a.json) s = print_json(rows, &failures);
    if (!s && !a.json && failed) printf("\n%s", failures.data);
    if (!s && failed)
        s = fail(ERR_CHECK, "op check: %lld failure%s; each line names the command that repeats it",
                 (long long)failed, failed == 1 ? "" : "s");
    text_free(&failures);
    json_decref(rows);
    device_close(d);
    return s;
}
