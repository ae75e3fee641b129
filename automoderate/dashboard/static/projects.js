// The projects of a person, all live at once: what their rooms say, put where a person sees it.

import { Card } from "./card.js";
import { showState } from "./connection.js";
import { Rooms } from "./rooms.js";
import { number } from "./text.js";

const DRAW = 250; // milliseconds in which what changes is collected
const TICK = 10_000; // what is shown grows old when nothing arrives, too

const byId = (id) => document.getElementById(id);
const main = byId("main");

const cards = new Map();
for (const element of document.querySelectorAll(".project")) {
  cards.set(element.dataset.projectId, new Card(element, main.dataset.icons));
}

const changed = new Set(); // cards to be drawn
let scheduled = false;

function draw() {
  scheduled = false;
  if (document.hidden) return; // all are drawn once somebody looks
  for (const card of changed) card.draw();
  changed.clear();
}

function schedule(...some) {
  for (const card of some) changed.add(card);
  if (scheduled || document.hidden) return;
  scheduled = true;
  setTimeout(draw, DRAW);
}

setInterval(() => schedule(...cards.values()), TICK);
document.addEventListener("visibilitychange", () => schedule(...cards.values()));

function showBeyond() {
  const states = [...cards.values()].map((card) => card.element.dataset.state);
  const followed = states.filter((state) => state === "live" || state === "waiting" || state === "retrying").length;
  byId("beyond").hidden = !states.includes("beyond");
  byId("beyond-text").textContent =
    `${number(followed)} of your projects are live here, and one page may follow no more. Open any other to watch it.`;
}

const rooms = new Rooms(cards.keys(), {
  state(name) {
    showState(name);
    byId("problem").hidden = name !== "disconnected";
  },
  room(id, state) {
    const card = cards.get(id);
    card.become(state);
    schedule(card);
    showBeyond();
  },
  update(id, event, data) {
    const card = cards.get(id);
    if (card.update(event, data)) schedule(card);
  },
  cut(id) {
    cards.get(id).cut();
  },
  gap(id) {
    cards.get(id).gap();
  },
});

byId("projects").addEventListener("click", (event) => {
  const button = event.target.closest(".project__retry");
  if (button) rooms.retry(button.closest(".project").dataset.projectId);
});
