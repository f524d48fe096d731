/** The page of users, teams and roles: each part for whoever may see it. */

import { call, query } from "./api.js";
import { arrange, byId, element } from "./elements.js";
import { keepFresh } from "./frame.js";
import { attempt, say } from "./notices.js";
import { Pager } from "./pager.js";
import { whoIsHere } from "./person.js";
import { ask } from "./question.js";
import { drawRole, drawTeam } from "./tenancy_rows.js";
import { drawUser } from "./user_row.js";

const REFRESH_MS = 15000;
const PAGE = 50;

const person = await whoIsHere();
const seesUsers = person.may("admin.users");
const seesTeams = person.may("team.view");
const seesRoles = seesUsers || person.may("admin.levels");
byId("users").hidden = !seesUsers;
byId("teams").hidden = !seesTeams;
byId("team-form").hidden = !person.may("team.create");
byId("roles").hidden = !seesRoles;

const rows = new Map(); // name of a user -> { view, row }
const pager = new Pager(() => refresh());
let roles = [];

async function show() {
  if (seesRoles) await showRoles();
  await Promise.all([seesUsers && showUsers(), seesTeams && showTeams()]);
}

async function showRoles() {
  ({ items: roles } = await call("/v1/roles"));
  arrange(byId("role-rows"), roles.map(drawRole));
  const choice = byId("user-form").elements.role;
  if (choice.options.length !== roles.length) {
    choice.replaceChildren(...roles.map(({ slug }) => new Option(slug, slug)));
    choice.value = "researcher";
  }
}

async function showUsers() {
  const { cursor } = pager;
  const page = await call(`/v1/users${query({ limit: PAGE, cursor })}`);
  if (pager.cursor !== cursor) return; // turned meanwhile
  arrange(byId("user-rows"), page.items.map(rowOf));
  pager.follow(page.next_cursor);
}

/** The row of a user; the one that is there, open or not, as long as nothing has changed. */
function rowOf(user) {
  const view = JSON.stringify([user, roles.length]);
  const known = rows.get(user.username);
  if (known?.view === view) return known.row;
  const row = drawUser(user, { roles, act });
  rows.set(user.username, { view, row });
  return row;
}

async function showTeams() {
  const page = await call("/v1/teams?limit=500");
  const archive = person.may("team.delete") ? archiveTeam : null;
  arrange(byId("team-rows"), page.items.map((team) => drawTeam(team, archive)));
}

/** What the rows of users ask for; each is told, and the list is read again. */
const act = {
  detail: (name) => call(userPath(name)),
  change: (name, body) => changed(name, () => call(userPath(name), { method: "PATCH", body })),
  exempt: (name, permission, effect) =>
    changed(name, () =>
      call(`${userPath(name)}/grants/${encodeURIComponent(permission)}`, {
        method: effect ? "PUT" : "DELETE",
        ...(effect ? { body: { effect } } : {}),
      }),
    ),
  disable: async (name) => {
    const consequence = "They are signed out everywhere and their keys are void. Nothing is lost.";
    if (await ask(`Disable ${name}?`, consequence, "Disable")) {
      await act.change(name, { disabled: true });
    }
  },
  reset: (name) => attempt(() => offerReset(name)),
};

const userPath = (name) => `/v1/users/${encodeURIComponent(name)}`;

function changed(name, work) {
  return attempt(async () => {
    await work();
    rows.delete(name);
    say(`${name} is changed.`);
    await refresh();
  });
}

async function offerReset(name) {
  const body = { clears_second_factor: false };
  const made = await call(`${userPath(name)}/reset-token`, { method: "POST", body });
  byId("reset-whose").textContent = name;
  byId("reset-text").textContent = made.token;
  byId("reset-token").hidden = false;
  byId("reset-token").scrollIntoView({ block: "nearest" });
}

async function archiveTeam(team) {
  const consequence = "Nobody submits as this team any more; its jobs stay.";
  const name = `${team.org}/${team.slug}`;
  if (!(await ask(`Archive ${name}?`, consequence, "Archive"))) return;
  await attempt(async () => {
    await call(`/v1/teams/${team.org}/${team.slug}`, { method: "DELETE" });
    say(`${name} is archived.`);
    await refresh();
  });
}

/** `org/team` as both; without a slash a team of one's own organisation. */
function placeOf(text) {
  const [first, second] = text.trim().split("/", 2);
  return second === undefined ? { org: person.org, team: first } : { org: first, team: second };
}

function whenSent(form, work) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const fields = Object.fromEntries(new FormData(form));
    attempt(async () => {
      await work(fields);
      form.reset();
      form.dispatchEvent(new CustomEvent("fresh"));
      await refresh();
    });
  });
}

whenSent(byId("user-form"), async ({ username, role, place }) => {
  const body = { username, role, ...placeOf(place) };
  await call("/v1/users", { method: "POST", body });
  say(`${username} is made.`);
  await offerReset(username);
});
whenSent(byId("team-form"), async ({ place }) => {
  const { org, team } = placeOf(place);
  await call("/v1/teams", { method: "POST", body: { org, slug: team } });
  say(`${org}/${team} is made.`);
});
byId("user-form").addEventListener("fresh", () => {
  byId("user-form").elements.role.value = "researcher";
});
byId("user-form").elements.place.value = `${person.org}/${[...person.teams][0] ?? "default"}`;

if (!seesUsers && !seesTeams) {
  byId("teams").hidden = false;
  byId("teams").append(element("p", "empty", "Nothing here is for your eyes."));
}
const refresh = keepFresh(show, REFRESH_MS);
