"use strict";
// The list of rollouts: filtered and sorted by columns, only the rows in sight in the page.

const ROW_HEIGHT = 26;
const SORTABLE = [["where", "step"], ["src", "source"], ["task", "task"], ["outcome", "outcome"], ["reward", "reward"], ["adv", "advantage"], ["tokens", "tokens"], ["logp", "logprob"]];

function withoutCommonStart(names) {
  // "HumanEval/12-x" in a list of nothing else says no more than "12-x".
  const cut = names.length > 1 ? names[0].indexOf("/") + 1 : 0;
  return names.every((name) => name.slice(0, cut) === names[0].slice(0, cut)) ? names.map((name) => name.slice(cut)) : names;
}

class Rollouts {
  constructor(index) {
    this.runs = index.runs.map((run) => run.label);
    this.columns = index.rollouts.columns;
    this.names = index.rollouts.names;
    this.count = index.rollouts.count;
    this.chunkRows = index.rollouts.chunkRows;
    this.chunks = new Map();
    this.shortTasks = withoutCommonStart(this.names.task);
    this.byLink = new Map();
    this.groups = new Map();
    for (let place = 0; place < this.count; place += 1) {
      this.byLink.set(this.link(place), place);
      const group = this.groupKey(place);
      if (!this.groups.has(group)) this.groups.set(group, []);
      this.groups.get(group).push(place);
    }
  }

  row(place) {
    const c = this.columns, n = this.names;
    return {
      place, run: this.runs[c.run[place]], source: n.source[c.source[place]], step: c.step[place], group: c.group[place], sample: c.sample[place],
      task: n.task[c.task[place]], problem: n.problem[c.problem[place]], operator: n.operator[c.operator[place]], hint: n.hint[c.hint[place]],
      shortTask: this.shortTasks[c.task[place]], outcome: n.outcome[c.outcome[place]], reward: c.reward[place], advantage: c.advantage[place], tokens: c.tokens[place], logprob: c.logprob[place],
    };
  }

  groupKey(place) { const c = this.columns; return `${c.run[place]}/${c.source[place]}/${c.step[place]}/${c.group[place]}`; }
  link(place) { const c = this.columns; return ["r", c.run[place] + 1, encodeURIComponent(this.names.source[c.source[place]]), c.step[place], c.group[place], c.sample[place]].join("/"); }
  // Where else the same task was asked: one entry for each group, the latest training steps last.
  elsewhere(place) {
    const c = this.columns, n = this.names;
    if (!this.byTask) {
      this.byTask = new Map();
      for (const [key, places] of this.groups) {
        const task = c.task[places[0]];
        if (!this.byTask.has(task)) this.byTask.set(task, []);
        this.byTask.get(task).push(key);
      }
    }
    const own = this.groupKey(place);
    return this.byTask.get(c.task[place]).filter((key) => key !== own).slice(-16).map((key) => {
      const places = this.groups.get(key), at = places[0], source = n.source[c.source[at]];
      const outcomes = places.map((p) => n.outcome[c.outcome[p]]);
      const label = [this.runs.length > 1 ? this.runs[c.run[at]] : null, source === "train" ? `step ${c.step[at]}` : source].filter(Boolean).join(" · ");
      return { label, place: at, passed: outcomes.filter((o) => o === "passed").length, graded: outcomes.filter((o) => o !== "no-verdict").length };
    });
  }

  // The first answer to a task in an evaluation; undefined where its answers were not kept.
  find(run, source, task) {
    const c = this.columns, n = this.names;
    if (!this.firsts) {
      this.firsts = new Map();
      for (let place = this.count - 1; place >= 0; place -= 1) this.firsts.set(JSON.stringify([this.runs[c.run[place]], n.source[c.source[place]], n.task[c.task[place]]]), place);
    }
    return this.firsts.get(JSON.stringify([run, source, task]));
  }

  siblings(place) { return this.groups.get(this.groupKey(place)).map((p) => this.row(p)); }

  async detail(place) {
    const number = Math.floor(place / this.chunkRows);
    if (!this.chunks.has(number)) this.chunks.set(number, unpack("chunk-" + number).then(JSON.parse));
    const chunk = await this.chunks.get(number);
    return { chunk, detail: chunk.rows[place % this.chunkRows] };
  }

  select(wanted) {
    const c = this.columns, found = [];
    const words = wanted.text.toLowerCase().split(/\s+/).filter(Boolean);
    const labels = ["task", "problem", "operator", "hint"].map((name) => [c[name], this.names[name].map((value) => words.map((word) => value.toLowerCase().includes(word)))]);
    for (let place = 0; place < this.count; place += 1) {
      if (wanted.run !== "" && c.run[place] !== Number(wanted.run)) continue;
      if (wanted.source !== "" && c.source[place] !== Number(wanted.source)) continue;
      if (wanted.outcome !== "" && c.outcome[place] !== Number(wanted.outcome)) continue;
      if (wanted.step !== "" && c.step[place] !== Number(wanted.step)) continue;
      if (words.length && !words.every((_, w) => labels.some(([column, hits]) => hits[column[place]][w]))) continue;
      found.push(place);
    }
    return this.sort(found, wanted.sort, wanted.down);
  }

  sort(places, by, down) {
    if (!by) return places;
    const column = this.columns[by], names = this.names[by];
    const value = names ? (() => { const rank = [...names.keys()].sort((a, b) => (names[a] < names[b] ? -1 : 1)); const of = []; rank.forEach((n, i) => { of[n] = i; }); return (p) => of[column[p]]; })() : (p) => column[p];
    const sign = down ? -1 : 1;
    // What has no value stands last either way; equals keep their order.
    return places.sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === y) return a - b;
      if (x === null) return 1;
      if (y === null) return -1;
      return sign * (x - y);
    });
  }
}

class Viewer {
  constructor(index) {
    this.data = new Rollouts(index);
    this.wanted = { text: "", run: "", source: "", outcome: "", step: "", sort: "", down: false };
    this.selected = null;
    this.shown = [];
    this.build();
    this.refresh();
  }

  choice(name, label, values) {
    return el("select", { "aria-label": label, id: "filter-" + name, onchange: (event) => { this.wanted[name] = event.target.value; this.refresh(); } },
      el("option", { value: "" }, label), values.map(([value, text]) => el("option", { value }, text)));
  }

  build() {
    const { data } = this;
    this.search = el("input", { type: "search", id: "filter-text", placeholder: "task, problem, operator …  ( / )", "aria-label": "Search", oninput: () => { this.wanted.text = this.search.value; this.refresh(); } });
    this.status = el("span", { class: "quiet", id: "status", role: "status" });
    const steps = [...new Set(data.columns.step)].sort((a, b) => a - b);
    this.filters = el("div", { id: "filters" }, this.search,
      data.runs.length > 1 ? this.choice("run", "all runs", data.runs.map((run, i) => [i, run])) : null,
      this.choice("source", "all sources", data.names.source.map((s, i) => [i, s])),
      this.choice("outcome", "all outcomes", data.names.outcome.map((s, i) => [i, s])),
      this.choice("step", "all steps", steps.map((s) => [s, `step ${s}`])), this.status);
    this.head = el("div", { id: "head" }, SORTABLE.map(([label, by]) => el("button", { type: "button", "data-by": by, title: "Sort by " + by, onclick: () => this.sortBy(by) }, label)));
    this.space = el("div", {});
    this.rows = el("div", { id: "rows", role: "listbox", tabindex: "0", "aria-label": "Rollouts", onscroll: () => this.paint() }, this.space);
    this.view = el("div", { id: "detail", tabindex: "-1" }, el("p", { class: "quiet" }, data.count ? "Choose a rollout: click, or j and k." : "No rollouts were recorded."));
    this.held = el("div", { id: "pinned", hidden: true, "aria-label": "Pinned rollout" });
    this.node = el("div", { id: "viewer" }, el("div", { id: "list" }, this.filters, this.head, this.rows), this.held, this.view);
    new ResizeObserver(() => this.paint()).observe(this.rows);
  }

  sortBy(by) {
    if (this.wanted.sort === by) this.wanted.down = !this.wanted.down;
    else { this.wanted.sort = by; this.wanted.down = ["reward", "advantage", "tokens"].includes(by); }
    for (const button of this.head.children) {
      if (button.dataset.by === by) button.setAttribute("aria-sort", this.wanted.down ? "descending" : "ascending");
      else button.removeAttribute("aria-sort");
    }
    this.refresh();
  }

  setFilter(name, value) {
    this.wanted[name] = value;
    const input = this.filters.querySelector("#filter-" + name);
    if (input) input.value = value;
    this.refresh();
  }

  refresh() {
    const began = performance.now();
    this.shown = this.data.select(this.wanted);
    this.rows.scrollTop = 0;
    this.space.style.height = this.shown.length * ROW_HEIGHT + "px";
    this.paint();
    this.status.textContent = `${this.shown.length} of ${this.data.count}`;
    this.lastFilterMilliseconds = performance.now() - began;
  }

  paint() {
    const first = Math.max(0, Math.floor(this.rows.scrollTop / ROW_HEIGHT) - 5);
    const last = Math.min(this.shown.length, first + Math.ceil(this.rows.clientHeight / ROW_HEIGHT) + 10);
    const lines = [];
    for (let i = first; i < last; i += 1) {
      const row = this.data.row(this.shown[i]);
      const line = el("div", { class: "row", role: "option", "data-place": row.place, "aria-selected": String(row.place === this.selected), onclick: () => this.open(row.place) },
        el("span", {}, `${row.step}/${row.group}/${row.sample}`), el("span", { class: "quiet" }, row.source), el("span", { title: row.task }, row.shortTask),
        el("span", { class: outcomeClass(row.outcome) }, row.outcome), el("span", {}, row.reward === null ? "–" : format.number(row.reward, 2)),
        el("span", {}, row.advantage === null ? "–" : format.signed(row.advantage)), el("span", {}, row.tokens), el("span", {}, format.number(row.logprob, 2)));
      line.style.top = i * ROW_HEIGHT + "px";
      lines.push(line);
    }
    this.space.replaceChildren(...lines);
  }

  async open(place, remember = true) {
    this.selected = place;
    const at = this.shown.indexOf(place);
    if (at >= 0) {
      const top = at * ROW_HEIGHT, height = this.rows.clientHeight;
      if (top < this.rows.scrollTop) this.rows.scrollTop = top;
      else if (top + ROW_HEIGHT > this.rows.scrollTop + height) this.rows.scrollTop = top + ROW_HEIGHT - height;
    }
    this.paint();
    if (remember) history.replaceState(null, "", "#" + this.data.link(place));
    const { chunk, detail } = await this.data.detail(place);
    if (this.selected !== place) return;
    this.draw(this.view, place, chunk, detail);
    await this.fillSiblings(this.view, place);
    this.view.dataset.place = place;
  }

  draw(view, place, chunk, detail) {
    rolloutView(view, this.data.row(place), detail, chunk, {
      siblings: this.data.siblings(place), elsewhere: this.data.elsewhere(place), open: (p) => this.open(p),
      pin: () => this.pin(view === this.held ? null : place), pinned: view === this.held,
    });
  }

  async fillSiblings(view, place) {
    const strip = view.querySelector(".siblings");
    if (!strip) return;
    const rows = this.data.siblings(place);
    const details = await Promise.all(rows.map((row) => this.data.detail(row.place)));
    strip.replaceChildren(...rows.map((row, i) => siblingCard(row, details[i].detail, details[i].chunk, row.place === place, (p) => this.open(p))));
  }

  // Hold a rollout beside the one that is open: the list makes room for it, j and k go on.
  async pin(place) {
    this.node.classList.toggle("pinned", place !== null);
    this.held.hidden = place === null;
    if (place === null) { this.paint(); return; }
    const { chunk, detail } = await this.data.detail(place);
    this.draw(this.held, place, chunk, detail);
    await this.fillSiblings(this.held, place);
    this.held.dataset.place = place;
  }

  togglePin() { this.pin(this.held.hidden && this.selected !== null ? this.selected : null); }

  move(by) {
    if (!this.shown.length) return;
    const at = this.shown.indexOf(this.selected);
    const to = at < 0 ? (by > 0 ? 0 : this.shown.length - 1) : Math.min(this.shown.length - 1, Math.max(0, at + by));
    this.open(this.shown[to]);
  }

  moveInGroup(by) {
    if (this.selected === null) return;
    const group = this.data.groups.get(this.data.groupKey(this.selected));
    this.open(group[(group.indexOf(this.selected) + by + group.length) % group.length]);
  }
}
