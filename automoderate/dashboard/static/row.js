// One row of the list: how an entry looks, and what it says once it is opened.

import { setStatus, setText, setTime } from "./elements.js";
import { anchor, contentLink, jsonNodes, webLink } from "./links.js";
import { duration, exact, fullTime, initials, label, moment, plain } from "./text.js";

const BADGES = { approved: "Approved", rejected: "Rejected", flagged: "Flagged", pending: "Pending", rule: "Rule change" };
const COPIED = 2000; // milliseconds that a button says so

function make(name, className, text = "") {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  return element;
}

/** A person, as a circle with initials whose colour is always theirs. */
export function avatar(person) {
  const circle = make("span", "face", initials(person.username));
  circle.dataset.colour = String([...person.user_id].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 6, 0));
  circle.title = person.username;
  circle.setAttribute("aria-hidden", "true"); // the name stands beside it
  return circle;
}

/** Puts a text on the clipboard; where a page may not, as over plain HTTP, the old way. */
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const focused = document.activeElement;
  const field = document.createElement("textarea");
  field.className = "visually-hidden";
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  focused?.focus({ preventScroll: true }); // which the field took
  if (!done) throw new Error("The browser has not copied it.");
}

export class Rows {
  /** `template` is the element of a row, `icons` the address of the icon sprite, `contentUrl` the operator's template. */
  constructor({ template, icons, contentUrl, projectId }) {
    Object.assign(this, { template, icons, contentUrl, projectId });
  }

  /** `lookers`: the others who have this content open. */
  build(entry, lookers) {
    const row = this.template.content.firstElementChild.cloneNode(true);
    entry.row = row;
    row.entry = entry;
    row.classList.toggle("update--fresh", entry.fresh);
    entry.fresh = false;
    this.render(entry, lookers);
    return row;
  }

  /** A line that says what is missing between two rows, with a way to it. */
  buildMark(mark) {
    const row = make("li", "feed__mark");
    row.tabIndex = -1; // it takes the focus over from its button
    const button = make("button", "button button--quiet feed__fill", "Load what is kept");
    button.type = "button";
    row.append(make("span", "feed__mark-text"), button);
    mark.row = row;
    row.entry = mark;
    this.renderMark(mark);
    return row;
  }

  renderMark({ row, text, exhausted }) {
    setText(row.querySelector(".feed__mark-text"), text);
    const button = row.querySelector("button");
    if (!exhausted || !button) return;
    if (button === document.activeElement) row.focus({ preventScroll: true });
    button.remove();
  }

  render(entry, lookers) {
    const { row, data, kind, status, time, decided } = entry;
    setStatus(row, status, BADGES[status], this.icons);
    if (entry.contentId) row.dataset.contentId = entry.contentId;
    this.#preview(entry);
    const name = kind === "rule" ? "Moderation rules" : plain(data.moderator_name ?? "Unknown");
    setText(row.querySelector(".update__who"), kind !== "rule" && entry.rule ? `${name}: ${entry.rule}` : name);
    setText(row.querySelector(".update__what"), entry.type ? label(entry.type) : "");
    setText(row.querySelector(".update__took"), status === "pending" ? "" : duration(data.processing_time));
    setText(row.querySelector(".update__author"), entry.author ? `by ${entry.author}` : "");
    // The time shown stays that of arrival, which is what the list is ordered by.
    const title = decided ? `Received ${fullTime(time)}, decided ${fullTime(decided)}` : fullTime(time);
    setTime(row, time, moment(time), title);
    this.renderLookers(entry, lookers);
    if (!row.querySelector(".update__details").hidden) this.#detail(entry);
  }

  renderLookers({ row }, lookers) {
    const line = row.querySelector(".update__lookers");
    line.hidden = lookers.length === 0;
    if (line.hidden && !line.firstChild) return;
    const words = make("span", "");
    // A name may have letters that run the other way, which turn nothing around it that way.
    for (const { username } of lookers) words.append(words.firstChild ? ", " : "", make("bdi", "", username));
    words.append(` ${lookers.length === 1 ? "is" : "are"} looking at this`);
    line.replaceChildren(...lookers.map(avatar), ...(lookers.length ? [words] : []));
  }

  /** Opens or closes a row; returns whether it is open. */
  toggle(row) {
    const details = row.querySelector(".update__details");
    const open = details.hidden;
    if (open) this.#detail(row.entry);
    details.hidden = !open;
    row.querySelector(".update__more").setAttribute("aria-expanded", String(open));
    return open;
  }

  #preview({ row, contentId, preview }) {
    const shown = row.querySelector(".update__preview");
    const address = contentLink(this.contentUrl, contentId, this.projectId);
    if (address === null) return setText(shown, preview);
    const link = shown.querySelector("a") ?? document.createElement("a");
    link.href = address;
    setText(link, preview);
    if (!link.parentNode) shown.replaceChildren(link);
  }

  #facts({ kind, contentId, data, author }) {
    if (kind === "rule") return [["Rule", data.rule ?? data.rule_data], ["Event", data.event_id]];
    const meta = data.meta_data;
    const parts = meta !== null && typeof meta === "object" && !Array.isArray(meta) ? Object.entries(meta) : [["Meta data", meta]];
    return [
      ["Content", contentId || data.content_id], ["Author", author], ["Type", data.content_type], ["Moderator", data.moderator_type],
      ["Rule", data.rule_name], ["Results", data.results_count], ["Event", data.event_id],
      ...parts.filter(([, value]) => author === "" || value !== author).map(([key, value]) => [label(key), value]),
    ]; // prettier-ignore
  }

  #detail(entry) {
    const list = document.createElement("dl");
    for (const [name, value] of this.#facts(entry)) {
      const structured = typeof value === "object" && value !== null;
      if (value === undefined || value === null || value === "" || (structured && !Object.keys(value).length)) continue;
      const description = document.createElement("dd");
      const address = webLink(value);
      if (structured) {
        const text = document.createElement("pre");
        text.append(...jsonNodes(value));
        description.append(text);
      } else {
        description.append(address ? anchor(address, value) : make("span", "", exact(value)));
      }
      if (name === "Content" && value === entry.contentId) description.append(this.#copyButton(value));
      list.append(make("dt", "", name), description);
    }
    const details = entry.row.querySelector(".update__details");
    const focused = details.contains(document.activeElement) ? document.activeElement.textContent : null;
    details.replaceChildren(list);
    const address = contentLink(this.contentUrl, entry.contentId, this.projectId);
    if (address) {
      const link = make("a", "button button--quiet", "Go to the content");
      link.href = address;
      details.append(link);
    }
    if (focused === null) return;
    // A decision has come while somebody went through the details by keyboard.
    const same = [...details.querySelectorAll("a, button")].find((each) => each.textContent === focused);
    (same ?? entry.row.querySelector(".update__more")).focus({ preventScroll: true });
  }

  #copyButton(text) {
    const button = make("button", "copy", "Copy");
    button.type = "button";
    button.setAttribute("aria-label", "Copy the id");
    button.addEventListener("click", async () => {
      const done = await copy(text).then(() => "Copied", () => "Not allowed");
      button.textContent = done;
      button.setAttribute("aria-label", done);
      setTimeout(() => {
        button.textContent = "Copy";
        button.setAttribute("aria-label", "Copy the id");
      }, COPIED);
    });
    return button;
  }
}
