// Publishes as a process does that has a socket.io server without clients, by the Redis streams adapter:
// node redis_streams.mjs CONFIG REDIS_URL RECEIPTS, as benchmarks/publisher.py has it.

import { createReadStream } from "node:fs";
import { Server } from "socket.io";
import { serveCommands } from "./rules.mjs";
import { publishThrough, throughRedis } from "./socketio_rooms.mjs";

const FEWEST = 2; // updates under way
const [, url, receipts] = process.argv.slice(2);
const io = new Server(await throughRedis(url));

let underWay = 0;
let wake = () => {};
createReadStream(null, { fd: Number(receipts) })
  .on("data", (chunk) => {
    underWay = Math.max(0, underWay - chunk.length);
    wake();
  })
  .on("end", () => process.exit(1)); // the load generator has ended

// Wait until so many updates more may be under way.
async function received(size, rooms, first) {
  if (first) underWay = 0;
  while (underWay > 0 && underWay + size > Math.max(FEWEST, rooms)) await new Promise((resolve) => (wake = resolve));
  underWay += size;
}

await serveCommands({ ready: true }, publishThrough(io), received);
