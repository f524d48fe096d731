/** Rows of the tables of teams and of roles. */

import { badge, button, element, labelled } from "./elements.js";
import { count, counted } from "./words.js";

/** `archive(team)` archives it; null where one may not. */
export function drawTeam(team, archive) {
  const row = element("tr");
  const path = `${team.org}/${team.slug}`;
  const name = element("td");
  name.append(element("strong", "", path));
  if (team.archived) name.append(" ", badge("archived", "cancelled"));
  const acts = element("td", "acts");
  const quotas = element("a", "", "Quotas");
  quotas.href = `/quotas?path=${encodeURIComponent(path)}`;
  quotas.setAttribute("aria-label", `Quotas of ${path}`);
  acts.append(quotas);
  if (archive && !team.archived) {
    const made = button("Archive", "archive", () => archive(team));
    made.setAttribute("aria-label", `Archive ${path}`);
    acts.append(" ", made);
  }
  row.append(
    name,
    labelled(element("td", "", team.name), "Name"),
    labelled(element("td", "", count(team.members)), "Members"),
    acts,
  );
  return row;
}

export function drawRole(role) {
  const row = element("tr");
  const name = element("td");
  name.append(element("strong", "", role.slug));
  if (role.name.toLowerCase() !== role.slug) name.append(" ", element("span", "quiet", role.name));
  const may = element("td");
  const list = element("details");
  const said = element("p", "quiet", role.permissions.join(", ") || "nothing");
  list.append(element("summary", "", counted(role.permissions.length, "permission")), said);
  may.append(list);
  row.append(
    name,
    labelled(element("td", "", role.reach), "Reach"),
    labelled(element("td", "", String(role.rank)), "Rank"),
    labelled(element("td", "", count(role.users)), "Users"),
    labelled(may, "May"),
  );
  return row;
}
