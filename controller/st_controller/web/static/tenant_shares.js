/** The tree of tenants, and what each has had beside what its weight entitles it to. */

/** What it has had, in the eyes of the fair share: priced slot-seconds. */
export const claimOf = (tenant) => tenant.usage + tenant.forfeited;

export const nameOf = (path) => path.split("/").at(-1);

const parentOf = (path) => (path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "");

/**
 * Path of a parent -> its children, by name; the root, "", is nobody's child. Whose parents one may
 * not see stands below the next that one may, or at the top.
 */
export function childrenOf(tenants) {
  const found = new Map();
  const seen = new Set(tenants.map((tenant) => tenant.path));
  for (const tenant of tenants) {
    if (tenant.path === "") continue;
    let parent = parentOf(tenant.path);
    while (parent && !seen.has(parent)) parent = parentOf(parent);
    if (!found.has(parent)) found.set(parent, []);
    found.get(parent).push(tenant);
  }
  const byName = (a, b) => a.path.localeCompare(b.path, undefined, { numeric: true });
  for (const group of found.values()) group.sort(byName);
  return found;
}

/**
 * Path -> parts, 0 to 1, of what active siblings have had together: `used` and `entitled`.
 * Left out: who is idle, and who has nobody at its side to share with.
 */
export function sharesOf(children) {
  const found = new Map();
  for (const group of children.values()) {
    const active = group.filter((tenant) => tenant.active);
    if (active.length < 2) continue;
    const claims = active.reduce((sum, tenant) => sum + claimOf(tenant), 0);
    const weights = active.reduce((sum, tenant) => sum + tenant.weight, 0);
    for (const tenant of active) {
      found.set(tenant.path, {
        used: claims > 0 ? claimOf(tenant) / claims : 0,
        entitled: tenant.weight / weights,
      });
    }
  }
  return found;
}

/** The paths that contain `text`, and all above them: what a search leaves to be shown. */
export function matchesOf(tenants, text) {
  const matching = new Set();
  const above = new Set();
  for (const { path } of tenants) {
    if (path === "" || !path.toLowerCase().includes(text.toLowerCase())) continue;
    matching.add(path);
    for (let up = parentOf(path); up; up = parentOf(up)) above.add(up);
  }
  return { matching, above };
}
