/* White space and word characters: see word_break.h. */
#include "text/word_break.h"
#include "text/utf8.h"
#include <utf8proc.h>

u32 utf8_decode(const u8 *p, size_t n, size_t *bytes)
{
    size_t length = utf8_character(p, n);
    *bytes = MAX(length, (size_t)1);
    if (!length) return 0xFFFD;
    u32 c = length == 1 ? p[0] : p[0] & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++) c = c << 6 | (p[i] & 0x3F);
    return c;
}

size_t text_is_blank(const u8 *p, size_t n)
{
    size_t bytes;
    if (!n) return 0;
    u32 c = utf8_decode(p, n, &bytes);
    bool blank = (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 ||
                 (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
                 c == 0x3000;
    return blank ? bytes : 0;
}

bool text_is_word(const u8 *p, size_t n)
{
    size_t bytes;
    if (!n) return false;
    u32 c = utf8_decode(p, n, &bytes);
    if (c == 0x200C || c == 0x200D) return true;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return false;
    }
}
