/** Text of log lines, fit to be shown: nothing in it steers a terminal, or looks like what it is not. */

/** What terminals take for colours, titles, links and moves of the cursor (ECMA-48). */
const SEQUENCES =
  /(?:\u001b\[|\u009b)[0-?]*[ -/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)|\u001b[ -/]*[0-Z\\^-~]/g;
/** Controls but line break and tab; what turns the direction of writing; what cannot be seen. */
const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\u{e0000}-\u{e007f}]/gu;
const NODE = /^\[node (\d{1,6})\] /;

/** The text without what only a terminal understands, and with the rest of the unseen spelled out. */
export function shown(text) {
  return text.replace(/\r\n?/g, "\n").replace(SEQUENCES, "").replace(UNSEEN, spelled);
}

/** Node that wrote a line of a job on several workers, and what it wrote; the leader signs nothing. */
export function nodeOf(message) {
  const signed = NODE.exec(message);
  return signed ? [Number(signed[1]), message.slice(signed[0].length)] : [0, message];
}

/** A line as a file or the clipboard has it. */
export const plain = (line) =>
  `${line.at} ${line.attempt} ${line.level.toUpperCase()} ${shown(line.message)}\n`;

/** Moment of a line in few characters, with the day where that is not today. */
export function clock(text) {
  const at = new Date(text);
  const time = [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(":");
  const isToday = at.toDateString() === new Date().toDateString();
  return isToday ? time : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}

const two = (number) => String(number).padStart(2, "0");

function spelled(character) {
  const code = character.codePointAt(0);
  return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}
