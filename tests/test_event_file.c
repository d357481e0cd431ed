/* TensorBoard's event files: CRC-32C on the vectors of RFC 3720 B.4, a whole file to the byte (the wanted
 * bytes were made by a program that shares nothing with this one), and exports of a log: CSV, JSON lines,
 * what is refused. */
#include "base/file.h"
#include "check.h"
#include "format/event_file.h"
#include "train/run_export.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void test_crc32c(void **state)
{
    (void)state;
    u8 b[32];
    assert_int_equal(crc32c("123456789", 9), 0xe3069283);
    assert_int_equal(crc32c("", 0), 0);
    memset(b, 0, sizeof b);
    assert_int_equal(crc32c(b, 32), 0x8a9136aa);
    memset(b, 0xff, sizeof b);
    assert_int_equal(crc32c(b, 32), 0x62a8ab43);
    for (int i = 0; i < 32; i++) b[i] = (u8)i;
    assert_int_equal(crc32c(b, 32), 0x46dd794e);
    for (int i = 0; i < 32; i++) b[i] = (u8)(31 - i);
    assert_int_equal(crc32c(b, 32), 0x113fdb5c);
}

static void assert_hex(const text *t, const char *wanted)
{
    char hex[1000];
    assert_true(t->bytes * 2 < sizeof hex);
    for (size_t i = 0; i < t->bytes; i++) snprintf(hex + 2 * i, 3, "%02x", (u8)t->data[i]);
    assert_string_equal(hex, wanted);
}

static void test_golden(void **state)
{
    (void)state;
    text t = {0};
    event_file_begin(&t, 1700000000);
    event_file_add(&t, 1700000000, 300, (event_scalar[]){{"loss", 3.25F}, {"lr", 0.001F}}, 2);
    assert_hex(
        &t, "1800000000000000a37f4b220900000040fc54d9411a0d627261696e2e4576656e743a32eced8f9d2600000000000000"
            "734fe3000900000040fc54d94110ac022a180a0b0a046c6f737315000050400a090a026c72156f12833ac690a5d6");
    text_free(&t);
}

static char folder[] = "/tmp/keel-export-XXXXXX", path[100];

static void export_is(const char *log, export_form form, const char *wanted)
{
    text t = {0};
    assert_ok(file_replace(path, log, strlen(log)));
    assert_ok(run_export(path, form, 0, &t));
    assert_string_equal(t.data ? t.data : "", wanted);
    text_free(&t);
}

static const char log_lines[] =
    "{\"step\":1,\"loss\":2.5,\"lr\":0.1}\n"
    "{\"step\":2,\"loss\":null,\"loss_is\":\"nan\",\"lr\":1e-3}\n"
    "{\"step\":2,\"val,\\\"loss\":2}\n{\"step\":1,\"loss\":2.25}\n{\"step\":3,\"lo";

static void test_csv(void **state)
{
    (void)state;
    export_is(log_lines, EXPORT_CSV, "step,loss,lr,\"val,\"\"loss\"\n1,2.25,0.1,\n2,nan,0.001,2\n");
}

static void test_jsonl(void **state)
{
    (void)state;
    export_is(log_lines, EXPORT_JSONL,
              "{\"step\":1,\"loss\":2.25,\"lr\":0.1}\n{\"step\":2,\"loss\":null,\"lr\":0.001,\"val,"
              "\\\"loss\":2}\n");
    export_is("", EXPORT_JSONL, "");
    export_is("", EXPORT_CSV, "step\n");
}

/* The same values as events: as many records as steps, and one for the version. */
static void test_events(void **state)
{
    (void)state;
    text t = {0}, wanted = {0};
    assert_ok(file_replace(path, log_lines, sizeof log_lines - 1));
    assert_ok(run_export(path, EXPORT_EVENTS, 7, &t));
    event_file_begin(&wanted, 7);
    event_file_add(&wanted, 7, 1, (event_scalar[]){{"loss", 2.25F}, {"lr", 0.1F}}, 2);
    event_file_add(&wanted, 7, 2, (event_scalar[]){{"loss", NAN}, {"lr", 1e-3F}, {"val,\"loss", 2}}, 3);
    assert_int_equal(t.bytes, wanted.bytes);
    assert_memory_equal(t.data, wanted.data, t.bytes);
    text_free(&t);
    text_free(&wanted);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *line, *step;
    } cases[] = {{"{\"step\":-1,\"loss\":1}", "-1"},
                 {"{\"step\":1.5,\"loss\":1}", "1.5"},
                 {"{\"step\":1e300,\"loss\":1}", "1.0000000000000001e+300"}};
    char wanted[200];
    text t = {0};
    for (i64 i = 0; i < COUNT(cases); i++) {
        assert_ok(file_replace(path, cases[i].line, strlen(cases[i].line)));
        snprintf(wanted, sizeof wanted, "%s: step %s is no whole number from 0 to 2^53", path, cases[i].step);
        assert_fails(run_export(path, EXPORT_CSV, 0, &t), ERR_FORMAT, wanted);
    }
    assert_int_equal(t.bytes, 0);
}

static int begin(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    return 0;
}
static int end(void **state)
{
    (void)state;
    status_drop(tree_remove(folder));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c), cmocka_unit_test(test_golden), cmocka_unit_test(test_csv),
        cmocka_unit_test(test_jsonl),  cmocka_unit_test(test_events), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
