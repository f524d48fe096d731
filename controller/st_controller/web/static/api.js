/** The public API as a browser calls it: with the session's cookie, errors in words. */

/** What was refused or failed: the message says what, `hint` what to do about it. */
export class Trouble extends Error {
  constructor({ detail, hint = "", errors = [], status = 0 }) {
    super(detail.charAt(0).toUpperCase() + detail.slice(1));
    this.hint = hint ?? "";
    this.status = status;
    /** Field -> what is wrong with it. */
    this.fields = new Map(errors.map((wrong) => [wrong.field, wrong.message]));
  }
}

/** The answer of a route, null where it has no body; who is signed out is sent to sign in. */
export async function call(path, { method = "GET", body } = {}) {
  const reply = await reach(path, {
    method,
    ...(body === undefined
      ? {}
      : { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }),
  });
  if (reply.status === 401) {
    location.assign("/login");
    throw new Trouble({ detail: "You are signed out.", status: 401 });
  }
  if (!reply.ok) throw new Trouble({ ...(await problemOf(reply)), status: reply.status });
  return reply.status === 204 ? null : reply.json();
}

/** A query string of what is set: `?limit=50&cursor=...`. */
export function query(parameters) {
  const set = Object.entries(parameters).filter(([, value]) => value != null && value !== "");
  return set.length ? `?${new URLSearchParams(set)}` : "";
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new Trouble({
      detail: "The controller cannot be reached.",
      hint: "This page goes on by itself when it answers again.",
    });
  }
}

/** A problem document, or what can be said where something before the controller answered. */
async function problemOf(reply) {
  const kind = reply.headers.get("content-type") ?? "";
  if (kind.startsWith("application/problem+json")) return reply.json();
  return { detail: `The request failed with HTTP status ${reply.status}.` };
}
