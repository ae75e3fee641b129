// Which updates a person wants to see. A filter never changes: there is a new one for every choice.

import { searchable } from "./text.js";

export const STATUSES = ["approved", "rejected", "flagged", "pending"];
export const DECIDED = ["approved", "rejected", "flagged"];
const CHOICES = ["type", "moderator", "rule"]; // names in the address, and of what an entry has
const NAMES = ["status", ...CHOICES, "q"];

export class Filter {
  constructor({ statuses = [], type = "", moderator = "", rule = "", text = "" } = {}) {
    this.statuses = STATUSES.filter((status) => statuses.includes(status));
    Object.assign(this, { type, moderator, rule, text });
    this.words = searchable(text).split(/\s+/).filter(Boolean);
    Object.freeze(this);
  }

  /** The filter that the query of an address names. */
  static parse(query) {
    const given = new URLSearchParams(query);
    const [type, moderator, rule, text] = [...CHOICES, "q"].map((name) => given.get(name) ?? "");
    return new Filter({ statuses: (given.get("status") ?? "").split(","), type, moderator, rule, text });
  }

  /** The same query with this filter in it; what else it has stays. */
  write(query) {
    const given = new URLSearchParams(query);
    for (const name of NAMES) given.delete(name);
    if (this.statuses.length) given.set("status", this.statuses.join(","));
    for (const name of CHOICES) if (this[name]) given.set(name, this[name]);
    if (this.text.trim()) given.set("q", this.text.trim());
    return given.toString().replaceAll("%2C", ",");
  }

  with(changes) {
    return new Filter({ ...this, ...changes });
  }

  /** With this status chosen besides, or, where it was, no longer. */
  toggle(status) {
    const chosen = this.statuses.includes(status);
    return this.with({ statuses: chosen ? this.statuses.filter((other) => other !== status) : [...this.statuses, status] });
  }

  /** Whether it leaves anything out. */
  get active() {
    return this.statuses.length > 0 || this.words.length > 0 || CHOICES.some((name) => this[name] !== "");
  }

  /** Is an entry of the store wanted? A change of a rule has no status, type or moderator. */
  matches(entry) {
    if (this.statuses.length && !this.statuses.includes(entry.status)) return false;
    if (CHOICES.some((name) => this[name] !== "" && this[name] !== entry[name])) return false;
    return this.words.every((word) => entry.text.includes(word));
  }
}
