/* keel op: look at, prove, time and run single operations. Subcommands: see op.h. */
#include "cli/op.h"
#include "base/text.h"
#include "cli/cli.h"
#include <stdio.h>
#include <string.h>

static const struct command {
    const char *name, *help;
    status (*run)(int argc, char **argv);
} commands[] = {
#define COMMAND(name, help) {#name, help, op_##name##_verb},
    OP_COMMANDS(COMMAND)
#undef COMMAND
};

status op_named(const char *name, op_id *out)
{
    const char *names[OP_COUNT];
    if (op_find(name, out)) return OK;
    for (op_id i = 0; i < OP_COUNT; i++) names[i] = op_table(ISA_PLAIN, i)->name;
    const char *near = nearest_name(name, names, OP_COUNT);
    if (!near) return fail(ERR_USAGE, "no operation '%s'; 'keel op list' lists them", name);
    return fail(ERR_USAGE, "no operation '%s'; did you mean '%s'? 'keel op list' lists them", name, near);
}

static void usage(FILE *to)
{
    fprintf(to, "Usage: keel op WHAT [ARGUMENTS]\n\n");
    for (i64 i = 0; i < COUNT(commands); i++) fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].help);
    fprintf(to, "\n'keel op WHAT --help' explains one.\n");
}

status verb_op(int argc, char **argv)
{
    char program[64];
    if (argc < 2) return fail(ERR_USAGE, "op: say what to do; 'keel op --help' lists it");
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-?")) return usage(stdout), OK;
    for (i64 i = 0; i < COUNT(commands); i++) {
        if (strcmp(argv[1], commands[i].name)) continue;
        snprintf(program, sizeof program, "keel op %s", commands[i].name);
        argv[1] = program;
        return commands[i].run(argc - 1, argv + 1);
    }
    return fail(ERR_USAGE, "op: no subcommand '%s'; 'keel op --help' lists them", argv[1]);
}
