/* sampler: from logits to a token.
 *
 *     sampler s = {.temperature = 0.8, .top_k = 40, .top_p = 0.95, .seed = 1};
 *     i32 id = sampler_draw(&s, logits, vocab, index, scratch);   // index: the token's place in the text
 *
 * In this order: temperature divides the logits; top-k keeps the k likeliest; top-p the smallest set,
 * likeliest first, that holds at least p; min-p those at least min_p times the likeliest. The draw depends on
 * (seed, index) only. Temperature 0 takes the likeliest (the lowest id on ties). */
#pragma once
#include "base/base.h"

typedef struct sampler {
    double temperature, top_p, min_p; // top_p 0 or 1, min_p 0: unused
    i64 top_k;                        // 0: unused
    u64 seed;
} sampler;
typedef struct scored {
    float logit;
    i32 id;
} scored;
/* ERR_USAGE names the value out of range. */
status sampler_check(const sampler *s) MUST;
/* SCRATCH holds VOCAB entries. */
i32 sampler_draw(const sampler *s, const float *logits, i64 vocab, i64 index, scored *scratch);
