/** The row below a waiting job: why it waits, and steering it. */

import { call } from "./api.js";
import { element } from "./elements.js";
import { drawExplanation } from "./explanation.js";
import { learnNames } from "./job_names.js";
import { COLUMNS } from "./job_row.js";
import { CLASSES, classesOf, LEVELS } from "./levels.js";
import { attempt } from "./notices.js";
import { changeClass, mayChangeClass, mayOverride, override } from "./steering.js";

export class JobPanel {
  /** `changed` is given the job after it was steered. */
  constructor(job, person, changed) {
    this.job = job;
    this.person = person;
    this.changed = changed;
    this.row = element("tr", "panel");
    const cell = element("td");
    cell.colSpan = COLUMNS;
    this.explanation = element("div", "explanation");
    this.explanation.append(element("p", "quiet", "Asking the scheduler …"));
    this.forms = element("div", "tools");
    cell.append(this.explanation, this.forms);
    this.row.append(cell);
    this.#drawForms();
  }

  /** Ask again why it waits; what fails is said in the panel. */
  async refresh() {
    try {
      const found = await call(`/v1/jobs/${this.job.id}/explain`);
      await learnNames(found.ahead.map((other) => other.job_id));
      this.explanation.replaceChildren(...drawExplanation(found));
    } catch (error) {
      const said = element("p", "problem", [error.message, error.hint].filter(Boolean).join(" "));
      this.explanation.replaceChildren(said);
    }
  }

  /** Take over what has become of the job. */
  update(job) {
    const steered = (each) => [each.state, each.priority, each.override].join();
    const isOther = steered(job) !== steered(this.job);
    this.job = job;
    if (isOther) this.#drawForms();
  }

  #drawForms() {
    const forms = [];
    if (mayChangeClass(this.person, this.job)) forms.push(this.#classForm());
    if (mayOverride(this.person, this.job)) forms.push(this.#overrideForm());
    this.forms.replaceChildren(...forms);
  }

  #classForm() {
    const allowed = classesOf(this.person);
    const options = CLASSES.map((name) => [name, name, !allowed.includes(name)]);
    return this.#form("Class", options, this.job.priority, (value) =>
      changeClass(this.job, value),
    );
  }

  #overrideForm() {
    const options = [["", "none", false], ...LEVELS.map(([level, name]) => [level, name, false])];
    return this.#form("Override", options, this.job.override ?? "", (value) =>
      override(this.job, value === "" ? null : Number(value)),
    );
  }

  #form(name, options, chosen, change) {
    const form = element("form", "tools");
    const label = element("label", "", `${name} `);
    const select = element("select");
    select.append(...options.map((each) => option(each, chosen)));
    label.append(select);
    const save = element("button", "plain small", "Change");
    save.setAttribute("aria-label", `Change the ${name.toLowerCase()} of ${this.job.name}`);
    form.append(label, save);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      attempt(async () => this.changed(await change(select.value)));
    });
    return form;
  }
}

function option([value, text, isDisabled], chosen) {
  const made = element("option", "", text);
  made.value = value;
  made.disabled = isDisabled;
  made.selected = String(value) === String(chosen);
  return made;
}
