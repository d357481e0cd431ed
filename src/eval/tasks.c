/* The layouts of benchmarks: see tasks.h. A task is a function and a row in the table at the end.
 *
 * Source: the task files of lm-evaluation-harness (github.com/EleutherAI/lm-evaluation-harness), for
 * HellaSwag (arXiv:1905.07830), ARC (1803.05457), PIQA (1911.11641), OpenBookQA (1809.02789), SciQ
 * (1707.06209), BoolQ (1905.10044), WinoGrande (1907.10641), BLiMP (1912.00582), LAMBADA (1606.06031).
 * Departs: BLiMP's sentences stand without a blank before them, as texts do in Keel's data, and a pair of
 * equal scores counts as wrong. */
#include "eval/tasks.h"
#include "base/file.h"
#include "base/text.h"
#include "data/jsonl.h"
#include "text/utf8.h"
#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

struct record {
    json_t *object;
    arena *arena; // of what becomes of it
};

/* ---- fields */

static const char *type_name(const json_t *v)
{
    static const char *const names[] = {"an object", "a list", "a string", "a number",
                                        "a number",  "true",   "false",    "null"};
    return names[json_typeof(v)];
}

static status get(const json_t *object, const char *field, json_t **out)
{
    *out = json_object_get(object, field);
    return *out ? OK : fail(ERR_INPUT, "the record has no field '%s'", field);
}

static status get_string(const json_t *object, const char *field, const char **out)
{
    json_t *v;
    *out = "";
    TRY(get(object, field, &v));
    if (!json_is_string(v))
        return fail(ERR_INPUT, "the field '%s' is %s; it must be a string", field, type_name(v));
    *out = json_string_value(v);
    return OK;
}

/* A whole number below N, or a string of one: both are found in the wild. */
static status get_index(const json_t *object, const char *field, i64 least, i64 n, int *out)
{
    json_t *v;
    i64 x = -1;
    TRY(get(object, field, &v));
    if (json_is_integer(v)) x = json_integer_value(v);
    bool number = json_is_integer(v) || (json_is_string(v) && parse_i64(json_string_value(v), &x));
    if (!number)
        return fail(ERR_INPUT, "the field '%s' is %s; it must be a whole number from %lld to %lld", field,
                    json_is_string(v) ? "another string" : type_name(v), (long long)least,
                    (long long)(least + n - 1));
    if (x < least || x >= least + n)
        return fail(ERR_INPUT, "the field '%s' is %lld; it must be from %lld to %lld", field, (long long)x,
                    (long long)least, (long long)(least + n - 1));
    *out = (int)(x - least);
    return OK;
}

/* ---- strings; all are valid UTF-8, as JSON is */

static bool blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static char *strip(arena *a, const char *s)
{
    while (blank(*s)) s++;
    char *copy = arena_strdup(a, s);
    size_t n = strlen(copy);
    while (n && blank(copy[n - 1])) copy[--n] = 0;
    return copy;
}

static i64 characters(const char *s)
{
    i64 n = 0;
    for (; *s; s++) n += ((u8)*s & 0xC0) != 0x80;
    return n;
}

/* FROM becomes TO, which is not longer, from left to right, in place. */
static void replace(char *s, const char *from, const char *to)
{
    size_t n = strlen(from), m = strlen(to);
    char *out = s;
    while (*s) {
        if (strncmp(s, from, n) != 0) {
            *out++ = *s++;
            continue;
        }
        memcpy(out, to, m);
        out += m, s += n;
    }
    *out = 0;
}

/* Every "[...]" on one line goes, the shortest there is. */
static void drop_brackets(char *s)
{
    char *out = s;
    while (*s) {
        const char *end = *s == '[' ? s + strcspn(s, "]\n") : s;
        if (*s == '[' && *end == ']')
            s += end + 1 - s;
        else
            *out++ = *s++;
    }
    *out = 0;
}

/* HellaSwag's texts come from subtitles and WikiHow, with marks of both. */
static char *clean(arena *a, const char *s)
{
    char *text = strip(a, s);
    replace(text, " [title]", ". ");
    drop_brackets(text);
    replace(text, "  ", " ");
    return text;
}

/* Python's capitalize: the first letter as in titles, the rest small (letter by letter: one becomes one). */
static char *capitalize(arena *a, const char *s)
{
    size_t n = strlen(s), at = 0, size = 0;
    char *out = arena_alloc(a, 4 * n + 1);
    while (at < n) {
        utf8proc_int32_t c;
        utf8proc_ssize_t step = utf8proc_iterate((const u8 *)s + at, (utf8proc_ssize_t)(n - at), &c);
        if (step < 1) break; // JSON holds valid UTF-8 only
        c = at ? utf8proc_tolower(c) : utf8proc_totitle(c);
        size += (size_t)utf8proc_encode_char(c, (u8 *)out + size);
        at += (size_t)step;
    }
    return out;
}

/* ---- choices */

static status add_choice(record *r, example *e, const char *context, const char *before, const char *text,
                         const char *field)
{
    if (!*text) return fail(ERR_INPUT, "the field '%s' holds an empty choice", field);
    if (e->choices == MOST_CHOICES)
        return fail(ERR_INPUT, "the field '%s' holds more than %d choices", field, MOST_CHOICES);
    e->choice[e->choices++] =
        (choice){.context = context,
                 .continuation = *before ? arena_printf(r->arena, "%s%s", before, text) : text,
                 .chars = characters(text),
                 .bytes = (i64)strlen(text)};
    return OK;
}

static status add_field(record *r, example *e, const char *context, const char *field)
{
    const char *s;
    TRY(get_string(r->object, field, &s));
    return add_choice(r, e, context, " ", arena_strdup(r->arena, s), field);
}

/* ---- tasks */

static status read_hellaswag(record *r, example *e)
{
    const char *activity, *a, *b;
    json_t *endings, *v;
    size_t i;
    TRY(get_string(r->object, "activity_label", &activity));
    TRY(get_string(r->object, "ctx_a", &a));
    TRY(get_string(r->object, "ctx_b", &b));
    TRY(get(r->object, "endings", &endings));
    if (!json_is_array(endings) || json_array_size(endings) != 4)
        return fail(ERR_INPUT, "the field 'endings' must be a list of four strings");
    char *context =
        clean(r->arena, arena_printf(r->arena, "%s: %s %s", activity, a, capitalize(r->arena, b)));
    json_array_foreach(endings, i, v)
    {
        if (!json_is_string(v))
            return fail(ERR_INPUT, "the field 'endings' holds %s; it must be a list of four strings",
                        type_name(v));
        TRY(add_choice(r, e, context, " ", clean(r->arena, json_string_value(v)), "endings"));
    }
    return get_index(r->object, "label", 0, 4, &e->gold);
}

/* ARC's layout; the answer is one of the labels. */
static status read_labelled(record *r, example *e, const char *before, const char *behind)
{
    json_t *question, *choices, *v;
    const char *stem, *key, *label, *text;
    size_t i;
    TRY(get(r->object, "question", &question));
    if (!json_is_object(question))
        return fail(ERR_INPUT, "the field 'question' is %s; it must be an object", type_name(question));
    TRY(get_string(question, "stem", &stem));
    TRY(get(question, "choices", &choices));
    TRY(get_string(r->object, "answerKey", &key));
    if (!json_is_array(choices) || json_array_size(choices) < 2)
        return fail(ERR_INPUT, "the field 'choices' must be a list of at least two {text, label}");
    const char *context = arena_printf(r->arena, "%s%s%s", before, stem, behind);
    json_array_foreach(choices, i, v)
    {
        if (!json_is_object(v))
            return fail(ERR_INPUT, "the field 'choices' holds %s; it must be a list of {text, label}",
                        type_name(v));
        TRY(get_string(v, "text", &text));
        TRY(get_string(v, "label", &label));
        if (!strcmp(label, key) && e->gold < 0) e->gold = e->choices;
        TRY(add_choice(r, e, context, " ", arena_strdup(r->arena, text), "text"));
    }
    if (e->gold >= 0) return OK;
    return fail(ERR_INPUT, "the field 'answerKey' is '%.20s', which is no choice's label", key);
}
static status read_arc(record *r, example *e) { return read_labelled(r, e, "Question: ", "\nAnswer:"); }
static status read_openbookqa(record *r, example *e) { return read_labelled(r, e, "", ""); }

static status read_piqa(record *r, example *e)
{
    const char *goal;
    TRY(get_string(r->object, "goal", &goal));
    const char *context = arena_printf(r->arena, "Question: %s\nAnswer:", goal);
    TRY(add_field(r, e, context, "sol1"));
    TRY(add_field(r, e, context, "sol2"));
    return json_object_get(r->object, "label") ? get_index(r->object, "label", 0, 2, &e->gold) : OK;
}

static status read_sciq(record *r, example *e)
{
    const char *support, *question;
    TRY(get_string(r->object, "support", &support));
    TRY(get_string(r->object, "question", &question));
    while (blank(*support)) support++;
    const char *context = arena_printf(r->arena, "%s\nQuestion: %s\nAnswer:", support, question);
    TRY(add_field(r, e, context, "distractor1"));
    TRY(add_field(r, e, context, "distractor2"));
    TRY(add_field(r, e, context, "distractor3"));
    e->gold = 3;
    return add_field(r, e, context, "correct_answer");
}

static status read_boolq(record *r, example *e)
{
    const char *passage, *question;
    json_t *answer;
    TRY(get_string(r->object, "passage", &passage));
    TRY(get_string(r->object, "question", &question));
    TRY(get(r->object, "answer", &answer));
    if (!json_is_boolean(answer))
        return fail(ERR_INPUT, "the field 'answer' is %s; it must be true or false", type_name(answer));
    const char *context = arena_printf(r->arena, "%s\nQuestion: %s?\nAnswer:", passage, question);
    e->gold = json_is_true(answer);
    TRY(add_choice(r, e, context, " ", "no", "answer"));
    return add_choice(r, e, context, " ", "yes", "answer");
}

/* Partial scoring: the options stand in the context, what follows them is scored. */
static status read_winogrande(record *r, example *e)
{
    static const char *const fields[] = {"option1", "option2"};
    const char *sentence, *option;
    TRY(get_string(r->object, "sentence", &sentence));
    const char *gap = strchr(sentence, '_');
    if (!gap) return fail(ERR_INPUT, "the field 'sentence' has no '_' where the options go");
    const char *rest = strip(r->arena, gap + 1);
    if (!*rest) return fail(ERR_INPUT, "the field 'sentence' ends with '_': nothing is left to score");
    for (int k = 0; k < 2; k++) {
        TRY(get_string(r->object, fields[k], &option));
        TRY(add_choice(r, e, arena_printf(r->arena, "%.*s%s", (int)(gap - sentence), sentence, option), " ",
                       rest, "sentence"));
    }
    return get_index(r->object, "answer", 1, 2, &e->gold);
}

/* The bad one first: of equal scores the first wins, and the good one must be the likelier. */
static status read_blimp(record *r, example *e)
{
    static const char *const fields[] = {"sentence_bad", "sentence_good"};
    const char *s;
    for (int k = 0; k < 2; k++) {
        TRY(get_string(r->object, fields[k], &s));
        TRY(add_choice(r, e, "", "", arena_strdup(r->arena, s), fields[k]));
    }
    e->gold = 1;
    return OK;
}

static status read_lambada(record *r, example *e)
{
    const char *s;
    TRY(get_string(r->object, "text", &s));
    const char *text = strip(r->arena, s), *last = strrchr(text, ' ');
    if (!last) return fail(ERR_INPUT, "the field 'text' has no last word behind a blank");
    e->gold = 0;
    return add_choice(r, e, arena_printf(r->arena, "%.*s", (int)(last - text), text), " ", last + 1, "text");
}

const task tasks[] = {
    {"hellaswag", "{activity_label, ctx_a, ctx_b, endings: [4], label}", read_hellaswag, false, false},
    {"arc", "{question: {stem, choices: [{text, label}]}, answerKey}", read_arc, false, false},
    {"piqa", "{goal, sol1, sol2} and label, or --labels", read_piqa, false, true},
    {"lambada", "{text}: its last word", read_lambada, true, false},
    {"openbookqa", "as arc", read_openbookqa, false, false},
    {"sciq", "{support, question, correct_answer, distractor1 ... 3}", read_sciq, false, false},
    {"boolq", "{passage, question, answer: true or false}", read_boolq, false, false},
    {"winogrande", "{sentence with _, option1, option2, answer: 1 or 2}", read_winogrande, false, false},
    {"blimp", "{sentence_good, sentence_bad}", read_blimp, false, false},
};
const i64 n_tasks = COUNT(tasks);

const task *task_find(const char *name)
{
    for (i64 i = 0; i < n_tasks; i++)
        if (!strcmp(tasks[i].name, name)) return &tasks[i];
    return NULL;
}

void task_names(char *out, size_t room)
{
    size_t at = 0;
    for (i64 i = 0; i < n_tasks && at < room; i++)
        at += (size_t)snprintf(out + at, room - at, "%s%s", i ? ", " : "", tasks[i].name);
}

/* ---- files */

static status read_line(const task *t, const char *line, size_t n, arena *a, example *out)
{
    record r = {.arena = a};
    json_error_t e;
    size_t valid = utf8_valid((const u8 *)line, n);
    if (valid < n)
        return fail(ERR_INPUT, "invalid UTF-8 at byte %zu of the line (0x%02X)", valid + 1, (u8)line[valid]);
    r.object = json_loadb(line, n, JSON_REJECT_DUPLICATES, &e);
    if (!r.object) return fail(ERR_INPUT, "column %d: no JSON: %s", e.column, e.text);
    *out = (example){.gold = -1};
    status s = json_is_object(r.object)
                   ? t->read(&r, out)
                   : fail(ERR_INPUT, "%s, not an object %s", type_name(r.object), t->layout);
    json_decref(r.object);
    return s;
}

/* The next line that is not blank; false at the end. */
typedef struct lines {
    const char *at, *end;
    i64 number; // of the line last read
} lines;

static bool next_line(lines *l, const char **line, size_t *n)
{
    while (l->at < l->end) {
        const char *newline = memchr(l->at, '\n', (size_t)(l->end - l->at));
        const char *stop = newline ? newline : l->end;
        *line = l->at, *n = (size_t)(stop - l->at);
        l->at = newline ? newline + 1 : l->end;
        l->number++;
        if (!jsonl_is_blank((const u8 *)*line, (i64)*n)) return true;
    }
    return false;
}

status examples_parse(const task *t, const char *data, size_t bytes, const char *name, i64 limit,
                      example_list *out)
{
    lines count = {data, data + bytes, 0}, l = count;
    const char *line;
    size_t n;
    i64 records = 0;
    *out = (example_list){0};
    while ((!limit || records < limit) && next_line(&count, &line, &n)) records++;
    if (!records) return fail(ERR_INPUT, "%s: holds no records; a line is %s", name, t->layout);
    TRY(arena_open(&out->arena));
    out->example = arena_array(out->arena, example, records);
    status s = OK;
    while (!s && out->count < records && next_line(&l, &line, &n))
        s = read_line(t, line, n, out->arena, &out->example[out->count++]);
    if (s) examples_free(out);
    return wrap(s, "%s:%lld", name, (long long)l.number);
}

static status parse_labels(const char *path, const char *data, size_t bytes, bool all, example_list *out)
{
    lines l = {data, data + bytes, 0};
    const char *line;
    size_t n;
    for (i64 i = 0; i < out->count; i++) {
        char word[24] = "";
        i64 x;
        if (!next_line(&l, &line, &n))
            return fail(ERR_INPUT, "%s: %lld labels for %lld records", path, (long long)i,
                        (long long)out->count);
        while (n && blank(line[n - 1])) n--;
        memcpy(word, line, MIN(n, sizeof word - 1));
        if (n >= sizeof word || !parse_i64(word, &x) || x < 0 || x >= out->example[i].choices)
            return fail(ERR_INPUT, "%s:%lld: no label; it must be a whole number from 0 to %d", path,
                        (long long)l.number, out->example[i].choices - 1);
        out->example[i].gold = (int)x;
    }
    if (all && next_line(&l, &line, &n))
        return fail(ERR_INPUT, "%s: more labels than the %lld records; is it another split's?", path,
                    (long long)out->count);
    return OK;
}

/* ALL: the records are not only the first ones. */
static status read_labels(const task *t, const char *path, const char *labels, bool all, example_list *out)
{
    char *data;
    size_t bytes;
    if (labels && !t->labels)
        return fail(ERR_INPUT, "%s has its answers in its records: no --labels", t->name);
    for (i64 i = 0; i < out->count && !labels; i++)
        if (out->example[i].gold < 0)
            return fail(ERR_INPUT,
                        "%s: record %lld has no field 'label'; name the file of labels by --labels", path,
                        (long long)i + 1);
    if (!labels) return OK;
    TRY(file_read(labels, &data, &bytes));
    status s = parse_labels(labels, data, bytes, all, out);
    mem_free(data);
    return s;
}

status examples_read(const task *t, const char *path, const char *labels, i64 limit, example_list *out)
{
    char *data;
    size_t bytes;
    *out = (example_list){0};
    TRY(file_read(path, &data, &bytes));
    status s = examples_parse(t, data, bytes, path, limit, out);
    mem_free(data);
    if (!s) s = read_labels(t, path, labels, !limit, out);
    if (s) examples_free(out);
    return s;
}

void examples_free(example_list *list)
{
    arena_close(list->arena);
    *list = (example_list){0};
}
