// The newest stats_update: whatever numbers the pipeline sends.

import { label, moment, plain, readTime } from "./text.js";

const ENTRIES = 24; // shown

/** `elements`: list, empty, time. */
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
    ...rows.slice(0, ENTRIES).map(([name, value]) => {
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
  elements.time.textContent = `as of ${moment(readTime(data))}`;
}
