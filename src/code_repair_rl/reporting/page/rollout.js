"use strict";
// One rollout in full.

function shadedAnswer(detail) {
  // Darker means less likely: the places where the model could well have said something else.
  const box = el("pre", { class: "box", id: "answer" });
  let at = 0;
  detail.lengths.forEach((length, i) => {
    const piece = detail.text.slice(at, at + length);
    at += length;
    if (!length) return;
    const logprob = detail.logprobs[i] / 100;
    const token = el("span", { class: "token", title: `p = ${Math.exp(logprob).toPrecision(2)} (log ${logprob.toFixed(2)})` }, piece);
    token.style.backgroundColor = `rgba(224, 123, 57, ${Math.min(0.75, -logprob / 4).toFixed(3)})`;
    box.append(token);
  });
  box.append(visible(detail.text.slice(at)));
  return box;
}

function logprobBars(logprobs) {
  return el("div", { class: "bars", role: "img", "aria-label": "Probability of each sampled token" },
    logprobs.map((value, i) => {
      const bar = el("span", { title: `token ${i + 1}: p = ${Math.exp(value / 100).toPrecision(2)}` });
      bar.style.height = Math.max(2, 100 * Math.exp(value / 100)) + "%";
      return bar;
    }));
}

function testList(tests) {
  if (!tests.length) return el("p", { class: "quiet" }, "No test ran.");
  const failing = tests.filter((test) => test[1] !== "passed");
  const passing = tests.filter((test) => test[1] === "passed");
  const line = ([name, status, visible, detail]) => el("div", { class: "test" },
    el("span", { class: status === "passed" ? "good" : "bad" }, status === "passed" ? "✓ " : status === "missing" ? "? " : "✗ "),
    el("code", {}, name), " ", el("span", { class: "quiet" }, visible ? "visible" : "hidden", status === "missing" ? ", did not run" : ""),
    detail ? el("pre", {}, detail) : null);
  return el("div", {}, failing.map(line),
    passing.length ? el("details", { open: failing.length === 0 && passing.length <= 6 }, el("summary", {}, `${passing.length} passed`), passing.map(line)) : null);
}

function facts(pairs) {
  return el("dl", {}, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function rolloutView(view, row, detail, chunk, siblings, open) {
  const weighed = Object.entries(detail.terms);
  const tree = chunk.trees[detail.tree];
  const edits = detail.edits ? Object.entries(detail.edits) : null;
  const children = [
    el("h2", {}, row.task, " ", el("span", { class: "badge " + outcomeClass(row.outcome) }, row.outcome)),
    facts([
      ["where", [row.run, row.source, row.source === "train" ? `step ${row.step}` : null, `group ${row.group}`, `sample ${row.sample}`].filter((x) => x !== null).join(" · ")],
      ["problem", row.problem], ["operator", row.operator], ["hint", row.hint],
      ["reward", row.reward === null ? null : format.number(row.reward)],
      ["terms", weighed.length ? weighed.map(([name, value]) => `${name} ${format.number(value)}`).join(", ") : null],
      ["advantage", row.advantage === null ? null : format.signed(row.advantage, 3)],
      ["edit", detail.error ? `refused: ${detail.error}` : detail.tolerance ? `applied (${detail.tolerance})` : null],
      ["ended by", detail.finish === "length" ? "the length limit" : "the model"],
      ["grading", `${format.number(detail.seconds, 2)} s, isolation ${detail.isolation}`],
    ]),
    siblings.length > 1 ? el("div", {}, el("h3", {}, `The group (${siblings.length})`), el("div", { class: "siblings" }, siblings.map((s) =>
      el("button", { type: "button", "aria-pressed": String(s.place === row.place), class: outcomeClass(s.outcome), onclick: () => open(s.place) },
        `${s.sample} ${s.outcome}`, s.advantage === null ? "" : ` ${format.signed(s.advantage)}`)))) : null,
    el("h3", {}, "Edit"),
    edits && edits.length ? edits.map(([path, operations]) => sideBySide(path, tree[path] || "", operations))
      : el("p", { class: "quiet" }, edits ? "Nothing changed." : "No edit that applies could be read from the answer."),
    el("h3", {}, "Tests"), testList(detail.tests),
    detail.evidence.length ? el("div", {}, el("h3", {}, "Evidence"), el("pre", { class: "box" }, detail.evidence.join("\n"))) : null,
    el("h3", {}, "Answer", el("span", { class: "quiet" }, `  ${row.tokens} tokens; darker means less likely`)),
    detail.lengths ? shadedAnswer(detail) : el("div", {}, logprobBars(detail.logprobs), el("pre", { class: "box", id: "answer" }, detail.text)),
    el("details", {}, el("summary", {}, "Prompt"), el("pre", { class: "box" }, chunk.prompts[detail.prompt])),
    Object.keys(tree).length ? el("details", {}, el("summary", {}, "Files before"), Object.entries(tree).map(([path, text]) => el("div", {}, el("h3", {}, path), codeBox(text)))) : null,
  ];
  view.replaceChildren(...children.flat().filter((child) => child !== null));
  view.scrollTop = 0;
}
