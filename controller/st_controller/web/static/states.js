/** The states of a job, in the order in which a bar shows them. */

export const STATES = [
  "succeeded",
  "running",
  "assigned",
  "queued",
  "awaiting_approval",
  "failed",
  "cancelled",
  "rejected",
];

const FINAL = new Set(["succeeded", "failed", "cancelled", "rejected"]);
const WAITING = new Set(["queued", "awaiting_approval"]);

export const isOver = (job) => FINAL.has(job.state);
export const waits = (job) => WAITING.has(job.state);
export const spoken = (state) => state.replaceAll("_", " ");
