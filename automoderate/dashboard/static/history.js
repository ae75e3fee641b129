// Older updates, in pages, over HTTP.

import { fetchJson } from "./fetching.js";

const PAGE = 100;

/** The newest events that came before an event id (null: the newest of all), oldest first; none where none are kept. */
export async function readOlder(projectId, before) {
  // Beside the pages, below whatever path a proxy shows us.
  const address = new URL(`../api/projects/${encodeURIComponent(projectId)}/events`, import.meta.url);
  address.searchParams.set("limit", String(PAGE));
  if (before !== null) address.searchParams.set("before", before);
  const { events } = await fetchJson(address);
  return events.filter(({ data }) => data !== null && typeof data === "object");
}
