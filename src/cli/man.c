/* man: see man.h. What one reads in --help, in the shape that man(7) asks for. */
#include "cli/man.h"
#include "cli/cli.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* N bytes of S with what roff would take for its own written so that it does not. A line that begins with a
 * dot or an apostrophe would be a request. */
static void add_plain(text *out, const char *s, size_t n)
{
    static const struct {
        char from;
        const char *to;
    } special[] = {{'\\', "\\e"},  {'-', "\\-"},   {'\'', "\\(aq"},
                   {'^', "\\(ha"}, {'~', "\\(ti"}, {'`', "\\(ga"}};
    for (size_t i = 0; i < n; i++) {
        bool first = !out->bytes || out->data[out->bytes - 1] == '\n';
        const char *as = NULL;
        if (first && s[i] == '.') text_add(out, "\\&");
        for (i64 k = 0; k < COUNT(special); k++)
            if (s[i] == special[k].from) as = special[k].to;
        if (as)
            text_add(out, "%s%s", first && s[i] == '\'' ? "\\&" : "", as);
        else
            text_add_bytes(out, s + i, 1);
    }
}

static void add_word(text *out, const char *s) { add_plain(out, s, strlen(s)); }

/* Prose: lines that begin with spaces stay lines, an empty line parts paragraphs. */
static void add_prose(text *out, const char *s, size_t n)
{
    bool kept = false; // within .nf
    for (const char *end = s + n; s < end;) {
        const char *newline = memchr(s, '\n', (size_t)(end - s));
        size_t length = newline ? (size_t)(newline - s) : (size_t)(end - s);
        bool keep = length && *s == ' ';
        if (keep != kept) text_add(out, keep ? ".nf\n" : ".fi\n");
        kept = keep;
        if (!length) text_add(out, ".PP");
        add_plain(out, s, length);
        text_add(out, "\n");
        s += length + (newline != NULL);
    }
    if (kept) text_add(out, ".fi\n");
}

static void add_options(text *out, const command *c, const char *heading)
{
    option_row rows[MOST_OPTIONS];
    i64 n = command_options(c, rows);
    if (n) text_add(out, "%s\n", heading);
    for (i64 i = 0; i < n; i++) {
        const option_row *r = &rows[i];
        if (!r->name) { // a heading: "Machine:"
            text_add(out, ".SS ");
            add_plain(out, r->doc, strcspn(r->doc, ":"));
            text_add(out, "\n");
            continue;
        }
        text_add(out, ".TP\n");
        if (r->letter) text_add(out, "\\fB\\-%c\\fR, ", r->letter);
        text_add(out, "\\fB\\-\\-");
        add_word(out, r->name);
        text_add(out, "\\fR");
        if (r->arg) {
            text_add(out, "%s=\\fI", r->arg_optional ? "[" : "");
            add_word(out, r->arg);
            text_add(out, "\\fR%s", r->arg_optional ? "]" : "");
        }
        text_add(out, "\n");
        add_word(out, r->doc ? r->doc : "");
        text_add(out, "\n");
    }
}

/* ".B keel data build [OPTION...] PATH..." for each form of the arguments */
static void add_synopsis(text *out, const command *c)
{
    const char *s = c->argp.args_doc ? c->argp.args_doc : "";
    if (!c->argp.options) {
        text_add(out, "\\fBkeel %s\\fR \\fIPART\\fR [\\fIARGUMENTS\\fR]\n", c->words);
        return;
    }
    for (bool first = true;; first = false) {
        size_t length = strcspn(s, "\n");
        text_add(out, "%s\\fBkeel %s\\fR [\\fIOPTION\\fR...] ", first ? "" : ".br\n", c->words);
        add_plain(out, s, length);
        text_add(out, "\n");
        if (!s[length]) return;
        s += length + 1;
    }
}

/* What stands before (0) or behind (1) the \v of the table's text. */
static const char *part_of_doc(const command *c, int which, size_t *n)
{
    const char *doc = c->argp.doc ? c->argp.doc : "", *cut = strchr(doc, '\v');
    *n = which ? cut ? strlen(cut + 1) : 0 : cut ? (size_t)(cut - doc) : strlen(doc);
    return which ? cut ? cut + 1 : "" : doc;
}

static void add_doc(text *out, const command *c, int which)
{
    size_t n;
    const char *s = part_of_doc(c, which, &n);
    if (n && which) text_add(out, ".PP\n");
    add_prose(out, s, n);
}

static void add_title(text *out, const char *name, const char *help)
{
    text_add(out, ".\\\" written by 'keel help --man' from the tables that print --help\n.TH ");
    for (const char *s = name; *s; s++) text_add(out, "%c", toupper((unsigned char)*s));
    text_add(out, " 1 \"\" \"Keel %.*s\" \"Keel\"\n.SH NAME\n", (int)strcspn(code_version(), "+"),
             code_version());
    add_word(out, name);
    text_add(out, " \\- ");
    add_word(out, help);
    text_add(out, "\n.SH SYNOPSIS\n");
}

/* What every verb has in common: the texts that `keel --help` closes with. */
static void add_common(text *out)
{
    text_add(out, ".SH EXIT STATUS\n");
#define EXIT(code, meaning)                                                                                  \
    text_add(out, ".TP\n%s\n", code);                                                                        \
    add_word(out, meaning);                                                                                  \
    text_add(out, "\n");
    EXITS(EXIT)
#undef EXIT
    text_add(out, ".SH ENVIRONMENT\n");
#define VARIABLE(name, meaning)                                                                              \
    text_add(out, ".TP\n\\fB%s\\fR\n", name);                                                                \
    add_word(out, meaning);                                                                                  \
    text_add(out, "\n");
    VARIABLES(VARIABLE)
#undef VARIABLE
}

static bool is_verb(const command *c) { return !strchr(c->words, ' '); }

static void add_see_also(text *out, const command *all, i64 n, i64 but)
{
    const char *before = but < 0 ? "" : "\\fBkeel\\fR(1)";
    text_add(out, ".SH SEE ALSO\n%s", before);
    for (i64 i = 0; i < n; i++) {
        if (i == but || !is_verb(&all[i])) continue;
        text_add(out, "%s\\fBkeel\\-%s\\fR(1)", *before ? ",\n" : "", all[i].words);
        before = ",";
    }
    text_add(out, "\n");
}

void man_page(const command *all, i64 n, i64 verb, text *out)
{
    const command *c = &all[verb];
    char name[64];
    snprintf(name, sizeof name, "keel-%s", c->words);
    add_title(out, name, c->help);
    add_synopsis(out, c);
    text_add(out, ".SH DESCRIPTION\n");
    add_doc(out, c, 0);
    for (i64 i = 1; i <= c->parts; i++) {
        text_add(out, ".TP\n\\fB%s\\fR\n", strchr(c[i].words, ' ') + 1);
        add_word(out, c[i].help);
        text_add(out, "\n");
    }
    add_options(out, c, ".SH OPTIONS");
    add_doc(out, c, 1);
    for (i64 i = 1; i <= c->parts; i++) {
        text_add(out, ".SH KEEL ");
        for (const char *s = c[i].words; *s; s++) text_add(out, "%c", toupper((unsigned char)*s));
        text_add(out, "\n");
        add_synopsis(out, &c[i]);
        text_add(out, ".PP\n");
        add_doc(out, &c[i], 0);
        add_options(out, &c[i], ".SS Options");
        add_doc(out, &c[i], 1);
    }
    add_common(out);
    add_see_also(out, all, n, verb);
}

void man_overview(const command *all, i64 n, text *out)
{
    add_title(out, "keel", "pre-train language models");
    text_add(out, "\\fBkeel\\fR [\\fIOPTION\\fR...] \\fIVERB\\fR [\\fIARGUMENTS\\fR]\n.SH VERBS\n");
    for (i64 i = 0; i < n; i++) {
        if (!is_verb(&all[i])) continue;
        text_add(out, ".TP\n\\fBkeel\\-%s\\fR(1)\n", all[i].words);
        add_word(out, all[i].help);
        text_add(out, "\n");
    }
    text_add(out, ".SH OPTIONS\n");
#define OPTION(form, meaning)                                                                                \
    text_add(out, ".TP\n\\fB");                                                                              \
    add_word(out, form);                                                                                     \
    text_add(out, "\\fR\n");                                                                                 \
    add_word(out, meaning);                                                                                  \
    text_add(out, "\n");
    OPTIONS(OPTION)
#undef OPTION
    add_common(out);
    add_see_also(out, all, n, -1);
}
