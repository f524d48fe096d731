/** Who is signed in, and what they may do; the controller decides all the same. */

import { call } from "./api.js";

class Person {
  #permissions;

  constructor(me) {
    this.username = me.username;
    this.org = me.org;
    this.teams = new Set(me.teams);
    this.reach = me.reach;
    this.#permissions = new Set(me.permissions);
  }

  may(permission) {
    return this.#permissions.has(permission);
  }

  /** Whether something is theirs, or `everyone` lets them reach what is not. */
  reaches(thing, everyone) {
    const isTheirs = thing.submitted_by === this.username && thing.org === this.org;
    return isTheirs || (this.may(everyone) && this.#covers(thing));
  }

  #covers({ org, team }) {
    if (this.reach === "system") return true;
    if (org !== this.org) return false;
    return this.reach === "org" || (this.reach === "team" && this.teams.has(team));
  }
}

export const whoIsHere = async () => new Person(await call("/v1/auth/me"));
