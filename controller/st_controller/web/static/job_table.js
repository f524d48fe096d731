/** A table of jobs that can be steered. */

import { arrange, byId, swap } from "./elements.js";
import { noteName } from "./job_names.js";
import { JobPanel } from "./job_panel.js";
import { drawJob } from "./job_row.js";
import { attempt } from "./notices.js";
import { waits } from "./states.js";
import { cancel, retry } from "./steering.js";

export const newestFirst = (a, b) =>
  b.submitted_at.localeCompare(a.submitted_at) || b.id.localeCompare(a.id);

export class JobTable {
  /** id -> JobView */
  jobs = new Map();
  #rows = new Map();
  #panels = new Map();
  #acts = {
    why: (job) => this.#toggle(job),
    cancel: (job) => this.#act(() => cancel(job)),
    retry: (job) => this.#act(() => retry(job)),
  };

  constructor(person, { isInArray = false } = {}) {
    this.person = person;
    this.isInArray = isInArray;
    this.body = byId("jobs");
  }

  /** Take in a job, new or known, at its place among the newest first. */
  take(job) {
    if (!this.#learn(job)) return;
    const order = [...this.jobs.values()].sort(newestFirst);
    const after = order.slice(order.indexOf(job) + 1).find((other) => this.#rows.has(other.id));
    this.body.insertBefore(this.#rows.get(job.id), after ? this.#rows.get(after.id) : null);
  }

  /** Show these jobs, in this order, and no others. */
  show(jobs) {
    const wanted = new Set(jobs.map((job) => job.id));
    for (const id of [...this.jobs.keys()]) if (!wanted.has(id)) this.#forget(id);
    jobs.forEach((job) => this.#learn(job));
    const panel = (id) => this.#panels.get(id)?.row;
    const rows = jobs.flatMap(({ id }) => [this.#rows.get(id), panel(id)]);
    arrange(this.body, rows.filter(Boolean));
  }

  /** Ask again why the jobs wait whose panels are open. */
  async refreshPanels() {
    await Promise.all([...this.#panels.values()].map((panel) => panel.refresh()));
  }

  /** Keep what is known of a job; whether it needs a place in the table. */
  #learn(job) {
    const known = this.jobs.get(job.id);
    if (known && (known.version > job.version || isSame(known, job))) return false;
    this.jobs.set(job.id, withKnownReason(job, known));
    noteName(job);
    if (!waits(job)) this.#close(job.id);
    this.#panels.get(job.id)?.update(job);
    const row = this.#rows.get(job.id);
    const fresh = this.#draw(job.id);
    this.#rows.set(job.id, fresh);
    if (row) swap(row, fresh);
    return !row;
  }

  #draw(id) {
    return drawJob(this.jobs.get(id), this.person, this.#acts, {
      isOpen: this.#panels.has(id),
      isInArray: this.isInArray,
    });
  }

  #redraw(id) {
    const fresh = this.#draw(id);
    swap(this.#rows.get(id), fresh);
    this.#rows.set(id, fresh);
  }

  #toggle(job) {
    if (this.#panels.has(job.id)) this.#close(job.id);
    else this.#open(job);
    this.#redraw(job.id);
  }

  #open(job) {
    const panel = new JobPanel(this.jobs.get(job.id), this.person, (now) => {
      this.#learn(now);
      panel.refresh();
    });
    this.#panels.set(job.id, panel);
    this.#rows.get(job.id).after(panel.row);
    panel.refresh();
  }

  #close(id) {
    this.#panels.get(id)?.row.remove();
    this.#panels.delete(id);
  }

  #forget(id) {
    this.#close(id);
    this.#rows.delete(id);
    this.jobs.delete(id);
  }

  async #act(work) {
    await attempt(async () => {
      const now = await work();
      if (now) this.#learn(now);
    });
  }
}

const isSame = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** The stream does not tell why a job waits; what was known of it holds until the next look. */
function withKnownReason(job, known) {
  if (job.reason || !known || known.state !== job.state || !waits(job)) return job;
  return { ...job, reason: known.reason };
}
