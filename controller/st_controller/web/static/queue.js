/** The page of the queue. */

import { call } from "./api.js";
import { byId, element } from "./elements.js";
import { keepFresh } from "./frame.js";
import { whoIsHere } from "./person.js";
import { attempt } from "./notices.js";
import { showCounts, showReservations } from "./queue_now.js";
import { drawRules } from "./rules_form.js";
import { shareForm } from "./share_form.js";
import { COLUMNS } from "./tenant_row.js";
import { TenantTree } from "./tenant_tree.js";

const REFRESH_MS = 4000;

const person = await whoIsHere();
const mayManage = person.may("queue.manage");
const tree = new TenantTree(byId("tenants"), {
  edit: mayManage ? toggleForm : null,
  seesAll: person.may("queue.view.all") && person.reach === "system",
});

async function show() {
  const view = await call("/v1/queue");
  showCounts(view);
  tree.take(view.tenants);
  await showReservations(view.reservations);
}

/** Open or close the form of a tenant below its row. */
function toggleForm(path) {
  if (tree.hasBelow(path)) {
    tree.putBelow(path, null);
    return;
  }
  const row = element("tr", "panel");
  const cell = element("td");
  cell.colSpan = COLUMNS;
  const done = (isChanged) => {
    tree.putBelow(path, null);
    tree.focus(path);
    if (isChanged) refresh();
  };
  cell.append(shareForm({ path, tenant: tree.find(path), done }));
  row.append(cell);
  tree.putBelow(path, row);
  row.querySelector("input").focus();
}

/** The form for a tenant that nothing is known of yet. */
function toggleNew() {
  const place = byId("new-share");
  const isOpening = place.hidden;
  place.hidden = !isOpening;
  byId("add-share").setAttribute("aria-expanded", String(isOpening));
  if (!isOpening) {
    byId("add-share").focus();
    return;
  }
  const done = (isChanged) => {
    toggleNew();
    if (isChanged) refresh();
  };
  place.replaceChildren(shareForm({ path: null, done }));
  place.querySelector("input").focus();
}

function showRules(rules) {
  byId("rules").replaceChildren(drawRules(rules, person.may("admin.queue"), showRules));
}

function filter() {
  tree.search = byId("filter").value.trim();
  tree.activeOnly = byId("active-only").checked;
  tree.draw();
}

byId("shares-legend").hidden = !person.may("queue.view.all");
byId("add-share").hidden = !mayManage;
byId("add-share").addEventListener("click", toggleNew);
byId("open-all").addEventListener("click", () => tree.openAll());
byId("close-all").addEventListener("click", () => tree.closeAll());
byId("filter").addEventListener("input", filter);
byId("active-only").addEventListener("change", filter);
filter(); // a browser that comes back to the page has kept what was asked for

const refresh = keepFresh(show, REFRESH_MS);
attempt(async () => showRules(await call("/v1/queue/policy")));
