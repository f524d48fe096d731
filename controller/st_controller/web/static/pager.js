/** Newer and older pages of a list that is read with cursors. */

import { byId } from "./elements.js";

export class Pager {
  #cursors = [null]; // of the pages up to the one that is shown
  #following = null;

  #nav;
  #back;
  #on;

  /** `turned` is told after each turn; `list` says of which list, where a page has several. */
  constructor(turned, list = "") {
    this.turned = turned;
    this.#nav = byId(`${list}pager`);
    this.#back = byId(`${list}newer`);
    this.#on = byId(`${list}older`);
    this.#back.addEventListener("click", () => this.#turn(() => this.#cursors.pop()));
    this.#on.addEventListener("click", () =>
      this.#turn(() => this.#cursors.push(this.#following)),
    );
  }

  /** Cursor of the page that is shown; null: the first. */
  get cursor() {
    return this.#cursors.at(-1);
  }

  /** Begin again with the first page. */
  reset() {
    this.#cursors = [null];
  }

  /** Take over where the next page begins; null: there is none. */
  follow(nextCursor) {
    this.#following = nextCursor;
    this.#back.disabled = this.#cursors.length === 1;
    this.#on.disabled = nextCursor === null;
    this.#nav.hidden = this.#back.disabled && this.#on.disabled;
  }

  #turn(move) {
    move();
    this.follow(null); // no second turn before the page is here
    this.turned();
  }
}
