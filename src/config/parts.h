/* parts: what the files of src/config share; nobody else includes it.
 *
 *     yaml_node *root;
 *     TRY(yaml_read(a, "run.yaml", true, data, bytes, &root));
 *     TRY(value_read(a, key, node, where, &value));       // checks NODE against the row KEY
 */
#pragma once
#include "config/config.h"

/* ---- yaml.c */
typedef enum yaml_kind { YAML_SCALAR, YAML_LIST, YAML_MAP } yaml_kind;
typedef struct yaml_node {
    yaml_kind kind;
    const char *text; // a scalar's text
    const char *name; // its key, when it is a map's entry
    bool plain;       // a scalar without quotes
    int line;         // from 1; of the key for a map's entry; 0 on the command line
    i64 count;
    struct yaml_node *first, *last, *next;
} yaml_node;
enum { YAML_LARGEST = 1 << 20, YAML_DEEPEST = 16, YAML_WIDEST = 1000 };
/* Reads one document (an empty one is an empty map). NUMBERED: messages name lines. */
status yaml_read(arena *a, const char *name, bool numbered, const char *data, size_t bytes, yaml_node **out)
    MUST;
/* A command line's value: flow YAML when it opens with [ { " or ', otherwise the text as it stands. */
status yaml_read_value(arena *a, const char *name, const char *value, yaml_node **out) MUST;
bool yaml_is_null(const yaml_node *n);

/* ---- value.c */
typedef enum layer_kind { FROM_DEFAULT, FROM_PRESET, FROM_FILE, FROM_COMMAND, FROM_KEEL } layer_kind;
typedef struct config_field {
    const config_key *key;
    const char *text;
    const char *where; // "cfg.yaml:12: model.norm.attn"
} config_field;
typedef struct config_item_t {
    i64 count;
    config_field *fields;
} config_item_t;
typedef struct config_value {
    const char *text; // canonical
    i64 count;
    config_item_t *items; // KEY_LIST
} config_value;
/* Canonical value of NODE by the row KEY. FILE ("cfg.yaml", "command line") and the node's line open
 * messages. */
status value_read(arena *a, const config_key *key, const yaml_node *node, const char *file, config_value *out)
    MUST;
/* The items of FIRST, then those of SECOND, as one list. */
void value_join(arena *a, const config_key *list, const config_value *first, const config_value *second,
                config_value *out);
/* A canonical value as YAML (flow). */
void value_write(const config_key *key, const char *value, text *out);
const char *place(arena *a, const char *file, int line, const char *path); // "file:line: path"
bool layers_exist(const char *text, i64 layers); // does every layer that canonical TEXT names exist?
const char *list_field_path(const config_key *list, const char *field, char *out, size_t room);
const config_key *list_field(const config_key *list, const char *field); // NULL if it has none of that name
/* "; did you mean model.width?" for an unknown key, or how to list the keys. */
const char *did_you_mean(arena *a, const char *path);

/* ---- config.c */
typedef struct config_slot {
    const config_key *key;
    config_value value;
    layer_kind layer;
    const char *where;
} config_slot;
struct config {
    arena *memory;
    key_list keys;
    config_slot *slots; // keys.n of them, same order
};
config_slot *find_slot(const config *c, const char *path); // NULL if unknown
const config_preset *
config_next_preset(const config_preset *after); // every preset in order; NULL: the first, the end
/* ---- rules.c */
bool applies(const config *c, const config_key *key); // is the kind that KEY belongs to chosen?
status check_rules(config *c) MUST;
