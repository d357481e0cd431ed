/* Numbers of model files: see values.h. The blocks, 32 values each:
 *
 *   q8_0  f16 d, i8 q[32]     x = q d            d = max|x| / 127, q = x / d rounded half away from zero
 *   q4_0  f16 d, u8 c[16]     x = (code - 8) d   d = m / -8 with m the value of largest magnitude (the
 * first), code = min(15, floor(x / d + 8.5)); byte j: codes j, j + 16
 *
 * Codes are made with the f32 d, values are read with the f16 one. The sum x / d + 8.5 is taken in double:
 * in f32 its rounding would depend on whether the compiler fuses it. */
#include "infer/values.h"
#include "ops/op.h"
#include <float.h>
#include <math.h>
#include <string.h>

enum { BLOCK = 32 };

bool values_known(gguf_type type)
{
    return type == GGUF_F32 || type == GGUF_F16 || type == GGUF_BF16 || type == GGUF_Q8_0 ||
           type == GGUF_Q4_0;
}

u16 f32_to_f16(float x)
{
    u32 bits;
    memcpy(&bits, &x, 4);
    u16 sign = (u16)(bits >> 16 & 0x8000);
    u32 size = bits & 0x7FFFFFFF;
    if (size > 0x7F800000) return sign | 0x7E00;
    if (size >= 0x477FF000) return sign | 0x7C00;                         // from 65520 on
    if (size < 0x38800000) return sign | (u16)lrintf(fabsf(x) * 0x1p24f); // below 2^-14: steps of 2^-24
    return sign | (u16)((size + 0xFFF + (size >> 13 & 1) - (112u << 23)) >> 13);
}

float f16_to_f32(u16 h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double x = exponent == 31 ? fraction ? NAN : INFINITY
               : exponent     ? ldexp(1024 + fraction, exponent - 25)
                              : ldexp(fraction, -24);
    return (float)(h >> 15 ? -x : x);
}

static status check(const float *x, i64 n, double most, const char *type)
{
    for (i64 i = 0; i < n; i++)
        if (!(fabs(x[i]) < most))
            return fail(ERR_NUMERIC, "value %lld is %g, which %s cannot hold; bf16 and f32 can", (long long)i,
                        x[i], type);
    return OK;
}

static void put_half(u8 *p, float x)
{
    u16 h = f32_to_f16(x);
    p[0] = (u8)h, p[1] = (u8)(h >> 8);
}

static float get_half(const u8 *p) { return f16_to_f32((u16)(p[0] | p[1] << 8)); }

static void encode_q8_0(const float *x, u8 *p)
{
    float most = 0;
    for (int j = 0; j < BLOCK; j++) most = fmaxf(most, fabsf(x[j]));
    float d = most / 127, inverse = d > FLT_MIN ? 1 / d : 0;
    put_half(p, d);
    for (int j = 0; j < BLOCK; j++) p[2 + j] = (u8)(int)roundf(x[j] * inverse);
}

static void encode_q4_0(const float *x, u8 *p)
{
    float m = 0;
    for (int j = 0; j < BLOCK; j++)
        if (fabsf(x[j]) > fabsf(m)) m = x[j];
    float d = m / -8, inverse = fabsf(d) > FLT_MIN ? 1 / d : 0;
    put_half(p, d);
    for (int j = 0; j < BLOCK / 2; j++) {
        int low = (int)((double)x[j] * inverse + 8.5), high = (int)((double)x[j + 16] * inverse + 8.5);
        p[2 + j] = (u8)(MIN(15, low) | MIN(15, high) << 4);
    }
}

status values_encode(gguf_type type, const float *x, i64 n, void *out)
{
    u8 *p = out;
    switch (type) {
    case GGUF_F32:
        memcpy(out, x, (size_t)n * 4);
        return OK;
    case GGUF_BF16:
        for (i64 i = 0; i < n; i++) ((bf16 *)out)[i] = f32_to_bf16(x[i]);
        return OK;
    case GGUF_F16:
        TRY(check(x, n, 65520, "f16"));
        for (i64 i = 0; i < n; i++) ((u16 *)out)[i] = f32_to_f16(x[i]);
        return OK;
    case GGUF_Q8_0:
        TRY(check(x, n, 65520.0 * 127, "q8_0"));
        for (i64 i = 0; i < n; i += BLOCK, p += 34) encode_q8_0(x + i, p);
        return OK;
    case GGUF_Q4_0:
        TRY(check(x, n, 65520.0 * 8, "q4_0"));
        for (i64 i = 0; i < n; i += BLOCK, p += 18) encode_q4_0(x + i, p);
        return OK;
    default:
        return fail(ERR_USAGE, "Keel does not write %s", gguf_type_name(type));
    }
}

void values_decode(gguf_type type, const void *from, i64 n, float *x)
{
    const u8 *p = from;
    u16 h;
    if (type == GGUF_F32) memcpy(x, from, (size_t)n * 4);
    for (i64 i = 0; (type == GGUF_F16 || type == GGUF_BF16) && i < n; i++) {
        memcpy(&h, p + 2 * i, 2);
        x[i] = type == GGUF_F16 ? f16_to_f32(h) : bf16_to_f32(h);
    }
    for (i64 i = 0; type == GGUF_Q8_0 && i < n; i += BLOCK, p += 34)
        for (int j = 0; j < BLOCK; j++) x[i + j] = (float)(signed char)p[2 + j] * get_half(p);
    for (i64 i = 0; type == GGUF_Q4_0 && i < n; i += BLOCK, p += 18)
        for (int j = 0; j < BLOCK; j++) {
            int code = j < 16 ? p[2 + j] & 15 : p[2 + j - 16] >> 4;
            x[i + j] = (float)(code - 8) * get_half(p);
        }
}
