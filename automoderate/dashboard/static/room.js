// The conversation with the server about one project's room: joining, coming back, catching up, and what went wrong.

import { Backoff, makeConnection, RECENT, UPDATES } from "./connection.js";
import { Position } from "./position.js";

// After these the server would only say the same again until a person changes something.
const FINAL = new Set(["project_not_found", "access_denied", "invalid_project_id", "project_id_required", "room_limit"]);
// Said of what a person looks at, which may be no more, or not yet again.
const OF_LOOKING = new Set(["presence_required", "invalid_content_id"]);
const LOOK_PAUSE = 1000; // milliseconds between two things that the server is told this person looks at

/**
 * Joins a project's room and stays in it. The listeners:
 * `state(name)` with "connecting", "live", "reconnecting" or "disconnected";
 * `update(event, data, recent)` once per update, `recent` for those from before the page was opened;
 * `opened(count)` once these are there; `gap()` where updates were missed for good;
 * `present(users)`, `changed(joined, left)` and `looking(userId, contentId)` as people come, go and look;
 * `problem(error)` with {code, message}, or null once it is over.
 * Returns `{ retry, look }`: try again at once; tell the others which content is open here, or null.
 */
export function openRoom(projectId, listeners) {
  const connection = makeConnection({ up: join, down: () => listeners.state(waiting()), signedOut: stop });
  const { socket } = connection;
  const backoff = new Backoff();
  const position = new Position();
  let wasLive = false;
  let isLive = false;
  let recent = 0; // updates that came before the first answer
  let looked = null;
  let told = null;
  let pausing = false;

  const waiting = () => (wasLive ? "reconnecting" : "connecting");

  function join() {
    backoff.cancel();
    isLive = false;
    told = null;
    socket.emit("join_project", { project_id: projectId, presence: true, ...position.request({ recent: RECENT }) });
  }

  function receive(event, data) {
    if (data === null || typeof data !== "object" || !position.take(data.event_id)) return;
    if (!wasLive) recent += 1;
    listeners.update(event, data, !wasLive);
  }

  function joined(answer) {
    if (answer?.project_id !== projectId) return;
    if (!position.joined(answer)) {
      listeners.gap();
      // What is kept of what was missed, on top of what is there.
      socket.emit("join_project", { project_id: projectId, presence: true, recent: RECENT });
    }
    if (!wasLive) listeners.opened(recent);
    backoff.reset();
    wasLive = true;
    isLive = true;
    listeners.problem(null);
    listeners.state("live");
    tellLook();
  }

  function failed(error) {
    const code = String(error?.code ?? "unknown");
    if (code === "authentication_required" || OF_LOOKING.has(code)) return; // the first is the connection's business
    if (error?.project_id !== undefined && error.project_id !== projectId) return;
    if (FINAL.has(code)) {
      connection.close();
      stop(error);
    } else {
      listeners.problem({ code, message: String(error?.message ?? "") });
      listeners.state(waiting());
      backoff.later(() => socket.connected && join());
    }
  }

  function stop(error) {
    backoff.cancel();
    isLive = false;
    listeners.problem({ code: error.code, message: String(error.message ?? "") });
    listeners.state("disconnected");
  }

  // However fast somebody goes through the list, the server hears of it at a pace that it allows.
  function tellLook() {
    if (!isLive || pausing || looked === told) return;
    told = looked;
    socket.emit("looking_at", { project_id: projectId, content_id: looked });
    pausing = true;
    setTimeout(() => {
      pausing = false;
      tellLook();
    }, LOOK_PAUSE);
  }

  socket.on("joined_project", joined);
  socket.on("error", failed);
  socket.on("disconnect", () => (isLive = false));
  for (const event of UPDATES) socket.on(event, (data) => receive(event, data));
  const mine = (data) => data !== null && typeof data === "object" && data.project_id === projectId;
  socket.on("presence_state", (data) => mine(data) && listeners.present(data.users));
  socket.on("presence_change", (data) => mine(data) && listeners.changed(data.joined, data.left));
  socket.on("presence_looking", (data) => mine(data) && listeners.looking(data.user_id, data.content_id));

  listeners.state("connecting");
  connection.open();

  return {
    retry() {
      backoff.cancel();
      listeners.problem(null);
      listeners.state(waiting());
      connection.open();
    },
    look(contentId) {
      looked = typeof contentId === "string" && contentId !== "" && contentId.length <= 100 ? contentId : null;
      tellLook();
    },
  };
}
