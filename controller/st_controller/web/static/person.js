/** Who is signed in, and what they may do; the controller decides all the same. */

import { call } from "./api.js";

class Person {
  #permissions;

  constructor(me) {
    this.username = me.username;
    this.#permissions = new Set(me.permissions);
  }

  may(permission) {
    return this.#permissions.has(permission);
  }

  /** Whether something is theirs, or `everyone` lets them reach what is not. */
  reaches(thing, everyone) {
    return thing.submitted_by === this.username || this.may(everyone);
  }
}

export const whoIsHere = async () => new Person(await call("/v1/auth/me"));
