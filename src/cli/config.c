/* keel config: explain keys, print a resolved configuration, print the reference page. */
#include "cli/cli.h"
#include "config/config.h"
#include <argp.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct arguments {
    bool json;
    char **words;
    i64 count;
} arguments;

static const char usage[] = "explain [KEY]\nresolve [CONFIG] [KEY=VALUE...]\nreference";
static const char doc[] = "Explains configuration keys; prints the configuration a run would see.\v"
                          "  explain    a key's meaning, values and default; a group's keys; all keys\n"
                          "  resolve    every key's value: defaults, presets, file, command line\n"
                          "  reference  the page docs/configuration.md\n\n"
                          "CONFIG may be - for standard input.";

static error_t parse(int key, char *word, struct argp_state *state)
{
    arguments *args = state->input;
    if (key == 'j')
        args->json = true;
    else if (key == ARGP_KEY_ARG)
        args->words[args->count++] = word;
    else if (key == ARGP_KEY_NO_ARGS)
        argp_usage(state);
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static status print_json(json_t *all)
{
    if (!all || json_dumpf(all, stdout, JSON_INDENT(2)) < 0) {
        json_decref(all);
        return fail(ERR_IO, "the JSON cannot be written; is standard output closed, or memory short?");
    }
    putchar('\n');
    json_decref(all);
    return OK;
}

static json_t *optional(const char *s) { return s ? json_string(s) : json_null(); }

static json_t *key_json(const config_key *k)
{
    text value = {0};
    config_describe(k, &value);
    json_t *row = json_pack("{ss ss ss so so so ss so}", "key", k->path, "value", value.data, "default",
                            k->initial, "choices", optional(k->choices), "unit", optional(k->unit), "only",
                            optional(k->only), "help", k->help, "source", optional(k->source));
    text_free(&value);
    if (row && k->max > k->min) {
        json_object_set_new(row, "min", json_real(k->min));
        json_object_set_new(row, "max", json_real(k->max));
    }
    return row;
}

static status explain_json(const char *path)
{
    json_t *rows = json_array();
    key_list all;
    config_keys(&all);
    for (i64 i = 0; i < all.n; i++) {
        const char *p = all.rows[i]->path;
        size_t n = path ? strlen(path) : 0;
        if (!path || (!strncmp(p, path, n) && (!p[n] || p[n] == '.' || p[n] == '[')))
            json_array_append_new(rows, key_json(all.rows[i]));
    }
    return print_json(rows);
}

static status explain(const arguments *args)
{
    const char *path = args->count > 1 ? args->words[1] : NULL;
    if (args->count > 2)
        return fail(ERR_USAGE, "config explain takes one key; '%s' is a second", args->words[2]);
    text out = {0};
    status s = config_explain(path, &out);
    if (!s && args->json)
        s = explain_json(path);
    else if (!s)
        fwrite(out.data, 1, out.bytes, stdout);
    text_free(&out);
    return s;
}

/* {"model.width": "384", ...}: values as canonical text, each with where it comes from. */
static status resolve_json(const config *c)
{
    json_t *object = json_object();
    key_list all;
    config_keys(&all);
    for (i64 i = 0; i < all.n; i++) {
        const char *path = all.rows[i]->path;
        if (strstr(path, "[]") || !config_applies(c, path)) continue;
        json_t *row = json_pack("{ss ss}", "value", config_text(c, path), "where", config_where(c, path));
        json_object_set_new(object, path, row);
    }
    return print_json(object);
}

static status resolve(const arguments *args)
{
    const char *path = args->count > 1 && !strchr(args->words[1], '=') ? args->words[1] : NULL;
    i64 first = path ? 2 : 1;
    config *c;
    TRY(config_load(path, (const char *const *)args->words + first, args->count - first, &c));
    text out = {0};
    status s = OK;
    config_write(c, &out);
    if (args->json)
        s = resolve_json(c);
    else
        fwrite(out.data, 1, out.bytes, stdout);
    text_free(&out);
    config_close(c);
    return s;
}

static status reference(const arguments *args)
{
    if (args->count > 1) return fail(ERR_USAGE, "config reference takes no '%s'", args->words[1]);
    text out = {0};
    config_reference(&out);
    fwrite(out.data, 1, out.bytes, stdout);
    text_free(&out);
    return OK;
}

status verb_config(int argc, char **argv)
{
    static const struct argp_option options[] = {{"json", 'j', 0, 0, "Print JSON (explain, resolve)", 0},
                                                 {0}};
    static const struct argp argp = {options, parse, usage, doc, NULL, NULL, NULL};
    arguments args = {0};
    TRY(mem_alloc(sizeof(char *) * (size_t)argc, "the arguments", &args.words));
    status s = cli_parse(&argp, argc, argv, &args);
    const char *action = s || !args.count ? "" : args.words[0];
    if (s)
        ;
    else if (!strcmp(action, "explain"))
        s = explain(&args);
    else if (!strcmp(action, "resolve"))
        s = resolve(&args);
    else if (!strcmp(action, "reference"))
        s = reference(&args);
    else
        s = fail(ERR_USAGE, "config: no action '%s'; there are explain, resolve and reference", action);
    mem_free(args.words);
    return s;
}
