/** Newer and older pages of a list that is read with cursors. */

import { byId } from "./elements.js";

export class Pager {
  #cursors = [null]; // of the pages up to the one that is shown
  #following = null;

  /** `turned` is told after each turn. */
  constructor(turned) {
    this.turned = turned;
    byId("newer").addEventListener("click", () => this.#turn(() => this.#cursors.pop()));
    byId("older").addEventListener("click", () =>
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
    byId("newer").disabled = this.#cursors.length === 1;
    byId("older").disabled = nextCursor === null;
    byId("pager").hidden = byId("newer").disabled && byId("older").disabled;
  }

  #turn(move) {
    move();
    this.follow(null); // no second turn before the page is here
    this.turned();
  }
}
