/* keel: one binary, one verb a file. */
#include "base/text.h"
#include "cli/cli.h"
#include "cli/machine.h"
#include <argp.h>
#include <stdlib.h>
#include <unistd.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct verb {
    const char *name, *help;
    status (*run)(int argc, char **argv);
} verbs[] = {
#define VERB(name, help) {#name, help, verb_##name},
    VERBS(VERB)
#undef VERB
};

static void usage(FILE *to)
{
    fprintf(to, "Keel pre-trains language models.\n\nUsage: keel VERB [ARGUMENTS]\n\n");
    for (i64 i = 0; i < COUNT(verbs); i++) fprintf(to, "  %-11s %s\n", verbs[i].name, verbs[i].help);
    fprintf(to, "\n'keel VERB --help' explains a verb.\n\nOptions:\n");
#define ROW(name, meaning) fprintf(to, "  %-16s %s\n", name, meaning);
    OPTIONS(ROW)
    fprintf(to, "\nExit codes:\n");
    EXITS(ROW)
    fprintf(to, "\nEnvironment:\n");
    VARIABLES(ROW)
#undef ROW
}

/* argp explains under every list that short options take arguments as long ones do; once is not even needed.
 */
static char *without_note(int key, const char *text, void *input)
{
    (void)input;
    return key == ARGP_KEY_HELP_DUP_ARGS_NOTE ? NULL : (char *)text;
}

char cli_describe[] = "--describe";

status cli_parse(const struct argp *argp, int argc, char **argv, void *input)
{
    if (argc == 3 && argv[1] == cli_describe)
        return *(struct argp *)argv[2] = *argp, fail(ERR_STOPPED, "described");
    struct argp table = *argp;
    if (!table.help_filter) table.help_filter = without_note;
    argp_err_exit_status = 2;
    error_t e = argp_parse(&table, argc, argv, 0, NULL, input);
    return e ? fail(ERR_USAGE, "%s: %s", argv[0], strerror(e)) : OK;
}

static int exit_code(err_code code)
{
    if (code == ERR_STOPPED && stop_signal()) return 128 + stop_signal();
    return code == ERR_USAGE ? 2 : code == ERR_NUMERIC ? 3 : 1;
}

/* What could not be written was not done: a full disk or a closed pipe behind stdout is a failure. */
static status flush_stdout(void)
{
    if (!fflush(stdout) && !ferror(stdout)) return OK;
    return fail(ERR_IO, "standard output: %s", strerror(errno));
}

static status no_verb(const char *name)
{
    const char *names[COUNT(verbs)];
    for (i64 i = 0; i < COUNT(verbs); i++) names[i] = verbs[i].name;
    const char *near = nearest_name(name, names, COUNT(verbs));
    if (!near) return fail(ERR_USAGE, "no verb '%s'; 'keel --help' lists them", name);
    return fail(ERR_USAGE, "no verb '%s'; did you mean '%s'? 'keel --help' lists them", name, near);
}

status cli_run(int argc, char **argv)
{
    const char *name = argv[1];
    if (!strcmp(name, "--help") || !strcmp(name, "-?")) return usage(stdout), OK;
    if (!strcmp(name, "--version")) return printf("keel %s\n", code_version()), OK;
    for (i64 i = 0; i < COUNT(verbs); i++) {
        if (strcmp(name, verbs[i].name)) continue;
        char program[64];
        snprintf(program, sizeof program, "keel %s", name);
        argv[1] = program;
        return verbs[i].run(argc - 1, argv + 1);
    }
    return no_verb(name);
}

/* Threads that wait for each other spin, which is right between the kernels of a step and ruinous where
 * another process wants the processor. Alone this limit costs nothing; beside four busy loops on 2 CPUs it is
 * worth a factor of 2.5 over libgomp's default (docs/performance.md). libgomp reads it once, when it is
 * loaded, so the program starts itself again with it. Whoever sets OMP_WAIT_POLICY or GOMP_SPINCOUNT is
 * obeyed. */
static void limit_spinning(char **argv)
{
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT")) return;
    if (!setenv("GOMP_SPINCOUNT", "2000", 0)) execv("/proc/self/exe", argv);
    // Where that fails (no /proc), the default works too.
}

int main(int argc, char **argv)
{
    limit_spinning(argv);
    status s = fault_from_environment();
    if (!s && argc < 2) return usage(stderr), 2;
    if (!s) s = cli_run(argc, argv);
    status flushed = flush_stdout();
    if (s)
        status_drop(flushed);
    else
        s = flushed;
    if (!s) return 0;
    fprintf(stderr, "keel: %s\n", s->message);
    int code = exit_code(s->code);
    status_drop(s);
    return code;
}
