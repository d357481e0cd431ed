/* Reading the sequences that fused ops name: see rewrite.h. */
#include "graph/rewrite.h"
#include <ctype.h>
#include <string.h>

typedef struct reader {
    arena *a;
    const char *at;
    const op_def *fused;
    rewrite_rule *rule;
} reader;

static status wrong(const reader *r, const char *what)
{
    return fail(ERR_CHECK, "op %s: %s in the sequence it replaces, at '%s' of \"%s\"", r->fused->name, what,
                r->at, r->rule->text);
}

static bool skip(reader *r, char c)
{
    while (*r->at == ' ') r->at++;
    if (*r->at != c) return false;
    r->at++;
    return true;
}

static char *word(reader *r)
{
    while (*r->at == ' ') r->at++;
    size_t n = 0;
    while (isalnum((unsigned char)r->at[n]) || r->at[n] == '_') n++;
    char *s = memcpy(arena_alloc(r->a, n + 1), r->at, n);
    r->at += n;
    return s;
}

/* "x, b, gain" into indices of names. */
static status names(reader *r, int most, int *out, int *n)
{
    rewrite_rule *u = r->rule;
    for (*n = 0;; ++*n) {
        const char *s = word(r);
        if (!*s) return wrong(r, "a name is missing");
        if (*n == most) return wrong(r, "too many names");
        int k = 0;
        while (k < u->n_names && strcmp(u->name[k], s)) k++;
        if (k == MAX_NAMES) return wrong(r, "too many names");
        if (k == u->n_names) u->name[u->n_names++] = s;
        out[*n] = k;
        if (!skip(r, ',')) return ++*n, OK;
    }
}

/* "y, s = rms_norm(h, gain)" */
static status read_step(reader *r)
{
    rewrite_rule *u = r->rule;
    if (u->n_steps == MAX_STEPS) return wrong(r, "too many steps");
    rewrite_step *s = &u->step[u->n_steps++];
    int before = u->n_names;
    TRY(names(r, MAX_OUT, s->out, &s->n_out));
    if (u->n_names != before + s->n_out) return wrong(r, "a name is computed after it was used");
    if (!skip(r, '=')) return wrong(r, "'=' is missing");
    if (!op_find(word(r), &s->op)) return wrong(r, "an unknown op");
    if (!skip(r, '(')) return wrong(r, "'(' is missing");
    TRY(names(r, MAX_IN, s->in, &s->n_in));
    if (!skip(r, ')')) return wrong(r, "')' is missing");
    for (int k = 0; k < s->n_in; k++)
        for (int m = 0; m < s->n_out; m++)
            if (s->in[k] == s->out[m]) return wrong(r, "a step reads what it computes");
    for (int k = 0; k < s->n_out; k++) u->made[s->out[k]] = true;
    return OK;
}

/* The fused op's own arguments, by name: inputs are what no step computes, outputs what one does. */
static status arguments(reader *r, const op_arg *args, int most, bool made, int *out)
{
    rewrite_rule *u = r->rule;
    for (int i = 0; i < most && args[i].name; i++) {
        out[i] = 0;
        while (out[i] < u->n_names && (strcmp(u->name[out[i]], args[i].name) || u->made[out[i]] != made))
            out[i]++;
        if (out[i] == u->n_names)
            return fail(ERR_CHECK, "op %s: its %s %s is not in the sequence it replaces, \"%s\"",
                        r->fused->name, made ? "output" : "input", args[i].name, u->text);
        u->inner[out[i]] = false;
    }
    return OK;
}

/* Every attribute of a step must be one of the fused op, and of no other step. */
static status attributes(reader *r)
{
    rewrite_rule *u = r->rule;
    int found = 0, declared = 0;
    while (declared < MAX_ATTRS && r->fused->attrs[declared].name) u->from[declared++].step = -1;
    for (int k = 0; k < u->n_steps; k++) {
        const op_attr *has = op_table(ISA_PLAIN, u->step[k].op)->attrs;
        for (int i = 0; i < MAX_ATTRS && has[i].name; i++, found++) {
            int m = 0;
            while (m < declared && strcmp(r->fused->attrs[m].name, has[i].name)) m++;
            if (m == declared || u->from[m].step >= 0)
                return fail(ERR_CHECK, "op %s: attribute %s of %s %s", r->fused->name, has[i].name,
                            op_table(ISA_PLAIN, u->step[k].op)->name,
                            m == declared ? "would be lost" : "is also one of an earlier step");
            u->from[m].step = k;
            u->from[m].attr = i;
        }
    }
    return found == declared
               ? OK
               : fail(ERR_CHECK, "op %s has attributes that no step of its sequence has", r->fused->name);
}

status rewrite_parse(arena *a, op_id fused, const char *text, rewrite_rule *out)
{
    reader r = {a, text, op_table(ISA_PLAIN, fused), out};
    *out = (rewrite_rule){.fused = fused, .text = text};
    do TRY(read_step(&r));
    while (skip(&r, ';'));
    if (*r.at) return wrong(&r, "';' is missing");
    for (int k = 0; k < out->n_names; k++) out->inner[k] = true;
    TRY(arguments(&r, r.fused->in, MAX_IN, false, out->in));
    TRY(arguments(&r, r.fused->out, MAX_OUT, true, out->out));
    for (int k = 0; k < out->n_names; k++)
        if (out->inner[k] && !out->made[k])
            return fail(ERR_CHECK, "op %s: %s is neither its input nor computed in \"%s\"", r.fused->name,
                        out->name[k], text);
    return attributes(&r);
}

status rewrite_rules(arena *a, rewrite_rule **out, i64 *n)
{
    *n = 0;
    *out = arena_array(a, rewrite_rule, OP_COUNT * MAX_REPLACES);
    for (op_id i = 0; i < OP_COUNT; i++)
        for (int k = 0; k < MAX_REPLACES && op_table(ISA_PLAIN, i)->replaces[k]; k++)
            TRY(rewrite_parse(a, i, op_table(ISA_PLAIN, i)->replaces[k], &(*out)[(*n)++]));
    return OK;
}
