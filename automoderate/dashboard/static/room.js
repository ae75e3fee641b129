// The conversation with the server about one project's room: joining, coming back, catching up, and what went wrong.

import { io } from "./vendor/socket.io.esm.min.js";

const SEEN_LIMIT = 2000; // event ids remembered to recognise an update that arrives twice
const RETRY_FIRST = 1500; // milliseconds; doubles with every attempt
const RETRY_LAST = 30_000;
const UPDATES = ["moderation_update", "content_received", "stats_update", "rule_update"];
// After these the server would only say the same again until a person changes something.
const FINAL = new Set(["authentication_required", "project_not_found", "access_denied", "invalid_project_id", "project_id_required", "room_limit"]);

/** Is event id `a` newer than `b`? Ids are "milliseconds-sequence", too large together for one number. */
function newer(a, b) {
  const [aTime, aSequence] = a.split("-").map(Number);
  const [bTime, bSequence] = b.split("-").map(Number);
  return aTime === bTime ? aSequence > bSequence : aTime > bTime;
}

/**
 * Joins a project's room and stays in it. The listeners:
 * `state(name)` with "connecting", "live", "reconnecting" or "disconnected";
 * `update(event, data)` once per update; `gap()` where updates were missed for good;
 * `problem(error)` with {code, message, final}, or null once it is over.
 * Returns `{ retry }`, which tries again at once.
 */
export function openRoom(projectId, listeners) {
  // Where polling is not served, WebSocket is. WebTransport, which would be tried after both, never is.
  const socket = io({ autoConnect: false, transports: ["polling", "websocket"], tryAllTransports: true });
  const seen = new Set();
  let position = null; // the newest event id of this project that we know of
  let wasLive = false;
  let welcomed = false; // since the last time the server said that nobody is logged in
  let stopped = false; // by a final problem
  let attempts = 0;
  let timer;

  const waiting = () => (wasLive ? "reconnecting" : "connecting");

  function later(action) {
    clearTimeout(timer);
    const delay = Math.min(RETRY_LAST, RETRY_FIRST * 2 ** attempts++) * (0.75 + Math.random() / 2);
    timer = setTimeout(action, delay);
  }

  function join() {
    clearTimeout(timer);
    socket.emit("join_project", position === null ? { project_id: projectId } : { project_id: projectId, last_event_id: position });
  }

  function remember(id) {
    seen.add(id);
    if (seen.size > SEEN_LIMIT) seen.delete(seen.values().next().value);
    if (position === null || newer(id, position)) position = id;
  }

  function receive(event, data) {
    if (data === null || typeof data !== "object") return;
    if (typeof data.event_id === "string") {
      if (seen.has(data.event_id)) return;
      remember(data.event_id);
    }
    listeners.update(event, data);
  }

  function joined(answer) {
    if (answer?.project_id !== projectId) return;
    if (answer.recovered === false) {
      // The history starts anew: ids from before say nothing about what is new now.
      seen.clear();
      position = null;
      listeners.gap();
    }
    if (typeof answer.last_event_id === "string" && (position === null || newer(answer.last_event_id, position))) {
      position = answer.last_event_id;
    }
    attempts = 0;
    wasLive = true;
    listeners.problem(null);
    listeners.state("live");
  }

  function failed(error) {
    if (stopped || (error?.project_id !== undefined && error.project_id !== projectId)) return;
    const code = String(error?.code ?? "unknown");
    if (code === "authentication_required" && welcomed) {
      // This person logged out, perhaps on another device: whether our own cookie is still good shows at the door.
      welcomed = false;
      listeners.state(waiting());
      socket.disconnect();
      later(() => socket.connect());
      return;
    }
    const final = FINAL.has(code);
    listeners.problem({ code, message: String(error?.message ?? ""), final });
    if (final) {
      stopped = true;
      clearTimeout(timer);
      listeners.state("disconnected");
      socket.disconnect();
    } else {
      listeners.state(waiting());
      later(() => (socket.connected ? join() : socket.connect()));
    }
  }

  socket.on("connect", join);
  socket.on("connected", () => (welcomed = true));
  socket.on("joined_project", joined);
  socket.on("error", failed);
  for (const event of UPDATES) socket.on(event, (data) => receive(event, data));

  socket.on("disconnect", (reason) => {
    if (stopped) return;
    listeners.state(waiting());
    // Other reasons leave the coming back to the client library.
    if (reason === "io server disconnect") later(() => socket.connect());
  });

  socket.on("connect_error", () => {
    if (stopped) return;
    listeners.state(waiting());
    if (!socket.active) later(() => socket.connect());
  });

  listeners.state("connecting");
  socket.connect();

  return {
    retry() {
      clearTimeout(timer);
      stopped = false;
      listeners.problem(null);
      listeners.state(waiting());
      if (socket.connected) join();
      else socket.connect();
    },
  };
}
