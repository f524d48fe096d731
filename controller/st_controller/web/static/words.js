/** Numbers, lengths of time and moments, as people write them. */

const UNITS = { d: 86_400, h: 3600, m: 60, s: 1 };

/** Seconds in at most two units: "2 d 3 h", "5 min 10 s"; "" for none. */
export function duration(seconds) {
  if (seconds == null) return "";
  const whole = Math.max(0, Math.round(seconds));
  const [d, h] = [Math.floor(whole / 86_400), Math.floor(whole / 3600) % 24];
  const [m, s] = [Math.floor(whole / 60) % 60, whole % 60];
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min ${s} s` : `${s} s`;
}

/** Seconds as job files have them: "1h30m", "0.5s". */
export function written(seconds) {
  let left = seconds;
  let text = "";
  for (const unit of ["d", "h", "m"]) {
    const count = Math.floor(left / UNITS[unit]);
    left -= count * UNITS[unit];
    if (count) text += `${count}${unit}`;
  }
  const rest = Number(left.toFixed(3));
  return rest || !text ? `${text}${rest}s` : text;
}

/** What `written` writes, as seconds; NaN where it is no length of time. */
export function secondsOf(text) {
  const compact = text.replaceAll(" ", "").replaceAll("min", "m");
  if (!/^(\d+(\.\d+)?[smhd])+$/.test(compact)) return Number.NaN;
  const parts = compact.matchAll(/(\d+(?:\.\d+)?)([smhd])/g);
  return [...parts].reduce((sum, [, count, unit]) => sum + Number(count) * UNITS[unit], 0);
}

/** A number of bytes: "3.2 GiB". */
export function bytes(number) {
  const unit = Math.min(4, Math.floor(Math.log2(Math.max(1, number)) / 10));
  const name = ["B", "KiB", "MiB", "GiB", "TiB"][unit];
  return `${(number / 1024 ** unit).toFixed(unit ? 1 : 0)} ${name}`;
}

export const count = (value) => value.toLocaleString();

export const rounded = (value, digits) => (value == null ? "" : value.toFixed(digits));

export const percent = (part) => `${(100 * part).toFixed(part > 0 && part < 0.1 ? 1 : 0)} %`;

/** Priced slot-seconds as slot-hours. */
export function slotHours(seconds) {
  const hours = seconds / 3600;
  if (hours > 0 && hours < 0.01) return "< 0.01 h";
  const digits = hours >= 100 ? 0 : hours >= 1 ? 1 : 2;
  return `${hours.toLocaleString(undefined, { maximumFractionDigits: digits })} h`;
}

/** "3 jobs", "1 job". */
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** A moment, with its day where that is not today. */
export function moment(text) {
  const at = new Date(text);
  const isToday = at.toDateString() === new Date().toDateString();
  return isToday ? at.toLocaleTimeString() : at.toLocaleString();
}

/** A `<time>` of a moment. */
export function timeOf(text, className = "") {
  const made = document.createElement("time");
  if (className) made.className = className;
  made.dateTime = text;
  made.textContent = moment(text);
  return made;
}
