/** What went wrong, in words, at the foot of the page; and what was done, for screen readers. */

import { byId, element } from "./elements.js";

const shown = new Map(); // what it is about -> its card

/** Tell of an error; the next one about the same thing takes its place. */
export function tell(error, about = "action") {
  console.error(error);
  const text = [error.message, ...(error.fields?.size ? [] : [error.hint])].filter(Boolean);
  const known = shown.get(about);
  if (known?.dataset.text === text.join("\n")) return;
  const card = draw(error, about);
  card.dataset.text = text.join("\n");
  shown.set(about, card);
  if (known) known.replaceWith(card);
  else byId("notices").append(card);
}

/** Take back what was told about something: it works again. */
export function settle(about = "action") {
  shown.get(about)?.remove();
  shown.delete(about);
}

/** Say what was done to whoever cannot see it. */
export function say(text) {
  byId("said").textContent = text;
}

/** Do something that was asked for, and tell where it fails; whether it was done. */
export async function attempt(work) {
  try {
    await work();
  } catch (error) {
    tell(error);
    return false;
  }
  settle();
  return true;
}

function draw(error, about) {
  const card = element("div", "card notice");
  const text = element("p");
  text.append(element("strong", "", error.message));
  if (error.hint) text.append(" ", element("span", "quiet", error.hint));
  const close = element("button", "plain small", "Close");
  close.type = "button";
  close.addEventListener("click", () => settle(about));
  card.append(text, close);
  return card;
}
