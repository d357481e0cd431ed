/* keel: one binary, one verb a file. */
#include "base/text.h"
#include "cli/cli.h"
#include "cli/machine.h"
#include "cli/terminal.h"
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
    fprintf(to, "Keel pre-trains language models.\n\nUsage: keel [OPTION] VERB [ARGUMENTS]\n\n");
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

static int exit_code(err_code code)
{
    int number = stop_signal();
    if (code == ERR_STOPPED && number) return number == SIGUSR1 ? 75 : 128 + number;
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
    if (argc > 1 && !strncmp(argv[1], "--color", 7) && (argv[1][7] == '=' || !argv[1][7])) {
        int words = argv[1][7] ? 1 : 2; // --color=WHEN, --color WHEN
        if (argc <= words) return fail(ERR_USAGE, "--color wants auto, always or never");
        TRY(paint_when(words == 1 ? argv[1] + 8 : argv[2]));
        argv[words] = argv[0];
        return cli_run(argc - words, argv + words);
    }
    if (argc < 2) return fail(ERR_USAGE, "which verb? 'keel --help' lists them");
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
    const char *color = getenv("KEEL_COLOR"); // as --color, and refused like it
    status s = fault_from_environment();
    if (!s && color && *color) s = wrap(paint_when(color), "KEEL_COLOR");
    if (!s && argc < 2) return usage(stderr), 2;
    if (!s) s = cli_run(argc, argv);
    status flushed = flush_stdout();
    if (s)
        status_drop(flushed);
    else
        s = flushed;
    if (!s) return 0;
    fprintf(stderr, "%skeel:%s %s\n", paint(stderr, RED), paint(stderr, PLAIN), s->message);
    int code = exit_code(s->code);
    status_drop(s);
    return code;
}
