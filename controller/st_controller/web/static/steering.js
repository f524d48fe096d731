/** What a person may do to a job, and doing it. */

import { call } from "./api.js";
import { levelName } from "./levels.js";
import { say } from "./notices.js";
import { ask } from "./question.js";
import { isOver, waits } from "./states.js";

export const mayCancel = (person, job) =>
  !isOver(job) &&
  !job.cancel_requested &&
  person.may("job.cancel.own") &&
  person.reaches(job, "job.cancel.all");

export const mayRetry = (person, job) =>
  (job.state === "failed" || job.state === "cancelled") &&
  person.may("job.submit") &&
  person.reaches(job, "job.cancel.all");

export const mayChangeClass = (person, job) =>
  waits(job) && person.may("job.submit") && person.reaches(job, "queue.manage");

export const mayOverride = (person, job) =>
  waits(job) &&
  person.may("job.submit") &&
  person.may("queue.manage") &&
  person.reaches(job, "queue.manage");

/** Cancel a job, once the person has agreed; the job as it is then, or null. */
export async function cancel(job) {
  const loss =
    job.state === "running"
      ? "It stops; what it has learned since its last checkpoint is lost."
      : "It leaves the queue. A retry gives it its place again.";
  if (!(await ask(`Cancel ${job.name}?`, loss, "Cancel the job"))) return null;
  return done(job, "cancel", undefined, "is cancelled");
}

export const retry = (job) => done(job, "retry", undefined, "is queued again");

export const changeClass = (job, priority) =>
  done(job, "priority", { priority }, `has the class ${priority}`);

/** Put a level in place of the class; null gives the class back. */
export const override = (job, level) =>
  done(
    job,
    "priority",
    { override: level },
    level === null ? "has its own class again" : `is served as ${levelName(level)}`,
  );

async function done(job, what, body, words) {
  const now = await call(`/v1/jobs/${job.id}/${what}`, { method: "POST", body });
  say(`${job.name} ${words}.`);
  return now;
}
