// The numbers of one project as time goes by: decisions of the last minute and the last five, flagged ones of the last hour.

import { Columns } from "./columns.js";
import { DECIDED } from "./filter.js";

const SPAN = 10_000; // milliseconds per column of the pace
const COLUMNS = 30;
const MINUTE = 60_000;

export class Pulse {
  #decided = new Columns(COLUMNS, SPAN, () => ({ approved: 0, rejected: 0, flagged: 0 }));
  #flagged = new Columns(60, MINUTE, () => ({ count: 0 }));
  #oldest = Infinity; // time of the oldest decision that was counted since the last gap
  #cut = -Infinity; // what is counted begins here: there was more, but it was not asked for
  #gap = -Infinity; // some of those just before are missing

  /** Counts one decision. */
  decided(status, date) {
    const time = date.getTime();
    this.#oldest = Math.min(this.#oldest, time, Date.now());
    this.#decided.at(time)[status] += 1;
    if (status === "flagged") this.#flagged.at(time).count += 1;
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
    return this.#decided.all();
  }

  /** The decisions of the last minute: how many, and whether there may have been more. */
  pace() {
    const minute = this.columns().slice(-MINUTE / SPAN);
    const count = minute.reduce((sum, column) => sum + DECIDED.reduce((part, status) => part + column[status], 0), 0);
    return { count, more: this.#missing(MINUTE) };
  }

  /** What was flagged in the last hour, likewise. */
  flagged() {
    const count = this.#flagged.all().reduce((sum, column) => sum + column.count, 0);
    return { count, more: this.#missing(60 * MINUTE) };
  }

  #missing(span) {
    return Math.max(this.#cut, this.#gap) > Date.now() - span;
  }
}
