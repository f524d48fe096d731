/** The page of jobs, workers and samples. */

import { call, query } from "./api.js";
import { byId } from "./elements.js";
import { keepFresh, linkState } from "./frame.js";
import { JobTable } from "./job_table.js";
import { attempt, settle, tell } from "./notices.js";
import { whoIsHere } from "./person.js";
import { showSamples } from "./samples.js";
import { showWorkers } from "./workers.js";

const REFRESH_MS = 5000;
const RECONNECT_MS = 3000;

const table = new JobTable(await whoIsHere());
let nextCursor = null;
let stream = null;

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

function follow() {
  stream = new EventSource("/v1/events");
  stream.addEventListener("open", () => {
    settle("stream");
    linkState("live");
  });
  stream.addEventListener("error", () => {
    linkState("reconnecting");
    // A stream that was refused stays closed: the session may be over, which a call will tell.
    if (stream.readyState === EventSource.CLOSED) setTimeout(followAgain, RECONNECT_MS);
  });
  stream.addEventListener("job", (event) => {
    table.take(JSON.parse(event.data));
    byId("no-jobs").hidden = true;
    refreshSamples();
  });
}

function followAgain() {
  call("/v1/auth/me").then(follow, (error) => {
    tell(error, "stream");
    setTimeout(followAgain, RECONNECT_MS);
  });
}

/** The link is what the stream is, as long as the rest works. */
function ended(error) {
  const isOpen = stream?.readyState === EventSource.OPEN;
  if (error) linkState("trouble");
  else linkState(isOpen ? "live" : "reconnecting");
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
follow();
keepFresh(refreshJobs, REFRESH_MS, ended);
keepFresh(showWorkers, REFRESH_MS, ended);
