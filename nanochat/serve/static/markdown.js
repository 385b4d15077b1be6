// Markdown to elements, for text that nobody vouches for. It makes text nodes and a fixed set of elements; a link leads
// to http or https or is no link. Whatever is not understood stays as it was written.

import { h } from "./dom.js";

const FENCE = /^\s*```/;
const HEADING = /^(#{1,4})\s+(.+)/;
const ITEM = /^(\s*)([-*\u2022]|\d{1,3}[.)])\s+(.*)/;
const QUOTE = /^>\s?(.*)/;
const RULE = /^\s*([-*_])\s*(\1\s*){2,}$/;
const INLINE = /(`+)([^`]+?)\1|\*\*(?=\S)(.+?)\*\*|\*(?=\S)([^*\n]+?)\*|\[([^\]\n]+)\]\((https?:\/\/[^\s()]+)\)/;

/** The elements of a text, ready to be put somewhere. */
export function markdown(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const found = [];
  for (let at = 0; at < lines.length; ) {
    const line = lines[at];
    if (FENCE.test(line)) {
      const end = lines.findIndex((other, place) => place > at && FENCE.test(other));
      const stop = end < 0 ? lines.length : end; // a fence that is still being written
      found.push(h("pre", { tabindex: "0" }, h("code", {}, lines.slice(at + 1, stop).join("\n"))));
      at = stop + 1;
    } else if (RULE.test(line)) {
      found.push(h("hr"));
      at += 1;
    } else if (HEADING.test(line)) {
      const [, marks, title] = line.match(HEADING);
      found.push(h(`h${Math.min(6, marks.length + 2)}`, {}, inline(title)));
      at += 1;
    } else if (ITEM.test(line)) {
      at = list(lines, at, found);
    } else if (QUOTE.test(line)) {
      const said = [];
      for (; at < lines.length && QUOTE.test(lines[at]); at += 1) said.push(lines[at].match(QUOTE)[1]);
      found.push(h("blockquote", {}, markdown(said.join("\n"))));
    } else if (line.trim()) {
      const said = [];
      const breaks = (other) => !other.trim() || [FENCE, HEADING, ITEM, QUOTE, RULE].some((form) => form.test(other));
      for (; at < lines.length && (!said.length || !breaks(lines[at])); at += 1) said.push(lines[at]);
      // "Ingredients:" above its list is a title.
      const titles = said.length === 1 && /^[A-Z][\w ]{0,30}:\s*$/.test(said[0]) && lines.slice(at).some((l) => ITEM.test(l));
      found.push(h("p", { class: titles ? "lead" : null }, inline(said.join("\n"))));
    } else {
      at += 1;
    }
  }
  return found;
}

/** A list and those inside it; the line after it. */
function list(lines, at, found) {
  const [, indent, mark] = lines[at].match(ITEM);
  const numbered = /\d/.test(mark);
  const made = numbered ? h("ol", { start: parseInt(mark, 10) === 1 ? null : parseInt(mark, 10) }) : h("ul");
  found.push(made);
  while (at < lines.length) {
    const item = lines[at].match(ITEM);
    if (item && item[1].length > indent.length && made.lastChild) {
      const inside = [];
      at = list(lines, at, inside);
      made.lastChild.append(...inside);
    } else if (item && item[1].length === indent.length && /\d/.test(item[2]) === numbered) {
      made.append(h("li", {}, inline(item[3])));
      at += 1;
    } else if (!item && lines[at].startsWith("  ") && lines[at].trim() && made.lastChild) {
      made.lastChild.append(" ", ...inline(lines[at].trim()));
      at += 1;
    } else {
      break;
    }
  }
  return at;
}

/** Text with `code`, **strong**, *emphasis* and [links](https://...), as nodes. */
function inline(text) {
  const found = [];
  for (let rest = text; rest; ) {
    const match = rest.match(INLINE);
    if (!match) {
      found.push(rest);
      break;
    }
    if (match.index) found.push(rest.slice(0, match.index));
    const [all, , code, strong, soft, words, address] = match;
    if (code !== undefined) found.push(h("code", {}, code));
    else if (strong !== undefined) found.push(h("strong", {}, inline(strong)));
    else if (soft !== undefined) found.push(h("em", {}, inline(soft)));
    else found.push(h("a", { href: address, target: "_blank", rel: "noopener noreferrer nofollow" }, words));
    rest = rest.slice(match.index + all.length);
  }
  return found;
}
