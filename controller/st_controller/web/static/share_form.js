/** The form of a tenant's weight and limits. */

import { call } from "./api.js";
import { element } from "./elements.js";
import { field, tryWith } from "./fields.js";
import { say, settle } from "./notices.js";
import { ask } from "./question.js";

const WHOLE = "all"; // stands for the whole system in the API

/**
 * A form for the node `path`, "" for the whole system; null: the path is asked for.
 * `done` is told when it was saved or given up, with whether anything changed.
 */
export function shareForm({ path, tenant, done }) {
  const form = element("form", "tools share-form");
  form.noValidate = true;
  const inputs = {};
  if (path === null) inputs.path = pathField();
  if (path !== "") inputs.weight = numberField("Weight", tenant?.weight ?? 1, "1");
  inputs.max_jobs = numberField("Jobs at most", tenant?.max_jobs, "no limit");
  inputs.max_slots = numberField("Slots at most", tenant?.max_slots, "no limit");
  const chosen = () => (path === null ? inputs.path.input.value.trim() : path || WHOLE);
  const finish = (words) => {
    settle();
    say(words);
    done(true);
  };
  form.append(
    ...Object.values(inputs).map((each) => each.label),
    act("Save", "small"),
    act(path === "" ? "No limits" : "Weight 1, no limits", "plain small bad", () =>
      tryWith(inputs, () => remove(chosen(), finish)),
    ),
    act("Close", "plain small", () => done(false)),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    tryWith(inputs, () => save(chosen(), inputs, finish));
  });
  return form;
}

function pathField() {
  const made = field("Tenant");
  made.input.placeholder = "org/team/user";
  made.input.spellcheck = false;
  made.input.autocapitalize = "none";
  return made;
}

function numberField(label, value, empty) {
  const made = field(label);
  made.input.type = "number";
  made.input.step = "any";
  made.input.min = "0";
  made.input.placeholder = empty;
  made.input.value = value ?? "";
  return made;
}

function act(text, className, onClick) {
  const made = element("button", className, text);
  made.type = onClick ? "button" : "submit";
  if (onClick) made.addEventListener("click", onClick);
  return made;
}

async function save(path, inputs, finish) {
  const body = {};
  for (const name of ["weight", "max_jobs", "max_slots"]) {
    const text = inputs[name]?.input.value;
    if (text !== undefined && text !== "") body[name] = Number(text);
  }
  await call(addressOf(path), { method: "PUT", body });
  finish(`Weight and limits of ${path} are set.`);
}

async function remove(path, finish) {
  const question =
    path === WHOLE
      ? "Take the limits of the whole system away?"
      : `Give ${path} weight 1 and no limits?`;
  const agreed = await ask(
    question,
    "What was set for it is forgotten; the queue goes by it at once.",
    "Forget it",
  );
  if (!agreed) return;
  await call(addressOf(path), { method: "DELETE" });
  finish(`${path} has weight 1 and no limits again.`);
}

const addressOf = (path) => `/v1/queue/shares/${path.split("/").map(encodeURIComponent).join("/")}`;
