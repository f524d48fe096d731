/** The labels that are set on a worker: taking them away, and setting others. */

import { call } from "./api.js";
import { button, element } from "./elements.js";
import { field, tryWith, wrongField } from "./fields.js";
import { attempt, say, settle } from "./notices.js";

const KEY = /^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$/;

/** Take a key as it was written, or refuse it at the field `name`. */
export function labelKey(text, name) {
  if (KEY.test(text)) return text;
  throw wrongField(name, "begin with a letter or digit; then letters, digits and . _ / - alone");
}

export class LabelForm {
  /** `changed` is given the worker with its labels, `closed` is told when the form is done with. */
  constructor(worker, { changed, closed }) {
    this.worker = worker;
    this.changed = changed;
    this.element = element("div", "labels");
    this.set = element("ul", "tools plain-list");
    const form = element("form", "tools");
    form.noValidate = true;
    this.fields = { key: field("Label"), value: field("Value") };
    for (const { input } of Object.values(this.fields)) input.spellcheck = false;
    form.append(
      ...Object.values(this.fields).map((each) => each.label),
      element("button", "small", "Set"),
      button("Close", "close", closed),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      tryWith(this.fields, () => this.#add());
    });
    const hint = "Labels that are set here win over those that the agent gives itself.";
    this.element.append(element("p", "quiet", hint), this.set, form);
    this.#draw();
  }

  /** Take over what has become of the worker. */
  update(worker) {
    const isOther = JSON.stringify(worker.set_labels) !== JSON.stringify(this.worker.set_labels);
    this.worker = worker;
    if (isOther) this.#draw();
  }

  focus() {
    this.fields.key.input.focus();
  }

  async #add() {
    const key = labelKey(this.fields.key.input.value.trim(), "key");
    await this.#change({ set: { [key]: this.fields.value.input.value.trim() } });
    say(`${this.worker.name} has the label ${key}.`);
    for (const { input } of Object.values(this.fields)) input.value = "";
    this.focus();
  }

  async #remove(key) {
    await this.#change({ remove: [key] });
    say(`The label ${key} is taken from ${this.worker.name}.`);
    this.focus();
  }

  async #change(body) {
    const path = `/v1/workers/${this.worker.id}/labels`;
    const worker = await call(path, { method: "PATCH", body });
    settle();
    this.update(worker);
    this.changed(worker);
  }

  #draw() {
    const items = Object.entries(this.worker.set_labels).map(([key, value]) => {
      const item = element("li", "", `${key}=${value} `);
      const remove = button("Remove", "remove", () => attempt(() => this.#remove(key)));
      remove.setAttribute("aria-label", `Remove the label ${key} of ${this.worker.name}`);
      item.append(remove);
      return item;
    });
    this.set.replaceChildren(...items);
    this.set.hidden = items.length === 0;
  }
}
