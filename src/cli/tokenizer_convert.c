/* keel tokenizer convert: any tokenizer to a tokenizer.json; keel tokenizer chat: messages to ids.
 *
 *     keel tokenizer convert cl100k_base.tiktoken --out tokenizer.json
 *     echo '[{"role": "user", "content": "Hi"}]' | keel tokenizer chat --tokenizer tokenizer.json --answer
 */
#include "base/file.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/tokenizer_parts.h"
#include "text/chat.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

static status open_any(const tokenizer_args *a, tokenizer **out)
{
    char *data;
    size_t bytes;
    if (!a->train.pattern && a->train.special_count)
        return fail(ERR_USAGE,
                    "--special without --pattern: special tokens are added to .tiktoken files alone");
    if (!a->train.pattern) return tokenizer_open(a->tokenizer, out);
    TRY(file_read(a->tokenizer, &data, &bytes));
    tiktoken_options o = {a->train.pattern, a->specials, a->train.special_count};
    status s = tokenizer_is_tiktoken(data, bytes)
                   ? tokenizer_parse_tiktoken(data, bytes, a->tokenizer, &o, out)
                   : fail(ERR_USAGE, "%s: no .tiktoken file: --pattern is for those alone", a->tokenizer);
    mem_free(data);
    return s;
}

status tokenizer_convert(tokenizer_args *a)
{
    tokenizer *t;
    TRY(open_any(a, &t));
    status s = tokenizer_save(t, a->out);
    char hash[17];
    snprintf(hash, sizeof hash, "%016" PRIx64, tokenizer_hash(t));
    if (!s && a->json)
        s = cli_print_json(json_pack("{s:s, s:s, s:I, s:I, s:s}", "file", a->out, "hash", hash, "vocab",
                                     (json_int_t)tokenizer_vocab(t), "merges",
                                     (json_int_t)tokenizer_merges(t), "pattern", tokenizer_pattern(t)));
    else if (!s)
        fprintf(stderr, "wrote %s: %" PRId64 " ids, %" PRId64 " merges, pattern %s, hash %s\n", a->out,
                tokenizer_vocab(t), tokenizer_merges(t), tokenizer_pattern(t), hash);
    tokenizer_close(t);
    return s;
}

/* ---- chat */

static status choose_layout(const tokenizer_args *a, const tokenizer *t, const chat_layout **out)
{
    text names = {0};
    for (i64 i = 0; i < chat_layout_count(); i++)
        text_add(&names, "%s%s", i ? ", " : "", chat_layout_at(i)->name);
    *out = a->chat ? chat_layout_named(a->chat) : chat_layout_of(t);
    status s = OK;
    if (!*out && a->chat)
        s = fail(ERR_USAGE, "--layout=%s: there are %s", a->chat, names.data);
    else if (!*out)
        s = fail(ERR_INPUT, "%s: it has the special tokens of no chat layout (%s)", a->tokenizer, names.data);
    for (i64 i = 0; !s && (*out)->tokens[i]; i++)
        if (tokenizer_special(t, (*out)->tokens[i]) < 0)
            s = fail(ERR_INPUT, "%s: the layout %s needs the special token %s", a->tokenizer, (*out)->name,
                     (*out)->tokens[i]);
    text_free(&names);
    return s;
}

static status read_message(json_t *list, size_t i, chat_message *out)
{
    json_t *role = json_object_get(json_array_get(list, i), "role");
    json_t *content = json_object_get(json_array_get(list, i), "content");
    if (!json_is_string(role) || !json_is_string(content))
        return fail(ERR_INPUT, "standard input: message %zu has no strings \"role\" and \"content\"", i + 1);
    *out = (chat_message){json_string_value(role), json_string_length(role), json_string_value(content),
                          json_string_length(content)};
    return OK;
}

static status print_chat(const tokenizer_args *a, const chat_layout *c, const tokenizer *t, json_t *list)
{
    size_t n = json_array_size(list);
    chat_message *m = NULL;
    encoder *e = NULL;
    token_list ids = {0};
    status s = json_is_array(list) ? OK : fail(ERR_INPUT, "standard input: no JSON list of messages");
    if (!s) s = mem_alloc((n + 1) * sizeof *m, "messages", &m);
    for (size_t i = 0; !s && i < n; i++) s = read_message(list, i, &m[i]);
    if (!s) s = encoder_open(t, &e);
    if (!s) s = wrap(chat_encode(c, e, m, (i64)n, a->answer, &ids), "standard input");
    if (!s) tokenizer_print_ids(&ids, a->json);
    encoder_close(e);
    token_list_free(&ids);
    mem_free(m);
    return s;
}

status tokenizer_chat(tokenizer_args *a)
{
    tokenizer *t;
    const chat_layout *c;
    char *data = NULL;
    size_t bytes;
    json_error_t e;
    TRY(tokenizer_open(a->tokenizer, &t));
    status s = choose_layout(a, t, &c);
    if (!s && a->template && a->json)
        s = cli_print_json(json_pack("{s:s}", "chat_template", c->jinja));
    else if (!s && a->template)
        puts(c->jinja);
    else if (!s)
        s = file_read("-", &data, &bytes);
    if (!s && data) {
        json_t *list = json_loadb(data, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
        s = list ? print_chat(a, c, t, list)
                 : fail(ERR_INPUT, "standard input:%d:%d: %s", e.line, e.column, e.text);
        json_decref(list);
    }
    mem_free(data);
    tokenizer_close(t);
    return s;
}
