// The live page of one project: what the room says, put where a person sees it.

import { Feed } from "./feed.js";
import { openRoom } from "./room.js";
import { showStatistics, Tally } from "./tally.js";
import { clockTime } from "./text.js";

const byId = (id) => document.getElementById(id);
const main = byId("main");

const STATES = { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting", disconnected: "Disconnected" };

// What went wrong, as a person would say it, and what they can do about it.
const PROBLEMS = {
  authentication_required: ["You have been signed out", "Log in again to go on watching this project.", ["login"]],
  project_not_found: ["This project does not exist", "It may have been deleted, or the address is not complete.", ["projects"]],
  access_denied: ["You do not have access to this project", "Only its owner and its members can watch it. Ask the owner to add you, then try again.", ["retry", "projects"]],
  timeout: ["The server took too long to answer", "It may be busy. This page tries again by itself in a moment.", ["retry"]],
  server_error: ["Something went wrong on the server", "This page tries again by itself in a moment.", ["retry"]],
  rate_limited: ["Too many requests", "The server asks this page to slow down. It tries again by itself in a moment.", ["retry"]],
}; // prettier-ignore

function showState(name) {
  main.dataset.state = name;
  byId("connection-text").textContent = STATES[name];
}

function showProblem(problem) {
  const panel = byId("problem");
  if (!problem) {
    panel.hidden = true;
    delete panel.dataset.code;
    return;
  }
  const [title, text, actions] = PROBLEMS[problem.code] ?? ["The server refused", problem.message, ["retry", "projects"]];
  panel.dataset.code = problem.code;
  byId("problem-title").textContent = title;
  byId("problem-text").textContent = text;
  for (const action of ["login", "retry", "projects"]) byId(`problem-${action}`).hidden = !actions.includes(action);
  panel.hidden = false;
}

const numbers = Object.fromEntries(["approved", "rejected", "flagged", "pending"].map((status) => [status, byId(`count-${status}`)]));
const tally = new Tally({ numbers, share: byId("share"), pace: byId("pace"), rate: byId("pace-rate") });
const feed = new Feed(
  { list: byId("feed"), empty: byId("feed-empty"), bar: byId("feed-bar"), showNew: byId("show-new"), template: byId("update-template"), title: byId("feed-title") },
  main.dataset.icons,
  tally,
);
const statistics = { list: byId("stats-list"), empty: byId("stats-empty"), time: byId("stats-time") };

const pause = byId("pause");
pause.addEventListener("click", () => {
  const paused = pause.getAttribute("aria-pressed") !== "true";
  pause.setAttribute("aria-pressed", String(paused));
  pause.querySelector("use").setAttribute("href", `${main.dataset.icons}#${paused ? "play" : "pause"}`);
  feed.pause(paused);
});

byId("stats").open = matchMedia("(min-width: 60rem)").matches;

const room = openRoom(main.dataset.projectId, {
  state: showState,
  problem: showProblem,
  gap() {
    tally.restart();
    byId("tally-title").textContent = `Since ${clockTime(new Date())}`;
    feed.restart("Some updates were missed while the connection was away. The list starts again here.");
  },
  update(event, data) {
    if (event === "stats_update") showStatistics(statistics, data);
    else if (event === "rule_update") feed.rule(data);
    else feed.update(data);
  },
});
byId("problem-retry").addEventListener("click", () => room.retry());
