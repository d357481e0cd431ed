/* Well-formed UTF-8: see utf8.h. */
#include "text/utf8.h"
#include <string.h>

size_t utf8_character(const u8 *p, size_t n)
{
    if (!n) return 0;
    u8 c = p[0];
    if (c < 0x80) return 1;
    size_t bytes = c >= 0xC2 && c <= 0xDF ? 2 : c >= 0xE0 && c <= 0xEF ? 3 : c >= 0xF0 && c <= 0xF4 ? 4 : 0;
    if (!bytes || n < bytes) return 0;
    u8 low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80, high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    if (p[1] < low || p[1] > high) return 0;
    for (size_t i = 2; i < bytes; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    return bytes;
}

size_t utf8_valid(const u8 *p, size_t n)
{
    size_t at = 0;
    while (at < n) {
        u64 eight;
        while (at + 8 <= n && (memcpy(&eight, p + at, 8), !(eight & 0x8080808080808080u))) at += 8;
        if (at == n) break;
        size_t bytes = utf8_character(p + at, n - at);
        if (!bytes) break;
        at += bytes;
    }
    return at;
}

size_t utf8_invalid(const u8 *p, size_t n)
{
    size_t at = 0;
    while (at < n && !utf8_character(p + at, n - at)) at++;
    return at;
}
