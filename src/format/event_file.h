/* event_file: numbers over steps as TensorBoard reads them (events.out.tfevents.*).
 *
 *     text t = {0};
 *     event_file_begin(&t, started);                              // the version record, first
 *     event_file_add(&t, started, 10, (event_scalar[]){{"loss", 3.25F}, {"lr", 1e-3F}}, 2);
 *     ... write t.data, t.bytes to DIR/events.out.tfevents.SECONDS.HOST
 *     text_free(&t);
 *
 * Equal calls give equal bytes. */
#pragma once
#include "base/text.h"

typedef struct event_scalar {
    const char *tag; // UTF-8, non-empty
    float value;
} event_scalar;

/* Appends the record that every event file begins with. WALL_TIME: seconds since 1970. */
void event_file_begin(text *out, double wall_time);
/* Appends one record: N scalars of STEP (>= 0). */
void event_file_add(text *out, double wall_time, i64 step, const event_scalar *values, i64 n);
/* CRC-32C (Castagnoli) of BYTES bytes, as in iSCSI: "123456789" gives e3069283. */
u32 crc32c(const void *data, size_t bytes);
