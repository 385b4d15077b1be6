// The panels of the X-ray, and what is drawn over the text. Each panel gives the elements for the selected token.

import { ask } from "./api.js";
import { calm, facts, h, icon, percent, plural, roving, s, toast, visible, whole } from "./dom.js";

/** What is known of how token i came about. */
const rowOf = (x, i) => x.rows[i - 1];
/** Weights of one head over the tokens before i, 0 to 255; of all heads on average where head is null. */
function looks(x, i, head) {
  const row = rowOf(x, i);
  if (!row?.attention) return null;
  const { n_layer, n_head } = x.about.model;
  if (head !== null) return row.attention.subarray(head * i, (head + 1) * i);
  const mean = new Float32Array(i);
  for (let at = 0; at < row.attention.length; at += 1) mean[at % i] += row.attention[at] / (n_layer * n_head);
  return mean;
}

/** The head to show: the one that was chosen, or the one that looks most sharply at something in between. */
export function headOf(x) {
  if (x.head !== null) return x.head;
  const row = rowOf(x, x.selected);
  if (!row?.attention) return 0;
  const i = x.selected;
  let best = [0, -1];
  for (let head = 0; head < row.attention.length / i; head += 1) {
    for (let j = 1; j < i - 1; j += 1) if (row.attention[head * i + j] > best[1]) best = [head, row.attention[head * i + j]];
  }
  return best[0];
}

/** How dark token i is, 0 to 1, under the panel that is open. */
export function shade(x, i) {
  const row = rowOf(x, i);
  if (x.tab === "choices") return row?.came ? { given: 0.35, tool: 0, drawn: 1 }[x.tokens[i].part] * (1 - row.came.p) ** 1.2 : 0;
  if (x.tab === "attention") return i < x.selected ? Math.sqrt((looks(x, x.selected, headOf(x))?.[i] ?? 0) / 255) : 0;
  if (x.tab === "layers") {
    const on = row?.lens ? row.lens.findIndex((_, at) => row.lens.slice(at).every((layer) => layer[0].id === x.tokens[i].id)) : 0;
    return row?.lens ? 0.7 * (on < 0 ? 1 : (on / row.lens.length) ** 2) : 0;
  }
  if (x.tab === "memory") return i < x.selected ? 0.3 : 0;
  const longest = Math.max(1, ...(x.times ?? []).filter(Boolean));
  return (x.times?.[i] ?? 0) / longest;
}

/** Curves from where the model stood to where it looked, over the text. */
export function drawArcs(x, flow) {
  flow.querySelector("svg.arcs")?.remove();
  const weights = x.tab === "attention" ? looks(x, x.selected, headOf(x)) : null;
  if (!weights) return;
  const chips = [...flow.querySelectorAll(".chip")];
  const frame = flow.getBoundingClientRect();
  const middle = (i) => {
    const box = chips[i].getBoundingClientRect();
    return [box.left + box.width / 2 - frame.left, box.top - frame.top, box.height];
  };
  const strongest = [...weights].map((w, j) => [w / 255, j]).filter(([w]) => w > 0.03).sort((a, b) => b[0] - a[0]).slice(0, 10);
  const [fromX, fromY] = middle(x.selected - 1);
  const paths = strongest.filter(([, j]) => j !== x.selected - 1).map(([w, j]) => {
    const [toX, toY, height] = middle(j);
    const level = Math.abs(toY - fromY) < height / 2;
    const lift = level ? Math.min(26, 8 + Math.abs(fromX - toX) / 9) : 24;
    const end = level ? toY : toY + height;
    const d = level ? `M${fromX} ${fromY}C${fromX} ${fromY - lift} ${toX} ${end - lift} ${toX} ${end}`
      : `M${fromX} ${fromY}C${fromX} ${fromY - lift} ${toX} ${end + lift} ${toX} ${end}`;
    return s("path", { d, "stroke-width": (1 + 2.5 * w).toFixed(2), opacity: (0.3 + 0.7 * w).toFixed(2) });
  });
  flow.append(s("svg", { class: "arcs", width: frame.width, height: frame.height, "aria-hidden": "true" }, paths));
}

/** A bar with a name and a value; with `go`, a button. */
const bar = (p, label, value, more = {}) => h(more.onclick ? "button" : "div", { type: more.onclick && "button", ...more, class: `bar-row${more.class || ""}` },
  h("i", { vars: { p: Math.max(0.004, p) } }), label, h("span", { class: "num" }, value));
const mono = (...words) => h("span", { class: "mono" }, words);
const name = (x, i) => h("q", {}, visible(x.tokens[i]));
const nothing = (text) => [h("p", { class: "soft" }, text)];

function choices(x) {
  const i = x.selected;
  const row = rowOf(x, i);
  if (!i) return nothing("The first token only says that a text begins: nothing led to it.");
  if (!row?.next) return nothing(x.tokens[i].part === "tool" ? "A tool wrote this: the model did not choose it, it only reads it." : "This will be known when all is read.");
  const options = row.next.some((choice) => choice.id === x.tokens[i].id) || !row.came ? row.next
    : [...row.next, { id: x.tokens[i].id, text: x.tokens[i].text, p: row.came.p, late: true }];
  const mind = row.entropy < 0.05 ? "no doubt at all" : `as unsure as between ${Math.exp(row.entropy).toFixed(1)} equal choices`;
  const open = x.canBranch(i);
  return [
    h("h2", {}, x.tokens[i].part === "drawn" ? ["Why ", name(x, i), "?"] : ["Would it have said ", name(x, i), "?"]),
    row.came && h("p", { class: "soft" }, `It was ${percent(row.came.p)} likely${row.came.rank > 1 ? `, choice number ${whole(row.came.rank)}` : ""}. Entropy ${row.entropy.toFixed(2)} nats: ${mind}.`),
    h("ul", { class: "bars", "aria-label": "What could have come" }, options.map((choice) => {
      const came = choice.id === x.tokens[i].id;
      const label = mono(visible({ ...choice, special: choice.text.startsWith("<|") }));
      return h("li", {}, bar(choice.p, label, percent(choice.p), came || !open ? { class: came && " came" }
        : { "data-key": `c${choice.id}`, title: "Go on from here with this token", onclick: () => x.step(i, choice) }));
    })),
    h("p", { class: "soft small" }, open ? "Choose another token, and the answer is written again from there." : x.asked ? "Tokens of the answer can be exchanged: choose one of them." : "Ask a question to go other ways."),
  ];
}

/** Colours from paper to accent, as bytes. */
function ramp() {
  const style = getComputedStyle(document.documentElement);
  const probe = h("i", { class: "probe" });
  document.body.append(probe);
  const rgb = ["--card", "--accent"].map((colour) => {
    probe.style.color = style.getPropertyValue(colour);
    return getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
  });
  probe.remove();
  return (t) => rgb[0].map((from, at) => from + (rgb[1][at] - from) * t);
}

/** One head's rows as a picture: down, the token that reads; across, where it looks. */
function drawMap(canvas, x, head) {
  const size = Math.max(1, x.tokens.length - 1);
  canvas.width = canvas.height = size;
  const paint = canvas.getContext("2d");
  const image = paint.createImageData(size, size);
  const colour = ramp();
  for (let i = 1; i <= size; i += 1) {
    const weights = looks(x, i, head);
    if (!weights) continue;
    for (let j = 0; j < i; j += 1) image.data.set([...colour((weights[j] / 255) ** 0.4), 255], 4 * ((i - 1) * size + j));
  }
  paint.putImageData(image, 0, 0);
  return canvas;
}

function attention(x) {
  const i = x.selected;
  if (!i) return nothing("Nothing was read before the first token.");
  const head = headOf(x);
  const weights = looks(x, i, head);
  if (!weights) return nothing("Looking…");
  const { n_layer, n_head } = x.about.model;
  const label = (number) => `Layer ${Math.floor(number / n_head) + 1}, head ${(number % n_head) + 1}`;
  const strongest = [...weights].map((w, j) => [w / 255, j]).sort((a, b) => b[0] - a[0]).filter(([w]) => w > 0.01).slice(0, 5);
  const small = n_layer * n_head <= 64;
  // The small pictures change only when rows have come: they are kept.
  const key = `${x.rows.filter((row) => row?.attention).length} ${getComputedStyle(document.body).color}`;
  if (x.maps?.key !== key || x.maps.of !== x.tokens) x.maps = { key, of: x.tokens, canvases: [] };
  const grid = h("div", { class: "heads", role: "radiogroup", "aria-label": "Layer and head", vars: { n: n_head } });
  const choose = (number) => ((x.head = number), x.rerun());
  for (let number = 0; number < n_layer * n_head; number += 1) {
    const canvas = (x.maps.canvases[number] ??= small ? drawMap(h("canvas", { "aria-hidden": "true" }), x, number) : h("span", { class: "small" }, number % n_head + 1));
    grid.append(h("button", { type: "button", role: "radio", "aria-checked": number === head, "aria-label": label(number), title: label(number), class: "head", "data-key": `h${number}`,
      tabindex: number === head ? 0 : -1, onclick: () => choose(number),
      onkeydown: (event) => {
        const step = { ArrowDown: n_head, ArrowUp: -n_head }[event.key];
        if (step && number + step >= 0 && number + step < grid.children.length) (event.preventDefault(), grid.children[number + step].focus(), choose(number + step));
        else if (!step) roving(event, grid.children, number, choose);
      } }, canvas));
  }
  const map = h("canvas", { class: "map", role: "img", "aria-label": `${label(head)}: each row is a token, each column one that it looks back at`, onclick: (event) => {
    const box = map.getBoundingClientRect();
    x.select(1 + Math.floor(((event.clientY - box.top) / box.height) * map.height));
  } });
  drawMap(map, x, head);
  return [
    h("h2", {}, "Where it looked"),
    h("p", { class: "soft" }, "Before ", name(x, i), ` came, ${label(head).toLowerCase()} looked from `, name(x, i - 1), " back at:"),
    h("ul", { class: "bars" }, strongest.map(([w, j]) => h("li", {}, bar(w, mono(visible(x.tokens[j]), h("span", { class: "soft" }, j === i - 1 ? " · itself" : j ? ` · ${plural(i - 1 - j, "token")} back` : " · the beginning, where idle heads look")), percent(w))))),
    h("div", { class: "maps" },
      h("figure", {}, h("figcaption", { class: "small soft" }, "All heads, layer by layer"), grid,
        x.head !== null && h("button", { type: "button", class: "link small", onclick: () => choose(null) }, "Follow the sharpest head")),
      h("figure", {}, h("figcaption", { class: "small soft" }, label(head)), h("div", { class: "map-box" }, map, h("i", { class: "map-row", vars: { at: (i - 1) / Math.max(1, x.tokens.length - 1), n: Math.max(1, x.tokens.length - 1) } })))),
  ];
}

function layers(x) {
  const i = x.selected;
  const row = rowOf(x, i);
  if (!i) return nothing("Nothing was predicted before the first token.");
  if (!row?.lens) return nothing("Looking…");
  return [
    h("h2", {}, "A thought, layer by layer"),
    h("p", { class: "soft" }, "If the model had to answer after each layer, it would say this in place of ", name(x, i), ". It is the head, made for the last layer, applied to every one: the logit lens."),
    h("ol", { class: "lens" }, row.lens.map((layer, at) => h("li", {}, h("span", { class: "soft small" }, at ? `after layer ${at}` : "embedding"),
      h("div", {}, layer.map((choice) => h("span", { class: `guess${choice.id === x.tokens[i].id ? " came" : ""}`, vars: { p: choice.p.toFixed(3) }, title: percent(choice.p) },
        h("span", { class: "mono" }, visible(choice)), h("span", { class: "num" }, percent(choice.p)))))))),
  ];
}

function memory(x) {
  const { n_layer, n_kv_head, head_size, context } = x.about.model;
  const each = 2 * n_layer * n_kv_head * head_size * x.about.bytes;
  const held = x.selected;
  const kb = (bytes) => (bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} KB` : `${(bytes / 1e6).toFixed(1)} MB`);
  const canvas = h("canvas", { class: "cache", role: "img", width: context, height: n_layer, "aria-label": `${held} of ${context} places of the cache are filled, in ${n_layer} layers` });
  const paint = canvas.getContext("2d");
  const colour = ramp();
  const rows = x.rows.slice(0, held);
  for (let layer = 0; layer < n_layer; layer += 1) {
    const longest = Math.max(1e-6, ...rows.map((row) => row?.memory?.[layer] ?? 0));
    rows.forEach((row, at) => {
      paint.fillStyle = `rgb(${colour(row?.memory ? 0.25 + 0.75 * (row.memory[layer] / longest) : 0.25).map(Math.round).join(" ")})`;
      paint.fillRect(at, layer, 1, 1);
    });
  }
  return [
    h("h2", {}, "What it remembers"),
    h("p", { class: "soft" }, "A new token is compared with the keys of all tokens before it, and takes in their values. They are kept, so that each token is read once only: the KV cache."),
    canvas,
    h("div", { class: "row small soft between" }, h("span", {}, "first token"), h("span", {}, `place ${whole(context)}, the end`)),
    facts([["tokens held", `${held} of ${whole(context)}`], ["that is", kb(held * each)], ["a token costs", kb(each)]]),
    h("p", { class: "soft small" }, `2 (a key and a value) × ${n_layer} layers × ${plural(n_kv_head, "head")} × ${head_size} numbers × ${x.about.bytes} bytes. Darker: a longer value. Rows are layers.`),
    h("button", { type: "button", class: "button", "data-key": "fill", onclick: () => fill(x) }, icon(x.filling ? "pause" : "play", 16), x.filling ? "Stop" : "Watch it fill"),
  ];
}

/** Go through the text token by token. */
function fill(x) {
  clearInterval(x.filling);
  if (x.filling) return ((x.filling = null), x.rerun());
  const end = x.tokens.length - 1;
  x.select(0);
  x.filling = setInterval(() => {
    if (x.selected >= end || x.tab !== "memory") {
      clearInterval(x.filling);
      x.filling = null;
      return x.rerun();
    }
    x.select(x.selected + 1);
  }, calm() ? 400 : 70);
}

function time(x) {
  const times = (x.times ?? []).map((ms, at) => [ms, at]).filter(([ms]) => ms !== undefined);
  const drawn = times.filter(([, at]) => x.tokens[at]?.part === "drawn").map(([ms]) => ms);
  const first = drawn[0];
  const rest = drawn.slice(1).sort((a, b) => a - b);
  const middle = rest[Math.floor(rest.length / 2)];
  const button = h("button", { type: "button", class: "button", "data-key": "time", onclick: async () => {
    button.disabled = true;
    try {
      const ids = x.tokens.slice(0, Math.max(1, x.selected)).map((token) => token.id);
      x.parts = { at: x.selected, ...(await ask("api/time", { model: x.model, ids })) };
    } catch (error) {
      toast(error.message);
    }
    x.rerun();
  } }, "Time this token");
  const found = [h("h2", {}, "What a token costs")];
  if (drawn.length > 1) {
    const width = 100 / times.length;
    const longest = Math.max(...times.map(([ms]) => ms));
    found.push(facts([["to the first token", `${first.toFixed(0)} ms`], ["each after it", `${middle.toFixed(1)} ms`], ["speed", `${(1000 * drawn.length / drawn.reduce((a, b) => a + b, 0)).toFixed(0)} a second`]]),
    s("svg", { class: "gaps", viewBox: "0 0 100 30", preserveAspectRatio: "none", role: "img", "aria-label": "Milliseconds before each token" }, times.map(([ms, at], place) =>
      s("rect", { x: place * width + width * 0.1, width: width * 0.8, y: 30 - 30 * (ms / longest), height: 30 * (ms / longest), class: at === x.selected ? "on" : null }))),
    h("p", { class: "soft small" }, "The first token waits for the whole prompt to be read; each one after it is a single step. Measured here, where the tokens arrived."));
  } else {
    found.push(h("p", { class: "soft" }, "Ask something here, and the time before each of its tokens is shown."));
  }
  found.push(button);
  if (x.parts) {
    const total = x.parts.parts.reduce((sum, part) => sum + part.milliseconds, 0);
    const most = Math.max(...x.parts.parts.map((part) => part.milliseconds));
    found.push(h("p", { class: "soft" }, `One step of the plain model at place ${x.parts.at}: ${total.toFixed(2)} ms, most of it here:`),
      h("ul", { class: "bars" }, x.parts.parts.map((part) => h("li", {}, bar(part.milliseconds / most, part.part, `${part.milliseconds.toFixed(2)} ms`)))));
  }
  return found;
}

export const panels = { choices, attention, layers, memory, time };
