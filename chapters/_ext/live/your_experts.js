// "Your own experts": what the library says of a table that a reader drops. It runs in the worker of "Any value", in
// this page, and the file goes nowhere else: after the library has come nothing is asked of any host.
import { spoken } from "../../../lib/expertbank/book/explorers/draw.js";
import { render } from "../../../lib/expertbank/book/explorers/explorer.js";
import { connect, dialOn } from "../../../lib/expertbank/book/explorers/live.js";
import { escape } from "../../../lib/expertbank/book/explorers/panel.js";

const BASE = document.currentScript.dataset.live;
const MOST_BYTES = 500e6;
const SOON = 400; // milliseconds that nobody is told of
const SVG = "http://www.w3.org/2000/svg";
const DRAWN_BY = ["fill", "stroke", "stroke-opacity", "fill-opacity", "font-size", "font-family"];

const mega = (bytes) => `${Math.round(bytes / 1e6)} MB`;
const part = (name, host = document) => host.querySelector(`[data-part="${name}"]`);
const on = (name, event, act) => part(name).addEventListener(event, act);
const file = (given) => {
  if (given.size <= MOST_BYTES) return given;
  throw new Error(`${given.name} holds ${mega(given.size)}; a page takes at most ${mega(MOST_BYTES)}: use the shell`);
};

// --- news of what is going on, beside what was asked ---

const everyone = [];

// A line of words for all, a bar, and a clock for who looks.
function newsOf(host) {
  const [bar, status, clock, cancel] = ["progress", "status", "clock", "cancel"].map((name) => part(name, host));
  let ticking = 0;
  const say = (text) => status.textContent !== text && (status.textContent = text);
  const stage = (name) => {
    host.dataset.stage = name;
    bar.hidden = cancel.hidden = name === "ready";
    clearInterval(ticking);
    clock.textContent = "";
  };
  cancel.addEventListener("click", () => end("Cancelled."));
  const news = {
    say,
    isBusy: () => host.dataset.stage === "busy",
    begin(words) {
      stage("busy");
      bar.removeAttribute("value");
      say(words);
      const from = Date.now();
      ticking = setInterval(() => (clock.textContent = `${Math.round((Date.now() - from) / 1000)} s`), 1000);
    },
    loading({ what, arrived, total }) {
      if (!total) return say("Starting Python");
      Object.assign(bar, { max: total, value: arrived });
      // a screen reader is told each tenth
      say(`Loading ${what}, once: ${mega(Math.floor((10 * arrived) / total) * (total / 10))} of ${mega(total)}`);
      if (arrived === total) bar.removeAttribute("value");
    },
    step(words) {
      const place = /^(.* price) (\d+) of (\d+)/.exec(words);
      if (!place) bar.removeAttribute("value");
      else Object.assign(bar, { max: Number(place[3]), value: Number(place[2]) });
      // the bar says where it is, the words what it is
      say(place ? `${place[1].replace(/ price$/, "")} ${place[3]} prices of the curve` : words);
    },
    done(text) {
      stage("ready");
      say(text);
    },
  };
  everyone.push(news);
  return news;
}

// --- questions to the library ---

let session = null; // the worker that answers
let table = null; // the question that opened the table: asked again where the worker was ended meanwhile
// questions are { method, args, file }, and `opens` a table or are `about` the open one
const waiting = new Set();

function end(text) {
  session?.worker.end();
  session?.stop();
  session = null;
  everyone.filter((news) => news.isBusy()).forEach((news) => news.done(text));
  waiting.clear();
}

function library() {
  if (session) return session;
  const report = (progress) => progress.ready || waiting.forEach((news) => news.loading(progress));
  const fail = (words) => end(`The library could not be started: ${words}. Try again.`);
  session = { worker: connect(BASE, report, fail), table: null };
  // what is asked of a worker that is ended has no answer
  session.over = new Promise((resolve) => (session.stop = resolve));
  return session;
}

async function send(own, { method, args = [], file }, news) {
  const content = await file?.arrayBuffer().catch(() => Promise.reject(new Error(`${file.name} cannot be read`)));
  const given = file && { name: file.name, content };
  const question = { ask: "own", method, args, file: given };
  return Promise.race([own.worker.ask(question, (kind, text) => news.step(text)), own.over]);
}

// Asks one thing, after the table where this worker has not seen it.
async function put(own, question, news) {
  if (question.about && own.table !== table) {
    own.table = table;
    await send(own, table, news);
  }
  return send(own, question, news);
}

// The answer to a question; null where it was refused or cancelled, after saying why.
async function ask(news, words, question) {
  const own = library();
  waiting.add(news);
  news.begin(words);
  try {
    const answer = await put(own, question, news);
    if (session !== own) return null;
    if (question.opens) own.table = table = question;
    news.done("");
    return answer;
  } catch (error) {
    if (session === own) news.done(error.message);
    return null;
  } finally {
    if (session === own) waiting.delete(news);
  }
}

// --- pictures ---

// An explorer whose every scene the library answers; it draws when the first has come.
async function explore(name, { alt, dials }, news) {
  const host = document.createElement("div");
  host.className = "explorer";
  host.innerHTML = '<div class="explorer-dials"></div><div></div>';
  part("pictures").append(host);
  const [box, picture] = host.children;
  const start = Object.fromEntries(Object.entries(dials).map(([key, dial]) => [key, dial.start]));
  let values = { ...start };
  let [scene, busy, again, heard] = [null, false, false, null];
  const draw = async () => {
    again = busy;
    if (busy) return;
    busy = true;
    do {
      again = false;
      const asked = { about: true, method: "scene", args: [name, JSON.stringify(values)] };
      // a large table takes seconds
      const slow = heard && setTimeout(() => waiting.size || news.begin("Computing"), SOON);
      const answer = session
        ? await put(session, asked, news).catch((error) => news.say(error.message))
        : await ask(news, "Reading the table again", asked);
      clearTimeout(slow);
      if (answer) scene = answer;
      if (answer && heard) {
        heard();
        if (!waiting.size) news.done("");
      }
    } while (again);
    busy = false;
  };
  const move = (wanted) => {
    values = { ...values, ...wanted };
    Object.entries(places).forEach(([key, place]) => place(values[key]));
    return draw();
  };
  const dial = (key, to) => (to instanceof Error ? news.say(to.message) : move({ [key]: to }));
  const placed = ([key, one]) => [key, dialOn(box, one, (to) => dial(key, to))];
  const places = Object.fromEntries(Object.entries(dials).map(placed));
  await move({});
  if (!scene) return;
  const get = (key) => ({ alt, scene, start })[key];
  render({ model: { get, send: move, on: (_, act) => (heard = act), off: () => {} }, el: picture });
}

const inSvg = (name, attributes, text = "") => {
  const made = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  made.textContent = text;
  return made;
};

// A drawing with the colours and letters that the page gives it.
function coloured(svg, at) {
  const copy = svg.cloneNode(true);
  const [from, to] = [svg, copy].map((one) => [one, ...one.querySelectorAll("*")]);
  from.forEach((node, i) => {
    const style = getComputedStyle(node);
    for (const name of DRAWN_BY) to[i].style.setProperty(name, style.getPropertyValue(name));
  });
  Object.entries({ overflow: "visible", ...at }).forEach(([key, value]) => copy.setAttribute(key, value));
  return copy;
}

// The picture of an explorer as one file: panels below each other with the names of their axes, then the legend.
function alone(host) {
  const ink = getComputedStyle(host).color;
  const whole = inSvg("svg", { xmlns: SVG, "font-family": "system-ui, sans-serif", "font-size": 12 });
  let [width, y] = [0, 8];
  const line = (text, at = {}) => {
    if (!text) return;
    whole.append(inSvg("text", { x: 12, y: y + 14, fill: ink, ...at }, text));
    y += 20;
  };
  for (const panel of host.querySelectorAll(".explorer-panels > div")) {
    const text = (name) => panel.querySelector(`.explorer-${name}`)?.textContent;
    const svg = panel.querySelector(".explorer-svg svg");
    const box = svg.getBoundingClientRect();
    width = Math.max(width, box.width + 24);
    line(text("title"), { "font-weight": 600 });
    line(text("y"));
    whole.append(coloured(svg, { x: 12, y, width: box.width, height: box.height }));
    y += box.height + 4;
    line(text("x"), { x: 12 + box.width, "text-anchor": "end" });
    y += 8;
  }
  for (const entry of host.querySelectorAll(".explorer-legend li")) {
    whole.append(coloured(entry.querySelector("svg"), { x: 12, y: y + 1 }));
    line(entry.lastChild.textContent, { x: 50 });
  }
  const size = { width, height: y + 8, viewBox: `0 0 ${width} ${y + 8}` };
  Object.entries(size).forEach((pair) => whole.setAttribute(...pair));
  whole.style.background = getComputedStyle(document.body).backgroundColor;
  return new XMLSerializer().serializeToString(whole);
}

// --- the table and what is said of it ---

const tableNews = newsOf(part("table"));

async function open(words, question) {
  const answer = await ask(tableNews, words, question);
  if (!answer) return;
  const { name, facts, explorers } = answer;
  part("name").textContent = name;
  part("facts").innerHTML = facts.map((fact) => `<li>${escape(fact)}</li>`).join("");
  for (const emptied of ["pictures", "bounds", "selection"]) part(emptied).replaceChildren();
  part("result").hidden = false;
  tableNews.say("Drawing");
  for (const [key, explorer] of Object.entries(explorers)) await explore(key, explorer, tableNews);
  tableNews.say(`${name}: ${facts[0]}`);
}

function take(given) {
  if (!given) return;
  try {
    open(`Reading ${given.name}`, { opens: true, method: "open_file", file: file(given) });
  } catch (error) {
    tableNews.say(error.message);
  }
}

function shownBounds(found) {
  const [low, high] = found.information_interval.map((nats) => nats.toFixed(4));
  const risks = `training risk ${spoken(found.train_risk, 4)}, risk on the table ${spoken(found.test_risk, 4)}`;
  const told = `I(S;W) = ${found.information_nats.toFixed(4)} nats, 95% [${low}, ${high}]; ${risks}.`;
  part("selection").textContent = [told, ...found.notes].join(" ");
  const drawn = `${found.datasets.toLocaleString("en")} datasets`;
  const at = `α = ${found.alpha} and m = ${found.sample_size}`;
  const caption = `The gap and its bounds from loose to tight, at ${at}, from ${drawn}`;
  const error = (value) => (value ? `± ${spoken(value, 1)}` : "");
  const row = ([name, value, its]) =>
    `<tr><th scope="row"><code>${escape(name)}</code></th><td class="number">${spoken(value, 4)}</td>
    <td class="number">${error(its)}</td></tr>`;
  const named = (name) => `<th scope="col" class="number">${name}</th>`;
  const head = `<tr><th scope="col">quantity</th>${named("value")}${named("error")}</tr>`;
  const body = found.rungs.map(row).join("");
  const inner = `<caption>${escape(caption)}</caption><thead>${head}</thead><tbody>${body}</tbody>`;
  const scrolled = 'class="pst-scrollable-table-container" tabindex="0" role="region" aria-label="Bounds"';
  part("bounds").innerHTML = `<div ${scrolled}><table class="table">${inner}</table></div>`;
}

function download(name, kind, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: kind }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const fetched = async (method, name, kind) => {
  const answer = await ask(tableNews, "Writing the file", { about: true, method });
  if (answer) download(name, kind, answer.text);
};

function acceptDrops(zone, act) {
  const mark = (is) => () => zone.toggleAttribute("data-over", is);
  zone.addEventListener("dragover", mark(true));
  for (const name of ["dragleave", "drop"]) zone.addEventListener(name, mark(false));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    act(event.dataTransfer.files[0]);
  });
}

const chosen = (act) => ({ target }) => {
  act(target.files[0]);
  // the same file may be chosen again
  target.value = "";
};

// a file that is let go beside the frames would be opened in place of the page
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
acceptDrops(part("table"), take);
on("file", "change", chosen(take));
on("paste", "click", () => take(new File([part("text").value], "pasted table.csv")));
on("example", "click", () => open("Opening the example", { opens: true, method: "open_example" }));
on("ask-bounds", "submit", async (event) => {
  event.preventDefault();
  const args = [part("alpha").valueAsNumber, part("size").valueAsNumber];
  const found = await ask(tableNews, "Computing every bound", { about: true, method: "bounds", args });
  if (!found) return;
  shownBounds(found);
  tableNews.say(`Every bound at α = ${found.alpha}, m = ${found.sample_size} is there.`);
});
on("json", "click", () => fetched("as_json", "your_experts.json", "application/json"));
on("csv", "click", () => fetched("as_csv", "curve.csv", "text/csv"));
["curve", "selection"].forEach((name, i) =>
  on(`${name}-svg`, "click", () => {
    const host = part("pictures").children[i];
    if (host) download(`${name}.svg`, "image/svg+xml", alone(host));
  }),
);

// --- a router's choices ---

const routerNews = newsOf(part("router"));
let report = null;

async function takeRoutes(given) {
  if (!given) return;
  try {
    const counts = ["n-experts", "n-chosen"].map((name) => part(name).valueAsNumber || null);
    const question = { method: "routes", args: counts, file: file(given) };
    const answer = await ask(routerNews, `Reading ${given.name}`, question);
    if (!answer) return;
    report = answer.numbers;
    part("report").textContent = answer.text;
    part("router-result").hidden = false;
    routerNews.say(`The report on ${given.name} is there.`);
  } catch (error) {
    routerNews.say(error.message);
  }
}

acceptDrops(part("router"), takeRoutes);
on("routes", "change", chosen(takeRoutes));
on("router-json", "click", () => download("router.json", "application/json", JSON.stringify(report, null, 1)));

// its memory is that of a second Python: not kept for a page that nobody sees
addEventListener("pagehide", () => session && end(""));
