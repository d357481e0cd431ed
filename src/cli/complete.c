/* complete: verbs, parts, options and their values from the argp tables; arguments by the words that the
 * tables' own usage lines name them with; configuration keys and their values from the key table. */
#include "cli/complete.h"
#include "cli/cli.h"
#include "config/config.h"
#include "model/methods.h"
#include "ops/op.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>

typedef struct line {
    const char *word; // being typed
    size_t skip;      // of it, the head that candidates of a value repeat: "--isa="
    text *out;
} line;

/* One candidate, if the word's rest begins it. HELP may be NULL; its first sentence is enough. */
static void offer(const line *l, const char *value, size_t n, const char *end, const char *help)
{
    const char *rest = l->word + l->skip;
    size_t typed = strlen(rest);
    if (typed > n + strlen(end) || strncmp(value, rest, MIN(typed, n))) return;
    text_add(l->out, "%.*s%.*s%s", (int)l->skip, l->word, (int)n, value, end);
    if (help) text_add(l->out, "\t%.*s", (int)strcspn(help, ";\n"), help);
    text_add(l->out, "\n");
}
static void offer_word(const line *l, const char *value, const char *help)
{
    offer(l, value, strlen(value), "", help);
}

/* Each word of WORDS, parted by one of the characters PARTED. */
static void offer_words(const line *l, const char *words, const char *parted)
{
    while (*words) {
        size_t n = strcspn(words, parted);
        if (n) offer(l, words, n, "", NULL);
        words += n + (words[n] != 0);
    }
}

/* ---- what a usage line calls an argument */

static bool holds(const char *s, size_t n, const char *word)
{
    size_t w = strlen(word);
    for (size_t i = 0; i + w <= n; i++)
        if (!strncmp(s + i, word, w)) return true;
    return false;
}

static void offer_verbs(const line *l)
{
#define VERB(name, help) offer_word(l, #name, help);
    VERBS(VERB)
#undef VERB
}

static void offer_methods(const line *l)
{
    const method_row *rows[MOST_METHODS];
    i64 n = methods_all(rows, MOST_METHODS);
    for (i64 i = 0; i < n; i++) offer_word(l, rows[i]->name, rows[i]->slot);
}

/* Keys up to the next dot, so that a hundred of them do not come at once. */
static void offer_keys(const line *l, const char *end)
{
    key_list all;
    config_keys(&all);
    size_t typed = strlen(l->word);
    char last[128] = "";
    for (i64 i = 0; i < all.n; i++) {
        const config_key *k = all.rows[i];
        if (strncmp(k->path, l->word, typed) || strchr(k->path, '[')) continue;
        size_t n = typed + strcspn(k->path + typed, ".");
        if (!k->path[n])
            offer(l, k->path, n, end, k->help);
        else if (strncmp(last, k->path, n + 1) || last[n + 1]) {
            snprintf(last, sizeof last, "%.*s", (int)n + 1, k->path);
            offer(l, k->path, n, ".", NULL);
        }
    }
}

/* The values of the key before the '=' in the word. */
static void offer_values(const line *l)
{
    line value = *l;
    char path[128];
    size_t n = strcspn(l->word, "=");
    value.skip = n + 1;
    snprintf(path, sizeof path, "%.*s", (int)n, l->word);
    const config_key *k = config_find_key(path);
    if (!k) return;
    if (k->type == KEY_BOOL) offer_words(&value, "true false", " ");
    if (k->choices) offer_words(&value, k->choices, " ");
    if ((k->type == KEY_STRING || k->type == KEY_SHARE || k->type == KEY_LIST) && !strncmp(path, "data.", 5))
        text_add(l->out, ":file\n");
}

/* Candidates for an argument (or an option's value) that the usage calls NAME, N bytes: "plain|v3|v4",
 * "[CONFIG]", "RUN...". */
static void offer_named(const line *l, const char *name, size_t n)
{
    static const char *const folders[] = {"DIR", "FOLDER", "MODEL", "RUN"};
    static const char *const files[] = {"FILE", "PATH", "CONFIG"};
    char bare[64];
    size_t used = 0;
    for (size_t i = 0; i < n && used < sizeof bare - 1; i++)
        if (!strchr("[].", name[i])) bare[used++] = name[i];
    bare[used] = 0;
    if (arg_is_words(bare)) offer_words(l, bare, "|");
    if (!strcmp(bare, "METHOD")) offer_methods(l);
    if (!strcmp(bare, "VERB")) offer_verbs(l);
    if (!strcmp(bare, "KEY")) offer_keys(l, "");
    if (!strcmp(bare, "OP"))
        for (op_id i = 0; i < OP_COUNT; i++) offer_word(l, op_table(ISA_PLAIN, i)->name, NULL);
    if (holds(bare, used, "KEY=VALUE") && strchr(l->word, '=')) offer_values(l);
    if (holds(bare, used, "KEY=VALUE") && !strchr(l->word, '=')) offer_keys(l, "=");
    bool path = used == 1 && isupper((unsigned char)bare[0]); // A B of `tokenizer compare A B FILE...`
    bool folder = false;
    for (i64 i = 0; i < COUNT(folders); i++) folder |= holds(bare, used, folders[i]);
    for (i64 i = 0; i < COUNT(files); i++) path |= holds(bare, used, files[i]);
    if ((path || folder) && !strchr(l->word, '=')) text_add(l->out, path ? ":file\n" : ":folder\n");
}

/* ---- options */

static bool find_option(const option_row *rows, i64 n, const char *word, option_row *out)
{
    for (i64 i = 0; i < n; i++) {
        if (!rows[i].name) continue;
        size_t length = strlen(rows[i].name);
        bool whole = !strncmp(word, "--", 2) && !strncmp(word + 2, rows[i].name, length) &&
                     (!word[2 + length] || word[2 + length] == '=');
        bool letter = rows[i].letter && word[0] == '-' && word[1] == rows[i].letter && !word[2];
        if (whole || letter) return *out = rows[i], true;
    }
    return false;
}

/* The value of an option's argument. */
static void offer_argument(line l, const option_row *o)
{
    const char *equals = !strncmp(l.word, "--", 2) ? strchr(l.word, '=') : NULL;
    if (equals) l.skip = (size_t)(equals - l.word) + 1;
    if (arg_is_words(o->arg)) offer_words(&l, o->arg, "|");
    line rest = l;
    rest.word += l.skip, rest.skip = 0; // what asks for paths looks at the value alone
    if (!arg_is_words(o->arg)) offer_named(&rest, o->arg, strlen(o->arg));
}

static void offer_options(const line *l, const option_row *rows, i64 n)
{
    char name[80];
    for (i64 i = 0; i < n; i++) {
        if (!rows[i].name) continue;
        snprintf(name, sizeof name, "--%s", rows[i].name);
        offer(l, name, strlen(name), rows[i].arg ? "=" : "", rows[i].doc);
    }
    offer_word(l, "--help", "Give this help list");
}

/* ---- arguments */

/* Does the usage line S begin with a word such as "show" or "memory|compute"? Its length, or 0. */
static size_t literal(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz|");
    return n && (!s[n] || s[n] == ' ' || s[n] == '\n') ? n : 0;
}

/* The AT-th argument (from 0) of one usage line; an optional one may be left out, one with dots comes again.
 */
static void offer_at(const line *l, const char *s, size_t n, i64 at)
{
    const char *last = NULL;
    size_t last_n = 0;
    for (const char *end = s + n; s < end;) {
        size_t length = strcspn(s, " \n");
        if (s + length > end) length = (size_t)(end - s);
        if (length && *s != '-' && at-- <= 0) {
            offer_named(l, s, length);
            if (*s != '[') return; // nothing behind it can come before it
        }
        if (length && *s != '-') last = s, last_n = length;
        s += length + 1;
    }
    if (at >= 0 && last && holds(last, last_n, "...")) offer_named(l, last, last_n);
}

/* The words of "memory|compute". */
static void offer_first(const line *l, const char *s, size_t n)
{
    char words[128];
    snprintf(words, sizeof words, "%.*s", (int)n, s);
    offer_words(l, words, "|");
}

static void offer_arguments(const line *l, const command *c, const char *const *given, i64 count)
{
    const char *s = c->argp.args_doc ? c->argp.args_doc : "";
    for (bool more = true; more;) {
        size_t n = strcspn(s, "\n"), first = literal(s);
        if (!first)
            offer_at(l, s, n, count);
        else if (!count)
            offer_first(l, s, first); // one of the words that lines begin with: "show", "memory|compute"
        else if (strlen(given[0]) <= first && holds(s, first, given[0]))
            offer_at(l, s, n, count);
        more = s[n];
        s += n + more;
    }
}

static void complete_command(const line *l, const command *c, const char *const *words, i64 count)
{
    option_row rows[MOST_OPTIONS], o;
    const char *given[256];
    i64 n = command_options(c, rows), k = 0;
    bool value = false, plain = false; // behind an option that wants one; behind "--"
    for (i64 i = 0; i < count - 1; i++) {
        bool was_value = value;
        value = false;
        if (was_value) continue;
        if (!plain && !strcmp(words[i], "--"))
            plain = true;
        else if (!plain && words[i][0] == '-' && words[i][1])
            value = find_option(rows, n, words[i], &o) && o.arg && !o.arg_optional && !strchr(words[i], '=');
        else if (k < COUNT(given))
            given[k++] = words[i];
    }
    if (value)
        offer_argument(*l, &o);
    else if (!plain && !strncmp(l->word, "--", 2) && strchr(l->word, '=')) {
        if (find_option(rows, n, l->word, &o) && o.arg) offer_argument(*l, &o);
    } else if (!plain && l->word[0] == '-')
        offer_options(l, rows, n);
    else
        offer_arguments(l, c, given, k);
}

void complete(const command *all, i64 n, const char *const *words, i64 count, text *out)
{
    line l = {.word = count ? words[count - 1] : "", .out = out};
    i64 at = 0;
    if (count < 2) {
        for (i64 i = 0; i < n; i += 1 + all[i].parts) offer_word(&l, all[i].words, all[i].help);
#define OPTION(form, meaning) offer(&l, form, strcspn(form, "="), strchr(form, '=') ? "=" : "", meaning);
        if (*l.word == '-') { // as for a verb's own: only when asked for
            OPTIONS(OPTION)
        }
#undef OPTION
        return;
    }
    while (at < n && strcmp(all[at].words, words[0])) at += 1 + all[at].parts;
    if (at >= n) return;
    const command *c = &all[at];
    if (!c->parts) {
        complete_command(&l, c, words + 1, count - 1);
        return;
    }
    for (i64 i = 1; i <= c->parts; i++) {
        const char *part = strchr(c[i].words, ' ') + 1;
        if (count == 2)
            offer_word(&l, part, c[i].help);
        else if (!strcmp(part, words[1]))
            complete_command(&l, &c[i], words + 2, count - 2);
    }
}
