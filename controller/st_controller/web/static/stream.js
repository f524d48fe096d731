/** An event stream that is opened again whatever ends it. */

import { call } from "./api.js";
import { linkState } from "./frame.js";
import { settle, tell } from "./notices.js";

const RECONNECT_MS = 3000;

export class Stream {
  #source = null;
  #timer = null;

  /**
   * `addressOf` says where it is at each opening, `listeners` what is done with events by their
   * names, and `isDone` whether an end is the end.
   */
  constructor(addressOf, listeners, isDone = () => false) {
    this.addressOf = addressOf;
    this.listeners = listeners;
    this.isDone = isDone;
  }

  get isOpen() {
    return this.#source?.readyState === EventSource.OPEN;
  }

  /** Whether nothing comes, nor will come before it is opened. */
  get isClosed() {
    return this.#source === null && this.#timer === null;
  }

  open() {
    this.close();
    const source = new EventSource(this.addressOf());
    this.#source = source;
    source.addEventListener("open", () => {
      settle("stream");
      linkState("live");
    });
    source.addEventListener("error", () => this.#ended(source));
    for (const [name, take] of Object.entries(this.listeners)) {
      source.addEventListener(name, (event) => take(JSON.parse(event.data)));
    }
  }

  close() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#source?.close();
    this.#source = null;
  }

  #ended(source) {
    if (this.isDone()) {
      this.close();
      return;
    }
    linkState("reconnecting");
    // A stream that was refused stays closed: the session may be over, which a call will tell.
    if (source.readyState === EventSource.CLOSED) this.#openLater();
  }

  #openLater() {
    this.#timer = setTimeout(() => {
      call("/v1/auth/me").then(
        () => this.open(),
        (error) => {
          tell(error, "stream");
          this.#openLater();
        },
      );
    }, RECONNECT_MS);
  }
}
