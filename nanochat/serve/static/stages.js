// The same question to every stage of training, side by side; and one prompt through all of training, as a time-lapse.

import { stream } from "./api.js";
import { modelName, partElements } from "./chat.js";
import { h, player, plural, say, whole } from "./dom.js";
import { add, sampling, store } from "./store.js";

const ABOUT = {
  pretrain: ["Goes on with any text", "It has read a cookbook and an encyclopedia. It does not answer: it continues."],
  midtrain: ["Knows what a conversation is", "It has learned turns, tools and sums, all a little."],
  sft: ["Answers questions", "It has been shown good answers, and how to say no."],
  rl: ["Checks its sums", "It was rewarded where an answer could be verified."],
};

export function show(place, shared) {
  const stages = shared.run.stages;
  let running = null;
  const field = h("input", { class: "field", "aria-label": "Question for all stages", placeholder: "Ask all stages the same…", maxlength: 2000 });
  const button = h("button", { class: "button main" }, "Ask all");
  const questions = ["How do I make pancakes?", ...(stages.at(-1)?.recorded ?? []).map((one) => one.question)];
  const columns = h("div", { class: "columns" });
  const cards = stages.map((stage) => {
    const body = h("div", { class: "answer" }, h("p", { class: "soft" }, ABOUT[stage.name]?.[1] ?? ""));
    const note = h("p", { class: "soft small" });
    columns.append(h("section", { class: "card column", "aria-labelledby": `stage-${stage.name}` },
      h("header", {}, h("h2", { id: `stage-${stage.name}` }, stage.name), h("p", { class: "soft small" }, ABOUT[stage.name]?.[0] ?? "", stage.steps ? ` · ${plural(stage.steps, "step")}` : "")), body, note));
    return { stage, body, note };
  });
  place.append(h("div", { class: "page" },
    h("header", {}, h("h1", {}, "Stages"), h("p", {}, "One model, four times schooled. Ask all of them the same, and see what each stage has added.")),
    stages.length ? [
      h("form", { class: "row", onsubmit: (event) => (event.preventDefault(), running ? running.abort() : askAll(field.value.trim())) }, h("div", { class: "grow" }, field), button),
      h("div", { class: "suggest" }, questions.filter((question) => question.length < 64).slice(0, 6).map((question) => h("button", { type: "button", class: "button", onclick: () => ((field.value = question), askAll(question)) }, question))),
      columns, lapse(stages)] : h("p", { class: "empty" }, "No stage of this run has been trained yet.")));

  async function askAll(question) {
    if (!question || running) return;
    running = new AbortController();
    button.textContent = "Stop";
    for (const { stage, body, note } of cards) {
      note.textContent = "";
      body.replaceChildren(...(stage.speaks ? partElements([], true) : recording(stage, question, note)));
    }
    // One after the other: side by side they would only wait for each other.
    for (const card of cards.filter(({ stage }) => stage.speaks)) await askOne(card, question);
    running = null;
    button.textContent = "Ask all";
    say("All stages have answered");
  }

  async function askOne({ stage, body, note }, question) {
    const answer = { parts: [], tokens: [] };
    const began = performance.now();
    const lead = stage.name === "pretrain" ? h("span", { class: "soft" }, question) : null;
    const draw = (live) => body.replaceChildren(...(lead ? [h("p", { class: "pre" }, lead, answer.parts.map((part) => part.text).join(""))] : partElements(answer.parts, live)));
    try {
      const body = { model: modelName(shared, stage.name), messages: [{ role: "user", content: question }], ...sampling({ ...store.settings, seed: store.settings.seed || 0 }) };
      for await (const token of stream(body, running.signal)) {
        if (token.finish) {
          note.textContent = `${plural(answer.tokens.length, "token")} in ${((performance.now() - began) / 1000).toFixed(1)} s${token.provenance ? ` · recipe ${token.provenance}` : ""}`;
        } else {
          add(answer, token);
          draw(true);
        }
      }
      draw(false);
      if (!answer.parts.length) body.replaceChildren(h("p", { class: "soft" }, "(an empty answer)"));
    } catch (error) {
      if (error.name === "AbortError") note.textContent = "Stopped.";
      else body.replaceChildren(h("p", { class: "error" }, error.message));
    }
  }

  return () => running?.abort();
}

/** What a stage whose weights are not here once answered to this question. */
function recording(stage, question, note) {
  const found = stage.recorded.find((one) => one.question === question);
  const lapsed = stage.lapse.filter((row) => row.prompt === question).at(-1);
  note.textContent = found || lapsed ? "Recorded when the stage was trained: its weights are not in this run." : "";
  if (found) return partElements(found.answer, false);
  if (lapsed) {
    // As it was written down: "[find pancakes = what was found] what was said".
    const [, call, output, said] = lapsed.text.match(/^\[(\w+ [^=\n]+?) = ([\s\S]*?)\] ([\s\S]*)$/) ?? [];
    return call ? partElements([{ type: "call", text: call }, { type: "output", text: output }, { type: "text", text: said }], false) : [h("p", { class: "pre" }, lapsed.text)];
  }
  return [h("p", { class: "soft" }, "The weights of this stage were not shipped, and nobody asked it this when they were here. A run of your own keeps them all: ", h("code", {}, "nanochat run"))];
}

/** One prompt through all of training. */
function lapse(stages) {
  const prompts = [...new Set(stages.flatMap((stage) => stage.lapse.map((row) => row.prompt)))];
  const section = h("section", { class: "card lapse", "aria-labelledby": "lapse-title" }, h("h2", { id: "lapse-title" }, "Time-lapse"));
  if (!prompts.length) {
    section.append(h("p", { class: "soft" }, "While it trains, a model is asked the same again and again. This run has kept no such answers."));
    return section;
  }
  const count = (prompt) => stages.reduce((sum, stage) => sum + stage.lapse.filter((row) => row.prompt === prompt).length, 0);
  prompts.sort((a, b) => count(b) - count(a));
  const choose = h("select", { "aria-label": "Prompt", onchange: () => begin(choose.value) }, prompts.map((prompt) => h("option", { value: prompt }, prompt.trim())));
  const track = h("div", { class: "track", "aria-hidden": "true" });
  const controls = h("div", { class: "row" });
  const text = h("p", { class: "lapse-text" });
  const where = h("p", { class: "num" });
  section.append(h("div", { class: "row" }, h("p", { class: "soft grow" }, "The same prompt, asked again and again while the model learned. What is new against the moment before is marked."), choose),
    controls, where, text);

  function begin(prompt) {
    const frames = stages.flatMap((stage) => stage.lapse.filter((row) => row.prompt === prompt).map((row) => ({ ...row, stage: stage.name, text: row.text.trim() })));
    track.replaceChildren(...stages.map((stage) => [stage.name, frames.filter((frame) => frame.stage === stage.name).length]).filter(([, n]) => n)
      .map(([stage, n]) => h("span", { vars: { n } }, stage)));
    const { button, slider, go } = player("Moment of training", frames.length - 1, (at) => {
      where.textContent = `${frames[at].stage} · step ${whole(frames[at].step)}`;
      text.replaceChildren(...marked(frames[at - 1]?.text ?? "", frames[at].text));
      return where.textContent;
    }, 1100);
    controls.replaceChildren(button, h("div", { class: "grow" }, track, slider));
    go(0);
  }
  begin(prompts[0]);
  return section;
}

/** The words of `now`, those marked that are not, in this order, in `before` (longest common subsequence). */
export function marked(before, now) {
  const a = before.split(/(?<=\s)/);
  const b = now.split(/(?<=\s)/);
  const common = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      common[i][j] = a[i].trim() === b[j].trim() ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
    }
  }
  const found = [];
  for (let i = 0, j = 0; j < b.length; ) {
    if (i < a.length && a[i].trim() === b[j].trim()) found.push(b[((i += 1), j++)]);
    else if (i < a.length && common[i + 1][j] >= common[i][j + 1]) i += 1;
    else found.push(before ? h("mark", {}, b[j++]) : b[j++]);
  }
  return found;
}
