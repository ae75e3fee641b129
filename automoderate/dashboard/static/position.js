// Where this page is in one project's updates: what it has seen, and what to ask for when it comes back.

const SEEN_LIMIT = 2000; // event ids remembered to recognise an update that arrives twice

/** Is event id `a` newer than `b`? Ids are "milliseconds-sequence", too large together for one number. */
export function newer(a, b) {
  const [aTime, aSequence] = a.split("-").map(Number);
  const [bTime, bSequence] = b.split("-").map(Number);
  return aTime === bTime ? aSequence > bSequence : aTime > bTime;
}

export class Position {
  #seen = new Set();
  #newest = null; // the newest event id of this project that we know of

  /** What a join says beside the project; `first` is for one that begins anew. */
  request(first = {}) {
    return this.#newest === null ? first : { last_event_id: this.#newest };
  }

  /** Takes note of an update. False: it was here before. */
  take(id) {
    if (typeof id !== "string") return true;
    if (this.#seen.has(id)) return false;
    this.#seen.add(id);
    if (this.#seen.size > SEEN_LIMIT) this.#seen.delete(this.#seen.values().next().value);
    this.#reach(id);
    return true;
  }

  /** Takes note of the answer to a join. False: updates were missed for good. */
  joined(answer) {
    const whole = answer.recovered !== false;
    if (!whole) {
      // The history starts anew: ids from before say nothing about what is new now.
      this.#seen.clear();
      this.#newest = null;
    }
    this.#reach(answer.last_event_id);
    return whole;
  }

  #reach(id) {
    if (typeof id === "string" && (this.#newest === null || newer(id, this.#newest))) this.#newest = id;
  }
}
