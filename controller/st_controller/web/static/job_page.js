/** The page of one job: how it stands, its curves, its samples and its log. */

import { call } from "./api.js";
import { Curves } from "./curves.js";
import { byId, element, setText } from "./elements.js";
import { keepFresh, linkState } from "./frame.js";
import { JobTable } from "./job_table.js";
import { compare, placeOf } from "./log_lines.js";
import { LogTools } from "./log_tools.js";
import { LogView } from "./log_view.js";
import { whoIsHere } from "./person.js";
import { showSamples } from "./samples.js";
import { isOver } from "./states.js";
import { Stream } from "./stream.js";
import { timeOf } from "./words.js";

const REFRESH_MS = 3000;
const SAMPLES_MS = 10_000;

const id = byId("job").dataset.id;
const address = `/v1/jobs/${encodeURIComponent(id)}`;
const table = new JobTable(await whoIsHere());
const curves = new Curves(id);
const log = new LogView(id);
const tools = new LogTools(id, log);
let job = null;
let told = null; // the last state that the stream told
let last = null; // place of the last line of the stream

const stream = new Stream(
  () => `${address}/events${last ? `?after=${placeOf(last)}` : ""}`,
  {
    log: (line) => log.take(moved(line)),
    metric: (point) => {
      moved(point);
      curves.expectMore();
    },
    state: (change) => {
      told = change;
      refresh();
    },
  },
  () => told !== null && isOver(told),
);

/** Note that the stream has come so far. */
function moved(line) {
  if (compare(line, last) > 0) last = line;
  return line;
}

async function show() {
  await showJob();
  await Promise.all([tools.refresh(), table.refreshPanels()]);
  // The curve first: what lies before its last point then lies before the last lines too.
  await curves.refresh();
  if (!log.isLoaded) await log.load();
  if (stream.isClosed && !isOver(job)) follow(); // one that is over says no more
}

async function showJob() {
  const { spec, ...found } = await call(address);
  job = found;
  log.lines.isGang = (spec.resources?.nodes ?? 1) > 1;
  table.show([job]);
  setText(byId("job-title"), job.name);
  document.title = `${job.name} · st-fleet`;
  byId("about").replaceChildren(...about(job));
}

function about(found) {
  const array = element("a", "", "array");
  array.href = `/arrays/${found.array}`;
  const parts = [`${found.id} · submitted by ${found.submitted_by} `, timeOf(found.submitted_at)];
  if (found.array) parts.push(" · part of an ", array);
  return parts;
}

function follow() {
  for (const end of [curves.last, log.lines.last]) moved(end);
  stream.open();
}

function ended(error) {
  if (error) linkState("trouble");
  else linkState(stream.isOpen || isOver(job) ? "live" : "reconnecting");
}

const refresh = keepFresh(show, REFRESH_MS, ended);
keepFresh(() => (job ? showSamples([job]) : null), SAMPLES_MS, () => {});
