// Six steps through the X-ray, on a question that the model is asked for it.

import { h, iconButton } from "./dom.js";

const STEPS = [
  [".flow", "choices", "A text is a row of tokens", "The model never sees letters. It reads these pieces, each a number to it, and writes one after another. The marks between them say who is speaking.", (x) => x.select(x.promptSize)],
  ["#inside", "choices", "Every token was a choice", "Before each token the model gives every piece it knows a probability, and one is drawn. This is where it hesitated most in this answer.", (x) => x.select(unsure(x))],
  [".bars", "choices", "It could have gone otherwise", "Choose another token from this list, and the answer is written again from there. Small causes, large effects: try it after the tour.", (x) => x.select(unsure(x))],
  [".text-card", "attention", "Looking back", "The curves lead from where the model stood to where it looked. Some heads find the place where a word stood before and read on from there: that is how a recipe is copied.", (x) => x.select(copied(x))],
  ["#inside", "layers", "A thought, layer by layer", "The same prediction, read off after each layer. Early layers guess what often comes; later ones know what belongs here.", (x) => x.select(copied(x))],
  ["#inside", "memory", "What it remembers", "Of every token the model keeps a key and a value in each layer, and no more: when the places run out, it forgets. Under “Time” is what one more token costs.", (x) => x.select(x.tokens.length - 1)],
];

const own = (x) => x.tokens.map((token, i) => i).filter((i) => x.tokens[i].part === "drawn" && !x.tokens[i].special && x.rows[i - 1]);
/** Where the answer could most easily have been another. */
const unsure = (x) => own(x).sort((a, b) => x.rows[b - 1].entropy - x.rows[a - 1].entropy)[0] ?? x.promptSize;
/** A long token late in the answer that stood before: most likely copied. */
function copied(x) {
  const again = own(x).filter((i) => x.tokens[i].text.trim().length > 3 && x.tokens.slice(0, i - 1).some((token) => token.id === x.tokens[i].id));
  return again[Math.floor(again.length / 2)] ?? unsure(x);
}

export async function tour(x, shared, askAbout) {
  document.querySelector(".tour")?.remove();
  const back = document.activeElement;
  const note = h("section", { class: "tour arrive", role: "dialog", "aria-labelledby": "tour-title" });
  const wait = h("p", { class: "soft" }, "The model is answering…");
  document.body.append(note);
  const close = () => {
    document.querySelector(".toured")?.classList.remove("toured");
    note.remove();
    removeEventListener("hashchange", close);
    removeEventListener("keydown", escape);
    back?.focus();
  };
  const escape = (event) => event.key === "Escape" && close();
  addEventListener("hashchange", close);
  addEventListener("keydown", escape);
  if (!x.asked || !own(x).length) {
    note.append(h("h2", { id: "tour-title" }, "One moment"), wait);
    await askAbout("How do I make pancakes?");
  }
  if (!note.isConnected) return;
  if (!own(x).length) return close();
  go(0);

  function go(at) {
    const [selector, tab, title, text, prepare] = STEPS[at];
    x.showTab(tab);
    prepare(x);
    const buttons = h("div", { class: "row" }, h("span", { class: "soft small num grow" }, `${at + 1} of ${STEPS.length}`),
      at > 0 && h("button", { type: "button", class: "button", onclick: () => go(at - 1) }, "Back"),
      h("button", { type: "button", class: "button main", onclick: () => (at + 1 < STEPS.length ? go(at + 1) : close()) }, at + 1 < STEPS.length ? "Next" : "Done"));
    note.replaceChildren(h("header", { class: "row" }, h("h2", { id: "tour-title", class: "grow" }, title), iconButton("close", "End the tour", close)), h("p", {}, text), buttons);
    buttons.lastElementChild.focus();
    // The panel is drawn in the next frame.
    requestAnimationFrame(() => requestAnimationFrame(() => {
      document.querySelector(".toured")?.classList.remove("toured");
      const target = document.querySelector(`#view ${selector}`);
      target?.classList.add("toured");
      note.classList.toggle("left", selector !== ".flow" && selector !== ".text-card"); // beside what it speaks of
      target?.scrollIntoView({ block: "nearest" });
    }));
  }
}
