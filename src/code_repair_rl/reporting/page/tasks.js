"use strict";
// Every task in every evaluation, side by side: who passes what. A cell opens the answers.

const MATRIX_ROWS = 1000;

function taskMatrix(matrix, viewer, several) {
  if (!matrix.columns.length) return [el("p", { class: "quiet" }, "No evaluation was recorded.")];
  const last = matrix.columns.length - 1;
  const rate = (one) => (one && one[1] ? one[0] / one[1] : null);
  const change = (row) => { const [a, b] = [rate(row[3][0]), rate(row[3][last])]; return a === null || b === null ? null : b - a; };
  const wanted = { text: "", by: "", down: true };
  const short = withoutCommonStart(matrix.rows.map((row) => row[0]));
  const rows = matrix.rows.map((row, i) => ({ row, name: short[i], change: change(row), rates: row[3].map(rate) }));
  const body = el("tbody", {}), status = el("span", { class: "quiet", role: "status" });
  const value = (one) => (wanted.by === "task" ? one.name : wanted.by === "change" ? one.change : one.rates[Number(wanted.by)]);

  const fill = () => {
    const words = wanted.text.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = rows.filter(({ row }) => words.every((word) => [row[0], row[1], row[2]].some((text) => text.toLowerCase().includes(word))));
    if (wanted.by !== "") shown = [...shown].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === y) return 0;
      if (x === null) return 1;
      if (y === null) return -1;
      return (wanted.down ? -1 : 1) * (x < y ? -1 : 1);
    });
    status.textContent = `${shown.length} of ${rows.length} tasks` + (shown.length > MATRIX_ROWS ? `, the first ${MATRIX_ROWS} shown` : "");
    body.replaceChildren(...shown.slice(0, MATRIX_ROWS).map(({ row, name, change: moved, rates }) => el("tr", {},
      el("td", { title: row[0] }, name), el("td", { class: "quiet" }, row[2]),
      row[3].map((one, n) => cellOf(row, one, rates[n], n)),
      last > 0 ? el("td", { class: "number " + (moved > 0 ? "good" : moved < 0 ? "bad" : "quiet") }, moved === null ? "–" : moved === 0 ? "0" : format.points(moved)) : null)));
  };
  const cellOf = (row, one, passed, n) => {
    const place = one ? viewer.data.find(...matrix.columns[n], row[0]) : undefined;
    const node = el("td", { class: "number matrix" }, place === undefined ? (one ? `${one[0]}/${one[1]}` : "–")
      : el("button", { type: "button", title: "Open its answers", onclick: () => { show("rollouts"); viewer.open(place); } }, `${one[0]}/${one[1]}`));
    if (passed !== null) node.style.background = `color-mix(in srgb, var(--add-strong) ${Math.round(100 * passed)}%, transparent)`;
    return node;
  };
  const heads = [["task", "task"], null, ...matrix.columns.map(([run, name], n) => [several ? `${run}: ${name}` : name, String(n)]), last > 0 ? ["change, points", "change"] : null];
  const head = el("tr", {}, heads.map((one, i) => (i === 1 ? el("th", { scope: "col" }, "operator") : one === null ? null : el("th", { scope: "col" },
    el("button", { type: "button", "data-by": one[1], onclick: () => { wanted.down = wanted.by === one[1] ? !wanted.down : one[1] !== "task"; wanted.by = one[1]; fill(); } }, one[0])))));
  const search = el("input", { type: "search", "aria-label": "Search tasks", placeholder: "task, problem, operator …", oninput: () => { wanted.text = search.value; fill(); } });
  fill();
  return [el("h2", {}, "Task by task"), el("p", {}, search, " ", status), el("p", { class: "quiet" }, "Passed of graded answers. A column's head sorts; a cell opens the answers, and p holds one beside the others."),
    el("div", { class: "scroll" }, el("table", { class: "figures", id: "matrix" }, el("thead", {}, head), body))];
}
