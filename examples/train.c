/* train: a text becomes a small language model, by the library alone.
 *
 *     cc train.c $(pkg-config --cflags --libs keel) -o train
 *     ./train TEXT FOLDER [KEY=VALUE...]              ./train corpus.txt runs/small train.tokens=200k
 *
 * The tokenizer is trained and the shards are built on the way; the model is saved in FOLDER, for the other
 * examples and for `keel generate FOLDER`. */
#include <keel/keel.h>
#include <stdio.h>
#include <stdlib.h>

static const char configuration[] = "model: {layers: 2, width: 64, context: 64, attention: {heads: 2}}\n"
                                    "data: {vocab: 512}\n"
                                    "train: {steps: 60, batch_tokens: 1Ki, optimizer: {lr: 3e-3}}\n";

static int news(void *context, const char *line)
{
    (void)context;
    fprintf(stderr, "%s\n", line);
    return 0; /* anything else: save and stop */
}

static int after_step(void *context, const keel_progress *p)
{
    (void)context;
    if (!p->timing && p->step % 10 == 0)
        printf("step %lld of %lld: %lld tokens, loss %.4f\n", (long long)p->step, (long long)p->steps,
               (long long)p->tokens, p->loss);
    return 0;
}

/* Settings stand in for lines of the configuration: "data.train=TEXT" and what the caller added. */
static int configure(keel_model *m, const char *text, int n, char **more)
{
    const char **settings = calloc((size_t)n + 1, sizeof *settings);
    size_t room = snprintf(NULL, 0, "data.train=%s", text) + 1;
    char *data = malloc(room);
    int failed = 1;
    if (settings && data) {
        snprintf(data, room, "data.train=%s", text);
        settings[0] = data;
        for (int i = 0; i < n; i++) settings[i + 1] = more[i];
        failed =
            keel_configure(m, configuration, sizeof configuration - 1, settings, (size_t)n + 1) != KEEL_OK;
    }
    free(settings);
    free(data);
    return failed;
}

int main(int argc, char **argv)
{
    keel_train_options options = {0};
    keel_train_result result;
    keel_model *m;
    if (argc < 3) {
        fprintf(stderr, "usage: %s TEXT FOLDER [KEY=VALUE...]\n", argv[0]);
        return 2;
    }
    options.folder = argv[2];
    options.resume = 1; /* the same command goes on after an interruption */
    options.step = after_step;
    options.line = news;
    m = keel_new(NULL);
    if (configure(m, argv[1], argc - 3, argv + 3) || keel_train(m, &options, &result)) {
        fprintf(stderr, "%s\n", keel_message(m));
        keel_free(m);
        return 1;
    }
    printf("trained: %lld steps, validation loss %.4f, %.4f bits per byte\n", (long long)result.step,
           result.loss, result.bits_per_byte);
    keel_free(m);
    return 0;
}
