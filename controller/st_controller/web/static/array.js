/** The page of one job array. */

import { call, query } from "./api.js";
import { byId, element, setText } from "./elements.js";
import { keepFresh } from "./frame.js";
import { JobTable } from "./job_table.js";
import { attempt, say } from "./notices.js";
import { Pager } from "./pager.js";
import { whoIsHere } from "./person.js";
import { ask } from "./question.js";
import { stateBar } from "./state_bar.js";
import { isOver, spoken, STATES } from "./states.js";
import { count, counted, timeOf } from "./words.js";

const REFRESH_MS = 3000;
const PAGE = 50;

const person = await whoIsHere();
const table = new JobTable(person, { isInArray: true });
const pager = new Pager(() => refresh());
const id = byId("array").dataset.id;
const address = `/v1/job-arrays/${encodeURIComponent(id)}`;
const capInput = byId("cap-form").elements.max_running;

async function show() {
  showArray(await call(address));
  await showJobs();
  await table.refreshPanels();
}

async function showJobs() {
  const state = byId("state").value;
  const { cursor } = pager;
  const page = await call(`/v1/jobs${query({ array: id, state, limit: PAGE, cursor })}`);
  if (byId("state").value !== state || pager.cursor !== cursor) return; // asked for another
  table.show(page.items);
  byId("no-jobs").hidden = page.items.length > 0;
  pager.follow(page.next_cursor);
}

function showArray(array) {
  setText(byId("array-title"), array.name);
  document.title = `${array.name} · st-fleet`;
  const about = `${counted(array.size, "job")}, submitted by ${array.submitted_by} `;
  byId("about").replaceChildren(about, timeOf(array.submitted_at));
  byId("counts").replaceChildren(stateBar(array.counts));
  showCap(array);
  byId("cancel-all").hidden =
    openOnes(array) === 0 ||
    !person.may("job.cancel.own") ||
    !person.reaches(array, "job.cancel.all");
  byId("cancel-all").onclick = () => attempt(() => cancelAll(array));
}

function showCap(array) {
  const mayCap = person.may("job.submit") && person.reaches(array, "job.cancel.all");
  byId("cap-form").hidden = !mayCap;
  const most = array.max_running;
  setText(byId("cap-words"), mayCap ? "" : most ? `At most ${count(most)} run at one time.` : "");
  // Not under the fingers of whoever is just changing it.
  if (!byId("cap-form").contains(document.activeElement)) capInput.value = most ?? "";
}

const openOnes = ({ counts }) =>
  Object.entries(counts).reduce((sum, [state, n]) => sum + (isOver({ state }) ? 0 : n), 0);

async function cancelAll(array) {
  const agreed = await ask(
    `Cancel ${counted(openOnes(array), "job")} of ${array.name}?`,
    "Those that run stop; what they have learned since their last checkpoints is lost.",
    "Cancel them all",
  );
  if (!agreed) return;
  showArray(await call(`${address}/cancel`, { method: "POST" }));
  say("All its jobs are cancelled.");
  refresh();
}

async function saveCap() {
  const most = capInput.value === "" ? null : Number(capInput.value);
  const array = await call(address, { method: "PATCH", body: { max_running: most } });
  document.activeElement.blur();
  showArray(array);
  say(most === null ? "The cap is taken away." : `At most ${count(most)} run at one time.`);
}

byId("cap-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(saveCap);
});
byId("state").append(
  ...STATES.map((state) => Object.assign(element("option", "", spoken(state)), { value: state })),
);
byId("state").addEventListener("change", () => {
  pager.reset();
  refresh();
});

const refresh = keepFresh(show, REFRESH_MS);
