/* Pre-tokenization: the split vectors, equal forms of a pattern, nothing lost, safe cuts, UTF-8. */
#include "text/pattern.h"
#include "text/byte_alphabet.h"
#include "text/utf8.h"
#include "text_case.h"
#include <stdio.h>

/* The pieces of TEXT, each followed by a '|'; OUT has room for 2 N + 1. */
static void pieces(pattern *p, const char *text, size_t n, char *out)
{
    splitter *s;
    assert_ok(splitter_open(p, &s));
    splitter_start(s, text, n);
    const u8 *piece;
    size_t bytes, at = 0;
    for (;;) {
        assert_ok(splitter_next(s, &piece, &bytes));
        if (!bytes) break;
        assert_ptr_equal(piece, text + at); // in order, without gaps
        memcpy(out, piece, bytes);
        out += bytes, at += bytes;
        *out++ = '|';
    }
    *out = 0;
    assert_int_equal(at, n);
    splitter_close(s);
}

static void test_vectors(void **state)
{
    (void)state;
    static const char *const vector[][3] = {
        {"gpt2", "I'M don'T we'LL", "I|'|M| don|'|T| we|'|LL|"},
        {"cl100k llama3 qwen2", "I'M don'T we'LL", "I|'M| don|'T| we|'LL|"},
        {"gpt2 cl100k llama3 qwen2", "  two  spaces ", " | two| | spaces| |"},
        {"gpt2", "a\n\n  b\n", "a|\n\n | b|\n|"},
        {"cl100k llama3 qwen2", "a\n\n  b\n", "a|\n\n| | b|\n|"},
        {"gpt2", "x \n \ny", "x| \n |\n|y|"},
        {"cl100k llama3 qwen2", "x \n \ny", "x| \n \n|y|"},
        {"gpt2", "1234567", "1234567|"},
        {"cl100k llama3", "1234567", "123|456|7|"},
        {"qwen2", "1234567", "1|2|3|4|5|6|7|"},
        {"gpt2", "foo(bar);\r\n\r\nbaz", "foo|(|bar|);|\r\n\r|\n|baz|"},
        {"cl100k llama3 qwen2", "foo(bar);\r\n\r\nbaz", "foo|(bar|);\r\n\r\n|baz|"},
        {"gpt2", "   \n   x", "   \n  | x|"},
        {"cl100k llama3 qwen2", "   \n   x", "   \n|  | x|"},
        {"cl100k", "1Z\n ", "1|Z|\n |"},
        {"llama3", "1Z\n ", "1|Z|\n| |"},
        {"cl100k llama3 qwen2", "I'\xC5\xBF", "I|'\xC5\xBF|"},
        {"gpt2",
         "a\xE1\xA0\x8E"
         "b",
         "a|\xE1\xA0\x8E|b|"}, // U+180E is no white space, nor a letter
        {"gpt2",
         "a\xE1\xA0\x8E\xE1\xA0\x8E"
         "b c",
         "a|\xE1\xA0\x8E\xE1\xA0\x8E|b| c|"},
        {"gpt2",
         "a\xFF\xFE"
         "b \xE4\xB8 c",
         "a|\xFF\xFE|b| |\xE4\xB8| c|"},
        {"gpt2", "", ""},
        {"o200k", "HTTPServer isn't/\n\n12345 naïveÉcole", "HTTPServer| isn't|/\n\n|123|45| naïve|École|"},
        {"o200k", "a\n\n  b\n", "a|\n\n| | b|\n|"},
    };
    char got[200];
    i64 checked = 0;
    for (i64 i = 0; i < pattern_count(); i++) {
        pattern *p;
        assert_ok(pattern_open(pattern_at(i)->name, &p));
        for (i64 v = 0; v < COUNT(vector); v++) {
            if (!strstr(vector[v][0], pattern_at(i)->name)) continue;
            pieces(p, vector[v][1], strlen(vector[v][1]), got);
            if (strcmp(got, vector[v][2])) fail_msg("%s, vector %d: %s", pattern_at(i)->name, (int)v, got);
            checked++;
        }
        pattern_close(p);
    }
    assert_int_equal(checked, 39);
}

/* The form that is matched gives the pieces of the form that stands in files. */
static void test_fast_form(void **state)
{
    (void)state;
    pattern *slow, *fast;
    assert_ok(pattern_compile(pattern_named("gpt2")->regex, &slow));
    assert_ok(pattern_open("gpt2", &fast));
    char text[120], a[241], b[241];
    for (u64 seed = 0; seed < 20000; seed++) {
        size_t n = draw(seed, 999, sizeof text);
        random_text(seed, text, n);
        pieces(slow, text, n, a);
        pieces(fast, text, n, b);
        if (strcmp(a, b)) fail_msg("seed %d: %s and %s", (int)seed, a, b);
    }
    pattern_close(slow);
    pattern_close(fast);
}

/* Cutting at a safe place changes no piece, whatever the pattern. */
static void test_safe_cut(void **state)
{
    (void)state;
    char text[200], whole[401], parts[401];
    i64 cuts = 0;
    for (i64 i = 0; i < pattern_count(); i++) {
        pattern *p;
        assert_ok(pattern_open(pattern_at(i)->name, &p));
        for (u64 seed = 0; seed < 4000; seed++) {
            random_text(seed, text, sizeof text);
            size_t cut = bpe_safe_cut(text, sizeof text, draw(seed, 1000, 40));
            pieces(p, text, sizeof text, whole);
            pieces(p, text, cut, parts);
            pieces(p, text + cut, sizeof text - cut, parts + strlen(parts));
            if (memcmp(whole, parts, strlen(whole)))
                fail_msg("%s, seed %d, cut %d", pattern_at(i)->name, (int)seed, (int)cut);
            cuts += cut < sizeof text;
        }
        pattern_close(p);
    }
    assert_true(cuts > 4000);
    assert_int_equal(bpe_safe_cut("ab cd", 5, 0), 2);
    assert_int_equal(bpe_safe_cut("ab  cd", 6, 0), 6);
    assert_int_equal(bpe_safe_cut("ab\ncd", 5, 0), 3);
    assert_int_equal(bpe_safe_cut("", 0, 0), 0);
}

static void test_long_runs(void **state)
{
    (void)state;
    static char text[1 << 20], got[(2 << 20) + 1];
    for (i64 i = 0; i < pattern_count(); i++) {
        pattern *p;
        assert_ok(pattern_open(pattern_at(i)->name, &p));
        for (const char *c = "x ^\n\r0\xFF"; *c; c++) {
            memset(text, *c, sizeof text);
            pieces(p, text, sizeof text, got);
        }
        pattern_close(p);
    }
}

static void test_errors(void **state)
{
    (void)state;
    pattern *p;
    assert_fails(pattern_open("gpt5", &p), ERR_CONFIG,
                 "no pattern is named 'gpt5'; there are gpt2, cl100k, llama3, qwen2, o200k");
    assert_fails(pattern_compile("a(b", &p), ERR_FORMAT,
                 "pattern 'a(b': missing closing parenthesis (near '')");
    assert_fails(pattern_compile("[a\\S]", &p), ERR_FORMAT,
                 "pattern '[a\\S]': \\S inside a class is not supported: write [^\\s...]");
}

/* Every code point, and all pairs of bytes, against the definition. */
static void test_utf8(void **state)
{
    (void)state;
    for (u32 c = 0; c < 0x110000; c++) {
        u8 b[4] = {(u8)c};
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        for (size_t i = n, rest = c; n > 1 && i-- > 0; rest >>= 6)
            b[i] = (u8)(i ? 0x80 | (rest & 63) : (0xF00u >> n & 0xFF) | rest);
        bool surrogate = c >= 0xD800 && c < 0xE000;
        assert_int_equal(utf8_character(b, n), surrogate ? 0 : n);
        if (n > 1) assert_int_equal(utf8_character(b, n - 1), 0); // cut short
    }
    assert_int_equal(utf8_character((const u8 *)"\xC0\x80", 2), 0);
    assert_int_equal(utf8_character((const u8 *)"\xE0\x9F\xBF", 3), 0);
    assert_int_equal(utf8_character((const u8 *)"\xF0\x8F\xBF\xBF", 4), 0);
    assert_int_equal(utf8_character((const u8 *)"\xF4\x90\x80\x80", 4), 0);
    assert_int_equal(utf8_valid((const u8 *)"abcdefgh\xC3\xA9 abcdefghi\xFF", 21), 20);
    assert_int_equal(utf8_invalid((const u8 *)"\xFF\xE4\xB8\x80"
                                              "a",
                                  5),
                     1);
    assert_int_equal(utf8_invalid((const u8 *)"\xFF\xE4\xB8"
                                              "a",
                                  4),
                     3);
}

static void test_alphabet(void **state)
{
    (void)state;
    static const int place[][2] = {{33, 0}, {97, 64}, {255, 187}, {0, 188}, {10, 198}, {32, 220}, {127, 221}};
    for (i64 i = 0; i < COUNT(place); i++) assert_int_equal(alphabet_byte_at(place[i][1]), place[i][0]);
    bool seen[256] = {0};
    u32 last = 0;
    for (int i = 0; i < 256; i++) {
        u8 byte = alphabet_byte_at(i), back;
        assert_false(seen[byte]);
        seen[byte] = true;
        assert_true(alphabet_code_point(byte) > last);
        last = alphabet_code_point(byte);
        text t = {0};
        alphabet_encode((const char *)&byte, 1, &t);
        assert_int_equal(alphabet_decode(t.data, t.bytes, &back), 1);
        assert_int_equal(back, byte);
        text_free(&t);
    }
    u8 out[4];
    assert_int_equal(alphabet_code_point(' '), 0x120);
    assert_int_equal(alphabet_decode(" ", 1, out), -1);        // a blank stands for nothing
    assert_int_equal(alphabet_decode("\xC5\x84", 2, out), -1); // U+0144, one behind the last
    assert_int_equal(alphabet_decode("\xC5", 1, out), -1);
    assert_int_equal(alphabet_decode("\xE4\xB8\xAD", 3, out), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_vectors),  cmocka_unit_test(test_fast_form),
                                       cmocka_unit_test(test_safe_cut), cmocka_unit_test(test_long_runs),
                                       cmocka_unit_test(test_errors),   cmocka_unit_test(test_utf8),
                                       cmocka_unit_test(test_alphabet)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
