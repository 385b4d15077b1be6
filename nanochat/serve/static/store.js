// What this browser keeps, and nobody else gets: conversations and settings.

const KEPT = "nanochat.talks";
const SETTINGS = "nanochat.settings";
export const DEFAULTS = { stage: "", temperature: 0.2, top_p: 0.95, top_k: 0, max_tokens: 256, seed: "", system: "" };

function read(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise; // no storage, or not what we wrote
  }
}

function write(name, value) {
  try {
    localStorage.setItem(name, JSON.stringify(value));
    return true;
  } catch {
    return false; // full, or forbidden
  }
}

/** A talk: { id, title, at, turns: [{ question, answers: [answer], active }] }. */
const talk = () => ({ id: crypto.randomUUID?.() ?? String(Math.random()).slice(2), title: "", at: Date.now(), turns: [] });

class Store extends EventTarget {
  constructor() {
    super();
    const kept = read(KEPT, []);
    this.talks = (Array.isArray(kept) ? kept : []).filter((t) => t && Array.isArray(t.turns) && typeof t.id === "string");
    this.settings = { ...DEFAULTS, ...read(SETTINGS, {}) };
    this.current = talk();
  }

  /** Have `id` on the page, or a new one. */
  open(id) {
    this.current = this.talks.find((t) => t.id === id) ?? (this.current.turns.length ? talk() : this.current);
    this.changed();
  }

  begin() {
    this.current = talk();
    this.changed();
  }

  /** Remember the talk on the page; the oldest ones go where there is no room. */
  save() {
    const { current } = this;
    if (current.turns.length) {
      current.title = current.turns[0].question.slice(0, 80);
      current.at = Date.now();
      this.talks = [current, ...this.talks.filter((t) => t.id !== current.id)];
    }
    while (!write(KEPT, this.talks) && this.talks.length > 1) this.talks.pop();
    this.changed();
  }

  /** Forget a talk; calling what it gives brings it back. */
  remove(id) {
    const at = this.talks.findIndex((t) => t.id === id);
    const [gone] = this.talks.splice(at, 1);
    if (this.current.id === id) this.current = talk();
    write(KEPT, this.talks);
    this.changed();
    return () => {
      this.talks.splice(at, 0, gone);
      this.current = gone;
      write(KEPT, this.talks);
      this.changed();
    };
  }

  set(changes) {
    Object.assign(this.settings, changes);
    write(SETTINGS, this.settings);
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }
}

export const store = new Store();

/** What an answer says, without calls and what tools brought. */
export const textOf = (answer) => answer.parts.filter((part) => part.type === "text").map((part) => part.text).join("");

/** Turns as the server takes them: a call with its answer is sent as OpenAI has it. */
export function messages(turns, system) {
  const found = system ? [{ role: "system", content: system }] : [];
  for (const turn of turns) {
    found.push({ role: "user", content: turn.question });
    const answer = turn.answers[turn.active];
    if (!answer) continue;
    const calls = answer.parts.filter((part) => part.type === "call" && /^\S+ /.test(part.text));
    found.push({
      role: "assistant", content: textOf(answer),
      ...(calls.length && { tool_calls: calls.map((part, at) => {
        const [, name, argument] = part.text.match(/^(\S+) ([\s\S]*)$/);
        return { id: `call_${at}`, type: "function", function: { name, arguments: JSON.stringify({ argument }) } };
      }) }),
    });
  }
  return found;
}

/** How to draw, as the server takes it. */
export function sampling(settings) {
  const { temperature, top_p, top_k, max_tokens, seed } = settings;
  return { temperature, top_p, top_k, max_tokens, ...(seed !== "" && { seed: Number(seed) }) };
}

/** Add a token to an answer; its parts follow from the kinds of its tokens. */
export function add(answer, token) {
  answer.tokens.push([token.id, Number(token.p.toFixed(5)), token.sampled ? 1 : 0]);
  const last = answer.parts.at(-1);
  if (last?.type === token.kind) last.text += token.text;
  else if (token.text) answer.parts.push({ type: token.kind, text: token.text });
}

/** A talk as Markdown. */
export function asMarkdown(kept) {
  const lines = [`# ${kept.title || "Conversation"}`, ""];
  for (const turn of kept.turns) {
    lines.push(`**You:** ${turn.question}`, "");
    const answer = turn.answers[turn.active];
    if (!answer) continue;
    for (const part of answer.parts) {
      if (part.type === "call") lines.push(`> ${part.text}`);
      else if (part.type === "output") lines.push(...part.text.split("\n").map((line) => `> ${line}`), "");
      else lines.push(part.text.trim(), "");
    }
    if (answer.provenance) lines.push(`*Recipe ${answer.provenance}.*`, "");
  }
  return lines.join("\n");
}
