// What the page knows: every update that it holds, newest first, and where some are missing. No document is needed here.

import { newer } from "./position.js";
import { STATUSES } from "./filter.js";
import { label, plain, readTime, searchable } from "./text.js";

const UNDECIDED = 2000; // contents remembered while their decision is awaited
const FORGOTTEN = 5000; // ids remembered of what was let go of
const AUTHORS = ["author", "author_name", "username", "user_name", "user"];

const word = (value) => (typeof value === "string" || typeof value === "number" ? String(value) : "");

function authorOf(meta) {
  if (meta === null || typeof meta !== "object") return "";
  const found = AUTHORS.map((name) => meta[name]).find((value) => value !== undefined && value !== null && value !== "");
  return word(found) || word(found?.name ?? found?.username);
}

/** Every word of a JSON value, keys too, as people read it and not as JSON writes it. */
function said(value) {
  if (value === null || typeof value !== "object") return String(value ?? "");
  if (Array.isArray(value)) return value.map(said).join("\n");
  return Object.entries(value).map(([key, part]) => `${key}\n${said(part)}`).join("\n");
}

function ruleChange(data) {
  const rule = data.rule ?? data.rule_data;
  const name = typeof rule === "object" && rule !== null ? (rule.name ?? rule.id) : rule;
  const action = typeof data.action === "string" && data.action ? label(data.action).toLowerCase() : "changed";
  const known = name !== undefined && name !== null;
  return { rule: known ? plain(name) : "", preview: known ? `“${plain(name)}” was ${action}` : `A rule was ${action}` };
}

/** One update, of a content or of a rule. */
export class Entry {
  row = null; // its element, while there is one
  held = false; // it waits until the person has stopped reading
  fresh = false; // it has just come, and has not been shown
  gone = false; // let go of
  again = false; // it was here before and was let go of
  decided = null; // when, for one that was pending before

  /** `old`: it was there before the page was opened. */
  constructor(kind, data, old) {
    this.kind = kind;
    this.id = word(data.event_id);
    this.time = readTime(data);
    this.old = old;
    this.take(data);
  }

  take(data) {
    this.data = { ...this.data, ...data };
    const { content_type: type, moderator_type: moderator, rule_name: rule, content_preview: preview } = this.data;
    this.contentId = word(this.data.content_id); // "" without one
    if (this.kind === "rule") {
      Object.assign(this, { status: "rule", type: "", moderator: "", author: "", ...ruleChange(this.data) });
    } else {
      const status = STATUSES.includes(this.data.status) ? this.data.status : "pending";
      const author = authorOf(this.data.meta_data);
      Object.assign(this, { status, type: word(type), moderator: word(moderator), rule: word(rule), author, preview: plain(preview) });
    }
    this.searched = null;
  }

  /** What a search looks in. */
  get text() {
    if (this.searched === null) {
      const { meta_data: meta, moderator_name: name } = this.data;
      const parts = [this.preview, this.contentId, word(name), this.rule, this.type, this.status, said(meta)];
      this.searched = searchable(parts.join("\n"));
    }
    return this.searched;
  }
}

/** A place where updates are missing; `exhausted` once no more of them can be had. */
const newMark = (text) => ({ kind: "mark", text, row: null, held: true, exhausted: false });

export class Store {
  entries = []; // newest first; a mark stands where updates are missing
  oldest = null; // the smallest event id that history has reached back to
  #undecided = new Map(); // content_id -> entry
  #forgotten = new Set(); // ids of entries that were here

  /**
   * Takes an update as it arrives. Returns what became of it: `{ entry, was }`, where `was` is the status that an entry
   * had which was here already, or null where it is a new one.
   */
  arrive(kind, data, old = false) {
    this.#reach(data.event_id);
    const known = kind === "rule" ? null : this.#decide(data);
    if (known) return known;
    const entry = new Entry(kind, data, old);
    let place = 0;
    // Almost always the newest; not where older ones are sent once more after a gap.
    while (this.entries[place]?.id && entry.id && newer(this.entries[place].id, entry.id)) place += 1;
    this.entries.splice(place, 0, entry);
    this.#await(entry);
    return { entry, was: null };
  }

  /** Some updates are missing here, above what stands at `place`. Returns the mark, or null where nothing or a mark does. */
  mark(text, place = 0) {
    if ((this.entries[place]?.kind ?? "mark") === "mark") return null;
    const mark = newMark(text);
    this.entries.splice(place, 0, mark);
    return mark;
  }

  /** Before which id older ones are to be asked for, at a mark or at the end; null: ask for the newest. */
  edge(mark = null) {
    if (mark === null) return this.oldest;
    const above = this.entries.slice(0, this.entries.indexOf(mark)).findLast((entry) => entry.id);
    return above?.id ?? null;
  }

  /**
   * Takes a page of older events, oldest first, above the mark or at the end. Returns the entries that it brought and
   * `closed`: whether nothing is missing at the mark any more.
   */
  older(events, mark = null) {
    const at = mark === null ? this.entries.length : this.entries.indexOf(mark);
    const below = mark === null ? null : this.entries.slice(at).find((entry) => entry.id)?.id;
    const missing = below ? events.filter(({ data }) => newer(word(data.event_id), below)) : events;
    const decided = new Set(this.entries.map((entry) => entry.contentId));
    const brought = [];
    const changed = [];
    for (const { event, data } of missing) {
      this.#reach(data.event_id);
      if (event !== "moderation_update" && event !== "content_received" && event !== "rule_update") continue;
      const kind = event === "rule_update" ? "rule" : "update";
      const known = kind === "rule" ? null : this.#decide(data);
      if (known) {
        if (!brought.includes(known.entry)) changed.push(known);
        continue;
      }
      const entry = new Entry(kind, data, mark === null); // what was missed came since the page was opened
      // It was received here and decided further up, where it stands already.
      if (entry.status === "pending" && entry.contentId && decided.has(entry.contentId)) continue;
      entry.again = this.#forgotten.has(entry.id);
      this.#await(entry);
      brought.unshift(entry);
    }
    this.entries.splice(at, 0, ...brought);
    const closed = mark !== null && missing.length < events.length;
    if (closed) this.remove(mark);
    return { brought, changed, closed };
  }

  /** Lets go of the oldest, which can be loaded again. */
  forget() {
    this.remove(this.entries.at(-1));
    this.oldest = this.entries.findLast((entry) => entry.id)?.id ?? null;
  }

  remove(entry) {
    this.entries.splice(this.entries.lastIndexOf(entry), 1);
    entry.gone = true;
    if (entry.id) this.#forgotten.add(entry.id);
    if (this.#forgotten.size > FORGOTTEN) this.#forgotten.delete(this.#forgotten.values().next().value);
  }

  #reach(id) {
    if (typeof id === "string" && (this.oldest === null || newer(this.oldest, id))) this.oldest = id;
  }

  /** What is said of a content that waits for its decision goes to the entry that is there. */
  #decide(data) {
    const entry = this.#undecided.get(word(data.content_id));
    if (!entry || entry.gone) return null;
    const was = entry.status;
    entry.take(data);
    if (entry.status !== "pending") {
      entry.decided = readTime(data);
      this.#undecided.delete(entry.contentId);
    }
    return { entry, was };
  }

  #await(entry) {
    if (entry.status !== "pending" || !entry.contentId) return;
    this.#undecided.set(entry.contentId, entry);
    if (this.#undecided.size > UNDECIDED) this.#undecided.delete(this.#undecided.keys().next().value);
  }
}
