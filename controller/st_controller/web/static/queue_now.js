/** The head of the queue's page: counts, what is held back, reservations. */

import { call } from "./api.js";
import { badge, byId, element, setText } from "./elements.js";
import { learnNames, nameOf } from "./job_names.js";
import { count, timeOf } from "./words.js";

const HELD = {
  not_before: "until their moment",
  array_cap: "by the cap of their array",
  dependency: "until other jobs succeed",
  approval: "until somebody approves",
};
const MOST_SHOWN = 20;
const MOST_NAMED = 100;

export function showCounts(view) {
  setText(byId("waiting"), count(view.waiting));
  setText(byId("running"), count(view.running));
  setText(byId("slots"), `${count(view.slots_taken)} of ${count(view.slots)}`);
  byId("slots-bar").max = Math.max(1, view.slots);
  byId("slots-bar").value = view.slots_taken;
  const held = Object.entries(view.held);
  setText(byId("held"), count(held.reduce((sum, [, number]) => sum + number, 0)));
  byId("held-by").replaceChildren(
    ...held.map(([code, number]) =>
      element("li", "", `${count(number)} ${HELD[code] ?? code.replaceAll("_", " ")}`),
    ),
  );
}

export async function showReservations(reservations) {
  byId("reservations").hidden = reservations.length === 0;
  if (reservations.length === 0) return;
  const shown = reservations.slice(0, MOST_SHOWN);
  const workers = await workerNames(shown.flatMap((each) => each.workers).slice(0, MOST_NAMED));
  await learnNames(shown.map((each) => each.job_id));
  const items = shown.map((each) => drawReservation(each, workers));
  const more = reservations.length - shown.length;
  if (more > 0) items.push(element("li", "quiet", `and ${count(more)} more`));
  byId("reservation-list").replaceChildren(...items);
}

async function workerNames(ids) {
  const asked = new URLSearchParams([["retired", "true"], ["limit", MOST_NAMED]]);
  new Set(ids).forEach((id) => asked.append("id", id));
  const page = await call(`/v1/workers?${asked}`);
  return new Map(page.items.map((worker) => [worker.id, worker.name]));
}

function drawReservation(reservation, workers) {
  const item = element("li", "card worker");
  const { job_id: id } = reservation;
  item.append(element("strong", "", id ? nameOf(id) : "somebody else's job"));
  const kept = reservation.workers.map((worker) => workers.get(worker) ?? worker).join(", ");
  const what = reservation.preempting ? "is being cleared" : "is kept";
  item.append(element("span", "", `${kept} ${what}`));
  const when = element("span", "quiet");
  if (reservation.starts_by) when.append("starts by ", timeOf(reservation.starts_by));
  else when.append("its start cannot be told");
  item.append(when);
  if (reservation.preempting) item.append(badge("preempting", "queued"));
  return item;
}
