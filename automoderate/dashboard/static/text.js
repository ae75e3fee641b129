// How values read to a person, in the reader's own language settings. Everything returned is plain text.

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit", second: "2-digit" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const decimal = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });

/** An ISO timestamp as Date; now, where it is missing or unreadable. */
export function readTime(value) {
  const time = new Date(typeof value === "string" ? value : Number.NaN);
  return Number.isNaN(time.getTime()) ? new Date() : time;
}

export const clockTime = (date) => clock.format(date);
export const fullTime = (date) => full.format(date);
export const number = (value) => decimal.format(value);

/** "1 update", "12 updates". */
export const counted = (count, one) => `${number(count)} ${count === 1 ? one : `${one}s`}`;

/** Seconds: "8 ms", "1.2 s", "2 min 5 s". */
export function duration(seconds) {
  if (typeof seconds !== "number" || !Number.isFinite(seconds) || seconds < 0) return "";
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** A key as people write it: "total_content" -> "Total content". */
export function label(key) {
  const words = String(key).replaceAll(/[_\s]+/g, " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** Any JSON value on one line. */
export function plain(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value === "number") return number(value);
  if (typeof value === "boolean") return value ? "Yes" : "No";
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** A text that is longer than so many characters, cut; never through the middle of one. */
export const shortened = (text, length) =>
  text.length > length ? `${text.slice(0, length - 1).replace(/[\ud800-\udbff]$/, "")}…` : text;

/** One or two letters for a name: "Ann Lee" -> "AL", "olga" -> "O". */
export function initials(name) {
  const words = String(name).split(/[\s._@-]+/u).filter(Boolean);
  const letters = words.slice(0, 2).map((word) => [...word][0]);
  return (letters.join("") || "?").toUpperCase();
}
