/* keel graph: the graph of a configuration as a listing or a drawing.
 *
 *     keel graph configs/llama-10m.yaml --text
 *     keel graph --rules                                 # the table of rewrites
 *     keel graph configs/llama-10m.yaml --dot | dot -Tsvg > graph.svg
 */
#include "base/text.h"
#include "cli/cli.h"
#include "cli/machine.h"
#include "graph/rewrite.h"
#include "train/session.h"
#include <stdio.h>

enum { OPT_DOT = 256, OPT_TEXT, OPT_NO_FUSE, OPT_EVALUATE, OPT_RULES, OPT_JSON };
typedef struct graph_args {
    machine_args machine;
    bool dot, no_fuse, evaluate, rules, json;
} graph_args;

static const struct argp_option options[] = {
    {"text", OPT_TEXT, 0, 0, "One line a node (default)", 0},
    {"json", OPT_JSON, 0, 0, "One JSON object (with --rules: an array)", 0},
    {"dot", OPT_DOT, 0, 0, "A drawing for graphviz", 0},
    {"no-fuse", OPT_NO_FUSE, 0, 0, "Before the rewrites", 0},
    {"rules", OPT_RULES, 0, 0, "Print the table of rewrites instead: fused op, the sequence it replaces", 0},
    {"evaluate", OPT_EVALUATE, 0, 0, "The graph of evaluation: forward only", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    graph_args *a = state->input;
    (void)arg;
    switch (key) {
    case ARGP_KEY_INIT:
        a->machine.takes_config = true;
        state->child_inputs[0] = &a->machine;
        return 0;
    case OPT_TEXT:
        a->dot = false;
        return 0;
    case OPT_DOT:
        a->dot = true;
        return 0;
    case OPT_JSON:
        a->json = true;
        return 0;
    case OPT_NO_FUSE:
        a->no_fuse = true;
        return 0;
    case OPT_RULES:
        a->rules = true;
        return 0;
    case OPT_EVALUATE:
        a->evaluate = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static status print_rules(bool json)
{
    rewrite_rule *rules;
    i64 n;
    arena *a;
    TRY(arena_open(&a));
    status s = rewrite_rules(a, &rules, &n);
    json_t *all = json_array();
    for (i64 i = 0; !s && i < n; i++) {
        const char *fused = op_table(ISA_PLAIN, rules[i].fused)->name;
        json_array_append_new(all, json_pack("{s:s, s:s}", "fused", fused, "replaces", rules[i].text));
        if (!json) printf("%-18s %s\n", fused, rules[i].text);
    }
    if (!s && json)
        s = cli_print_json(all);
    else
        json_decref(all);
    arena_close(a);
    return s;
}

/* {"name": ..., "dtype": ..., "shape": [...]}; null: absent. A value's name is its number. */
static json_t *tensor_json(const tensor *t)
{
    if (!t) return json_null();
    char number[16];
    json_t *shape = json_array();
    for (int i = 0; i < t->ndim; i++) json_array_append_new(shape, json_integer(t->dim[i]));
    snprintf(number, sizeof number, "%%%d", (int)t->id);
    return json_pack("{s:s, s:s, s:o}", "name", t->role == ROLE_VALUE ? number : t->path, "dtype",
                     dtype_name(t->dtype), "shape", shape);
}

static json_t *graph_json(const graph *g)
{
    static const char *const phases[] = {"forward", "backward", "commit"};
    json_t *nodes = json_array();
    for (i64 i = 0; i < g->n_nodes; i++) {
        const node *n = g->nodes[i];
        json_t *in = json_array(), *out = json_array(), *attrs = json_object();
        for (int k = 0; k < n->n_in; k++) json_array_append_new(in, tensor_json(n->in[k]));
        for (int k = 0; k < n->n_out; k++) json_array_append_new(out, tensor_json(n->out[k]));
        for (int k = 0; k < MAX_ATTRS && n->def->attrs[k].name; k++)
            json_object_set_new(attrs, n->def->attrs[k].name, json_real(n->attr[k]));
        json_array_append_new(nodes,
                              json_pack("{s:s, s:s, s:s, s:i, s:b, s:b, s:o, s:o, s:o}", "op", n->def->name,
                                        "path", n->path, "phase", phases[n->phase], "layer", n->layer,
                                        "accumulates", n->accumulate != 0, "recomputed", n->clone_of != NULL,
                                        "attributes", attrs, "in", in, "out", out));
    }
    return json_pack("{s:o}", "nodes", nodes);
}

static status print_graph(const graph_args *a, config *c, device *d, isa level)
{
    session *s;
    text out = {0};
    if (config_is(c, "model.vocab", "auto"))
        TRY(config_set(c, "model.vocab", config_text(c, "data.vocab"), "data.vocab"));
    TRY(session_open(c, d, &(session_options){.isa = level, .no_fuse = a->no_fuse, .plan_only = true}, &s));
    const graph *g = a->evaluate ? s->evaluate.g : s->train.g;
    if (a->json) {
        status printed = cli_print_json(graph_json(g));
        session_close(s);
        return printed;
    }
    if (a->dot)
        graph_print_dot(g, &out);
    else
        graph_print(g, &out);
    fwrite(out.data, 1, out.bytes, stdout);
    text_free(&out);
    session_close(s);
    return OK;
}

status verb_graph(int argc, char **argv)
{
    static const struct argp_child children[] = {{&machine_argp, 0, "Machine:", 5}, {0}};
    static const struct argp argp = {options,
                                     parse,
                                     "[CONFIG] [KEY=VALUE...]",
                                     "Prints the graph of a training step, as it will run.",
                                     children,
                                     NULL,
                                     NULL};
    graph_args a = {0};
    config *c;
    device *d = NULL;
    isa level;
    TRY(cli_parse(&argp, argc, argv, &a));
    if (a.rules) return print_rules(a.json);
    TRY(machine_config(&a.machine, &c));
    status s = machine_open(&a.machine, &d, &level);
    if (!s) s = print_graph(&a, c, d, level);
    device_close(d);
    config_close(c);
    return s;
}
