/* explain: the rows for people: `keel config explain` and docs/configuration.md. */
#include "config/parts.h"
#include <stdio.h>
#include <string.h>

/* The value that PRESET sets KEY to, as written there; 0 bytes when it does not. */
static size_t preset_value(const config_preset *p, const char *key, const char **value)
{
    size_t n = strlen(key);
    for (const char *s = p->sets; *s; s += strcspn(s, " "), s += *s == ' ')
        if (!strncmp(s, key, n) && s[n] == '=') {
            *value = s + n + 1;
            return strcspn(*value, " ");
        }
    return 0;
}

static void add_only(const config_key *k, text *out)
{
    int n = (int)strcspn(k->only, "=");
    text_add(out, "%.*s: ", n, k->only);
    for (const char *p = k->only + n + 1; *p;) {
        size_t m = strcspn(p, " ");
        text_add(out, "%s%.*s", p == k->only + n + 1 ? "" : " or ", (int)m, p);
        p += m + (p[m] == ' ');
    }
}

static void show_initial(const config_key *k, text *out)
{
    if (k->type == KEY_STRING && !*k->initial)
        text_add(out, "required");
    else if (k->type == KEY_LAYERS || k->type == KEY_STRING)
        text_add(out, "%s", k->initial);
    else
        value_write(k, k->initial, out);
}

static void explain_key(const config_key *k, text *out)
{
    text_add(out, "%s\n  Meaning: %s\n  Value:   ", k->path, k->help);
    config_describe(k, out);
    text_add(out, "\n  Default: ");
    show_initial(k, out);
    if (k->unit) text_add(out, "\n  Unit:    %s", k->unit);
    if (k->only) {
        text_add(out, "\n  Only:    with ");
        add_only(k, out);
    }
    bool first = true;
    for (const config_preset *p = config_next_preset(NULL); p; p = config_next_preset(p)) {
        const char *value;
        size_t n = preset_value(p, k->path, &value);
        if (n) text_add(out, "%s%s: %.*s", first ? "\n  Presets: " : "; ", p->value, (int)n, value);
        first &= !n;
    }
    for (const config_preset *p = config_next_preset(NULL); p; p = config_next_preset(p))
        if (!strcmp(p->key, k->path)) text_add(out, "\n  %s sets: %s", p->value, p->sets);
    if (k->source) text_add(out, "\n  Source:  %s", k->source);
    text_add(out, "\n");
}

static void list_key(const config_key *k, text *out)
{
    text initial = {0};
    show_initial(k, &initial);
    text_add(out, "%-36s %-12s %s\n", k->path, initial.data, k->help);
    text_free(&initial);
}

status config_explain(const char *path, text *out)
{
    const config_key *exact = path ? config_find_key(path) : NULL;
    size_t n = path ? strlen(path) : 0;
    key_list all;
    bool found = false;
    config_keys(&all);
    if (exact) explain_key(exact, out);
    for (i64 i = 0; i < all.n; i++) {
        const char *p = all.rows[i]->path;
        if (all.rows[i] == exact || (path && (strncmp(p, path, n) || (p[n] != '.' && p[n] != '[')))) continue;
        if (exact)
            explain_key(all.rows[i], out); // the fields of a list's items
        else
            list_key(all.rows[i], out);
        found = true;
    }
    if (exact || found) return OK;
    arena *a;
    TRY(arena_open(&a));
    status s = fail(ERR_USAGE, "unknown key %s%s", path, did_you_mean(a, path));
    arena_close(a);
    return s;
}

/* ---- the reference page */
static void add_cell(const char *s, text *out)
{
    for (; *s; s++) text_add(out, *s == '|' ? "\\|" : "%c", *s);
}

static void reference_row(const config_key *k, text *out)
{
    text cell = {0};
    config_describe(k, &cell);
    text_add(out, "| `%s` | ", k->path);
    add_cell(cell.data, out);
    text_free(&cell);
    show_initial(k, &cell);
    text_add(out, " | `%s` | %s | ", cell.data, k->unit ? k->unit : "");
    text_free(&cell);
    add_cell(k->help, out);
    if (k->only) {
        text_add(out, " (only with ");
        add_only(k, out);
        text_add(out, ")");
    }
    if (k->source) text_add(out, ". Source: %s", k->source);
    text_add(out, " |\n");
}

static const char reference_head[] =
    "# Configuration\n\n"
    "This page is printed by `keel config reference`; the rows it comes from stand in `src/config/` and in "
    "the\n"
    "files of the slots.\n\n"
    "A run is one YAML 1.2 file of the blocks `model`, `train` and `data`. A key's dotted path is also its "
    "name on\n"
    "the command line:\n\n"
    "```yaml\n"
    "model: {preset: llama-10m, norm: {preset: pre_qk}}\n"
    "train: {tokens: 20M, optimizer: {lr: 2e-3}, schedule: {kind: uba, phi: 0.5}}\n"
    "data: {train: corpus/, validation: 1%}\n"
    "```\n\n"
    "```sh\n"
    "keel train run.yaml model.width=512 model.norm.attn=[pre,out] train.time=\"4 min\"\n"
    "keel config resolve run.yaml model.width=512   # every key's value, as the run will see it\n"
    "keel config explain model.width\n"
    "```\n\n"
    "- Built-in defaults give way to presets, presets to the file, the file to the command line.\n"
    "- Counts may be written with k M G T (powers of 1000) and Ki Mi Gi Ti (powers of 1024): `32Ki`, `20M`.\n"
    "- Spans are `400 steps`, `2M tokens` or `3%` of the run. Layers are `all`, `\"0,3,6-8\"` or `-1` (the "
    "last).\n"
    "- `auto` is computed and printed; `none` switches off. An unknown key, a value outside its range and a "
    "key of a\n"
    "  kind that is not chosen are errors that name file and line. Where the command line replaces a `kind`, "
    "or the\n"
    "  length of the run, what a file or preset set for the old one falls back to the defaults.\n"
    "- `train.tokens`, `steps`, `epochs` and `time` are the length of the run: exactly one is set.\n"
    "- `model.override` changes norm, residual, attention and ffn keys in some layers:\n"
    "  `override: [{layers: \"0,-1\", norm: {attn: [pre, out]}}]`. Later items win; a preset's come before "
    "yours, and `[]`\n"
    "  drops them.\n"
    "- A later version brings the blocks `quant`, `dist`, `eval` and `lab`; their names are reserved.\n";

void config_reference(text *out)
{
    char block[64] = "";
    key_list all;
    config_keys(&all);
    text_add(out, "%s", reference_head);
    for (i64 i = 0; i < all.n; i++) {
        int n = (int)strcspn(all.rows[i]->path, ".");
        if (strncmp(block, all.rows[i]->path, (size_t)n) || (int)strlen(block) != n) {
            snprintf(block, sizeof block, "%.*s", n, all.rows[i]->path);
            text_add(out, "\n## %s\n\n| Key | Value | Default | Unit | Meaning |\n|---|---|---|---|---|\n",
                     block);
        }
        reference_row(all.rows[i], out);
    }
    text_add(out, "\n## Presets\n\n| Key | Preset | Sets |\n|---|---|---|\n");
    for (const config_preset *p = config_next_preset(NULL); p; p = config_next_preset(p))
        text_add(out, "| `%s` | `%s` | `%s` |\n", p->key, p->value, p->sets);
}
