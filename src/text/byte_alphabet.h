/* byte_alphabet: the code points that stand for bytes in tokenizer files (GPT-2's, used by every byte-level
 * BPE).
 *
 *     text t = {0};
 *     alphabet_encode("\n x", 3, &t);                  // "ĊĠx"
 *     u8 bytes[16];
 *     i64 n = alphabet_decode("ĊĠx", 5, bytes);        // 3
 *
 * Bytes 33-126, 161-172 and 174-255 map to the code point of the same value, the other 68, in increasing
 * order, to 256, 257, ...; the map exists only at the border, inside Keel works on bytes. */
#pragma once
#include "base/base.h"
#include "base/text.h"

/* The code point that stands for BYTE (33 ... 323). */
u32 alphabet_code_point(u8 byte);
/* The byte at PLACE (0 ... 255) of the alphabet sorted by code point: 0 -> '!', 188 -> 0, 255 -> 173. */
u8 alphabet_byte_at(int place);
/* Appends the N bytes at BYTES to OUT in the alphabet, as UTF-8. */
void alphabet_encode(const char *bytes, size_t n, text *out);
/* The bytes for N bytes of UTF-8 at S, into OUT (room for N): how many, or -1 when S holds a code point that
 * stands for no byte (OUT is then partly written). */
i64 alphabet_decode(const char *s, size_t n, u8 *out);
