/** The page of all workers. */

import { call } from "./api.js";
import { arrange, byId, swap } from "./elements.js";
import { keepFresh } from "./frame.js";
import { attempt } from "./notices.js";
import { whoIsHere } from "./person.js";
import { ORDERS } from "./worker_orders.js";
import { drawWorker } from "./worker_row.js";

const REFRESH_MS = 5000;

const person = await whoIsHere();
const rows = new Map(); // id -> { view, row }

async function show() {
  const page = await call("/v1/workers");
  const shown = page.items.map(rowOf);
  arrange(byId("worker-rows"), shown);
  byId("no-worker-rows").hidden = shown.length > 0;
}

/** The row of a worker; the one that is there as long as nothing has changed. */
function rowOf(worker) {
  const view = JSON.stringify(worker);
  const known = rows.get(worker.id);
  if (known?.view === view) return known.row;
  const row = drawWorker(worker, person, give);
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

const refresh = keepFresh(show, REFRESH_MS);
