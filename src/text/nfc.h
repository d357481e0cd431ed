/* nfc: Unicode normalization form C of texts that are nearly always in it already.
 *
 *     text room = {0};
 *     TRY(nfc_normalize(&p, &n, &room));               // p stays where it was, or points into room
 *     use(p, n);
 *     text_free(&room);
 *
 * Bytes that are no well-formed UTF-8 stay as they are and bound what is composed. */
#pragma once
#include "base/base.h"
#include "base/text.h"

/* *p and *n: the text, then the normalized one. ROOM's former content is lost when the text changes.
 * ERR_MEMORY. A run of over 64 KiB without any ordinary character (only combining marks and the like: no
 * language has it) is normalized in parts, so that hostile text takes no quadratic time. */
status nfc_normalize(const char **p, size_t *n, text *room) MUST;
/* A character that never changes in NFC, whatever surrounds it: most of what people write. */
bool nfc_plain(u32 code_point);
