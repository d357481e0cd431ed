/* utf8: where bytes are well-formed UTF-8 and where not (Unicode 15, table 3-7: no overlong forms, no
 * surrogates, nothing above U+10FFFF).
 *
 *     size_t good = utf8_valid(p, n);                  // then p[good] starts no well-formed character, or
 * good == n size_t bad = utf8_invalid(p + good, n - good);   // a run of bytes that belong to no character
 */
#pragma once
#include "base/base.h"

/* Bytes in the well-formed character at P (1 ... 4), or 0: ill-formed, cut short, or N == 0. */
size_t utf8_character(const u8 *p, size_t n);
/* Length of the longest well-formed prefix of P. */
size_t utf8_valid(const u8 *p, size_t n);
/* Length of the longest prefix of P in which no byte belongs to a well-formed character. */
size_t utf8_invalid(const u8 *p, size_t n);
