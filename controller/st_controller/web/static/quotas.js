/** The page of quotas: what is used, held and left, and setting limits. */

import { call, query } from "./api.js";
import { arrange, byId, element, labelled, terms } from "./elements.js";
import { keepFresh } from "./frame.js";
import { attempt, say } from "./notices.js";
import { whoIsHere } from "./person.js";
import { ask } from "./question.js";
import { drawLimit, drawQuota, nameOf } from "./quota_row.js";
import { timeOf } from "./words.js";

const REFRESH_MS = 10000;
const MANAGES = ["quota.manage", "org.manage.quotas", "team.manage.quotas"];

const person = await whoIsHere();
const form = byId("quota-form");
form.hidden = !MANAGES.some((permission) => person.may(permission));
byId("path").value = new URLSearchParams(location.search).get("path") ?? "";

async function show() {
  const path = byId("path").value.trim();
  const [usage, prices, limits] = await Promise.all([
    call(`/v1/quotas/usage${query({ path })}`),
    call("/v1/prices"),
    call("/v1/quotas"),
  ]);
  if (byId("path").value.trim() !== path) return; // asked for another meanwhile
  byId("usage-path").textContent = `of ${usage.path}, days and months of ${usage.time_zone}`;
  drawSpending(usage.spending);
  const rows = usage.quotas.map((quota) => {
    return drawQuota(quota, usage.made_at, quota.role ? null : removerOf(quota));
  });
  arrange(byId("quota-rows"), rows);
  byId("no-quotas").hidden = usage.quotas.length > 0;
  const ofRoles = limits.items.filter((quota) => quota.role);
  arrange(byId("role-quota-rows"), ofRoles.map((quota) => drawLimit(quota, removerOf(quota))));
  byId("role-quotas").hidden = ofRoles.length === 0;
  arrange(byId("price-rows"), prices.items.map(priceRow));
  byId("no-prices").hidden = prices.items.length > 0;
}

function drawSpending(spending) {
  const said = terms([
    ["Used today", spending.day_cost],
    ["Used this month", `${spending.month_cost} and ${spending.month_slot_hours} slot-hours`],
  ]);
  byId("spending").replaceChildren(...said.children);
}

/** What takes a limit away, where the person may; null elsewhere. */
function removerOf(quota) {
  return routeOf(quota) ? () => attempt(() => remove(quota)) : null;
}

async function remove(quota) {
  const name = nameOf(quota);
  const consequence = "What waits or runs is not touched; what was used stays counted.";
  if (!(await ask(`Remove the limit ${name}?`, consequence, "Remove"))) return;
  await call(`${routeOf(quota)}/${encodeURIComponent(quota.id)}`, { method: "DELETE" });
  say(`The limit ${name} is gone.`);
  await refresh();
}

/** The route by which this person may set limits of a node or of a role, if there is one. */
function routeOf({ path, role }) {
  if (person.may("quota.manage")) return "/v1/quotas";
  const [org, team, user] = path.split("/").map(encodeURIComponent);
  if (!team || !(user || role) || !person.may("team.manage.quotas")) return null;
  return `/v1/orgs/${org}/teams/${team}/quotas`;
}

function setRouteOf(wanted) {
  const [org] = wanted.path.split("/").map(encodeURIComponent);
  const known = routeOf(wanted);
  if (known) return known;
  return person.may("org.manage.quotas") ? `/v1/orgs/${org}/quotas` : "/v1/quotas";
}

function priceRow(price) {
  const row = element("tr");
  const since = element("td");
  since.append(timeOf(price.since, "inline"));
  row.append(
    element("td", "", price.accelerator),
    labelled(element("td", "", price.provider), "Provider"),
    labelled(element("td", "", price.amount), "An hour"),
    labelled(since, "Since"),
  );
  return row;
}

byId("path-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const path = byId("path").value.trim();
  history.replaceState(null, "", `/quotas${query({ path })}`);
  refresh();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const body = Object.fromEntries(new FormData(form));
  if (!body.role) delete body.role;
  attempt(async () => {
    const set = await call(setRouteOf(body), { method: "PUT", body });
    say(`The limit ${nameOf(set)} is ${set.amount} now.`);
    form.elements.amount.value = "";
    await refresh();
  });
});

const refresh = keepFresh(show, REFRESH_MS);
