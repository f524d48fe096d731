/** The page of all workers. */

import { call, query } from "./api.js";
import { arrange, byId, element, swap } from "./elements.js";
import { keepFresh } from "./frame.js";
import { JoinTokens } from "./join_tokens.js";
import { LabelForm } from "./label_form.js";
import { attempt } from "./notices.js";
import { Pager } from "./pager.js";
import { whoIsHere } from "./person.js";
import { ORDERS } from "./worker_orders.js";
import { COLUMNS, drawWorker } from "./worker_row.js";

const REFRESH_MS = 5000;
const PAGE = 50;

const person = await whoIsHere();
const pager = new Pager(() => refresh(), "workers-");
const rows = new Map(); // id -> { view, row }
const forms = new Map(); // id -> { form, row }, of workers whose labels are being changed

async function show() {
  const { cursor } = pager;
  const page = await call(`/v1/workers${query({ limit: PAGE, cursor })}`);
  if (pager.cursor !== cursor) return; // another page was asked for meanwhile
  const shown = page.items.flatMap((worker) => {
    forms.get(worker.id)?.form.update(worker);
    return [rowOf(worker), forms.get(worker.id)?.row].filter(Boolean);
  });
  arrange(byId("worker-rows"), shown);
  byId("no-worker-rows").hidden = shown.length > 0;
  pager.follow(page.next_cursor);
}

/** The row of a worker; the one that is there as long as nothing has changed. */
function rowOf(worker) {
  const isOpen = forms.has(worker.id);
  const view = JSON.stringify([worker, isOpen]);
  const known = rows.get(worker.id);
  if (known?.view === view) return known.row;
  const row = drawWorker(worker, person, { give, edit }, isOpen);
  if (known?.row.isConnected) swap(known.row, row);
  rows.set(worker.id, { view, row });
  return row;
}

/** Give an order, where the person agrees, and show what became of it. */
function give(worker, order) {
  return attempt(async () => {
    if (await ORDERS[order].give(worker)) await refresh();
  });
}

/** Open or close the form of a worker's labels below its row. */
function edit(worker) {
  const open = forms.get(worker.id);
  if (open) {
    forms.delete(worker.id);
    open.row.remove();
    rowOf(worker).querySelector("[data-act=labels]").focus();
    return;
  }
  const form = new LabelForm(worker, { changed: rowOf, closed: () => edit(form.worker) });
  const row = element("tr", "panel");
  const cell = element("td");
  cell.colSpan = COLUMNS;
  cell.append(form.element);
  row.append(cell);
  forms.set(worker.id, { form, row });
  rowOf(worker).after(row);
  form.focus();
}

const refresh = keepFresh(show, REFRESH_MS);
if (person.may("admin.workers")) {
  const tokens = new JoinTokens(() => refreshTokens());
  const refreshTokens = keepFresh(() => tokens.refresh(), REFRESH_MS);
}
