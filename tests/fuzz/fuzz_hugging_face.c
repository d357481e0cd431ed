/* config.json of a Hugging Face folder: every architecture reads it. */
#include "fuzz.h"
#include "infer/hugging_face_parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    json_t *j = json_loadb((const char *)data, n, JSON_REJECT_DUPLICATES, NULL);
    for (i64 i = 0; json_is_object(j) && i < HF_ARCHITECTURES; i++) {
        config *c = NULL;
        status_drop(hf_config(&hf_architectures[i], "config.json", j, &c));
        config_close(c);
    }
    json_decref(j);
    return 0;
}
