/** One organisation, team or user as a row that is kept up to date in place. */

import { badge, button, element, labelled, setText } from "./elements.js";
import { claimOf, nameOf } from "./tenant_shares.js";
import { count, percent, slotHours } from "./words.js";

export const COLUMNS = 8;

export class TenantRow {
  /** `toggle` and `edit` are told when their buttons are pressed; `edit` null: not permitted. */
  constructor(path, { toggle, edit }) {
    const depth = path === "" ? 0 : path.split("/").length;
    this.path = path;
    this.element = element("tr", `depth-${depth}`);
    this.cells = {};
    this.#addName(path, toggle);
    this.#addShare();
    for (const name of ["Used", "Jobs", "Slots", "Waiting", "Weight"]) {
      const cell = labelled(element("td", "number"), name);
      this.cells[name.toLowerCase()] = cell;
      this.element.append(cell);
    }
    this.#addEdit(edit);
  }

  /** Show what has become of it; `share`: its parts, or undefined where nothing is shared. */
  update(tenant, share, { hasChildren, isOpen }) {
    this.toggle.hidden = !hasChildren;
    this.toggle.setAttribute("aria-expanded", String(isOpen));
    this.element.classList.toggle("idle", !tenant.active && tenant.path !== "");
    this.#updateShare(tenant, share);
    setText(this.cells.used, tenant.path === "" ? "" : slotHours(claimOf(tenant)));
    this.#updateLimited(this.cells.jobs, tenant.running_jobs, tenant.max_jobs, "jobs");
    this.#updateLimited(this.cells.slots, tenant.running_slots, tenant.max_slots, "slots");
    setText(this.cells.waiting, count(tenant.waiting));
    setText(this.cells.weight, tenant.path === "" ? "" : String(tenant.weight));
  }

  #addName(path, toggle) {
    const cell = element("th", "tenant");
    cell.scope = "row";
    const name = path === "" ? "The whole system" : nameOf(path);
    this.toggle = button("", "toggle", toggle, "toggle");
    this.toggle.setAttribute("aria-label", `What is below ${name}`);
    const label = element("span", "", name);
    if (path) label.title = path;
    cell.append(this.toggle, label);
    this.element.append(cell);
  }

  #addShare() {
    const cell = element("td", "share");
    this.bar = element("div", "share-bar");
    this.bar.setAttribute("role", "img");
    this.fill = element("span", "fill");
    this.mark = element("span", "mark");
    this.bar.append(this.fill, this.mark);
    this.words = element("span", "quiet");
    this.over = badge("over its share", "over");
    cell.append(this.bar, this.words, this.over);
    this.element.append(cell);
  }

  #addEdit(edit) {
    const cell = element("td", "acts");
    if (edit) {
      this.edit = button("Edit", "edit", edit);
      this.edit.setAttribute("aria-label", `Edit weight and limits of ${this.path || "all"}`);
      this.edit.setAttribute("aria-expanded", "false");
      cell.append(this.edit);
    }
    this.element.append(cell);
  }

  #updateShare(tenant, share) {
    const isShown = share !== undefined;
    this.bar.hidden = !isShown;
    this.over.hidden = !tenant.active || tenant.within_share;
    if (!isShown) {
      setText(this.words, tenant.path !== "" && !tenant.active ? "idle" : "");
      return;
    }
    setText(this.words, `${percent(share.used)}, due ${percent(share.entitled)}`);
    this.bar.setAttribute(
      "aria-label",
      `used ${percent(share.used)}, entitled to ${percent(share.entitled)}`,
    );
    this.bar.dataset.over = String(!tenant.within_share);
    this.fill.style.width = `${100 * share.used}%`;
    this.mark.style.left = `${100 * share.entitled}%`;
  }

  #updateLimited(cell, taken, most, noun) {
    setText(cell, most === null ? count(taken) : `${count(taken)} of ${count(most)}`);
    cell.classList.toggle("full", most !== null && taken >= most);
    cell.title = most !== null && taken >= most ? `its limit of ${noun} is reached` : "";
  }
}
