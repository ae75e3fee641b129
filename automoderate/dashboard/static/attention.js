// Being called: by sound, notification, title and screen reader, as far as the person has chosen. Their choice is remembered.

import { number, shortened } from "./text.js";

const STORED = "automoderate.attention";
const DEFAULTS = { sound: false, notify: false, title: true, scope: "flagged" };
const SOUND_PAUSE = 2000; // milliseconds between two sounds,
const NOTIFY_PAUSE = 5000; // two notifications,
const SAY_PAUSE = 10_000; // and two sentences of a screen reader

/** What was chosen before, on this device. */
function remembered() {
  try {
    return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(STORED)) };
  } catch {
    return { ...DEFAULTS }; // none, not readable, or the browser keeps nothing
  }
}

/** Does at most one thing in so many milliseconds: the first at once, what came meanwhile together. */
function paced(pause, act) {
  let waiting = [];
  let timer = null;
  const go = () => {
    timer = null;
    if (!waiting.length) return;
    const together = waiting;
    waiting = [];
    timer = setTimeout(go, pause);
    act(together);
  };
  return (item) => {
    waiting.push(item);
    timer ??= setTimeout(go, 0);
  };
}

export class Attention {
  /** `elements`: sound, notify, title (checkboxes), flagged, filtered (radios), note, announcer. `name` is the project's. */
  constructor(elements, name) {
    Object.assign(this, elements, { name });
    this.words = document.title;
    this.missed = 0; // in the title
    this.chosen = remembered();
    this.audio = null;
    this.ring = paced(SOUND_PAUSE, () => this.#sound());
    this.notifyOf = paced(NOTIFY_PAUSE, (entries) => this.#notify(entries));
    this.say = paced(SAY_PAUSE, (entries) => this.#say(entries));
    this.#offer();
    for (const event of ["focus", "visibilitychange"]) addEventListener(event, () => this.#looked());
    // A browser lets a page make sounds once somebody has done something in it.
    for (const event of ["pointerdown", "keydown"]) addEventListener(event, () => this.chosen.sound && this.#wake());
  }

  /** An update that the filter wants has come, or was decided. */
  arrived(entry) {
    this.say(entry);
    if (this.chosen.scope === "flagged" && entry.status !== "flagged") return;
    if (this.chosen.sound) this.ring(entry);
    if (document.hasFocus() && !document.hidden) return;
    if (this.chosen.notify) this.notifyOf(entry);
    if (this.chosen.title) {
      this.missed += 1;
      document.title = `(${this.missed > 99 ? "99+" : this.missed}) ${this.words}`;
    }
  }

  #offer() {
    const { chosen } = this;
    if (chosen.notify && globalThis.Notification?.permission !== "granted") chosen.notify = false;
    for (const name of ["sound", "notify", "title"]) {
      this[name].checked = chosen[name];
      this[name].addEventListener("change", () => this.#choose(name, this[name].checked));
    }
    for (const [name, radio] of [["flagged", this.flagged], ["filter", this.filtered]]) {
      radio.checked = chosen.scope === name;
      radio.addEventListener("change", () => radio.checked && this.#choose("scope", name));
    }
    if (!globalThis.Notification) {
      this.notify.disabled = true;
      this.note.textContent = "Notifications need a browser that has them, and an https address.";
    }
  }

  async #choose(name, value) {
    let chosen = value;
    this.note.textContent = "";
    if (name === "notify" && value && (await Notification.requestPermission()) !== "granted") {
      chosen = this.#refuse();
    }
    this.chosen[name] = chosen;
    if (name === "sound" && value) {
      this.#wake();
      this.#sound(); // so that it is known
    }
    if (name === "title" && !value) this.#looked();
    try {
      localStorage.setItem(STORED, JSON.stringify(this.chosen));
    } catch {
      this.note.textContent = "Your browser does not keep this choice.";
    }
  }

  #wake() {
    this.audio ??= new AudioContext();
    if (this.audio.state === "suspended") this.audio.resume();
  }

  /** Two short notes. */
  #sound() {
    if (!this.audio) return;
    const start = this.audio.currentTime;
    for (const [index, pitch] of [659, 880].entries()) {
      const from = start + index * 0.12;
      const note = new OscillatorNode(this.audio, { frequency: pitch });
      const volume = new GainNode(this.audio, { gain: 0 });
      volume.gain.setValueAtTime(0, from);
      volume.gain.linearRampToValueAtTime(0.12, from + 0.01);
      volume.gain.exponentialRampToValueAtTime(0.0001, from + 0.3);
      note.connect(volume).connect(this.audio.destination);
      note.start(from);
      note.stop(from + 0.32);
    }
  }

  /** The browser lets nobody be notified, or no longer. */
  #refuse() {
    this.note.textContent = "Your browser does not allow this page to notify you: allow it beside the address.";
    return (this.notify.checked = false);
  }

  #notify(entries) {
    if (Notification.permission !== "granted") {
      this.chosen.notify = this.#refuse();
      return;
    }
    const [title, body] = [`${this.name}: ${summary(entries)}`, shortened(entries.at(-1).preview, 120)];
    try {
      const notification = new Notification(title, { body, tag: `automoderate ${this.name}`, renotify: true, silent: this.chosen.sound });
      notification.addEventListener("click", () => {
        globalThis.focus();
        notification.close();
      });
    } catch {
      // Phones know notifications of a service worker only.
      this.note.textContent = "This browser cannot notify you from a page.";
    }
  }

  #say(entries) {
    const last = entries.at(-1);
    this.announcer.textContent = entries.length === 1 ? `${summary(entries)}: ${shortened(last.preview, 80)}` : summary(entries);
  }

  #looked() {
    if (document.hidden) return;
    this.missed = 0;
    document.title = this.words;
  }
}

/** "3 new: 2 approved, 1 flagged" */
function summary(entries) {
  const counts = new Map();
  for (const { status } of entries) {
    const name = status === "rule" ? "rule change" : status;
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  if (entries.length === 1) return `New, ${[...counts.keys()][0]}`;
  return `${number(entries.length)} new: ${[...counts].map(([name, count]) => `${count} ${name}`).join(", ")}`;
}
