// The list of updates: newest first, decided in place, and never moved under somebody who is reading it.

import { clockTime, duration, fullTime, label, plain, readTime } from "./text.js";

const ROWS = 200; // kept in the page
const UNDECIDED = 2000; // contents remembered while their decision is awaited
const STATUSES = new Set(["approved", "rejected", "flagged", "pending"]);
const BADGES = { approved: "Approved", rejected: "Rejected", flagged: "Flagged", pending: "Pending", rule: "Rule change" };

const known = (status) => (STATUSES.has(status) ? status : "pending");

function describeRule(data) {
  const rule = data.rule ?? data.rule_data;
  const name = typeof rule === "object" && rule !== null ? (rule.name ?? rule.id) : rule;
  const action = typeof data.action === "string" && data.action ? label(data.action).toLowerCase() : "changed";
  return name === undefined || name === null ? `A rule was ${action}` : `“${plain(name)}” was ${action}`;
}

/** What a row shows, for an update of any kind. */
function describe(kind, data) {
  if (kind === "rule") return { status: "rule", preview: describeRule(data), who: "Moderation rules", what: "", took: "" };
  const name = plain(data.moderator_name ?? "Unknown");
  return {
    status: known(data.status),
    preview: plain(data.content_preview),
    who: data.rule_name ? `${name}: ${plain(data.rule_name)}` : name,
    what: data.content_type ? label(data.content_type) : "",
    took: data.status === "pending" ? "" : duration(data.processing_time),
  };
}

function facts(kind, data) {
  if (kind === "rule") return [["Rule", data.rule], ["Event", data.event_id]];
  return [
    ["Content", data.content_id], ["Type", data.content_type], ["Moderator", data.moderator_type], ["Rule", data.rule_name],
    ["Results", data.results_count], ["Event", data.event_id], ["Meta data", data.meta_data],
  ]; // prettier-ignore
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export class Feed {
  /**
   * `elements`: list, empty, bar, showNew, template, title; `icons` is the address of the icon sprite.
   * `tally.count(status, date)` and `tally.decide(status, date)` are told what was added and what a pending row became.
   */
  constructor(elements, icons, tally) {
    Object.assign(this, elements);
    this.icons = icons;
    this.tally = tally;
    this.paused = false;
    this.rows = []; // in the page, newest first
    this.held = []; // arrived, not shown yet, oldest first
    this.heldCount = 0;
    this.undecided = new Map(); // content_id -> entry
    this.scheduled = false;

    this.list.addEventListener("click", (event) => this.#clicked(event));
    this.list.addEventListener("focusout", () => this.#schedule());
    addEventListener("scroll", () => this.held.length && this.#schedule(), { passive: true });
    this.showNew.addEventListener("click", () => this.#release());
  }

  /** Shows one moderation_update or content_received, now or as soon as nobody is reading. */
  update(data) {
    const status = known(data.status);
    const time = readTime(data.timestamp);
    const id = data.content_id;
    const waiting = this.undecided.get(id);
    if (waiting && status !== "pending") {
      this.undecided.delete(id);
      this.tally.decide(status, time);
      if (!waiting.gone) {
        waiting.data = { ...waiting.data, ...data };
        waiting.decided = time;
        if (waiting.row) this.#render(waiting);
        return;
      }
    } else {
      this.tally.count(status, time);
    }
    const entry = { kind: "update", data, time, row: null, gone: false };
    if (status === "pending" && id !== undefined) {
      this.undecided.set(id, entry);
      if (this.undecided.size > UNDECIDED) this.undecided.delete(this.undecided.keys().next().value);
    }
    this.#hold(entry);
  }

  /** Shows a rule_update. */
  rule(data) {
    this.#hold({ kind: "rule", data, time: readTime(data.timestamp), row: null, gone: false });
  }

  /** Empties the list and says why. */
  restart(text) {
    this.rows = [];
    this.held = [];
    this.heldCount = 0;
    this.undecided.clear();
    const mark = document.createElement("li");
    mark.className = "feed__mark";
    mark.textContent = text;
    this.list.replaceChildren(mark);
    this.#flush();
  }

  pause(paused) {
    this.paused = paused;
    this.#schedule();
  }

  #hold(entry) {
    this.held.push(entry);
    this.heldCount += 1;
    if (this.held.length > ROWS) this.held.shift().gone = true;
    this.#schedule();
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
    return this.rows.length > 0 && this.list.getBoundingClientRect().top < this.bar.getBoundingClientRect().bottom - 4;
  }

  #flush() {
    if (this.held.length && !this.#reading()) this.#show();
    const count = this.heldCount;
    this.showNew.hidden = count === 0;
    if (count) setText(this.showNew, `${count.toLocaleString()} new`);
    this.empty.hidden = this.list.childElementCount > 0;
    this.list.hidden = !this.empty.hidden;
  }

  #show() {
    const fresh = this.held.reverse();
    this.held = [];
    this.heldCount = 0;
    this.list.prepend(...fresh.map((entry) => this.#build(entry)));
    this.rows.unshift(...fresh);
    for (const old of this.rows.splice(ROWS)) {
      old.row.remove();
      old.gone = true;
    }
  }

  /** On the reader's wish: everything new, from the top. */
  #release() {
    for (const button of this.list.querySelectorAll('[aria-expanded="true"]')) this.#toggle(button);
    this.title.focus({ preventScroll: true }); // the button that has the focus is about to go
    this.#show();
    this.#flush();
    const top = this.bar.parentElement.getBoundingClientRect().top + scrollY;
    if (scrollY > top) scrollTo({ top });
  }

  #build(entry) {
    const row = this.template.content.firstElementChild.cloneNode(true);
    entry.row = row;
    row.entry = entry;
    this.#render(entry);
    return row;
  }

  #render(entry) {
    const { row, data, kind, time, decided } = entry;
    const text = describe(kind, data);
    if (row.dataset.status !== text.status) {
      row.dataset.status = text.status;
      row.querySelector("use").setAttribute("href", `${this.icons}#${text.status}`);
      setText(row.querySelector(".badge__text"), BADGES[text.status]);
    }
    if (data.content_id !== undefined) row.dataset.contentId = data.content_id;
    setText(row.querySelector(".update__preview"), text.preview);
    setText(row.querySelector(".update__who"), text.who);
    setText(row.querySelector(".update__what"), text.what);
    setText(row.querySelector(".update__took"), text.took);
    const stamp = row.querySelector("time");
    stamp.dateTime = time.toISOString();
    // The time shown stays that of arrival, which is what the list is ordered by.
    stamp.title = decided ? `Received ${fullTime(time)}, decided ${fullTime(decided)}` : fullTime(time);
    setText(stamp, clockTime(time));
    if (!row.querySelector(".update__details").hidden) this.#detail(entry);
  }

  #clicked(event) {
    const button = event.target.closest(".update__more");
    if (button) this.#toggle(button);
  }

  #toggle(button) {
    const row = button.closest(".update");
    const details = row.querySelector(".update__details");
    const open = details.hidden;
    if (open) this.#detail(row.entry);
    details.hidden = !open;
    button.setAttribute("aria-expanded", String(open));
    this.#schedule();
  }

  #detail({ row, kind, data }) {
    const list = document.createElement("dl");
    for (const [name, value] of facts(kind, data)) {
      const structured = typeof value === "object" && value !== null;
      if (value === undefined || value === null || value === "" || (structured && !Object.keys(value).length)) continue;
      const term = document.createElement("dt");
      term.textContent = name;
      const description = document.createElement("dd");
      const text = document.createElement(structured ? "pre" : "span");
      text.textContent = structured ? JSON.stringify(value, null, 2) : plain(value);
      description.append(text);
      list.append(term, description);
    }
    row.querySelector(".update__details").replaceChildren(list);
  }
}
