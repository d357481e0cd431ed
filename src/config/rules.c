/* rules: what holds between keys: a key of a kind not chosen, the one budget, the layers of model.override.
 *
 * Departs from "a key of a kind not chosen is an error" in one case: where a stronger layer replaces the kind
 * (`keel train cfg.yaml train.schedule.kind=constant`), the weaker layer's keys of the old kind fall back to
 * their defaults, since whoever wrote them had the old kind; so do a preset's keys where a later preset
 * replaces the kind. The budget keys behave alike. */
#include "config/parts.h"
#include <math.h>
#include <string.h>

static const char *const budgets[] = {"train.tokens", "train.steps", "train.epochs", "train.time",
                                      "train.flops"};

/* Splits "path=kind kind"; the kinds start at the result. */
static const char *split_only(const config_key *k, char path[256])
{
    size_t n = strcspn(k->only, "=");
    n = MIN(n, 255);
    memcpy(path, k->only, n);
    path[n] = 0;
    return k->only + n + 1;
}

/* K, or the key that K's kind belongs to, and so on: the first whose kind is not chosen; NULL: all are. */
static const config_key *unmet(const config *c, i64 layer, const config_key *k)
{
    char path[256];
    for (; k->only; k = find_slot(c, path)->key, layer = -1) {
        const char *kinds = split_only(k, path);
        if (!word_in(kinds, config_text_at(c, layer, path))) return k;
    }
    return NULL;
}

static bool applies_at(const config *c, i64 layer, const config_key *k) { return !unmet(c, layer, k); }

bool applies(const config *c, const config_key *k) { return applies_at(c, -1, k); }

static status refuse_kind(const config *c, i64 layer, const config_key *k, const char *where)
{
    char path[256], wanted[256] = "";
    const char *kinds = split_only(unmet(c, layer, k), path);
    for (size_t n = 0, used = 0; *kinds && used + 64 < sizeof wanted; kinds += n + (kinds[n] == ' ')) {
        n = MIN(strcspn(kinds, " "), 48);
        memcpy(wanted + used, used ? " or " : "", used ? 4 : 0);
        used += used ? 4 : 0;
        memcpy(wanted + used, kinds, n);
        wanted[used += n] = 0;
    }
    return fail(ERR_CONFIG, "%s belongs to %s %s, and that is %s; choose it or remove the key", where, path,
                wanted, config_text_at(c, layer, path));
}

static void reset(config *c, config_slot *slot)
{
    slot->value = (config_value){.text = slot->key->initial};
    slot->layer = FROM_DEFAULT;
    slot->where = place(c->memory, "default", 0, slot->key->path);
}

static status check_kinds(config *c)
{
    for (i64 i = 0; i < c->keys.n; i++) {
        char path[256];
        config_slot *slot = &c->slots[i];
        if (slot->layer == FROM_DEFAULT || applies(c, slot->key)) continue;
        split_only(unmet(c, -1, slot->key), path);
        layer_kind by = find_slot(c, path)->layer;
        if (slot->layer >= by && !(slot->layer == FROM_PRESET && by == FROM_PRESET))
            return refuse_kind(c, -1, slot->key, slot->where);
        reset(c, slot);
    }
    return OK;
}

static void check_budgets(config *c)
{
    layer_kind strongest = FROM_DEFAULT;
    for (i64 i = 0; i < COUNT(budgets); i++) {
        const config_slot *slot = find_slot(c, budgets[i]);
        if (strcmp(slot->value.text, "none")) strongest = MAX(strongest, slot->layer);
    }
    for (i64 i = 0; i < COUNT(budgets); i++) {
        config_slot *slot = find_slot(c, budgets[i]);
        if (slot->layer < strongest) reset(c, slot);
    }
}

/* Every layer named must exist, and every key must be of the kind chosen in those layers. */
static status check_override(const config *c)
{
    const config_value *v = &find_slot(c, "model.override")->value;
    i64 layers = config_count(c, "model.layers");
    for (i64 i = 0; i < v->count; i++) {
        const char *range = config_item(c, "model.override", i, "layers");
        for (i64 f = 0; f < v->items[i].count; f++) {
            const config_field *field = &v->items[i].fields[f];
            for (i64 layer = 0; layer < layers; layer++)
                if (layers_hold(range, layer, layers) && !applies_at(c, layer, field->key))
                    return refuse_kind(c, layer, field->key, field->where);
            if (field->key->type == KEY_LAYERS && !layers_exist(range, layers))
                return fail(ERR_CONFIG,
                            "%s is '%s', but the model has %lld layers, 0 to %lld (-1 is the last)",
                            field->where, range, (long long)layers, (long long)layers - 1);
        }
    }
    return OK;
}

status check_rules(config *c)
{
    check_budgets(c);
    TRY(check_kinds(c));
    return check_override(c);
}

status config_budget(const config *c, budget *out)
{
    const config_slot *set = NULL;
    for (i64 i = 0; i < COUNT(budgets); i++) {
        const config_slot *slot = find_slot(c, budgets[i]);
        if (!strcmp(slot->value.text, "none")) continue;
        if (set)
            return fail(ERR_CONFIG,
                        "%s is set beside %s; keep exactly one of tokens, steps, epochs, time, flops",
                        slot->where, set->where);
        set = slot;
        out->kind = (budget_kind)i;
        out->value = i == BUDGET_TIME ? config_seconds(c, budgets[i]) : config_number(c, budgets[i]);
    }
    if (set) return OK;
    return fail(ERR_CONFIG, "train: no length is given; set one of train.tokens, train.steps, train.epochs, "
                            "train.time, train.flops (like train.time=\"4 min\")");
}

bool config_budget_given(const config *c)
{
    for (i64 i = 0; i < COUNT(budgets); i++)
        if (strcmp(find_slot(c, budgets[i])->value.text, "none")) return true;
    return false;
}
