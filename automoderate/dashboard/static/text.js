// How values read to a person, in the reader's own language settings. Everything returned is plain text.

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "numeric", minute: "2-digit" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const decimal = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });
const fine = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3 });

/**
 * When an update was made, as Date, by its ISO timestamp, which is of UTC where it names no time zone, as servers write it.
 * Where it is missing or unreadable: when it was published, which its event id says, or now.
 */
export function readTime({ timestamp: value, event_id: id }) {
  const text = typeof value === "string" ? value : "";
  const time = new Date(/^\d{4}-\d\d-\d\d[T ][\d:.]+$/.test(text) ? `${text.replace(" ", "T")}Z` : text);
  if (!Number.isNaN(time.getTime())) return time;
  return /^\d{13}-\d+$/.test(id) ? new Date(Number.parseInt(id, 10)) : new Date();
}

export const clockTime = (date) => clock.format(date);
/** The time of what is of today; of what is not, as kept updates may be, the day besides. */
export const moment = (date) => (date.toDateString() === new Date().toDateString() ? clock : day).format(date);
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
  if (typeof value === "number") return Math.abs(value) < 1 ? fine.format(value) : number(value);
  if (typeof value === "boolean") return value ? "Yes" : "No";
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Like `plain`, for who looks closely: a number may be an id or a year, and every digit may count. */
export const exact = (value) => (typeof value === "number" ? String(value) : plain(value));

/** A text as it is searched, however it is written: in capitals, or an accent as a character of its own. */
export const searchable = (text) => text.normalize().toLowerCase();

/** A text that is longer than so many characters, cut; never through the middle of one. */
export const shortened = (text, length) =>
  text.length > length ? `${text.slice(0, length - 1).replace(/[\ud800-\udbff]$/, "")}…` : text;

/** One or two letters for a name: "Ann Lee" -> "AL", "olga" -> "O". */
export function initials(name) {
  const words = String(name).split(/[\s._@-]+/u).filter(Boolean);
  const letters = words.slice(0, 2).map((word) => [...word][0]);
  return (letters.join("") || "?").toUpperCase();
}
