/* probe_charts: a run's probes (train/probes.h) as small multiples: one chart a figure, layers across, a line
 * for each of a few evaluations from the first to the last.
 *
 *     report_chart *charts;
 *     i64 n = probe_charts(arena, &run.metrics, &charts);   // 0: the run has no probes
 */
#pragma once
#include "format/report.h"
#include "train/metrics.h"

i64 probe_charts(arena *a, const metrics_data *d, report_chart **out);
