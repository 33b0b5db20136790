// "Run this page here": the code cells of a chapter become editors, and run in order in the worker of "Any value". This
// module and all that it loads come when a reader asks for it.
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { pythonLanguage } from "@codemirror/lang-python";
import { HighlightStyle, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { EditorState } from "@codemirror/state";
import { EditorView, keymap } from "@codemirror/view";
import { tags } from "@lezer/highlight";

import { render } from "../../../lib/expertbank/book/explorers/explorer.js";
import { fileOf } from "../../../lib/expertbank/book/explorers/from_disk.js";
import { connect, dialOn } from "../../../lib/expertbank/book/explorers/live.js";
import drawing from "../../../lib/expertbank/book/explorers/explorer.css";
import style from "./cells.css";

// the classes of Pygments, whose colours the page has in both themes
const COLOURS = [
  [tags.keyword, "k"],
  [tags.operatorKeyword, "ow"],
  [tags.string, "s2"],
  [tags.number, "mi"],
  [tags.comment, "c1"],
  [tags.operator, "o"],
  [tags.bool, "kc"],
  [tags.null, "kc"],
  [tags.function(tags.definition(tags.variableName)), "nf"],
  [tags.definition(tags.className), "nc"],
  [tags.meta, "nd"],
];
const highlighting = syntaxHighlighting(HighlightStyle.define(COLOURS.map(([tag, name]) => ({ tag, class: name }))));
const HELP = "Shift+Enter runs the cell, Escape and then Tab leaves it.";
const KEPT = "This picture is the book's: it is one that the page does not draw anew.";
const DRAWN = "Drawn by this page from your run, without the notes of the book's picture. The caption is the book's.";
const GONE = "Stopped. What the cells had computed is gone; the next run begins anew.";

const made = (name, text = "", more = {}) =>
  Object.assign(document.createElement(name), { textContent: text, ...more });
const mega = (bytes) => Math.round(bytes / 1e6);

// A picture of a scene, and dials around it where an explorer was shown.
function draw(box, label, { scene, alt, dials = {}, place }, session) {
  const known = { scene, alt: alt ?? "What the cell has drawn; its numbers stand in the table below it" };
  let heard = () => {};
  const start = Object.fromEntries(Object.entries(dials).map(([name, dial]) => [name, dial.start]));
  let values = start;
  const host = made("div", "", { className: "explorer" });
  const over = made("div", "", { className: "explorer-dials" });
  if (place !== undefined) host.append(over);
  box.append(host);
  const move = async (wanted) => {
    values = { ...values, ...wanted };
    Object.entries(moved).forEach(([name, put]) => put(values[name]));
    known.scene = await session().ask({ ask: "scene", explorer: place, dials: values });
    heard();
  };
  const dialled = ([name, dial]) => [name, dialOn(over, dial, (to) => to instanceof Error || move({ [name]: to }))];
  const moved = Object.fromEntries(Object.entries(dials).map(dialled));
  Object.entries(moved).forEach(([name, put]) => put(values[name]));
  const send = (wanted) => place !== undefined && move(wanted);
  const get = (name) => ({ ...known, start })[name];
  render({ model: { get, send, on: (_, act) => (heard = act), off: () => {} }, el: host });
  host.querySelector(".explorer-table").setAttribute("aria-label", `${label}: numbers of the picture`);
  if (place === undefined) host.querySelectorAll(".explorer-pin, .explorer-reset").forEach((part) => part.remove());
}

// Code that a reader may change, in place of what `old` shows.
function editor(parent, code, label, run) {
  const keys = [{ key: "Shift-Enter", run: () => (run(), true) }, indentWithTab, ...defaultKeymap, ...historyKeymap];
  const attributes = { "aria-label": `${label}: code. ${HELP}`, autocapitalize: "off", spellcheck: "false" };
  const extensions = [
    history(),
    keymap.of(keys),
    pythonLanguage,
    indentUnit.of("    "),
    highlighting,
    EditorView.lineWrapping,
    EditorView.contentAttributes.of(attributes),
  ];
  return new EditorView({ state: EditorState.create({ doc: code, extensions }), parent });
}

// One cell of the page: its editor, its button and what it answers.
class Cell {
  constructor(page, label, code) {
    Object.assign(this, { page, label, code, ran: false });
  }

  // put it where the page shows it: `input` is hidden, `output` as long as the cell has not run
  place(host, input, output) {
    const box = made("div", "", { className: "run-cell highlight" });
    Object.assign(this, { host, input, output, box });
    this.results = made("div", "", { className: "run-results" });
    this.view = editor(box, this.code, this.label, () => this.page.runTo(this));
    const line = made("div", "", { className: "run-line" });
    const run = made("button", "Run", { type: "button", onclick: () => this.page.runTo(this) });
    run.setAttribute("aria-label", `Run ${this.label}`);
    this.state = made("span");
    line.append(run, this.state);
    box.append(line);
    input ? input.before(box) : host.append(box);
    if (input) input.hidden = true;
    const figure = output?.querySelector(".figure-forms");
    this.old = figure ?? output;
    if (this.old) this.old.after(this.results);
    else host.append(this.results);
  }

  get source() {
    return this.view ? this.view.state.doc.toString() : this.code;
  }

  // where the answers of a cell go that the page does not show: below the one before it
  open(before) {
    if (this.view) {
      this.results.replaceChildren();
      return this.results;
    }
    this.folded?.remove();
    this.folded = made("details", "", { className: "run-folded" });
    this.folded.append(made("summary", `From ${this.label}, which the page leaves out`));
    Object.assign(this.folded, { hidden: true, open: true });
    before?.results.append(this.folded);
    return this.folded;
  }

  async run(session, before) {
    const box = this.open(before);
    let [kept, shows] = [false, false];
    this.say("running");
    const hear = (kind, text) => {
      box.hidden = false;
      if (kind !== "shown") return this.print(box, kind, text);
      const value = JSON.parse(text);
      if (value.kind === "kept") kept = true;
      else shows = true;
      this.show(box, value);
    };
    const begun = performance.now();
    const { error, missing, note, numbers } = await session().ask(this.question(), hear);
    if (error) {
      this.print(box, "err", error).setAttribute("role", "alert");
      Object.assign(box, { hidden: false, open: true });
    }
    if (note) box.append(made("p", note, { className: "run-note" }));
    if (note) box.hidden = false;
    // the book's own output stays where this run has none in its place
    if (this.old) this.old.hidden = !kept && !(missing.length && !shows) && (shows || Boolean(error));
    this.ran = !error;
    const seconds = ((performance.now() - begun) / 1000).toFixed(1);
    const words = missing.length ? `ran without ${missing.join(", ")}` : `ran in ${seconds} s`;
    this.say(error ? "failed" : words);
    this.page.write(numbers);
    return !error;
  }

  question() {
    return { ask: "run", code: this.source, label: this.label };
  }

  say(words) {
    if (this.state) this.state.textContent = words;
    (this.host ?? {}).ariaBusy = String(words === "running");
  }

  print(box, kind, text) {
    const last = box.lastElementChild;
    if (last?.matches(`pre.run-${kind}`)) {
      last.append(text);
      return last;
    }
    const said = made("pre", text, { className: `run-${kind}`, tabIndex: 0 });
    said.setAttribute("aria-label", `${this.label}: ${kind === "err" ? "errors and warnings" : "printed"}`);
    said.setAttribute("role", "region");
    box.append(said);
    return said;
  }

  show(box, value) {
    const part = made("div", "", { className: `run-${value.kind}` });
    box.append(part);
    if (value.kind === "html") part.innerHTML = value.html;
    else if (value.kind === "text") return part.replaceWith(this.print(box, "out", `${value.text}\n`));
    else if (value.kind === "kept") part.append(made("p", KEPT, { className: "run-note" }));
    else {
      if (value.kind === "sketch") part.append(made("p", DRAWN, { className: "run-note" }));
      draw(part, this.label, value, () => this.page.session);
    }
    const table = part.querySelector("table.book-table");
    const number = this.old?.querySelector(".caption-number");
    if (number) table?.caption?.prepend(number.cloneNode(true));
    if (table) Object.assign(part, { tabIndex: 0, role: "region", ariaLabel: table.caption?.textContent ?? "Table" });
    return part;
  }

  reset() {
    if (this.view) {
      this.view.dispatch({ changes: { from: 0, to: this.view.state.doc.length, insert: this.code } });
      this.results.replaceChildren();
    }
    if (this.old) this.old.hidden = false;
    this.ran = false;
    this.say("");
  }
}

// A chapter whose cells run.
class Page {
  constructor(button, { cells, order, numbers }) {
    this.base = new URL(button.dataset.live, document.baseURI).href;
    this.cells = cells.map((code, i) => new Cell(this, `cell ${i + 1}`, code));
    this.bar(button);
    this.numbers(numbers);
    const shown = [...document.querySelectorAll("article .cell")];
    shown.forEach((host, i) => {
      const parts = [".cell_input", ".cell_output"].map((name) => host.querySelector(name));
      const input = parts[0]?.querySelector("[class*=highlight]");
      if (input) this.cells[order[i]].place(input.parentElement, input, parts[1]);
    });
    this.tries();
  }

  bar(button) {
    const line = made("div", "", { className: "run-bar", role: "group", ariaLabel: "Run this page" });
    const action = (text, onclick) => made("button", text, { type: "button", onclick });
    this.stopping = action("Stop", () => this.stop(GONE));
    this.progress = made("progress", "", { hidden: true, ariaLabel: "Loading" });
    this.status = made("p", "", { role: "status" });
    const all = action("Run all", () => this.runTo(this.cells.at(-1), true));
    line.append(all, this.stopping, action("Reset", () => this.reset()), this.progress, this.status);
    button.after(line);
    button.remove();
    this.line = line;
    this.stopping.disabled = true;
    this.say(`${this.cells.length} cells. They take what you type; nothing leaves this machine.`);
    all.focus();
  }

  // numbers of the text by name, which a run writes anew
  numbers(names) {
    const places = [...document.querySelectorAll("article .pasted-text")];
    const placed = (name, i) => [name, places[i], places[i].textContent];
    this.places = names.length === places.length ? names.map(placed) : [];
  }

  write(numbers) {
    for (const [name, place, own] of this.places) {
      if (!(name in numbers)) continue;
      place.textContent = numbers[name];
      place.classList.toggle("run-changed", numbers[name] !== own);
    }
  }

  // an empty cell below each exercise, and the code of solutions
  tries() {
    this.extra = [];
    const add = (label, code, host, input) => {
      const cell = new Cell(this, label, code);
      cell.place(host, input, null);
      this.extra.push(cell);
    };
    document.querySelectorAll("article .exercise").forEach((exercise, i) => {
      const place = exercise.appendChild(made("div", "", { className: "run-try" }));
      add(`your answer to exercise ${i + 1}`, "", place, null);
    });
    document.querySelectorAll("article .solution .highlight-python").forEach((old, i) => {
      const input = old.firstElementChild;
      add(`code ${i + 1} of the solutions`, input.querySelector("pre").textContent.trimEnd(), old, input);
    });
  }

  say(words) {
    if (this.status.textContent !== words) this.status.textContent = words;
  }

  report({ what, arrived, total }) {
    if (!total) return this.say("Starting Python");
    Object.assign(this.progress, { hidden: false, max: total, value: arrived });
    const tenths = Math.floor((10 * arrived) / total) / 10;
    this.say(`Loading ${what}: ${mega(tenths * total)} of ${mega(total)} MB`);
  }

  // Run a cell after those before it that have not run; `anew` runs all.
  async runTo(goal, anew = false) {
    if (this.busy) return this.say("A cell is running: wait for it, or press Stop.");
    this.busy = true;
    this.stopping.disabled = false;
    this.line.dataset.state = "busy";
    const own = (this.session ??= connect(this.base, (said) => this.report(said), (words) => this.stop(words), true));
    const last = this.cells.includes(goal) ? this.cells.indexOf(goal) : this.cells.length - 1;
    const due = this.cells.slice(0, last + 1).filter((cell) => anew || cell === goal || !cell.ran);
    if (!this.cells.includes(goal)) due.push(goal);
    const begun = performance.now();
    let [before, whole] = [null, true];
    try {
      for (const cell of due) {
        const at = this.cells.indexOf(cell);
        before = this.cells.slice(0, Math.max(at, 0)).findLast((one) => one.view) ?? null;
        if (!this.progress.hidden || own.ready) this.say(`Running ${cell.label}`);
        whole = await cell.run(() => own, before);
        if (this.session !== own) return;
        own.ready = true;
        if (!whole) {
          this.say(`${cell.label} failed; its error stands below it.`);
          cell.host?.scrollIntoView?.({ block: "nearest" });
          break;
        }
      }
      const seconds = ((performance.now() - begun) / 1000).toFixed(1);
      if (whole) this.say(`Ran ${due.length} ${due.length === 1 ? "cell" : "cells"} in ${seconds} s.`);
    } catch (error) {
      this.stop(error.message);
    } finally {
      if (this.session === own) this.rest(whole ? "ready" : "failed");
    }
  }

  rest(state) {
    this.busy = false;
    this.stopping.disabled = true;
    this.progress.hidden = true;
    this.line.dataset.state = state;
  }

  stop(words) {
    this.session?.end();
    this.session = null;
    for (const cell of [...this.cells, ...this.extra]) {
      cell.ran = false;
      if (cell.host?.ariaBusy === "true") cell.say("stopped");
    }
    this.rest("off");
    this.say(words);
  }

  reset() {
    this.stop("The page is as the book has it.");
    [...this.cells, ...this.extra].forEach((cell) => cell.reset());
    for (const [, place, own] of this.places) {
      place.textContent = own;
      place.classList.remove("run-changed");
    }
  }
}

export async function begin(button) {
  button.disabled = true;
  const [, folder, name] = /^(.*\/)(.*)$/.exec(new URL(button.dataset.cells, document.baseURI).href);
  const content = await fileOf(folder, name);
  document.head.append(made("style", drawing + style));
  const page = new Page(button, JSON.parse(new TextDecoder().decode(content)));
  addEventListener("pagehide", () => page.session && page.stop(GONE));
}
