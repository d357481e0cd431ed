/* Philox 4x32-10: see random.h. */
#include "base/random.h"
#include <math.h>

philox philox4x32(u64 key, u64 low, u64 high)
{
    philox c = {{(u32)low, (u32)(low >> 32), (u32)high, (u32)(high >> 32)}};
    u32 k0 = (u32)key, k1 = (u32)(key >> 32);
    for (int round = 0; round < 10; round++) {
        u64 p0 = (u64)0xD2511F53u * c.v[0], p1 = (u64)0xCD9E8D57u * c.v[2];
        c = (philox){{(u32)(p1 >> 32) ^ c.v[1] ^ k0, (u32)p1, (u32)(p0 >> 32) ^ c.v[3] ^ k1, (u32)p0}};
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return c;
}

static u64 mix(u64 x)
{
    x ^= x >> 30, x *= 0xBF58476D1CE4E5B9u;
    x ^= x >> 27, x *= 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

u64 random_stream(const char *name)
{
    u64 h = 0xCBF29CE484222325u;
    for (; *name; name++) h = (h ^ (u8)*name) * 0x100000001B3u;
    return mix(h);
}

u64 random_key(u64 seed, u64 stream) { return mix(seed + 0x9E3779B97F4A7C15u) ^ stream; }

static philox draw(u64 seed, u64 stream, u64 step, u64 index)
{
    return philox4x32(random_key(seed, stream), index, step);
}

static double unit(u32 a, u32 b) { return (double)(((u64)a << 32 | b) >> 11) * 0x1p-53; }

u64 random_bits(u64 seed, u64 stream, u64 step, u64 index)
{
    philox p = draw(seed, stream, step, index);
    return (u64)p.v[0] << 32 | p.v[1];
}

double random_uniform(u64 seed, u64 stream, u64 step, u64 index)
{
    philox p = draw(seed, stream, step, index);
    return unit(p.v[0], p.v[1]);
}

double random_normal(u64 seed, u64 stream, u64 step, u64 index)
{
    philox p = draw(seed, stream, step, index);
    return sqrt(-2 * log(1 - unit(p.v[0], p.v[1]))) * cos(6.283185307179586 * unit(p.v[2], p.v[3]));
}

double random_truncated_normal(u64 seed, u64 stream, u64 step, u64 index, double bound)
{
    for (u64 attempt = 0;; attempt++) {
        double x = random_normal(seed, stream ^ mix(attempt), step, index);
        if (fabs(x) <= bound) return x;
    }
}
