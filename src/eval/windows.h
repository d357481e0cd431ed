/* windows: a text longer than the model's context, cut so that every token is scored once.
 *
 *     window w = {0};
 *     while (window_next(n, &(window_rule){.context = 1024, .stride = 512}, &w))
 *         use(w.start, w.inputs, w.targets);
 *
 * Over the sequence P t0 ... t[n-1], P the end of text before the text: the first window predicts the first
 * `context` tokens from P on; each further one predicts the next `stride` tokens, its inputs being the
 * `context` tokens that end before its last target. The last, short block so gets more tokens before it
 * (the rolling windows of lm-evaluation-harness, whose context c is context - stride + 1 here). */
#pragma once
#include "eval/interval.h"
#include "eval/score.h"
#include "text/tokenizer.h"

typedef struct window_rule {
    i64 context; // input tokens of a window, from 1
    i64 stride;  // tokens scored by every window but the first: 1 ... context
} window_rule;

typedef struct window { // positions in P t0 t1 ...: P is 0
    i64 start, inputs, targets;
} window;

/* The window behind *W of a text of N tokens (start with {0}); false when all are scored. The inputs are
 * start ... start + inputs - 1, the targets the last TARGETS of start + 1 ... start + inputs. */
bool window_next(i64 n, const window_rule *rule, window *w);

/* Pieces of splitting the text at runs of white space (Unicode's, as Python's re has it): a run at the
 * beginning or end leaves an empty piece, which counts. 0 bytes: one piece. */
i64 count_words(const char *data, size_t bytes);

typedef struct text_loss {
    i64 tokens, bytes, words, windows;
    double nats; // sum
    ratio loss,
        bits; // nats a token, bits a byte, with what another text of the kind might give: over windows
} text_loss;
/* Scores the text with every window. ERR_INPUT: an empty text, no end-of-text token, or a rule beyond the
 * model's context. BATCH: windows taken together, from 1. */
status text_evaluate(scorer *s, const tokenizer *t, const char *data, size_t bytes, const window_rule *rule,
                     i64 batch, text_loss *out) MUST;
