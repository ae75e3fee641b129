// Socket.IO by hand, for servers that give us a WebSocket and topics and nothing else: as much of it as these sessions use.
//
// A socket is anything with `send(text)`, `end()` and `subscribe(topic)`, of one session.

import { randomUUID } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import { AUTH_GRACE, PING_TIMEOUT, WELCOME, config, error, refusal, room, then } from "./rules.mjs";

const OPEN = { upgrades: [], pingInterval: config.ping_interval * 1000, pingTimeout: PING_TIMEOUT, maxPayload: 1_000_000 };

export const message = (event, data) => `42${JSON.stringify([event, data])}`;

export const open = (socket) => socket.send(`0${JSON.stringify({ sid: randomUUID(), ...OPEN })}`);

// What a client said, whose user is `userId`, or null where nobody is logged in.
export function hear(socket, userId, text) {
  if (text === "40") {
    socket.send(`40${JSON.stringify({ sid: randomUUID() })}`);
    if (userId !== null) return socket.send(message("connected", WELCOME));
    socket.send(message("error", error("authentication_required")));
    setTimeout(AUTH_GRACE).then(() => socket.end());
  } else if (text.startsWith('42["join_project"') && userId !== null) {
    const projectId = JSON.parse(text.slice(2))[1].project_id;
    then(refusal(userId, projectId), (code) => {
      if (code !== null) return socket.send(message("error", error(code, { project_id: projectId })));
      socket.subscribe(room(projectId));
      socket.send(message("joined_project", { project_id: projectId, room: room(projectId) }));
    });
  }
}
