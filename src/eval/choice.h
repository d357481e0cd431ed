/* choice: the accuracy of a model on examples of multiple choice.
 *
 *     choice_result r;
 *     TRY(choice_evaluate(scorer, tokenizer, task, &examples, &(choice_options){.batch = 64}, &r));
 *     printf("acc %.4f +- %.4f\n", r.acc.mean, r.acc.error);
 */
#pragma once
#include "eval/interval.h"
#include "eval/score.h"
#include "eval/tasks.h"
#include "text/tokenizer.h"

typedef struct estimate {
    double mean, error; // error: standard error, sample standard deviation / sqrt(n); NaN for n = 1
} estimate;
estimate estimate_of(const double *x, i64 n); // n >= 1

typedef struct choice_options {
    i64 batch; // examples taken together; the result does not depend on it
    void (*progress)(void *context, i64 done, i64 of);
    void *context;
} choice_options;

typedef struct choice_result {
    i64 examples, requests, truncated; // truncated: contexts that lost their beginning to fit
    estimate acc;                      // the likeliest continuation; task.greedy: all tokens are greedy
    estimate acc_norm, acc_bytes;      // log-likelihood / characters, / UTF-8 bytes of the choice
    estimate perplexity;               // task.greedy: exp(mean nats of a target); error by the delta method
    interval acc_range, acc_norm_range, acc_bytes_range; // 95 %, by Wilson
    estimate gold_bits; // bits a byte of the right answer: moves before accuracy does
} choice_result;

/* A continuation as tokens: those of context + continuation behind as many as the context alone has (its
 * trailing blanks count as the continuation's); at least one. Of a sequence beyond the model's context the
 * beginning goes. An empty context is an end of text. *targets: how many at the end of IDS to score. */
status choice_encode(const tokenizer *t, const choice *c, token_list *ids, i64 *targets) MUST;

/* Of equal scores the first wins. ERR_INPUT names the record: a continuation longer than the model's
 * context; an empty context and a tokenizer without end of text. */
status choice_evaluate(scorer *s, const tokenizer *t, const task *task, const example_list *list,
                       const choice_options *o, choice_result *out) MUST;
