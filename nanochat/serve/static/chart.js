// A line chart, one panel a stage, beside each other on one scale of values. Hover or arrow keys read it off; below it
// the same numbers stand as a table.

import { h, s, whole } from "./dom.js";

const WIDE = 640;
const HIGH = 240;
const LEFT = 58;
const FOOT = 32;
const GAP = 14;

/** Values that read well, about four of them, from `low` to `high`. */
export function ticks(low, high) {
  const rough = (high - low || 1) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) found.push(Number(v.toPrecision(12)));
  return found;
}

/** Each value with its neighbours: an exponential mean, begun without a bias to zero. */
export function smoothed(points, keep = points.length < 250 ? 0.8 : 0.95) {
  let sum = 0;
  let weight = 0;
  return points.map(([x, y]) => {
    sum = keep * sum + (1 - keep) * y;
    weight = keep * weight + 1 - keep;
    return [x, sum / weight];
  });
}

const shown = (v) => (Math.abs(v) >= 1000 ? whole(v) : Number(v.toPrecision(3)).toString());

/** `lines` are [{ name, points: [[step, value], ...] }]. */
export function chart(title, unit, lines, { smooth = false, dots = false, zero = false } = {}) {
  const values = lines.flatMap(({ points }) => points.map(([, y]) => y)).sort((a, b) => a - b);
  // A single first loss of 8 must not press all others flat: the scale is the middle 98 %.
  const cut = Math.floor(values.length / 100);
  let low = zero ? 0 : values[cut];
  let high = values[values.length - 1 - (zero ? 0 : cut)];
  const pad = (high - low || Math.abs(high) || 1) * 0.06;
  [low, high] = [zero ? 0 : low - pad, high + pad];
  const total = lines.reduce((sum, { points }) => sum + Math.sqrt(points.length) + 2, 0);
  const room = WIDE - LEFT - GAP * (lines.length - 1) - 4;
  const up = (y) => 8 + (HIGH - FOOT - 8) * (1 - (Math.min(high, Math.max(low, y)) - low) / (high - low));
  const svg = s("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, class: "chart", role: "img", "aria-label": `${title}: ${lines.map(({ name, points }) => `${name} from ${shown(points[0][1])} to ${shown(points.at(-1)[1])}`).join("; ")}` });
  for (const v of ticks(low, high)) svg.append(s("line", { x1: LEFT, x2: WIDE, y1: up(v), y2: up(v), class: "grid" }), s("text", { x: LEFT - 8, y: up(v) + 6, "text-anchor": "end" }, shown(v)));
  const targets = [];
  let at = LEFT;
  for (const { name, points } of lines) {
    const width = (room * (Math.sqrt(points.length) + 2)) / total;
    const first = points[0][0];
    const span = Math.max(1, points.at(-1)[0] - first);
    const from = at;
    const across = (x) => from + (points.length > 1 ? ((x - first) / span) * width : width / 2);
    const path = (list) => list.map(([x, y], place) => `${place ? "L" : "M"}${across(x).toFixed(1)} ${up(y).toFixed(1)}`).join("");
    if (smooth && points.length > 20) svg.append(s("path", { d: path(points), class: "faint" }), s("path", { d: path(smoothed(points)), class: "line" }));
    else svg.append(s("path", { d: path(points), class: "line" }));
    if (dots && points.length < 60) for (const [x, y] of points) svg.append(s("circle", { cx: across(x), cy: up(y), r: 3 }));
    const label = width > 9 * name.length ? name : "";
    svg.append(s("text", { x: from + width / 2, y: HIGH - 6, "text-anchor": "middle" }, label));
    if (at > LEFT) svg.append(s("line", { x1: at - GAP / 2, x2: at - GAP / 2, y1: 4, y2: HIGH - FOOT, class: "wall" }));
    for (const [x, y] of points) targets.push([across(x), up(y), `${name}, step ${whole(x)}: ${shown(y)}`]);
    at += width + GAP;
  }
  const mark = s("circle", { r: 4.5, class: "mark-dot", visibility: "hidden" });
  svg.append(mark);
  const told = h("output", { class: "small num soft" }, unit);
  let place = targets.length - 1;
  const point = (to) => {
    place = Math.max(0, Math.min(targets.length - 1, to));
    const [x, y, text] = targets[place];
    mark.setAttribute("cx", x);
    mark.setAttribute("cy", y);
    mark.setAttribute("visibility", "visible");
    told.textContent = text;
  };
  const away = () => (mark.setAttribute("visibility", "hidden"), (told.textContent = unit));
  const box = h("div", { class: "chart-box", tabindex: 0, role: "group", "aria-label": `${title}: arrow keys read it off`, onblur: away, onpointerleave: away,
    onpointermove: (event) => {
      const frame = svg.getBoundingClientRect();
      const x = ((event.clientX - frame.left) / frame.width) * WIDE;
      point(targets.reduce((best, [tx], i) => (Math.abs(tx - x) < Math.abs(targets[best][0] - x) ? i : best), 0));
    },
    onkeydown: (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, Home: -1e9, End: 1e9 }[event.key];
      if (step) (event.preventDefault(), point(place + step));
    } }, svg);
  const sparse = (points) => points.filter((_, i) => i % Math.ceil(points.length / 12) === 0 || i === points.length - 1);
  const table = h("details", { class: "small" }, h("summary", { class: "soft" }, "As a table"), h("table", {}, h("thead", {}, h("tr", {}, ["stage", "step", title].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, lines.flatMap(({ name, points }) => sparse(points).map(([x, y]) => h("tr", {}, h("td", {}, name), h("td", { class: "num" }, whole(x)), h("td", { class: "num" }, shown(y))))))));
  return h("section", { class: "card chart-card" }, h("header", { class: "row between" }, h("h2", {}, title), told), box, table);
}
