/** Asks before something that cannot be undone. */

import { element } from "./elements.js";

/** Whether the person agrees; Escape and the first button mean no. */
export function ask(title, consequence, verb) {
  const dialog = element("dialog", "card question");
  const heading = element("h2", "", title);
  heading.id = "question-title";
  dialog.setAttribute("aria-labelledby", heading.id);
  const form = element("form", "tools");
  form.method = "dialog";
  form.append(answer("Leave it", "no", "plain"), answer(verb, "yes", "danger"));
  dialog.append(heading, element("p", "", consequence), form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}

function answer(text, value, className) {
  const made = element("button", className, text);
  made.value = value;
  return made;
}
