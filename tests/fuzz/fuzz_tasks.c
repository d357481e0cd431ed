/* Records of multiple choice: every layout reads them, or refuses them in one line. */
#include "eval/tasks.h"
#include "fuzz.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    for (i64 i = 0; i < n_tasks; i++) {
        example_list list;
        status s = examples_parse(&tasks[i], (const char *)data, n, "fuzz", 0, &list);
        for (i64 k = 0; k < list.count; k++) {
            const example *e = &list.example[k];
            if (e->choices < 1 || e->choices > MOST_CHOICES || e->gold >= e->choices) abort();
            for (int c = 0; c < e->choices; c++) // what is divided by is there
                if (e->choice[c].bytes < 1 || e->choice[c].chars < 1 || !*e->choice[c].continuation) abort();
        }
        if (s && (list.count || strchr(s->message, '\n'))) abort();
        status_drop(s);
        examples_free(&list);
    }
    return 0;
}
