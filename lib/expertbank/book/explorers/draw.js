// One panel of a scene as SVG, and the legend of all of them, with Observable Plot. Colours are CSS variables.
import * as Plot from "@observablehq/plot";

const DASHES = ["none", "9 4", "9 4 2 4", "2 3", "14 4", "none", "5 3"];
const SYMBOLS = ["circle", "square", "triangle", "diamond2", "star", "plus", "hexagon"];
const GROUND = "var(--ground)";
const colour = (look) => `var(--look-${look % 7})`;

// A number to read: so many significant digits, large and small ones as powers of ten.
export function spoken(value, digits = 3) {
  if (value === null || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  let text = String(Number.isInteger(value) ? value : Number(value.toPrecision(digits)));
  if (size >= 1e6 || (size > 0 && size < 1e-3)) {
    const [front, power] = value.toExponential(digits - 1).split("e");
    const raised = power.replace("+", "").replace("-", "⁻").replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);
    text = `${Number(front)}·10${raised}`.replace(/^1·/, "");
  }
  return text.replace("-", "−");
}

function logTicks(low, high) {
  const [first, last] = [Math.log10(low), Math.log10(high)];
  const every = Math.ceil((last - first) / 7);
  const steps = last - first > 2.5 ? [1] : [1, 2, 5];
  const powers = Array.from({ length: Math.ceil((last - first) / every) + 1 }, (_, i) => Math.floor(first) + i * every);
  const ticks = powers.flatMap((power) => steps.map((step) => step * 10 ** power));
  return ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
}

// What Plot needs to know of an axis; categories of y run from the top down.
function scaleOf({ categories, low, high, scale: type }, count, upright) {
  const plain = { label: null, tickSize: 0 };
  if (categories.length) {
    const ticks = { ticks: [...categories.keys()], tickFormat: (i) => categories[i], lineWidth: upright ? 10 : 7 };
    return { ...plain, ...ticks, domain: upright ? [high, low] : [low, high] };
  }
  const common = { ...plain, type, domain: [low, high], grid: true };
  if (type === "log") return { ...common, ticks: logTicks(low, high), tickFormat: (tick) => spoken(tick) };
  return { ...common, ticks: count };
}

export function pointsOf(series) {
  return series.x.map((x, i) => ({ x, y: series.y[i], top: series.top?.[i] }));
}

// Bars of series that share a place stand side by side; all are as wide as their neighbours allow.
function bars(panel, series, style) {
  const lying = panel.y.categories.length > 0;
  const [along, across] = lying ? ["y", "x"] : ["x", "y"];
  const all = panel.series.filter((one) => one.kind === "bars");
  const shares = (one) => one[along].some((place) => series[along].includes(place));
  const names = all.filter(shares).map((one) => one.name);
  const places = [...new Set(all.flatMap((one) => [...one[along]]))].sort((a, b) => a - b);
  const gaps = places.slice(1).map((place, i) => place - places[i]);
  const width = (0.8 * (gaps.length ? Math.min(...gaps) : 1)) / names.length;
  const shift = (names.indexOf(series.name) - names.length / 2) * width;
  const foot = panel[across].scale === "log" ? panel[across].low : 0;
  const options = { [`${across}1`]: () => foot, [`${across}2`]: across, rx: 1.5, clip: true, ...style };
  options[`${along}1`] = (point) => point[along] + shift;
  options[`${along}2`] = (point) => point[along] + shift + width;
  return Plot.rect(pointsOf(series), options);
}

function drawSeries(panel, series, ghost) {
  const { kind, look } = series;
  const points = pointsOf(series);
  const many = points.length > 120;
  const paint = { stroke: colour(look), strokeOpacity: ghost ? 0.6 : 1, clip: true };
  const at = { x: "x", y: "y", ...paint };
  const filled = { fill: colour(look), fillOpacity: 1, clip: true };
  if (kind === "bars") return bars(panel, series, ghost ? { ...paint, strokeDasharray: "3 3" } : filled);
  if (kind === "band")
    return Plot.areaY(points, { ...filled, x: "x", y1: "y", y2: "top", fillOpacity: ghost ? 0.08 : 0.25 });
  if (kind === "dots") {
    const shape = { symbol: SYMBOLS[look % 7], r: many ? 2 : 4, strokeWidth: 1.6 };
    return Plot.dot(points, { ...at, ...shape, fill: ghost ? "none" : GROUND });
  }
  const stroke = { strokeWidth: ghost ? 1.6 : 2.4, strokeDasharray: ghost ? "2 4" : DASHES[look % 7] };
  return Plot.line(points, { ...at, ...stroke });
}

function drawMark(mark) {
  const { kind } = mark;
  const line = { stroke: colour(mark.look), strokeWidth: 2.4 };
  const thin = { ...line, strokeWidth: 1.6, strokeDasharray: "5 4" };
  if (kind === "rule" || kind === "post") {
    const level = kind === "rule";
    const rule = level ? Plot.ruleY([mark], { y: "y", ...thin }) : Plot.ruleX([mark], { x: "x", ...thin });
    const words = { text: "name", fill: "currentColor", stroke: GROUND, strokeWidth: 5, paintOrder: "stroke" };
    const across = { y: "y", frameAnchor: "right", textAnchor: "end", dx: -4, dy: -9 };
    const up = { x: "x", frameAnchor: "bottom", textAnchor: "start", dx: 6, dy: -4 };
    return [rule, Plot.text([mark], { ...words, ...(level ? across : up) })];
  }
  const at = { x: "x", y: "y", ...line };
  const bar = mark.low === null ? [] : [Plot.ruleX([mark], { x: "x", y1: "low", y2: "high", ...line })];
  if (kind === "cross") return [...bar, Plot.dot([mark], { ...at, symbol: "times", r: 5.5 })];
  const halo = Plot.dot([mark], { ...at, r: 8, stroke: GROUND, strokeWidth: 6 });
  return [...bar, halo, Plot.dot([mark], { ...at, r: 8, strokeWidth: 3 })];
}

function plot(options) {
  const svg = Plot.plot(options);
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

// The SVG of a panel; `ghost` is a panel that was pinned, to compare with.
export function drawPanel(panel, { width, height, ghost, document }) {
  const layers = ["band", "bars", "line", "dots", "rule", "post", "ring", "cross"];
  const sorted = (things) => [...things].sort((a, b) => layers.indexOf(a.kind) - layers.indexOf(b.kind));
  const [wide, deep] = [panel.y.categories.length > 0, panel.x.categories.length > 0];
  const margins = { marginTop: 8, marginRight: 14, marginBottom: deep ? 40 : 24, marginLeft: wide ? 136 : 46 };
  const x = scaleOf(panel.x, Math.max(3, Math.round(width / 90)), false);
  const y = scaleOf(panel.y, Math.max(3, Math.round(height / 60)), true);
  const marks = [
    Plot.frame({ anchor: "bottom", stroke: "var(--faint)" }),
    ...(ghost?.series ?? []).map((one) => drawSeries(ghost, one, true)),
    ...sorted(panel.series).map((one) => drawSeries(panel, one, false)),
    ...sorted(panel.marks).flatMap(drawMark),
  ];
  return plot({ document, width, height, ...margins, x, y, marks });
}

// What stands in the legend of a scene: every name once.
export function legendOf({ panels }) {
  const marks = panels.flatMap((panel) => panel.marks).filter(({ kind }) => kind === "cross" || kind === "ring");
  const named = [...panels.flatMap((panel) => panel.series), ...marks].filter(({ name }) => name);
  return [...new Map(named.map((one) => [one.name, one])).values()];
}

// A sample of a look as it is drawn.
export function swatch({ look, kind }, document) {
  const axis = { low: -1, high: 1, categories: [], scale: "linear" };
  const shape = { x: [-1, 1], y: [0, 0] };
  if (kind === "band") Object.assign(shape, { y: [-1, -1], top: [1, 1] });
  if (kind === "dots") shape.x = [0, 0];
  if (kind === "bars") Object.assign(shape, { x: [0], y: [1] });
  const series = { ...shape, kind, look, name: "" };
  const panel = { x: axis, y: axis, series: [series] };
  const isMark = kind === "cross" || kind === "ring";
  const mark = { x: 0, y: 0, look, kind, low: null };
  const marks = isMark ? drawMark(mark) : [drawSeries(panel, series, kind === "ghost")];
  const y = { domain: kind === "bars" ? [0, 1] : [-1, 1] };
  return plot({ document, width: 30, height: 18, x: { domain: [-1, 1] }, y, axis: null, margin: 2, marks });
}
