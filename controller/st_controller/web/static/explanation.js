/** Why a job waits and when it starts, as elements. */

import { badge, element, terms } from "./elements.js";
import { nameOf } from "./job_names.js";
import { levelName } from "./levels.js";
import { count, counted, duration, slotHours, timeOf } from "./words.js";

const BASES = {
  declared: "as long as it was said to take",
  learned: "as long as such jobs have taken",
  "time limit": "as long as its time limit lets it",
};

/** The elements of an explanation. */
export function drawExplanation(found) {
  const parts = [drawReason(found), terms(facts(found))];
  if (found.ahead.length) parts.push(drawAhead(found));
  if (found.shares.length) parts.push(drawShares(found.shares));
  return parts;
}

function drawReason(found) {
  const said = element("p", "", found.reason?.message ?? "It does not wait for slots.");
  if (found.reason?.hint) said.append(" ", element("span", "quiet", found.reason.hint));
  return said;
}

function facts(found) {
  return [
    ["Place", placeWords(found.place)],
    ["Expected start", startWords(found)],
    ["Level", levelWords(found.level)],
    ...(found.basis ? [["Reckoned to last", BASES[found.basis] ?? found.basis]] : []),
  ];
}

function placeWords(place) {
  if (place === null) return "cannot be told";
  if (place === 0) return "it is next";
  return `${counted(place, "job")} ${place === 1 ? "is" : "are"} expected to start before it`;
}

function startWords(found) {
  const said = element("span");
  if (found.starts_after) said.append("later than ", timeOf(found.starts_after));
  if (found.starts_after) return said;
  if (!found.starts_at) return "cannot be foretold";
  const left = (new Date(found.starts_at) - new Date(found.made_at)) / 1000;
  said.append(timeOf(found.starts_at), left >= 1 ? `, in ${duration(left)}` : ", any moment");
  return said;
}

function levelWords({ asked, override, reached }) {
  const own = override ?? asked;
  const said = [`asked for as ${levelName(asked)}`];
  if (override !== null) said.push(`overridden with ${levelName(override)}`);
  if (reached > own) said.push(`raised to ${levelName(reached)} by waiting`);
  return said.join(", ");
}

function drawAhead(found) {
  const section = element("div");
  const more = (found.place ?? 0) - found.ahead.length;
  const list = element("ol", "ahead");
  for (const job of found.ahead) {
    const name = job.job_id ? nameOf(job.job_id) : "somebody else's job";
    const item = element("li");
    item.append(
      element("strong", "", name),
      ` ${job.priority}, ${counted(job.slots, "slot")}, starts `,
      timeOf(job.starts_at),
    );
    list.append(item);
  }
  section.append(element("h3", "", "Ahead of it"), list);
  if (more > 0) section.append(element("p", "quiet", `and ${counted(more, "more job")}`));
  return section;
}

function drawShares(shares) {
  const section = element("div");
  const list = element("ul", "plain-list");
  for (const share of shares) {
    const item = element("li");
    item.append(element("strong", "", share.path), ` ${shareWords(share)} `);
    if (!share.within_share) item.append(badge("over its share", "over"));
    list.append(item);
  }
  section.append(element("h3", "", "Shares it counts against"), list);
  return section;
}

function shareWords(share) {
  const of = (taken, most, noun) =>
    most === null ? counted(taken, noun) : `${count(taken)} of ${counted(most, noun)}`;
  return [
    `weight ${share.weight}`,
    `used ${slotHours(share.usage + share.forfeited)}`,
    `${of(share.running_jobs, share.max_jobs, "job")} running`,
    of(share.running_slots, share.max_slots, "slot"),
    `${count(share.waiting)} waiting`,
  ].join(", ");
}
