/* The report page around the charts: see report.h. */
#include "format/report.h"
#include "base/file.h"
#include <string.h>

static const char style[] =
    ":root{color-scheme:light dark;--bg:#fbfbfa;--card:#fff;--ink:#1c2126;--soft:#5d6770;--line:#e3e6e8;"
    "--c0:#1f6fb2;--c1:#c8591b;--c2:#2c8a57;--c3:#8a4fa8;"
    "--c4:#b02a55;--c5:#00838f;--c6:#7a6a00;--c7:#5b5fc7;--level:#8b6d00}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1c2024;--ink:#e4e8eb;--soft:#98a3ac;--line:"
    "#30363c;"
    "--c0:#62aef0;--c1:#f0955a;--c2:#5fc48f;--c3:#c490e0;"
    "--c4:#f07aa0;--c5:#4fc3cf;--c6:#c9b94a;--c7:#9ea2ff;--level:#d9b84a}}\n"
    "*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);"
    "font:15px/1.5 system-ui,-apple-system,\"Segoe UI\",Roboto,\"DejaVu Sans\",sans-serif}\n"
    "main{max-width:1180px;margin:0 auto;padding:32px 20px 64px}h1{font-size:26px;line-height:1.25;margin:0;"
    "overflow-wrap:anywhere}h2{font-size:18px;margin:40px 0 12px}h3{font-size:15px;margin:0 0 2px}\n"
    ".sub{color:var(--soft);margin:4px 0 0}.tiles{display:grid;gap:12px;margin:24px 0 0;"
    "grid-template-columns:repeat(auto-fill,minmax(210px,1fr))}\n"
    ".tile,figure,.sample,table{background:var(--card);border:1px solid var(--line);border-radius:8px}"
    ".tile{padding:12px 14px}.tile b{display:block;font-size:22px;font-weight:600;line-height:1.3;"
    "font-variant-numeric:tabular-nums}.tile span,.tile "
    "small{color:var(--soft);font-size:13px;display:block}\n"
    ".charts{display:grid;gap:16px;grid-template-columns:repeat(auto-fill,minmax(min(100%,460px),1fr))}"
    "figure{margin:0;padding:14px 14px 8px}svg{display:block;width:100%;height:auto}\n"
    "svg path{fill:none}svg text{font-size:12px;fill:var(--soft)}.grid path{stroke:var(--line)}"
    ".tick path{stroke:var(--soft)}.tick text{font-variant-numeric:tabular-nums}\n"
    "svg .c0{stroke:var(--c0)}svg .c1{stroke:var(--c1)}svg .c2{stroke:var(--c2)}svg .c3{stroke:var(--c3)}"
    "svg .c4{stroke:var(--c4)}svg .c5{stroke:var(--c5)}svg .c6{stroke:var(--c6)}svg .c7{stroke:var(--c7)}"
    "svg g[class^=c] path{stroke-width:1.8;stroke-linejoin:round}svg g.faint path{stroke-width:1;opacity:.3}"
    "svg g.thin path{stroke-width:1.2;opacity:.7}svg g[class^=c] "
    "path.band{fill:currentColor;stroke:none;opacity:.18}"
    "svg .c0{color:var(--c0)}svg .c1{color:var(--c1)}svg .c2{color:var(--c2)}svg .c3{color:var(--c3)}"
    "svg .c4{color:var(--c4)}svg .c5{color:var(--c5)}svg .c6{color:var(--c6)}svg .c7{color:var(--c7)}"
    "svg circle{fill:var(--card);stroke-width:1.8}"
    "svg path.level{stroke:var(--level);stroke-dasharray:6 4;stroke-width:1.4}\n"
    ".legend{display:flex;flex-wrap:wrap;gap:2px 16px;color:var(--soft);font-size:13px;min-height:20px}"
    ".legend i{display:inline-block;width:16px;height:0;border-top:2.5px "
    "solid;margin-right:6px;vertical-align:4px}"
    ".legend .c0 i{color:var(--c0)}.legend .c1 i{color:var(--c1)}.legend .c2 i{color:var(--c2)}"
    ".legend .c3 i{color:var(--c3)}.legend .c4 i{color:var(--c4)}.legend .c5 i{color:var(--c5)}"
    ".legend .c6 i{color:var(--c6)}.legend .c7 i{color:var(--c7)}.legend .faint i{opacity:.35}.legend .level "
    "i{color:var(--level);"
    "border-top-style:dashed}.note{color:var(--soft);font-size:12px;margin:0 0 4px}\n"
    ".sample{padding:12px 14px;margin:0 0 12px;white-space:pre-wrap;overflow-wrap:anywhere;"
    "font:14px/1.55 ui-monospace,\"DejaVu Sans Mono\",Menlo,Consolas,monospace}.sample b{color:var(--c0)}\n"
    ".tables{display:grid;gap:16px;align-items:start;grid-template-columns:repeat(auto-fill,minmax(min(100%,"
    "460px),1fr))}"
    "table{border-spacing:0;width:100%;font-size:14px;overflow:hidden}"
    "td{padding:5px 14px;border-top:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}"
    "tr:first-child td{border-top:0}td:first-child{color:var(--soft);width:45%}\n"
    "td+td{font-family:ui-monospace,\"DejaVu Sans Mono\",Menlo,Consolas,monospace;font-size:13px}"
    ".wide{overflow-x:auto}.grid th{text-align:left;padding:5px 14px}.grid td:first-child{width:auto}\n"
    "footer{color:var(--soft);font-size:13px;margin-top:40px}\n"
    "@media print{.tile,figure,.sample{break-inside:avoid}}\n";

/* The bytes of the well-formed UTF-8 character at S (Unicode 15, table 3-7), or 0. */
static int utf8_length(const u8 *s)
{
    u8 low = 0x80, high = 0xbf;
    int n = s[0] < 0x80                    ? 1
            : s[0] >= 0xc2 && s[0] <= 0xdf ? 2
            : (s[0] & 0xf0) == 0xe0        ? 3
            : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
                                           : 0;
    if (s[0] == 0xe0) low = 0xa0;
    if (s[0] == 0xed) high = 0x9f;
    if (s[0] == 0xf0) low = 0x90;
    if (s[0] == 0xf4) high = 0x8f;
    for (int i = 1; i < n; i++, low = 0x80, high = 0xbf)
        if (s[i] < low || s[i] > high) return 0;
    return n;
}

void report_escape(text *out, const char *s)
{
    for (const u8 *p = (const u8 *)s; *p;) {
        int n = utf8_length(p);
        const char *name = *p == '&'    ? "&amp;"
                           : *p == '<'  ? "&lt;"
                           : *p == '>'  ? "&gt;"
                           : *p == '"'  ? "&quot;"
                           : *p == '\'' ? "&#39;"
                                        : NULL;
        bool control = (*p < 32 && *p != '\t' && *p != '\n') || *p == 127 || (*p == 0xc2 && p[1] < 0xa0);
        if (name)
            text_add(out, "%s", name);
        else if (!n || control)
            text_add(out, "\xef\xbf\xbd");
        else
            text_add_bytes(out, (const char *)p, (size_t)n);
        p += n ? n : 1;
    }
}

/* <tag>S</tag>, or nothing without S. */
static void element(text *t, const char *tag, const char *s)
{
    if (!s || !*s) return;
    text_add(t, "<%s>", tag);
    report_escape(t, s);
    text_add(t, "</%.*s>", (int)strcspn(tag, " "), tag);
}

static void add_table(text *t, const char *title, const report_row *rows, i64 n)
{
    if (!n) return;
    text_add(t, "<section>");
    element(t, "h2", title);
    text_add(t, "<table>");
    for (i64 i = 0; i < n; i++) {
        text_add(t, "<tr>");
        element(t, "td", rows[i].key);
        text_add(t, "<td>");
        report_escape(t, rows[i].value);
        text_add(t, "</td></tr>\n");
    }
    text_add(t, "</table></section>\n");
}

static void add_grid(text *t, const report_grid *g)
{
    element(t, "h2", g->title);
    text_add(t, "<div class=\"wide\"><table class=\"grid\">");
    for (i64 r = 0; r < g->rows; r++) {
        text_add(t, "<tr>");
        for (i64 c = 0; c < g->columns; c++) {
            text_add(t, r ? "<td>" : "<th>");
            report_escape(t, g->cells[r * g->columns + c]);
            text_add(t, r ? "</td>" : "</th>");
        }
        text_add(t, "</tr>\n");
    }
    text_add(t, "</table></div>\n");
}

void report_html(text *t, const report_page *page)
{
    text_add(t, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
                "'unsafe-inline'\">"
                "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n");
    if (page->refresh)
        text_add(t, "<meta http-equiv=\"refresh\" content=\"%lld\">\n", (long long)page->refresh);
    element(t, "title", page->title);
    text_add(t, "\n<style>\n%s</style></head>\n<body><main>\n<header>", style);
    element(t, "h1", page->title);
    element(t, "p class=\"sub\"", page->subtitle);
    text_add(t, "</header>\n");
    if (page->n_figures) text_add(t, "<div class=\"tiles\">");
    for (i64 i = 0; i < page->n_figures; i++) {
        text_add(t, "<div class=\"tile\">");
        element(t, "span", page->figures[i].label);
        element(t, "b", page->figures[i].value);
        element(t, "small", page->figures[i].note);
        text_add(t, "</div>");
    }
    if (page->n_figures) text_add(t, "</div>\n");
    for (i64 i = 0; i < page->n_grids; i++) add_grid(t, &page->grids[i]);
    if (page->n_charts) text_add(t, "<h2>Curves</h2><div class=\"charts\">\n");
    for (i64 i = 0; i < page->n_charts; i++) report_svg(t, &page->charts[i], i);
    if (page->n_charts) text_add(t, "</div>\n");
    if (page->n_samples) text_add(t, "<h2>Samples</h2>\n");
    for (i64 i = 0; i < page->n_samples; i++) {
        text_add(t, "<div class=\"sample\">");
        element(t, "b", page->samples[i].prompt);
        report_escape(t, page->samples[i].completion);
        text_add(t, "</div>\n");
    }
    text_add(t, "<div class=\"tables\">");
    add_table(t, "Run", page->facts, page->n_facts);
    add_table(t, "Configuration", page->config, page->n_config);
    text_add(t, "</div>\n<footer>Written by Keel. No script, nothing loaded from elsewhere.</footer>\n"
                "</main></body></html>\n");
}

status report_write(const report_page *page, const char *path)
{
    text t = {0};
    report_html(&t, page);
    status s = file_replace(path, t.data, t.bytes);
    text_free(&t);
    return s;
}
