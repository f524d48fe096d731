/** What an operator may order of a worker, and giving the order. */

import { call, query } from "./api.js";
import { say } from "./notices.js";
import { ask } from "./question.js";
import { counted } from "./words.js";

const isClosed = (worker) => ["retired", "revoked"].includes(worker.reason?.code);
const isActive = (worker) => worker.desired === "active";
const holds = (worker) => counted(worker.jobs.length, "job");

/** Name -> its words, whether it can be given now, and `give`: whether it was. */
export const ORDERS = {
  cordon: order("Cordon", "cordon", {
    fits: (worker) => !isClosed(worker) && isActive(worker),
    consequence: (worker) => `It is offered nothing new; ${holds(worker)} there go on.`,
    done: "is cordoned",
  }),
  drain: order("Drain", "drain", {
    fits: (worker) => !isClosed(worker) && worker.desired !== "draining",
    consequence: (worker) => `It is offered nothing new; ${holds(worker)} there are waited for.`,
    done: "drains",
  }),
  "drain-now": order("Drain now", "drain", {
    fits: (worker) => !isClosed(worker) && worker.jobs.length > 0,
    consequence: () =>
      "Preemptible jobs stop at a checkpoint and go on elsewhere; others are waited for.",
    body: { grace_seconds: 0 },
    done: "drains now",
  }),
  activate: order("Activate", "activate", {
    fits: (worker) => !isClosed(worker) && !isActive(worker),
    done: "may take jobs again",
  }),
  rotate: order("Rotate", "rotate", {
    fits: (worker) => !isClosed(worker) && !worker.rotation_ordered,
    consequence: () => "It fetches a new credential; nothing that runs is disturbed.",
    done: "is to fetch a new credential",
  }),
  "collect-garbage": order("Clear disk", "collect-garbage", {
    question: "Clear disk of",
    fits: (worker) => !isClosed(worker),
    consequence: (worker) =>
      "It removes the folders of runs that are over, and what its cache holds beyond its bound; " +
      `${holds(worker)} there are not disturbed.`,
    done: "is to remove what no attempt needs",
  }),
  revoke: order("Revoke", "revoke", {
    fits: (worker) => !isClosed(worker),
    consequence: (worker) =>
      `Its credential is void at once, its agent ends, and ${holds(worker)} there are queued again.`,
    done: "has no valid credential any more",
    isGrave: true,
  }),
  retire: order("Retire", "retire", {
    fits: (worker) => worker.desired !== "retired",
    consequence: (worker) => `It may not come back, and ${holds(worker)} there are queued again.`,
    done: "is retired",
    isGrave: true,
  }),
  delete: {
    text: "Delete",
    isGrave: true,
    fits: () => true,
    give: remove,
  },
};

function order(text, path, { fits, consequence, body, done, isGrave = false, question = text }) {
  async function give(worker) {
    if (consequence && !(await ask(`${question} ${worker.name}?`, consequence(worker), text))) {
      return false;
    }
    await call(`/v1/workers/${worker.id}/${path}`, { method: "POST", body });
    say(`${worker.name} ${done}.`);
    return true;
  }
  return { text, fits, give, isGrave };
}

async function remove(worker) {
  const force = worker.jobs.length > 0;
  const loss = force ? ` ${holds(worker)} there are queued again.` : "";
  const consequence = `It is in no list any more; the history of its attempts is kept.${loss}`;
  if (!(await ask(`Delete ${worker.name}?`, consequence, "Delete"))) return false;
  const path = `/v1/workers/${worker.id}${query({ force: force || null })}`;
  await call(path, { method: "DELETE" });
  say(`${worker.name} is forgotten.`);
  return true;
}
