// The keyboard: one letter each, where nobody types, and only as long as the person wants them.

const STORED = "automoderate.keys";

const TYPING = "input:not([type=checkbox], [type=radio]), select, textarea, [contenteditable]";

export class Keys {
  /** `elements`: list, bar, search, pause, dialog, open, enabled (checkbox). */
  constructor(elements, feed) {
    Object.assign(this, elements, { feed });
    this.actions = {
      j: () => this.#step(1),
      k: () => this.#step(-1),
      o: () => this.#current() && this.feed.toggle(this.#current()),
      "/": () => this.#find(),
      p: () => this.pause.click(),
      "?": () => this.dialog.showModal(),
      Escape: () => this.#leave(),
    };
    this.enabled.checked = this.#stored() !== "off";
    this.enabled.addEventListener("change", () => this.#store(this.enabled.checked ? "on" : "off"));
    this.open.addEventListener("click", () => this.dialog.showModal());
    addEventListener("keydown", (event) => this.#pressed(event));
    this.search.addEventListener("keydown", (event) => event.key === "Escape" && this.search.blur());
  }

  #pressed(event) {
    if (!this.enabled.checked || event.defaultPrevented || this.dialog.open) return;
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest(TYPING)) return;
    const act = this.actions[event.key] ?? this.#meant(event);
    if (!act) return;
    act();
    if (event.key !== "Escape") event.preventDefault();
  }

  /** With CapsLock a letter is a capital one, and a keyboard of another script has it in the same place. */
  #meant({ key, code, shiftKey }) {
    if (shiftKey || key?.length !== 1) return undefined;
    return this.actions[key <= "~" ? key.toLowerCase() : code.slice("Key".length).toLowerCase()];
  }

  #rows() {
    return [...this.list.querySelectorAll(":scope > .update")];
  }

  #current() {
    const row = document.activeElement?.closest("#feed > .update");
    return row ?? null;
  }

  #step(direction) {
    const rows = this.#rows();
    const place = rows.indexOf(this.#current());
    const top = this.bar.getBoundingClientRect().bottom;
    // From where somebody reads, not from where they once began.
    const next = place < 0 ? rows.find((row) => row.getBoundingClientRect().top >= top - 4) : rows[place + direction];
    next?.focus({ preventScroll: true });
    next?.scrollIntoView({ block: "nearest" });
  }

  #find() {
    this.search.focus();
    this.search.select();
    this.search.scrollIntoView({ block: "nearest" });
  }

  #leave() {
    const row = this.#current();
    if (row?.querySelector('[aria-expanded="true"]')) this.feed.toggle(row);
    else document.activeElement?.blur();
  }

  #stored() {
    try {
      return localStorage.getItem(STORED);
    } catch {
      return null;
    }
  }

  #store(value) {
    try {
      localStorage.setItem(STORED, value);
    } catch {
      // It holds for this visit.
    }
  }
}
