/* describe: every verb is called once with a mark instead of arguments, and cli_parse hands its table over
 * instead of parsing. A verb of several parts has no table; its list of parts, as it prints it for --help, is
 * read, and each part is asked in the same way. So nothing is written down twice, and a new verb, part or
 * option is known here at once. */
#include "cli/describe.h"
#include "cli/cli.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_COMMANDS = 128 };

static const struct verb {
    const char *name, *help;
    status (*run)(int argc, char **argv);
} verbs[] = {
#define VERB(name, help) {#name, help, verb_##name},
    VERBS(VERB)
#undef VERB
};

/* The table of VERB, or of its PART. Left as it was where there is none. */
static void ask(const struct verb *v, const char *part, struct argp *out)
{
    char program[64], word[64];
    snprintf(program, sizeof program, "keel %s", v->name);
    char *argv[] = {program, word, cli_describe, (char *)out, NULL};
    if (part) snprintf(word, sizeof word, "%s", part);
    if (!part) memmove(argv + 1, argv + 2, 3 * sizeof *argv);
    status_drop(v->run(part ? 4 : 3, argv)); // "described", or that it wants a part
}

/* What VERB prints for --help, where it prints a list of parts itself. NULL: no memory. */
static char *printed(const struct verb *v)
{
    char program[64], help[] = "--help", *text = NULL, *argv[] = {program, help, NULL};
    size_t bytes;
    snprintf(program, sizeof program, "keel %s", v->name);
    FILE *to = open_memstream(&text, &bytes), *was = stdout;
    if (!to) return NULL;
    stdout = to; // a variable, in glibc
    status_drop(v->run(2, argv));
    stdout = was;
    if (!fclose(to)) return text;
    free(text);
    return NULL;
}

/* "  name   what it does" */
static bool split_line(arena *a, const char *line, size_t n, const char **name, const char **help)
{
    if (n < 4 || line[0] != ' ' || line[1] != ' ' || !islower((unsigned char)line[2])) return false;
    char *s = arena_alloc(a, n + 1);
    memcpy(s, line + 2, n - 2);
    size_t word = strspn(s, "abcdefghijklmnopqrstuvwxyz_-"), gap = strspn(s + word, " ");
    if (!gap || !s[word + gap]) return false;
    *help = s + word + gap;
    s[word] = 0;
    *name = s;
    return true;
}

static status add_parts(arena *a, const struct verb *v, command *all, i64 *n)
{
    command *verb = &all[*n - 1];
    char *list = printed(v);
    if (!list) return fail(ERR_MEMORY, "keel %s: out of memory", v->name);
    for (const char *s = list; *s;) {
        size_t length = strcspn(s, "\n");
        const char *name, *help;
        if (*n < MOST_COMMANDS && split_line(a, s, length, &name, &help)) {
            command *c = &all[(*n)++];
            *c = (command){.words = arena_printf(a, "%s %s", v->name, name), .help = help};
            ask(v, name, &c->argp);
            verb->parts++;
        }
        s += length + (s[length] == '\n');
    }
    free(list);
    return OK;
}

status describe(arena *a, command **out, i64 *n)
{
    command *all = arena_array(a, command, MOST_COMMANDS);
    *n = 0;
    for (i64 i = 0; i < COUNT(verbs) && *n < MOST_COMMANDS; i++) {
        command *c = &all[(*n)++];
        *c = (command){.words = verbs[i].name, .help = verbs[i].help};
        ask(&verbs[i], NULL, &c->argp);
        if (!c->argp.options) TRY(add_parts(a, &verbs[i], all, n));
    }
    *out = all;
    return OK;
}

static void add_options(const struct argp *argp, option_row *out, i64 *n)
{
    for (const struct argp_option *o = argp->options; o && (o->name || o->key || o->doc || o->group); o++) {
        if (o->flags & (OPTION_HIDDEN | OPTION_ALIAS) || (!o->name && !o->doc) || *n == MOST_OPTIONS)
            continue;
        char letter = o->key > ' ' && o->key < 127 ? (char)o->key : 0;
        out[(*n)++] = (option_row){o->name, o->name ? letter : 0, o->arg, o->doc,
                                   (o->flags & OPTION_ARG_OPTIONAL) != 0};
    }
    for (const struct argp_child *c = argp->children; c && c->argp; c++) {
        if (c->header && *n < MOST_OPTIONS) out[(*n)++] = (option_row){.doc = c->header};
        add_options(c->argp, out, n);
    }
}

i64 command_options(const command *c, option_row out[MOST_OPTIONS])
{
    i64 n = 0;
    add_options(&c->argp, out, &n);
    return n;
}

bool arg_is_words(const char *arg)
{
    if (!arg || !strchr(arg, '|')) return false;
    for (const char *s = arg; *s; s++)
        if (!islower((unsigned char)*s) && !isdigit((unsigned char)*s) && !strchr("|_-", *s)) return false;
    return true;
}
