// Bun by hand: bun bun_raw.mjs CONFIG. WebSocket alone, a topic for each room (`server.publish` is µWebSockets underneath), and
// no more of Socket.IO than these clients use.

import { takePublication } from "./bun_http.mjs";
import { hear, message, open } from "./raw_session.mjs";
import { config, identify, room, serveCommands, standBy, then } from "./rules.mjs";

const publish = (projectId, event, data) => server.publish(room(projectId), message(event, data));
await standBy();
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: config.port,
  fetch(request) {
    if (!request.headers.has("upgrade")) return takePublication(request, publish);
    return then(identify(request.headers.get("cookie")), (userId) => {
      if (!server.upgrade(request, { data: { userId } })) return new Response(null, { status: 400 });
    });
  },
  websocket: {
    idleTimeout: 0,
    maxPayloadLength: 1_000_000,
    open,
    message: (socket, text) => hear(socket, socket.data.userId, text),
  },
});
serveCommands({ port: server.port }, publish);
