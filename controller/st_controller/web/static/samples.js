/** The newest samples of the newest job that has some. */

import { call, query } from "./api.js";
import { byId, element } from "./elements.js";
import { newestFirst } from "./job_table.js";

const MOST_JOBS = 10;
const MOST_SAMPLES = 12;
const KINDS = [
  { tag: "img", of: /\.(png|jpe?g|webp|gif)$/ },
  { tag: "video", of: /\.(mp4|m4v|webm)$/ },
  { tag: "audio", of: /\.(wav|flac|ogg|opus|mp3)$/ },
];
let shown = "";

/** Look through the newest of these jobs. */
export async function showSamples(jobs) {
  for (const job of [...jobs].sort(newestFirst).slice(0, MOST_JOBS)) {
    const samples = job.started_at ? await newestSamples(job) : [];
    if (samples.length) {
      drawSamples(job, samples);
      return;
    }
  }
}

/** Those of the last step: one picture, or a recording for each prompt. */
async function newestSamples(job) {
  let newest = [];
  let cursor = null;
  do {
    const page = await call(`/v1/jobs/${job.id}/artifacts${query({ kind: "sample", cursor })}`);
    const seen = [...newest, ...page.items.filter((item) => tagOf(item.path))];
    newest = seen.filter((item) => item.step === seen.at(-1).step);
    cursor = page.next_cursor;
  } while (cursor);
  return newest.slice(0, MOST_SAMPLES);
}

function tagOf(path) {
  return KINDS.find((kind) => kind.of.test(path.toLowerCase()))?.tag;
}

/** Show `samples` of one step of `job`, each as its kind; what plays goes on undisturbed. */
export function drawSamples(job, samples) {
  const identity = samples.map((sample) => sample.id).join();
  if (identity === shown) return;
  shown = identity;
  byId("sample-list").replaceChildren(...samples.map((sample) => medium(job, sample)));
  byId("samples-of").textContent = `${job.name}, step ${samples[0].step}`;
  byId("samples").hidden = false;
}

function medium(job, sample) {
  const tag = tagOf(sample.path);
  const made = element(tag, "sample");
  const about = `${sample.path.split("/").at(-1)}, sample of ${job.name} at step ${sample.step}`;
  made.src = sample.url;
  if (tag === "img") {
    made.alt = about;
    const link = element("a");
    Object.assign(link, { href: sample.url, target: "_blank", rel: "noopener" });
    link.append(made);
    return link;
  }
  made.controls = true;
  made.preload = "metadata";
  made.setAttribute("aria-label", about);
  if (tag === "video") Object.assign(made, { loop: true, muted: true, playsInline: true });
  return made;
}
