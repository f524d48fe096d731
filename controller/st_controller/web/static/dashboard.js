/** The page of jobs, workers and samples. */

import { call, query } from "./api.js";
import { byId } from "./elements.js";
import { keepFresh, linkState } from "./frame.js";
import { JobTable } from "./job_table.js";
import { attempt } from "./notices.js";
import { whoIsHere } from "./person.js";
import { showSamples } from "./samples.js";
import { Stream } from "./stream.js";
import { showWorkers } from "./workers.js";

const REFRESH_MS = 5000;

const table = new JobTable(await whoIsHere());
let nextCursor = null;

async function loadJobs(cursor) {
  const page = await call(`/v1/jobs${query({ limit: 50, cursor })}`);
  page.items.forEach((job) => table.take(job));
  byId("no-jobs").hidden = table.jobs.size > 0;
  return page.next_cursor;
}

async function loadOlder() {
  nextCursor = await loadJobs(nextCursor);
  byId("more").hidden = !nextCursor;
}

/** What the stream failed to bring, and why jobs wait; the stream is faster, this is sure. */
async function refreshJobs() {
  await Promise.all([loadJobs(null), table.refreshPanels()]);
}

const stream = new Stream(() => "/v1/events", {
  job(job) {
    table.take(job);
    byId("no-jobs").hidden = true;
    refreshSamples();
  },
});

/** The link is what the stream is, as long as the rest works. */
function ended(error) {
  if (error) linkState("trouble");
  else linkState(stream.isOpen ? "live" : "reconnecting");
}

function later(work, delay) {
  let timer = null;
  return () => {
    timer ??= setTimeout(() => {
      timer = null;
      work();
    }, delay);
  };
}

byId("more").addEventListener("click", () => attempt(loadOlder));
await attempt(loadOlder);
const lookForSamples = keepFresh(() => showSamples(table.jobs.values()), 2 * REFRESH_MS, ended);
const refreshSamples = later(lookForSamples, 1000);
stream.open();
keepFresh(refreshJobs, REFRESH_MS, ended);
keepFresh(showWorkers, REFRESH_MS, ended);
