/** Tokens with which workers join: those in force, making one, and revoking. */

import { call, query } from "./api.js";
import { arrange, button, byId, element, labelled } from "./elements.js";
import { field, tryWith, wrongField } from "./fields.js";
import { copy } from "./handing_out.js";
import { labelKey } from "./label_form.js";
import { attempt, say, settle } from "./notices.js";
import { Pager } from "./pager.js";
import { ask } from "./question.js";
import { count, secondsOf, timeOf } from "./words.js";

const PAGE = 50;

export class JoinTokens {
  #rows = new Map(); // id -> { view, row }
  #pager;

  /** `changed` is told when there are others. */
  constructor(changed) {
    this.changed = changed;
    this.#pager = new Pager(changed);
    byId("new-token").append(this.#form());
    byId("join-tokens").hidden = false;
  }

  /** Show those that are not revoked. */
  async refresh() {
    const { cursor } = this.#pager;
    const page = await call(`/v1/join-tokens${query({ limit: PAGE, cursor })}`);
    if (this.#pager.cursor !== cursor) return; // another page was asked for meanwhile
    arrange(byId("token-rows"), page.items.map((token) => this.#rowOf(token)));
    byId("no-tokens").hidden = page.items.length > 0;
    this.#pager.follow(page.next_cursor);
  }

  #rowOf(token) {
    const state = stateOf(token);
    const view = JSON.stringify([token, state]);
    const known = this.#rows.get(token.id);
    if (known?.view === view) return known.row;
    const row = this.#draw(token, state);
    this.#rows.set(token.id, { view, row });
    return row;
  }

  #draw(token, state) {
    const row = element("tr");
    const made = labelled(element("td"), "Made");
    made.append(timeOf(token.created_at));
    const ends = labelled(element("td"), "Ends");
    ends.append(timeOf(token.expires_at), ...(state ? [" ", element("span", "quiet", state)] : []));
    const labels = Object.entries(token.labels).map(([key, value]) => `${key}=${value}`);
    if (token.provider) labels.unshift(`provider ${token.provider}`);
    const acts = element("td", "acts");
    const revoke = button("Revoke", "revoke", () => attempt(() => this.#revoke(token)));
    revoke.className = "plain small bad";
    revoke.setAttribute("aria-label", `Revoke the join token ${token.id}`);
    acts.append(revoke);
    row.append(
      element("td", "", token.id),
      made,
      ends,
      labelled(element("td", "number", count(token.uses_left)), "Uses left"),
      labelled(element("td", "", labels.join(", ")), "Binds"),
      acts,
    );
    return row;
  }

  async #revoke(token) {
    const consequence = "Nobody joins with it any more; workers that have joined stay.";
    if (!(await ask(`Revoke the join token ${token.id}?`, consequence, "Revoke"))) return;
    await call(`/v1/join-tokens/${encodeURIComponent(token.id)}`, { method: "DELETE" });
    say("The join token is revoked.");
    this.changed();
  }

  #form() {
    const form = element("form", "tools");
    form.noValidate = true;
    const inputs = {
      uses: field("Workers that may join"),
      expires_in_seconds: field("In force for"),
      labels: field("Labels"),
      provider: field("Provider"),
    };
    Object.assign(inputs.uses.input, { type: "number", min: "1", step: "1", value: "1" });
    inputs.expires_in_seconds.input.value = "1h";
    inputs.labels.input.placeholder = "rack=7, pool=a";
    inputs.provider.input.placeholder = "any";
    form.append(
      ...Object.values(inputs).map((each) => each.label),
      element("button", "small", "Make a token"),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      tryWith(inputs, () => this.#create(inputs));
    });
    return form;
  }

  async #create(inputs) {
    const text = (name) => inputs[name].input.value.trim();
    const seconds = secondsOf(text("expires_in_seconds"));
    if (!Number.isFinite(seconds)) {
      const wanted = 'write a length of time such as "90s", "45m", "1h30m"';
      throw wrongField("expires_in_seconds", wanted);
    }
    const body = {
      uses: Number(text("uses") || Number.NaN),
      expires_in_seconds: seconds,
      labels: labelsOf(text("labels")),
      provider: text("provider") || null,
    };
    const made = await call("/v1/join-tokens", { method: "POST", body });
    settle();
    showSecret(made);
    this.changed();
  }
}

/** Why it lets nobody in, or nothing. */
function stateOf(token) {
  if (token.uses_left === 0) return "used up";
  return new Date(token.expires_at) <= new Date() ? "over" : "";
}

/** "rack=7, pool=a" as labels, or a refusal at the field. */
function labelsOf(text) {
  const parts = text.split(",").filter((part) => part.trim());
  return Object.fromEntries(
    parts.map((part) => {
      const [key, ...value] = part.split("=");
      if (value.length === 0) throw wrongField("labels", "write key=value, with commas between");
      return [labelKey(key.trim(), "labels"), value.join("=").trim()];
    }),
  );
}

/** The secret, which is told this once: it is in the page until it is put away. */
function showSecret({ token }) {
  const place = byId("token-secret");
  const said = element("p", "", "The new token is shown this once. On the host:");
  const command = element("pre");
  command.append(element("code", "", `ST_JOIN_TOKEN=${token} st-worker join ${location.origin}`));
  const putAway = () => {
    place.replaceChildren();
    place.hidden = true;
  };
  const copyToken = button("Copy the token", "copy", () =>
    attempt(async () => {
      await copy(token);
      say("The token is copied.");
    }),
  );
  const tools = element("div", "tools");
  tools.append(copyToken, button("Put it away", "put-away", putAway));
  place.replaceChildren(said, command, tools);
  place.hidden = false;
  copyToken.focus();
}
