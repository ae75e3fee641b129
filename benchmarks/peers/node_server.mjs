// Node's socket.io: node node_server.mjs [REDIS_URL] CONFIG, after `npm ci` in this folder. With a Redis it shares its rooms
// with others by the Redis streams adapter.
//
// Settings: no compression, ws with its native add-ons where they are installed, and the first HTTP request of a session let
// go, as socket.io's pages on performance and memory advise.

import { createServer } from "node:http";
import { Server } from "socket.io";
import { answerPublication, BACKLOG, config, serveCommands, standBy, then } from "./rules.mjs";
import { OPTIONS, publishThrough, serveRooms, throughRedis } from "./socketio_rooms.mjs";

const redisUrl = process.argv.slice(2, -1)[0];
const http = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const body = () => Buffer.concat(chunks).toString();
    then(answerPublication(request.method, request.url, request.headers["x-api-key"], body, publish), (answer) => {
      const [status, said] = answer ?? [404, {}];
      response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(said));
    });
  });
});
const io = new Server(http, { ...OPTIONS, ...(redisUrl ? await throughRedis(redisUrl) : {}) });
const publish = publishThrough(io);
serveRooms(io);

await standBy();
http.listen({ port: config.port, host: "127.0.0.1", backlog: BACKLOG }, () => serveCommands({ port: http.address().port }, publish));
