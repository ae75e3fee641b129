// The live page of one project: what the room says, put where a person sees it.

import { Attention } from "./attention.js";
import { showState } from "./connection.js";
import { Feed } from "./feed.js";
import { STATUSES } from "./filter.js";
import { Find } from "./find.js";
import { readOlder } from "./history.js";
import { Keys } from "./keys.js";
import { closeMenus } from "./menus.js";
import { openRoom } from "./room.js";
import { showStatistics } from "./statistics.js";
import { Store } from "./store.js";
import { Tally } from "./tally.js";
import { clockTime, number } from "./text.js";
import { Watchers } from "./watchers.js";

const byId = (id) => document.getElementById(id);
const byStatus = (name) => Object.fromEntries(STATUSES.map((status) => [status, byId(`${name}-${status}`)]));
const main = byId("main");
const { projectId, projectName, icons, contentUrl, userId } = main.dataset;

// What went wrong, as a person would say it, and what they can do about it.
const PROBLEMS = {
  authentication_required: ["You have been signed out", "Log in again to go on watching this project.", ["login"]],
  project_not_found: ["This project does not exist", "It may have been deleted, or the address is not complete.", ["projects"]],
  access_denied: ["You do not have access to this project", "Only its owner and its members can watch it. Ask the owner to add you, then try again.", ["retry", "projects"]],
  timeout: ["The server took too long to answer", "It may be busy. This page tries again by itself in a moment.", ["retry"]],
  server_error: ["Something went wrong on the server", "This page tries again by itself in a moment.", ["retry"]],
  rate_limited: ["Too many requests", "The server asks this page to slow down. It tries again by itself in a moment.", ["retry"]],
}; // prettier-ignore

function showProblem(problem) {
  const panel = byId("problem");
  if (!problem) {
    // The button that was pressed goes with it.
    if (panel.contains(document.activeElement)) byId("feed-title").focus({ preventScroll: true });
    panel.hidden = true;
    delete panel.dataset.code;
    return;
  }
  const [title, text, actions] = PROBLEMS[problem.code] ?? ["The server refused", problem.message, ["retry", "projects"]];
  panel.dataset.code = problem.code;
  byId("problem-title").textContent = title;
  byId("problem-text").textContent = text;
  for (const action of ["login", "retry", "projects"]) byId(`problem-${action}`).hidden = !actions.includes(action);
  // Back to this view, with the filter that is in the address.
  const login = new URL(main.dataset.loginUrl, location.href);
  login.searchParams.set("next", location.pathname + location.search);
  byId("problem-login").href = login.href;
  panel.hidden = false;
}

const tally = new Tally({
  numbers: byStatus("count"), fresh: byStatus("fresh"), share: byId("share"), shareBefore: byId("share-before"), total: byId("total"),
  totalBefore: byId("total-before"), pace: byId("pace"), rate: byId("pace-rate"),
}); // prettier-ignore
const attention = new Attention(
  {
    sound: byId("alert-sound"), notify: byId("alert-notify"), title: byId("alert-title"), flagged: byId("alert-flagged"),
    filtered: byId("alert-filter"), note: byId("alert-note"), announcer: byId("announcer"),
  },
  projectName,
); // prettier-ignore
const pause = byId("pause");
let paused = false;

/** The button says what it will do. */
function showPause(held) {
  const text = paused ? (held ? `Resume, ${number(held)} new` : "Resume") : "Pause";
  pause.querySelector("use").setAttribute("href", `${icons}#${paused ? "play" : "pause"}`);
  pause.querySelector(".pause__text").textContent = text;
  pause.title = paused ? "Show what came meanwhile, and go on" : "Let new updates wait, so that the list stands still";
}

const feed = new Feed(
  {
    list: byId("feed"), empty: byId("feed-empty"), bar: byId("feed-bar"), showNew: byId("show-new"), template: byId("update-template"),
    title: byId("feed-title"), older: byId("older"), olderText: byId("older-text"), count: byId("feed-count"),
  },
  { icons, contentUrl, projectId },
  {
    store: new Store(),
    tally,
    history: (before) => readOlder(projectId, before),
    listeners: {
      came: (entry) => find.learn(entry),
      arrived: (entry) => attention.arrived(entry),
      looking: (contentId) => room.look(contentId),
      held: showPause,
    },
  },
); // prettier-ignore
const find = new Find(
  {
    counters: byStatus("filter"), search: byId("search"), type: byId("filter-type"), moderator: byId("filter-moderator"),
    rule: byId("filter-rule"), clear: [byId("clear"), byId("empty-clear")], more: byId("filters-text"),
  },
  (filter) => feed.setFilter(filter),
); // prettier-ignore
pause.addEventListener("click", () => {
  paused = !paused;
  feed.pause(paused);
  showPause(0);
});

const watchers = new Watchers({ box: byId("watchers"), list: byId("watchers-list") }, userId, (lookers) => feed.look(lookers));
new Keys(
  { list: byId("feed"), bar: byId("feed-bar"), search: byId("search"), pause, dialog: byId("keys"), open: byId("keys-open"), enabled: byId("keys-enabled") },
  feed,
);

closeMenus(main);

// On a phone the list comes first, and the charts are folded below it.
const wide = matchMedia("(min-width: 60rem)");
const unfold = () => {
  byId("charts").open = wide.matches;
  byId("stats").open = wide.matches;
};
wide.addEventListener("change", unfold);
unfold();

const statistics = { list: byId("stats-list"), empty: byId("stats-empty"), time: byId("stats-time") };
const room = openRoom(projectId, {
  state(name) {
    showState(name);
    if (name === "disconnected") watchers.present([]); // who is there is nothing that this page hears any more
  },
  problem: showProblem,
  opened: (count) => feed.opened(count),
  gap() {
    byId("missed").textContent = `Some updates were missed at ${clockTime(new Date())}.`;
    feed.gap("Some updates were missed here while the connection was away.");
  },
  update(event, data, recent) {
    if (event === "stats_update") showStatistics(statistics, data);
    else feed.arrive(event === "rule_update" ? "rule" : "update", data, recent);
  },
  present: (users) => watchers.present(users),
  changed: (joined, left) => watchers.changed(joined, left),
  looking: (user, contentId) => watchers.looks(user, contentId),
});
byId("problem-retry").addEventListener("click", () => room.retry());
