// The conversation with the server about many projects over one connection: who is joined when, and what comes of it.

import { Backoff, makeConnection, RECENT, UPDATES } from "./connection.js";
import { Position } from "./position.js";

const TOGETHER = 4; // joins under way at once: what is kept must not flood a slow connection
const ALLOWANCE = 90; // joins in a minute, of the 100 events that a server takes unless told otherwise
const MINUTE = 60_000;

/**
 * Joins the rooms of projects and stays in them. The listeners:
 * `state(name)` of the connection: "connecting", "live", "reconnecting", or "disconnected" where the person is signed out;
 * `room(id, state)` of one project: "waiting", "live", "retrying", "denied", "gone", or "beyond" the server's limit of rooms;
 * `update(id, event, data)` once per update of a content;
 * `cut(id)` where more is kept than was asked for; `gap(id)` where updates were missed for good.
 */
export class Rooms {
  #rooms = new Map(); // project id -> room
  #queue = []; // rooms to be joined, in this order
  #underWay = new Set(); // rooms whose join has no answer yet
  #sent = []; // when the joins of the last minute were sent, in this session
  #allowance = ALLOWANCE;
  #strays = 0; // updates since the last answer that do not say of which project they are
  #wasLive = false;
  #timer;
  #listeners;
  #connection;

  constructor(ids, listeners) {
    this.#listeners = listeners;
    for (const id of ids) {
      const room = { id, state: "waiting", member: false, gap: false, asked: 0, told: 0 };
      this.#rooms.set(id, Object.assign(room, { position: new Position(), backoff: new Backoff() }));
    }
    this.#connection = makeConnection({ up: () => this.#up(), down: () => this.#down(), signedOut: () => this.#signedOut() });
    const { socket } = this.#connection;
    socket.on("joined_project", (answer) => this.#joined(answer));
    socket.on("error", (error) => this.#failed(error));
    for (const event of UPDATES) socket.on(event, (data) => this.#receive(event, data));
    listeners.state("connecting");
    this.#connection.open();
  }

  /** Asks once more for a room that was refused. */
  retry(id) {
    const room = this.#rooms.get(id);
    this.#become(room, "waiting");
    this.#enqueue(room);
    this.#pump();
  }

  #up() {
    const wanted = [...this.#rooms.values()].filter(({ state }) => state !== "gone" && state !== "denied");
    // The places are given to the rooms that had them before.
    this.#queue = wanted.sort((a, b) => (a.state === "beyond") - (b.state === "beyond"));
    this.#pump();
  }

  #down() {
    // Limits are counted for each session, and what was under way has no answer any more.
    clearTimeout(this.#timer);
    this.#queue = [];
    this.#underWay.clear();
    this.#sent = [];
    for (const room of this.#rooms.values()) {
      room.member = false;
      room.backoff.cancel();
    }
    this.#listeners.state(this.#wasLive ? "reconnecting" : "connecting");
  }

  #signedOut() {
    this.#down();
    this.#listeners.state("disconnected");
  }

  #enqueue(room) {
    if (!this.#queue.includes(room)) this.#queue.push(room);
  }

  #pump() {
    clearTimeout(this.#timer);
    if (!this.#connection.socket.connected) return;
    const now = Date.now();
    this.#sent = this.#sent.filter((time) => time > now - MINUTE);
    let free = now;
    while (this.#queue.length && this.#underWay.size < TOGETHER) {
      if (this.#sent.length >= this.#allowance) free = this.#sent[0] + MINUTE;
      if (free > now) break;
      this.#sent.push(now);
      this.#join(this.#queue.shift());
    }
    if (free > now) this.#timer = setTimeout(() => this.#pump(), free - now);
    if (this.#underWay.size || (this.#queue.length && free <= now)) return;
    this.#wasLive = true;
    this.#listeners.state("live");
  }

  #join(room) {
    const recent = { recent: RECENT };
    // After a gap there is a position, but of what the history holds since then nothing is known.
    const request = room.gap ? recent : room.position.request(recent);
    room.asked = request.recent ?? 0;
    room.told = 0;
    this.#underWay.add(room);
    this.#connection.socket.emit("join_project", { project_id: room.id, ...request });
  }

  #joined(answer) {
    const room = this.#rooms.get(answer?.project_id);
    if (!room) return;
    const whole = room.position.joined(answer);
    const cut = room.asked > 0 && room.told + this.#strays >= room.asked;
    this.#strays = 0;
    room.backoff.reset();
    room.member = true;
    room.gap = !whole;
    this.#become(room, "live");
    if (cut) this.#listeners.cut(room.id);
    if (room.gap) {
      this.#listeners.gap(room.id);
      this.#enqueue(room);
    }
    this.#answered(room);
  }

  #receive(event, data) {
    const room = this.#rooms.get(data?.project_id);
    if (room) {
      room.told += 1;
      if (room.position.take(data.event_id)) this.#listeners.update(room.id, event, data);
    } else {
      this.#strays += 1; // statistics and changes of rules need not name their project
    }
  }

  #failed(error) {
    const room = this.#rooms.get(error?.project_id);
    const code = error?.code;
    if (!room || code === "authentication_required") return; // the connection sees to it
    if (code === "rate_limited") {
      // This server takes less: from now on no more in a minute than it has answered.
      this.#allowance = Math.max(1, this.#sent.length - this.#underWay.size);
      this.#queue.unshift(room);
    } else if (code === "room_limit") {
      this.#full(room);
    } else if (code === "project_not_found" || code === "invalid_project_id") {
      this.#lost(room, "gone");
    } else if (code === "access_denied" && this.#underWay.has(room)) {
      this.#lost(room, "denied");
    } else if (code === "access_denied") {
      this.#become(room, "waiting");
      this.#enqueue(room); // was it deleted, or this person removed? The answer to a join says so
    } else {
      this.#become(room, "retrying");
      room.backoff.later(() => {
        this.#enqueue(room);
        this.#pump();
      });
    }
    this.#answered(room);
  }

  /** There is no place for this room, nor for those that wait behind it. */
  #full(room) {
    const others = this.#queue.filter((other) => !other.member);
    this.#queue = this.#queue.filter((other) => other.member);
    for (const other of [room, ...others]) this.#become(other, "beyond");
  }

  /** Another may have the place of this room. */
  #lost(room, state) {
    room.member = false;
    this.#become(room, state);
    const asked = (other) => this.#underWay.has(other) || this.#queue.includes(other);
    const next = [...this.#rooms.values()].find((other) => other.state === "beyond" && !asked(other));
    if (next) this.#enqueue(next);
  }

  #become(room, state) {
    if (room.state === state) return;
    room.state = state;
    this.#listeners.room(room.id, state);
  }

  #answered(room) {
    this.#underWay.delete(room);
    this.#pump();
  }
}
