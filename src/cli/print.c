/* print: what verbs print for machines, and say to people, in one way. */
#include "cli/cli.h"
#include <stdio.h>

status cli_print_json(json_t *o)
{
    if (!o) return fail(ERR_INPUT, "a name or path is not valid UTF-8, which JSON cannot hold");
    json_dumpf(o, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(o);
    return OK; // main asks whether stdout took it
}

void cli_talk(void *context, const char *line)
{
    (void)context;
    fprintf(stderr, "%s\n", line);
}
