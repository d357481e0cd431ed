/* The report page: escaping, ticks and places of points to the digit, tags that close whatever the page is
 * given, nothing loaded from elsewhere; the page of a run's folder. */
#include "base/file.h"
#include "format/report.h"
#include "train/run_page.h"
#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char folder[] = "/tmp/keel-report-XXXXXX";

#define assert_ok(call)                                                                                      \
    do {                                                                                                     \
        status assert_status_ = (call);                                                                      \
        if (assert_status_) fail_msg("%s: %s", #call, assert_status_->message);                              \
    } while (0)
#define assert_fails(call, wanted_code, ...)                                                                 \
    do {                                                                                                     \
        char wanted_[600];                                                                                   \
        snprintf(wanted_, sizeof wanted_, __VA_ARGS__);                                                      \
        status assert_status_ = (call);                                                                      \
        assert_non_null(assert_status_);                                                                     \
        assert_string_equal(assert_status_->message, wanted_);                                               \
        assert_int_equal(assert_status_->code, wanted_code);                                                 \
        status_drop(assert_status_);                                                                         \
    } while (0)
#define assert_has(t, part)                                                                                  \
    do {                                                                                                     \
        if (!strstr((t)->data, part)) fail_msg("not on the page: %s", part);                                 \
    } while (0)

static void test_escape(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
    } cases[] = {
        {"plain\ttext\n", "plain\ttext\n"},
        {"<b a=\"x\" c='y'>&", "&lt;b a=&quot;x&quot; c=&#39;y&#39;&gt;&amp;"},
        {"na\xc3\xafve \xe4\xbd\xa0 \xf0\x9f\x98\x80", "na\xc3\xafve \xe4\xbd\xa0 \xf0\x9f\x98\x80"},
        {"\x1b[31m\x7f", "\xef\xbf\xbd[31m\xef\xbf\xbd"},
        {"\xc2\x85", "\xef\xbf\xbd"},                             // a control character of Latin-1
        {"\x80\xff", "\xef\xbf\xbd\xef\xbf\xbd"},                 // no first bytes
        {"\xc0\xbc", "\xef\xbf\xbd\xef\xbf\xbd"},                 // '<' overlong
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, // a surrogate
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, // beyond U+10FFFF
        {"\xe4\xbd", "\xef\xbf\xbd\xef\xbf\xbd"},                                 // cut at the end
    };
    for (i64 i = 0; i < COUNT(cases); i++) {
        text t = {0};
        report_escape(&t, cases[i].from);
        assert_string_equal(t.data, cases[i].to);
        text_free(&t);
    }
}

/* Every tag is closed, in order; <meta ...> has no end and <path .../> closes itself. */
static void assert_balanced(const char *html)
{
    const char *open[64];
    int depth = 0;
    for (const char *p = html; (p = strchr(p, '<')); p++) {
        const char *end = strchr(p, '>');
        assert_non_null(end);
        bool closing = p[1] == '/', alone = end[-1] == '/' || p[1] == '!' || !strncmp(p, "<meta", 5);
        if (closing) {
            size_t n = (size_t)(end - p - 2);
            assert_true(depth > 0);
            depth--;
            assert_memory_equal(open[depth], p + 2, n);
            assert_false(isalnum((u8)open[depth][n]));
        } else if (!alone) {
            assert_true(depth < 64);
            open[depth++] = p + 1;
        }
        p = end;
    }
    assert_int_equal(depth, 0);
}

static void test_places_and_ticks(void **state)
{
    (void)state;
    const double x[] = {0, 10000, 20000}, y[] = {1, 2, NAN};
    const report_line line = {.label = "validation", .style = REPORT_POINTS, .x = x, .y = y, .n = 3};
    const report_level level = {"bigram", 1.5};
    const report_chart c = {.title = "T",
                            .x_label = "step",
                            .y_label = "bits",
                            .lines = &line,
                            .n_lines = 1,
                            .levels = &level,
                            .n_levels = 1};
    text t = {0};
    report_svg(&t, &c, 7);
    assert_balanced(t.data);
    /* the frame: x 72..618 for 0..20000, y 256..12 for 1..2 */
    assert_has(&t, "<circle cx=\"72.0\" cy=\"256.0\" r=\"3\"><title>0: 1</title></circle>");
    assert_has(&t, "<circle cx=\"345.0\" cy=\"12.0\" r=\"3\"><title>10000: 2</title></circle>");
    assert_has(&t, "<path d=\"M72.0 256.0L345.0 12.0\"/>"); // the NaN is no point of it
    assert_has(&t, "<path class=\"level\" d=\"M72 134.0H618\"/>");
    static const char *const ticks[] = {">1.0<",  ">1.2<", ">1.8<", ">2.0<",   ">0<",
                                        ">5000<", ">10k<", ">20k<", ">bigram<"};
    for (i64 i = 0; i < COUNT(ticks); i++) assert_has(&t, ticks[i]);
    assert_null(strstr(t.data, "nan"));
    assert_has(&t, "id=\"frame7\"");
    text_free(&t);
}

static void test_odd_series(void **state)
{
    (void)state;
    const double zeros[3] = {0}, nothing[3] = {NAN, INFINITY, -INFINITY}, huge[3] = {-1e308, 1e308, 5},
                 one[1] = {3};
    const struct {
        const double *y;
        i64 n;
    } cases[] = {{zeros, 3}, {nothing, 3}, {huge, 3}, {one, 1}, {NULL, 0}};
    for (i64 i = 0; i < COUNT(cases); i++)
        for (int robust = 0; robust < 2; robust++) {
            text t = {0};
            const double x[] = {1, 2, 3};
            const report_line line = {.label = "l", .x = x, .y = cases[i].y, .n = cases[i].n};
            const report_chart c = {.title = "T", .lines = &line, .n_lines = 1, .robust = robust};
            report_svg(&t, &c, 0);
            assert_balanced(t.data);
            assert_null(strstr(t.data, "nan"));
            assert_null(strstr(t.data, "inf"));
            assert_true(t.bytes < 5000);
            text_free(&t);
        }
}

/* A long series stays small, and its one spike visible. */
static void test_thinning_keeps_spikes(void **state)
{
    (void)state;
    enum { N = 100000 };
    double *x = malloc(sizeof(double) * N), *y = malloc(sizeof(double) * N);
    for (i64 i = 0; i < N; i++) x[i] = (double)i, y[i] = i == 54321 ? 8 : 4 + sin((double)i);
    const report_line line = {.x = x, .y = y, .n = N};
    const report_chart all = {.title = "T", .lines = &line, .n_lines = 1, .from_zero = true};
    text t = {0};
    report_svg(&t, &all, 0);
    assert_has(&t, " 12.0L"); // 8 is the frame's top
    assert_true(t.bytes < 20000);
    text_free(&t);
    report_chart bulk = all;
    bulk.robust = true;
    report_svg(&t, &bulk, 0);
    assert_has(&t, "outside the frame.");
    text_free(&t);
    free(x);
    free(y);
}

static void test_page(void **state)
{
    (void)state;
    const char *evil = "</td></style><script>alert(1)</script>\"'&\xff";
    const double x[] = {1, 2}, y[] = {3, 4};
    const report_line line = {.label = evil, .x = x, .y = y, .n = 2};
    const report_level level = {evil, 3.5};
    const report_chart chart = {.title = evil,
                                .x_label = evil,
                                .y_label = evil,
                                .lines = &line,
                                .n_lines = 1,
                                .levels = &level,
                                .n_levels = 1};
    const report_figure figure = {evil, evil, evil};
    const report_row row = {evil, evil};
    const report_sample sample = {evil, evil};
    const char *const cells[] = {evil, evil, evil, evil};
    const report_grid grid = {evil, cells, 2, 2};
    const report_page page = {.title = evil,
                              .subtitle = evil,
                              .refresh = 5,
                              .figures = &figure,
                              .n_figures = 1,
                              .charts = &chart,
                              .n_charts = 1,
                              .samples = &sample,
                              .n_samples = 1,
                              .facts = &row,
                              .n_facts = 1,
                              .config = &row,
                              .n_config = 1,
                              .grids = &grid,
                              .n_grids = 1},
                      empty = {.title = "t"};
    text t = {0};
    report_html(&t, &page);
    assert_balanced(t.data);
    assert_null(strstr(t.data, "<script"));
    assert_null(strstr(t.data, "http:"));
    assert_null(strstr(t.data, "https:"));
    assert_null(strstr(t.data, "url(h"));
    assert_has(&t, "prefers-color-scheme:dark");
    assert_has(&t, "<td>&lt;/td&gt;&lt;/style&gt;&lt;script&gt;alert(1)&lt;/"
                   "script&gt;&quot;&#39;&amp;\xef\xbf\xbd</td>");
    text_free(&t);
    report_html(&t, &empty);
    assert_balanced(t.data);
    text_free(&t);
    assert_fails(report_write(&empty, "/nonexistent/p.html"), ERR_IO,
                 "/nonexistent/p.html: cannot create: No such file or directory");
}

static const char *put(const char *name, const char *what)
{
    static char path[4][300];
    static int turn;
    file_writer *w;
    char *p = path[turn = (turn + 1) % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    assert_ok(file_create(p, &w));
    assert_ok(file_write(w, what, strlen(what)));
    assert_ok(file_commit(w));
    return p;
}

static void test_run_page(void **state)
{
    (void)state;
    char out[300];
    text t = {0};
    snprintf(out, sizeof out, "%s/report.html", folder);
    assert_fails(run_page_write("/nonexistent", out, NULL), ERR_INPUT,
                 "/nonexistent: no such folder; give the folder of a run");
    assert_fails(run_page_write(folder, out, NULL), ERR_IO,
                 "%s/metrics.jsonl: cannot open: No such file or directory", folder);
    put("metrics.jsonl", "");
    assert_ok(run_page_write(folder, out, NULL)); // a run that has just begun
    put("metrics.jsonl",
        "{\"step\":1,\"loss\":4,\"lr\":0.001,\"grad_norm\":1}\n{\"step\":2,\"loss\":null,\"loss_is\":\"nan\"}"
        "\n"
        "{\"step\":2,\"val_bits_per_byte\":2.25}\n{\"step\":3,\"loss\":3,\"val_bits_per_byte\":2.5}\n{\"st");
    const char *summary = put(
        "summary.json",
        "{\"name\": \"n<1>\", \"status\": \"done\", \"tokens\": 1500000, \"seconds\": 90, \"loss\": 2.75, "
        "\"baselines\": {\"Kneser-Ney bigram\": 3.5}}");
    put("config.yaml", "model: {width: 64, norm: {kind: rms, ffn: [pre, out]}}\ndata: {train: 'a<b'}\n");
    const char *samples =
        put("samples.jsonl",
            "{\"prompt\": \"Once\", \"completion\": \" upon <a> time\"}\n\n{\"completion\": \"x\"}\n");
    assert_ok(run_page_write(folder, out, NULL));
    assert_ok(file_read(out, &t.data, &t.bytes));
    assert_balanced(t.data);
    static const char *const parts[] = {
        "<h1>n&lt;1&gt;</h1>",
        "A training run, done",
        "<span>validation bits per byte</span><b>2.5000</b><small>best 2.2500</small>",
        "<span>validation loss</span><b>2.7500</b>",
        "<span>training loss</span><b>3.0000</b>",
        "<span>Kneser-Ney bigram</span><b>3.5000</b><small>bits per byte</small>",
        "<span>tokens</span><b>1.5 M</b>",
        "<b>1 min 30 s</b>",
        "<tr><td>model.norm.kind</td><td>rms</td></tr>",
        "<tr><td>model.norm.ffn</td><td>[pre, out]</td></tr>",
        "<tr><td>data.train</td><td>a&lt;b</td></tr>",
        "<b>Once</b> upon &lt;a&gt; time</div>",
        "<td>unreadable lines of metrics.jsonl</td><td>1</td>",
        "<h3>Training loss</h3>",
        "<h3>Learning rate</h3>",
        "<h3>Gradient norm</h3>"};
    for (i64 i = 0; i < COUNT(parts); i++) assert_has(&t, parts[i]);
    assert_null(strstr(t.data, "<h3>Speed</h3>"));
    free(t.data);
    put("samples.jsonl", "{\"completion\": \"x\"}\nnone\n");
    assert_fails(run_page_write(folder, out, NULL), ERR_FORMAT,
                 "%s:2: no sample; a line is {\"prompt\": \"...\", \"completion\": \"...\"}", samples);
    put("summary.json", "{\n\"a\": }");
    assert_fails(run_page_write(folder, out, NULL), ERR_FORMAT, "%s: line 2: unexpected token near '}'",
                 summary);
    put("summary.json", "[]");
    assert_fails(run_page_write(folder, out, NULL), ERR_FORMAT, "%s: not a JSON object", summary);
    put("summary.json", "{}");
    assert_fails(run_page_write(folder, out, put("config.yaml", "a: [")), ERR_FORMAT,
                 "%s/config.yaml: not valid YAML", folder);
}

static int begin(void **state) { return (void)state, !mkdtemp(folder); }
static int end(void **state)
{
    (void)state;
    status_drop(tree_remove(folder));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escape),     cmocka_unit_test(test_places_and_ticks),
        cmocka_unit_test(test_odd_series), cmocka_unit_test(test_thinning_keeps_spikes),
        cmocka_unit_test(test_page),       cmocka_unit_test(test_run_page),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
