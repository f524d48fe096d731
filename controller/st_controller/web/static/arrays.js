/** The page of all job arrays. */

import { call, query } from "./api.js";
import { arrange, byId, element } from "./elements.js";
import { keepFresh } from "./frame.js";
import { Pager } from "./pager.js";
import { stateBar } from "./state_bar.js";
import { count, timeOf } from "./words.js";

const REFRESH_MS = 5000;
const PAGE = 50;

const rows = new Map(); // id -> { view, row }
const pager = new Pager(() => refresh());

async function show() {
  const { cursor } = pager;
  const page = await call(`/v1/job-arrays${query({ limit: PAGE, cursor })}`);
  if (pager.cursor !== cursor) return; // another page was asked for meanwhile
  const shown = page.items.map(rowOf);
  arrange(byId("arrays"), shown);
  byId("no-arrays").hidden = shown.length > 0;
  pager.follow(page.next_cursor);
}

/** The row of an array; the one that is there as long as nothing has changed. */
function rowOf(array) {
  const view = JSON.stringify(array);
  const known = rows.get(array.id);
  if (known?.view === view) return known.row;
  const row = draw(array);
  rows.set(array.id, { view, row });
  return row;
}

function draw(array) {
  const row = element("tr");
  const name = element("td");
  const link = element("a", "", array.name);
  link.href = `/arrays/${array.id}`;
  const strong = element("strong");
  strong.append(link);
  name.append(strong, element("span", "quiet", `${count(array.size)} jobs`));
  const states = element("td", "states");
  states.append(stateBar(array.counts));
  const submitted = element("td");
  submitted.append(`${array.submitted_by} · `, timeOf(array.submitted_at, "inline"));
  const cap = array.max_running === null ? "no cap" : count(array.max_running);
  row.append(name, states, element("td", "number", cap), submitted);
  return row;
}

const refresh = keepFresh(show, REFRESH_MS);
