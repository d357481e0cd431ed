/* score: how likely a trained model finds texts, by two threads, each with a handle of its own.
 *
 *     cc score.c $(pkg-config --cflags --libs keel) -lpthread -o score
 *     ./score runs/small "The cat sat on the mat." "Mat the on sat cat the."
 *
 * The texts are dealt out in turns. A handle computes with one OpenMP thread here, so that two handles share
 * a machine of two cores evenly. A text's score does not depend on the thread that took it, to the bit. */
#include <keel/keel.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { THREADS = 2, MOST = 256 };

typedef struct worker {
    const char *model;
    char **texts;
    int n, first; /* takes texts first, first + THREADS, ... */
    keel_score score[MOST];
    char failed[512];
} worker;

static void *work(void *argument)
{
    worker *w = argument;
    keel_machine machine = {0};
    machine.threads = 1;
    keel_model *m = keel_new(&machine);
    keel_status s = keel_open(m, w->model);
    for (int i = w->first; i < w->n && !s; i += THREADS)
        s = keel_score_text(m, w->texts[i], strlen(w->texts[i]), NULL, &w->score[i]);
    if (s) snprintf(w->failed, sizeof w->failed, "%s", keel_message(m));
    keel_free(m);
    return NULL;
}

int main(int argc, char **argv)
{
    static worker w[THREADS];
    pthread_t thread[THREADS];
    int n = argc - 2, started = 0, failed = 0;
    if (n < 1 || n > MOST) {
        fprintf(stderr, "usage: %s MODEL TEXT... (up to %d)\n", argv[0], MOST);
        return 2;
    }
    for (; started < THREADS; started++) {
        w[started].model = argv[1];
        w[started].texts = argv + 2;
        w[started].n = n;
        w[started].first = started;
        if (pthread_create(&thread[started], NULL, work, &w[started])) break;
    }
    for (int i = 0; i < started; i++) pthread_join(thread[i], NULL);
    if (started < THREADS) return fprintf(stderr, "cannot start a thread\n"), 1;
    for (int i = 0; i < THREADS; i++)
        if (*w[i].failed) failed = 1, fprintf(stderr, "%s\n", w[i].failed);
    for (int i = 0; i < n && !failed; i++) {
        const keel_score *x = &w[i % THREADS].score[i];
        printf("perplexity %.3f, %.4f bits per byte: %s\n", x->perplexity, x->bits_per_byte, argv[i + 2]);
    }
    return failed;
}
