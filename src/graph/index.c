/* Index inputs: values from outside (a file, a case line) are held against the range that an op documents
 * before a kernel uses them as addresses. See op_arg.range in ops/op.h. */
#include "base/text.h"
#include "graph/trial.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool axis_size(const node *n, const char *name, size_t bytes, const char *axis, i64 *out)
{
    i64 at;
    if (!parse_i64(axis, &at)) return false;
    for (int i = 0; i < n->n_in; i++) {
        if (strlen(n->def->in[i].name) != bytes || strncmp(n->def->in[i].name, name, bytes)) continue;
        *out = INT32_MAX; // the input is absent: it bounds nothing
        if (!n->in[i]) return true;
        if (at < 0) at += n->in[i]->ndim;
        *out = at >= 0 && at < n->in[i]->ndim ? n->in[i]->dim[at] : 0;
        return true;
    }
    return false;
}

/* The exclusive upper bound; 0 with *COLUMN set where it is the value's own column. */
static bool upper_bound(const node *n, const char *s, i64 *out, bool *column)
{
    const char *dot = strchr(s, '.');
    *column = !strcmp(s, "column");
    if (*column || parse_i64(s, out)) return true;
    if (dot) return axis_size(n, s, (size_t)(dot - s), dot + 1, out);
    for (int i = 0; i < MAX_ATTRS && n->def->attrs[i].name; i++)
        if (!strcmp(n->def->attrs[i].name, s)) return *out = (i64)n->attr[i], true;
    return false;
}

status index_check(const node *n, int input, const double *values)
{
    const op_arg *a = &n->def->in[input];
    char *end = NULL;
    i64 bound = 0, width = cols(n->in[input]);
    bool column = false;
    if (a->range && !strcmp(a->range, "any")) return OK;
    double low = a->range ? (double)strtoll(a->range, &end, 10) : 0;
    if (!a->range || *end != ':' || !upper_bound(n, end + 1, &bound, &column))
        return fail(ERR_CHECK,
                    "%s: index input %s documents no range that can be checked (op_arg.range is %s)",
                    n->def->name, a->name, a->range ? a->range : "missing");
    for (i64 i = 0; i < count(n->in[input]); i++) {
        double high = column ? (double)(i % width) : (double)bound - 1;
        if (!(values[i] >= low && values[i] <= high))
            return fail(ERR_INPUT, "%s: value %lld of %s is %.17g; it must be from %g to %.17g (%s)",
                        n->def->name, (long long)i, a->name, values[i], low, high, a->range);
    }
    return OK;
}
