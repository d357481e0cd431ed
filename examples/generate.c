/* generate: a trained model goes on with a text, token by token as they come.
 *
 *     cc generate.c $(pkg-config --cflags --libs keel) -o generate
 *     ./generate runs/small "Once upon a time" 40
 */
#include <keel/keel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The bytes of a token, which may be a part of a character: whole characters arrive once the next ones do. */
static int print(void *context, const keel_token *token)
{
    FILE *to = context;
    fwrite(token->text, 1, token->bytes, to);
    fflush(to);
    return ferror(to); /* nobody reads any more: stop */
}

int main(int argc, char **argv)
{
    static const char *const why[] = {"so many were asked for", "the text ended", "the context is full",
                                      "nobody listens"};
    keel_generate_options options = {0};
    keel_generated result;
    keel_facts facts;
    keel_model *m;
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL PROMPT [TOKENS]\n", argv[0]);
        return 2;
    }
    options.max_tokens = argc > 3 ? atoll(argv[3]) : 0;
    options.temperature = 0.8;
    options.top_p = 0.95;
    options.seed = 1;
    options.token = print;
    options.context = stdout;
    m = keel_new(NULL);
    if (keel_open(m, argv[1]) || keel_about(m, &facts)) {
        fprintf(stderr, "%s\n", keel_message(m));
        keel_free(m);
        return 1;
    }
    fprintf(stderr, "%lld parameters, context %lld, after %lld steps\n", (long long)facts.parameters,
            (long long)facts.context, (long long)facts.step);
    fputs(argv[2], stdout);
    if (keel_generate(m, argv[2], strlen(argv[2]), &options, &result)) {
        fprintf(stderr, "\n%s\n", keel_message(m));
        keel_free(m);
        return 1;
    }
    printf("\n");
    fprintf(stderr, "%lld tokens: %s\n", (long long)result.tokens, why[result.finish]);
    keel_free(m);
    return 0;
}
