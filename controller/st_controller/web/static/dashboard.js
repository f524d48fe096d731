"use strict";

const REFRESH_MS = 5000;
const jobs = new Map(); // id -> JobView
const rows = new Map(); // id -> <tr>
let nextCursor = null;
let shownSample = "";

const byId = (id) => document.getElementById(id);

async function call(path, options = {}) {
  const reply = await fetch(path, options);
  if (reply.status === 401) {
    location.assign("/login");
    throw new Error("signed out");
  }
  if (!reply.ok) throw new Error((await reply.json()).detail);
  return reply.status === 204 ? null : reply.json();
}

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function duration(seconds) {
  if (seconds == null) return "";
  const whole = Math.max(0, Math.round(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min ${s} s` : `${s} s`;
}

const rounded = (value, digits) => (value == null ? "" : value.toFixed(digits));

function progressCell(job) {
  const cell = element("td", "progress");
  const progress = job.progress;
  if (!progress) return cell;
  const bar = element("progress");
  bar.max = Math.max(1, progress.steps);
  bar.value = progress.step;
  bar.setAttribute("aria-label", `${progress.step} of ${progress.steps} steps`);
  cell.append(bar, element("span", "quiet", `${progress.step} / ${progress.steps}`));
  return cell;
}

function nameCell(job) {
  const cell = element("td");
  const when = element("time", "quiet", new Date(job.submitted_at).toLocaleString());
  when.dateTime = job.submitted_at;
  cell.append(element("strong", "", job.name), when);
  cell.title = job.id;
  return cell;
}

function stateCell(job) {
  const cell = element("td");
  const state = job.cancel_requested && job.state === "running" ? "cancelling" : job.state;
  const badge = element("span", "badge", state.replaceAll("_", " "));
  badge.dataset.state = job.state;
  cell.append(badge);
  if (job.attempts > 1) cell.append(element("span", "quiet", ` attempt ${job.attempts}`));
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

function draw(job) {
  const live = job.state === "running";
  const progress = job.progress;
  const row = element("tr");
  row.append(
    nameCell(job),
    stateCell(job),
    progressCell(job),
    element("td", "number", rounded(progress?.loss, 4)),
    element("td", "number", live ? rounded(progress?.steps_per_second, 2) : ""),
    element("td", "number", live ? duration(progress?.eta_seconds) : ""),
    element("td", "", job.worker ?? ""),
    reasonCell(job),
  );
  return row;
}

function newestFirst(a, b) {
  return b.submitted_at.localeCompare(a.submitted_at) || b.id.localeCompare(a.id);
}

function place(job) {
  const known = rows.get(job.id);
  const row = draw(job);
  rows.set(job.id, row);
  if (known) {
    known.replaceWith(row);
    return;
  }
  const order = [...jobs.values()].sort(newestFirst);
  const after = order.slice(order.indexOf(job) + 1).find((other) => rows.has(other.id));
  byId("jobs").insertBefore(row, after ? rows.get(after.id) : null);
}

function take(job) {
  const known = jobs.get(job.id);
  if (known && known.version > job.version) return;
  jobs.set(job.id, job);
  place(job);
  byId("no-jobs").hidden = true;
}

async function loadJobs(cursor) {
  const page = await call(`/v1/jobs?limit=50${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
  page.items.forEach(take);
  nextCursor = page.next_cursor;
  byId("more").hidden = !nextCursor;
  byId("no-jobs").hidden = jobs.size > 0;
}

async function newestSample(job) {
  let newest = null;
  let cursor = null;
  do {
    const after = cursor ? `&cursor=${encodeURIComponent(cursor)}` : "";
    const page = await call(`/v1/jobs/${job.id}/artifacts?kind=sample${after}`);
    const pictures = page.items.filter((item) => /\.(png|jpe?g|webp|gif)$/.test(item.path));
    newest = pictures.at(-1) ?? newest;
    cursor = page.next_cursor;
  } while (cursor);
  return newest;
}

async function showSamples() {
  for (const job of [...jobs.values()].sort(newestFirst).slice(0, 10)) {
    const sample = job.started_at ? await newestSample(job) : null;
    if (!sample) continue;
    if (sample.id !== shownSample) {
      shownSample = sample.id;
      byId("sample").src = sample.url;
      byId("sample").alt = `samples of ${job.name} at step ${sample.step}`;
      byId("sample-link").href = sample.url;
      byId("samples-of").textContent = `${job.name}, step ${sample.step}`;
      byId("samples").hidden = false;
    }
    return;
  }
}

function drawWorker(worker) {
  const item = element("li", "card worker");
  item.dataset.state = worker.state;
  const total = worker.inventory.slots.length;
  const kinds = [...new Set(worker.inventory.slots.map((slot) => slot.accelerator))].join(", ");
  const desired = worker.desired === "active" ? "" : `, ${worker.desired}`;
  item.append(
    element("strong", "", worker.name),
    element("span", "badge", worker.state + desired),
    element("span", "quiet", `${total - worker.slots_free} of ${total} slots busy · ${kinds}`),
  );
  item.querySelector(".badge").dataset.state = worker.state;
  return item;
}

async function showWorkers() {
  const page = await call("/v1/workers");
  const present = page.items.filter((worker) => worker.desired !== "retired");
  byId("workers").replaceChildren(...present.map(drawWorker));
  byId("no-workers").hidden = present.length > 0;
}

function linkState(state) {
  byId("link").dataset.state = state;
  byId("link").textContent = state;
}

function later(work, delay) {
  let timer = null;
  return () => {
    timer ??= setTimeout(() => {
      timer = null;
      work().catch(report);
    }, delay);
  };
}

function report(error) {
  console.error(error);
  linkState("trouble");
}

function follow() {
  const refreshSamples = later(showSamples, 1000);
  const stream = new EventSource("/v1/events");
  stream.addEventListener("open", () => linkState("live"));
  stream.addEventListener("error", () => {
    linkState("reconnecting");
    // A stream that was refused stays closed: the session may be over, which a call will tell.
    if (stream.readyState === EventSource.CLOSED) {
      setTimeout(() => call("/v1/auth/me").then(follow).catch(report), 3000);
    }
  });
  stream.addEventListener("job", (event) => {
    take(JSON.parse(event.data));
    refreshSamples();
  });
}

byId("more").addEventListener("click", () => loadJobs(nextCursor).catch(report));
byId("logout").addEventListener("click", async () => {
  await call("/v1/auth/logout", { method: "POST" });
  location.assign("/login");
});

async function start() {
  await Promise.all([loadJobs(null), showWorkers()]);
  await showSamples();
}

/** What the stream failed to bring; the stream is faster, this is sure. */
async function refreshJobs() {
  (await call("/v1/jobs?limit=50")).items.forEach(take);
}

follow();
start().catch(report);
setInterval(() => showWorkers().catch(report), REFRESH_MS);
setInterval(() => refreshJobs().catch(report), REFRESH_MS);
setInterval(() => showSamples().catch(report), 2 * REFRESH_MS);
