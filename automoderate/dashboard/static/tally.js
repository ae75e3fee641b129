// The numbers beside the list: how many of each status, what was there before against what came since, and the pace.

import { Columns } from "./columns.js";
import { setText } from "./elements.js";
import { DECIDED, STATUSES } from "./filter.js";
import { counted, number } from "./text.js";

const COLUMNS = 30;
const SPAN = 10_000; // milliseconds per column
const SVG = "http://www.w3.org/2000/svg";

const none = () => Object.fromEntries(STATUSES.map((status) => [status, 0]));
const sum = (counts) => STATUSES.reduce((total, status) => total + counts[status], 0);

function rectangles(svg, statuses, className = "") {
  return statuses.map((status) => {
    const rectangle = document.createElementNS(SVG, "rect");
    rectangle.dataset.status = status;
    if (className) rectangle.setAttribute("class", className);
    svg.append(rectangle);
    return rectangle;
  });
}

function place(rectangle, x, y, width, height) {
  const box = { x, y, width: Math.max(0, width), height: Math.max(0, height) };
  for (const [name, value] of Object.entries(box)) {
    const text = value.toFixed(2);
    if (rectangle.getAttribute(name) !== text) rectangle.setAttribute(name, text);
  }
}

export class Tally {
  /**
   * `elements`: numbers and fresh (status -> element; all that is counted, and how many came since the page was opened),
   * share and shareBefore (svg) with total and totalBefore (their words), pace (svg), rate.
   */
  constructor(elements) {
    Object.assign(this, elements);
    this.opened = Date.now();
    this.since = none();
    this.before = none();
    this.recent = new Columns(COLUMNS, SPAN, () => ({ since: none(), before: none() }));
    this.shareParts = rectangles(this.share, STATUSES);
    this.shareBeforeParts = rectangles(this.shareBefore, STATUSES);
    this.columns = Array.from({ length: COLUMNS }, () => [
      ...rectangles(this.pace, DECIDED, "pace__before"),
      ...rectangles(this.pace, DECIDED),
    ]);
    this.line = document.createElementNS(SVG, "rect");
    this.line.setAttribute("class", "pace__opened");
    this.pace.append(this.line);
    this.scheduled = false;
    this.#schedule();
    setInterval(() => this.#schedule(), SPAN); // the columns move on when nothing arrives, too
  }

  /** One more content. */
  count(entry) {
    this.#add(entry.status, entry.decided ?? entry.time, entry.old);
  }

  /** One that had the status `was` has another now; `old`: it had already when the page was opened. */
  decide(entry, was, old) {
    const counts = entry.old ? this.before : this.since;
    counts[was] = Math.max(0, counts[was] - 1);
    this.#add(entry.status, entry.decided ?? entry.time, old);
  }

  #add(status, time, old) {
    (old ? this.before : this.since)[status] += 1;
    if (status !== "pending") this.recent.at(time.getTime())[old ? "before" : "since"][status] += 1;
    this.#schedule();
  }

  #schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    setTimeout(() => {
      this.scheduled = false;
      this.#draw();
    }, 100);
  }

  #draw() {
    for (const status of STATUSES) {
      setText(this.numbers[status], number(this.since[status] + this.before[status]));
      setText(this.fresh[status], `+${number(this.since[status])}`);
    }
    this.#drawShare(this.share, this.shareParts, this.since);
    this.#drawShare(this.shareBefore, this.shareBeforeParts, this.before);
    setText(this.total, counted(sum(this.since), "update"));
    setText(this.totalBefore, `Last ${number(sum(this.before))} before that`);
    this.totalBefore.parentElement.hidden = sum(this.before) === 0;
    this.#drawPace();
  }

  #drawShare(svg, parts, counts) {
    const total = sum(counts);
    let x = 0;
    STATUSES.forEach((status, index) => {
      const width = total ? (100 * counts[status]) / total : 0;
      place(parts[index], x, 0, width, 1);
      x += width;
    });
    const text = STATUSES.map((status) => `${total ? Math.round((100 * counts[status]) / total) : 0} % ${status}`).join(", ");
    svg.setAttribute("aria-label", total ? text : "No decisions yet");
  }

  #drawPace() {
    const shown = this.recent.all();
    const sums = shown.map(({ since, before }) => sum(since) + sum(before));
    const scale = 56 / Math.max(4, ...sums);
    shown.forEach(({ since, before }, index) => {
      let y = 60;
      [...DECIDED.map((status) => before[status]), ...DECIDED.map((status) => since[status])].forEach((count, part) => {
        y -= count * scale;
        place(this.columns[index][part], index * 10 + 1, y, 8, count * scale);
      });
    });
    const opened = (this.opened / SPAN - this.recent.first) * 10;
    place(this.line, Math.max(0, opened), 0, opened > 0 ? 1 : 0, 60);
    const minute = sums.slice(-6).reduce((total, value) => total + value, 0);
    const all = sums.reduce((total, value) => total + value, 0);
    setText(this.rate, `${number(minute)} in the last minute`);
    this.pace.setAttribute("aria-label", `${counted(all, "decision")} in the last five minutes, ${number(minute)} in the last minute`);
  }
}
