/* The parts of a tokenizer.json around vocabulary and merges, for a tokenizer that was not read from one
 * (trained here, or a .tiktoken file), as other programs expect them. */
#include "text/tokenizer_impl.h"
#include <string.h>

static json_t *added_list(const tokenizer *t)
{
    json_t *list = json_array();
    for (i64 i = 0; i < t->added_count; i++) {
        const added_token *x = &t->added[i];
        json_array_append_new(list, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (int)x->id,
                                              "content", x->content, "single_word", x->single_word, "lstrip",
                                              x->lstrip, "rstrip", x->rstrip, "normalized", x->normalized,
                                              "special", x->special));
    }
    return list;
}

/* ByteLevel cuts by gpt2's pattern itself; for others Splits go before a ByteLevel that only maps bytes. */
static json_t *pre_tokenizer(const tokenizer *t)
{
    if (t->stages == 1 && t->stage[0].row && !strcmp(t->stage[0].row->name, "gpt2"))
        return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets",
                         1, "use_regex", 1);
    json_t *list = json_array();
    for (int i = 0; i < t->stages; i++)
        json_array_append_new(list, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                                              t->stage[i].regex, "behavior", "Isolated", "invert", 0));
    json_array_append_new(list, json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                                          "trim_offsets", 1, "use_regex", 0));
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
}

status tokenizer_make_shell(tokenizer *t)
{
    json_t *normalizer = t->nfc ? json_pack("{s:s}", "type", "NFC") : json_null();
    t->shell =
        json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:{s:s, s:b, s:b, s:b}, s:{s:s, s:b, s:b, s:b},"
                  " s:{s:s, s:n, s:n, s:s, s:s, s:b, s:b, s:b}}",
                  "version", "1.0", "truncation", "padding", "added_tokens", added_list(t), "normalizer",
                  normalizer, "pre_tokenizer", pre_tokenizer(t), "post_processor", "type", "ByteLevel",
                  "add_prefix_space", 1, "trim_offsets", 0, "use_regex", 1, "decoder", "type", "ByteLevel",
                  "add_prefix_space", 1, "trim_offsets", 1, "use_regex", 1, "model", "type", "BPE", "dropout",
                  "unk_token", "continuing_subword_prefix", "", "end_of_word_suffix", "", "fuse_unk", 0,
                  "byte_fallback", 0, "ignore_merges", t->whole_piece);
    return t->shell ? OK : fail(ERR_MEMORY, "tokenizer: out of memory");
}
