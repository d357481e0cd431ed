/* Chat layouts: see chat.h. Sources: Llama 3's model card ("prompt format") and OpenAI's ChatML, as Qwen uses
 * it. */
#include "text/chat.h"
#include "text/word_break.h"
#include <ctype.h>
#include <string.h>

static const chat_layout layouts[] = {
    {"llama3", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>", true,
     (const char *const[]){"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
                           NULL},
     "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' "
     "+ "
     "m['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
     "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"},
    {"chatml", "", "<|im_start|>", "\n", "<|im_end|>\n", false,
     (const char *const[]){"<|im_start|>", "<|im_end|>", NULL},
     "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' "
     "}}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"},
};

i64 chat_layout_count(void) { return COUNT(layouts); }
const chat_layout *chat_layout_at(i64 i) { return &layouts[i]; }

const chat_layout *chat_layout_named(const char *name)
{
    for (i64 i = 0; i < COUNT(layouts); i++)
        if (!strcmp(layouts[i].name, name)) return &layouts[i];
    return NULL;
}

const chat_layout *chat_layout_of(const tokenizer *t)
{
    for (i64 i = 0; i < COUNT(layouts); i++) {
        const char *const *token = layouts[i].tokens;
        while (*token && tokenizer_special(t, *token) >= 0) token++;
        if (!*token) return &layouts[i];
    }
    return NULL;
}

static status marks(encoder *e, const char *text, token_list *out)
{
    return encoder_run(e, text, strlen(text), SPECIAL_ALLOWED, out);
}

static status head(const chat_layout *c, encoder *e, const char *role, size_t n, token_list *out)
{
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)role[i]) && role[i] != '_' && role[i] != '-') n = 0;
    if (!n || n > 64)
        return fail(
            ERR_INPUT,
            "the role of a message is no word of 1 to 64 letters: system, user and assistant are usual");
    TRY(marks(e, c->prefix, out));
    TRY(encoder_run(e, role, n, SPECIAL_PLAIN, out));
    return marks(e, c->middle, out);
}

static status encode(const chat_layout *c, encoder *e, const chat_message *m, i64 n, bool answer,
                     token_list *out)
{
    TRY(marks(e, c->start, out));
    for (i64 i = 0; i < n; i++) {
        const u8 *text = (const u8 *)m[i].content;
        size_t bytes = m[i].bytes, blank;
        TRY(head(c, e, m[i].role, m[i].role_bytes, out));
        while (c->trim && (blank = text_is_blank(text, bytes))) text += blank, bytes -= blank;
        while (c->trim && bytes) { // the last character is behind the last byte that continues none
            size_t last = bytes - 1;
            while (last && (text[last] & 0xC0) == 0x80) last--;
            if (text_is_blank(text + last, bytes - last) != bytes - last) break;
            bytes = last;
        }
        TRY(encoder_run(e, (const char *)text, bytes, SPECIAL_PLAIN, out));
        TRY(marks(e, c->suffix, out));
    }
    return answer ? head(c, e, "assistant", 9, out) : OK;
}

status chat_encode(const chat_layout *c, encoder *e, const chat_message *m, i64 n, bool answer,
                   token_list *out)
{
    const i64 before = out->count;
    status s = encode(c, e, m, n, answer, out);
    if (s) out->count = before;
    return s;
}
