/** One row of the table of users. */

import { badge, button, element, labelled } from "./elements.js";
import { attempt } from "./notices.js";

/** `roles` are those there are; `act` does what is asked for. */
export function drawUser(user, { roles, act }) {
  const row = element("tr");
  const name = element("td");
  name.append(element("strong", "", user.username));
  if (user.disabled) name.append(" ", badge("disabled", "cancelled"));
  row.append(
    name,
    labelled(roleOf(user, roles, act), "Role"),
    labelled(element("td", "", `${user.org}: ${user.teams.join(", ")}`), "In"),
    labelled(exceptions(user, act), "Exceptions"),
    acts(user, act),
  );
  return row;
}

function roleOf(user, roles, act) {
  const cell = element("td");
  const choice = element("select");
  const slugs = new Set([user.role, ...roles.map(({ slug }) => slug)]);
  choice.append(...[...slugs].map((slug) => new Option(slug, slug, false, slug === user.role)));
  choice.setAttribute("aria-label", `Role of ${user.username}`);
  choice.addEventListener("change", async () => {
    const done = await act.change(user.username, { role: choice.value });
    if (!done) choice.value = user.role;
  });
  cell.append(choice);
  return cell;
}

/** Grants and denials of one person, read once they are opened. */
function exceptions(user, act) {
  const cell = element("td");
  const list = element("details");
  list.append(element("summary", "", "Grants and denials"));
  list.addEventListener("toggle", () => {
    if (list.open) attempt(async () => fill(list, await act.detail(user.username), act));
  });
  cell.append(list);
  return cell;
}

function fill(list, detail, act) {
  const name = detail.username;
  const known = [
    ...detail.allowed.map((permission) => [permission, "granted"]),
    ...detail.denied.map((permission) => [permission, "denied"]),
  ];
  const items = element("ul", "plain-list");
  for (const [permission, word] of known) {
    const item = element("li", "", `${permission} ${word} `);
    const undo = button("Undo", "undo", () => act.exempt(name, permission, null));
    undo.setAttribute("aria-label", `Let the role decide of ${permission} for ${name}`);
    item.append(undo);
    items.append(item);
  }
  if (!known.length) items.append(element("li", "quiet", "none: the role alone decides"));
  list.replaceChildren(list.querySelector("summary"), items, exemptForm(name, act));
}

function exemptForm(name, act) {
  const form = element("form", "tools");
  const permission = element("input");
  permission.required = true;
  permission.maxLength = 60;
  permission.placeholder = "job.cancel.all";
  permission.setAttribute("aria-label", `Permission for ${name}`);
  const grant = element("button", "plain small", "Grant");
  grant.value = "allow";
  const deny = element("button", "plain small", "Deny");
  deny.value = "deny";
  form.append(permission, grant, deny);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act.exempt(name, permission.value.trim(), event.submitter?.value ?? "allow");
  });
  return form;
}

function acts(user, act) {
  const cell = element("td", "acts");
  const name = user.username;
  const all = user.disabled
    ? [button("Enable", "enable", () => act.change(name, { disabled: false }))]
    : [
        button("Reset password", "reset", () => act.reset(name)),
        button("Disable", "disable", () => act.disable(name)),
      ];
  for (const each of all) {
    each.setAttribute("aria-label", `${each.textContent}: ${name}`);
    cell.append(each, " ");
  }
  return cell;
}
