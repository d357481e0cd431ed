/* Shapes that come from outside are held against the shapes an op documents (op_arg.shape) before anything
 * runs: what the page of operations says is what trials and `keel op eval` enforce, so that no op need fear a
 * file.
 *
 *     "[rows, n/heads]"   the last axes by expression; the first one stands for all leading axes together
 *
 * An expression is sums of quotients of terms such as 3, n, 2n. A name is an attribute's value or a symbol,
 * bound by the first input where it stands alone (or as 2n). In a sum, symbols of absent inputs count 0.
 * Expressions of other forms are documentation only, left to the op's infer. */
#include "graph/trial.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SYMBOLS = 32, MAX_ITEMS = MAX_DIMS };
typedef struct symbol {
    const char *name;
    size_t bytes;
    i64 value;
} symbol;
typedef struct scope {
    const node *n;
    symbol symbol[MAX_SYMBOLS];
    int n_symbols;
} scope;
typedef struct item { // one axis: its expression and what it is
    const char *at;
    size_t bytes;
    i64 size;
} item;

static size_t name_bytes(const char *s, const char *end)
{
    size_t n = 0;
    if (end - s >= 3 && !strncmp(s, "...", 3)) return 3;
    while (s + n < end &&
           (isalpha((unsigned char)s[n]) || s[n] == '_' || (n && isdigit((unsigned char)s[n]))))
        n++;
    return n;
}

static bool look_up(const scope *c, const char *name, size_t bytes, i64 *out)
{
    const op_attr *a = c->n->def->attrs;
    for (int i = 0; i < MAX_ATTRS && a[i].name; i++)
        if (strlen(a[i].name) == bytes && !strncmp(a[i].name, name, bytes))
            return *out = (i64)c->n->attr[i], true;
    for (int i = 0; i < c->n_symbols; i++)
        if (c->symbol[i].bytes == bytes && !strncmp(c->symbol[i].name, name, bytes))
            return *out = c->symbol[i].value, true;
    return false;
}

/* "3", "n", "2n". False: not of that form, or (*UNBOUND set) a name without a value. */
static bool factor(const scope *c, const char **p, const char *end, i64 *out, bool *unbound)
{
    char *rest = (char *)*p;
    i64 times = isdigit((unsigned char)**p) ? strtoll(*p, &rest, 10) : 1, value = 1;
    size_t bytes = name_bytes(rest, end);
    if (rest == *p && !bytes) return false;
    if (bytes && !look_up(c, rest, bytes, &value)) return *unbound = true, false;
    *p = rest + bytes;
    *out = times * value;
    return true;
}

static bool evaluate(const scope *c, const item *it, i64 *out)
{
    const char *p = it->at, *end = it->at + it->bytes;
    bool sum = memchr(p, '+', it->bytes) != NULL;
    for (*out = 0;; p++) {
        i64 term = 0, by;
        bool unbound = false;
        while (p < end && *p == ' ') p++;
        if (p == end) return false;
        if (!factor(c, &p, end, &term, &unbound)) {
            if (!unbound || !sum) return false;
            p += name_bytes(p, end); // the symbol of an absent input
        }
        while (p < end && *p == '/') {
            p++;
            if (!factor(c, &p, end, &by, &unbound) || by < 1) return false;
            term /= by;
        }
        *out += term;
        while (p < end && *p == ' ') p++;
        if (p == end) return true;
        if (*p != '+') return false;
    }
}

/* A symbol that stands alone, or as 2n, takes its value from the first input that has it. */
static void bind(scope *c, const item *it)
{
    const char *end = it->at + it->bytes;
    char *name = (char *)it->at;
    i64 times = isdigit((unsigned char)*it->at) ? strtoll(it->at, &name, 10) : 1, known;
    size_t bytes = name_bytes(name, end);
    if (!bytes || name + bytes != end || times < 1 || look_up(c, name, bytes, &known)) return;
    if (c->n_symbols < MAX_SYMBOLS) c->symbol[c->n_symbols++] = (symbol){name, bytes, it->size / times};
}

/* The axes of T by the documented SHAPE; the first takes all leading axes. -1: T has too few axes; 0:
 * unreadable. */
static int read_items(const char *shape, const tensor *t, item out[MAX_ITEMS])
{
    int n = 0;
    if (*shape != '[' || !strchr(shape, ']')) return 0;
    for (const char *p = shape + 1; *p;) {
        while (*p == ' ') p++;
        if (n == MAX_ITEMS) return 0;
        out[n] = (item){p, strcspn(p, ",]"), 1};
        p += out[n++].bytes;
        if (*p++ == ']') break;
    }
    bool one_row = n == t->ndim + 1 && (!strncmp(out[0].at, "rows", out[0].bytes) || *out[0].at == '.');
    if (n > t->ndim && !one_row) return -1; // a vector is one row; its leading axis has size 1
    for (int i = 0; i < t->ndim; i++) out[MAX(0, i - (t->ndim - n))].size *= t->dim[i];
    return n;
}

static status check_one(const scope *c, const op_arg *a, const item *it, int n)
{
    i64 want;
    for (int i = 0; i < n; i++)
        if (evaluate(c, &it[i], &want) && want != it[i].size)
            return fail(ERR_CONFIG, "%s: input %s must be %s, but %.*s is %lld there and must be %lld",
                        c->n->def->name, a->name, a->shape, (int)it[i].bytes, it[i].at, (long long)it[i].size,
                        (long long)want);
    return OK;
}

status shapes_check(const node *n)
{
    item items[MAX_IN][MAX_ITEMS];
    int axes[MAX_IN] = {0};
    scope c = {.n = n};
    for (int k = 0; k < n->n_in; k++) {
        if (!n->in[k]) continue;
        axes[k] = read_items(n->def->in[k].shape, n->in[k], items[k]);
        if (axes[k] < 0)
            return fail(ERR_CONFIG, "%s: input %s must be %s, but has %d axes", n->def->name,
                        n->def->in[k].name, n->def->in[k].shape, n->in[k]->ndim);
        for (int i = 0; i < axes[k]; i++) bind(&c, &items[k][i]);
    }
    for (int k = 0; k < n->n_in; k++)
        if (n->in[k]) TRY(check_one(&c, &n->def->in[k], items[k], axes[k]));
    return OK;
}
