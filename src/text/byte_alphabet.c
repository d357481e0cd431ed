/* The byte alphabet: see byte_alphabet.h. Source: OpenAI GPT-2, encoder.py, bytes_to_unicode (the rule only).
 */
#include "text/byte_alphabet.h"

enum { OWN = 188 }; // bytes that stand for themselves come first in code point order

static bool stands_for_itself(int byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

u32 alphabet_code_point(u8 byte)
{
    if (stands_for_itself(byte)) return byte;
    u32 below = byte <= 32 ? byte : byte <= 160 ? 33 + byte - 127u : 67; // others before this one
    return 256 + below;
}

static int byte_of(u32 code_point)
{
    if (code_point < 256) return stands_for_itself((int)code_point) ? (int)code_point : -1;
    if (code_point <= 256 + 32) return (int)code_point - 256;
    if (code_point <= 256 + 66) return (int)code_point - 256 - 33 + 127;
    return code_point == 256 + 67 ? 173 : -1;
}

u8 alphabet_byte_at(int place)
{
    if (place >= OWN) return (u8)byte_of(256 + (u32)(place - OWN));
    return (u8)(place < 94 ? 33 + place : place < 106 ? 161 + place - 94 : 174 + place - 106);
}

void alphabet_encode(const char *bytes, size_t n, text *out)
{
    for (size_t i = 0; i < n; i++) {
        u32 c = alphabet_code_point((u8)bytes[i]);
        char utf8[2] = {(char)(c < 128 ? c : 0xC0 | c >> 6), (char)(0x80 | (c & 63))};
        text_add_bytes(out, utf8, c < 128 ? 1 : 2);
    }
}

i64 alphabet_decode(const char *s, size_t n, u8 *out)
{
    i64 count = 0;
    for (size_t i = 0; i < n; i++) {
        u32 c = (u8)s[i];
        if (c >= 128) { // all code points of the alphabet take at most two bytes
            if ((c & 0xE0) != 0xC0 || i + 1 >= n) return -1;
            c = (c & 31) << 6 | ((u8)s[++i] & 63);
        }
        int byte = byte_of(c);
        if (byte < 0) return -1;
        out[count++] = (u8)byte;
    }
    return count;
}
