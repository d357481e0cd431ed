/* values: numbers as model files hold them, to f32 and back: f32, f16, bf16, and GGUF's blocks q8_0 and q4_0.
 *
 *     TRY(values_encode(GGUF_Q8_0, x, n, block));      // n a multiple of 32; ERR_NUMERIC: not representable
 *     values_decode(GGUF_Q8_0, block, n, x);           // exact: the grid's values are f32 numbers
 */
#pragma once
#include "format/gguf.h"

bool values_known(gguf_type type); // of the five
/* N values of X, a multiple of the type's block, into OUT (n / block x bytes of a block). Rounds to nearest,
 * ties to even; q8_0 and q4_0 as llama.cpp does. ERR_NUMERIC: a value that is not finite in a block, or is
 * beyond f16; the message ends a sentence that begins with the tensor's name. */
status values_encode(gguf_type type, const float *x, i64 n, void *out) MUST;
void values_decode(gguf_type type, const void *from, i64 n, float *x); // FROM need not be aligned
u16 f32_to_f16(float x); // to nearest even; beyond 65504: infinity
float f16_to_f32(u16 h);
