"use strict";

const KEYS = [["1 – 5", "the parts of the report"], ["j  k  ↓  ↑", "next, previous rollout"], ["h  l", "previous, next of the same group"], ["p", "hold the rollout beside the others, let it go"], ["/", "search"], ["Esc", "leave the search"], ["t", "light or dark"], ["?", "these keys"]];

function cell(triple) {
  if (!triple || triple[0] === null) return el("td", { class: "number quiet" }, "–");
  return el("td", { class: "number" }, format.percent(triple[0]), el("small", {}, `${format.percent(triple[1])} to ${format.percent(triple[2])}`));
}

function summaryTable(rows, severalRuns) {
  if (!rows.length) return el("p", { class: "quiet" }, "No evaluation was recorded.");
  const ks = [...new Set(rows.flatMap((row) => Object.keys(row.passAt).map(Number)))].sort((a, b) => a - b);
  const head = [severalRuns ? "run" : null, "evaluation", "asked", "format", "apply", "right place", ...ks.map((k) => `pass@${k}`), "edit precision", "tokens", "no verdict"];
  return el("div", { class: "scroll" }, el("table", { class: "figures", id: "summary" },
    el("thead", {}, el("tr", {}, head.filter((h) => h !== null).map((h) => el("th", { scope: "col" }, h)))),
    el("tbody", {}, rows.map((row) => el("tr", {},
      severalRuns ? el("td", {}, row.run) : null,
      el("td", {}, el("strong", {}, row.name), row.unsafe ? [" ", el("span", { class: "badge bad" }, "no isolation")] : null, el("small", {}, row.model)),
      el("td", {}, `${row.tasks} tasks × ${row.samplesPerTask}`, el("small", {}, `${row.problems} problems, ${row.split}, hint ${row.hint}, T ${row.temperature}`, row.leftOut ? `, ${row.leftOut} too long` : ""),
        row.agent ? el("small", {}, row.agent, ...Object.entries(row.passWithin).map(([k, found]) => `; passed within ${k}: ${format.percent(found[0])}`)) : null),
      cell(row.format), cell(row.apply), cell(row.rightPlace), ks.map((k) => cell(row.passAt[k])), cell(row.editPrecision),
      el("td", { class: "number" }, format.number(row.tokens, 1)), el("td", { class: "number" }, row.noVerdict))))));
}

function duration(seconds) {
  if (!seconds) return "–";
  const whole = Math.round(seconds), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

function runTable(runs) {
  const rows = runs.filter((run) => run.steps.length || Object.keys(run.metrics).length);
  if (!rows.length) return null;
  const total = (run, get) => run.steps.reduce((sum, step) => sum + get(step), 0);
  const answers = (step) => Object.values(step.outcomes).reduce((a, b) => a + b, 0);
  return el("div", { class: "scroll" }, el("table", { class: "figures", id: "runs" },
    el("thead", {}, el("tr", {}, ["run", "status", "steps", "rollouts", "no verdict", "first step's pass rate", "last step's pass rate", "time"].map((h) => el("th", { scope: "col" }, h)))),
    el("tbody", {}, rows.map((run) => el("tr", {}, el("td", {}, el("strong", {}, run.label)), el("td", {}, run.environment.status || "not ended"),
      el("td", { class: "number" }, Math.max(0, ...run.steps.map((s) => s.step), ...Object.values(run.metrics).flatMap((m) => m.x))),
      el("td", { class: "number" }, total(run, answers) || "–"), el("td", { class: "number" }, run.steps.length ? total(run, (s) => s.outcomes["no-verdict"] || 0) : "–"),
      cell(run.steps.length ? run.steps[0].pass : null), cell(run.steps.length ? run.steps[run.steps.length - 1].pass : null),
      el("td", { class: "number" }, (run.cutOff && run.seconds ? "at least " : "") + duration(run.seconds)))))));
}

function comparisonCard(one, viewer) {
  const mark = one.shown ? el("span", { class: "badge " + (one.better ? "good" : "bad") }, one.better ? "shown to be better" : "shown to be worse") : el("span", { class: "badge warn" }, "no difference shown");
  const tasks = (title, list, more) => (list.length ? el("details", {}, el("summary", {}, `${title} (${list.length + more})`), el("ul", {}, list.map(([task, before, after]) =>
    el("li", {}, el("button", { type: "button", onclick: () => { show("rollouts"); viewer.setFilter("text", task); } }, task), ` ${format.percent(before)} → ${format.percent(after)}`)),
    more ? el("li", { class: "quiet" }, `and ${more} more`) : null)) : null);
  return el("div", { class: "card comparison" }, el("p", {}, el("strong", {}, one.title), " ", mark), one.sentences.map((s) => el("p", {}, s)),
    el("p", { class: "quiet" }, `p = ${one.p === null ? "–" : one.p} (${one.pMethod}); corrected for all comparisons here (Holm): ${one.pAdjusted === null ? "–" : one.pAdjusted}`),
    tasks("Gained", one.gained, one.moreGained), tasks("Lost", one.lost, one.moreLost));
}

function overview(index, viewer) {
  const several = new Set(index.table.map((row) => row.run)).size > 1;
  const bars = index.table.map((row) => ({ ...row, label: several ? `${row.run}: ${row.name}` : row.name }));
  const judges = [...new Set(index.table.map((row) => row.difficultyOf).filter(Boolean))].join(", ");
  const notes = [...index.runs.flatMap((run) => run.notes.map((note) => `${run.label}: ${note}`)), ...index.notCompared];
  return [
    el("h2", {}, "Evaluations"), summaryTable(index.table, several),
    el("p", { class: "quiet" }, "Intervals are 95 %, clustered by problem. Answers without a verdict leave every figure and are counted. Edit precision: of the answers that pass, the tokens that the known-good edit changes for each one that the answer changes, at most 100 %."),
    index.comparisons.length ? el("h2", {}, "What was shown, and what was not") : null,
    index.comparisons.map((one) => comparisonCard(one, viewer)),
    bars.length ? el("h2", {}, "Where it works") : null,
    bars.length ? el("div", { class: "charts" }, barChart("pass@1 by mutation operator (tasks)", bars, "byOperator"), barChart("pass@1 by length of the code (tasks)", bars, "byLines"), barChart(`pass@1 by difficulty for ${judges} (tasks)`, bars, "byDifficulty")) : null,
    bars.some((row) => row.byDifficulty.length) ? el("p", { class: "quiet" }, `Difficulty is told from the first half of the answers of ${judges}; its own bars show the other half.`) : null,
    index.runs.some((run) => run.steps.length || Object.keys(run.metrics).length) ? [el("h2", {}, "Training"), runTable(index.runs),
      el("p", { class: "quiet" }, "Steps ask different tasks: their pass rates show the course of training, and compare no models. Evaluations do that.")] : null,
    ...truth(index.runs),
    notes.length ? el("div", { class: "card" }, notes.map((note) => el("p", { class: "warn" }, note))) : null,
  ];
}

function truth(runs) {
  const known = runs.filter((run) => run.truth);
  if (!known.length) return [];
  const sentence = ({ label, truth: t }) => el("p", {}, el("strong", {}, label), `: of all pairs of a passing and a failing answer the passing one has the higher reward in ${format.percent(t.ordered)} (${t.answers} answers). `
    + (t.highestFailing < t.lowestPassing ? `No failing answer reaches the reward of a passing one (${format.number(t.highestFailing)} against ${format.number(t.lowestPassing)}).` : `The best-paid failing answer has ${format.number(t.highestFailing)}, the worst-paid passing one ${format.number(t.lowestPassing)}: the reward can be had without passing.`));
  return [el("h2", {}, "Does the reward pay for the truth?"), ...known.map(sentence), el("div", { class: "charts" }, truthChart(runs))];
}

function about(index) {
  return index.runs.map((run) => el("div", {}, el("h2", {}, run.label), facts([
    ["started", run.environment.started_unix_seconds ? new Date(1000 * run.environment.started_unix_seconds).toISOString() : null],
    ["status", run.environment.status], ["times started", run.sessions], ["seed", run.environment.seed], ["processor", run.environment.processor], ["cores", run.environment.cores],
    ["python", run.environment.python], ["commit", run.environment.git ? run.environment.git.commit + (run.environment.git.changed ? " (with changes)" : "") : null],
    ["libraries", run.environment.libraries ? Object.entries(run.environment.libraries).map(([n, v]) => `${n} ${v}`).join(", ") : null],
  ]), el("h3", {}, "Recipe"), el("pre", { class: "box" }, JSON.stringify(run.recipe, null, 2))));
}

let show = () => {};

async function main() {
  const index = JSON.parse(await unpack("index"));
  const body = document.getElementById("main"), tabs = document.getElementById("tabs");
  document.getElementById("title").textContent = index.runs.map((run) => run.label).join(", ");
  const viewer = new Viewer(index);
  const course = courseCharts(index.runs), [metrics, more] = metricNames(index.runs);
  const parts = {
    overview: ["Overview", () => overview(index, viewer)],
    curves: ["Curves", () => [
      el("h2", {}, "Training, by step"), course.length ? el("div", { class: "charts" }, course) : el("p", { class: "quiet" }, "No training rollouts were recorded."),
      metrics.length ? [el("h2", {}, "Metrics"), el("div", { class: "charts" }, metricCharts(index.runs, metrics))] : null,
      more.length ? el("details", {}, el("summary", {}, `${more.length} more metrics, most of them shown above in another way`), el("div", { class: "charts" }, metricCharts(index.runs, more))) : null]],
    rollouts: [`Rollouts (${index.rollouts.count})`, () => [viewer.node]],
    tasks: [`Tasks (${index.matrix.rows.length})`, () => taskMatrix(index.matrix, viewer, new Set(index.matrix.columns.map((c) => c[0])).size > 1)],
    ...(index.classification.length ? { labels: ["Labels", () => classificationPart(index.classification)] } : {}),
    about: ["About", () => about(index)],
  };
  const made = {};
  let current = null;
  show = (name) => {
    if (current === name) return;
    current = name;
    made[name] = made[name] || parts[name][1]().flat(3).filter((node) => node !== null);
    body.className = name === "rollouts" ? "viewer" : "";
    body.replaceChildren(...made[name]);
    for (const button of tabs.children) button.setAttribute("aria-selected", String(button.dataset.part === name));
    if (name === "rollouts") viewer.paint();
  };
  const choose = (name) => { show(name); history.replaceState(null, "", "#" + name); };
  tabs.append(...Object.entries(parts).map(([name, [label]]) => el("button", { type: "button", role: "tab", "data-part": name, onclick: () => choose(name) }, label)));

  const follow = () => {
    const wanted = location.hash.slice(1);
    const place = viewer.data.byLink.get(wanted);
    if (place !== undefined) { show("rollouts"); viewer.open(place, false); } else show(wanted in parts ? wanted : "overview");
  };
  addEventListener("hashchange", follow);

  const setTheme = (dark) => { document.documentElement.dataset.theme = dark ? "dark" : "light"; redrawCharts(); };
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches);
  const toggleTheme = () => setTheme(!themeIsDark());
  document.getElementById("theme").addEventListener("click", toggleTheme);
  const keys = document.getElementById("keys");
  keys.append(el("h3", {}, "Keys"), el("dl", {}, KEYS.flatMap(([key, what]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)])), el("form", { method: "dialog" }, el("button", {}, "Close")));
  document.getElementById("help").addEventListener("click", () => keys.showModal());

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || keys.open) return;
    if (event.target.closest("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const names = Object.keys(parts);
    const actions = {
      j: () => { show("rollouts"); viewer.move(1); }, k: () => { show("rollouts"); viewer.move(-1); },
      l: () => viewer.moveInGroup(1), h: () => viewer.moveInGroup(-1),
      "/": () => { show("rollouts"); viewer.search.focus(); }, t: toggleTheme, "?": () => keys.showModal(),
      1: () => choose(names[0]), 2: () => choose(names[1]), 3: () => choose(names[2]), 4: () => choose(names[3]), 5: () => choose(names[4]),
      p: () => viewer.togglePin(), ArrowDown: () => viewer.move(1), ArrowUp: () => viewer.move(-1),
    };
    if (event.key.startsWith("Arrow") && (current !== "rollouts" || viewer.view.contains(event.target))) return;
    if (Object.hasOwn(actions, event.key)) { event.preventDefault(); actions[event.key](); }
  });

  follow();
  window.report = { index, viewer, readyMilliseconds: performance.now() };
  document.documentElement.dataset.ready = "yes";
}

main().catch((error) => {
  document.getElementById("main").replaceChildren(el("p", { class: "bad" }, "The report could not be opened: " + error));
  throw error;
});
