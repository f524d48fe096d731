/** What is beside a log: the choice of an attempt, copying and downloading. */

import { call, query } from "./api.js";
import { byId, element, setText } from "./elements.js";
import { copy, save } from "./handing_out.js";
import { plain } from "./log_text.js";
import { attempt, say } from "./notices.js";
import { spoken } from "./states.js";
import { count, counted } from "./words.js";

const PAGE = 5000;

export class LogTools {
  #attempts = "";
  #isDownloading = false;

  constructor(jobId, view) {
    this.jobId = jobId;
    this.view = view;
    byId("log-attempt").addEventListener("change", () =>
      attempt(() => view.load(byId("log-attempt").value)),
    );
    byId("copy-log").addEventListener("click", () => attempt(() => this.#copy()));
    byId("download-log").addEventListener("click", () => attempt(() => this.#download()));
  }

  /** Offer the attempts that there are. */
  async refresh() {
    const { items } = await call(`/v1/jobs/${encodeURIComponent(this.jobId)}/attempts`);
    const known = JSON.stringify(items.map((each) => [each.id, each.outcome]));
    if (known === this.#attempts) return;
    this.#attempts = known;
    const tries = Map.groupBy(items, (each) => each.number);
    const options = [...tries].map(([number, nodes]) => option(number, nodes));
    const chosen = byId("log-attempt").value;
    byId("log-attempt").replaceChildren(new Option("all", ""), ...options);
    byId("log-attempt").value = chosen;
    byId("log").classList.toggle("many", tries.size > 1);
  }

  async #copy() {
    const lines = this.view.lines.matching;
    await copy(lines.map(plain).join(""));
    say(`${counted(lines.length, "line")} copied.`);
  }

  /** Fetch all lines of what is shown, from the first on; a second press gives it up. */
  async #download() {
    if (this.#isDownloading) {
      this.#isDownloading = false;
      return;
    }
    this.#isDownloading = true;
    try {
      const parts = await this.#everything();
      if (this.#isDownloading) save(`${this.jobId}.log`, parts);
    } finally {
      this.#isDownloading = false;
      setText(byId("download-log"), "Download");
    }
  }

  async #everything() {
    const address = `/v1/jobs/${encodeURIComponent(this.jobId)}/logs`;
    const { attempt: number } = this.view;
    const parts = [];
    let after = null;
    let read = 0;
    do {
      setText(byId("download-log"), `Stop (${count(read)} lines)`);
      const page = await call(`${address}${query({ limit: PAGE, after, attempt: number })}`);
      // The browser keeps blobs where there is room for them: not in the memory of the page.
      parts.push(new Blob([page.items.map(plain).join("")]));
      read += page.items.length;
      after = page.next_cursor;
    } while (after && this.#isDownloading);
    return parts;
  }
}

function option(number, nodes) {
  const workers = nodes.map((each) => each.worker).join(", ");
  const outcome = nodes[0].outcome ? `, ${spoken(nodes[0].outcome)}` : "";
  const made = element("option", "", `${number} on ${workers}${outcome}`);
  made.value = number;
  return made;
}
