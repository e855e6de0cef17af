"use strict";
// One rollout in full.

function shadedAnswer(detail, part = "answer") {
  // Darker means less likely: the places where the model could well have said something else.
  const box = el("pre", { class: "box", "data-part": part });
  let at = 0;
  detail.lengths.forEach((length, i) => {
    const piece = detail.text.slice(at, at + length);
    at += length;
    if (!length) return;
    if (detail.logprobs[i] === null) { box.append(visible(piece)); return; }
    const logprob = detail.logprobs[i] / 100;
    const token = el("span", { class: "token", title: `p = ${Math.exp(logprob).toPrecision(2)} (log ${logprob.toFixed(2)})` }, piece);
    token.style.backgroundColor = `rgba(224, 123, 57, ${Math.min(0.75, -logprob / 4).toFixed(3)})`;
    box.append(token);
  });
  box.append(visible(detail.text.slice(at)));
  return box;
}

function logprobBars(logprobs) {
  if (!logprobs.some((value) => value !== null)) return el("p", { class: "quiet" }, "The endpoint told no probabilities.");
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

// Turns of a conversation: what the model said is open, what tools were asked and what they answered is folded.
function turnList(turns) {
  const titles = { assistant: "model", tool: "tool's answer", user: "environment" };
  const call = ([name, given]) => el("details", { class: "call" }, el("summary", {}, "calls ", el("code", {}, name), el("span", { class: "quiet" }, " " + oneLine(given))), el("pre", { class: "box" }, pretty(given)));
  return el("div", { class: "turns" }, turns.map((turn, i) => {
    const { role, text, calls, tokens } = turn;
    const title = [el("strong", {}, `${i + 1} ${titles[role] || role}`), el("span", { class: "quiet" }, ` ${tokens} tokens`)];
    const body = !text ? null : turn.lengths ? shadedAnswer(turn, "turn") : el("pre", { class: "box" }, text);
    if (role === "assistant") return el("div", { class: "turn " + role }, el("div", {}, title), body, calls.map(call));
    return el("details", { class: "turn " + role }, el("summary", {}, title, el("span", { class: "quiet" }, "  " + oneLine(text))), body);
  }));
}

const oneLine = (text) => { const line = text.replace(/\s+/g, " ").trim(); return line.length > 80 ? line.slice(0, 80) + " …" : line; };

function pretty(json) {
  try { return JSON.stringify(JSON.parse(json), null, 2); } catch { return json; }
}

const CARD_LINES = 14;

// One answer of a group as a card: its reward and what it changes, to be read beside the others.
function siblingCard(row, detail, chunk, current, open) {
  const lines = [];
  for (const [path, operations] of Object.entries(detail.edits || {})) {
    const before = (chunk.trees[detail.tree][path] || "").split("\n");
    for (const [start, end, replacement] of operations) {
      for (let n = start; n < end; n += 1) lines.push(["del", "− " + before[n]]);
      for (const line of replacement) lines.push(["add", "+ " + line]);
    }
  }
  if (!lines.length) lines.push(...(detail.edits ? [["", "nothing changed"]] : detail.text.split("\n").map((line) => ["", line])));
  const more = lines.length - CARD_LINES;
  const terms = Object.entries(detail.terms).map(([name, value]) => `${name} ${format.number(value, 2)}`).join(", ");
  return el("div", { class: "sibling card" + (current ? " current" : ""), "data-place": row.place },
    el("button", { type: "button", "aria-pressed": String(current), class: outcomeClass(row.outcome), onclick: () => open(row.place) }, `${row.sample} ${row.outcome}`),
    el("div", { class: "quiet" }, row.reward === null ? (row.source === "train" ? "no reward" : "") : `reward ${format.number(row.reward, 2)}`, row.advantage === null ? "" : `, advantage ${format.signed(row.advantage)}`, terms ? el("div", {}, terms) : null),
    el("div", { class: "code" }, lines.slice(0, CARD_LINES).map(([kind, line]) => el("div", { class: "codeline " + kind }, el("span", {}, line))), more > 0 ? el("div", { class: "quiet" }, `… ${more} more lines`) : null));
}

function facts(pairs) {
  return el("dl", {}, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

// `around` is what the viewer knows of the rest: siblings, where else the task was asked, how to open and to pin.
function rolloutView(view, row, detail, chunk, around) {
  const { siblings, elsewhere, open, pin, pinned } = around;
  const weighed = Object.entries(detail.terms);
  const tree = chunk.trees[detail.tree];
  const edits = detail.edits ? Object.entries(detail.edits) : null;
  const children = [
    el("h2", {}, row.task, " ", el("span", { class: "badge " + outcomeClass(row.outcome) }, row.outcome), " ",
      el("button", { type: "button", class: "pin", title: "Hold this one to compare others with it (p)", onclick: pin }, pinned ? "unpin" : "pin")),
    facts([
      ["where", [row.run, row.source, row.source === "train" ? `step ${row.step}` : null, `group ${row.group}`, `sample ${row.sample}`].filter((x) => x !== null).join(" · ")],
      ["problem", row.problem], ["operator", row.operator], ["hint", row.hint],
      ["reward", row.reward === null ? null : format.number(row.reward)],
      ["terms", weighed.length ? weighed.map(([name, value]) => `${name} ${format.number(value)}`).join(", ") : null],
      ["advantage", row.advantage === null ? null : format.signed(row.advantage, 3)],
      ["edit", detail.error ? `refused: ${detail.error}` : detail.tolerance ? `applied (${detail.tolerance})` : null],
      ["attempt", detail.ending], ["ended by", detail.finish === "length" ? "the length limit" : "the model"],
      ["grading", `${format.number(detail.seconds, 2)} s, isolation ${detail.isolation}`],
    ]),
    siblings.length > 1 ? el("div", {}, el("h3", {}, `The group, beside each other (${siblings.length})`), el("div", { class: "siblings" })) : null,
    elsewhere.length ? el("div", { class: "elsewhere" }, el("span", { class: "quiet" }, "The same task in: "), elsewhere.map(({ label, passed, graded, place }) =>
      el("button", { type: "button", onclick: () => open(place) }, `${label} ${passed}/${graded}`))) : null,
    el("h3", {}, "Edit"),
    edits && edits.length ? edits.map(([path, operations]) => sideBySide(path, tree[path] || "", operations))
      : el("p", { class: "quiet" }, edits ? "Nothing changed." : "No edit that applies could be read from the answer."),
    el("h3", {}, "Tests"), testList(detail.tests),
    detail.evidence.length ? el("div", {}, el("h3", {}, "Evidence"), el("pre", { class: "box" }, detail.evidence.join("\n"))) : null,
    detail.turns ? [el("h3", {}, `Conversation (${detail.turns.length} turns)`), turnList(detail.turns)] : null,
    el("h3", {}, "Answer", el("span", { class: "quiet" }, detail.turns ? "  what was graded" : `  ${row.tokens} tokens; darker means less likely`)),
    detail.lengths ? shadedAnswer(detail) : el("div", {}, detail.turns ? null : logprobBars(detail.logprobs), el("pre", { class: "box", "data-part": "answer" }, detail.text)),
    el("details", {}, el("summary", {}, "Prompt"), el("pre", { class: "box" }, chunk.prompts[detail.prompt])),
    Object.keys(tree).length ? el("details", {}, el("summary", {}, "Files before"), Object.entries(tree).map(([path, text]) => el("div", {}, el("h3", {}, path), codeBox(text)))) : null,
  ];
  view.replaceChildren(...children.flat(2).filter((child) => child !== null));
  view.scrollTop = 0;
}
