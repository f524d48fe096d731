/** Fields of a form, and what is wrong with them. */

import { element } from "./elements.js";
import { Trouble } from "./api.js";
import { settle, tell } from "./notices.js";

let fields = 0;

/** A labelled input with room for what is wrong with it. */
export function field(text, hint = "") {
  const label = element("label", "field");
  const input = element("input");
  input.autocomplete = "off";
  const problem = element("span", "problem");
  problem.id = `problem-${(fields += 1)}`;
  problem.hidden = true;
  label.append(element("span", "", text), input);
  if (hint) label.append(element("span", "quiet", hint));
  label.append(problem);
  return { label, input, problem };
}

/** Say what is wrong with a field; "": nothing. */
export function mark({ input, problem }, text) {
  problem.textContent = text;
  problem.hidden = !text;
  if (text) {
    input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-describedby", problem.id);
  } else {
    input.removeAttribute("aria-invalid");
    input.removeAttribute("aria-describedby");
  }
}

/**
 * Do `work`, which sends the fields, by name; what is refused is said at the field that is wrong,
 * or else as a notice.
 */
export async function tryWith(named, work) {
  Object.values(named).forEach((each) => mark(each, ""));
  settle();
  const unreadable = Object.values(named).find(({ input }) => input.validity.badInput);
  if (unreadable) {
    mark(unreadable, "write a number");
    unreadable.input.focus();
    return;
  }
  try {
    await work();
  } catch (error) {
    if (!showAt(named, error)) tell(error);
  }
}

/** A refusal of one field, before anything was sent. */
export const wrongField = (name, message) =>
  new Trouble({ detail: message, errors: [{ field: name, message }] });

function showAt(named, error) {
  const wrong = [...(error.fields ?? [])].filter(([name]) => named[name]);
  wrong.forEach(([name, message]) => mark(named[name], message));
  if (wrong.length) named[wrong[0][0]].input.focus();
  return wrong.length > 0;
}
