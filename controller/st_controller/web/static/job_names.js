/** Names of jobs by their ids, each asked for once. */

import { call } from "./api.js";

const names = new Map();

/** Note the name of a job that the page knows. */
export const noteName = (job) => names.set(job.id, job.name);

/** The name of a job that was noted or asked for; its id where there is none. */
export const nameOf = (id) => names.get(id) ?? id;

/** Ask for the names of these jobs, as far as they are not known; null stands for no job. */
export async function learnNames(ids) {
  await Promise.all(ids.filter((id) => id && !names.has(id)).map(learn));
}

async function learn(id) {
  try {
    noteName(await call(`/v1/jobs/${id}`));
  } catch (error) {
    if (error.status !== 404) throw error; // one that is gone keeps its id
  }
}
