import { io } from "socket.io-client";

const { URL, COOKIE, PROJECT } = process.env;
const socket = io(URL, { extraHeaders: { Cookie: COOKIE } });
let newest; // where to go on after a lost connection

const join = () => socket.emit("join_project", { project_id: PROJECT, last_event_id: newest });
socket.on("connected", join);
socket.on("joined_project", (joined) => {
  newest = joined.last_event_id;
  console.log("live in", joined.room, joined.recovered === false ? "(some updates were missed)" : "");
});
socket.on("moderation_update", (update) => {
  newest = update.event_id;
  console.log(update.status, update.content_preview);
});
socket.on("error", ({ code, message }) => {
  console.error("error:", message);
  if (code === "timeout" || code === "server_error") setTimeout(join, 3000);
});
socket.on("connect_error", (error) => console.error("cannot connect:", error.message));
socket.on("disconnect", (reason) => console.error("disconnected:", reason));
