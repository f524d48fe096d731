/** The first workers as cards. */

import { call, query } from "./api.js";
import { badge, byId, element } from "./elements.js";

const MOST = 24;

export async function showWorkers() {
  const page = await call(`/v1/workers${query({ limit: MOST })}`);
  byId("workers").replaceChildren(...page.items.map(draw));
  byId("more-workers").hidden = page.next_cursor === null;
  byId("no-workers").hidden = page.items.length > 0;
}

function draw(worker) {
  const item = element("li", "card worker");
  item.dataset.state = worker.state;
  const total = worker.inventory.slots.length;
  const kinds = [...new Set(worker.inventory.slots.map((slot) => slot.accelerator))].join(", ");
  const desired = worker.desired === "active" ? "" : `, ${worker.desired}`;
  const condition = worker.inventory.condition;
  const notes = [
    ...condition.busy.map((slot) => `slot ${slot.index} is not offered: ${slot.message}`),
    ...condition.warnings.map((warning) => warning.message),
  ];
  item.append(
    element("strong", "", worker.name),
    badge(worker.state + desired, worker.state),
    element("span", "quiet", `${total - worker.slots_free} of ${total} slots busy · ${kinds}`),
    ...notes.map((note) => element("span", "quiet warning", note)),
  );
  return item;
}
