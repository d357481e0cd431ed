/* chat: conversations as tokens, by the layouts that the special tokens of a tokenizer are made for.
 *
 *     const chat_layout *c = chat_layout_of(t);        // chatml or llama3; NULL: T has the tokens of neither
 *     chat_message m[] = {{"user", 4, "Hi", 2}};
 *     TRY(chat_encode(c, e, m, 1, true, &ids));        // and the beginning of the assistant's answer
 *
 * What people write is plain text here: a message that spells a special token does not become one. */
#pragma once
#include "text/tokenizer.h"

/* A message is prefix, role, middle, content, suffix; prefix, middle and suffix hold special tokens. */
typedef struct chat_layout {
    const char *name;
    const char *start; // once, before all messages; may be empty
    const char *prefix, *middle, *suffix;
    bool trim;                 // white space around the content does not count
    const char *const *tokens; // the special tokens it needs, ended by NULL
    const char *jinja;         // the same as a chat_template of Hugging Face's tokenizer_config.json
} chat_layout;

typedef struct chat_message {
    const char *role;
    size_t role_bytes;
    const char *content;
    size_t bytes;
} chat_message;

i64 chat_layout_count(void);
const chat_layout *chat_layout_at(i64 i);
const chat_layout *chat_layout_named(const char *name); // NULL: none
const chat_layout *chat_layout_of(const tokenizer *t);  // the first whose tokens T has; NULL: none
/* Appends the tokens of N messages; ANSWER: and the head of an assistant's message. ERR_INPUT: a role that is
 * empty, too long or no plain word; as encoder_run. On failure OUT keeps what it had before. */
status chat_encode(const chat_layout *c, encoder *e, const chat_message *m, i64 n, bool answer,
                   token_list *out) MUST;
