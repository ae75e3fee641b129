import { io } from "socket.io-client";

const { URL, COOKIE, PROJECT } = process.env;
const socket = io(URL, { extraHeaders: { Cookie: COOKIE } });
let newest;

socket.on("connected", () => socket.emit("join_project", { project_id: PROJECT, last_event_id: newest }));
socket.on("joined_project", (joined) => {
  newest = joined.last_event_id;
  console.log("live in", joined.room);
});
socket.on("moderation_update", (update) => {
  newest = update.event_id;
  console.log(update.status, update.content_preview);
});
socket.on("error", (error) => console.error(error.message));
socket.on("disconnect", (reason) => console.log("disconnected:", reason));
