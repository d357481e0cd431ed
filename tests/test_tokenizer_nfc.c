/* Normalization form C: every plain character is what nfc.h says, and stretches give what the whole gives. */
#include "text/nfc.h"
#include "text/word_break.h"
#include "text_case.h"
#include <stdlib.h>
#include <utf8proc.h>

enum { LAST = 0x10FFFF };

/* A plain character is a starter, its own NFC, and no composition has it behind its first character. */
static void test_plain(void **state)
{
    (void)state;
    static bool follows[LAST + 1];
    i32 codes[64];
    i64 plain = 0;
    for (i32 c = 0; c <= LAST; c++) {
        if (c >= 0xD800 && c < 0xE000) continue;
        int class_boundary = 0;
        utf8proc_ssize_t n =
            utf8proc_decompose_char(c, codes, 64, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &class_boundary);
        assert_true(n > 0 && n <= 64);
        for (utf8proc_ssize_t i = 1; i < n; i++) follows[codes[i]] = true;
    }
    for (i32 c = 0; c <= LAST; c++) {
        if ((c >= 0xD800 && c < 0xE000) || !nfc_plain((u32)c)) continue;
        u8 bytes[4], *normal;
        utf8proc_ssize_t n = utf8proc_encode_char(c, bytes);
        plain++;
        if (follows[c]) fail_msg("U+%04X composes with what stands before it", c);
        if (utf8proc_get_property(c)->combining_class) fail_msg("U+%04X is no starter", c);
        assert_true(utf8proc_map(bytes, n, &normal, UTF8PROC_STABLE | UTF8PROC_COMPOSE) >= 0);
        if (memcmp(bytes, normal, (size_t)n)) fail_msg("U+%04X is not its own NFC", c);
        free(normal);
    }
    assert_true(plain > 45000);
}

static void assert_nfc(const char *from, const char *to)
{
    text room = {0};
    const char *p = from;
    size_t n = strlen(from);
    assert_ok(nfc_normalize(&p, &n, &room));
    assert_int_equal(n, strlen(to));
    assert_memory_equal(p, to, n);
    if (!strcmp(from, to) && p != from) assert_true(room.bytes > 0); // changed or not, the bytes count
    text_free(&room);
}

static void test_vectors(void **state)
{
    (void)state;
    assert_nfc("", "");
    assert_nfc("plain", "plain");
    assert_nfc("e\xCC\x81", "\xC3\xA9"); // e + acute
    assert_nfc("xe\xCC\x81y", "x\xC3\xA9y");
    assert_nfc("\xE2\x84\xAB", "\xC3\x85");                             // Angstrom sign: a singleton
    assert_nfc("\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", "\xEA\xB0\x81"); // Hangul L V T
    assert_nfc("\xEA\xB0\x80\xE1\x86\xA8", "\xEA\xB0\x81");             // LV + T
    assert_nfc("a\xCC\xA8\xCC\x81", "\xC4\x85\xCC\x81");                // ogonek first, acute stays
    assert_nfc("a\xCC\x81\xCC\xA8", "\xC4\x85\xCC\x81");                // ... and is put in order
    assert_nfc("\xE0\xA4\x95\xE0\xA4\xBC", "\xE0\xA4\x95\xE0\xA4\xBC"); // excluded from composition
    assert_nfc("e\xFF\xCC\x81", "e\xFF\xCC\x81");                       // an ill-formed byte is a wall
    assert_nfc("\xFF"
               "e\xCC\x81\xFF",
               "\xFF\xC3\xA9\xFF");
}

/* Against utf8proc on the whole, for random text of every kind of character. */
static void test_random(void **state)
{
    (void)state;
    static const i32 some[] = {'a',    'e',    ' ',    0xE9,   0x301,   0x323,  0x30C,  0x212B,
                               0x1100, 0x1161, 0x11A8, 0xAC00, 0x304B,  0x3099, 0x4E00, 0x0915,
                               0x093C, 0x0438, 0x0306, 0xFB01, 0x1F600, 0x2ADC, 0x1D15E};
    for (u64 seed = 0; seed < 3000; seed++) {
        u8 in[400], *normal;
        size_t n = 0;
        for (u64 i = 0; i < 1 + draw(seed, 999, 60); i++)
            n += (size_t)utf8proc_encode_char(some[draw(seed, i, COUNT(some))], in + n);
        utf8proc_ssize_t wanted =
            utf8proc_map(in, (utf8proc_ssize_t)n, &normal, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        text room = {0};
        const char *p = (const char *)in;
        assert_ok(nfc_normalize(&p, &n, &room));
        assert_int_equal(n, wanted);
        assert_memory_equal(p, normal, n);
        text_free(&room);
        free(normal);
    }
}

/* A megabyte of combining marks in the worst order ends soon. */
static void test_hostile(void **state)
{
    (void)state;
    enum { PAIRS = 1 << 18 };
    char *in = malloc(PAIRS * 4 + 1);
    for (i64 i = 0; i < PAIRS; i++) memcpy(in + 4 * i, i % 2 ? "\xCC\xA3\xCC\xA3" : "\xCC\x81\xCC\x81", 4);
    text room = {0};
    const char *p = in;
    size_t n = PAIRS * 4;
    assert_ok(nfc_normalize(&p, &n, &room));
    assert_int_equal(n, PAIRS * 4);
    text_free(&room);
    free(in);
}

static void test_words(void **state)
{
    (void)state;
    assert_int_equal(text_is_blank((const u8 *)"\xE3\x80\x80x", 4), 3);
    assert_int_equal(text_is_blank((const u8 *)"\xE1\xA0\x8E", 3), 0); // U+180E
    assert_int_equal(text_is_blank((const u8 *)"x", 0), 0);
    assert_true(text_is_word((const u8 *)"_", 1) && text_is_word((const u8 *)"\xC3\xA9", 2));
    assert_true(text_is_word((const u8 *)"\xD9\xA3", 2)); // an Arabic digit
    assert_false(text_is_word((const u8 *)"-", 1) || text_is_word((const u8 *)"\xFF", 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_plain), cmocka_unit_test(test_vectors),
                                       cmocka_unit_test(test_random), cmocka_unit_test(test_hostile),
                                       cmocka_unit_test(test_words)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
