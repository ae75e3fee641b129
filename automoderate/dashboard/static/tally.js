// The numbers beside the list: how many of each status, their shares, and the pace of the last five minutes.

import { clockTime, label, number, plain, readTime } from "./text.js";

const STATUSES = ["approved", "rejected", "flagged", "pending"];
const DECIDED = ["approved", "rejected", "flagged"];
const COLUMNS = 30;
const SPAN = 10_000; // milliseconds per column
const STATISTICS = 24; // entries of a stats_update shown
const SVG = "http://www.w3.org/2000/svg";

function rectangles(svg, statuses) {
  return statuses.map((status) => {
    const rectangle = document.createElementNS(SVG, "rect");
    rectangle.dataset.status = status;
    svg.append(rectangle);
    return rectangle;
  });
}

function place(rectangle, x, y, width, height) {
  rectangle.setAttribute("x", x.toFixed(3));
  rectangle.setAttribute("y", y.toFixed(3));
  rectangle.setAttribute("width", Math.max(0, width).toFixed(3));
  rectangle.setAttribute("height", Math.max(0, height).toFixed(3));
}

export class Tally {
  /** `elements`: numbers (status -> element), share and pace (svg), rate. */
  constructor(elements) {
    Object.assign(this, elements);
    this.shareParts = rectangles(this.share, STATUSES);
    this.columns = Array.from({ length: COLUMNS }, () => rectangles(this.pace, DECIDED));
    this.scheduled = false;
    this.restart();
    setInterval(() => this.#schedule(), SPAN); // the columns move on when nothing arrives, too
  }

  restart() {
    this.counts = Object.fromEntries(STATUSES.map((status) => [status, 0]));
    this.slots = new Map(); // time / SPAN -> {approved, rejected, flagged}
    this.#schedule();
  }

  /** One more content of this status. */
  count(status, time) {
    this.counts[status] += 1;
    if (status !== "pending") this.#slot(time)[status] += 1;
    this.#schedule();
  }

  /** One that was pending is decided. */
  decide(status, time) {
    this.counts.pending = Math.max(0, this.counts.pending - 1);
    this.count(status, time);
  }

  #slot(time) {
    // A publisher's clock may be ahead of ours: nothing lies in the future.
    const key = Math.floor(Math.min(time.getTime(), Date.now()) / SPAN);
    let slot = this.slots.get(key);
    if (!slot) this.slots.set(key, (slot = { approved: 0, rejected: 0, flagged: 0 }));
    return slot;
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
    for (const status of STATUSES) this.numbers[status].textContent = number(this.counts[status]);
    this.#drawShare();
    this.#drawPace();
  }

  #drawShare() {
    const total = STATUSES.reduce((sum, status) => sum + this.counts[status], 0);
    let x = 0;
    STATUSES.forEach((status, index) => {
      const width = total ? (100 * this.counts[status]) / total : 0;
      place(this.shareParts[index], x, 0, width, 1);
      x += width;
    });
    const text = STATUSES.map((status) => `${total ? Math.round((100 * this.counts[status]) / total) : 0} % ${status}`).join(", ");
    this.share.setAttribute("aria-label", total ? text : "No decisions yet");
  }

  #drawPace() {
    const last = Math.floor(Date.now() / SPAN);
    for (const key of this.slots.keys()) if (key <= last - COLUMNS) this.slots.delete(key);
    const none = { approved: 0, rejected: 0, flagged: 0 };
    const shown = Array.from({ length: COLUMNS }, (_, index) => this.slots.get(last - COLUMNS + 1 + index) ?? none);
    const sums = shown.map((slot) => DECIDED.reduce((sum, status) => sum + slot[status], 0));
    const scale = 58 / Math.max(4, ...sums);
    shown.forEach((slot, index) => {
      let y = 60;
      DECIDED.forEach((status, part) => {
        const height = slot[status] * scale;
        y -= height;
        place(this.columns[index][part], index * 10 + 1, y, 8, height);
      });
    });
    const minute = sums.slice(-6).reduce((sum, value) => sum + value, 0);
    const all = sums.reduce((sum, value) => sum + value, 0);
    this.rate.textContent = `${number(minute)} in the last minute`;
    this.pace.setAttribute("aria-label", `${number(all)} decisions in the last five minutes, ${number(minute)} in the last minute`);
  }
}

/** Shows the newest stats_update: whatever numbers the pipeline sends. `elements`: list, empty, time. */
export function showStatistics(elements, data) {
  const rows = [];
  for (const [key, value] of Object.entries(data)) {
    if (["event_id", "project_id", "timestamp"].includes(key)) continue;
    if (value !== null && typeof value === "object" && !Array.isArray(value)) {
      for (const [inner, part] of Object.entries(value)) rows.push([`${label(key)}: ${label(inner).toLowerCase()}`, part]);
    } else {
      rows.push([label(key), value]);
    }
  }
  elements.list.replaceChildren(
    ...rows.slice(0, STATISTICS).map(([name, value]) => {
      const pair = document.createElement("div");
      const term = document.createElement("dt");
      const description = document.createElement("dd");
      term.textContent = name;
      description.textContent = plain(value);
      pair.append(term, description);
      return pair;
    }),
  );
  elements.empty.hidden = rows.length > 0;
  elements.time.textContent = `as of ${clockTime(readTime(data.timestamp))}`;
}
