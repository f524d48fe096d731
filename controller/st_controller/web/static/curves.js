/** The metrics of a job as curves, the loss first. */

import { call } from "./api.js";
import { byId, setText } from "./elements.js";
import { drawChart, isPositive } from "./chart.js";
import { count } from "./words.js";

const POINTS = 600;
const FEW = 4;

export class Curves {
  #isStale = true;
  #isWhole = false; // every metric is asked for
  #curves = new Map(); // name -> points

  constructor(jobId) {
    this.address = `/v1/jobs/${encodeURIComponent(jobId)}/metrics:curve?points=${POINTS}`;
    /** The last point that was read, null where there is none. */
    this.last = null;
    byId("log-scale").addEventListener("change", () => this.#draw());
    byId("all-metrics").addEventListener("click", () => {
      this.#isWhole = !this.#isWhole;
      this.#draw();
    });
  }

  /** Points were measured that are not drawn yet. */
  expectMore() {
    this.#isStale = true;
  }

  /** Read the points again where there are new ones; what was measured twice the controller counts once. */
  async refresh() {
    if (!this.#isStale) return;
    this.#isStale = false;
    try {
      const { items, total } = await call(this.address);
      this.last = items.at(-1) ?? null;
      this.#curves = curvesOf(items);
      setText(byId("points"), items.length < total ? `${count(items.length)} of ${count(total)} points` : "");
    } catch (error) {
      this.#isStale = true;
      throw error;
    }
    this.#draw();
  }

  #draw() {
    const names = [...this.#curves.keys()].sort(byLoss);
    const few = this.#isWhole ? names : names.slice(0, FEW);
    byId("curves").hidden = names.length === 0;
    byId("all-metrics").hidden = names.length <= FEW;
    setText(byId("all-metrics"), this.#isWhole ? "Fewer metrics" : `All ${names.length} metrics`);
    byId("all-metrics").setAttribute("aria-expanded", String(this.#isWhole));
    const isLog = byId("log-scale").checked;
    const charts = few.map((name) => {
      const points = this.#curves.get(name);
      return drawChart(name, points, isLog && isPositive(points));
    });
    const place = byId("curve-list");
    // Whoever reads a curve with the keys keeps it.
    const held = [...place.querySelectorAll("svg")].indexOf(document.activeElement);
    place.replaceChildren(...charts);
    if (held >= 0) place.querySelectorAll("svg")[held]?.focus();
  }
}

/** Name -> points of that metric, in the order of steps. */
export function curvesOf(items) {
  const found = new Map();
  for (const { attempt, step, values } of items) {
    for (const [name, value] of Object.entries(values)) {
      if (!found.has(name)) found.set(name, []);
      found.get(name).push({ attempt, step, value });
    }
  }
  return found;
}

const rank = (name) => (name === "loss" ? 0 : name.includes("loss") ? 1 : 2);
const byLoss = (a, b) => rank(a) - rank(b) || a.localeCompare(b);
