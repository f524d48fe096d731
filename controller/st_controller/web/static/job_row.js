/** A job as a row of a table. */

import { badge, button, element, labelled } from "./elements.js";
import { levelName } from "./levels.js";
import { isOver, spoken, waits } from "./states.js";
import { mayCancel, mayRetry } from "./steering.js";
import { duration, rounded, timeOf } from "./words.js";

export const COLUMNS = 9;

/**
 * The row; `acts` has what its buttons do: `why`, `cancel`, `retry`, each given the job.
 * `isOpen`: its panel is; `isInArray`: all rows are jobs of one array, which need not be said.
 */
export function drawJob(job, person, acts, { isOpen, isInArray }) {
  const live = job.state === "running";
  const progress = job.progress;
  const row = element("tr");
  row.append(
    nameCell(job, person, isInArray),
    stateCell(job),
    progressCell(job),
    number("Loss", rounded(progress?.loss, 4)),
    number("Steps/s", live ? rounded(progress?.steps_per_second, 2) : ""),
    number("Left", live ? duration(progress?.eta_seconds) : ""),
    labelled(element("td", "", job.worker ?? ""), "Worker"),
    reasonCell(job),
    actsCell(job, person, acts, isOpen),
  );
  return row;
}

const number = (column, text) => labelled(element("td", "number", text), column);

function nameCell(job, person, isInArray) {
  const cell = element("td");
  cell.title = job.id;
  const about = element("span", "quiet about");
  if (job.submitted_by !== person.username) about.append(`${job.submitted_by} · `);
  about.append(timeOf(job.submitted_at));
  if (job.priority !== "normal") about.append(` · ${job.priority}`);
  if (job.override != null) about.append(` · overridden: ${levelName(job.override)}`);
  if (job.array && !isInArray) about.append(" · ", arrayLink(job));
  const link = element("a", "", job.name);
  link.href = `/jobs/${job.id}`;
  const strong = element("strong");
  strong.append(link);
  cell.append(strong, about);
  return cell;
}

function arrayLink(job) {
  const link = element("a", "", "array");
  link.href = `/arrays/${job.array}`;
  return link;
}

function stateCell(job) {
  const cell = element("td");
  const isEnding = job.cancel_requested && !isOver(job);
  cell.append(badge(isEnding ? "cancelling" : spoken(job.state), job.state));
  if (job.attempts > 1) cell.append(element("span", "quiet", ` attempt ${job.attempts}`));
  return cell;
}

function progressCell(job) {
  const cell = element("td", "progress");
  const progress = job.progress;
  if (!progress) return cell;
  const bar = element("progress");
  bar.max = Math.max(1, progress.steps);
  bar.value = progress.step;
  const what = progress.phase === "caching" ? "encodings" : "steps";
  bar.setAttribute("aria-label", `${progress.step} of ${progress.steps} ${what}`);
  const before = progress.phase === "caching" ? "caching " : "";
  cell.append(bar, element("span", "quiet", `${before}${progress.step} / ${progress.steps}`));
  return cell;
}

function reasonCell(job) {
  const cell = element("td", "reason");
  if (job.reason) {
    cell.append(element("span", "", job.reason.message));
    if (job.reason.hint) cell.append(element("span", "quiet", job.reason.hint));
  }
  return cell;
}

function actsCell(job, person, acts, isOpen) {
  const cell = element("td", "acts");
  const of = (text, act, className) => {
    const made = button(text, act, () => acts[act](job), className);
    made.setAttribute("aria-label", `${text} ${job.name}`);
    return made;
  };
  if (waits(job)) {
    const why = of("Why?", "why");
    why.setAttribute("aria-label", `Why does ${job.name} wait?`);
    why.setAttribute("aria-expanded", String(isOpen));
    cell.append(why);
  }
  if (mayRetry(person, job)) cell.append(of("Retry", "retry"));
  if (mayCancel(person, job)) cell.append(of("Cancel", "cancel", "plain small bad"));
  return cell;
}
