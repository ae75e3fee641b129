// The connection to the server: one socket, which comes back by itself until the person is signed out.

import { io } from "./vendor/socket.io.esm.min.js";

/** The events of a room that bring updates. */
export const UPDATES = ["moderation_update", "content_received", "stats_update", "rule_update"];
/** How many kept updates are asked for where nothing is known yet. */
export const RECENT = 100;

const STATES = { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting", disconnected: "Disconnected" };
const RETRY_FIRST = 1500; // milliseconds; doubles with every attempt
const RETRY_LAST = 30_000;

/** Says how the connection is: to people, and to styles and scripts by the page's `data-state`. */
export function showState(name) {
  document.getElementById("main").dataset.state = name;
  document.getElementById("connection-text").textContent = STATES[name];
}

/** A pause before one tries again: longer each time, and no two pages alike. */
export class Backoff {
  #attempts = 0;
  #timer;

  later(action) {
    clearTimeout(this.#timer);
    const delay = Math.min(RETRY_LAST, RETRY_FIRST * 2 ** this.#attempts++) * (0.75 + Math.random() / 2);
    this.#timer = setTimeout(action, delay);
  }

  cancel() {
    clearTimeout(this.#timer);
  }

  /** It worked: the next pause is a short one. */
  reset() {
    this.cancel();
    this.#attempts = 0;
  }
}

/**
 * Makes a connection, which begins with `open()`. The listeners:
 * `up()` whenever there is a session, in which everything has to be joined anew; `down()` whenever there is none any more;
 * `signedOut(error)` once the server knows this person no longer. After that only `open()` begins again.
 * Returns `{ socket, open, close }`.
 */
export function makeConnection(listeners) {
  // Where polling is not served, WebSocket is. WebTransport, which would be tried after both, never is.
  const transports = { transports: ["polling", "websocket"], tryAllTransports: true };
  // A proxy may show all of us below a path of its own, this file included.
  const path = new URL("../socket.io/", import.meta.url).pathname;
  const socket = io({ autoConnect: false, path, ...transports });
  const backoff = new Backoff();
  let welcomed = false; // since the last time the server said that the visitor is not logged in
  let closed = true;

  const again = () => backoff.later(() => socket.connect());

  function open() {
    backoff.cancel();
    closed = false;
    if (socket.connected) listeners.up();
    else socket.connect();
  }

  function close() {
    backoff.cancel();
    closed = true;
    socket.disconnect();
  }

  socket.on("connect", () => listeners.up());

  socket.on("connected", () => {
    welcomed = true;
    backoff.reset();
  });

  socket.on("error", (error) => {
    if (closed || error?.code !== "authentication_required") return;
    if (welcomed) {
      // This person logged out, perhaps on another device: whether our own cookie is still good shows at the door.
      welcomed = false;
      listeners.down();
      socket.disconnect();
      again();
    } else {
      close();
      listeners.signedOut(error);
    }
  });

  socket.on("disconnect", (reason) => {
    if (closed) return;
    listeners.down();
    // Other reasons leave the coming back to the client library.
    if (reason === "io server disconnect") again();
  });

  socket.on("connect_error", () => {
    if (closed) return;
    listeners.down();
    if (!socket.active) again();
  });

  return { socket, open, close };
}
