/* What makes two runs the same: see identity.h. Every key that applies counts, by its canonical text, so that
 * neither the order in a file nor the spelling of a number matters. */
#include "train/identity.h"
#include <string.h>
#include <xxhash.h>

static const char places[] = "data.train data.tokenizer";

static bool counts(const config_key *k) { return !strstr(k->path, "[]") && !word_in(places, k->path); }

const char *identity_value(const config *c, const char *key)
{
    return config_applies(c, key) ? config_text(c, key) : "unset";
}

/* Paths are places, and do not count; the shares of a mixture do. */
static void add_weights(const config *c, text *out)
{
    for (i64 i = 0; i < config_items(c, "data.train"); i++) {
        const char *weight = config_item(c, "data.train", i, "weight");
        if (strcmp(weight, "auto")) text_add(out, "data.train[%lld].weight=%s\n", (long long)i, weight);
    }
}

static bool same_weights(const config *a, const config *b)
{
    text x = {0}, y = {0};
    add_weights(a, &x);
    add_weights(b, &y);
    bool same = !strcmp(x.data ? x.data : "", y.data ? y.data : "");
    text_free(&x);
    text_free(&y);
    return same;
}

u64 identity_of(const config *c, u64 data)
{
    text all = {0};
    key_list keys;
    config_keys(&keys);
    text_add(&all, "data=%016llx\n", (unsigned long long)data);
    for (i64 i = 0; i < keys.n; i++)
        if (counts(keys.rows[i]))
            text_add(&all, "%s=%s\n", keys.rows[i]->path, identity_value(c, keys.rows[i]->path));
    add_weights(c, &all);
    u64 hash = XXH3_64bits(all.data, all.bytes);
    text_free(&all);
    return hash;
}

const char *identity_differs(const config *a, const config *b)
{
    key_list keys;
    config_keys(&keys);
    for (int given = 1; given >= 0; given--) // a key that A's author wrote says more than a default that went
        for (i64 i = 0; i < keys.n; i++) {
            const char *path = keys.rows[i]->path;
            if (counts(keys.rows[i]) && config_given(a, path) >= given &&
                strcmp(identity_value(a, path), identity_value(b, path)))
                return path;
        }
    if (!same_weights(a, b)) return "data.train";
    return NULL;
}
