// The list of updates: newest first, decided in place, and never moved under somebody who is reading it.

import { setText } from "./elements.js";
import { Filter } from "./filter.js";
import { Rows } from "./row.js";
import { counted, number } from "./text.js";

const ROWS = 200; // in the list; older ones on demand
const BUILT = 20; // rows made in one frame: making all of them would hold up whoever scrolls or types
const DROPPED = 200; // rows taken away in one frame, for the same reason
const KEPT = 5000; // in the page; nothing in the list is let go of while somebody reads
const PAGES = 10; // of history, looked through on one demand for what a filter wants

export class Feed {
  /**
   * `elements`: list, empty, bar, showNew, template, title, older, olderText, count. `options`: icons, contentUrl, projectId.
   * `tally.count(entry)` and `tally.decide(entry, was)` are told what came and what became of it, `history(before)` reads
   * a page of older events. The listeners: `came(entry)` for each new one, `arrived(entry)` for those
   * that the filter wants and that came since the page was opened, `looking(contentId)`, `held(count)`.
   */
  constructor(elements, options, { store, tally, history, listeners }) {
    Object.assign(this, elements, { store, tally, history, listeners });
    this.rows = new Rows({ template: this.template, ...options });
    this.filter = new Filter();
    this.paused = false;
    this.limit = ROWS;
    this.lookers = new Map(); // content_id -> people
    this.strict = false; // rows that the filter does not want go, whoever reads
    this.looked = null; // whose row is open, as it was told last
    this.waiting = 0; // what the last flush has found held
    this.scheduled = false;
    this.loading = false;
    this.complete = false; // nothing older is kept

    this.list.addEventListener("click", (event) => this.#clicked(event));
    this.list.addEventListener("focusout", () => this.#schedule());
    addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.showNew.addEventListener("click", () => this.release());
    this.older.addEventListener("click", () => this.#loadOlder(null));
  }

  /** Shows an update, now or as soon as the person has stopped reading. `old`: it was there before the page was opened. */
  arrive(kind, data, old) {
    const { entry, was } = this.store.arrive(kind, data, old);
    if (was === null) {
      entry.held = entry.fresh = !old;
      if (kind !== "rule") this.tally.count(entry);
      this.listeners.came(entry);
      this.#bound();
    } else {
      this.#changed(entry, was, old);
      this.listeners.came(entry);
    }
    if (!old && (was === null || was !== entry.status) && this.filter.matches(entry)) this.listeners.arrived(entry);
    this.#schedule();
  }

  /** The page was opened with so many updates. */
  opened(count) {
    this.complete = count === 0;
    this.#schedule();
  }

  /** Says that updates are missing here; what is in the list stays below. */
  gap(text) {
    this.store.mark(text);
    this.#schedule();
  }

  setFilter(filter) {
    this.filter = filter;
    this.strict = true;
    this.limit = ROWS;
    setText(this.olderText, this.complete ? "Nothing older is kept." : "");
    this.#schedule();
  }

  pause(paused) {
    this.paused = paused;
    this.#schedule();
  }

  /** Who has which content open: content_id -> people. */
  look(lookers) {
    const before = this.lookers;
    this.lookers = lookers;
    for (const row of this.list.children) {
      const id = row.entry.contentId;
      if (before.has(id) || lookers.has(id)) this.rows.renderLookers(row.entry, this.#lookersOf(row.entry));
    }
  }

  /** How many wait that the filter wants. */
  get heldCount() {
    return this.store.entries.reduce((sum, entry) => sum + (entry.held && this.#wanted(entry) && entry.kind !== "mark" ? 1 : 0), 0);
  }

  /** On the reader's wish: everything new, from the top. */
  release() {
    for (const row of this.#open()) this.toggle(row);
    this.title.focus({ preventScroll: true }); // the button that has the focus is about to go
    this.#show();
    this.#flush();
    const top = this.bar.parentElement.getBoundingClientRect().top + scrollY;
    if (scrollY > top) scrollTo({ top });
  }

  /** Opens or closes a row. */
  toggle(row) {
    if (row.entry.kind === "mark") return;
    const open = this.rows.toggle(row);
    this.#lookAt(open ? row : this.#open()[0]);
    this.#schedule();
  }

  #lookAt(row) {
    this.looked = row?.entry ?? null;
    this.listeners.looking(this.looked?.contentId || null);
  }

  #open() {
    return [...this.list.querySelectorAll('[aria-expanded="true"]')].map((button) => button.closest("li"));
  }

  #lookersOf(entry) {
    return this.lookers.get(entry.contentId) ?? [];
  }

  #wanted(entry) {
    return entry.kind === "mark" || this.filter.matches(entry);
  }

  // One flush per frame, however many updates came; a hidden page has no frames but still keeps up.
  #schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    const flush = () => {
      this.scheduled = false;
      this.#flush();
    };
    if (document.hidden) setTimeout(flush, 250);
    else requestAnimationFrame(flush);
  }

  /** Somebody reads: the top of the list is scrolled away, a row is open or has the focus, or they paused it. */
  #reading() {
    if (this.paused || this.list.contains(document.activeElement)) return true;
    if (this.list.querySelector('[aria-expanded="true"]')) return true;
    return this.#away();
  }

  /** Whether the top of the list is scrolled away. */
  #away() {
    return this.list.childElementCount > 0 && this.list.getBoundingClientRect().top < this.bar.getBoundingClientRect().bottom - 4;
  }

  #scrolled() {
    this.list.classList.toggle("feed--away", this.#away());
    if (this.waiting) this.#schedule();
  }

  #flush() {
    const reading = this.#reading();
    if (!reading) this.#show();
    this.strict = this.#draw(reading && !this.strict) && this.strict;
    this.waiting = reading ? this.heldCount : 0;
    const shown = this.waiting > 0 && !this.paused; // while it is paused the button that goes on says it
    if (!shown && this.showNew === document.activeElement) this.title.focus({ preventScroll: true });
    this.showNew.hidden = !shown;
    if (this.waiting) setText(this.showNew, `${number(this.waiting)} new`);
    this.listeners.held(this.waiting);
  }

  #show() {
    for (const entry of this.store.entries) entry.held = false;
    this.limit = Math.max(ROWS, this.filter.active ? this.limit : 0);
  }

  /**
   * Brings the list to what it should show, touching only rows that come or go. Of many that do some are left to the
   * next frames, those at the end; returns whether some have yet to go.
   */
  #draw(keep) {
    const wanted = [];
    let matching = 0;
    for (const entry of this.store.entries) {
      if (entry.held || !(this.#wanted(entry) || (keep && entry.row?.isConnected))) continue;
      if (entry.kind !== "mark") matching += 1;
      if (wanted.length < this.limit) wanted.push(entry);
    }
    while (wanted.at(-1)?.kind === "mark" && matching === 0) wanted.pop();
    const staying = new Set(wanted);
    const going = [...this.list.children].filter((row) => !staying.has(row.entry));
    for (const row of going.slice(0, DROPPED)) this.#drop(row);
    if (this.looked && !this.looked.row) this.#lookAt(this.#open()[0]);
    let next = this.list.firstElementChild;
    let built = 0;
    for (const entry of wanted) {
      while (next && !staying.has(next.entry)) next = next.nextElementSibling;
      if (entry.row === next && next) next = next.nextElementSibling;
      else if (built++ < BUILT) this.list.insertBefore(entry.row ?? this.#row(entry), next);
      else break;
    }
    const more = going.length > DROPPED;
    if (built > BUILT || more) this.#schedule();
    this.#say(matching, wanted.length);
    return more;
  }

  #row(entry) {
    return entry.kind === "mark" ? this.rows.buildMark(entry) : this.rows.build(entry, this.#lookersOf(entry));
  }

  #drop(row) {
    row.remove();
    row.entry.row = null;
  }

  #say(matching, shown) {
    const all = this.store.entries.reduce((sum, entry) => sum + (entry.held || entry.kind === "mark" ? 0 : 1), 0);
    setText(this.count, this.filter.active ? `${number(matching)} of ${number(all)}` : number(all));
    this.list.hidden = shown === 0;
    this.empty.hidden = shown > 0;
    this.empty.dataset.why = all > 0 ? "filter" : "nothing";
    const ends = this.complete && matching <= shown;
    if (ends && this.older === document.activeElement) this.olderText.focus({ preventScroll: true });
    this.older.hidden = ends;
    this.older.parentElement.hidden = all === 0;
  }

  /** Lets go of the oldest that nobody reads; of what waits, where a reader has all the others before them. */
  #bound() {
    const { entries } = this.store;
    while (entries.length > KEPT) {
      const last = entries.at(-1);
      if (!last.row?.isConnected) {
        this.store.forget();
        this.complete = false;
        continue;
      }
      const place = entries.findLastIndex((entry) => entry.held && entry.kind !== "mark");
      if (place < 0) return;
      this.store.mark("More came while you were reading than this page keeps.", place + 1);
      this.store.remove(entries[place]);
    }
  }

  /** Reads older updates, at a mark or at the end, until the filter wants one, nothing is left, or it is enough. */
  async #loadOlder(mark) {
    const waiting = this.store.entries.filter((entry) => !entry.held && this.#wanted(entry)).length;
    if (mark === null && waiting > this.limit) {
      this.limit += ROWS / 2;
      return this.#schedule();
    }
    if (this.loading) return;
    this.loading = true;
    const button = mark ? mark.row.querySelector("button") : this.older; // which may be gone in the end
    button.setAttribute("aria-busy", "true");
    try {
      await this.#readPages(mark);
    } catch {
      this.#answer(mark, "Older updates could not be loaded. Try again in a moment.");
    } finally {
      this.loading = false;
      button.removeAttribute("aria-busy");
      this.#schedule();
    }
  }

  async #readPages(mark) {
    let looked = 0;
    for (let page = 0; page < PAGES; page += 1) {
      const edge = this.store.edge(mark);
      const events = await this.history(edge);
      const { brought, changed, closed } = this.store.older(events, mark);
      for (const entry of brought) {
        if (entry.kind !== "rule" && !entry.again) this.tally.count(entry);
        this.listeners.came(entry);
      }
      for (const { entry, was } of changed) this.#changed(entry, was, mark === null);
      const found = brought.filter((entry) => this.filter.matches(entry)).length;
      looked += brought.length;
      this.limit += found;
      if (closed) return;
      if (!events.length) {
        if (mark === null) this.complete = true;
        return this.#answer(mark, mark ? "What was missed here is no longer kept." : "Nothing older is kept.", true);
      }
      if (found) return this.#answer(mark, "");
    }
    this.#answer(mark, `Nothing among ${counted(looked, "older update")}.`);
  }

  #changed(entry, was, old) {
    if (was !== entry.status) this.tally.decide(entry, was, old);
    if (entry.row) this.rows.render(entry, this.#lookersOf(entry));
  }

  #answer(mark, text, exhausted = false) {
    if (mark === null) return setText(this.olderText, text);
    if (text) mark.text = text;
    mark.exhausted = exhausted;
    if (mark.row) this.rows.renderMark(mark);
  }

  #clicked(event) {
    const row = event.target.closest("#feed > li");
    if (event.target.closest(".update__more")) this.toggle(row);
    else if (event.target.closest(".feed__fill")) this.#loadOlder(row.entry);
  }
}
