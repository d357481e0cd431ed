/* A configuration file: parsed, written and explained, or refused. */
#include "base/text.h"
#include "config/config.h"
#include "fuzz.h"

/* libfyaml 0.7 itself forgets 2 KiB on some malformed documents. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libfyaml.so\n"; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    config *c;
    status s = config_parse("fuzz.yaml", (const char *)data, n, NULL, 0, &c);
    if (!s) {
        text out = {0};
        config_write(c, &out);
        text_free(&out);
        config_close(c);
    }
    status_drop(s);
    return 0;
}
