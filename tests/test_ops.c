/* Every op of the table, by itself: its cases and laws (what `keel op check` runs), and shapes that nobody
 * meant: each axis of each input of each case made one longer, one shorter or 1, each input left out. An op
 * may refuse those, but what it accepts must run: the sanitizer build then sees a definition that reads or
 * writes outside its arrays. */
#include "check.h"
#include "graph/trial.h"
#include <stdio.h>
#include <string.h>

static device *the_device;

static int set_up(void **state)
{
    (void)state;
    assert_ok(device_open(&(device_options){0}, &the_device));
    return 0;
}
static int tear_down(void **state)
{
    (void)state;
    device_close(the_device);
    return 0;
}

static void cases_and_laws(void **state)
{
    const op_id *op = *state;
    text failures = {0};
    check_report r = {.failures = &failures};
    assert_ok(op_check(the_device, *op, NULL, ISA_COUNT, &r));
    if (r.failed) fail_msg("%lld failed:\n%s", (long long)r.failed, failures.data);
    assert_true(r.cases > 0);
    text_free(&failures);
}

/* LINE with input K's axis AXIS set to SIZE, or without that input (SIZE 0). */
static void changed_line(const op_def *def, const case_spec *spec, const char *line, int k, int axis,
                         i64 size, text *out)
{
    char word[160];
    out->bytes = 0;
    for (const char *p = line; *p;) {
        size_t n = strcspn(p, " "), name = strcspn(p, "=");
        bool the_one = name < n && strlen(def->in[k].name) == name && !strncmp(def->in[k].name, p, name);
        snprintf(word, sizeof word, "%.*s", (int)n, p);
        if (!the_one) text_add(out, "%s ", word);
        if (the_one && size) text_add(out, "%s=", def->in[k].name);
        for (int d = 0; the_one && size && d < spec->in[k].ndim; d++)
            text_add(out, "%s%lld", d ? "x" : "", (long long)(d == axis ? size : spec->in[k].dim[d]));
        if (the_one && size) text_add(out, " ");
        p += n + (p[n] == ' ');
    }
}

/* Refused by name, or it runs. Returns 1 if it ran. */
static int refused_or_runs(op_id op, const char *line)
{
    trial *t;
    status s = trial_open(op, line, DT_F32, 0, &t);
    if (s) {
        if (s->code != ERR_CONFIG && s->code != ERR_INPUT) fail_msg("\"%s\": %s", line, s->message);
        status_drop(s);
        return 0;
    }
    s = trial_oracle(t);
    if (!s) s = trial_kernel(t, the_device, ISA_PLAIN);
    trial_close(t);
    assert_ok(s);
    return 1;
}

static void unmeant_shapes(void **state)
{
    const op_id op = *(const op_id *)*state;
    const op_def *def = op_table(ISA_PLAIN, op);
    text line = {0};
    case_spec spec;
    for (const op_case *c = def->cases; c && c->label; c++) {
        assert_ok(case_parse(def, c->line, &spec));
        for (int k = 0; k < MAX_IN && def->in[k].name && !spec.bench; k++) {
            if (!spec.in[k].present) continue;
            for (int axis = 0; axis < spec.in[k].ndim; axis++)
                for (int how = 0; how < 4; how++) {
                    i64 now = spec.in[k].dim[axis];
                    i64 size = (i64[]){now + 1, MAX(now - 1, 1), 1, 0}[how];
                    changed_line(def, &spec, c->line, k, axis, size, &line);
                    refused_or_runs(op, line.data);
                }
        }
    }
    text_free(&line);
}

int main(void)
{
    static op_id ids[OP_COUNT];
    static char names[OP_COUNT][2][96];
    struct CMUnitTest tests[2 * OP_COUNT];
    for (op_id i = 0; i < OP_COUNT; i++) {
        ids[i] = i;
        snprintf(names[i][0], sizeof names[i][0], "%s: cases and laws", op_table(ISA_PLAIN, i)->name);
        snprintf(names[i][1], sizeof names[i][1], "%s: unmeant shapes", op_table(ISA_PLAIN, i)->name);
        tests[2 * i] = (struct CMUnitTest){names[i][0], cases_and_laws, NULL, NULL, &ids[i]};
        tests[2 * i + 1] = (struct CMUnitTest){names[i][1], unmeant_shapes, NULL, NULL, &ids[i]};
    }
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
