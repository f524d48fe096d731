/** A worker as a row of a table. */

import { badge, button, element, labelled } from "./elements.js";
import { ORDERS } from "./worker_orders.js";
import { timeOf } from "./words.js";

export const COLUMNS = 7;

/**
 * The row; `give` is told the worker and the name of an order, `edit` the worker whose labels are
 * to be changed; `isOpen`: they are being changed.
 */
export function drawWorker(worker, person, { give, edit }, isOpen) {
  const row = element("tr");
  row.append(
    nameCell(worker),
    stateCell(worker),
    reasonCell(worker),
    slotsCell(worker),
    labelsCell(worker),
    heardCell(worker),
    actsCell(worker, person, { give, edit }, isOpen),
  );
  return row;
}

function nameCell(worker) {
  const cell = element("td");
  cell.title = worker.id;
  const about = `${worker.inventory.hostname}${worker.ephemeral ? " · for a while" : ""}`;
  cell.append(element("strong", "", worker.name), element("span", "quiet about", about));
  return cell;
}

function stateCell(worker) {
  const cell = labelled(element("td"), "State");
  const state = worker.reason?.code ?? worker.state;
  cell.append(badge(state, state));
  return cell;
}

function reasonCell(worker) {
  const cell = element("td", "reason");
  if (!worker.reason) return cell;
  cell.append(element("span", "", worker.reason.message));
  if (worker.reason.hint) cell.append(element("span", "quiet", worker.reason.hint));
  return cell;
}

function slotsCell(worker) {
  const total = worker.inventory.slots.length;
  const kinds = [...new Set(worker.inventory.slots.map((slot) => slot.accelerator))].join(", ");
  const cell = labelled(element("td"), "Slots");
  cell.append(`${total - worker.slots_free} of ${total} busy`, element("span", "quiet about", kinds));
  return cell;
}

function labelsCell(worker) {
  const labels = Object.entries(worker.labels).map(([key, value]) => `${key}=${value}`);
  return labelled(element("td", "", labels.join(", ")), "Labels");
}

function heardCell(worker) {
  const cell = labelled(element("td"), "Heard");
  if (worker.last_heartbeat_at) cell.append(timeOf(worker.last_heartbeat_at));
  return cell;
}

function actsCell(worker, person, { give, edit }, isOpen) {
  const cell = element("td", "acts");
  if (!person.may("admin.workers")) return cell;
  const labels = button("Labels", "labels", () => edit(worker));
  labels.setAttribute("aria-label", `Labels of ${worker.name}`);
  labels.setAttribute("aria-expanded", String(isOpen));
  cell.append(labels);
  for (const [name, { text, fits, isGrave }] of Object.entries(ORDERS)) {
    if (!fits(worker)) continue;
    const className = isGrave ? "plain small bad" : "plain small";
    const made = button(text, name, () => give(worker, name), className);
    made.setAttribute("aria-label", `${text} ${worker.name}`);
    cell.append(made);
  }
  return cell;
}
