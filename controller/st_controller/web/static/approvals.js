/** The page of jobs that wait for approval: one or many are approved or rejected. */

import { drawApproval } from "./approval_row.js";
import { call, query } from "./api.js";
import { arrange, byId } from "./elements.js";
import { keepFresh } from "./frame.js";
import { attempt, say, tell } from "./notices.js";
import { Pager } from "./pager.js";
import { counted } from "./words.js";

const REFRESH_MS = 5000;
const PAGE = 50;

const rows = new Map(); // id -> { view, row }
const chosen = new Set(); // ids of approvals
const pager = new Pager(() => refresh());
let shown = []; // approvals, in their order

async function show() {
  const { cursor } = pager;
  const state = byId("state").value;
  const page = await call(`/v1/approvals${query({ limit: PAGE, cursor, state })}`);
  if (pager.cursor !== cursor || byId("state").value !== state) return; // asked for another
  shown = page.items;
  const open = new Set(shown.filter((each) => each.may_decide).map((each) => each.id));
  for (const id of [...chosen]) if (!open.has(id)) chosen.delete(id);
  arrange(byId("approval-rows"), shown.map(rowOf));
  byId("no-approvals").hidden = shown.length > 0;
  pager.follow(page.next_cursor);
  drawChoice();
}

/** The row of an approval; the one that is there as long as nothing has changed. */
function rowOf(approval) {
  const view = JSON.stringify(approval);
  const known = rows.get(approval.id);
  if (known?.view === view) return known.row;
  const row = drawApproval(approval, chosen.has(approval.id), choose);
  rows.set(approval.id, { view, row });
  return row;
}

function choose(approval, isChosen) {
  if (isChosen) chosen.add(approval.id);
  else chosen.delete(approval.id);
  drawChoice();
}

function drawChoice() {
  const open = shown.filter((each) => each.may_decide);
  byId("chosen").textContent = chosen.size ? `${counted(chosen.size, "job")} chosen` : "";
  byId("approve").disabled = byId("reject").disabled = chosen.size === 0;
  byId("all").disabled = open.length === 0;
  byId("all").checked = open.length > 0 && chosen.size === open.length;
  byId("all").indeterminate = chosen.size > 0 && chosen.size < open.length;
  if (chosen.size === 0) closeReason();
}

function decide(decision, reason) {
  return attempt(async () => {
    const body = { ids: [...chosen], decision, reason };
    const { results } = await call("/v1/approvals:decide", { method: "POST", body });
    const refused = results.filter((result) => result.problem);
    for (const { id, problem } of refused) tell(new Error(`${nameOf(id)}: ${problem.detail}`), id);
    const done = results.length - refused.length;
    const past = decision === "approve" ? "approved" : "rejected";
    if (done) say(`${counted(done, "job")} ${past}.`);
    chosen.clear();
    rows.clear();
    await refresh();
  });
}

const nameOf = (id) => shown.find((each) => each.id === id)?.job_name ?? id;

function closeReason() {
  byId("reason-form").hidden = true;
  byId("reason").value = "";
}

byId("approve").addEventListener("click", () => decide("approve", ""));
byId("reject").addEventListener("click", () => {
  byId("reason-form").hidden = false;
  byId("reason").focus();
});
byId("leave").addEventListener("click", () => {
  closeReason();
  byId("reject").focus();
});
byId("reason-form").addEventListener("submit", (event) => {
  event.preventDefault();
  decide("reject", byId("reason").value);
});
byId("all").addEventListener("change", () => {
  const isChosen = byId("all").checked;
  chosen.clear();
  if (isChosen) for (const each of shown) if (each.may_decide) chosen.add(each.id);
  rows.clear();
  arrange(byId("approval-rows"), shown.map(rowOf));
  drawChoice();
});
byId("state").addEventListener("change", () => {
  pager.reset();
  chosen.clear();
  refresh();
});

const refresh = keepFresh(show, REFRESH_MS);
