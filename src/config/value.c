/* value: a YAML node checked against a key's row, as canonical text.
 *
 * One value has one text ("32Ki" and 32768 are "32768", [ffn, x] in the row's order), so that equal
 * configurations hash equally; and the text, written as YAML, reads back as itself. */
#include "config/parts.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double WHOLE_MAX = 9007199254740992.0; // 2^53: beyond, a double skips whole numbers

bool word_in(const char *words, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = words; p && *p && n;) {
        size_t m = strcspn(p, " ");
        if (m == n && !strncmp(p, word, n)) return true;
        p += m + (p[m] == ' ');
    }
    return false;
}

const char *place(arena *a, const char *file, int line, const char *path)
{
    return line > 0 ? arena_printf(a, "%s:%d: %s", file, line, path) : arena_printf(a, "%s: %s", file, path);
}

/* ---- what a row allows, in words */
static void add_words(const char *words, const char *last, text *out)
{
    for (const char *p = words; *p;) {
        size_t m = strcspn(p, " ");
        text_add(out, "%s%.*s", p == words ? "" : p[m] ? ", " : last, (int)m, p);
        p += m + (p[m] == ' ');
    }
}

static void add_range(const config_key *k, text *out)
{
    if (k->max > k->min)
        text_add(out, " from %.10g to %.10g", k->min, k->max);
    else
        text_add(out, " of at least %.10g", k->min);
}

static int words_in(const char *words)
{
    int n = *words != 0;
    for (const char *p = words; *p; p++) n += *p == ' ';
    return n;
}

void config_describe(const config_key *k, text *out)
{
    switch (k->type) {
    case KEY_COUNT:
        text_add(out, "a whole number");
        add_range(k, out);
        break;
    case KEY_NUMBER:
        text_add(out, "a number");
        add_range(k, out);
        break;
    case KEY_NUMBERS:
        text_add(out, "a list of %d numbers", words_in(k->initial));
        add_range(k, out);
        break;
    case KEY_BOOL:
        text_add(out, "true or false");
        return;
    case KEY_CHOICE:
        add_words(k->choices, " or ", out);
        return;
    case KEY_CHOICES:
        text_add(out, "a list of ");
        add_words(k->choices, ", ", out);
        return;
    case KEY_STRING:
        text_add(out, "text");
        break;
    case KEY_SHARE:
        text_add(out, "a share from %.10g%% to %.10g%%, or a path", k->min, k->max);
        break;
    case KEY_SPAN:
        text_add(out, "a span (like 400 steps, 2M tokens, 3%%)");
        break;
    case KEY_DURATION:
        text_add(out, "a time from 1 s (like 90 s, 4 min, 2 h, 1 d)");
        break;
    case KEY_LAYERS:
        text_add(out, "layers (like all, \"0,3,6-8\", -1)");
        return;
    case KEY_LIST:
        text_add(out, "a list");
        return;
    }
    if (k->choices) {
        text_add(out, ", or ");
        add_words(k->choices, " or ", out);
    }
}

static const char *shown(arena *a, const char *text)
{
    text = strlen(text) > 60 ? arena_printf(a, "%.57s...", text) : text;
    char *copy = arena_strdup(a, text);
    for (char *p = copy; *p; p++)
        if (*p == '\n') *p = ' '; // messages are one line
    return copy;
}

static status refuse(arena *a, const config_key *k, const char *where, const char *given)
{
    text allowed = {0};
    config_describe(k, &allowed);
    status s = fail(ERR_CONFIG, "%s is '%s'; it must be %s", where, shown(a, given), allowed.data);
    text_free(&allowed);
    return s;
}

/* ---- scalars */
/* The shortest text that reads back as X: 3, 0.1, 1e-5. */
static const char *number_text(arena *a, double x)
{
    char out[40], *e;
    if (x == floor(x) && fabs(x) < 1e15) return arena_printf(a, "%.0f", x == 0 ? 0.0 : x);
    for (int digits = 1; digits <= 17; digits++) {
        double again;
        snprintf(out, sizeof out, "%.*g", digits, x);
        if (parse_double(out, &again) && again == x) break;
    }
    if ((e = strchr(out, 'e')) && e[2] == '0') memmove(e + 2, e + 3, strlen(e + 2)); // 1e-05
    return arena_strdup(a, out);
}

static bool in_range(const config_key *k, double x)
{
    return x >= k->min && (!(k->max > k->min) || x <= k->max);
}

static const char *span_text(arena *a, const char *s)
{
    double x;
    size_t n = strcspn(s, " %");
    char number[32];
    if (!n || n >= sizeof number) return NULL;
    snprintf(number, sizeof number, "%.*s", (int)n, s);
    if (!parse_count(number, &x) || !(x >= 0) || x > WHOLE_MAX) return NULL;
    const char *unit = s + n;
    if (!strcmp(unit, "%")) return x <= 100 ? arena_printf(a, "%s%%", number_text(a, x)) : NULL;
    while (*unit == ' ') unit++;
    if (x != floor(x)) return NULL;
    if (!strcmp(unit, "step")) unit = "steps";
    if (strcmp(unit, "steps") && strcmp(unit, "tokens")) return NULL;
    return arena_printf(a, "%.0f %s", x, unit);
}

/* One layer of "0,3,6-8,-1": *low <= *high of equal sign, or all. Advances *P past it. */
static bool next_layers(const char **p, i64 *low, i64 *high)
{
    char *end;
    const char *digits = *p + (**p == '-');
    if (strspn(digits, "0123456789") - 1 > 5) return false; // none, or over a million
    *low = *high = strtol(*p, &end, 10);
    if (*end == '-' && **p != '-') {
        const char *second = end + 1;
        if (strspn(second, "0123456789") - 1 > 5) return false;
        *high = strtol(second, &end, 10);
    }
    if (*end == ',' && !end[1]) return false;
    *p = end + (*end == ',');
    return *low <= *high && (!*end || *end == ',');
}

static const char *layers_text(arena *a, const char *s)
{
    char *out = arena_alloc(a, strlen(s) + 1), *to = out;
    for (; *s; s++)
        if (*s != ' ') *to++ = *s;
    i64 low, high;
    if (!strcmp(out, "all")) return out;
    const char *p = out;
    do
        if (!next_layers(&p, &low, &high)) return NULL;
    while (*p);
    return out;
}

bool layers_hold(const char *text, i64 layer, i64 layers)
{
    if (!strcmp(text, "all")) return true;
    for (i64 low, high; *text && next_layers(&text, &low, &high);) {
        if (low < 0) low += layers, high += layers;
        if (layer >= low && layer <= high) return true;
    }
    return false;
}

bool layers_exist(const char *text, i64 layers)
{
    if (!strcmp(text, "all")) return true;
    for (i64 low, high; *text && next_layers(&text, &low, &high);)
        if (low < -layers || high >= layers) return false;
    return true;
}

/* The text of a share, "1%"; NULL when it is a path; *bad when it looks like a share and is none. */
static const char *share_text(arena *a, const config_key *k, const char *s, bool *bad)
{
    double x;
    size_t n = strlen(s);
    if (!n || s[n - 1] != '%') return NULL;
    char *number = arena_printf(a, "%.*s", (int)n - 1, s);
    *bad = !parse_double(number, &x) || !in_range(k, x);
    return *bad ? NULL : arena_printf(a, "%s%%", number_text(a, x));
}

static const char *scalar_text(arena *a, const config_key *k, const char *s)
{
    double x;
    bool bad = false;
    const char *share;
    if (word_in(k->choices, s)) return s;
    switch (k->type) {
    case KEY_COUNT:
        return parse_count(s, &x) && x == floor(x) && x >= 0 && x <= WHOLE_MAX && in_range(k, x)
                   ? arena_printf(a, "%.0f", x)
                   : NULL;
    case KEY_NUMBER:
    case KEY_NUMBERS:
        return parse_count(s, &x) && in_range(k, x) ? number_text(a, x) : NULL;
    case KEY_BOOL:
        if (!strcmp(s, "true") || !strcmp(s, "True") || !strcmp(s, "TRUE")) return "true";
        return !strcmp(s, "false") || !strcmp(s, "False") || !strcmp(s, "FALSE") ? "false" : NULL;
    case KEY_STRING:
        return s;
    case KEY_SHARE:
        share = share_text(a, k, s, &bad);
        return bad || !*s ? NULL : share ? share : s;
    case KEY_SPAN:
        return span_text(a, s);
    case KEY_DURATION:
        return parse_duration(s, &x) && in_range(k, x) ? arena_printf(a, "%s s", number_text(a, x)) : NULL;
    case KEY_LAYERS:
        return layers_text(a, s);
    default:
        return NULL;
    }
}

/* ---- lists of scalars */
static status read_numbers(arena *a, const config_key *k, const yaml_node *n, const char *where,
                           config_value *out)
{
    if (n->kind != YAML_LIST || n->count != words_in(k->initial))
        return refuse(a, k, where,
                      n->kind == YAML_SCALAR ? n->text
                      : n->kind == YAML_LIST ? arena_printf(a, "a list of %lld", (long long)n->count)
                                             : "a map");
    char *all = "";
    for (const yaml_node *item = n->first; item; item = item->next) {
        const char *one = item->kind == YAML_SCALAR ? scalar_text(a, k, item->text) : NULL;
        if (!one) return refuse(a, k, where, item->kind == YAML_SCALAR ? item->text : "a list of lists");
        all = arena_printf(a, "%s%s%s", all, *all ? " " : "", one);
    }
    out->text = all;
    return OK;
}

static status read_choices(arena *a, const config_key *k, const yaml_node *n, const char *where,
                           config_value *out)
{
    const yaml_node *first = n->kind == YAML_SCALAR ? n : n->first;
    char *given = "", *all = "";
    if (n->kind == YAML_MAP) return refuse(a, k, where, "a map");
    if (n->kind == YAML_SCALAR && !strcmp(n->text, "none")) first = NULL;
    for (const yaml_node *item = first; item; item = n == item ? NULL : item->next) {
        if (item->kind != YAML_SCALAR || !word_in(k->choices, item->text))
            return refuse(a, k, where, item->kind == YAML_SCALAR ? item->text : "a list of lists");
        if (word_in(given, item->text))
            return fail(ERR_CONFIG, "%s names '%s' twice; once is enough", where, item->text);
        given = arena_printf(a, "%s%s%s", given, *given ? " " : "", item->text);
    }
    char *words = arena_strdup(a, k->choices), *state = NULL;
    for (char *w = strtok_r(words, " ", &state); w; w = strtok_r(NULL, " ", &state))
        if (word_in(given, w)) all = arena_printf(a, "%s%s%s", all, *all ? " " : "", w);
    out->text = all;
    return OK;
}

static status read_layers(arena *a, const config_key *k, const yaml_node *n, const char *where,
                          config_value *out)
{
    char *all = n->kind == YAML_SCALAR ? arena_strdup(a, n->text) : "";
    for (const yaml_node *item = n->kind == YAML_LIST ? n->first : NULL; item; item = item->next)
        all = arena_printf(a, "%s%s%s", all, *all ? "," : "", item->kind == YAML_SCALAR ? item->text : "?");
    out->text = scalar_text(a, k, all);
    return out->text ? OK : refuse(a, k, where, *all ? all : "nothing");
}

/* ---- lists of maps */
const char *list_field_path(const config_key *list, const char *field, char *out, size_t room)
{
    snprintf(out, room, "%s[].%s", list->path, field);
    return out;
}

/* The keys that model.override may change a layer at a time. */
static bool is_layer_key(const char *field)
{
    static const char *const groups[] = {"norm.", "residual.", "attention.", "ffn."};
    for (i64 i = 0; i < COUNT(groups); i++)
        if (!strncmp(field, groups[i], strlen(groups[i]))) return strcmp(field, "norm.preset") != 0;
    return false;
}

const config_key *list_field(const config_key *list, const char *field)
{
    char path[256];
    const config_key *k = config_find_key(list_field_path(list, field, path, sizeof path));
    if (k || strcmp(list->path, "model.override") || !is_layer_key(field)) return k;
    snprintf(path, sizeof path, "model.%s", field);
    return config_find_key(path);
}

static const config_key *first_field(const config_key *list)
{
    key_list all;
    size_t n = strlen(list->path);
    config_keys(&all);
    for (i64 i = 0; i < all.n; i++)
        if (!strncmp(all.rows[i]->path, list->path, n) && !strncmp(all.rows[i]->path + n, "[].", 3))
            return all.rows[i];
    return NULL;
}

enum { MOST_FIELDS = 64 };

static status add_field(arena *a, const config_key *list, config_item_t *item, const config_key *k,
                        const yaml_node *n, const char *file)
{
    config_value value = {0};
    for (i64 i = 0; i < item->count; i++)
        if (item->fields[i].key == k)
            return fail(ERR_CONFIG, "%s is here a second time; keep one of them",
                        place(a, file, n->line, k->path));
    if (k->type == KEY_LIST || item->count == MOST_FIELDS)
        return fail(ERR_CONFIG, "%s cannot stand in an item of %s", place(a, file, n->line, k->path),
                    list->path);
    TRY(value_read(a, k, n, file, &value));
    item->fields[item->count++] = (config_field){k, value.text, place(a, file, n->line, k->path)};
    return OK;
}

/* BEFORE: "cfg.yaml:3: " */
static status unknown_field(arena *a, const config_key *list, const char *field, const char *before)
{
    if (strcmp(list->path, "model.override")) {
        const char *path = arena_printf(a, "%s[].%s", list->path, field);
        return fail(ERR_CONFIG, "%sunknown key %s%s", before, path, did_you_mean(a, path));
    }
    const char *path = arena_printf(a, "model.%s", field);
    if (!config_find_key(path))
        return fail(ERR_CONFIG, "%sunknown key %s%s", before, path, did_you_mean(a, path));
    return fail(
        ERR_CONFIG,
        "%s%s cannot differ between layers; norm, residual, attention and ffn keys can (not norm.preset)",
        before, path);
}

static status read_fields(arena *a, const config_key *list, const char *prefix, const yaml_node *map,
                          const char *file, config_item_t *item)
{
    for (const yaml_node *n = map->first; n; n = n->next) {
        const char *field = arena_printf(a, "%s%s", prefix, n->name);
        const config_key *k = list_field(list, field);
        if (k)
            TRY(add_field(a, list, item, k, n, file));
        else if (n->kind == YAML_MAP && n->count)
            TRY(read_fields(a, list, arena_printf(a, "%s.", field), n, file, item));
        else
            return unknown_field(a, list, field, place(a, file, n->line, ""));
    }
    return OK;
}

static void write_items(const config_key *list, const config_value *v, text *out)
{
    const config_key *lone = first_field(list);
    key_list all;
    config_keys(&all);
    text_add(out, "[");
    for (i64 i = 0; i < v->count; i++) {
        const config_item_t *item = &v->items[i];
        bool scalar = item->count == 1 && item->fields[0].key == lone && lone->type != KEY_LAYERS;
        bool started = false;
        text_add(out, "%s%s", i ? ", " : "", scalar ? "" : "{");
        for (i64 j = 0; j < all.n; j++) // in the order of the tables
            for (i64 f = 0; f < item->count; f++) {
                const config_field *field = &item->fields[f];
                if (field->key != all.rows[j]) continue;
                const char *name = strstr(field->key->path, "[].");
                name = name ? name + 3 : field->key->path + strlen("model.");
                text_add(out, "%s", started ? ", " : "");
                if (!scalar) text_add(out, "%s: ", name);
                value_write(field->key, field->text, out);
                started = true;
            }
        text_add(out, "%s", scalar ? "" : "}");
    }
    text_add(out, "]");
}

static void list_text(arena *a, const config_key *list, config_value *v)
{
    text written = {0};
    write_items(list, v, &written);
    v->text = arena_strdup(a, written.data);
    text_free(&written);
}

static status read_list(arena *a, const config_key *k, const yaml_node *n, const char *where,
                        const char *file, config_value *out)
{
    const yaml_node *first = n->kind == YAML_LIST ? n->first : n;
    const config_key *lone = first_field(k);
    out->items = arena_array(a, config_item_t, MAX(n->count, 1));
    for (const yaml_node *i = first; i; i = n->kind == YAML_LIST ? i->next : NULL) {
        config_item_t *item = &out->items[out->count++];
        item->fields = arena_array(a, config_field, MOST_FIELDS);
        if (i->kind == YAML_LIST)
            return fail(ERR_CONFIG, "%s holds a list in a list; remove one pair of [ ]", where);
        if (i->kind == YAML_MAP)
            TRY(read_fields(a, k, "", i, file, item));
        else
            TRY(add_field(a, k, item, lone, i, file));
        if (!item->count) return fail(ERR_CONFIG, "%s has an empty item; remove it", where);
    }
    list_text(a, k, out);
    return OK;
}

void value_join(arena *a, const config_key *list, const config_value *first, const config_value *second,
                config_value *out)
{
    config_value both = {.count = first->count + second->count};
    both.items = arena_array(a, config_item_t, MAX(both.count, 1));
    for (i64 i = 0; i < both.count; i++)
        both.items[i] = i < first->count ? first->items[i] : second->items[i - first->count];
    list_text(a, list, &both);
    *out = both; // which may be one of the two
}

status value_read(arena *a, const config_key *k, const yaml_node *n, const char *file, config_value *out)
{
    const char *where = place(a, file, n->line, k->path);
    *out = (config_value){0};
    if (yaml_is_null(n)) {
        text allowed = {0};
        config_describe(k, &allowed);
        status s =
            fail(ERR_CONFIG, "%s has no value; it must be %s, or leave the key out", where, allowed.data);
        text_free(&allowed);
        return s;
    }
    if (k->type == KEY_LIST) return read_list(a, k, n, where, file, out);
    if (k->type == KEY_NUMBERS) return read_numbers(a, k, n, where, out);
    if (k->type == KEY_CHOICES) return read_choices(a, k, n, where, out);
    if (k->type == KEY_LAYERS && n->kind != YAML_MAP) return read_layers(a, k, n, where, out);
    if (n->kind != YAML_SCALAR) return refuse(a, k, where, n->kind == YAML_LIST ? "a list" : "a map");
    out->text = scalar_text(a, k, n->text);
    return out->text ? OK : refuse(a, k, where, n->text);
}

/* ---- writing */
static void write_string(const char *s, text *out)
{
    size_t safe = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-");
    yaml_node as_read = {.kind = YAML_SCALAR, .text = s, .plain = true};
    if (*s && !s[safe] && *s != '-' && *s != '.' && !yaml_is_null(&as_read)) {
        text_add(out, "%s", s);
        return;
    }
    text_add(out, "\"");
    for (const u8 *p = (const u8 *)s; *p; p++) {
        bool c1 = p[0] == 0xc2 && p[1] < 0xa0, line = p[0] == 0xe2 && p[1] == 0x80 && (p[2] & 0xfe) == 0xa8;
        if (*p == '\n' || *p == '\t')
            text_add(out, "\\%c", *p == '\n' ? 'n' : 't');
        else if (c1) // from here on: characters a YAML reader may take for breaks or refuse
            text_add(out, "\\x%02x", p[1]), p++;
        else if (line)
            text_add(out, "\\u20%02x", p[2] & 0x3f), p += 2;
        else if (p[0] == 0xef && p[1] == 0xbb && p[2] == 0xbf)
            text_add(out, "\\ufeff"), p += 2;
        else
            text_add(out, "%s%c", *p == '"' || *p == '\\' ? "\\" : "", *p);
    }
    text_add(out, "\"");
}

void value_write(const config_key *k, const char *value, text *out)
{
    if (k->type == KEY_CHOICES || k->type == KEY_NUMBERS) {
        text_add(out, "[");
        add_words(value, ", ", out);
        text_add(out, "]");
    } else if (k->type == KEY_STRING || k->type == KEY_SHARE || k->type == KEY_LAYERS) {
        size_t n = strlen(value);
        if (k->type == KEY_SHARE && n && value[n - 1] == '%') // no path ends so: share_text saw to it
            text_add(out, "%s", value);
        else
            write_string(value, out);
    } else
        text_add(out, "%s", value);
}
