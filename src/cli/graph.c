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

enum { OPT_DOT = 256, OPT_TEXT, OPT_NO_FUSE, OPT_EVALUATE, OPT_RULES };
typedef struct graph_args {
    machine_args machine;
    bool dot, no_fuse, evaluate, rules;
} graph_args;

static const struct argp_option options[] = {
    {"text", OPT_TEXT, 0, 0, "One line a node (default)", 0},
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

static status print_rules(void)
{
    rewrite_rule *rules;
    i64 n;
    arena *a;
    TRY(arena_open(&a));
    status s = rewrite_rules(a, &rules, &n);
    for (i64 i = 0; !s && i < n; i++)
        printf("%-18s %s\n", op_table(ISA_PLAIN, rules[i].fused)->name, rules[i].text);
    arena_close(a);
    return s;
}

static status print_graph(const graph_args *a, config *c, device *d, isa level)
{
    session *s;
    text out = {0};
    if (config_is(c, "model.vocab", "auto"))
        TRY(config_set(c, "model.vocab", config_text(c, "data.vocab"), "data.vocab"));
    TRY(session_open(c, d, &(session_options){.isa = level, .no_fuse = a->no_fuse, .plan_only = true}, &s));
    const graph *g = a->evaluate ? s->evaluate.g : s->train.g;
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
    if (a.rules) return print_rules();
    TRY(machine_config(&a.machine, &c));
    status s = machine_open(&a.machine, &d, &level);
    if (!s) s = print_graph(&a, c, d, level);
    device_close(d);
    config_close(c);
    return s;
}
