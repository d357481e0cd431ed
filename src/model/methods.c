/* The methods of all slots as one list: see methods.h. */
#include "model/methods.h"
#include <string.h>

#define DECLARE(name) extern const method_row name[];
METHOD_TABLES(DECLARE)
#undef DECLARE
#define ENTRY(name) name,
static const method_row *const tables[] = {METHOD_TABLES(ENTRY)};
#undef ENTRY

i64 methods_all(const method_row **out, i64 most)
{
    i64 n = 0;
    for (i64 t = 0; t < COUNT(tables); t++)
        for (const method_row *m = tables[t]; m->name; m++, n++)
            if (n < most) out[n] = m;
    return n;
}

const method_row *method_find(const char *name)
{
    for (i64 t = 0; t < COUNT(tables); t++)
        for (const method_row *m = tables[t]; m->name; m++)
            if (!strcmp(m->name, name)) return m;
    return NULL;
}

status method_words(arena *a, const char *settings, const char **words, i64 *n, i64 most)
{
    for (const char *s = settings; s && *(s += strspn(s, " "));) {
        size_t length = strcspn(s, " ");
        if (*n == most) return fail(ERR_CONFIG, "more than %lld settings: %s", (long long)most, settings);
        words[(*n)++] = arena_printf(a, "%.*s", (int)length, s);
        s += length;
    }
    return OK;
}

status method_small_words(arena *a, const method_row *m, const char **words, i64 *n, i64 most)
{
    i64 first = *n;
    TRY(method_words(a, m->settings, words, n, most));
    i64 own = *n, kept = first;
    TRY(method_words(a, m->small, words, n, most));
    for (i64 i = first; i < *n; i++) {
        size_t key = strcspn(words[i], "=");
        bool replaced = false;
        for (i64 k = own; i < own && k < *n; k++) replaced |= !strncmp(words[i], words[k], key + 1);
        if (!replaced) words[kept++] = words[i];
    }
    *n = kept;
    return OK;
}
