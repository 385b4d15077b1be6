// Elements, icons and words for screen readers. Whatever comes from a model or a user enters the page as text nodes:
// there is no other way in, since nothing here (or elsewhere in these files) parses HTML.

export const $ = (selector, root = document) => root.querySelector(selector);

/** An element: h("button", { class: "quiet", onclick: f, vars: { p: 0.5 } }, "Text", child). */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function s(tag, props = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    const said = name.startsWith("aria-"); // where false is a word, too
    if (value === undefined || value === null || (value === false && !said)) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "vars") for (const [key, v] of Object.entries(value)) node.style.setProperty(`--${key}`, v);
    else if (name === "text") node.textContent = value;
    else if (name === "value" || name === "checked" || name === "selected") node[name] = value;
    else node.setAttribute(name, value === true && !said ? "" : value);
  }
  node.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// 24 x 24, drawn with a line of 1.75.
const PATHS = {
  chat: "M4 6.5A2.5 2.5 0 0 1 6.5 4h11A2.5 2.5 0 0 1 20 6.5v7a2.5 2.5 0 0 1-2.5 2.5H11l-4.5 4v-4A2.5 2.5 0 0 1 4 13.5z",
  stages: "M4 5h3v14H4zM10.5 9h3v10h-3zM17 12h3v7h-3z",
  xray: "M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM15.5 15.5 20 20M8 10.5h5M10.5 8v5",
  tokens: "M3.5 8h5v8h-5zM8.5 8h8v8h-8zM16.5 8h4v8h-4z",
  training: "M4 4v16h16M7 8c2 6 5 8.5 12 8.5",
  plus: "M12 5v14M5 12h14",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  copy: "M9 9h10v10H9zM5 15V5h10",
  check: "M5 12.5l4.5 4.5L19 7.5",
  redo: "M19 12a7 7 0 1 1-2-5M19 4v4h-4",
  edit: "M5 19l1-4L16 5l3 3L9 18zM14 7l3 3",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l1 12.5h8L17 7M10.5 10.5v6M13.5 10.5v6",
  tune: "M4 8h9M17 8h3M4 16h3M11 16h9M15 6v4M9 14v4",
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6L6 18",
  down: "M12 5v13M6 12.5l6 6 6-6",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
  play: "M8 5.5v13l10.5-6.5z",
  pause: "M8 6v12M16 6v12",
  book: "M5 5.5C7.5 4.5 10 5 12 6.5c2-1.5 4.5-2 7-1V18c-2.5-1-5-.5-7 1-2-1.5-4.5-2-7-1zM12 6.5V19",
  sum: "M6 4h12v16H6zM9 8h6M9 12h1M14 12h1M9 16h1M14 16h1",
  spark: "M12 4v5M12 15v5M4 12h5M15 12h5M7 7l2.5 2.5M14.5 14.5 17 17M17 7l-2.5 2.5M9.5 14.5 7 17",
  moon: "M19 14A7.5 7.5 0 0 1 10 5a7.5 7.5 0 1 0 9 9z",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 3v2M12 19v2M3 12h2M19 12h2M5.6 5.6 7 7M17 17l1.4 1.4M18.4 5.6 17 7M7 17l-1.4 1.4",
  save: "M12 4v11M7.5 10.5 12 15l4.5-4.5M5 19.5h14",
  branch: "M7 4v16M7 12c6 0 10-1 10-6M17 6l-3 3M17 6l3 3",
};

/** An icon that says nothing to a screen reader: what it stands for is said beside it. */
export function icon(name, size = 20) {
  const props = { viewBox: "0 0 24 24", width: size, height: size, "aria-hidden": "true", class: "icon" };
  return s("svg", props, s("path", { d: PATHS[name] }));
}

/** A button of an icon alone, named for those who do not see it. */
export function iconButton(name, label, onclick, props = {}) {
  return h("button", { type: "button", class: "tool-button", "aria-label": label, title: label, onclick, ...props },
    icon(name, 18));
}

/** Have a screen reader say something. */
export function say(text) {
  const place = $("#said");
  place.textContent = "";
  setTimeout(() => (place.textContent = text), 60);
}

let toastTimer;
/** A short note at the bottom, with one thing to do about it. */
export function toast(text, action, act) {
  const place = $("#toast");
  const close = () => place.replaceChildren();
  place.replaceChildren(h("div", { class: "toast" }, text,
    action && h("button", { type: "button", class: "link", onclick: () => (close(), act()) }, action)));
  clearTimeout(toastTimer);
  toastTimer = setTimeout(close, 7000);
}

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
export const percent = (p) => (p >= 0.9995 ? "100" : p >= 0.0995 ? (100 * p).toFixed(0) : (100 * p).toFixed(1)) + " %";
export const whole = (n) => Math.round(n).toLocaleString("en");
export const plural = (n, word) => `${whole(n)} ${word}${n === 1 ? "" : "s"}`;

/** How a token is written where it stands alone: its spaces and line ends can be seen. */
export function visible(token) {
  if (token.special) return token.text.replace(/^<\|(.*)\|>$/, "$1").replace(/_/g, " ");
  if (token.text.includes("\ufffd") && token.bytes) return token.bytes;
  return token.text.replace(/ /g, "\u2423").replace(/\n/g, "\u21b5").replace(/\t/g, "\u21e5") || "\u2205";
}

/** Text to the clipboard, also where the page has no right to it (then by a hidden field). */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = h("textarea", { class: "sr", value: text });
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  say("Copied");
}

/** A file for the user to keep. */
export function download(name, type, text) {
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** Arrow keys move along a row of buttons, of which only one is reached by Tab. */
export function roving(event, buttons, at, choose) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const to = step ? at + step : event.key === "Home" ? 0 : event.key === "End" ? buttons.length - 1 : NaN;
  if (!(to >= 0 && to < buttons.length)) return;
  event.preventDefault();
  choose(to);
  buttons[to].focus();
}

/** Names and values, the values large. */
export function facts(pairs, big = "") {
  return h("dl", { class: `facts ${big}` }, pairs.filter(([, value]) => value !== undefined && value !== null).map(([name, value]) =>
    h("div", {}, h("dt", {}, name), h("dd", { class: "num" }, value))));
}

/** What goes on by itself: a button, and a slider from 0 to `last`, which call `to(n)` for the words that say where it is. */
export function player(label, last, to, pace) {
  let at = 0;
  let timer = null;
  const slider = h("input", { type: "range", min: 0, max: last, step: 1, "aria-label": label, oninput: () => (stop(), go(Number(slider.value))) });
  const button = h("button", { type: "button", class: "button", onclick: () => (timer ? stop() : start()) });
  const named = () => button.replaceChildren(icon(timer ? "pause" : "play", 16), timer ? "Pause" : "Play");
  const go = (n) => {
    at = n;
    slider.value = n;
    slider.setAttribute("aria-valuetext", to(n));
  };
  const stop = () => (clearInterval(timer), (timer = null), named());
  const start = () => {
    if (at >= last) go(0);
    timer = setInterval(() => (button.isConnected && at < last ? go(at + 1) : stop()), calm() ? 2 * pace : pace);
    named();
  };
  named();
  return { button, slider, go };
}

/** Tabs: [[name, title], ...]; the first is on, `choose(name)` called for each that is taken. */
export function tabs(label, names, choose) {
  const list = h("div", { class: "tabs", role: "tablist", "aria-label": label });
  const take = (name) => {
    for (const tab of list.children) {
      const on = tab.dataset.name === name;
      tab.setAttribute("aria-selected", on);
      tab.tabIndex = on ? 0 : -1;
    }
    choose(name);
  };
  names.forEach(([name, title], at) => list.append(h("button", {
    type: "button", role: "tab", class: "tab", id: `tab-${name}`, "data-name": name, "aria-controls": `panel-${name}`, "aria-selected": !at,
    onclick: () => take(name),
    onkeydown: (event) => roving(event, list.children, at, (to) => take(names[to][0])),
  }, title)));
  list.take = take;
  return list;
}
