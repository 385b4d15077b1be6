// The frame: which view is shown, the list of conversations, the theme. The address holds the view (#xray), so that
// a reload comes back to it.

import { ask } from "./api.js";
import { $, h, icon, iconButton, plural, toast, whole } from "./dom.js";
import { store } from "./store.js";

const VIEWS = {
  chat: ["Chat", "chat"],
  stages: ["Stages", "stages"],
  xray: ["X-ray", "xray"],
  tokens: ["Tokens", "tokens"],
  training: ["Training", "training"],
};
/** What the views share: the run, and the way to another view. */
export const shared = { run: null, go, reload };

let leave = null; // the shown view's own farewell
let showing = 0;

/** Show another view, and give it something to begin with. */
function go(name, given) {
  shared.given = given;
  if (location.hash === `#${name}`) show();
  else location.hash = name;
}

async function show() {
  const [name, rest] = location.hash.slice(1).split("/");
  const view = VIEWS[name] ? name : "chat";
  const turn = ++showing;
  leave?.();
  leave = null;
  for (const link of $("#nav").children) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = view === "chat" ? "nanochat" : `${VIEWS[view][0]} · nanochat`;
  side(false);
  const place = $("#view");
  place.scrollTop = 0;
  try {
    if (!shared.run) await reload();
    // A run that has only just begun has nothing that could talk.
    if (!shared.run.model && view !== "training") await reload();
    const module = await import(`./${view}.js`);
    if (turn !== showing) return;
    const given = shared.given;
    shared.given = undefined;
    place.className = `view-${view}`;
    place.replaceChildren();
    if (!shared.run.model && view !== "training") {
      place.append(h("div", { class: "empty" }, h("h1", {}, "Nobody is here yet"), h("p", {}, "The run has not saved a model so far. As soon as it has, you can talk to it here."),
        h("p", { class: "row center" }, h("a", { class: "button main", href: "#training" }, icon("training", 18), "Watch it learn"))));
      return;
    }
    leave = module.show(place, shared, given ?? rest) ?? null;
  } catch (error) {
    if (turn !== showing) return;
    place.replaceChildren(h("div", { class: "empty" }, h("p", { class: "error" }, error.message),
      h("p", {}, h("button", { type: "button", class: "button", onclick: show }, "Try again"))));
  }
}

/** Ask the server about the run: its stages may have got further. */
async function reload() {
  shared.run = await ask("api/run");
  about();
  return shared.run;
}

function about() {
  const { run, stage, parameters } = shared.run;
  const size = !stage ? "no model yet" : parameters >= 1e6 ? `${(parameters / 1e6).toFixed(1)} M parameters` : `${whole(parameters)} parameters`;
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  $("#about").replaceChildren(h("div", {}, h("b", {}, stage ? `${run}:${stage}` : run), size),
    iconButton(dark ? "sun" : "moon", dark ? "Light theme" : "Dark theme", () => {
      document.documentElement.dataset.theme = dark ? "light" : "dark";
      try {
        localStorage.setItem("nanochat.theme", dark ? "light" : "dark");
      } catch {} // then only until the next reload
      about();
      $("#about button").focus();
      document.dispatchEvent(new Event("theme"));
    }));
}

function talks() {
  const rows = store.talks.map((kept) => h("li", { class: kept.id === store.current.id ? "on" : null },
    h("a", { href: "#chat", title: kept.title, "aria-current": kept.id === store.current.id ? "true" : null,
      onclick: (event) => (event.preventDefault(), store.open(kept.id), go("chat")) }, kept.title),
    iconButton("trash", `Delete “${kept.title}”`, () => {
      const undo = store.remove(kept.id);
      if (location.hash.slice(1).startsWith("chat") || !location.hash) show();
      toast("Conversation deleted", "Undo", () => (undo(), go("chat")));
    })));
  $("#talks").replaceChildren(...[
    h("button", { type: "button", class: "button", id: "new", onclick: begin }, icon("plus", 18), "New conversation"),
    rows.length ? h("h2", {}, plural(rows.length, "conversation")) : h("p", { class: "soft small" },
      "Conversations are kept in this browser and sent to nobody but your own server."),
    rows.length > 0 && h("ul", {}, rows)].filter(Boolean));
}

function begin() {
  store.begin();
  go("chat");
}

function side(open) {
  document.body.classList.toggle("side-open", open);
  $("#open-side").setAttribute("aria-expanded", open);
}

$("#nav").append(...Object.entries(VIEWS).map(([name, [title, drawn]]) => h("a", { href: `#${name}` }, icon(drawn), title)));
$("#open-side").append(icon("menu"));
$("#open-side").addEventListener("click", () => {
  side(!document.body.classList.contains("side-open"));
  if (document.body.classList.contains("side-open")) $("#new").focus();
});
$("#bar-new").append(icon("plus"));
$("#bar-new").addEventListener("click", begin);
$("#shade").addEventListener("click", () => side(false));
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && document.body.classList.contains("side-open")) (side(false), $("#open-side").focus());
});
addEventListener("hashchange", show);
store.addEventListener("change", talks);
talks();
show();
