"use strict";
// Code as coloured lines, and two versions of a file side by side. Colours are those of Python, which is what is repaired.

const PYTHON = /(?<c>#[^\n]*)|(?<s>(?:[rbfuRBFU]{0,2})(?:"""[\s\S]*?(?:"""|$)|'''[\s\S]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?))|(?<n>\b\d[\w.]*)|(?<k>\b(?:and|as|assert|async|await|break|class|continue|def|del|elif|else|except|finally|for|from|global|if|import|in|is|lambda|match|nonlocal|not|or|pass|raise|return|try|while|with|yield|None|True|False)\b)|(?<f>\b[A-Za-z_]\w*(?=\())/g;

function colouredLines(text) {
  // One list of [class, text] pieces per line.
  const lines = [[]];
  const put = (kind, piece) => piece.split("\n").forEach((part, i) => {
    if (i) lines.push([]);
    if (part) lines[lines.length - 1].push([kind, part]);
  });
  let at = 0;
  for (const match of text.matchAll(PYTHON)) {
    if (match.index > at) put("", text.slice(at, match.index));
    put(Object.keys(match.groups).find((name) => match.groups[name] !== undefined), match[0]);
    at = match.index + match[0].length;
  }
  if (at < text.length) put("", text.slice(at));
  return lines;
}

function codeLine(number, pieces, kind, changed) {
  const body = el("span", {});
  let at = 0;
  for (const [name, text] of pieces) {
    // The changed stretch of a line is marked on top of its colours.
    const cuts = changed ? [[0, changed[0] - at], [changed[0] - at, changed[1] - at], [changed[1] - at, text.length]] : [[0, text.length]];
    cuts.forEach(([from, to], i) => {
      const part = text.slice(Math.max(0, from), Math.max(0, Math.min(text.length, to)));
      if (!part) return;
      const node = el("span", { class: name || null }, part);
      body.append(changed && i === 1 ? el("mark", { class: kind }, node) : node);
    });
    at += text.length;
  }
  return el("div", { class: "codeline " + kind }, el("span", { class: "at" }, number ?? ""), body);
}

function changedStretch(one, other) {
  let start = 0;
  while (start < one.length && start < other.length && one[start] === other[start]) start += 1;
  let end = 0;
  while (end < one.length - start && end < other.length - start && one[one.length - 1 - end] === other[other.length - 1 - end]) end += 1;
  return [[start, one.length - end], [start, other.length - end]];
}

function applied(before, operations) {
  const lines = before.split("\n");
  const after = [];
  let at = 0;
  for (const [start, end, replacement] of operations) {
    after.push(...lines.slice(at, start), ...replacement);
    at = end;
  }
  return after.concat(lines.slice(at));
}

const CONTEXT = 4;

function sideBySide(path, before, operations) {
  const after = applied(before, operations);
  const left = colouredLines(before), right = colouredLines(after.join("\n"));
  const beforeLines = before.split("\n");
  // What both end with is a newline, not an empty line.
  const ended = before.endsWith("\n") && after.length > 1 && after[after.length - 1] === "" ? 1 : 0;
  const one = el("div", { class: "side code" }, el("div", { class: "caption" }, path + " – before"));
  const other = el("div", { class: "side code" }, el("div", { class: "caption" }, path + " – after"));
  let i = 0, j = 0;
  const same = (count, head, tail) => {
    // Long unchanged stretches are folded, those at the ends of the file on their outer side.
    const keepStart = head ? 0 : CONTEXT, keepEnd = tail ? 0 : CONTEXT;
    const folds = count > keepStart + keepEnd + 6;
    for (let n = 0; n < count; n += 1) {
      if (folds && n === keepStart) {
        const hidden = count - keepStart - keepEnd;
        for (const side of [one, other]) side.append(codeLine("", [["", `… ${hidden} unchanged lines`]], "fold"));
        n += hidden - 1; i += hidden; j += hidden;
        continue;
      }
      one.append(codeLine(i + 1, left[i], ""));
      other.append(codeLine(j + 1, right[j], ""));
      i += 1; j += 1;
    }
  };
  operations.forEach(([start, end, replacement], index) => {
    same(start - i, index === 0, false);
    const height = Math.max(end - start, replacement.length);
    for (let n = 0; n < height; n += 1) {
      const hasLeft = n < end - start, hasRight = n < replacement.length;
      const [cutLeft, cutRight] = hasLeft && hasRight ? changedStretch(beforeLines[i], replacement[n]) : [null, null];
      one.append(hasLeft ? codeLine(i + 1, left[i], "del", cutLeft) : codeLine("", [], "gap"));
      other.append(hasRight ? codeLine(j + 1, right[j], "add", cutRight) : codeLine("", [], "gap"));
      if (hasLeft) i += 1;
      if (hasRight) j += 1;
    }
  });
  same(Math.max(0, left.length - ended - i), operations.length === 0, true);
  return el("div", { class: "diff" }, one, other);
}

function codeBox(text) {
  return el("pre", { class: "box" }, colouredLines(text).map((pieces, i) => codeLine(i + 1, pieces, "")));
}
