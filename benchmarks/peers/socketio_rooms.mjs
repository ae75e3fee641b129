// The rules of the rooms on a socket.io server, whatever engine it runs on.

import { setTimeout } from "node:timers/promises";
import { AUTH_GRACE, WELCOME, config, error, identify, refusal, room, then } from "./rules.mjs";

// WebSocket without compression, and long-polling for those who ask for it.
export const OPTIONS = {
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
  pingInterval: config.ping_interval * 1000,
  ...(config.recovery ? { connectionStateRecovery: { maxDisconnectionDuration: 120_000 } } : {}),
};

export function serveRooms(io) {
  io.on("connection", (socket) => {
    const found = identify(socket.handshake.headers.cookie);
    socket.conn.request = null;
    then(found, (userId) => {
      if (userId === null) return refuse(socket);
      socket.on("join_project", ({ project_id }) =>
        then(refusal(userId, project_id), (code) => join(socket, project_id, code)),
      );
      socket.emit("connected", WELCOME);
    });
  });
}

function refuse(socket) {
  socket.emit("error", error("authentication_required"));
  setTimeout(AUTH_GRACE).then(() => socket.disconnect(true));
}

function join(socket, projectId, code) {
  if (code !== null) return socket.emit("error", error(code, { project_id: projectId }));
  socket.join(room(projectId));
  socket.emit("joined_project", { project_id: projectId, room: room(projectId) });
}

// What servers are told that share a Redis.
export async function throughRedis(url) {
  const { createClient } = await import("redis");
  const { createAdapter } = await import("@socket.io/redis-streams-adapter");
  const client = createClient({ url });
  await client.connect();
  return { adapter: createAdapter(client) };
}

export const publishThrough = (io) => (projectId, event, data) => io.to(room(projectId)).emit(event, data);
