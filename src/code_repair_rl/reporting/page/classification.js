"use strict";
// Classifiers: labels, their evidence, and what more answers buy.

function scoreCell(triple) {
  if (!triple || triple[0] === null) return el("td", { class: "number quiet" }, "–");
  return el("td", { class: "number" }, format.number(triple[0], 3), el("small", {}, `${format.number(triple[1], 3)} to ${format.number(triple[2], 3)}`));
}

function scoreTable(head, rows) {
  return el("div", { class: "scroll" }, el("table", { class: "figures" },
    el("thead", {}, el("tr", {}, head.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, rows.map(([name, ...triples]) => el("tr", {}, el("td", {}, el("strong", {}, name)), triples.map(scoreCell))))));
}

function voteChart(one) {
  const traces = Object.entries(one.curve).map(([name, points], i) => ({
    x: points.map((p) => String(p[0])), y: points.map((p) => p[1]), name: plain(name), mode: "lines+markers", line: { color: RUN_COLOURS[i] },
    error_y: { type: "data", symmetric: false, array: points.map((p) => p[3] - p[1]), arrayminus: points.map((p) => p[1] - p[2]), thickness: 1, width: 3 },
  }));
  return chart("Test-time compute: score by votes", traces, { category: true, xaxis: { type: "category" } });
}

function reliabilityChart(one) {
  const bins = one.bins;
  const traces = [
    { x: [0, 1], y: [0, 1], mode: "lines", line: { dash: "dot", color: "#999999" }, hoverinfo: "skip", showlegend: false },
    { x: bins.map((b) => b[0]), y: bins.map((b) => b[1]), mode: "markers+lines", marker: { size: bins.map((b) => 5 + Math.sqrt(b[4])), color: RUN_COLOURS[0] }, line: { color: RUN_COLOURS[0], width: 1 }, showlegend: false, text: bins.map((b) => `${b[4]} tasks`),
      error_y: { type: "data", symmetric: false, array: bins.map((b) => b[3] - b[1]), arrayminus: bins.map((b) => b[1] - b[2]), thickness: 1, width: 3 } },
  ];
  return chart("Reliability: right by vote share", traces, { scatter: true, legend: false, xaxis: { title: { text: "share of the votes", font: { size: 10 } }, range: [0, 1.02] } });
}

function confusionTable(one) {
  const { labels, counts } = one.confusion;
  const most = Math.max(1, ...counts.flat());
  return el("div", { class: "scroll" }, el("table", { class: "figures" },
    el("thead", {}, el("tr", {}, ["truth \\ majority", ...labels].map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, counts.map((row, i) => [row, labels[i]]).filter(([row]) => row.some((n) => n > 0)).map(([row, label]) =>
      el("tr", {}, el("td", {}, el("strong", {}, label)), row.map((n) => {
        const td = el("td", { class: "number" }, format.number(n, 1));
        td.style.background = `rgba(31, 119, 180, ${0.5 * n / most})`;
        return td;
      }))))));
}

function classificationCard(one, several) {
  const percent = (triple) => (triple && triple[0] !== null ? `${format.percent(triple[0])} (${format.percent(triple[1])} to ${format.percent(triple[2])})` : "–");
  const number = (triple) => (triple && triple[0] !== null ? `${format.number(triple[0], 3)} (${format.number(triple[1], 3)} to ${format.number(triple[2], 3)})` : "–");
  const errors = Object.entries(one.errors).map(([kind, count]) => `${kind} ${count}`).join(", ");
  return [
    el("h2", {}, several ? `${one.run}: ${one.name}` : one.name),
    el("p", { class: "quiet" }, `${one.model} on ${one.tasks} tasks of ${one.problems} problems (${one.taskSet}, ${one.split}), ${one.samples} answers each, T ${one.temperature}. Intervals are 95 %, by problem.`),
    one.leftOut ? el("p", { class: "quiet" }, `${one.leftOut} tasks were left out: their prompts are too long.`) : null,
    one.notes.map((note) => el("p", { class: one.claims ? "quiet" : "warn" }, note)),
    scoreTable(["", "balanced accuracy", "macro-F1", "MCC", "accuracy"], one.scores),
    el("div", { class: "charts" }, voteChart(one), reliabilityChart(one)),
    one.evidence.length ? scoreTable(["evidence", "precision", "recall", "F1", "above citing every line", "misquoted"], one.evidence) : null,
    one.pairs.length ? scoreTable(["pairs", "both right", "both vulnerable", "both benign", "reversed", "unreadable"], one.pairs.map(([name, count, ...rest]) => [`${name} (${count})`, ...rest])) : null,
    el("p", {}, `Readable answers: ${percent(one.readable)}${errors ? ` (${errors})` : ""}. Expected calibration error: ${number(one.calibration)}${one.uncalibrated ? ` (${one.uncalibrated} tasks without a readable answer left out)` : ""}. VD-S: ${number(one.vdS)}.`),
    el("h3", {}, "Confusion of the majority"), confusionTable(one),
  ];
}

function classificationPart(list) {
  const several = new Set(list.map((one) => one.run)).size > 1;
  return list.map((one) => el("div", {}, classificationCard(one, several).flat().filter((node) => node !== null)));
}
