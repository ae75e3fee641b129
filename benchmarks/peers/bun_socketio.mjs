// socket.io on Bun's engine for it: bun bun_socketio.mjs CONFIG.

import { Server as Engine } from "@socket.io/bun-engine";
import { Server } from "socket.io";
import { takePublication } from "./bun_http.mjs";
import { config, serveCommands, standBy } from "./rules.mjs";
import { OPTIONS, publishThrough, serveRooms } from "./socketio_rooms.mjs";

const io = new Server(OPTIONS);
const engine = new Engine({ path: "/socket.io/", pingInterval: OPTIONS.pingInterval });
const publish = publishThrough(io);
io.bind(engine);
serveRooms(io);

const { fetch, ...handler } = engine.handler();
await standBy();
const server = Bun.serve({
  ...handler,
  idleTimeout: 255, // seconds, the most that there is: the engine would ask for more than its pings are apart
  hostname: "127.0.0.1",
  port: config.port,
  fetch: (request, server) => (request.url.includes("/socket.io/") ? fetch(request, server) : takePublication(request, publish)),
});
serveCommands({ port: server.port }, publish);
