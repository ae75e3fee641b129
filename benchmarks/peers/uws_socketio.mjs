// socket.io on µWebSockets.js: node uws_socketio.mjs CONFIG. Rooms are µWebSockets' topics (`io.attachApp` sees to that), and
// an update to a room is one `publish` in C++.

import uws from "@trufflesuite/uws-js-unofficial";
import { Server } from "socket.io";
import { standBy } from "./rules.mjs";
import { OPTIONS, publishThrough, serveRooms } from "./socketio_rooms.mjs";
import { listen, takePublications } from "./uws_http.mjs";

const app = uws.App();
const io = new Server(OPTIONS);
const publish = publishThrough(io);
takePublications(app, publish);
io.attachApp(app);
serveRooms(io);

await standBy();
listen(app, publish);
