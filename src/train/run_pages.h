/* run_pages: one report page for one or several runs.
 *
 *     const char *folders[] = {"runs/a", "runs/b"};
 *     TRY(run_pages_write(folders, 2, "report.html", NULL));
 *
 * One run: the page of run_page.h. Several: their figures side by side, the configuration in which they
 * differ, and curves of all in one frame each. */
#pragma once
#include "train/run_page.h"

/* Appends the page to OUT. SAMPLES: of one run only, NULL allowed. REFRESH: as run_page_html. */
status run_pages_html(const char *const *folders, i64 n, const char *samples, i64 refresh, text *out) MUST;
/* Writes it to PATH, whole or not at all. */
status run_pages_write(const char *const *folders, i64 n, const char *path, const char *samples) MUST;
