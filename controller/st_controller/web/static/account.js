/** One's own account: browsers, second factor, password and keys. */

import { call } from "./api.js";
import { arrange, button, byId, element, labelled } from "./elements.js";
import { keepFresh } from "./frame.js";
import { attempt, say } from "./notices.js";
import { whoIsHere } from "./person.js";
import { ask } from "./question.js";
import { timeOf } from "./words.js";

const REFRESH_MS = 15000;
const FACTOR = "/v1/auth/second-factor";

const person = await whoIsHere();
const post = (path, body) => call(path, { method: "POST", body });

async function showSessions() {
  const page = await call("/v1/auth/sessions");
  arrange(byId("session-rows"), page.items.map(sessionRow));
}

function sessionRow(session) {
  const row = element("tr");
  const name = element("td", "", session.agent ?? "unknown");
  if (session.current) name.append(" ", element("strong", "", "(this one)"));
  row.append(name, cell("Address", session.address ?? ""));
  row.append(cell("Signed in", timeOf(session.created_at)));
  row.append(cell("Last seen", timeOf(session.seen_at)));
  const acts = element("td", "acts");
  if (!session.current) {
    acts.append(button("Sign out", "end", () => attempt(() => endSession(session))));
  }
  row.append(acts);
  return row;
}

async function endSession(session) {
  await call(`/v1/auth/sessions/${encodeURIComponent(session.id)}`, { method: "DELETE" });
  say("Signed out.");
  await refreshSessions();
}

async function showKeys() {
  const page = await call("/v1/api-keys?limit=200");
  arrange(byId("key-rows"), page.items.map(keyRow));
}

function keyRow(key) {
  const row = element("tr");
  row.append(element("td", "", `${key.name} (${key.prefix}…)`));
  row.append(cell("May", key.scopes?.join(", ") ?? "all that you may"));
  row.append(cell("From", key.addresses?.join(", ") ?? "everywhere"));
  row.append(cell("Ends", key.expires_at ? timeOf(key.expires_at) : "never"));
  row.append(cell("Last used", key.last_used_at ? timeOf(key.last_used_at) : "never"));
  const acts = element("td", "acts");
  const revoke = button("Revoke", "revoke", () => attempt(() => revokeKey(key)));
  revoke.setAttribute("aria-label", `Revoke the key ${key.name}`);
  acts.append(revoke);
  row.append(acts);
  return row;
}

async function revokeKey(key) {
  const consequence = "Whatever signs in with it is refused from now on.";
  if (!(await ask(`Revoke the key ${key.name}?`, consequence, "Revoke"))) return;
  await call(`/v1/api-keys/${encodeURIComponent(key.id)}`, { method: "DELETE" });
  await refreshKeys();
}

async function showFactor() {
  const factor = await call(FACTOR);
  const form = byId("factor-form");
  byId("factor-state").textContent = factor.on
    ? `Codes are asked for; ${factor.recovery_codes} recovery codes are left.`
    : "No code is asked for beside your password.";
  byId("factor-code").hidden = !factor.on;
  form.elements.code.required = factor.on;
  form.dataset.on = factor.on ? "yes" : "no";
  form.querySelector("button").textContent = factor.on ? "Switch it off" : "Set it up";
}

async function changeFactor({ password, code }) {
  if (byId("factor-form").dataset.on === "yes") {
    await post(`${FACTOR}/remove`, { password, code: code.trim() });
    byId("recovery").hidden = true;
  } else {
    const told = await post(FACTOR, { password });
    byId("factor-base32").textContent = told.secret;
    byId("factor-uri").href = told.uri;
    byId("factor-secret").hidden = false;
    byId("confirm-form").elements.code.focus();
  }
  await showFactor();
}

async function confirmFactor({ code }) {
  const told = await post(`${FACTOR}/confirm`, { code: code.trim() });
  byId("factor-secret").hidden = true;
  byId("factor-base32").textContent = "";
  byId("recovery-codes").textContent = told.codes.join("\n");
  byId("recovery").hidden = false;
  await showFactor();
}

async function changePassword({ password, new: chosen }) {
  await post("/v1/auth/password", { password, new: chosen });
  say("The password was changed; all other browsers are signed out.");
  await refreshSessions();
}

/** Hand what a form holds to `work` and empty it where that was done. */
function onSubmit(id, work) {
  const form = byId(id);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = Object.fromEntries(new FormData(form));
    if (await attempt(() => work(given))) form.reset();
  });
}

function cell(column, content) {
  const made = labelled(element("td"), column);
  made.append(content);
  return made;
}

onSubmit("factor-form", changeFactor);
onSubmit("confirm-form", confirmFactor);
onSubmit("password-form", changePassword);
byId("end-others").addEventListener("click", () =>
  attempt(async () => {
    const { count } = await post("/v1/auth/sessions:end-others");
    say(`${count} signed out.`);
    await refreshSessions();
  }),
);
const refreshSessions = keepFresh(showSessions, REFRESH_MS);
keepFresh(showFactor, REFRESH_MS * 4);
byId("keys").hidden = !person.may("api.keys.own");
const refreshKeys = person.may("api.keys.own") ? keepFresh(showKeys, REFRESH_MS) : null;
