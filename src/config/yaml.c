/* yaml: one YAML 1.2 document into a small tree, with line numbers.
 *
 * libfyaml parses; its events become nodes here, so nothing it composes (aliases, merges, tags) can grow.
 * Refused by name, since configurations need none of them: aliases, anchors, tags, several documents, keys
 * that are not words, tabs that indent, nesting beyond YAML_DEEPEST, files beyond YAML_LARGEST. */
#include "config/parts.h"
#include <libfyaml.h>
#include <string.h>

typedef struct reader {
    arena *memory;
    const char *name;
    bool numbered;
    yaml_node *open[YAML_DEEPEST]; // the containers around the next node
    const char *key;               // the pending key of the innermost map
    int depth, line, key_line, documents;
    yaml_node *root;
} reader;

static status refuse(const reader *r, int line, const char *what)
{
    if (r->numbered && line > 0) return fail(ERR_CONFIG, "%s:%d: %s", r->name, line, what);
    return fail(ERR_CONFIG, "%s: %s", r->name, what);
}

/* Bytes of the UTF-8 character at P, 0 if it is none (RFC 3629). */
static int utf8_length(const u8 *p, const u8 *end)
{
    int n = *p < 0x80                 ? 1
            : *p >= 0xc2 && *p < 0xe0 ? 2
            : *p >= 0xe0 && *p < 0xf0 ? 3
            : *p >= 0xf0 && *p < 0xf5 ? 4
                                      : 0;
    if (!n || end - p < n) return 0;
    for (int i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if (n == 3 && ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] >= 0xa0))) return 0;
    if (n == 4 && ((*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] >= 0x90))) return 0;
    return n;
}

/* What is checked on the bytes before any parser sees them. */
static status check_bytes(const reader *r, const char *data, size_t bytes)
{
    const u8 *p = (const u8 *)data, *end = p + bytes;
    bool indent = true;
    if (bytes > YAML_LARGEST) return refuse(r, 0, "over 1 MiB; is it a configuration?");
    for (int line = 1; p < end;) {
        int n = utf8_length(p, end);
        if (!n) return refuse(r, line, "not UTF-8 text; save the file as UTF-8");
        if ((*p < 0x20 && *p != '\n' && *p != '\t' && *p != '\r') || *p == 0x7f)
            return refuse(r, line, "a control character; remove it, or write it as an escape in \"quotes\"");
        if (*p == '\t' && indent && r->numbered)
            return refuse(r, line, "a tab indents; YAML indents by spaces");
        indent = *p == '\n' || (indent && *p == ' ');
        line += *p == '\n';
        p += n;
    }
    return OK;
}

static status attach(reader *r, yaml_node *node)
{
    if (!r->depth) {
        r->root = node;
        return OK;
    }
    yaml_node *in = r->open[r->depth - 1];
    if (in->count == YAML_WIDEST)
        return refuse(r, node->line, "over 1000 entries side by side; is it a configuration?");
    if (in->kind == YAML_MAP) {
        if (!r->key) { // this node is the key
            if (node->kind != YAML_SCALAR || !*node->text || strlen(node->text) > 100 ||
                strpbrk(node->text, "\t\n"))
                return refuse(r, node->line, "a key must be a word, like width");
            for (const yaml_node *other = in->first; other; other = other->next)
                if (!strcmp(other->name, node->text)) {
                    char *what =
                        arena_printf(r->memory, "%s is here a second time; keep one of them", node->text);
                    return refuse(r, node->line, what);
                }
            r->key = node->text;
            r->key_line = node->line;
            return OK;
        }
        node->name = r->key;
        node->line = r->key_line;
        r->key = NULL;
    }
    if (in->last)
        in->last->next = node;
    else
        in->first = node;
    in->last = node;
    in->count++;
    return OK;
}

static status add_container(reader *r, yaml_node *node)
{
    yaml_node *in = r->depth ? r->open[r->depth - 1] : NULL;
    if (in && in->kind == YAML_MAP && !r->key)
        return refuse(r, node->line, "a key must be a word, like width");
    TRY(attach(r, node));
    if (r->depth == YAML_DEEPEST) return refuse(r, node->line, "nested deeper than 16; no key is");
    r->open[r->depth++] = node;
    return OK;
}

static status add_scalar(reader *r, struct fy_event *e, int line)
{
    size_t bytes = 0;
    yaml_node *node = arena_new(r->memory, yaml_node);
    const char *text = fy_token_get_text(e->scalar.value, &bytes);
    *node = (yaml_node){
        .kind = YAML_SCALAR, .line = line, .plain = fy_token_scalar_style(e->scalar.value) == FYSS_PLAIN};
    char *copy = arena_alloc(r->memory, bytes + 1);
    if (bytes) memcpy(copy, text, bytes);
    for (size_t i = 0; i < bytes; i++)
        if (((u8)copy[i] < 0x20 && copy[i] != '\n' && copy[i] != '\t') || copy[i] == 0x7f)
            return refuse(r, line, "a control character in a text; remove the escape");
    node->text = copy;
    return attach(r, node);
}

static status take(reader *r, struct fy_event *e)
{
    const struct fy_mark *mark = fy_event_start_mark(e);
    int line = r->line = mark && r->numbered ? mark->line + 1 : r->line; // an empty node has no mark
    yaml_node *node = arena_new(r->memory, yaml_node);
    node->line = line;
    if (e->type == FYET_ALIAS || fy_event_get_anchor_token(e))
        return refuse(r, line, "anchors and aliases (& and *) are not used here; write the value out");
    if (fy_event_get_tag_token(e))
        return refuse(r, line, "tags (!) are not used here; write the plain value");
    switch (e->type) {
    case FYET_DOCUMENT_START:
        return r->documents++ ? refuse(r, line, "a second document begins; a configuration is one") : OK;
    case FYET_SCALAR:
        return add_scalar(r, e, line);
    case FYET_MAPPING_START:
        node->kind = YAML_MAP;
        return add_container(r, node);
    case FYET_SEQUENCE_START:
        node->kind = YAML_LIST;
        return add_container(r, node);
    case FYET_MAPPING_END:
    case FYET_SEQUENCE_END:
        r->depth--;
        return OK;
    default:
        return OK;
    }
}

static status parse_error(const reader *r, struct fy_diag *diag)
{
    void *state = NULL;
    struct fy_diag_error *e = fy_diag_errors_iterate(diag, &state);
    char *what = arena_printf(r->memory, "not valid YAML: %s", e && e->msg ? e->msg : "it cannot be parsed");
    for (char *p = what; *p; p++)
        if (*p == '\n') *p = ' ';
    return refuse(r, e ? e->line : 0, what);
}

static status run(reader *r, struct fy_parser *parser, struct fy_diag *diag)
{
    struct fy_event *e;
    while ((e = fy_parser_parse(parser))) {
        status s = take(r, e);
        fy_parser_event_free(parser, e);
        TRY(s);
    }
    return fy_parser_get_stream_error(parser) ? parse_error(r, diag) : OK;
}

static void discard(struct fy_diag *diag, void *user, const char *buffer, size_t bytes)
{
    (void)diag, (void)user, (void)buffer, (void)bytes;
}

static status parse(reader *r, const char *data, size_t bytes)
{
    struct fy_diag_cfg quiet;
    fy_diag_cfg_default(&quiet);
    quiet.fp = NULL;
    quiet.output_fn = discard;
    struct fy_diag *diag = fy_diag_create(&quiet);
    if (!diag) return fail(ERR_MEMORY, "%s: no memory to parse it", r->name);
    fy_diag_set_collect_errors(diag, true);
    struct fy_parse_cfg settings = {
        .search_path = "", .flags = FYPCF_DEFAULT_VERSION_1_2 | FYPCF_JSON_NONE, .diag = diag};
    struct fy_parser *parser = fy_parser_create(&settings);
    status s = !parser || fy_parser_set_string(parser, data, bytes)
                   ? fail(ERR_MEMORY, "%s: no memory to parse it", r->name)
                   : run(r, parser, diag);
    fy_parser_destroy(parser);
    fy_diag_destroy(diag);
    return s;
}

status yaml_read(arena *a, const char *name, bool numbered, const char *data, size_t bytes, yaml_node **out)
{
    reader r = {.memory = a, .name = name, .numbered = numbered, .line = numbered};
    TRY(check_bytes(&r, data, bytes));
    if (bytes) TRY(parse(&r, data, bytes));
    if (!r.root || (numbered && yaml_is_null(r.root))) {
        r.root = arena_new(a, yaml_node);
        r.root->kind = YAML_MAP;
    }
    *out = r.root;
    return OK;
}

status yaml_read_value(arena *a, const char *name, const char *value, yaml_node **out)
{
    if (*value && strchr("[{\"'", *value)) return yaml_read(a, name, false, value, strlen(value), out);
    reader r = {.memory = a, .name = name};
    TRY(check_bytes(&r, value, strlen(value)));
    *out = arena_new(a, yaml_node);
    **out = (yaml_node){.kind = YAML_SCALAR, .text = arena_strdup(a, value), .plain = true};
    return OK;
}

bool yaml_is_null(const yaml_node *n)
{
    return n->kind == YAML_SCALAR && n->plain &&
           (!*n->text || !strcmp(n->text, "~") || !strcmp(n->text, "null") || !strcmp(n->text, "Null") ||
            !strcmp(n->text, "NULL"));
}
