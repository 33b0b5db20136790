// Explorers: dials, the picture of a scene, and what a reader can do with it. `mount` makes one of the packed scenes
// of a page, `render` one of a model of anywidget.
import { legendOf, pointsOf, spoken, swatch } from "./draw.js";
import { offer } from "./live.js";
import { escape, named, panelOn } from "./panel.js";
import { unpack } from "./unpack.js";

const WIDE = 640; // pixels, from which on panels stand side by side
const GAP = 28;
// where the library lies that a page may load: none in a site without it, and none beside a kernel
const LIVE = typeof document === "object" && document.currentScript?.dataset.live;
const SKELETON = `<div class="explorer-panels" role="group"></div><ul class="explorer-legend"></ul>
  <dl class="explorer-readings"></dl><div class="explorer-tools">
  <button type="button" class="explorer-pin" aria-pressed="false">Pin to compare</button>
  <button type="button" class="explorer-reset">Reset</button>
  <button type="button" class="explorer-live" aria-pressed="false" hidden>Any value</button>
  <details><summary>Numbers</summary>
  <div class="explorer-table" tabindex="0" role="region" aria-label="Numbers of the picture"></div></details></div>
  <p class="explorer-voice" role="status"></p>`;

// What to call instead of `act`, so that only the last of many calls counts, after a pause.
function later(pause, act) {
  let waiting = 0;
  return (...values) => {
    clearTimeout(waiting);
    waiting = setTimeout(act, pause, ...values);
  };
}

function words({ value, error, digits, unit }) {
  if (value === null) return "–";
  const printed = (number) => (digits < 0 ? spoken(number, -digits) : number.toFixed(digits).replace("-", "−"));
  return `${printed(value)}${error === null ? "" : ` ± ${printed(error)}`} ${unit}`.trim();
}

function tableOf({ x, y, series, marks, title }) {
  const points = [...marks, ...series.flatMap((one) => pointsOf(one).map((point) => ({ ...point, name: one.name })))];
  const head = ["what", x.label, y.label].map((label) => `<th scope="col">${escape(label || "name")}</th>`).join("");
  const label = (at) => escape(at.name || y.label || "value");
  const cells = (at) => `<th scope="row">${label(at)}</th><td>${named(x, at.x)}</td><td>${named(y, at.y)}</td>`;
  const rows = points.map((at) => `<tr>${cells(at)}</tr>`).join("");
  return `<table><caption>${escape(title || y.label)}</caption><tr>${head}</tr>${rows}</table>`;
}

// The picture below the dials; it returns a function that shows a scene.
function picture(host, page) {
  host.insertAdjacentHTML("beforeend", SKELETON);
  const names = ["panels", "legend", "readings", "pin", "reset", "table", "voice"];
  const part = (name) => host.querySelector(`.explorer-${name}`);
  const [panels, legend, readings, pin, reset, table, voice] = names.map(part);
  panels.setAttribute("aria-label", page.alt);
  let [scene, ghost, draws] = [null, null, []];

  const say = later(400, (text) => (voice.textContent = text));
  const draw = (width) => {
    const columns = width < WIDE ? 1 : Math.min(2, scene.panels.length);
    panels.style.cssText = `--columns: ${columns}`;
    const size = { width: Math.floor((width - GAP * (columns - 1)) / columns), height: width < WIDE ? 270 : 340 };
    scene.panels.forEach((panel, i) => draws[i](panel, { ...size, ghost: ghost?.panels[i] }));
  };
  const tabulate = () => {
    if (table.parentNode.open) table.innerHTML = scene.panels.map(tableOf).join("");
  };
  const show = (next, width = panels.clientWidth) => {
    if (draws.length !== next.panels.length) {
      panels.replaceChildren();
      draws = next.panels.map((panel) => panelOn(panels, panel, { say, onMove: (wanted) => page.move(wanted) }));
    }
    const lines = next.readings.map((reading) => [escape(reading.name), words(reading)]);
    if (scene) say(lines.map((line) => line.join(" ")).join("; "));
    scene = next;
    if (width) draw(width);
    readings.innerHTML = lines.map(([name, value]) => `<div><dt>${name}</dt><dd>${value}</dd></div>`).join("");
    const entries = legendOf(scene);
    if (ghost) entries.push({ name: `pinned: ${ghost.settings}`, look: 5, kind: "ghost" });
    const line = (entry) => `<li>${swatch(entry, host.ownerDocument).outerHTML}${escape(entry.name)}</li>`;
    legend.innerHTML = entries.map(line).join("");
    tabulate();
  };
  pin.addEventListener("click", () => {
    ghost = ghost ? null : { ...scene, settings: page.settings() };
    pin.setAttribute("aria-pressed", String(Boolean(ghost)));
    pin.textContent = ghost ? "Unpin" : "Pin to compare";
    show(scene);
  });
  reset.addEventListener("click", () => page.reset());
  table.parentNode.addEventListener("toggle", tabulate);
  const resize = () => panels.clientWidth && draw(panels.clientWidth);
  if (typeof ResizeObserver === "function") new ResizeObserver(resize).observe(panels);
  return show;
}

const valueOf = (dial, place) => `${dial.names[place] ?? spoken(dial.stops[place])} ${dial.unit}`.trim();

const dialOf = (dial) => `<label class="explorer-dial"><span>${escape(dial.label)}</span><output></output>
  <input type="range" min="0" max="${dial.stops.length - 1}" step="1"></label>`;

function nearestStop({ stops }, value) {
  const far = stops.map((stop) => Math.abs(stop - value));
  return far.indexOf(Math.min(...far));
}

// The dials and the picture of a page; `asked` are values that dials start from instead of their own. Where the dials
// stand is kept in the address. It returns the page: who comes to answer the dials takes the place of `move`, `reset`
// and `settings`.
export function build(host, { dials, name, alt, ...packed }, { width, asked = {} }) {
  const sceneAt = unpack(packed);
  host.innerHTML = `<div class="explorer-dials">${dials.map(dialOf).join("")}</div>`;
  const inputs = [...host.querySelectorAll("input")];
  const start = Object.fromEntries(dials.map((dial) => [dial.name, dial.stops[dial.start]]));
  let places = [];

  const keep = later(250, () => {
    const address = new URL(location.href);
    dials.forEach((dial, i) => {
      const key = `${name}.${dial.name}`;
      address.searchParams.delete(key);
      if (places[i] !== dial.start) address.searchParams.set(key, dial.stops[places[i]]);
    });
    if (address.href !== location.href) history.replaceState(history.state, "", address);
  });
  const go = (wanted) => {
    places = dials.map((dial, i) => (dial.name in wanted ? nearestStop(dial, wanted[dial.name]) : places[i]));
    inputs.forEach((input, i) => {
      const value = valueOf(dials[i], places[i]);
      input.value = places[i];
      input.setAttribute("aria-valuetext", value);
      input.previousElementSibling.textContent = value;
    });
    show(sceneAt(places), width);
  };
  const move = (wanted) => {
    go(wanted);
    keep();
  };
  const reset = () => move(start);
  const settings = () => dials.map((dial, i) => `${dial.label} ${valueOf(dial, places[i])}`).join(", ");
  const values = () => Object.fromEntries(dials.map((dial, i) => [dial.name, dial.stops[places[i]]]));
  const page = { name, alt, move, reset, settings, values };
  const show = picture(host, page);
  inputs.forEach((input, i) => {
    const { name, stops } = dials[i];
    input.addEventListener("input", () => move({ [name]: stops[input.value] }));
  });
  go({ ...start, ...asked });
  return Object.assign(page, { show });
}

// The explorer of a page, from the packed scenes in it.
export function mount(host) {
  const packed = JSON.parse(host.querySelector("script").textContent);
  const address = new URLSearchParams(location.search);
  const asked = packed.dials.map(({ name }) => [name, address.get(`${packed.name}.${name}`)]);
  const numbers = asked.filter(([, value]) => value !== null && !Number.isNaN(Number(value)));
  const page = build(host, packed, { asked: Object.fromEntries(numbers) });
  if (LIVE) offer(host, page, LIVE);
}

// What anywidget calls: the sliders are those of ipywidgets, and the kernel answers.
export function render({ model, el }) {
  el.classList.add("explorer");
  const move = (wanted) => model.send(wanted);
  const reset = () => model.send(model.get("start"));
  const show = picture(el, { alt: model.get("alt"), settings: () => "before", move, reset });
  const update = () => show(model.get("scene"));
  model.on("change:scene", update);
  update();
  return () => model.off("change:scene", update);
}

export default { render };

if (typeof window === "object")
  document.querySelectorAll(".explorer > script").forEach((script) => mount(script.parentNode));
