/** The newest samples of the newest job that has some. */

import { call, query } from "./api.js";
import { byId } from "./elements.js";
import { newestFirst } from "./job_table.js";

const MOST_JOBS = 10;
let shown = "";

/** Look through the newest of these jobs. */
export async function showSamples(jobs) {
  for (const job of [...jobs].sort(newestFirst).slice(0, MOST_JOBS)) {
    const sample = job.started_at ? await newestSample(job) : null;
    if (sample) {
      draw(job, sample);
      return;
    }
  }
}

async function newestSample(job) {
  let newest = null;
  let cursor = null;
  do {
    const page = await call(`/v1/jobs/${job.id}/artifacts${query({ kind: "sample", cursor })}`);
    const pictures = page.items.filter((item) => /\.(png|jpe?g|webp|gif)$/.test(item.path));
    newest = pictures.at(-1) ?? newest;
    cursor = page.next_cursor;
  } while (cursor);
  return newest;
}

function draw(job, sample) {
  if (sample.id === shown) return;
  shown = sample.id;
  byId("sample").src = sample.url;
  byId("sample").alt = `samples of ${job.name} at step ${sample.step}`;
  byId("sample-link").href = sample.url;
  byId("samples-of").textContent = `${job.name}, step ${sample.step}`;
  byId("samples").hidden = false;
}
