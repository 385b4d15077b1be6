// How answers are drawn, in plain words, with a picture of what each control does to a distribution.

import { $, h, iconButton } from "./dom.js";
import { DEFAULTS, store } from "./store.js";

// Scores of a made-up next token: only their shape matters here.
const EXAMPLE = { sugar: 3.1, butter: 2.4, flour: 2.0, milk: 1.4, salt: 0.8, honey: 0.1, gravel: -1.2 };
const CONTROLS = [
  ["temperature", "Temperature", 0, 2, 0.05, (v) => (v === 0 ? "always the likeliest token" : v < 0.5 ? "careful" : v <= 1 ? "as the model has it, or a little tamer" : "wilder than the model itself")],
  ["top_p", "Top-p", 0.05, 1, 0.05, (v) => (v === 1 ? "every token may come" : `only the likeliest, that together hold ${Math.round(100 * v)} %`)],
  ["top_k", "Top-k", 0, 50, 1, (v) => (v === 0 ? "no limit" : v === 1 ? "only the likeliest" : `only the ${v} likeliest`)],
  ["max_tokens", "Longest answer", 16, 512, 16, (v) => `at most ${v} tokens, about ${Math.round(0.7 * v)} words`],
];

/** Probabilities of the example under these settings. */
export function reshaped({ temperature, top_p, top_k }) {
  const names = Object.keys(EXAMPLE).sort((a, b) => EXAMPLE[b] - EXAMPLE[a]);
  const scores = names.map((name) => Math.exp((EXAMPLE[name] - EXAMPLE[names[0]]) / Math.max(temperature, 1e-3)));
  const kept = scores.map((score, at) => (top_k && at >= top_k ? 0 : score));
  const sum = (list) => list.reduce((a, b) => a + b, 0);
  const total = sum(kept);
  const left = kept.map((score, at) => (sum(kept.slice(0, at)) / total < top_p ? score : 0));
  return names.map((name, at) => [name, left[at] / sum(left)]);
}

/** Show the controls. What is changed holds from the next answer on. */
export function settingsDialog() {
  const { settings } = store;
  const picture = h("div", { class: "reshaped", role: "img" });
  const redraw = () => {
    const bars = reshaped(store.settings);
    picture.setAttribute("aria-label", `For example: ${bars.map(([name, p]) => `${name} ${Math.round(100 * p)} %`).join(", ")}`);
    picture.replaceChildren(...bars.map(([name, p]) => h("div", { vars: { p: p.toFixed(3) } }, h("i"), h("span", {}, name))));
  };
  const sliders = CONTROLS.map(([name, title, min, max, step, words]) => {
    const hint = h("span", { class: "soft small", id: `hint-${name}` });
    const value = h("output", { class: "num", for: `set-${name}` });
    const slider = h("input", { type: "range", id: `set-${name}`, min, max, step, "aria-describedby": `hint-${name}`, oninput: () => {
      store.set({ [name]: Number(slider.value) });
      tell();
    } });
    const tell = () => {
      slider.value = store.settings[name];
      value.textContent = store.settings[name];
      hint.textContent = words(store.settings[name]);
      slider.setAttribute("aria-valuetext", `${store.settings[name]}, ${hint.textContent}`);
      redraw();
    };
    return { tell, row: h("div", { class: "control" }, h("label", { for: `set-${name}` }, title), value, slider, hint) };
  });
  const seed = h("input", { class: "field", id: "set-seed", inputmode: "numeric", pattern: "\\d{0,9}", placeholder: "another each time", value: settings.seed,
    oninput: () => store.set({ seed: /^\d{1,9}$/.test(seed.value) ? seed.value : "" }) });
  const system = h("textarea", { id: "set-system", rows: 3, maxlength: 2000, value: settings.system, placeholder: "Nothing: the model answers as it was taught",
    oninput: () => store.set({ system: system.value.trim() }) });
  const dialog = h("dialog", { class: "settings", "aria-labelledby": "settings-title", onclose: () => dialog.remove(), onclick: (event) => event.target === dialog && dialog.close() },
    h("header", {}, h("h2", { id: "settings-title" }, "How it answers"), iconButton("close", "Close", () => dialog.close())),
    h("p", { class: "soft small" }, "At each step the model gives every token a probability, and one is drawn. These bend the odds before the draw:"),
    picture, sliders.map(({ row }) => row),
    h("div", { class: "control" }, h("label", { for: "set-seed" }, "Seed"), seed, h("span", { class: "soft small" }, "the same seed and question give the same answer")),
    h("div", { class: "control" }, h("label", { for: "set-system" }, "System message"), system, h("span", { class: "soft small" }, "said before the conversation begins")),
    h("div", { class: "row" }, h("button", { type: "button", class: "button", onclick: () => {
      store.set({ ...DEFAULTS, stage: store.settings.stage });
      seed.value = system.value = "";
      sliders.forEach(({ tell }) => tell());
    } }, "As it was"), h("span", { class: "grow" }), h("button", { type: "button", class: "button main", onclick: () => dialog.close() }, "Done")));
  document.body.append(dialog);
  dialog.showModal();
  sliders.forEach(({ tell }) => tell());
  $("#set-temperature").focus();
}
