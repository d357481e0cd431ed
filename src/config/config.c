/* config: the layers (built-in < preset < file < command line) and the getters. See config.h.
 *
 * Every layer is a YAML tree; put_tree walks it by the rows and fills one slot a key, so a stronger layer
 * simply comes later. Presets are looked up first, because they are weaker than the file that names them. */
#include "config/parts.h"
#include "config/tables.h"
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define DECLARE(name) extern const config_key name[];
KEY_TABLES(DECLARE)
#undef DECLARE
#define DECLARE(name) extern const config_preset name[];
PRESET_TABLES(DECLARE)
#undef DECLARE
#define NAME(name) name,
static const config_key *const key_tables[] = {KEY_TABLES(NAME)};
static const config_preset *const preset_tables[] = {PRESET_TABLES(NAME)};
#undef NAME

/* One layer's values while they are read. */
typedef struct layer {
    layer_kind kind;
    const char *file; // "cfg.yaml", "command line", "preset llama-10m"
} layer;

void config_keys(key_list *out)
{
    out->n = 0;
    for (i64 t = 0; t < COUNT(key_tables); t++)
        for (const config_key *k = key_tables[t]; k->path; k++) {
            assert(out->n < COUNT(out->rows));
            out->rows[out->n++] = k;
        }
}

const config_key *config_find_key(const char *path)
{
    for (i64 t = 0; t < COUNT(key_tables); t++)
        for (const config_key *k = key_tables[t]; k->path; k++)
            if (!strcmp(k->path, path)) return k;
    return NULL;
}

const config_preset *config_next_preset(const config_preset *after)
{
    bool found = !after;
    for (i64 t = 0; t < COUNT(preset_tables); t++)
        for (const config_preset *p = preset_tables[t]; p->key; p++) {
            if (found) return p;
            found = p == after;
        }
    return NULL;
}

config_slot *find_slot(const config *c, const char *path)
{
    for (i64 i = 0; i < c->keys.n; i++)
        if (!strcmp(c->slots[i].key->path, path) && !strstr(path, "[]")) return &c->slots[i];
    return NULL;
}

/* ---- unknown keys */
static bool is_group(const char *path)
{
    size_t n = strlen(path);
    for (i64 t = 0; t < COUNT(key_tables); t++)
        for (const config_key *k = key_tables[t]; k->path; k++)
            if (!strncmp(k->path, path, n) && k->path[n] == '.') return true;
    return false;
}

const char *did_you_mean(arena *a, const char *path)
{
    const char *dot = strrchr(path, '.'), *last = dot ? dot + 1 : path, *names[COUNT(((key_list *)0)->rows)];
    const char *same = NULL, *near = NULL;
    char *parent = arena_printf(a, "%.*s", dot ? (int)(dot - path) : 0, path);
    size_t n = dot ? strlen(parent) + 1 : 0;
    i64 sames = 0, count = 0;
    key_list all;
    config_keys(&all);
    for (i64 i = 0; i < all.n; i++) {
        const char *p = all.rows[i]->path, *end = strrchr(p, '.');
        if (!strcmp(end + 1, last) && !strstr(p, "[]") && !strncmp(p, path, strcspn(path, ".")))
            same = p, sames++;
        if (is_group(parent) || !dot) { // the names beside it
            if (strncmp(p, path, n) || strstr(p + n, "[]")) continue;
            names[count++] = arena_printf(a, "%.*s", (int)strcspn(p + n, "."), p + n);
        } else if (!strstr(p, "[]"))
            names[count++] = p;
    }
    if (sames == 1 && strcmp(same, path)) return arena_printf(a, "; did you mean %s?", same);
    if (is_group(parent) || !dot) {
        near = nearest_name(last, names, count);
        if (near) return arena_printf(a, "; did you mean %.*s%s?", (int)n, path, near);
        return arena_printf(a, "; 'keel config explain%s%s' lists the keys", *parent ? " " : "", parent);
    }
    near = nearest_name(path, names, count);
    return near ? arena_printf(a, "; did you mean %s?", near) : "; 'keel config explain' lists the keys";
}

static status unknown(arena *a, const layer *l, const yaml_node *n, const char *path)
{
    static const char reserved[] = "quant dist eval lab";
    const char *before = n->line > 0 ? arena_printf(a, "%s:%d", l->file, n->line) : l->file;
    char *block = arena_printf(a, "%.*s", (int)strcspn(path, "."), path);
    if (word_in(reserved, block))
        return fail(ERR_CONFIG, "%s: the block %s is reserved for a later version; remove it", before, block);
    if (is_group(path))
        return fail(ERR_CONFIG, "%s: %s is a group of keys, not a value; 'keel config explain %s' lists them",
                    before, path, path);
    return fail(ERR_CONFIG, "%s: unknown key %s%s", before, path, did_you_mean(a, path));
}

/* ---- a layer's tree into the slots */
static status put_value(config *c, const layer *l, const config_key *k, const yaml_node *n)
{
    arena *a = c->memory;
    config_value value;
    config_slot *slot = find_slot(c, k->path);
    if (slot->layer == l->kind && l->kind != FROM_PRESET && l->kind != FROM_KEEL)
        return fail(ERR_CONFIG, "%s is here a second time; keep one of them",
                    place(a, l->file, n->line, k->path));
    TRY(value_read(a, k, n, l->file, &value));
    slot->value = value;
    slot->layer = l->kind;
    slot->where = place(a, l->file, n->line, k->path);
    return OK;
}

static status put_tree(config *c, const layer *l, const char *prefix, const yaml_node *map)
{
    for (const yaml_node *n = map->first; n; n = n->next) {
        const char *path = arena_printf(c->memory, "%s%s", prefix, n->name);
        const config_slot *slot = find_slot(c, path);
        if (slot)
            TRY(put_value(c, l, slot->key, n));
        else if (is_group(path) && (n->kind == YAML_MAP || yaml_is_null(n)))
            TRY(put_tree(c, l, arena_printf(c->memory, "%s.", path), n)); // an empty group sets nothing
        else
            return unknown(c->memory, l, n, path);
    }
    return OK;
}

/* "key=value", as the command line, presets and config_set have it. */
static status put_setting(config *c, const layer *l, const char *key, const char *value)
{
    yaml_node *n;
    const config_slot *slot = find_slot(c, key);
    if (!slot) return unknown(c->memory, l, &(yaml_node){0}, key);
    TRY(yaml_read_value(c->memory, place(c->memory, l->file, 0, key), value, &n));
    return put_value(c, l, slot->key, n);
}

static status put_override(config *c, const char *text)
{
    static const layer command = {FROM_COMMAND, "command line"};
    const char *equals = strchr(text, '=');
    if (!equals || equals == text)
        return fail(ERR_USAGE, "'%s' is not a setting; write key=value, like train.steps=100", text);
    return put_setting(c, &command, arena_printf(c->memory, "%.*s", (int)(equals - text), text), equals + 1);
}

static void put_defaults(config *c) // the rows' defaults are canonical (a list's is the empty one): tested
{
    for (i64 i = 0; i < c->keys.n; i++) {
        const config_key *k = c->keys.rows[i];
        c->slots[i] =
            (config_slot){.key = k, .layer = FROM_DEFAULT, .where = place(c->memory, "default", 0, k->path)};
        c->slots[i].value.text = k->initial;
    }
}

/* ---- presets */
static status put_preset(config *c, const config_preset *p)
{
    layer l = {FROM_PRESET, arena_printf(c->memory, "preset %s", p->value)};
    for (const char *s = p->sets; *s;) {
        const char *end = s; // a setting runs up to the space before the next word that holds '='
        do {
            end += *end == ' ';
            end += strcspn(end, " ");
        } while (*end && !memchr(end + 1, '=', strcspn(end + 1, " ")));
        const char *equals = strchr(s, '=');
        assert(equals && equals < end);
        TRY(put_setting(c, &l, arena_printf(c->memory, "%.*s", (int)(equals - s), s),
                        arena_printf(c->memory, "%.*s", (int)(end - equals - 1), equals + 1)));
        s = end + (*end == ' ');
    }
    return OK;
}

/* Applies the presets that CHOSEN (a configuration without presets) or an earlier preset chooses. */
static status put_presets(config *c, const config *chosen)
{
    for (const config_preset *p = config_next_preset(NULL); p; p = config_next_preset(p)) {
        const config_slot *slot = find_slot(chosen, p->key), *earlier = find_slot(c, p->key);
        if (slot->layer == FROM_DEFAULT) slot = earlier;
        if (slot->layer != FROM_DEFAULT && !strcmp(slot->value.text, p->value)) TRY(put_preset(c, p));
    }
    return OK;
}

/* A preset's items of model.override stand before those of file or command line (later items win), so that an
 * exception of one's own does not undo the preset's; an empty list drops them. Items that begin with the
 * preset's are those of a resolved configuration: they hold all. */
static void put_before(config *c, const config_slot *preset, config_slot *given)
{
    const char *first = preset->value.text, *all = given->value.text;
    size_t n = strlen(first) - 1; // without its ]
    bool resolved = !strncmp(first, all, n) && (all[n] == ']' || all[n] == ',');
    if (preset->value.count && given->value.count && !resolved)
        value_join(c->memory, given->key, &preset->value, &given->value, &given->value);
}

/* Copies what file and command line set over the presets of C. */
static void put_over(config *c, const config *chosen)
{
    for (i64 i = 0; i < c->keys.n; i++) {
        config_slot given = chosen->slots[i];
        if (given.layer == FROM_DEFAULT) continue;
        if (!strcmp(given.key->path, "model.override")) put_before(c, &c->slots[i], &given);
        c->slots[i] = given;
    }
}

/* ---- loading */
static status load_layers(config *c, const char *name, const char *yaml, size_t bytes,
                          const char *const *overrides, i64 n)
{
    layer file = {FROM_FILE, name};
    config chosen = *c;
    yaml_node *root;
    chosen.slots = arena_array(c->memory, config_slot, c->keys.n);
    put_defaults(&chosen);
    if (yaml) {
        TRY(yaml_read(c->memory, name, true, yaml, bytes, &root));
        if (root->kind != YAML_MAP)
            return fail(ERR_CONFIG, "%s: not a map of keys; begin with model:, train: or data:", name);
        TRY(put_tree(&chosen, &file, "", root));
    }
    for (i64 i = 0; i < n; i++) TRY(put_override(&chosen, overrides[i]));
    put_defaults(c);
    TRY(put_presets(c, &chosen));
    put_over(c, &chosen);
    return check_rules(c);
}

status config_parse(const char *name, const char *yaml, size_t bytes, const char *const *overrides, i64 n,
                    config **out)
{
    arena *memory;
    TRY(arena_open(&memory));
    config *c = arena_new(memory, config);
    c->memory = memory;
    config_keys(&c->keys);
    c->slots = arena_array(memory, config_slot, c->keys.n);
    status s = load_layers(c, arena_strdup(memory, name), yaml, bytes, overrides, n);
    if (s)
        arena_close(memory);
    else
        *out = c;
    return s;
}

status config_load(const char *path, const char *const *overrides, i64 n, config **out)
{
    if (!path) return config_parse("", NULL, 0, overrides, n, out);
    FILE *f = strcmp(path, "-") ? fopen(path, "r")
                                : stdin; // not file_read: what has no end (/dev/zero) must not hang
    if (!f) return fail(ERR_IO, "%s: %s", path, strerror(errno));
    char *data = NULL;
    status s = mem_alloc(YAML_LARGEST + 1, "a configuration", &data);
    errno = 0;
    size_t bytes = s ? 0 : fread(data, 1, YAML_LARGEST + 1, f);
    if (!s && ferror(f)) s = fail(ERR_IO, "%s: %s", path, strerror(errno));
    if (f != stdin) fclose(f);
    if (!s) s = config_parse(f == stdin ? "standard input" : path, data, bytes, overrides, n, out);
    mem_free(data);
    return s;
}

void config_close(config *c)
{
    if (c) arena_close(c->memory);
}

status config_set(config *c, const char *path, const char *value, const char *origin)
{
    layer l = {FROM_KEEL, arena_strdup(c->memory, origin)};
    TRY(put_setting(c, &l, path, value));
    return check_rules(c);
}

/* ---- getters */
static const config_slot *slot_of(const config *c, const char *path)
{
    const config_slot *slot = find_slot(c, path);
    assert(slot && "no table holds this path");
    return slot;
}

/* The field of model.override that sets PATH in LAYER, or NULL. Later items win. */
static const config_field *override_of(const config *c, i64 layer, const char *path)
{
    if (layer < 0 || strncmp(path, "model.", 6)) return NULL;
    i64 layers = config_count(c, "model.layers");
    const config_value *v = &slot_of(c, "model.override")->value;
    for (i64 i = v->count - 1; i >= 0; i--) {
        const char *where = config_item(c, "model.override", i, "layers");
        for (i64 f = 0; f < v->items[i].count; f++)
            if (!strcmp(v->items[i].fields[f].key->path, path) && layers_hold(where, layer, layers))
                return &v->items[i].fields[f];
    }
    return NULL;
}

const char *config_text_at(const config *c, i64 layer, const char *path)
{
    const config_field *f = override_of(c, layer, path);
    return f ? f->text : slot_of(c, path)->value.text;
}

double config_number_at(const config *c, i64 layer, const char *path)
{
    double x;
    const char *text = config_text_at(c, layer, path);
    assert(slot_of(c, path)->key->type <= KEY_NUMBER);
    return parse_double(text, &x) ? x : NAN;
}

i64 config_count_at(const config *c, i64 layer, const char *path)
{
    double x = config_number_at(c, layer, path);
    assert(slot_of(c, path)->key->type == KEY_COUNT);
    return isnan(x) ? -1 : (i64)x;
}

bool config_flag_at(const config *c, i64 layer, const char *path)
{
    assert(slot_of(c, path)->key->type == KEY_BOOL);
    return !strcmp(config_text_at(c, layer, path), "true");
}

static i64 index_of(const config_key *k, const char *value)
{
    const char *p = k->choices;
    assert(k->type == KEY_CHOICE);
    for (i64 i = 0; p; i++, p = strchr(p, ' '), p += p != NULL)
        if (strcspn(p, " ") == strlen(value) && !strncmp(p, value, strlen(value))) return i;
    assert(!"a value that its row does not list");
    return -1;
}
i64 config_choice_at(const config *c, i64 layer, const char *path)
{
    return index_of(slot_of(c, path)->key, config_text_at(c, layer, path));
}

bool config_is_at(const config *c, i64 layer, const char *path, const char *value)
{
    const config_key *k = slot_of(c, path)->key;
    assert((k->type != KEY_CHOICE || word_in(k->choices, value)) && "a value that the row does not list");
    (void)k;
    return !strcmp(config_text_at(c, layer, path), value);
}

bool config_has_choice_at(const config *c, i64 layer, const char *path, const char *choice)
{
    const config_key *k = slot_of(c, path)->key;
    assert(k->type == KEY_CHOICES && word_in(k->choices, choice));
    (void)k;
    return word_in(config_text_at(c, layer, path), choice);
}

void config_numbers(const config *c, const char *path, double *out, i64 n)
{
    const config_slot *slot = slot_of(c, path);
    const char *p = slot->value.text;
    assert(slot->key->type == KEY_NUMBERS);
    for (i64 i = 0; i < n; i++) {
        char *end;
        out[i] = strtod(p, &end);
        assert(end != p && (*end == ' ' || (!*end && i == n - 1)));
        p = end + (*end == ' ');
    }
}

double config_seconds(const config *c, const char *path)
{
    double seconds;
    assert(slot_of(c, path)->key->type == KEY_DURATION);
    return parse_duration(config_text(c, path), &seconds) ? seconds : NAN;
}

bool config_share(const config *c, const char *path, double *share)
{
    const char *s = config_text(c, path);
    size_t n = strlen(s);
    assert(slot_of(c, path)->key->type == KEY_SHARE);
    if (!n || s[n - 1] != '%') return false;
    *share = strtod(s, NULL) / 100;
    return true;
}

i64 span_steps(const char *span, i64 total_steps, i64 tokens_per_step)
{
    char *unit;
    double x = strtod(span, &unit);
    if (unit == span) return 0; // none
    assert(tokens_per_step > 0);
    if (*unit == '%') x *= total_steps / 100.0;
    if (!strcmp(unit, " tokens")) x /= (double)tokens_per_step;
    return x > 0 ? MAX(1, (i64)floor(x + 0.5)) : 0;
}

i64 config_span(const config *c, const char *path, i64 total_steps, i64 tokens_per_step)
{
    assert(slot_of(c, path)->key->type == KEY_SPAN);
    return span_steps(config_text(c, path), total_steps, tokens_per_step);
}

i64 config_items(const config *c, const char *path)
{
    assert(slot_of(c, path)->key->type == KEY_LIST);
    return slot_of(c, path)->value.count;
}

const char *config_item(const config *c, const char *path, i64 i, const char *field)
{
    const config_slot *slot = slot_of(c, path);
    const config_key *k = list_field(slot->key, field);
    assert(k && i >= 0 && i < slot->value.count);
    const config_item_t *item = &slot->value.items[i];
    for (i64 f = 0; f < item->count; f++)
        if (item->fields[f].key == k) return item->fields[f].text;
    return k->initial;
}

double config_item_number(const config *c, const char *path, i64 i, const char *field)
{
    double x;
    return parse_double(config_item(c, path, i, field), &x) ? x : NAN;
}

i64 config_item_choice(const config *c, const char *path, i64 i, const char *field)
{
    return index_of(list_field(slot_of(c, path)->key, field), config_item(c, path, i, field));
}

/* ---- origins */
const char *config_where_at(const config *c, i64 layer, const char *path)
{
    const config_field *f = override_of(c, layer, path);
    return f ? f->where : slot_of(c, path)->where;
}

const char *config_where(const config *c, const char *path) { return config_where_at(c, -1, path); }

bool config_applies(const config *c, const char *path) { return applies(c, slot_of(c, path)->key); }

bool config_given(const config *c, const char *path) { return slot_of(c, path)->layer != FROM_DEFAULT; }

static status refuse_value(const char *where, const char *format, va_list args)
{
    char message[1024];
    vsnprintf(message, sizeof message, format, args);
    return fail(ERR_CONFIG, "%s %s", where, message);
}

status config_refuse(const config *c, const char *path, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    status s = refuse_value(config_where(c, path), format, args);
    va_end(args);
    return s;
}

status config_refuse_at(const config *c, i64 layer, const char *path, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    status s = refuse_value(config_where_at(c, layer, path), format, args);
    va_end(args);
    return s;
}

/* ---- writing */
static void write_group(const config *c, const char *prefix, int depth, text *out)
{
    size_t n = strlen(prefix);
    for (i64 i = 0; i < c->keys.n; i++) {
        const config_slot *slot = &c->slots[i];
        if (strncmp(slot->key->path, prefix, n) || strstr(slot->key->path, "[]")) continue;
        const char *name = slot->key->path + n, *dot = strchr(name, '.');
        if (!dot) {
            if (!applies(c, slot->key)) continue;
            text_add(out, "%*s%s: ", 2 * depth, "", name);
            value_write(slot->key, slot->value.text, out);
            text_add(out, "\n");
            continue;
        }
        size_t group = (size_t)(dot + 1 - slot->key->path);
        bool first = true; // a group stands where its first key does
        for (i64 j = 0; j < i; j++) first &= strncmp(c->slots[j].key->path, slot->key->path, group) != 0;
        if (!first) continue;
        text_add(out, "%*s%.*s:\n", 2 * depth, "", (int)(dot - name), name);
        char inner[256];
        snprintf(inner, sizeof inner, "%.*s", (int)group, slot->key->path);
        write_group(c, inner, depth + 1, out);
    }
}

void config_write(const config *c, text *out) { write_group(c, "", 0, out); }

u64 config_hash(const config *c)
{
    text all = {0};
    config_write(c, &all);
    u64 hash = XXH3_64bits(all.data, all.bytes);
    text_free(&all);
    return hash;
}
