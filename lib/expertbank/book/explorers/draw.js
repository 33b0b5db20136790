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
  const decades = Math.log10(high / low);
  const steps = decades > 2.5 ? [1] : [1, 2, 5];
  const every = Math.ceil(decades / 7);
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += every)
    for (const step of steps) ticks.push(step * 10 ** power);
  return ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
}

// What Plot needs to know of an axis; categories of y run from the top down.
function scaleOf(axis, count, upright) {
  const { categories, low, high } = axis;
  if (categories.length)
    return {
      domain: upright ? [high, low] : [low, high],
      ticks: categories.map((_, i) => i),
      tickFormat: (i) => categories[i],
      tickSize: 0,
      label: null,
      lineWidth: upright ? 10 : 7,
    };
  const log = axis.scale === "log";
  return {
    type: log ? "log" : "linear",
    domain: [low, high],
    ticks: log ? logTicks(low, high) : count,
    tickFormat: log ? (tick) => spoken(tick) : undefined,
    tickSize: 0,
    label: null,
    grid: true,
  };
}

function widest(axis) {
  if (axis.categories.length) return Math.min(130, 7 * Math.max(...axis.categories.map((name) => name.length)));
  if (axis.scale === "log") return 36;
  return 7 * Math.max(...[axis.low, axis.high, (axis.high - axis.low) / 10].map((end) => spoken(end, 2).length)) + 4;
}

export function pointsOf(series) {
  return series.x.map((x, i) => ({ x, y: series.y[i], top: series.top?.[i] }));
}

// Bars of several series stand side by side; they are as wide as their neighbours allow.
function bars(panel, series, style) {
  const lying = panel.y.categories.length > 0;
  const [along, across] = lying ? ["y", "x"] : ["x", "y"];
  const names = panel.series.filter((one) => one.kind === "bars").map((one) => one.name);
  const gaps = series[along].slice(1).map((place, i) => Math.abs(place - series[along][i]));
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
  if (kind === "bars") return bars(panel, series, ghost ? { ...paint, strokeDasharray: "3 3" } : { fill: colour(look) });
  if (kind === "band")
    return Plot.areaY(points, { x: "x", y1: "y", y2: "top", fill: colour(look), fillOpacity: ghost ? 0.08 : 0.2, clip: true });
  if (kind === "dots")
    return Plot.dot(points, { ...at, symbol: SYMBOLS[look % 7], r: many ? 2 : 4, strokeWidth: 1.6, fill: ghost ? "none" : GROUND });
  return Plot.line(points, { ...at, strokeWidth: ghost ? 1.6 : 2.4, strokeDasharray: ghost ? "2 4" : DASHES[look % 7] });
}

function drawMark(panel, mark) {
  const { kind, name } = mark;
  const line = { x: "x", y: "y", stroke: colour(mark.look), strokeWidth: 2.4 };
  const halo = { fill: "currentColor", stroke: GROUND, strokeWidth: 5, paintOrder: "stroke" };
  const words = { x: "x", y: "y", text: () => name, ...halo };
  const thin = { strokeWidth: 1.6, strokeDasharray: "5 4" };
  if (kind === "rule") {
    const text = Plot.text([mark], { ...words, x: undefined, frameAnchor: "right", textAnchor: "end", dy: -9, dx: -4 });
    return [Plot.ruleY([mark], { ...line, x: undefined, ...thin }), text];
  }
  if (kind === "post") {
    const { low, high, scale } = panel.x;
    const middle = scale === "log" ? Math.sqrt(low * high) : (low + high) / 2;
    const side = mark.x > middle ? { textAnchor: "end", dx: -6 } : { textAnchor: "start", dx: 6 };
    const text = Plot.text([mark], { ...words, y: undefined, frameAnchor: "top", dy: 4, ...side });
    return [Plot.ruleX([mark], { ...line, y: undefined, ...thin }), text];
  }
  const bar = mark.low === null ? [] : [Plot.ruleX([mark], { ...line, y: undefined, y1: "low", y2: "high" })];
  if (kind === "cross") return [...bar, Plot.dot([mark], { ...line, symbol: "times", r: 5.5 })];
  return [...bar, Plot.dot([mark], { ...line, r: 8, stroke: GROUND, strokeWidth: 6 }), Plot.dot([mark], { ...line, r: 8, strokeWidth: 3 })];
}

function plot(options) {
  const svg = Plot.plot(options);
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

// The SVG of a panel; `ghost` is a panel that was pinned, to compare with.
export function drawPanel(panel, { width, height, ghost, document }) {
  const layers = ["band", "bars", "line", "dots", "rule", "post", "cross", "ring"];
  const sorted = (things) => [...things].sort((a, b) => layers.indexOf(a.kind) - layers.indexOf(b.kind));
  return plot({
    document,
    width,
    height,
    marginTop: 8,
    marginRight: 14,
    marginLeft: widest(panel.y) + 12,
    marginBottom: panel.x.categories.length ? 40 : 24,
    x: scaleOf(panel.x, Math.max(3, Math.round(width / 90)), false),
    y: scaleOf(panel.y, Math.max(3, Math.round(height / 60)), true),
    marks: [
      Plot.frame({ anchor: "bottom", stroke: "var(--faint)" }),
      ...(ghost?.series ?? []).map((one) => drawSeries(ghost, one, true)),
      ...sorted(panel.series).map((one) => drawSeries(panel, one, false)),
      ...sorted(panel.marks).flatMap((one) => drawMark(panel, one)),
    ],
  });
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
  const panel = { x: axis, y: axis, series: [{ kind, name: "" }] };
  const level = { x: [-1, 1], y: [0, 0] };
  const shapes = { line: level, ghost: level, band: { ...level, y: [-1, -1], top: [1, 1] }, dots: { x: [0], y: [0] }, bars: { x: [0], y: [1] } };
  const drawn = kind in shapes
    ? [drawSeries(panel, { ...shapes[kind], look, kind, name: "" }, kind === "ghost")]
    : drawMark(panel, { x: 0, y: 0, look, kind, low: null });
  const y = { domain: kind === "bars" ? [0, 1] : [-1, 1] };
  return plot({ document, width: 30, height: 18, x: { domain: [-1, 1] }, y, axis: null, margin: 2, marks: drawn });
}
