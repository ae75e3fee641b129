// What happened lately, counted in columns of equal time, of which the oldest go as time goes by. No document is needed here.

export class Columns {
  #columns = new Map(); // time / span -> column

  /** `count` columns of `span` milliseconds each; `empty()` makes one in which nothing happened. */
  constructor(count, span, empty) {
    Object.assign(this, { count, span, empty });
  }

  /** The column of a moment (milliseconds), to count in. A publisher's clock may be ahead of ours: nothing lies in the future. */
  at(time) {
    const key = Math.floor(Math.min(time, Date.now()) / this.span);
    if (!this.#columns.has(key)) this.#columns.set(key, this.empty());
    return this.#columns.get(key);
  }

  /** The number of the oldest: how many columns of time there were before it. */
  get first() {
    return Math.floor(Date.now() / this.span) - this.count + 1;
  }

  /** All of them, the oldest first. The last is the one of now. */
  all() {
    const { first } = this;
    for (const key of this.#columns.keys()) if (key < first) this.#columns.delete(key);
    return Array.from({ length: this.count }, (_, index) => this.#columns.get(first + index) ?? this.empty());
  }
}
