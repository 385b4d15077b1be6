// Chat: a question, and an answer that writes itself, with the calls of tools as they happen.

import { stream } from "./api.js";
import { $, copy, download, h, icon, iconButton, say, toast } from "./dom.js";
import { markdown } from "./markdown.js";
import { settingsDialog } from "./settings.js";
import { add, asMarkdown, messages, sampling, store, textOf } from "./store.js";

const IDEAS = [
  ["book", "Look up a recipe", "How do I make pancakes?"],
  ["sum", "Scale it", "2 cups of flour serve 4. How much for 10 people?"],
  ["spark", "Replace something", "What can I use instead of butter?"],
  ["chat", "Find its limits", "Who are you, and what can you not do?"],
];
const ENDINGS = {
  length: "Cut short: there was no room for more tokens.",
  malformed: "Ended by a special token that had no place here.",
  stopped: "Stopped.",
};

export function show(place, shared) {
  let running = null; // AbortController of the answer being written
  const log = h("ol", { class: "log", "aria-label": "Conversation" });
  const scroller = h("div", { class: "scroller", tabindex: "-1" }, log);
  const field = h("textarea", { rows: 1, "aria-label": "Message", placeholder: "Ask about cooking…", maxlength: 8000,
    oninput: grow, onkeydown: (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) (event.preventDefault(), submit());
      if (event.key === "Escape" && running) running.abort();
    } });
  const send = h("button", { type: "submit", class: "send", "aria-label": "Send" }, icon("send"));
  const form = h("form", { class: "composer", onsubmit: (event) => (event.preventDefault(), submit()) },
    h("div", { class: "box" }, field, h("div", { class: "row tools" },
      stageChoice(shared),
      h("button", { type: "button", class: "tool-button wide", "aria-label": "How it answers", onclick: settingsDialog }, icon("tune", 18), h("span", {}, "How it answers")),
      h("span", { class: "grow" }),
      h("button", { type: "button", class: "tool-button", "aria-label": "Export this conversation", title: "Export", onclick: exportTalk }, icon("save", 18)),
      send)),
    h("p", { class: "soft small fine" }, "A small model: it makes things up. Recipes are marked found or invented."));
  const latest = h("button", { type: "button", class: "button latest", hidden: true, onclick: () => toEnd(true) }, icon("down", 16), "Latest");
  place.append(h("h1", { class: "sr" }, "Chat"), scroller, latest, form);
  scroller.addEventListener("scroll", () => (latest.hidden = nearEnd()));
  draw();
  if (matchMedia("(min-width: 821px)").matches) field.focus();

  function draw() {
    const { turns } = store.current;
    log.replaceChildren(...turns.map((turn, at) => turnElement(turn, at)));
    scroller.classList.toggle("begins", !turns.length);
    $(".hello", scroller)?.remove();
    if (!turns.length) scroller.prepend(hello());
    toEnd(true);
  }

  function hello() {
    const { model, parameters, tools } = shared.run;
    return h("section", { class: "hello arrive" },
      h("h2", {}, "What shall we cook?"),
      h("p", {}, `${(parameters / 1e6).toFixed(1)} million numbers in ${model.n_layer} layers, trained from raw text, on your own machine. `,
        tools.includes("find") ? "It looks recipes up in a real cookbook, and counts with a calculator." : "The cookbook is not here, so its recipes are invented."),
      h("ul", {}, IDEAS.map(([drawn, title, question]) => h("li", {}, h("button", { type: "button", class: "idea", onclick: () => begin(question) },
        icon(drawn), h("span", {}, h("b", {}, title), question))))));
  }

  function turnElement(turn, at) {
    const asked = h("div", { class: "asked" }, h("span", { class: "sr" }, "You: "), h("p", {}, turn.question));
    const actions = h("div", { class: "actions mine" },
      iconButton("edit", "Edit this question", () => edit(turn, at, asked)),
      iconButton("copy", "Copy the question", () => copied(turn.question)));
    const item = h("li", { class: "turn" }, h("div", { class: "mine-side" }, asked, actions));
    item.append(answerElement(turn, at));
    return item;
  }

  function answerElement(turn, at) {
    const answer = turn.answers[turn.active];
    const body = h("div", { class: "answer" }, h("span", { class: "sr" }, "nanochat: "));
    if (!answer) return body;
    body.append(...partElements(answer.parts, false));
    if (!textOf(answer).trim() && !answer.parts.length) body.append(h("p", { class: "soft" }, "(an empty answer)"));
    body.append(...remarks(answer));
    body.append(h("div", { class: "actions" },
      turn.answers.length > 1 && h("span", { class: "versions" },
        iconButton("left", "Earlier answer", () => version(turn, -1), { disabled: turn.active === 0 }),
        h("span", { class: "num small" }, `${turn.active + 1} of ${turn.answers.length}`),
        iconButton("right", "Later answer", () => version(turn, 1), { disabled: turn.active === turn.answers.length - 1 })),
      iconButton("copy", "Copy the answer", () => copied(textOf(answer))),
      iconButton("redo", "Another answer", () => answerTurn(turn, at)),
      answer.tokens.length > 0 && h("button", { type: "button", class: "tool-button wide", onclick: () => look(at, answer) }, icon("xray", 18), "X-ray")));
    return body;
  }

  function version(turn, step) {
    turn.active += step;
    store.save();
    draw();
  }

  function edit(turn, at, asked) {
    const draft = h("textarea", { rows: 3, "aria-label": "Edit your question", value: turn.question, maxlength: 8000 });
    const done = (event) => {
      event.preventDefault();
      const question = draft.value.trim();
      if (!question || running) return;
      const later = store.current.turns.splice(at);
      store.save();
      if (later.length > 1) toast("Later turns were dropped", "Undo", () => (store.current.turns.splice(at, 9e9, ...later), store.save(), draw()));
      begin(question);
    };
    asked.replaceChildren(h("form", { class: "edit", onsubmit: done, onkeydown: (event) => {
      if (event.key === "Enter" && !event.shiftKey) done(event);
      if (event.key === "Escape") draw();
    } }, draft, h("div", { class: "row" }, h("button", { class: "button main" }, "Ask again"),
      h("button", { type: "button", class: "button", onclick: draw }, "Cancel"))));
    draft.focus();
  }

  function submit() {
    if (running) return running.abort();
    const question = field.value.trim();
    if (!question) return;
    field.value = "";
    grow();
    begin(question);
  }

  function begin(question) {
    if (running) return;
    const turn = { question, answers: [], active: 0 };
    store.current.turns.push(turn);
    answerTurn(turn, store.current.turns.length - 1);
  }

  /** Have a turn answered, beside the answers that it has already. What follows it is forgotten. */
  async function answerTurn(turn, at) {
    if (running) return;
    const talk = store.current;
    talk.turns.length = at + 1;
    const answer = { parts: [], tokens: [], finish: null, provenance: null, stage: store.settings.stage || shared.run.stage };
    const asked = messages([...talk.turns.slice(0, at), { ...turn, answers: [], active: 0 }], store.settings.system);
    turn.answers.push(answer);
    turn.active = turn.answers.length - 1;
    store.save();
    draw();
    const item = log.lastElementChild;
    const live = h("div", { class: "answer live" }, h("span", { class: "sr" }, "nanochat: "), waiting());
    item.lastElementChild.replaceWith(live);
    item.classList.add("arrive");
    toEnd(true);
    running = new AbortController();
    setRunning(true);
    let drawn = false;
    const redraw = () => {
      drawn = false;
      const follow = nearEnd();
      live.replaceChildren(...partElements(answer.parts, true));
      if (follow) toEnd();
    };
    try {
      const body = { model: modelName(shared, answer.stage), messages: asked, ...sampling(store.settings) };
      for await (const token of stream(body, running.signal)) {
        if (token.finish) {
          answer.finish = token.finish;
          answer.provenance = token.provenance;
        } else {
          add(answer, token);
          if (!drawn) (drawn = true, requestAnimationFrame(redraw));
        }
      }
    } catch (error) {
      if (error.name === "AbortError") answer.finish = "stopped";
      else answer.error = error.message;
    }
    running = null;
    setRunning(false);
    if (answer.error && !answer.parts.length) {
      // Nothing was said: the question goes back to where it can be sent again.
      turn.answers.pop();
      turn.active = Math.max(0, turn.answers.length - 1);
      if (!turn.answers.length) (talk.turns.pop(), (field.value ||= turn.question), grow());
      toast(answer.error);
      say(answer.error);
    } else {
      say(`Answer: ${textOf(answer)}`);
    }
    store.save();
    if (place.contains(log) && store.current === talk) draw();
  }

  function setRunning(on) {
    send.replaceChildren(icon(on ? "stop" : "send"));
    send.setAttribute("aria-label", on ? "Stop" : "Send");
    send.classList.toggle("stops", on);
    log.setAttribute("aria-busy", on);
  }

  function look(at, answer) {
    const { turns } = store.current;
    shared.go("xray", { messages: messages([...turns.slice(0, at), { ...turns[at], answers: [] }], store.settings.system),
      tokens: answer.tokens, stage: answer.stage });
  }

  function exportTalk() {
    const { current } = store;
    if (!current.turns.length) return toast("There is nothing to export yet");
    const name = (current.title || "conversation").replace(/[^\w]+/g, "-").slice(0, 40).toLowerCase();
    const dialog = h("dialog", { "aria-labelledby": "export-title", onclose: () => dialog.remove() },
      h("header", {}, h("h2", { id: "export-title" }, "Export this conversation"), iconButton("close", "Close", () => dialog.close())),
      h("div", { class: "row" },
        h("button", { type: "button", class: "button", onclick: () => (download(`${name}.md`, "text/markdown", asMarkdown(current)), dialog.close()) }, "Markdown, to read"),
        h("button", { type: "button", class: "button", onclick: () => (download(`${name}.json`, "application/json", JSON.stringify(current, null, 1)), dialog.close()) }, "JSON, with every token")));
    document.body.append(dialog);
    dialog.showModal();
  }

  function copied(text) {
    copy(text);
    toast("Copied");
  }

  function grow() {
    field.rows = 1;
    field.rows = Math.min(8, Math.max(1, Math.round((field.scrollHeight - 16) / 26)));
  }
  function nearEnd() {
    return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 90;
  }
  function toEnd(now) {
    scroller.scrollTo({ top: scroller.scrollHeight, behavior: now ? "instant" : "auto" });
  }
  return () => running?.abort();
}

/** The name under which the server knows a stage. */
export function modelName(shared, stage) {
  return `${shared.run.run}:${stage || shared.run.stage}`;
}

/** Which of the run's stages answers; nothing where there is one only. */
function stageChoice(shared) {
  const speaking = shared.run.stages.filter((stage) => stage.speaks).map((stage) => stage.name);
  if (!speaking.includes(store.settings.stage)) store.settings.stage = "";
  if (speaking.length < 2) return null;
  return h("select", { "aria-label": "Stage that answers", onchange: (event) => store.set({ stage: event.target.value }) },
    speaking.map((name) => h("option", { value: name, selected: name === (store.settings.stage || shared.run.stage) }, name)));
}

const waiting = () => h("p", { class: "waiting" }, h("span", { class: "sr" }, "Reading the question"), h("i"), h("i"), h("i"));

/** The elements of an answer's parts. While it is `live`, what is last may go on. */
export function partElements(parts, live) {
  const found = [];
  parts.forEach((part, at) => {
    if (part.type === "text") found.push(h("div", { class: "prose" }, markdown(part.text)));
    else if (part.type === "call") {
      const output = parts[at + 1]?.type === "output" ? parts[at + 1].text : null;
      found.push(callElement(part.text, output, live && at >= parts.length - 2));
    }
  });
  if (live && !parts.length) found.push(waiting());
  return found;
}

/** A call of a tool: a sum on one line, a recipe to unfold. */
function callElement(text, output, live) {
  const [, tool = "", argument = ""] = text.match(/^\s*(\S*)\s*([\s\S]*)$/) ?? [];
  if (tool === "calculator") {
    return h("p", { class: "call" }, icon("sum", 18), h("span", {}, h("span", { class: "sr" }, "Calculator: "),
      h("code", {}, argument), output !== null && h("b", {}, ` = ${output}`)));
  }
  const none = output !== null && /^(no recipe found|error:)/.test(output.trim());
  const state = output === null ? (live ? "looking…" : "no answer came") : none ? "nothing found" : "found in the Cookbook";
  const summary = [icon("book", 18), h("span", { class: "grow" }, tool === "find" ? "Looked up " : `${tool} `, h("b", {}, argument)), h("span", { class: "soft small" }, state)];
  if (output === null || none) return h("p", { class: "call" }, summary);
  return h("details", { class: "call" }, h("summary", {}, summary), h("div", { class: "prose card-in", tabindex: "0" }, markdown(titled(output))));
}

/** A recipe's first line is its title. */
const titled = (text) => (/^[^\n]{1,80}\n\n/.test(text) ? `### ${text}` : text);

function remarks(answer) {
  const found = [];
  if (answer.provenance === "found") found.push(h("p", { class: "badge" }, icon("check", 16), "Found in the Cookbook"));
  if (answer.provenance === "invented") found.push(h("p", { class: "badge invented" }, icon("spark", 16), "Invented: not from the Cookbook. Taste it with care."));
  if (ENDINGS[answer.finish] && !(answer.stage === "pretrain" && answer.finish === "length")) found.push(h("p", { class: "soft small" }, ENDINGS[answer.finish]));
  if (answer.error) found.push(h("p", { class: "error" }, answer.error));
  return found;
}
