// One panel on the page: its picture, the values under a pointer or reached by arrow keys, and the ring to drag.
import { drawPanel, pointsOf, spoken } from "./draw.js";

export const escape = (text) => String(text).replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
export const named = (axis, value) => axis.categories[Math.round(value)] ?? spoken(value);
const ARROWS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
const REACH = 40; // pixels

export function panelOn(parent, { title, x, y }, { say, onMove }) {
  const label = escape(`${[title || y.label, x.label].filter(Boolean).join(", by ")}: arrow keys read values`);
  const head = title ? `<p class="explorer-title">${escape(title)}</p>` : "";
  const html = `<div>${head}<p class="explorer-y">${escape(y.label)}</p>
    <div class="explorer-plot" tabindex="0" role="application" aria-label="${label}">
      <div class="explorer-svg"></div><div class="explorer-tip" hidden></div><div class="explorer-handle" hidden></div>
    </div><p class="explorer-x">${escape(x.label)}</p></div>`;
  parent.insertAdjacentHTML("beforeend", html);
  const part = (name) => parent.lastElementChild.querySelector(`.explorer-${name}`);
  const [plot, frame, tip, handle] = ["plot", "svg", "tip", "handle"].map(part);
  let [panel, svg, row, share] = [null, null, 0, 0];

  // points in pixels, each with the words that it gives a reader
  const spotsOf = (name, points) => {
    const [left, top] = [svg.scale("x"), svg.scale("y")];
    const words = (at) => `${panel.x.label} ${named(panel.x, at.x)}, ${panel.y.label} ${named(panel.y, at.y)}`;
    const spots = points.map((at, i) => ({ ...at, i, left: left.apply(at.x), top: top.apply(at.y) }));
    const known = spots.filter((at) => at.x !== null && at.y !== null && Number.isFinite(at.left + at.top));
    return known.map((at) => ({ ...at, text: `${name}: ${words(at)}` }));
  };
  const rows = () =>
    [...panel.series, ...panel.marks]
      .map((one) => spotsOf(one.name, Array.isArray(one.x) ? pointsOf(one) : [one]))
      .filter((spots) => spots.length);
  const nearest = (spots, event) => {
    const box = plot.getBoundingClientRect();
    const far = (spot) => Math.hypot(spot.left - event.clientX + box.left, spot.top - event.clientY + box.top);
    const measured = spots.map((spot) => ({ ...spot, far: far(spot) }));
    return measured.reduce((best, spot) => (spot.far < best.far ? spot : best), { far: Infinity });
  };
  const point = (spot) => {
    tip.hidden = !spot;
    if (!spot) return;
    tip.style.cssText = `left: ${spot.left}px; top: ${spot.top}px`;
    tip.dataset.side = spot.left > plot.clientWidth / 2 ? "left" : "right";
    tip.innerHTML = `<span>${escape(spot.text)}</span>`;
  };
  const hover = (event) => {
    const spot = nearest(rows().flat(), event);
    point(spot.far < REACH ? spot : null);
  };
  for (const event of ["pointermove", "pointerdown"]) plot.addEventListener(event, hover);
  for (const event of ["pointerleave", "blur"]) plot.addEventListener(event, () => point(null));
  plot.addEventListener("keydown", (event) => {
    if (event.key === "Escape") point(null);
    if (!(event.key in ARROWS)) return;
    event.preventDefault();
    const [down, right] = ARROWS[event.key];
    const all = rows();
    row = Math.min(all.length - 1, Math.max(0, row + down));
    const last = all[row].length - 1;
    share = Math.min(1, Math.max(0, share + right / Math.max(1, last)));
    const spot = all[row][Math.round(share * last)];
    point(spot);
    say(spot.text);
  });
  handle.addEventListener("pointerdown", (event) => handle.setPointerCapture(event.pointerId));
  handle.addEventListener("pointermove", (event) => {
    if (!handle.hasPointerCapture(event.pointerId)) return;
    event.stopPropagation();
    const { track } = panel;
    onMove({ [track.dial]: track.values[nearest(spotsOf("", pointsOf(track)), event).i] });
  });

  return (next, options) => {
    panel = next;
    point(null);
    svg = drawPanel(panel, { ...options, document: parent.ownerDocument });
    frame.replaceChildren(svg);
    frame.style.cssText = `height: ${options.height}px`;
    const ring = spotsOf("", panel.marks.filter((mark) => mark.kind === "ring"))[0];
    handle.hidden = !(panel.track && ring);
    if (!handle.hidden) handle.style.cssText = `left: ${ring.left}px; top: ${ring.top}px`;
  };
}
