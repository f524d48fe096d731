/** What all pages of whoever is signed in share: the link's state, refreshing, signing out. */

import { call } from "./api.js";
import { byId } from "./elements.js";
import { attempt, settle, tell } from "./notices.js";

let refreshers = 0;

/** Show how the page stands to the controller: connecting, live, reconnecting, trouble. */
export function linkState(state) {
  const link = byId("link");
  if (link.dataset.state === state) return;
  link.dataset.state = state;
  link.textContent = state;
}

/**
 * Do `work` now and every `delay` ms while the page is visible, one at a time; tells of errors.
 * `ended` is told after each time, with the error or null. Gives what does it at once.
 */
export function keepFresh(work, delay, ended = (error) => linkState(error ? "trouble" : "live")) {
  const about = `refresh ${(refreshers += 1)}`;
  let timer = null;
  let underWay = Promise.resolve();

  async function once() {
    let wrong = null;
    try {
      await work();
      settle(about);
    } catch (error) {
      wrong = error;
      tell(error, about);
    }
    ended(wrong);
  }

  async function run() {
    clearTimeout(timer);
    // What is under way may have been answered before the change that asks for another look.
    underWay = underWay.then(once);
    await underWay;
    clearTimeout(timer);
    timer = setTimeout(tick, delay);
  }

  function tick() {
    if (!document.hidden) run();
  }

  document.addEventListener("visibilitychange", tick);
  run();
  return run;
}

byId("logout").addEventListener("click", () =>
  attempt(async () => {
    await call("/v1/auth/logout", { method: "POST" });
    location.assign("/login");
  }),
);
