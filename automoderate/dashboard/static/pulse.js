// The numbers of one project as time goes by: decisions of the last minute and the last five, flagged ones of the last hour.

const SPAN = 10_000; // milliseconds per column of the pace
const COLUMNS = 30;
const MINUTE = 60_000;

export const DECIDED = ["approved", "rejected", "flagged"];

export class Pulse {
  #slots = new Map(); // time / SPAN -> {approved, rejected, flagged}
  #flagged = new Map(); // time / MINUTE -> how many
  #oldest = Infinity; // time of the oldest decision that was counted since the last gap
  #cut = -Infinity; // what is counted begins here: there was more, but it was not asked for
  #gap = -Infinity; // some of those just before are missing

  /** Counts one decision. */
  decided(status, date) {
    const now = Date.now();
    const time = Math.min(date.getTime(), now); // a publisher's clock may be ahead of ours
    this.#oldest = Math.min(this.#oldest, time);
    if (time > now - COLUMNS * SPAN) {
      const key = Math.floor(time / SPAN);
      if (!this.#slots.has(key)) this.#slots.set(key, { approved: 0, rejected: 0, flagged: 0 });
      this.#slots.get(key)[status] += 1;
    }
    if (status === "flagged") {
      const key = Math.floor(time / MINUTE);
      this.#flagged.set(key, (this.#flagged.get(key) ?? 0) + 1);
    }
  }

  /** There were more before the oldest that was counted. */
  cut() {
    this.#cut = Math.min(this.#oldest, Date.now());
  }

  /** Some are missing of those before now. */
  gap() {
    this.#gap = Date.now();
    this.#oldest = Infinity;
  }

  /** Of each of the last five minutes' columns {approved, rejected, flagged}, oldest first. */
  columns() {
    const last = Math.floor(Date.now() / SPAN);
    for (const key of this.#slots.keys()) if (key <= last - COLUMNS) this.#slots.delete(key);
    const none = { approved: 0, rejected: 0, flagged: 0 };
    return Array.from({ length: COLUMNS }, (_, index) => this.#slots.get(last - COLUMNS + 1 + index) ?? none);
  }

  /** The decisions of the last minute: how many, and whether there may have been more. */
  pace() {
    const minute = this.columns().slice(-MINUTE / SPAN);
    const count = minute.reduce((sum, column) => sum + DECIDED.reduce((part, status) => part + column[status], 0), 0);
    return { count, more: this.#missing(MINUTE) };
  }

  /** What was flagged in the last hour, likewise. */
  flagged() {
    const last = Math.floor(Date.now() / MINUTE);
    for (const key of this.#flagged.keys()) if (key <= last - 60) this.#flagged.delete(key);
    const count = [...this.#flagged.values()].reduce((sum, value) => sum + value, 0);
    return { count, more: this.#missing(60 * MINUTE) };
  }

  #missing(span) {
    return Math.max(this.#cut, this.#gap) > Date.now() - span;
  }
}
