/** One row of the table of quotas. */

import { button, element, labelled } from "./elements.js";
import { bytes, duration } from "./words.js";

/** `made` is when it was counted; `remove` takes the limit away, null where one may not. */
export function drawQuota(quota, made, remove) {
  const row = element("tr");
  const name = element("td");
  name.append(element("strong", "", quota.kind), element("span", "quiet", ` ${nodeOf(quota)}`));
  row.append(
    name,
    labelled(taken(quota), "Taken"),
    amount("Used", quota.kind, quota.used),
    amount("Held", quota.kind, quota.held),
    amount("Left", quota.kind, quota.left),
    labelled(element("td", "", until(quota.renews_at, made, "never")), "Begins anew"),
    labelled(element("td", "", until(quota.runs_out_at, made, "")), "Runs out"),
    labelled(element("td", "", quota.action), "Then"),
    acts(quota, remove),
  );
  return row;
}

/** A row for a limit that each user of a role has: nobody's use belongs to it. */
export function drawLimit(quota, remove) {
  const row = element("tr");
  const name = element("td");
  name.append(element("strong", "", quota.kind), element("span", "quiet", ` ${nodeOf(quota)}`));
  row.append(
    name,
    labelled(element("td", "", said(quota.kind, quota.amount)), "At most"),
    labelled(element("td", "", quota.action), "Then"),
    acts(quota, remove),
  );
  return row;
}

export const nameOf = (quota) => `${quota.kind} of ${nodeOf(quota)}`;

const nodeOf = ({ path, role }) => (role ? `each ${role} of ${path}` : path);

function taken(quota) {
  const cell = element("td");
  const limit = Number(quota.amount);
  const part = limit > 0 ? (Number(quota.used) + Number(quota.held)) / limit : 1;
  const bar = element("meter");
  bar.min = 0;
  bar.max = 1;
  bar.high = 0.8;
  bar.optimum = 0;
  bar.value = Math.min(1, part);
  bar.setAttribute("aria-label", `${Math.round(100 * part)} % of ${nameOf(quota)}`);
  cell.append(bar, ` of ${said(quota.kind, quota.amount)}`);
  return cell;
}

const amount = (column, kind, value) => labelled(element("td", "", said(kind, value)), column);

const said = (kind, value) => (kind === "storage_bytes" ? bytes(Number(value)) : value);

function until(moment, made, otherwise) {
  if (!moment) return otherwise;
  const seconds = (new Date(moment) - new Date(made)) / 1000;
  return seconds <= 0 ? "now" : `in ${duration(seconds)}`;
}

function acts(quota, remove) {
  const cell = element("td", "acts");
  if (remove) {
    const made = button("Remove", "remove", remove);
    made.setAttribute("aria-label", `Remove the limit ${nameOf(quota)}`);
    cell.append(made);
  }
  return cell;
}
