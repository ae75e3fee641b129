// The inspector: asks the HTTP API every few seconds, and shows what it says. Everything shown is text, never markup.

import { setText } from "./elements.js";
import { fetchJson } from "./fetching.js";
import { clockTime, moment, number, plain, readTime } from "./text.js";

const PACE = 3000; // milliseconds between two questions
const PAGE = 20;

const main = document.getElementById("main");
const { api, token, loginUrl } = main.dataset;
const find = (id) => document.getElementById(id);

const lists = { rooms: { offset: 0 }, sessions: { offset: 0 } };
let openRoom = null;
let asking = false;
let again = false;
let timer = 0;

// Asking -------------------------------------------------------------------------------------------------------

async function ask(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== "" && value !== null));
  return fetchJson(`${api}/${path}?${query}`);
}

async function act(path, body) {
  const headers = { "Content-Type": "application/json", "X-CSRFToken": token };
  return fetchJson(`${api}/${path}`, { method: "POST", headers, body: JSON.stringify(body ?? {}) });
}

/** Ask for everything that is shown; what was asked for meanwhile is asked as soon as the answers are there. */
async function refresh() {
  clearTimeout(timer);
  again = asking;
  if (asking) return;
  asking = true;
  try {
    const room = openRoom;
    const [status, rooms, sessions, opened] = await Promise.all([
      ask("status"),
      ask("rooms", { search: find("rooms-search").value, sort: find("rooms-sort").value, offset: lists.rooms.offset, limit: PAGE }),
      ask("sessions", { search: find("sessions-search").value, project_id: room, offset: lists.sessions.offset, limit: PAGE }),
      room === null ? null : ask(`rooms/${encodeURIComponent(room)}`),
    ]);
    showStatus(status);
    showRooms(rooms);
    showSessions(sessions);
    if (opened !== null && room === openRoom) showRoom(opened);
    find("updated").textContent = `As of ${clockTime(new Date())}`;
    say("problem", missing(status));
    main.dataset.state = "shown";
  } catch (error) {
    failed(error);
  } finally {
    asking = false;
    if (again) refresh();
    else plan();
  }
}

function plan() {
  clearTimeout(timer);
  if (main.dataset.state !== "out" && !document.hidden) timer = setTimeout(refresh, PACE);
}

function failed(error) {
  if (error.status === 401 || error.status === 403) {
    main.dataset.state = "out";
    say("problem", error.status === 403 ? "You are no administrator any more." : "You are logged out. ");
    if (error.status === 401) find("problem").append(link("Log in", loginUrl));
  } else if (error.status !== 429) { // much is asked at the moment; what is shown says as of when it is
    main.dataset.state = "failing";
    say("problem", error.status ? `${error.message}. Trying again.` : "The server cannot be reached. Trying again.");
  }
}

function missing({ silent, problem }) {
  if (problem) return `The other nodes could not be asked: ${problem}`;
  if (silent.length) return `No answer from ${silent.map(({ node }) => node).join(", ")}.`;
  return "";
}

function say(id, text) {
  const element = find(id);
  setText(element, text);
  element.hidden = text === "";
}

// Showing ------------------------------------------------------------------------------------------------------

/** An element with text or other elements in it. */
function make(name, content = "", className = "") {
  const element = document.createElement(name);
  element.append(...[content].flat());
  if (className) element.className = className;
  return element;
}

function link(text, target) {
  const element = make("a", text);
  element.href = target;
  return element;
}

/** A button of a row. Its label says which row, and is another one in each. */
function button(text, label, act) {
  const element = make("button", text, "button button--quiet button--small");
  element.type = "button";
  element.setAttribute("aria-label", label);
  element.addEventListener("click", act);
  return element;
}

const cell = (content, className = "") => make("td", content, className);
const amount = (value) => cell(value === null || value === undefined ? "–" : number(value), "n");

/** Bytes, as people read them. */
function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  return bytes < 1024 ** 2 ? `${number(Math.round(bytes / 102.4) / 10)} KiB` : `${number(Math.round(bytes / 104857.6) / 10)} MiB`;
}

/** Put rows in place of those that are there. Nothing changes where they say the same, and the focus stays, or goes to the table. */
function fill(id, rows) {
  const body = find(id);
  const fresh = body.cloneNode(false);
  fresh.append(...rows);
  if (fresh.isEqualNode(body)) return;
  const held = body.contains(document.activeElement);
  const focused = held ? document.activeElement.getAttribute("aria-label") : null;
  body.replaceChildren(...rows);
  focus(body, focused);
  if (held && !body.contains(document.activeElement)) body.closest("[tabindex]").focus({ preventScroll: true });
}

/** Give the focus to the button of that label, where there is one. */
function focus(place, text) {
  if (text !== null) [...place.querySelectorAll("button")].find((each) => each.getAttribute("aria-label") === text)?.focus();
}

function showStatus({ nodes, silent }) {
  const rows = nodes.map((node) => make("tr", [
    head(node.node, `${node.runtime ?? (node.attached ? "attached" : "")} ${node.version ?? ""}`),
    amount(node.sessions),
    cell(Object.entries(node.transports).map(([name, count]) => `${number(count)} ${name}`).join(", ") || "–"),
    amount(node.users),
    amount(node.rooms),
    amount(node.deliveries_per_second),
    cell(size(node.waiting_bytes), "n"),
    cell(redis(node.backplane)),
  ]));
  for (const { node, seconds } of silent) {
    const words = seconds === null ? "No answer" : `No answer; its last sign of life was ${number(seconds)} s ago`;
    const told = cell(words, "bad");
    told.colSpan = 7;
    rows.push(make("tr", [head(node, ""), told]));
  }
  fill("nodes", rows);
  showBars("clients", sum(nodes.map(({ clients }) => clients.map(({ client, sessions }) => [client, sessions]))));
  showBars("refusals", sum(nodes.map(({ refusals }) => Object.entries(refusals.codes))));
  showNewest(nodes.flatMap(({ refusals }) => refusals.newest));
}

function head(name, more) {
  const element = make("th", [name, make("span", more, "table__more")]);
  element.scope = "row";
  return element;
}

function redis(backplane) {
  if (backplane.up === undefined) return "None";
  if (!backplane.up) return "Cut off";
  const lag = `${number(Math.round(backplane.lag_seconds * 1000))} ms behind`;
  return backplane.writable ? lag : `${lag}, takes nothing`;
}

/** Pairs of a name and a number, of several nodes: each name once, the largest first. */
function sum(pairs) {
  const totals = new Map();
  for (const [name, count] of pairs.flat()) totals.set(name, (totals.get(name) ?? 0) + count);
  return [...totals].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
}

function showBars(id, pairs) {
  const most = Math.max(1, ...pairs.map(([, count]) => count));
  find(id).replaceChildren(...pairs.slice(0, 10).map(([name, count]) => {
    const meter = document.createElement("meter");
    meter.max = most;
    meter.value = count;
    meter.setAttribute("aria-hidden", "true");
    return make("li", [make("span", name), meter, make("span", number(count), "n")]);
  }));
  find(`${id}-empty`).hidden = pairs.length > 0;
}

function showNewest(refusals) {
  const newest = refusals.sort((a, b) => a.seconds_ago - b.seconds_ago).slice(0, 20);
  find("newest").hidden = newest.length === 0;
  find("newest-list").replaceChildren(...newest.map((each) => make("li", [
    make("strong", each.code), ` ${number(Math.round(each.seconds_ago))} s ago, user ${each.user_id ?? "unknown"} from ${each.address || "a Unix socket"}`,
    each.project_id === null ? "" : `, project ${each.project_id}`,
  ])));
}

function showRooms({ total, rooms }) {
  fill("rooms", rooms.map((room) => make("tr", [
    head(room.project_id, ""), amount(room.members), amount(room.deliveries_per_second),
    cell(button("Open", `Open the room of project ${room.project_id}`, () => open(room.project_id)), "table__act"),
  ])));
  showPlace("rooms", total, rooms.length);
}

function showSessions({ total, sessions }) {
  fill("sessions", sessions.map((session) => {
    const name = session.username ?? "Nobody yet";
    const client = cell([session.client, make("span", session.transport, "table__more")]);
    client.title = session.user_agent;
    const more = session.rooms_total - session.rooms.length;
    const rooms = session.rooms.map(({ project_id, state }) => (state === "joined" ? project_id : `${project_id} (${state})`));
    const actions = [button("End", `End the session ${session.sid} of ${name}`, () => endSession(session))];
    if (session.user_id !== null) actions.push(button("End all", `End all sessions of ${name}, this one (${session.sid}) too`, () => endUser(session)));
    return make("tr", [
      head(name, session.sid), client, cell(session.address || "Unix socket"),
      cell([...rooms, ...(more > 0 ? [`${more} more`] : [])].join(", ") || "–", "table__rooms"),
      cell(size(session.waiting_bytes), "n"), cell(session.node), cell(make("span", actions, "table__actions"), "table__act"),
    ]);
  }));
  showPlace("sessions", total, sessions.length);
}

function showPlace(id, total, shown) {
  const list = lists[id];
  find(`${id}-place`).textContent = shown ? `${number(list.offset + 1)} to ${number(list.offset + shown)} of ${number(total)}` : "None";
  const [before, after] = [find(`${id}-before`), find(`${id}-after`)];
  const held = [before, after].indexOf(document.activeElement);
  before.disabled = list.offset === 0;
  after.disabled = list.offset + PAGE >= Math.min(total, 800);
  if (held >= 0 && [before, after][held].disabled) [after, before][held].focus(); // who goes on by keyboard stays here
}

function showRoom({ nodes, updates }) {
  const members = nodes.map(({ node, sessions }) => `${number(sessions)} on ${node}`).join(", ");
  find("room-members").textContent = `Sessions: ${members}. They are listed below.`;
  find("room-updates").replaceChildren(...updates.toReversed().map(({ event, data }) => {
    const what = plain(data.content_preview ?? data);
    const when = data.timestamp === undefined ? "" : ` ${moment(readTime(data))}`;
    return make("li", [make("strong", plain(data.status ?? event)), `${when} `, make("span", what, "plain-list__text")]);
  }));
  find("room-empty").hidden = updates.length > 0;
}

// Acting -------------------------------------------------------------------------------------------------------

function open(projectId) {
  openRoom = projectId;
  lists.sessions.offset = 0;
  find("room").hidden = projectId === null;
  find("sessions-all").hidden = projectId === null;
  find("sessions-title").textContent = projectId === null ? "Sessions" : `Sessions in the room of ${projectId}`;
  if (projectId !== null) {
    find("room-title").textContent = `Room of project ${projectId}`;
    find("room-title").focus();
  } else {
    find("rooms-search").focus();
  }
  refresh();
}

async function endSession({ sid, username }) {
  const name = username ?? "somebody who is not logged in";
  const text = "Its client is disconnected. A live page comes back by itself while its user is logged in; most other clients do not.";
  if (!(await confirmed(`End a session of ${name}?`, text, "End it"))) return;
  await doing(act(`sessions/${encodeURIComponent(sid)}/end`), () => `The session of ${name} has ended.`);
}

async function endUser({ user_id, username }) {
  const text = "All their clients are disconnected. Who is still logged in may connect again.";
  if (!(await confirmed(`End all sessions of ${username}?`, text, "End all"))) return;
  await doing(act(`users/${encodeURIComponent(user_id)}/end`), ({ sessions }) => (
    `${sessions === 1 ? "One session" : `${number(sessions)} sessions`} of ${username} ended.`
  ));
}

async function doing(action, told) {
  try {
    say("done", told(await action));
  } catch (error) {
    say("done", "");
    if (error.status === 401) failed(error);
    else say("problem", error.status ? error.message : "The server cannot be reached.");
    return;
  }
  refresh();
}

let answer = null; // takes the answer to the question that is asked

function confirmed(title, text, yes) {
  answer?.(false); // the browser tells of a dialog's end later, when the next may be open
  const dialog = find("confirm");
  const asked = document.activeElement?.getAttribute("aria-label") ?? null;
  find("confirm-title").textContent = title;
  find("confirm-text").textContent = text;
  find("confirm-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    answer = (agreed) => {
      answer = null;
      focus(main, asked); // the row may have been made anew meanwhile
      resolve(agreed);
    };
  });
}

find("confirm").addEventListener("close", ({ target }) => {
  if (!target.open) answer?.(target.returnValue === "yes");
});
find("test-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const path = `rooms/${encodeURIComponent(openRoom)}/test-update`;
  doing(act(path, { status: find("test-status").value }), ({ event_id }) => `The test update ${event_id} was published.`);
});
find("room-close").addEventListener("click", () => open(null));
find("sessions-all").addEventListener("click", () => open(null));
find("rooms-sort").addEventListener("change", () => turn("rooms", 0));

function turn(id, offset) {
  lists[id].offset = Math.max(0, offset);
  refresh();
}

for (const id of ["rooms", "sessions"]) {
  find(`${id}-form`).addEventListener("submit", (event) => event.preventDefault());
  find(`${id}-search`).addEventListener("input", () => turn(id, 0));
  find(`${id}-before`).addEventListener("click", () => turn(id, lists[id].offset - PAGE));
  find(`${id}-after`).addEventListener("click", () => turn(id, lists[id].offset + PAGE));
}
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : refresh()));
refresh();
