// One project among all: its pace, what was flagged in it, and its last decision.

import { setStatus, setText, setTime } from "./elements.js";
import { DECIDED } from "./filter.js";
import { newer } from "./position.js";
import { Pulse } from "./pulse.js";
import { clockTime, fullTime, label, number, plain, readTime } from "./text.js";

const HEIGHT = 40; // of the pace, in units of its viewBox
const MINUTE = 60_000;

const NOTES = {
  retrying: "The server does not answer for this project. It is asked again in a moment.",
  beyond: "Not live on this page. Open it to watch it.",
  denied: "You no longer have access to this project.",
  gone: "This project has been deleted.",
};

const counted = ({ count, more }) => (more ? `${number(count)}+` : number(count));

function ago(date) {
  const passed = Date.now() - date.getTime();
  if (passed < 20_000) return "just now";
  if (passed < MINUTE) return "less than a minute ago";
  if (passed < 60 * MINUTE) return `${Math.floor(passed / MINUTE)} min ago`;
  return passed < 12 * 60 * MINUTE ? clockTime(date) : date.toLocaleDateString();
}

export class Card {
  #pulse = new Pulse();
  #last = null; // the newest decision
  #time = null;

  /** `element` is the project's place in the list; `icons` the address of the icon sprite. */
  constructor(element, icons) {
    this.element = element;
    this.icons = icons;
    this.find = (name) => element.querySelector(`.project__${name}`);
    this.link = element.querySelector("h2 a");
    this.address = this.link.href;
    this.paths = DECIDED.map((status) => element.querySelector(`path[data-status="${status}"]`));
  }

  /** Takes note of one update of a content; says whether it changes what is shown. */
  update(event, data) {
    if (event !== "moderation_update" || !DECIDED.includes(data.status)) return false;
    const time = readTime(data);
    this.#pulse.decided(data.status, time);
    // After a gap older ones are asked for, too, which a live one may have overtaken.
    if (this.#last === null || newer(data.event_id, this.#last.event_id)) {
      this.#last = data;
      this.#time = time;
    }
    return true;
  }

  cut() {
    this.#pulse.cut();
  }

  gap() {
    this.#pulse.gap();
  }

  /** How things stand with this project: one of the states of `Rooms`. */
  become(state) {
    this.element.dataset.state = state;
    const [retry, held] = [this.find("retry"), this.element.contains(document.activeElement)];
    const lost = state === "denied" || state === "gone";
    if (lost) this.link.removeAttribute("href");
    else this.link.href = this.address;
    setText(this.find("note-text"), NOTES[state] ?? "");
    this.find("note").hidden = !(state in NOTES);
    retry.hidden = state !== "denied";
    if (held) (retry.hidden ? this.link : retry).focus({ preventScroll: true }); // whichever of them is left
    this.find("live").hidden = lost || state === "beyond";
  }

  draw() {
    const flagged = this.#pulse.flagged();
    setText(this.find("rate"), counted(this.#pulse.pace()));
    setText(this.find("flagged"), counted(flagged));
    this.find("flagged").dataset.some = String(flagged.count > 0);
    this.#drawPace();
    if (this.#last) this.#drawLast(this.#last, this.#time);
  }

  #drawLast(data, time) {
    const last = this.find("last");
    setStatus(last, data.status, label(data.status), this.icons);
    setText(this.find("preview"), plain(data.content_preview));
    setTime(last, time, ago(time), fullTime(time));
    last.hidden = false;
    this.find("none").hidden = true;
  }

  #drawPace() {
    const columns = this.#pulse.columns();
    const sums = columns.map((column) => DECIDED.reduce((sum, status) => sum + column[status], 0));
    const scale = HEIGHT / Math.max(4, ...sums);
    const bottoms = columns.map(() => HEIGHT);
    DECIDED.forEach((status, part) => {
      const bars = columns.map((column, index) => {
        const height = column[status] * scale;
        if (!height) return "";
        bottoms[index] -= height;
        return `M${index * 10 + 1} ${bottoms[index].toFixed(2)}h8v${height.toFixed(2)}h-8z`;
      });
      this.paths[part].setAttribute("d", bars.join(""));
    });
  }
}
