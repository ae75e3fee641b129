// Drives one socket.io-client as a test tells it: one JSON command a line in, one JSON event a line out.
//
//   node driver.mjs MODULE URL OPTIONS
//
// MODULE is the package to import, OPTIONS the client's options as JSON.

import { createInterface } from "node:readline";

const [module, url, options] = process.argv.slice(2);
const { io } = await import(module);

const report = (event, ...args) => process.stdout.write(JSON.stringify([event, ...args]) + "\n");

const socket = io(url, { forceNew: true, autoConnect: false, ...JSON.parse(options) });

socket.onAny((event, ...args) => report(event, ...args));
socket.on("connect", () => {
  const { engine } = socket.io;
  report("connect", engine.transport.name);
  engine.once("upgrade", (transport) => report("upgrade", transport.name));
});
socket.on("disconnect", (reason) => report("disconnect", reason));
socket.on("connect_error", (error) => report("connect_error", error.message));

const commands = {
  connect: () => socket.connect(),
  emit: ({ event, data }) => socket.emit(event, data),
  // In one go, as a program does that enters all its rooms when it has connected.
  emitAll: ({ event, all }) => all.forEach((data) => socket.emit(event, data, () => {})),
  call: ({ event, data, number }) => socket.emit(event, data, (answer) => report("ack", number, answer)),
  disconnect: () => socket.disconnect(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  commands[command.do](command);
}
process.exit(0);
