// What both servers on µWebSockets.js need besides: where they listen, and the publishing API.

import uws from "@trufflesuite/uws-js-unofficial";
import { answerPublication, config, serveCommands, then } from "./rules.mjs";

const PORTS = { least: 10_000, most: 32_768 }; // those above are handed out to clients

const REASONS = { 202: "Accepted", 401: "Unauthorized", 403: "Forbidden" };

export function takePublications(app, publish) {
  app.post("/api/projects/:project/events", (response, request) => {
    const [path, key] = [request.getUrl(), request.getHeader("x-api-key")]; // gone when this returns
    const chunks = [];
    let gone = false;
    response.onAborted(() => (gone = true));
    response.onData((chunk, last) => {
      chunks.push(Buffer.from(chunk.slice(0))); // the memory is used again when this returns
      if (!last) return;
      then(answerPublication("POST", path, key, () => Buffer.concat(chunks).toString(), publish), ([status, said]) => {
        if (gone) return;
        response.cork(() => response.writeStatus(`${status} ${REASONS[status]}`).end(JSON.stringify(said)));
      });
    });
  });
}

// Only a port that is named can be listened on again at once by the next server: on port 0 nothing says that it may be.
export function listen(app, publish) {
  const port = config.port || Math.floor(PORTS.least + Math.random() * (PORTS.most - PORTS.least));
  app.listen("127.0.0.1", port, uws.LIBUS_LISTEN_EXCLUSIVE_PORT, (listener) => {
    if (listener) return serveCommands({ port }, publish);
    if (!config.port) return listen(app, publish);
    process.stderr.write(`port ${port} is taken\n`);
    process.exit(1);
  });
}
