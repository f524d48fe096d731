/** The log of a job: its last lines, those that come, and those before them. */

import { call, query } from "./api.js";
import { byId, setText } from "./elements.js";
import { compare, LogLines, placeOf } from "./log_lines.js";
import { attempt, settle, tell } from "./notices.js";
import { count, counted } from "./words.js";

const TAIL = 500;
const PAGE = 500;
const MOST_PENDING = 4000; // as many as the page holds: those before them would go at once
const MANY = 1000; // lines that are shown without waiting: timers of hidden pages are slow
const SHOW_MS = 150;
const EDGE = 200; // pixels from an end at which what lies beyond is fetched

export class LogView {
  #pending = []; // lines of the stream that are not shown yet
  #timer = null;
  #turn = 0; // counts what was asked for from the beginning
  #isBusy = false;
  #isFollowing = true;
  #isAtStart = false;
  #isCut = false; // lines that came are not held: they come after the last that is
  #newest = null; // the last line that came, held or not
  #missed = 0;
  #top = 0;

  constructor(jobId) {
    this.address = `/v1/jobs/${encodeURIComponent(jobId)}/logs`;
    this.scroller = byId("log");
    this.lines = new LogLines(byId("log-lines"));
    /** Number of the attempt that is shown; "": all. */
    this.attempt = "";
    this.isLoaded = false;
    byId("older-lines").addEventListener("click", () => this.#older());
    byId("newer-lines").addEventListener("click", () => this.#newer());
    byId("follow").addEventListener("click", () =>
      this.#isFollowing ? this.pause() : attempt(() => this.follow()),
    );
    byId("log-filter").addEventListener("input", () => this.#filter());
    this.scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    const size = new ResizeObserver(() => this.#isFollowing && this.#toEnd());
    size.observe(this.scroller);
    size.observe(this.lines.list);
    this.#filter(); // a browser that comes back to the page has kept what was asked for
  }

  /** Fetch the last lines anew, of one attempt or of all. */
  async load(number = this.attempt) {
    this.attempt = number;
    this.#turn += 1;
    const turn = this.#turn;
    this.#isBusy = true;
    try {
      const page = await call(`${this.address}${query({ tail: TAIL, attempt: number })}`);
      if (turn !== this.#turn) return;
      this.lines.clear();
      this.lines.append(page.items);
      this.#isAtStart = this.#isCut = false;
      this.#newest = this.lines.last;
      this.#missed = 0;
      this.isLoaded = true;
    } finally {
      if (turn === this.#turn) this.#isBusy = false;
    }
    this.#flush();
    this.#toEnd();
    this.#tellState();
  }

  /** Take a line of the job's stream, which comes in order. */
  take(line) {
    this.#pending.push(line);
    if (this.#pending.length > 2 * MOST_PENDING) this.#pending.splice(0, MOST_PENDING);
    if (this.#pending.length >= MANY) this.#flush();
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#flush();
    }, SHOW_MS);
  }

  /** Stay where one reads, whatever comes. */
  pause() {
    this.#isFollowing = false;
    this.#tellState();
  }

  /** Show what comes from now on, and what came meanwhile. */
  async follow() {
    this.#isFollowing = true;
    this.#missed = 0;
    if (this.#isCut) await this.load();
    this.#toEnd();
    this.#tellState();
  }

  #flush() {
    if (this.#isBusy) return; // what is fetched comes before
    const fresh = this.#pending.filter((line) => this.#isWanted(line));
    this.#pending = [];
    if (fresh.length === 0) return;
    this.#newest = fresh.at(-1);
    if (this.#isFollowing) {
      if (this.lines.append(fresh)) this.#isAtStart = false;
      this.#toEnd();
    } else {
      this.#missed += fresh.length;
      this.#isCut ||= !this.lines.hasRoom(fresh.length);
      if (!this.#isCut) this.#put(fresh);
    }
    this.#tellState();
  }

  /** Put lines at the end, and leave what is read where it is. */
  #put(lines) {
    this.lines.holding(this.scroller, () => {
      if (this.lines.append(lines)) this.#isAtStart = false;
    });
    this.#top = this.scroller.scrollTop;
  }

  #isWanted(line) {
    const isShown = this.attempt === "" || line.attempt === Number(this.attempt);
    return isShown && compare(line, this.#newest) > 0;
  }

  async #older() {
    if (this.#isAtStart || !this.lines.first) return;
    this.pause();
    const before = placeOf(this.lines.first);
    await this.#fetch({ tail: PAGE, before }, ({ items }) => {
      this.#isAtStart = items.length === 0;
      if (this.lines.prepend(items)) this.#isCut = true;
    });
  }

  async #newer() {
    if (!this.#isCut || !this.lines.last) return;
    await this.#fetch({ limit: PAGE, after: placeOf(this.lines.last) }, ({ items }) => {
      if (this.lines.append(items)) this.#isAtStart = false;
      const isWhole = compare(this.lines.last, this.#newest) >= 0;
      if (isWhole) this.#newest = this.lines.last;
      this.#isCut = !isWhole;
    });
  }

  /** One page beside what is held; lines that come meanwhile wait for it. */
  async #fetch(asked, take) {
    if (this.#isBusy) return;
    this.#isBusy = true;
    const turn = this.#turn;
    try {
      const page = await call(`${this.address}${query({ ...asked, attempt: this.attempt })}`);
      if (turn === this.#turn) this.lines.holding(this.scroller, () => take(page));
    } catch (error) {
      tell(error, "log");
      return;
    } finally {
      if (turn === this.#turn) this.#isBusy = false;
    }
    settle("log");
    this.#top = this.scroller.scrollTop;
    this.#flush();
    this.#tellState();
  }

  #filter() {
    this.lines.filter(byId("log-filter").value.trim());
    if (this.#isFollowing) this.#toEnd();
    this.#tellState();
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const isUpwards = scrollTop < this.#top - 2;
    const below = scrollHeight - clientHeight - scrollTop;
    this.#top = scrollTop;
    if (isUpwards && this.#isFollowing && below > 4) this.pause();
    if (isUpwards && scrollTop < EDGE) this.#older();
    if (!isUpwards && below < EDGE) this.#newer();
  }

  #toEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.#top = this.scroller.scrollTop;
  }

  #tellState() {
    const button = byId("follow");
    const missed = this.#missed ? ` (${count(this.#missed)} new)` : "";
    setText(button, this.#isFollowing ? "Pause" : `Follow${missed}`);
    byId("older-lines").hidden = this.#isAtStart || this.lines.count === 0;
    byId("newer-lines").hidden = !this.#isCut;
    byId("no-lines").hidden = !this.isLoaded || this.lines.count > 0;
    setText(byId("log-count"), this.#words());
  }

  #words() {
    const held = counted(this.lines.count, "line");
    if (!byId("log-filter").value.trim()) return `${held} here`;
    return `${count(this.lines.matching.length)} of ${held} here match`;
  }
}
