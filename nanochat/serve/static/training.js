// Training: a run as it learns. New lines of its metrics are asked for every two seconds while the page is looked at.

import { ask } from "./api.js";
import { chart } from "./chart.js";
import { facts, h, icon, percent, whole } from "./dom.js";

const EVERY = 2000; // milliseconds
const LIVE = 60; // seconds without a new line, after which nothing is being learned

export function show(place, shared) {
  let next = 0;
  let timer = null;
  let over = false;
  const rows = {}; // stage -> lines, by step
  const state = h("p", { class: "row", role: "status" });
  const steps = h("ol", { class: "stage-line" });
  const now = h("div");
  const charts = h("div", { class: "charts" });
  const said = h("section", { class: "card", "aria-labelledby": "said-title" });
  place.append(h("div", { class: "page" }, h("header", {}, h("h1", {}, "Training"), state), steps, now, charts, said,
    h("p", {}, h("a", { class: "button", href: "#chat" }, icon("chat", 18), "Talk to the newest checkpoint"))));
  look();

  async function look() {
    try {
      const found = await ask(`api/training?since=${next}`);
      if (over) return;
      if (found.anew) for (const stage of Object.keys(rows)) delete rows[stage];
      const first = next === 0;
      next = found.next;
      let news = false;
      for (const [stage, lines] of Object.entries(found.rows)) {
        rows[stage] = (rows[stage] ?? []).concat(lines);
        news = true;
      }
      if (news && !first) await shared.reload();
      if (over) return;
      if (news || first) draw();
      else status();
    } catch (error) {
      if (over) return;
      state.replaceChildren(h("span", { class: "error" }, error.message));
    }
    timer = setTimeout(look, document.hidden ? 5 * EVERY : EVERY);
  }

  const newest = () => Math.max(0, ...Object.values(rows).map((lines) => lines.at(-1)?.time ?? 0));
  const current = () => Object.entries(rows).sort((a, b) => (b[1].at(-1)?.time ?? 0) - (a[1].at(-1)?.time ?? 0))[0]?.[0];

  function status() {
    const stage = shared.run.stages.find((one) => one.name === current());
    const live = stage && !stage.finished && Date.now() / 1000 - newest() < LIVE;
    state.replaceChildren(...(live ? [h("span", { class: "pulse", "aria-hidden": "true" }), `${shared.run.run} is learning: ${stage.name}`]
      : stage ? [h("span", { class: "soft" }, stage.finished ? `${shared.run.run} has finished ${stage.name}. What it learned, and how:` : `${shared.run.run} has stopped in ${stage.name}; the same command goes on from there.`)]
        : [h("span", { class: "soft" }, "Nothing has been learned yet. Begin with "), h("code", {}, "nanochat run --serve"), h("span", { class: "soft" }, " and watch it here.")]));
  }

  function draw() {
    status();
    const all = shared.run.stages;
    steps.replaceChildren(...all.map((stage) => {
      const lines = (rows[stage.name] ?? []).filter((row) => "loss" in row);
      const done = stage.finished ? 1 : stage.steps ? Math.min(1, ((lines.at(-1)?.step ?? -1) + 1) / stage.steps) : 0;
      return h("li", { class: stage.name === current() ? "on" : null, vars: { p: done } }, h("b", {}, stage.name),
        h("span", { class: "soft small num" }, stage.finished ? `${whole(stage.steps)} steps, ${minutes(stage.seconds)}` : `${percent(done)} of ${whole(stage.steps)} steps`), h("i", { "aria-hidden": "true" }));
    }));
    const lines = rows[current()] ?? [];
    const last = (name) => lines.filter((row) => Number.isFinite(row[name])).at(-1)?.[name];
    const bpb = Object.values(rows).flat().filter((row) => row.val_bpb).at(-1)?.val_bpb;
    now.replaceChildren(facts([["loss", current() === "rl" ? null : last("loss")?.toFixed(3)], ["held-out bits per byte", bpb?.toFixed(3)], ["reward", last("reward")?.toFixed(2)],
      ["tokens a second", last("tokens_per_second") && whole(last("tokens_per_second"))], ["share of the peak", last("mfu") && percent(last("mfu"))]], "big"));
    const series = (name) => all.map((stage) => ({ name: stage.name, points: (rows[stage.name] ?? []).filter((row) => Number.isFinite(row[name])).map((row) => [row.step, row[name]]) })).filter(({ points }) => points.length);
    const pictures = [["Loss", "nats a token, of what each stage teaches", series("loss").filter(({ name }) => name !== "rl"), { smooth: true }], ["Held-out text", "bits per byte: what it has not read", series("val_bpb"), { dots: true }],
      ["Reward", "share of answers that were right", series("reward"), { dots: true }], ["Copying", "share of held-out copies without a fault", series("copied"), { dots: true }], ["Speed", "tokens a second", series("tokens_per_second"), { smooth: true, zero: true }]];
    charts.replaceChildren(...pictures.filter(([, , lines]) => lines.length).map(([title, unit, lines, how]) => chart(title, unit, lines, how)));
    const heard = all.flatMap((stage) => stage.lapse).slice(-6).reverse();
    said.hidden = !heard.length;
    said.replaceChildren(h("h2", { id: "said-title" }, "What it said last"), h("ul", { class: "heard" }, heard.map((row) => h("li", {},
      h("p", { class: "soft small num" }, `${row.stage}, step ${whole(row.step)} · ${row.prompt.trim()}`), h("p", { class: "pre" }, row.text.trim())))));
  }

  return () => {
    over = true;
    clearTimeout(timer);
  };
}

const minutes = (seconds) => (seconds === null ? "" : seconds < 90 ? `${Math.round(seconds)} s` : `${(seconds / 60).toFixed(1)} min`);
