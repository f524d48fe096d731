/** The tenants as a tree that can be searched, opened and closed. */

import { arrange, byId } from "./elements.js";
import { TenantRow } from "./tenant_row.js";
import { childrenOf, matchesOf, sharesOf } from "./tenant_shares.js";

const OPEN_AT_FIRST = 30;
/** With more tenants than this, teams are closed until they are asked for. */

export class TenantTree {
  #tenants = [];
  #children = new Map();
  #shares = new Map();
  #rows = new Map();
  #below = new Map(); // path -> row of the form that stands below it
  #open = null;

  /** `edit` is told the path whose form is asked for; null: not permitted. */
  constructor(body, { edit, seesAll }) {
    this.body = body;
    this.edit = edit;
    this.seesAll = seesAll;
    this.search = "";
    this.activeOnly = false;
  }

  /** Take over the tenants as they stand now. */
  take(tenants) {
    this.#tenants = tenants;
    this.#children = childrenOf(tenants);
    this.#shares = this.seesAll ? sharesOf(this.#children) : new Map();
    this.#open ??= new Set(tenants.length <= OPEN_AT_FIRST ? this.#parents() : []);
    this.#dropGone();
    this.draw();
  }

  find(path) {
    return this.#tenants.find((tenant) => tenant.path === path);
  }

  openAll() {
    this.#open = new Set(this.#parents());
    this.draw();
  }

  closeAll() {
    this.#open = new Set();
    this.draw();
  }

  /** Put a row below that of `path`, or take it away (null). */
  putBelow(path, row) {
    if (row) this.#below.set(path, row);
    else this.#below.delete(path);
    this.draw();
    this.#rows.get(path)?.edit?.setAttribute("aria-expanded", String(Boolean(row)));
  }

  hasBelow(path) {
    return this.#below.has(path);
  }

  focus(path) {
    this.#rows.get(path)?.edit?.focus();
  }

  draw() {
    const found = this.search ? matchesOf(this.#tenants, this.search) : null;
    const rows = [];
    const root = this.find("");
    if (root && !found) rows.push(...this.#rowsOf(root, null, false));
    this.#walk("", found, false, rows);
    arrange(this.body, rows);
    byId("no-tenants").hidden = rows.length > 0 || this.#tenants.length === 0;
  }

  #walk(parent, found, isWithinMatch, rows) {
    for (const tenant of this.#children.get(parent) ?? []) {
      const { path } = tenant;
      const matches = isWithinMatch || !found || found.matching.has(path);
      const leads = found?.above.has(path) ?? false;
      if (!(matches || leads) || (this.activeOnly && !tenant.active)) continue;
      const isOpen = leads || this.#open.has(path);
      rows.push(...this.#rowsOf(tenant, this.#shares.get(path), isOpen));
      if (isOpen) this.#walk(path, found, Boolean(found) && matches, rows);
    }
  }

  #rowsOf(tenant, share, isOpen) {
    const row = this.#row(tenant.path);
    const hasChildren = tenant.path !== "" && this.#children.has(tenant.path);
    row.update(tenant, share ?? undefined, { hasChildren, isOpen });
    const below = this.#below.get(tenant.path);
    return below ? [row.element, below] : [row.element];
  }

  #row(path) {
    if (!this.#rows.has(path)) {
      const toggle = () => this.#toggle(path);
      const edit = this.edit ? () => this.edit(path) : null;
      this.#rows.set(path, new TenantRow(path, { toggle, edit }));
    }
    return this.#rows.get(path);
  }

  #toggle(path) {
    if (!this.#open.delete(path)) this.#open.add(path);
    this.draw();
  }

  #parents() {
    return [...this.#children.keys()].filter(Boolean);
  }

  #dropGone() {
    const present = new Set(this.#tenants.map((tenant) => tenant.path));
    for (const path of this.#rows.keys()) {
      if (present.has(path)) continue;
      this.#rows.delete(path);
      this.#below.delete(path);
    }
  }
}
