/** The lines of a log that the page holds: consecutive ones, and no more than so many. */

import { element } from "./elements.js";
import { clock, nodeOf, shown } from "./log_text.js";

const MOST_LINES = 4000;
const MOST_CHARACTERS = 2 ** 22;

/** Order of two lines or places: negative where `a` comes first; null is before all. */
export const compare = (a, b) =>
  (a?.attempt ?? 0) - (b?.attempt ?? 0) || (a?.seq ?? 0) - (b?.seq ?? 0);

/** Where a line stands, as the API writes it. */
export const placeOf = (line) => `${line.attempt}:${line.seq}`;

export class LogLines {
  #held = []; // { line, row, text }, first to last
  #characters = 0;
  #wanted = "";

  constructor(list) {
    this.list = list;
    /** Whether lines of this job are signed by nodes. */
    this.isGang = false;
  }

  get first() {
    return this.#held[0]?.line ?? null;
  }

  get last() {
    return this.#held.at(-1)?.line ?? null;
  }

  get count() {
    return this.#held.length;
  }

  /** The lines that the filter lets through. */
  get matching() {
    return this.#held.filter(({ row }) => !row.hidden).map(({ line }) => line);
  }

  clear() {
    this.#held = [];
    this.#characters = 0;
    this.list.replaceChildren();
  }

  /** Put lines at the end, and take as many off the beginning; whether any had to go. */
  append(lines) {
    const fresh = lines.slice(-MOST_LINES).map((line) => this.#draw(line));
    this.list.append(...fresh.map(({ row }) => row));
    this.#held.push(...fresh);
    return this.#trim("first") || fresh.length < lines.length;
  }

  /** Put lines at the beginning, and take as many off the end; whether any had to go. */
  prepend(lines) {
    const fresh = lines.map((line) => this.#draw(line));
    this.list.prepend(...fresh.map(({ row }) => row));
    this.#held.unshift(...fresh);
    return this.#trim("last");
  }

  /** Whether so many more lines fit without taking some off. */
  hasRoom(count) {
    return this.#held.length + count <= MOST_LINES && this.#characters < MOST_CHARACTERS / 2;
  }

  /** Show only lines that contain a text, in whatever case. */
  filter(text) {
    this.#wanted = text.toLowerCase();
    for (const each of this.#held) each.row.hidden = !this.#matches(each.text);
  }

  /** Do what moves the lines, and leave one of those that are seen where it is on the screen. */
  holding(scroller, work) {
    const rows = this.#held.map(({ row }) => row).filter((row) => !row.hidden);
    const top = scroller.scrollTop;
    const anchor = rows.find((row) => row.offsetTop + row.offsetHeight > top) ?? rows.at(-1);
    const before = anchor?.offsetTop;
    work();
    if (anchor?.isConnected) scroller.scrollTop = top + anchor.offsetTop - before;
  }

  #draw(line) {
    const row = element("p");
    row.dataset.level = line.level;
    const time = element("time", "", clock(line.at));
    time.dateTime = line.at;
    time.title = line.at;
    const text = shown(line.message);
    row.append(time, " ", element("span", "of-attempt", `attempt ${line.attempt} `));
    row.append(...this.#said(text, line.level));
    this.#characters += text.length;
    row.hidden = !this.#matches(text);
    return { line, row, text };
  }

  /** What is said, behind who says it and how grave it is. */
  #said(text, level) {
    const [node, rest] = this.isGang ? nodeOf(text) : [null, text];
    const parts = [];
    if (node !== null) parts.push(element("span", "of-node", `node ${node}`), " ");
    if (level !== "info") parts.push(element("span", "level", level), " ");
    return [...parts, element("span", "said", rest)];
  }

  #matches(text) {
    return !this.#wanted || text.toLowerCase().includes(this.#wanted);
  }

  /** Take what is too much off the "first" or the "last" end; whether there was any. */
  #trim(end) {
    const at = (place) => this.#held.at(end === "first" ? place : -1 - place);
    let gone = 0;
    let left = this.#held.length;
    while (left > 1 && (left > MOST_LINES || this.#characters > MOST_CHARACTERS)) {
      this.#characters -= at(gone).text.length;
      gone += 1;
      left -= 1;
    }
    const surplus = this.#held.splice(end === "first" ? 0 : left, gone);
    for (const { row } of surplus) row.remove();
    return gone > 0;
  }
}
