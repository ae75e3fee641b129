// Finding updates: the counters, menus and search field that make up the filter, and the address that says it.

import { setText } from "./elements.js";
import { Filter, STATUSES } from "./filter.js";
import { label, plain, shortened } from "./text.js";

const SEARCH_PAUSE = 150; // milliseconds that somebody stops typing
const OPTIONS = 100; // in one menu
const MENUS = { type: (entry) => label(entry.type), moderator: (entry) => plain(entry.data.moderator_name || label(entry.moderator)), rule: (entry) => entry.rule };

export class Find {
  /** `elements`: counters (status -> button), search, type, moderator, rule (select), clear (buttons), more (the words that open the menus). */
  constructor(elements, changed) {
    Object.assign(this, elements, { changed });
    this.filter = Filter.parse(location.search);
    this.known = Object.fromEntries(Object.keys(MENUS).map((name) => [name, new Map()])); // value -> option
    this.timer = undefined;
    for (const status of STATUSES) this.counters[status].addEventListener("click", () => this.choose(this.filter.toggle(status)));
    for (const name of Object.keys(MENUS)) {
      this[name].addEventListener("change", () => this.choose(this.filter.with({ [name]: this[name].value })));
      if (this.filter[name]) this.#offer(name, this.filter[name], label(this.filter[name]));
    }
    this.search.value = this.filter.text;
    this.search.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.choose(this.filter.with({ text: this.search.value })), SEARCH_PAUSE);
    });
    for (const button of this.clear) button.addEventListener("click", () => this.#clear());
    this.choose(this.filter);
  }

  /** Makes a filter the one that counts. */
  choose(filter) {
    this.filter = filter;
    for (const status of STATUSES) this.counters[status].setAttribute("aria-pressed", String(filter.statuses.includes(status)));
    for (const name of Object.keys(MENUS)) this[name].value = filter[name];
    this.clear[0].hidden = !filter.active;
    const chosen = Object.keys(MENUS).filter((name) => filter[name]).length;
    this.more.textContent = chosen ? `Filter (${chosen})` : "Filter";
    const query = filter.write(location.search);
    history.replaceState(history.state, "", `${location.pathname}${query ? `?${query}` : ""}${location.hash}`);
    this.changed(filter);
  }

  /** Offers what an update has as a choice. */
  learn(entry) {
    for (const [name, shown] of Object.entries(MENUS)) {
      if (entry[name] && entry[name] !== "pending") this.#offer(name, entry[name], String(shown(entry)));
    }
  }

  #offer(name, value, text) {
    const known = this.known[name];
    const words = shortened(text, 60);
    const option = known.get(value);
    if (option) {
      if (name === "moderator") setText(option, words);
      return;
    }
    if (known.size >= OPTIONS) return;
    const offered = new Option(words, value);
    known.set(value, offered);
    const after = [...this[name].options].slice(1).find((other) => other.textContent.localeCompare(words) > 0);
    this[name].add(offered, after ?? null);
    if (this.filter[name] === value) this[name].value = value;
  }

  #clear() {
    clearTimeout(this.timer);
    this.search.value = "";
    this.search.focus();
    this.choose(new Filter());
  }
}
