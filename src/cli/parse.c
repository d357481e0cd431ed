/* parse: argp_parse with Keel's manners, in the one place that all verbs pass: usage errors exit with 2, the
 * table is handed over to who asks for it (describe.c), and every long option may be given by the
 * environment: --no-fuse is KEEL_NO_FUSE=1, --threads=2 is KEEL_THREADS=2. What the environment says stands
 * before the arguments, which therefore win, and is said on standard error, so that nobody wonders. */
#define _GNU_SOURCE // asprintf
#include "cli/cli.h"
#include <argp.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

char cli_describe[] = "--describe";

/* argp explains under every list that short options take arguments as long ones do; once is not even needed.
 */
static char *without_note(int key, const char *text, void *input)
{
    (void)input;
    return key == ARGP_KEY_HELP_DUP_ARGS_NOTE ? NULL : (char *)text;
}

/* "no-fuse" -> "KEEL_NO_FUSE" */
static const char *variable_of(const char *option, char out[80])
{
    size_t n = (size_t)snprintf(out, 80, "KEEL_%s", option);
    for (size_t i = 0; i < n && i < 79; i++)
        out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
    return out;
}

/* Is the flag set: 1, true, yes, on, or not: 0, false, no, off and nothing? */
static status read_flag(const char *name, const char *value, bool *on)
{
    static const char *const words[] = {"", "0", "false", "no", "off", "1", "true", "yes", "on"};
    for (i64 i = 0; i < COUNT(words); i++)
        if (!strcasecmp(value, words[i])) return *on = i > 4, OK;
    return fail(ERR_USAGE, "%s is '%s'; it stands for an option without a value and must be 1 or 0", name,
                value);
}

enum { MOST_GIVEN = 32 };
typedef struct given { // by the environment
    char *words[MOST_GIVEN];
    int n;
} given;

static status add_option(const struct argp_option *o, given *g)
{
    char name[80], *word;
    const char *value = getenv(variable_of(o->name, name));
    bool on = true;
    if (!value || (o->arg && !*value) || g->n == MOST_GIVEN) return OK;
    if (!strcmp(name, "KEEL_REGISTRY"))
        return OK; // every use of the registry honours that, not only verbs with
                   // the option (train/registry.h)
    if (!o->arg) TRY(read_flag(name, value, &on));
    if (!on) return OK;
    if (asprintf(&word, o->arg ? "--%s=%s" : "--%s", o->name, value) < 0)
        return fail(ERR_MEMORY, "%s: out of memory", name);
    fprintf(stderr, "environment: %s stands for %s\n", name, word);
    g->words[g->n++] = word;
    return OK;
}

static status add_environment(const struct argp *argp, given *g)
{
    for (const struct argp_option *o = argp->options; o && (o->name || o->key || o->doc || o->group); o++)
        if (o->name && !(o->flags & (OPTION_ALIAS | OPTION_DOC))) TRY(add_option(o, g));
    for (const struct argp_child *c = argp->children; c && c->argp; c++) TRY(add_environment(c->argp, g));
    return OK;
}

status cli_parse(const struct argp *argp, int argc, char **argv, void *input)
{
    if (argc == 3 && argv[1] == cli_describe)
        return *(struct argp *)argv[2] = *argp, fail(ERR_STOPPED, "described");
    given g = {0};
    char **all = argv;
    struct argp table = *argp;
    if (!table.help_filter) table.help_filter = without_note;
    TRY(add_environment(argp, &g));
    if (g.n) { // verbs keep pointers to the words, as they do to argv: they live as long as the process
        static char **volatile kept;
        TRY(mem_alloc(sizeof *all * (size_t)(argc + g.n + 1), "the arguments", &all));
        kept = all;
        kept[0] = argv[0];
        memcpy(all + 1, g.words, sizeof *all * (size_t)g.n);
        memcpy(all + 1 + g.n, argv + 1, sizeof *all * (size_t)argc); // with the NULL behind them
    }
    argp_err_exit_status = 2;
    error_t e = argp_parse(&table, argc + g.n, all, 0, NULL, input);
    return e ? fail(ERR_USAGE, "%s: %s", argv[0], strerror(e)) : OK;
}
