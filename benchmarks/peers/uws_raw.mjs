// µWebSockets.js by hand: node uws_raw.mjs CONFIG. WebSocket alone, a topic for each room, and no more of Socket.IO than
// these clients use.

import uws from "@trufflesuite/uws-js-unofficial";
import { identify, room, standBy, then } from "./rules.mjs";
import { hear, message, open } from "./raw_session.mjs";
import { listen, takePublications } from "./uws_http.mjs";

const app = uws.App();
const publish = (projectId, event, data) => app.publish(room(projectId), message(event, data));
takePublications(app, publish);
app.ws("/socket.io/", {
  compression: uws.DISABLED,
  idleTimeout: 0,
  maxPayloadLength: 1_000_000,
  upgrade(response, request, context) {
    const found = identify(request.getHeader("cookie"));
    const headers = ["sec-websocket-key", "sec-websocket-protocol", "sec-websocket-extensions"];
    const [key, protocol, extensions] = headers.map((name) => request.getHeader(name)); // gone when this returns
    let gone = false;
    response.onAborted(() => (gone = true));
    then(found, (userId) => {
      if (!gone) response.cork(() => response.upgrade({ userId }, key, protocol, extensions, context));
    });
  },
  open,
  message: (socket, data) => hear(socket, socket.getUserData().userId, Buffer.from(data).toString()),
});

await standBy();
listen(app, publish);
