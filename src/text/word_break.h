/* word_break: white space and word characters, as added tokens of tokenizer files ask for them.
 *
 *     size_t blank = text_is_blank(p, n);              // bytes of the white-space character at P, or 0
 *     if (text_is_word(p, n)) ...                      // does P begin with a letter, mark, digit, _ ...
 */
#pragma once
#include "base/base.h"

size_t text_is_blank(const u8 *p, size_t n); // Unicode's White_Space, 25 characters
/* Letters, marks, decimal digits, letter numbers, connectors and the two joiners: the \w of Unicode's regular
 * expressions (UTS 18, annex C) but for a few circled letters. */
bool text_is_word(const u8 *p, size_t n);
u32 utf8_decode(const u8 *p, size_t n, size_t *bytes); // 0xFFFD and 1 byte for what is ill-formed; n >= 1
