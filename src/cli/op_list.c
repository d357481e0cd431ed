/* keel op list: the table of operations for people (one line each), machines (--json) and docs/operations.md
 * (--markdown). */
#include "base/text.h"
#include "cli/cli.h"
#include "cli/op.h"
#include <argp.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPT_JSON = 256, OPT_MARKDOWN };
typedef struct list_args {
    bool json, markdown;
    const char *name;
} list_args;

static const struct argp_option options[] = {
    {"json", OPT_JSON, 0, 0, "Print one JSON array", 0},
    {"markdown", OPT_MARKDOWN, 0, 0, "Print the reference page docs/operations.md", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    list_args *a = state->input;
    switch (key) {
    case OPT_JSON:
        a->json = true;
        return 0;
    case OPT_MARKDOWN:
        a->markdown = true;
        return 0;
    case ARGP_KEY_ARG:
        if (a->name) argp_error(state, "at most one operation");
        a->name = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}
static const struct argp argp = {options,
                                 parse,
                                 "[OP]",
                                 "Lists the operations: name, inputs (? marks an optional one), outputs, "
                                 "attributes with their defaults.",
                                 NULL,
                                 NULL,
                                 NULL};

/* What an argument holds, in words. */
static const char *kind_name(arg_kind k)
{
    static const char *const names[] = {"activation", "weight", "f32", "index"};
    return names[k];
}
static const struct flag {
    unsigned bit;
    const char *name, *meaning;
} flags[] = {
    {OP_LOSS, "loss", "its gradients are outputs of its forward pass"},
    {OP_CHEAP, "cheap", "recomputation `cheap` may run it again"},
    {OP_SELECTS, "selects", "outputs indices that gradients hold fixed"},
    {OP_RANDOM, "random", "draws random numbers keyed by its path"},
    {OP_SURROGATE, "surrogate", "its gradient is not the derivative of its definition"},
    {OP_COMMIT, "commit", "writes a state at the end of the step or token"},
    {OP_SPLIT, "split", "its outputs are views where the planner can"},
    {OP_CONCAT, "concat", "its inputs are placed in its output where the planner can"},
    {OP_ROWS, "rows", "a gradient that may stay a list of rows"},
    {OP_ACCUMULATES, "accumulates", "its kernel adds into f32 buffers"},
};

/* ---- one line an op */
static void add_args(text *t, const op_arg *args, int n)
{
    for (int i = 0; i < n && args[i].name; i++)
        text_add(t, "%s%s%s %s", i ? ", " : "", args[i].name, args[i].optional ? "?" : "", args[i].shape);
}

static void add_line(text *t, const op_def *def)
{
    text_add(t, "%s(", def->name);
    add_args(t, def->in, MAX_IN);
    text_add(t, ") -> ");
    add_args(t, def->out, MAX_OUT);
    for (int i = 0; i < MAX_ATTRS && def->attrs[i].name; i++)
        text_add(t, "%s%s=%g", i ? " " : "; ", def->attrs[i].name, def->attrs[i].initial);
    text_add(t, "\n");
}

/* ---- the reference page */
static void add_table(text *t, const char *title, const op_arg *args, int n)
{
    text_add(t, "| %s | shape | holds | |\n|---|---|---|---|\n", title);
    for (int i = 0; i < n && args[i].name; i++)
        text_add(t, "| `%s` | `%s` | %s%s%s | %s%s%s |\n", args[i].name, args[i].shape,
                 kind_name(args[i].kind), args[i].range ? " " : "", args[i].range ? args[i].range : "",
                 args[i].optional ? "optional" : "", args[i].optional && args[i].fixed ? ", " : "",
                 args[i].fixed ? "no gradient" : "");
    text_add(t, "\n");
}

static void add_section(text *t, const op_def *def)
{
    text_add(t, "## %s\n\n    %s\n\n", def->name, def->brief);
    if (def->source) text_add(t, "Source: %s.\n\n", def->source);
    for (int i = 0; i < MAX_REPLACES && def->replaces[i]; i++)
        text_add(t, "%s`%s`%s", i ? ", or " : "Replaces, in a graph with rewrites: ", def->replaces[i],
                 i + 1 < MAX_REPLACES && def->replaces[i + 1] ? "" : ".\n\n");
    add_table(t, "input", def->in, MAX_IN);
    add_table(t, "output", def->out, MAX_OUT);
    if (def->attrs[0].name) text_add(t, "| attribute | default | range | |\n|---|---|---|---|\n");
    for (int i = 0; i < MAX_ATTRS && def->attrs[i].name; i++)
        text_add(t, "| `%s` | %g | %g to %g | %s |\n", def->attrs[i].name, def->attrs[i].initial,
                 def->attrs[i].min, def->attrs[i].max, def->attrs[i].help);
    if (def->attrs[0].name) text_add(t, "\n");
    text_add(t, "Gradient: %s.",
             def->flags & OP_LOSS        ? "computed in the forward pass"
             : !def->vjp                 ? "none"
             : def->flags & OP_SURROGATE ? "surrogate"
                                         : "exact");
    for (i64 i = 0, n = 0; i < COUNT(flags); i++)
        if (def->flags & flags[i].bit) text_add(t, "%s%s", n++ ? ", " : " Marks: ", flags[i].name);
    text_add(t, "\n\n");
}

static void add_page(text *t)
{
    text_add(
        t, "# Operations\n\nWritten by `keel op list --markdown`; a test compares this page with it. "
           "`keel op check NAME` proves an operation,\n`keel op bench NAME` times it, `keel op eval NAME` "
           "runs it on your numbers.\n\nAn *activation* is stored in the graph's precision (f32 or bf16), "
           "a *weight* has a bf16 copy under bf16, *f32* is always\nf32, an *index* is a 32-bit whole number "
           "without gradient;\n`LOW:BOUND` beside it means LOW <= i < BOUND, BOUND being an axis of an input "
           "(`w.0`), an "
           "attribute, a number, or `column`\n(at most its own column). Marks:\n\n");
    for (i64 i = 0; i < COUNT(flags); i++) text_add(t, "- *%s*: %s\n", flags[i].name, flags[i].meaning);
    text_add(t, "\n");
    for (op_id i = 0; i < OP_COUNT; i++) add_section(t, op_table(ISA_PLAIN, i));
    while (t->bytes > 1 && t->data[t->bytes - 2] == '\n') t->data[--t->bytes] = 0; // one newline at the end
}

/* ---- JSON */
static json_t *number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static json_t *json_args(const op_arg *args, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n && args[i].name; i++)
        json_array_append_new(
            list, json_pack("{s:s,s:s,s:s,s:b,s:b,s:s?}", "name", args[i].name, "shape", args[i].shape,
                            "kind", kind_name(args[i].kind), "optional", args[i].optional, "gradient",
                            !args[i].fixed && args[i].kind != ARG_I32, "range", args[i].range));
    return list;
}

static json_t *json_op(const op_def *def)
{
    json_t *attrs = json_array(), *marks = json_array();
    for (int i = 0; i < MAX_ATTRS && def->attrs[i].name; i++)
        json_array_append_new(attrs,
                              json_pack("{s:s,s:o,s:o,s:o,s:s}", "name", def->attrs[i].name, "default",
                                        number(def->attrs[i].initial), "min", number(def->attrs[i].min),
                                        "max", number(def->attrs[i].max), "help", def->attrs[i].help));
    for (i64 i = 0; i < COUNT(flags); i++)
        if (def->flags & flags[i].bit) json_array_append_new(marks, json_string(flags[i].name));
    return json_pack("{s:s,s:s,s:s?,s:o,s:o,s:o,s:o}", "name", def->name, "brief", def->brief, "source",
                     def->source, "inputs", json_args(def->in, MAX_IN), "outputs",
                     json_args(def->out, MAX_OUT), "attributes", attrs, "marks", marks);
}

static status print_json(op_id first, op_id last)
{
    json_t *list = json_array();
    for (op_id i = first; i < last; i++) json_array_append_new(list, json_op(op_table(ISA_PLAIN, i)));
    bool whole = json_array_size(list) == (size_t)(last - first);
    char *s = whole ? json_dumps(list, JSON_REAL_PRECISION(12) | JSON_INDENT(1)) : NULL;
    json_decref(list);
    if (!s) return fail(ERR_MEMORY, "op list: cannot build the JSON array");
    puts(s);
    free(s);
    return OK;
}

status op_list_verb(int argc, char **argv)
{
    list_args a = {0};
    text t = {0};
    op_id first = 0, last = OP_COUNT;
    TRY(cli_parse(&argp, argc, argv, &a));
    if (a.name) {
        TRY(op_named(a.name, &first));
        last = first + 1;
    }
    if (a.json && a.markdown) return fail(ERR_USAGE, "op list: --json and --markdown exclude each other");
    if (a.markdown && a.name)
        return fail(ERR_USAGE, "op list: --markdown prints the whole page; leave NAME out");
    if (a.json) return print_json(first, last);
    for (op_id i = first; i < last && !a.markdown; i++) add_line(&t, op_table(ISA_PLAIN, i));
    if (a.markdown) add_page(&t);
    fputs(t.data, stdout);
    text_free(&t);
    return OK;
}
