// "Any value": the library itself in the page. One click loads it from the site's own folder into a worker; then every
// dial takes any value, and the worker answers in place of the stops.
import { spoken } from "./draw.js";
import { startWorker } from "./from_disk.js";
import { escape } from "./panel.js";

const megabytes = (bytes) => Math.round(bytes / 1e6);
// as many digits as a slider has places
const shown = (value) => Number(value.toPrecision(4));

// A worker that answers questions; `report` hears how far it is, `fail` what went wrong for good, `hear` what is said
// of a question before its answer; `runsCells` says that cells are among the questions.
export function connect(base, report, fail, runsCells = false) {
  const asked = new Map();
  let ended = false;
  const answered = ({ data }) => {
    if (data.failed) fail(data.failed);
    if (data.progress) report(data.progress);
    if (data.ready) report({ what: "ready" });
    const [resolve, reject, hear] = asked.get(data.id) ?? [];
    if (data.kind) return hear?.(data.kind, data.text);
    asked.delete(data.id);
    if (data.error) reject?.(new Error(data.error));
    if (data.answer) resolve?.(JSON.parse(data.answer));
  };
  const started = startWorker(base, runsCells).then((worker) => {
    worker.onerror = (event) => fail(event.message || "worker.mjs could not be loaded");
    worker.onmessage = answered;
    return worker;
  });
  started.catch((error) => ended || fail(error.message));
  const tell = (act) => started.then(act, () => {});
  let id = 0;
  const ask = (question, hear) =>
    new Promise((...settle) => {
      asked.set(++id, [...settle, hear]);
      tell((worker) => worker.postMessage({ ...question, id }));
    });
  const end = () => {
    ended = true;
    tell((worker) => worker.terminate());
  };
  return { ask, end };
}

// What a dial's slider moves over: every value of `live`, powers of ten for a step of "log", else the stops.
function scaleOf({ live, stops, names }) {
  if (!live) {
    const near = (value) => stops.indexOf(stops.reduce((a, b) => (Math.abs(b - value) < Math.abs(a - value) ? b : a)));
    return { low: 0, high: stops.length - 1, step: 1, at: (place) => stops[place], place: near, names };
  }
  const [low, high, step] = live;
  const whole = Number.isInteger(step);
  const rounded = (value) => (whole ? Math.round(value) : shown(value));
  if (step === "log") return { low, high, step: 0.01, at: (place) => shown(10 ** place), place: Math.log10, any: true };
  return { low, high, step, whole, at: (place) => rounded(Number(place)), place: Number, any: true };
}

// One dial on the page: a slider, and a field for what is between its steps.
export function dialOn(box, { description, unit, ...dial }, onMove) {
  const scale = scaleOf(dial);
  const label = escape(unit ? `${description}, ${unit}` : description);
  const [least, most] = [scale.at(scale.low), scale.at(scale.high)];
  const numeric = `type="number" min="${least}" max="${most}" step="${scale.whole ? 1 : "any"}"`;
  const value = scale.any ? `<input ${numeric} aria-label="${label}: value">` : "<output></output>";
  const range = `type="range" min="${scale.low}" max="${scale.high}" step="${scale.step}"`;
  const dialled = `<span>${label}</span>${value}<input ${range} aria-label="${label}">`;
  box.insertAdjacentHTML("beforeend", `<div class="explorer-dial">${dialled}</div>`);
  const [, field, slider] = box.lastElementChild.children;
  slider.addEventListener("input", () => onMove(scale.at(slider.value)));
  if (scale.any) {
    const wrong = `${description} must be ${scale.whole ? "a whole number " : ""}between ${least} and ${most}`;
    field.addEventListener("input", () => onMove(field.validity.valid ? field.valueAsNumber : new Error(wrong)));
  }
  return (now) => {
    slider.value = scale.place(now);
    const words = scale.names?.[scale.place(now)] ?? spoken(now);
    slider.setAttribute("aria-valuetext", words);
    if (!scale.any) field.textContent = words;
    else if (document.activeElement !== field) {
      // the value in use keeps its digits, which the field's title has
      field.value = scale.whole ? now : shown(now);
      field.title = field.valueAsNumber === now ? "" : now;
    }
    return words;
  };
}

// The button beside an explorer. `page` is what `build` gives: it shows scenes, and another may answer its dials.
export function offer(host, page, base) {
  const part = (name) => host.querySelector(`.explorer-${name}`);
  const [button, box] = [part("live"), part("dials")];
  const stops = [...box.children];
  const { move: moveStops, reset: resetStops, settings: settingsOfStops } = page;
  const news = '<div class="explorer-news"><progress hidden></progress><p role="status"></p></div>';
  part("tools").insertAdjacentHTML("afterend", news);
  const [bar, status] = part("news").children;
  let [session, values] = [null, {}];
  const say = (text) => status.textContent !== text && (status.textContent = text);
  const stage = (name) => {
    host.dataset.live = name;
    bar.hidden = name !== "loading";
    button.textContent = name === "loading" ? "Cancel" : "Any value";
    button.setAttribute("aria-pressed", String(name === "ready"));
  };

  const end = (text) => {
    session?.end();
    session = null;
    if (page.move !== moveStops) {
      Object.assign(page, { move: moveStops, reset: resetStops, settings: settingsOfStops });
      box.replaceChildren(...stops);
      // to the nearest stops
      page.move(values);
    }
    stage("off");
    say(text);
  };
  const report = ({ what, arrived, total }) => {
    if (total) Object.assign(bar, { max: total, value: arrived });
    const tenths = Math.floor((10 * arrived) / total) / 10;
    const stages = { starting: "Starting Python", ready: "Preparing the picture" };
    say(stages[what] ?? `Loading ${what}: ${megabytes(tenths * total)} of ${megabytes(total)} MB`);
  };

  const fail = (words) => end(`Any value is not to be had: ${words}. Press again to try again.`);
  const begin = async () => {
    stage("loading");
    bar.removeAttribute("value");
    say("Loading Python, NumPy, SciPy and the library, once");
    const own = connect(base, report, fail);
    session = own;
    const dials = await own.ask({ ask: "dials", explorer: page.name });
    const start = Object.fromEntries(Object.entries(dials).map(([name, dial]) => [name, dial.start]));
    values = { ...start, ...page.values() };
    let [busy, again, greeting] = [false, false, "Every dial takes any value now"];
    const draw = async () => {
      again = busy;
      if (busy) return;
      busy = true;
      host.dataset.live = "busy";
      do {
        again = false;
        const slow = setTimeout(() => session === own && say("Computing"), 500);
        try {
          const scene = await own.ask({ ask: "scene", explorer: page.name, dials: values });
          if (session !== own) return;
          page.show(scene);
          say(greeting);
          greeting = "";
        } catch (error) {
          say(error.message);
        } finally {
          clearTimeout(slow);
        }
      } while (again);
      busy = false;
      host.dataset.live = "ready";
    };
    const move = (wanted) => {
      const refused = Object.values(wanted).find((value) => value instanceof Error);
      if (refused) return say(refused.message);
      values = { ...values, ...wanted };
      Object.entries(moved).forEach(([name, place]) => place(values[name]));
      draw();
    };
    box.replaceChildren();
    const entries = Object.entries(dials);
    const placed = ([name, dial]) => [name, dialOn(box, dial, (to) => move({ [name]: to }))];
    const moved = Object.fromEntries(entries.map(placed));
    const setting = ([name, { description }]) => `${description} ${moved[name](values[name])}`;
    const settings = () => entries.map(setting).join(", ");
    Object.assign(page, { move, settings, reset: () => move(start) });
    stage("ready");
    move({});
  };

  button.hidden = false;
  button.addEventListener("click", () => {
    if (session) return end(host.dataset.live === "loading" ? "Cancelled" : "");
    begin().catch((error) => fail(error.message));
  });
  // its memory is that of a second Python: not kept for a page that nobody sees
  addEventListener("pagehide", () => session && end(""));
}
