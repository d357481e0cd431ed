/* text_case: random text and small tokenizers for the tests of src/text.
 *
 *     random_text(case_number, buffer, n);                // n bytes: words, spaces, UTF-8, broken UTF-8
 *     tokenizer *t = train_on("low low lower", 1, 300);   // min_frequency 1, a vocabulary of at most 300
 */
#pragma once
#include "base/random.h"
#include "check.h"
#include "text/train_bpe.h"
#include <string.h>

static inline u64 draw(u64 seed, u64 index, u64 below) { return random_bits(seed, 7, 0, index) % below; }

/* Exactly N bytes out of what makes pre-tokenization hard. */
static inline void random_text(u64 seed, char *out, size_t n)
{
    static const char *const parts[] = {" ",
                                        " ",
                                        "  ",
                                        "\n",
                                        "\r\n",
                                        "\t",
                                        "a",
                                        "b",
                                        "the",
                                        "Word",
                                        "'s",
                                        "'LL",
                                        "'",
                                        "1",
                                        "23456",
                                        ".",
                                        "!?",
                                        "_",
                                        "\xC2\x85",
                                        "\xC2\xA0",
                                        "\xE3\x80\x80",
                                        "\xE1\xA0\x8E",
                                        "\xE2\x80\xA8",
                                        "\xC5\xBF",
                                        "'\xC5\xBF",
                                        "\xC3\xA9",
                                        "\xE4\xB8\xAD",
                                        "\xE3\x80\x82",
                                        "\xF0\x9F\x91\x8D",
                                        "\xCC\x81",
                                        "\xD9\xA3",
                                        "\xE2\x85\xA7",
                                        "\x80",
                                        "\xFF\xFE",
                                        "\xED\xA0\x80",
                                        "\xE4\xB8",
                                        "<|endoftext|>"};
    u64 kinds =
        draw(seed, 0, 3) ? (u64)COUNT(parts) : 32; // a third of the texts has no broken UTF-8 but at its end
    size_t at = 0;
    for (u64 i = 1; at < n; i++) {
        const char *p = parts[draw(seed, i, kinds)];
        size_t bytes = MIN(strlen(p), n - at);
        memcpy(out + at, p, bytes);
        at += bytes;
    }
}

static inline tokenizer *train_with(bpe_options o, const char *text, size_t n, bpe_stats *stats)
{
    bpe_trainer *b;
    tokenizer *t;
    assert_ok(bpe_trainer_open(&o, &b));
    assert_ok(bpe_trainer_add(b, text, n));
    assert_ok(bpe_trainer_finish(b, &t, stats));
    bpe_trainer_close(b);
    return t;
}

static inline tokenizer *train_on(const char *text, i64 min_frequency, i64 vocab)
{
    return train_with((bpe_options){.vocab = vocab, .min_frequency = min_frequency}, text, strlen(text),
                      NULL);
}

static inline void assert_decodes(const tokenizer *t, const token_list *ids, const char *text, size_t n)
{
    size_t at = 0;
    for (i64 i = 0; i < ids->count; i++) {
        token_bytes b = tokenizer_decode(t, ids->id[i]);
        assert_non_null(b.data);
        assert_true(b.bytes <= n - at);
        assert_memory_equal(b.data, text + at, b.bytes);
        at += b.bytes;
    }
    assert_int_equal(at, n);
}
