// X-ray: a text as the model has it, token by token, and what went on inside at each. Row r of the server's answers
// belongs to the token at place r and tells of the one after it; so what is shown for token i is row i - 1.

import { ask, stream } from "./api.js";
import { modelName } from "./chat.js";
import { calm, h, icon, percent, roving, say, tabs, toast, visible } from "./dom.js";
import { drawArcs, panels, shade } from "./inside.js";
import { messages, sampling, store } from "./store.js";
import { tour } from "./tour.js";

const KEPT = "nanochat.xray";
const TABS = [["choices", "Choices"], ["attention", "Attention"], ["layers", "Layers"], ["memory", "Memory"], ["time", "Time"]];
const QUESTIONS = ["How do I make pancakes?", "What is 12 plus 30?", "2 cups of flour serve 4. How much for 10 people?"];
const MOST_WEIGHTS = 1 << 23; // of attention, to have all rows of all heads here; beyond it only those looked at
const AT_ONCE = 1 << 20; // of them in one answer of the server

export function show(place, shared, given) {
  const x = {
    model: modelName(shared, store.settings.stage), asked: null, about: shared.run, tokens: [], rows: [], branches: [], branch: 0,
    selected: 0, tab: "choices", head: null, running: null, promptSize: 0, step, select, rerun: draw, need,
  };
  const flow = h("div", { class: "flow", role: "group", "aria-label": "Tokens", onkeydown: keys });
  const inspector = h("div", { class: "inspector", id: "inspector" });
  const forks = h("div", { class: "row forks", role: "group", "aria-label": "Branches" });
  const field = h("input", { class: "field", "aria-label": "A question or a text", placeholder: "Ask something, or paste a text to read…", maxlength: 2000 });
  const askButton = h("button", { class: "button main" }, "Ask");
  const form = h("form", { class: "row", onsubmit: (event) => (event.preventDefault(), submit()) }, h("div", { class: "grow" }, field), askButton,
    h("button", { type: "button", class: "button", title: "Look at the text as it is, without an answer", onclick: () => read(field.value) }, "Read"),
    h("button", { type: "button", class: "button", id: "tour", onclick: () => tour(x, shared, askAbout) }, icon("play", 16), "Take the tour"));
  const list = tabs("What to look at", TABS, (name) => {
    x.tab = name;
    inspector.id = `panel-${name}`;
    inspector.setAttribute("aria-labelledby", `tab-${name}`);
    draw();
  });
  inspector.setAttribute("role", "tabpanel");
  inspector.tabIndex = 0;
  x.showTab = (name) => list.take(name);
  const legend = h("p", { class: "legend soft small" });
  const empty = h("div", { class: "empty" }, h("p", {}, "Every answer is a long row of small decisions. Ask something, and watch them being made; or take an answer from the chat and choose “X-ray” below it."),
    h("p", { class: "suggest center" }, QUESTIONS.map((question) => h("button", { type: "button", class: "button", onclick: () => askAbout(question) }, question))));
  const bench = h("div", { class: "bench", hidden: true },
    h("section", { class: "card text-card", "aria-label": "Text" }, forks, h("div", { class: "flow-box" }, flow), legend),
    h("section", { class: "card", id: "inside", "aria-label": "Inside" }, list, inspector));
  place.append(h("div", { class: "page" }, h("header", {}, h("h1", {}, "X-ray"),
    h("p", {}, "What the model weighed, where it looked, and what each layer would have said.")), form, empty, bench));

  const resized = new ResizeObserver(() => drawArcs(x, flow));
  resized.observe(flow);
  const repaint = () => draw();
  document.addEventListener("theme", repaint);
  begin();

  async function begin() {
    try {
      if (given?.tokens) await open({ model: modelName(shared, given.stage), asked: given.messages, answer: given.tokens.map(([id]) => id), sampled: given.tokens.map((token) => token[2]) });
      else if (sessionStorage.getItem(KEPT)) await open(JSON.parse(sessionStorage.getItem(KEPT)));
    } catch (error) {
      sessionStorage.removeItem(KEPT);
      toast(error.message);
    }
  }

  /** Look at a text that is there already: a conversation with its answer, or bare ids. */
  async function open({ model, asked, ids, answer, sampled }) {
    x.model = model;
    let all = ids;
    x.promptSize = 1;
    if (!all) {
      const { tokens } = await ask("api/prompt", { model, messages: asked });
      x.promptSize = tokens.length;
      all = [...tokens.map((token) => token.id), ...answer];
    }
    x.asked = asked;
    x.sampled = sampled;
    x.branches = [{ title: "The answer", ids: all, answer, sampled, model, asked, promptSize: x.promptSize }];
    x.branch = 0;
    await load(all);
  }

  async function load(ids) {
    const { rows } = await ask("api/xray", { model: x.model, ids: ids.slice(0, shared.run.model.context), attention: false });
    x.tokens = rows.map((row) => row.token);
    x.rows = rows;
    mark();
    keep();
    x.selected = Math.min(x.tokens.length - 1, Math.max(1, x.promptSize));
    drawAll();
  }

  function keep() {
    const { model, asked, ids, answer, sampled } = x.branches[x.branch] ?? {};
    try {
      if (model) sessionStorage.setItem(KEPT, JSON.stringify({ model, asked, ids: asked ? undefined : ids, answer, sampled }));
    } catch {} // it is only for a reload
  }

  /** Whose each token is: the prompt's, the model's, or a tool's. */
  function mark() {
    x.tokens.forEach((token, at) => {
      const own = at - x.promptSize;
      token.part = own < 0 ? "given" : x.sampled && x.sampled[own] === 0 ? "tool" : "drawn";
    });
  }

  function submit() {
    if (x.running) return x.running.abort();
    if (field.value.trim()) askAbout(field.value.trim());
  }

  async function read(text) {
    if (!text.trim()) return field.focus();
    try {
      const { pieces } = await ask("api/tokens", { model: x.model, text });
      const bos = (await ask("api/prompt", { model: x.model, messages: [{ role: "user", content: "." }] })).tokens[0].id;
      await open({ model: x.model, ids: [bos, ...pieces.flatMap((piece) => piece.tokens.map((token) => token.id))] });
    } catch (error) {
      toast(error.message);
    }
  }

  async function askAbout(question) {
    x.model = modelName(shared, store.settings.stage);
    x.asked = messages([{ question, answers: [], active: 0 }], store.settings.system);
    x.branches = [];
    await answer([], "The answer");
  }

  /** Have the model answer, after tokens that are `forced` on it; chips appear as they are drawn. */
  async function answer(forced, title) {
    x.running?.abort();
    const mine = (x.running = new AbortController());
    askButton.textContent = "Stop";
    const branch = { title, answer: [], sampled: [], model: x.model, asked: x.asked };
    try {
      const { tokens } = await ask("api/prompt", { model: x.model, messages: x.asked }, mine.signal);
      branch.promptSize = x.promptSize = tokens.length;
      x.branch = x.branches.push(branch) - 1;
      x.tokens = tokens;
      x.sampled = branch.sampled;
      x.rows = [];
      x.times = [];
      mark();
      x.selected = tokens.length - 1;
      drawAll();
      let before = performance.now();
      const body = { model: x.model, messages: x.asked, ...sampling(store.settings), max_tokens: Math.min(store.settings.max_tokens, 160),
        nanochat: { alternatives: 8, ...(forced.length && { forced }) } };
      for await (const token of stream(body, mine.signal)) {
        if (token.finish) continue;
        const special = shared.run.specials[token.id];
        const text = special ?? token.choices.find((choice) => choice.id === token.id)?.text ?? token.text;
        const at = x.tokens.push({ id: token.id, text, bytes: "", special: Boolean(special), part: token.sampled ? "drawn" : "tool" }) - 1;
        branch.answer.push(token.id);
        branch.sampled.push(token.sampled ? 1 : 0);
        if (token.sampled && token.choices.length) x.rows[at - 1] = { next: token.choices, entropy: token.entropy, came: { p: token.p } };
        x.times[at] = token.at - before;
        before = token.at;
        x.selected = at;
        flow.append(...chip(at));
        if (x.tab !== "choices" && x.tab !== "time") need();
        draw();
      }
    } catch (error) {
      if (error.name !== "AbortError") toast(error.message);
    }
    if (x.running !== mine) return;
    x.running = null;
    askButton.textContent = "Ask";
    if (!branch.answer.length) return;
    // Now all of it once more, read as a text: what was drawn by then is as likely as it was.
    const at = Math.min(x.tokens.length - 1, forced.length ? branch.promptSize + forced.length - 1 : branch.promptSize);
    const times = x.times;
    branch.ids = x.tokens.map((token) => token.id);
    await load(branch.ids).catch((error) => toast(error.message));
    x.times = times;
    select(at);
    say(`${branch.answer.length} tokens`);
  }

  /** Go another way from token i on. */
  function step(i, choice) {
    const drawn = x.branches[x.branch];
    const forced = [];
    for (let at = x.promptSize; at < i; at += 1) if (drawn.sampled?.[at - x.promptSize] !== 0) forced.push(x.tokens[at].id);
    answer([...forced, choice.id], `“${visible(choice)}” for “${visible(x.tokens[i])}”`);
  }
  x.canBranch = (i) => Boolean(x.asked) && !x.running && i >= x.promptSize && x.tokens[i].part === "drawn";

  let busy = null;
  /** Rows with attention and lens, as far as they are missing: one request at a time, and each row once. */
  function need() {
    busy ??= fetchRows().catch((error) => toast(error.message)).finally(() => (busy = null));
    return busy;
  }
  async function fetchRows() {
    const { n_layer, n_head } = shared.run.model;
    for (;;) {
      const { tokens, rows } = x;
      const ids = tokens.map((token) => token.id);
      const small = n_layer * n_head * ids.length ** 2 <= MOST_WEIGHTS;
      // The rows that are looked at go first.
      const wanted = Math.max(0, x.selected - 1);
      const start = !rows[wanted]?.attention ? wanted : small ? ids.findIndex((_, at) => !rows[at]?.attention) : -1;
      if (start < 0) return;
      const chunk = Math.max(1, Math.floor(AT_ONCE / (n_layer * n_head * ids.length)));
      ids.length = start === wanted ? start + 1 : Math.min(ids.length, start + chunk);
      const found = await ask("api/xray", { model: x.model, ids, start });
      if (tokens !== x.tokens) continue; // another text by now
      found.rows.forEach((row, at) => {
        row.attention = Uint8Array.from(atob(row.attention), (c) => c.charCodeAt(0));
        rows[start + at] = { ...rows[start + at], ...row };
      });
      draw();
    }
  }

  function select(i) {
    x.selected = Math.max(0, Math.min(x.tokens.length - 1, i));
    draw();
  }

  /** Scroll a token into sight, within the text alone. */
  function into(button) {
    const box = flow.parentElement;
    const top = button.offsetTop - box.clientHeight / 2;
    if (Math.abs(top - box.scrollTop) > box.clientHeight / 2 - 40) box.scrollTo({ top, behavior: calm() || x.running ? "instant" : "smooth" });
  }

  function keys(event) {
    const buttons = [...flow.querySelectorAll(".chip")];
    roving(event, buttons, x.selected, select);
  }

  function chip(i) {
    const token = x.tokens[i];
    const opens = token.special && /_start\|>$/.test(token.text) && i > 1 && !/call|output/.test(token.text);
    const ends = token.text.endsWith("\n") && !token.special;
    return [opens && h("span", { class: "break" }), h("button", {
      type: "button", class: `chip ${token.part}${token.special ? " special" : ""}`, tabindex: -1, "data-i": i, onclick: () => select(i),
      "aria-label": token.text.trim() ? null : token.text.includes("\n") ? "line end" : "space",
    }, token.special ? visible(token) : token.text.replace(/\n/g, "\u21b5").replace(/\ufffd/g, "\u25a1")), ends && h("span", { class: "break" })].filter(Boolean);
  }

  function drawAll() {
    empty.hidden = true;
    bench.hidden = false;
    flow.replaceChildren(...x.tokens.flatMap((_, i) => chip(i)));
    forks.hidden = x.branches.length < 2;
    forks.replaceChildren(...x.branches.map((branch, at) => h("button", { type: "button", class: "tab", "aria-pressed": at === x.branch, onclick: () => {
      if (x.running) return;
      Object.assign(x, { branch: at, model: branch.model, asked: branch.asked, sampled: branch.sampled, promptSize: branch.promptSize, times: null });
      load(branch.ids ?? []).catch((error) => toast(error.message));
    } }, icon("branch", 15), branch.title)));
    draw();
  }

  let asked = false;
  /** Colours, arcs and the panel, once a frame. */
  function draw() {
    if (asked || !x.tokens.length) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      if (!place.contains(flow)) return;
      if (inspector.matches(":active")) return setTimeout(draw, 40); // a button that is being pressed must stay
      const inner = x.tab === "attention" || x.tab === "layers" || x.tab === "memory";
      if (inner && !x.running && !x.rows[Math.max(0, x.selected - 1)]?.attention) need();
      flow.className = `flow by-${x.tab}`;
      for (const button of flow.querySelectorAll(".chip")) {
        const i = Number(button.dataset.i);
        const on = i === x.selected;
        if (on && button.getAttribute("aria-pressed") !== "true") into(button);
        button.tabIndex = on ? 0 : -1;
        button.setAttribute("aria-pressed", on);
        button.style.setProperty("--s", shade(x, i).toFixed(3));
        const row = x.rows[i - 1];
        button.title = row?.came ? `${percent(row.came.p)} likely` : "";
      }
      legend.textContent = LEGENDS[x.tab];
      drawArcs(x, flow);
      const focused = inspector.contains(document.activeElement) ? document.activeElement.dataset.key : null;
      inspector.replaceChildren(...panels[x.tab](x));
      if (focused) inspector.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    });
  }

  return () => {
    x.running?.abort();
    resized.disconnect();
    document.removeEventListener("theme", repaint);
  };
}

const LEGENDS = {
  choices: "The darker a token, the less likely the model found it. Arrow keys go from token to token.",
  attention: "The darker, the more the model looked there before it wrote the framed token.",
  layers: "The darker, the later the layer at which this token came out on top.",
  memory: "Filled: what the cache holds when the framed token is written.",
  time: "The darker, the longer this token took to arrive.",
};
