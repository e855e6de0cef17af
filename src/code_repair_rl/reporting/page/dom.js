"use strict";
// Elements are made from strings as text nodes only: what a model wrote never meets the HTML parser.

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined).map(
    (child) => (child instanceof Node ? child : document.createTextNode(visible(String(child))))));
  return node;
}

// Characters that reorder or hide what stands around them are shown by their number instead of being obeyed.
function visible(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
    (c) => (c === "\r" ? "␍" : `⟨U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`));
}

async function unpack(id) {
  const text = document.getElementById(id).textContent.trim();
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i += 1) bytes[i] = raw.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

const format = {
  number: (value, digits = 3) => (value === null || value === undefined ? "–" : Number(value).toFixed(digits)),
  percent: (value) => (value === null || value === undefined ? "–" : (100 * value).toFixed(1) + " %"),
  points: (value) => (value === null || value === undefined ? "–" : (value < 0 ? "−" : "+") + Math.abs(100 * value).toFixed(1)),
  signed: (value, digits = 2) => (value === null || value === undefined ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits)),
};

const OUTCOMES = ["passed", "failed", "unchanged", "edit-rejected", "syntax-error", "timeout", "out-of-memory", "crashed", "output-limit", "tampered", "untested", "no-verdict"];
const OUTCOME_COLOURS = ["#2a9d55", "#d1495b", "#8d99ae", "#e09f3e", "#9c6ade", "#3d8fb5", "#6d597a", "#b56576", "#577590", "#111111", "#b8a88a", "#c9ccd1"];
const outcomeClass = (outcome) => (outcome === "passed" ? "good" : outcome === "no-verdict" ? "warn" : "bad");

function themeIsDark() { return document.documentElement.dataset.theme === "dark"; }
function css(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
