/** The rules of the queue: to be read by all, to be changed by those who may. */

import { call } from "./api.js";
import { element, terms } from "./elements.js";
import { field, tryWith, wrongField } from "./fields.js";
import { say } from "./notices.js";
import { duration, secondsOf, written } from "./words.js";

/** Rules that are lengths of time, and others, each with what it means. */
const KNOWN = {
  ageing_interval: ["Ageing", "So long a wait raises a job by one class.", "time"],
  half_life: ["Half-life of use", "After so long, what was used counts half.", "time"],
  horizon: ["Horizon", "What runs now is counted ahead in the share for so long.", "time"],
  catch_up: ["Catching up", "Who was idle may claim so much of its share at most.", "time"],
  max_preemptions: ["Preemptions at most", "A job that was preempted so often is left alone."],
  preemption_grace: ["Time to yield", "A preempted job must have yielded by then.", "time"],
  reserved_part: [
    "Reserved part",
    "At most this part of the slots, 0 to 1, is kept for heads of the line beside the first.",
  ],
  settle_interval: ["Settling", "Between two looks at the decay of all usage.", "time"],
};

const isTime = (name) => KNOWN[name]?.[2] === "time";
const titleOf = (name) => KNOWN[name]?.[0] ?? name.replaceAll("_", " ");

/** The rules as terms and, for whoever may change them, as a form. */
export function drawRules(rules, mayChange, changed) {
  return mayChange ? drawForm(rules, changed) : drawTerms(rules);
}

function drawTerms(rules) {
  const said = (name, value) => (isTime(name) ? duration(value) : String(value));
  return terms(Object.entries(rules).map(([name, value]) => [titleOf(name), said(name, value)]));
}

function drawForm(rules, changed) {
  const form = element("form", "rules");
  form.noValidate = true;
  const inputs = {};
  for (const [name, value] of Object.entries(rules)) {
    inputs[name] = field(titleOf(name), KNOWN[name]?.[1] ?? "");
    inputs[name].input.value = isTime(name) ? written(value) : String(value);
    inputs[name].input.spellcheck = false;
  }
  const save = element("button", "small", "Save the rules");
  form.append(...Object.values(inputs).map((each) => each.label), save);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    tryWith(inputs, async () => {
      const body = read(inputs);
      changed(await call("/v1/queue/policy", { method: "PUT", body }));
      say("The rules are in force.");
    });
  });
  return form;
}

function read(inputs) {
  return Object.fromEntries(Object.keys(inputs).map((name) => [name, valueOf(name, inputs[name])]));
}

function valueOf(name, { input }) {
  const text = input.value.trim();
  const value = isTime(name) ? secondsOf(text) : Number(text || Number.NaN);
  if (!Number.isFinite(value)) {
    const wanted = isTime(name) ? 'a length of time such as "90s", "45m", "1h30m"' : "a number";
    throw wrongField(name, `write ${wanted}`);
  }
  return value;
}
