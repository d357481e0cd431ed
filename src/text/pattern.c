/* Pre-tokenization patterns: see pattern.h.
 *
 * Regular expressions run in PCRE2's JIT (UTF, UCP): about 150 MB/s of English, so nothing is matched by
 * hand. Two departures from plain PCRE2 make it agree with the reference tokenizers: `$` means the end of the
 * text only, and `\s` is rewritten to the 25 code points with the property White_Space, because with UCP
 * PCRE2's own also matches U+180E and without UCP it is ASCII only.
 *
 * gpt2's fast form (possessive, from tiktoken's) gives the same pieces; tests/test_tokenizer_split.c compares
 * the two on random text. cl100k and llama3 are not the same pattern: at the end of a text cl100k takes a
 * whole run of white space, llama3 splits behind its last newline. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pattern.h"
#include "base/text.h"
#include "text/utf8.h"
#include <ctype.h>
#include <pcre2.h>
#include <string.h>

#define SPACE_RANGES                                                                                         \
    "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"

static const pattern_row rows[] = {
    {"gpt2", "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
     "'(?:[sdmt]|ll|ve|re)| ?\\p{L}++| ?\\p{N}++| ?[^\\s\\p{L}\\p{N}]++|\\s++$|\\s+(?!\\S)|\\s"},
    {"cl100k",
     "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}++|\\p{N}{1,3}+| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*+|"
     "\\s++$|\\s*[\\r\\n]|\\s+(?!\\S)|\\s",
     NULL},
    {"llama3",
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     NULL},
    {"qwen2",
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     NULL},
    {"o200k",
     "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+" CONTRACTION
     "?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*" CONTRACTION
     "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     NULL},
};

struct pattern {
    pcre2_code *code;
    bool jit;
};

struct splitter {
    const pattern *pattern;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack; // NULL: the 32 KiB of the machine stack that JIT code uses by itself
    const u8 *at, *end, *stretch, *stretch_end; // a stretch: well-formed UTF-8 as far as it goes
};

i64 pattern_count(void) { return COUNT(rows); }
const pattern_row *pattern_at(i64 i) { return &rows[i]; }

const pattern_row *pattern_named(const char *name)
{
    for (i64 i = 0; i < COUNT(rows); i++)
        if (!strcmp(rows[i].name, name)) return &rows[i];
    return NULL;
}

const pattern_row *pattern_of_regex(const char *regex)
{
    for (i64 i = 0; i < COUNT(rows); i++)
        if (!strcmp(rows[i].regex, regex) || (rows[i].fast && !strcmp(rows[i].fast, regex))) return &rows[i];
    return NULL;
}

/* Writes REGEX to OUT with \s and \S spelled out; inside a class only the ranges are spliced in. */
static status spell_out_spaces(const char *regex, text *out)
{
    bool in_class = false;
    for (const char *p = regex; *p; p++) {
        if (*p == '\\' && p[1] == 's')
            text_add(out, in_class ? "%s" : "[%s]", SPACE_RANGES), p++;
        else if (*p == '\\' && p[1] == 'S' && in_class)
            return fail(ERR_FORMAT, "pattern '%s': \\S inside a class is not supported: write [^\\s...]",
                        regex);
        else if (*p == '\\' && p[1] == 'S')
            text_add(out, "[^%s]", SPACE_RANGES), p++;
        else if (*p == '\\' && p[1])
            text_add_bytes(out, p++, 2);
        else {
            in_class = *p == '[' || (in_class && *p != ']');
            text_add_bytes(out, p, 1);
        }
    }
    return OK;
}

/* The first bytes of P that another engine may read otherwise: how many, or 0. */
static size_t strange_here(const char *p, bool in_class)
{
    bool word = isalnum((unsigned char)p[1]);
    if (*p == '\\') return !p[1] ? 1 : word && !strchr("sSdwpPrnt", p[1]) ? 2 : 0;
    if (in_class) return !strncmp(p, "[:", 2) || !strncmp(p, "&&", 2) ? 2 : *p == '[';
    if (*p == '(' && p[1] == '?') // (?: (?= (?! (?> (?i:
        return p[2] && strchr(":=!>", p[2]) ? 0 : !strncmp(p + 2, "i:", 2) ? 0 : MIN(strlen(p), (size_t)3);
    return *p == '^' || *p == '$';
}

status pattern_portable(const char *regex)
{
    bool in_class = false;
    for (const char *p = regex; *p; p++) {
        size_t strange = strange_here(p, in_class);
        if (strange)
            return fail(ERR_FORMAT,
                        "pattern '%.200s': '%.*s' does not mean the same in every engine: refused", regex,
                        (int)strange, p);
        if (*p == '\\')
            p++;
        else if (in_class)
            in_class = *p != ']';
        else if (*p == '[')
            in_class = true, p += p[1] == '^';
    }
    return OK;
}

status pattern_compile(const char *regex, pattern **out)
{
    text spelled = {0};
    status s = spell_out_spaces(regex, &spelled);
    pattern *p = NULL;
    if (!s) s = mem_alloc(sizeof *p, "pattern", &p);
    if (!s) {
        int code;
        PCRE2_SIZE where;
        p->code = pcre2_compile((PCRE2_SPTR)spelled.data, spelled.bytes,
                                PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &code, &where, NULL);
        if (!p->code) {
            char why[128];
            pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
            s = fail(ERR_FORMAT, "pattern '%s': %s (near '%.20s')", regex, why, spelled.data + where);
        } else // without JIT (an unusual machine, a hardened kernel) the interpreter gives the same pieces
            p->jit = !pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE);
    }
    text_free(&spelled);
    if (s)
        pattern_close(p);
    else
        *out = p;
    return s;
}

status pattern_open(const char *name, pattern **out)
{
    const pattern_row *row = pattern_named(name);
    if (row) return pattern_compile(row->fast ? row->fast : row->regex, out);
    text names = {0};
    for (i64 i = 0; i < COUNT(rows); i++) text_add(&names, "%s%s", i ? ", " : "", rows[i].name);
    status s = fail(ERR_CONFIG, "no pattern is named '%s'; there are %s", name, names.data);
    text_free(&names);
    return s;
}

void pattern_close(pattern *p)
{
    if (!p) return;
    pcre2_code_free(p->code);
    mem_free(p);
}

void pattern_unicode_version(char out[32])
{
    char version[64] = "";
    pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, version);
    memcpy(out, version, 31);
    out[31] = 0;
}

status splitter_open(const pattern *p, splitter **out)
{
    splitter *s;
    TRY(mem_alloc(sizeof *s, "splitter", &s));
    s->pattern = p;
    s->match = pcre2_match_data_create(1, NULL);
    s->context = pcre2_match_context_create(NULL);
    if (!s->match || !s->context) {
        splitter_close(s);
        return fail(ERR_MEMORY, "splitter: out of memory");
    }
    *out = s;
    return OK;
}

void splitter_close(splitter *s)
{
    if (!s) return;
    pcre2_match_data_free(s->match);
    pcre2_match_context_free(s->context);
    pcre2_jit_stack_free(s->stack);
    mem_free(s);
}

void splitter_start(splitter *s, const void *bytes, size_t n)
{
    s->at = s->stretch = s->stretch_end = bytes;
    s->end = n ? s->at + n : s->at;
}

/* JIT code gave up for want of stack or steps: once more with a big stack, then the interpreter without
 * limits. */
static int match_stubborn(splitter *s, size_t n, size_t from)
{
    enum { BIG_STACK = 256 << 20 };
    if (!s->stack) s->stack = pcre2_jit_stack_create(1 << 16, BIG_STACK, NULL);
    pcre2_set_match_limit(s->context, UINT32_MAX);
    pcre2_set_heap_limit(s->context, UINT32_MAX);
    int found = PCRE2_ERROR_JIT_STACKLIMIT;
    if (s->stack && s->pattern->jit) {
        pcre2_jit_stack_assign(s->context, NULL, s->stack);
        found = pcre2_jit_match(s->pattern->code, s->stretch, n, from, 0, s->match, s->context);
    }
    if (found < 0 && found != PCRE2_ERROR_NOMATCH)
        found = pcre2_match(s->pattern->code, s->stretch, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                            s->match, s->context);
    return found;
}

status splitter_next(splitter *s, const u8 **piece, size_t *bytes)
{
    *piece = s->at;
    size_t left = (size_t)(s->end - s->at), length;
    if (s->at == s->stretch_end && left) {
        size_t valid = utf8_valid(s->at, left);
        if (!valid) {
            length = utf8_invalid(s->at, left);
            s->at = s->stretch_end = s->at + length;
            *bytes = length;
            return OK;
        }
        s->stretch = s->at, s->stretch_end = s->at + valid;
    }
    size_t n = (size_t)(s->stretch_end - s->stretch), from = (size_t)(s->at - s->stretch);
    if (from == n) {
        *bytes = 0;
        return OK;
    }
    int found =
        s->pattern->jit
            ? pcre2_jit_match(s->pattern->code, s->stretch, n, from, 0, s->match, s->context)
            : pcre2_match(s->pattern->code, s->stretch, n, from, PCRE2_NO_UTF_CHECK, s->match, s->context);
    if (found < 0 && found != PCRE2_ERROR_NOMATCH) found = match_stubborn(s, n, from);
    if (found < 0 && found != PCRE2_ERROR_NOMATCH)
        return fail(ERR_MEMORY, "cutting a text of %zu bytes into pieces failed (PCRE2 error %d)", n, found);
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(s->match);
    if (found == PCRE2_ERROR_NOMATCH)
        length = n - from;
    else if (range[0] > from)
        length = range[0] - from; // a gap: the next call finds this match again, at its start
    else                          // an empty match must not stand still
        length = range[1] > from ? range[1] - from : utf8_character(s->at, n - from);
    s->at += length;
    *bytes = length;
    return OK;
}
