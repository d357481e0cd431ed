/* keel help: what --help says, by another door, and the manual pages.
 *
 *     keel help data build
 *     keel help --man train | man -l -
 *     keel help --man --out=build/man         # all of them, as the build does
 */
#include "base/file.h"
#include "cli/cli.h"
#include "cli/man.h"
#include <argp.h>
#include <stdio.h>
#include <string.h>

enum { OPT_MAN = 256, MOST_WORDS_OF_HELP = 2 };
typedef struct help_args {
    char *words[MOST_WORDS_OF_HELP];
    i64 n;
    const char *out;
    bool man;
} help_args;

static const struct argp_option options[] = {
    {"man", OPT_MAN, 0, 0, "Print the manual page of VERB (without one: of keel) in roff", 0},
    {"out", 'o', "DIR", 0, "With --man: write the pages of all verbs into DIR instead", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    help_args *a = state->input;
    switch (key) {
    case OPT_MAN:
        a->man = true;
        return 0;
    case 'o':
        a->out = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (a->n == MOST_WORDS_OF_HELP) argp_error(state, "one argument too many: '%s'", arg);
        a->words[a->n++] = arg;
        return 0;
    case ARGP_KEY_END:
        if (a->out && !a->man) argp_error(state, "--out goes with --man");
        if (a->out && a->n) argp_error(state, "--out writes all pages; leave out '%s'", a->words[0]);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static status write_page(const char *folder, const char *name, text *page)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s.1", folder, name) >= (int)sizeof path)
        return fail(ERR_USAGE, "%s: too long a path", folder);
    status s = file_replace(path, page->data, page->bytes);
    text_free(page);
    return s;
}

static status write_pages(const command *all, i64 n, const char *folder)
{
    text page = {0};
    TRY(dir_make(folder));
    man_overview(all, n, &page);
    TRY(write_page(folder, "keel", &page));
    for (i64 i = 0; i < n; i += 1 + all[i].parts) {
        char name[64];
        snprintf(name, sizeof name, "keel-%s", all[i].words);
        man_page(all, n, i, &page);
        TRY(write_page(folder, name, &page));
    }
    return OK;
}

static status print_page(const command *all, i64 n, const char *verb)
{
    text page = {0};
    i64 at = 0;
    while (verb && at < n && strcmp(all[at].words, verb)) at += 1 + all[at].parts;
    if (at == n) return fail(ERR_USAGE, "no verb '%s'; 'keel --help' lists them", verb);
    if (verb)
        man_page(all, n, at, &page);
    else
        man_overview(all, n, &page);
    fwrite(page.data, 1, page.bytes, stdout);
    text_free(&page);
    return OK;
}

static status man(const help_args *a)
{
    arena *memory;
    command *all;
    i64 n;
    TRY(arena_open(&memory));
    status s = describe(memory, &all, &n);
    if (!s) s = a->out ? write_pages(all, n, a->out) : print_page(all, n, a->n ? a->words[0] : NULL);
    arena_close(memory);
    return s;
}

status verb_help(int argc, char **argv)
{
    static const struct argp argp = {options, parse, "[VERB [PART]]", "Explains a verb, or lists them.", NULL,
                                     NULL,    NULL};
    help_args a = {0};
    TRY(cli_parse(&argp, argc, argv, &a));
    if (a.man) return man(&a);
    char program[] = "keel", option[] = "--help";
    char *words[] = {program, a.n ? a.words[0] : option, option, option, NULL};
    if (a.n > 1) words[2] = a.words[1];
    return cli_run(a.n ? 2 + (int)a.n : 2, words);
}
