"use strict";
// Charts are drawn by Plotly, which is unpacked when the first of them comes into view.

const RUN_COLOURS = ["#1f77b4", "#e07b39", "#2a9d55", "#b5478f", "#6d5bd0", "#b8860b", "#3aa6a0", "#a33b3b"];
const charts = { pending: new Map(), drawn: new Map(), library: null };

function loadPlotly() {
  charts.library = charts.library || unpack("plotly").then((source) => {
    const script = document.createElement("script");
    script.textContent = source;
    document.head.append(script);
  });
  return charts.library;
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    seen.unobserve(entry.target);
    loadPlotly().then(() => draw(entry.target));
  }
}, { rootMargin: "200px" });

function chart(title, traces, options = {}) {
  const plot = el("div", { class: "plot", role: "img", "aria-label": title });
  const smoothed = traces.some((trace) => trace.meta === MEAN);
  charts.pending.set(plot, { traces, options: smoothed ? { ...options, legend: true, smoothed } : options });
  seen.observe(plot);
  return el("div", { class: "chart" }, el("h3", {}, title), plot);
}

function layout(options) {
  const grid = css("--line");
  return {
    margin: { l: options.category ? 64 : 48, r: 12, t: 8, b: options.scatter ? 34 : 24 }, height: 240, autosize: true,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: css("--text"), size: 11 }, hovermode: options.scatter ? "closest" : "x unified",
    xaxis: { gridcolor: grid, zerolinecolor: grid, automargin: true, ...(options.category ? {} : options.scatter ? { title: { text: "mean reward", font: { size: 10 } } } : { tickformat: ",d", dtick: options.dtick }), ...(options.xaxis || {}) },
    yaxis: { gridcolor: grid, zerolinecolor: grid, tickformat: options.percent || options.scatter ? ".0%" : "", rangemode: options.zero && !options.scatter ? "tozero" : "normal", automargin: true, ...(options.scatter ? { range: [-0.06, 1.06] } : {}) },
    showlegend: options.legend !== false, legend: { orientation: "h", ...(options.category ? { y: 1.02, yanchor: "bottom" } : { y: -0.12, yanchor: "top" }), font: { size: 10 }, ...(options.smoothed ? { title: { text: `${MEAN}: `, font: { size: 10 } } } : {}) },
    hoverlabel: { font: { size: 11 } }, barmode: options.stack ? "stack" : "group",
  };
}

function stepTicks(traces) {
  // Steps are whole numbers; at most eight of them, at a round distance, are named.
  const steps = traces.flatMap((trace) => trace.x);
  const least = (Math.max(...steps) - Math.min(...steps)) / 8;
  return [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000, 10000].find((distance) => distance >= least) || undefined;
}

function draw(plot) {
  const { traces, options } = charts.pending.get(plot);
  if (!options.category && !options.scatter) options.dtick = stepTicks(traces);
  charts.drawn.set(plot, options);
  return Plotly.react(plot, traces, layout(options), { displaylogo: false, displayModeBar: false, responsive: true });
}

function redrawCharts() {
  for (const plot of charts.drawn.keys()) if (plot.isConnected) draw(plot);
}

// Plotly reads a little markup in names; names are ours or a user's, so it is taken out.
const plain = (text) => String(text).replace(/[<>&]/g, (c) => ({ "<": "‹", ">": "›", "&": "＆" })[c]);

const SMOOTHED_OVER = 5;
const MEAN = `mean of the last ${SMOOTHED_OVER} steps`;

function smooth(values) {
  return values.map((_, i) => {
    const near = values.slice(Math.max(0, i - SMOOTHED_OVER + 1), i + 1).filter((v) => v !== null);
    return near.length ? near.reduce((a, b) => a + b, 0) / near.length : null;
  });
}

function exactTraces(name, x, y, colour) {
  return [{ x, y, name: plain(name), mode: "lines+markers", line: { color: colour, width: y.length < 8 ? 2 : 1.5 }, marker: { size: y.length < 8 ? 5 : 3 } }];
}

function lineTraces(name, x, y, colour) {
  // The points are what was measured, and what is shown under the pointer; the line is for the eye, and says so.
  if (y.length < 8) return exactTraces(name, x, y, colour);
  const label = plain(name);
  return [
    { x, y, name: label, legendgroup: label, mode: "markers", marker: { color: colour, size: 4, opacity: 0.5 }, showlegend: false },
    { x, y: smooth(y), name: label, meta: MEAN, legendgroup: label, mode: "lines", line: { color: colour, width: 2 }, hoverinfo: "skip" },
  ];
}

function bandTraces(name, xs, all, colour) {
  // Steps whose interval cannot be told (one problem only) have no band; the line goes on.
  const value = all.map((t) => t[0]);
  const known = xs.map((at, i) => [at, all[i]]).filter(([, t]) => t[1] !== null && t[2] !== null);
  const band = known.length > 1 ? [bandOf(known.map(([at]) => at), known.map(([, t]) => t[1]), known.map(([, t]) => t[2]), colour)] : [];
  return [...band, ...exactTraces(name, xs, value, colour)]; // a mean would leave its band
}

function bandOf(x, low, high, colour) {
  return { x: x.concat([...x].reverse()), y: high.concat([...low].reverse()), fill: "toself", fillcolor: colour + "26", line: { width: 0 }, hoverinfo: "skip", showlegend: false, mode: "lines" };
}

function courseCharts(runs) {
  const colour = (i) => RUN_COLOURS[i % RUN_COLOURS.length];
  const trained = runs.map((run, i) => ({ run, colour: colour(i) })).filter(({ run }) => run.steps.length);
  const banded = (get) => trained.flatMap(({ run, colour: c }) => bandTraces(run.label, run.steps.map((s) => s.step), run.steps.map(get), c));
  const over = (get) => trained.flatMap(({ run, colour: c }) => lineTraces(run.label, run.steps.map((s) => s.step), run.steps.map(get), c));
  const found = [];
  const legend = trained.length > 1;
  if (trained.length) {
    found.push(chart("Pass rate of the training rollouts, with 95 % intervals",
      banded((s) => s.pass), { percent: true, zero: true, legend }));
    if (trained.some(({ run }) => run.steps.some((s) => s.reward[0] !== null))) found.push(chart("Reward, mean with 95 % intervals", banded((s) => s.reward), { legend }));
    for (const { run } of trained) {
      const x = run.steps.map((s) => s.step);
      const suffix = trained.length > 1 ? ` (${run.label})` : "";
      found.push(chart("Outcomes" + suffix, OUTCOMES.map((outcome, i) => ({
        x, y: run.steps.map((s) => (s.outcomes[outcome] || 0) / Object.values(s.outcomes).reduce((a, b) => a + b, 0)),
        name: outcome, stackgroup: "one", mode: "lines", line: { width: 0.5, color: OUTCOME_COLOURS[i] },
      })).filter((trace) => trace.y.some((v) => v > 0)), { percent: true, zero: true }));
      const terms = [...new Set(run.steps.flatMap((s) => Object.keys(s.terms)))];
      if (terms.length) found.push(chart("Reward by term, mean before weighting" + suffix,
        terms.flatMap((term, i) => bandTraces(term, x, run.steps.map((s) => s.terms[term] ?? [null, null, null]), RUN_COLOURS[i % RUN_COLOURS.length]))));
    }
    found.push(chart("Answer length, tokens", banded((s) => s.tokens), { legend, zero: true }));
    found.push(chart("Cut off by the length limit", over((s) => s.truncated), { legend, percent: true, zero: true }));
    found.push(chart("Groups whose rewards are all the same", over((s) => s.flatGroups), { legend, percent: true, zero: true }));
    found.push(chart("Surprise: −log p of sampled tokens (estimates entropy)", banded((s) => s.surprise), { legend, zero: true }));
    if (trained.some(({ run }) => run.steps.some((s) => s.turns !== null))) found.push(chart("Answers of an attempt, mean", over((s) => s.turns), { legend, zero: true }));
    found.push(chart("Grading time per answer, seconds", over((s) => s.gradingSeconds), { legend, zero: true }));
    if (trained.some(({ run }) => run.steps.some((s) => s.noVerdict > 0))) found.push(chart("Answers without a verdict", over((s) => s.noVerdict), { legend, percent: true, zero: true }));
  }
  return found;
}

function truthChart(runs) {
  // One point for each pair of values; its area is the number of groups there.
  const known = runs.map((run, i) => [run, i]).filter(([run]) => run.truth);
  if (!known.length) return null;
  return chart("Reward against truth, by group: pass rate", known.map(([run, i]) => {
    const most = Math.max(...run.truth.points.map((p) => p[2]));
    return { x: run.truth.points.map((p) => p[0]), y: run.truth.points.map((p) => p[1]), text: run.truth.points.map((p) => `${p[2]} groups`), name: plain(run.label), mode: "markers",
      marker: { color: RUN_COLOURS[i % RUN_COLOURS.length], opacity: 0.55, size: run.truth.points.map((p) => 5 + 17 * Math.sqrt(p[2] / most)) } };
  }), { legend: known.length > 1, scatter: true, zero: true });
}

// What the charts above show already, from the rollouts themselves.
const SHOWN_ABOVE = /^(reward|outcome|outcomes|rollouts)\/|^(pass_rate|apply_rate)$/;

function metricCharts(runs, names) {
  return names.map((name) => {
    const shown = runs.map((run, i) => [run, i]).filter(([run]) => run.metrics[name]);
    const asMeasured = name.startsWith("validation/"); // it chose the weights
    const traces = shown.flatMap(([run, i]) => (asMeasured ? exactTraces : lineTraces)(run.label, run.metrics[name].x, run.metrics[name].y, RUN_COLOURS[i % RUN_COLOURS.length]));
    return chart(name, traces, { legend: shown.length > 1, zero: traces.every((trace) => trace.y.every((y) => y >= 0)) });
  });
}

function metricNames(runs) {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.metrics)))].sort();
  return [names.filter((name) => !SHOWN_ABOVE.test(name)), names.filter((name) => SHOWN_ABOVE.test(name))];
}

const BARS = 10;

function barChart(title, rows, key) {
  // The largest groups come first; those after the tenth hold a task or two each, and say nothing.
  const shown = rows.filter((row) => row[key].length > 1).map((row) => ({ ...row, [key]: row[key].slice(0, BARS) }));
  if (!shown.length) return null;
  const few = Math.max(...shown.map((row) => row[key].length)) <= 5;
  return chart(title, shown.map((row, i) => ({
    type: "bar", name: plain(row.label), x: row[key].map((b) => plain(b[0]) + (few ? "<br>" : " ") + `(${b[4]})`), y: row[key].map((b) => b[1]), marker: { color: RUN_COLOURS[i % RUN_COLOURS.length] },
    error_y: { type: "data", symmetric: false, array: row[key].map((b) => b[3] - b[1]), arrayminus: row[key].map((b) => b[1] - b[2]), thickness: 1, width: 3 },
  })), { percent: true, zero: true, category: true, xaxis: { tickangle: few ? 0 : -40 }, legend: shown.length > 1 });
}
