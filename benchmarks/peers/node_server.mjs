// Node's socket.io: node node_server.mjs CONFIG, after `npm ci` in this folder. It speaks the line protocol of
// benchmarks/servers.py.
//
// Settings: WebSocket alone, no compression, ws with its native add-ons where they are installed, and the first HTTP request
// of a session let go, as socket.io's pages on performance and memory advise. The cookie is checked as Flask does
// (HMAC-SHA1 with a salted key, then its age), and the two questions are put to SQLite by better-sqlite3 with prepared
// statements, on the loop: an answer takes microseconds, less than a way to a worker thread and back.

import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { setImmediate, setTimeout } from "node:timers/promises";
import { inflateSync } from "node:zlib";
import Database from "better-sqlite3";
import { Server } from "socket.io";

const AUTH_GRACE = 1000;
const BACKLOG = 4096;
const SESSION_LIFETIME = 31 * 24 * 3600; // Flask's PERMANENT_SESSION_LIFETIME, seconds
const ERRORS = {
  authentication_required: "Authentication required",
  project_not_found: "Project not found",
  access_denied: "Access denied - you are not a member of this project",
};

const config = JSON.parse(readFileSync(process.argv[2], "utf8"));

// Who is who, and who may see what

const database = new Database(config.database_url.replace(/^sqlite:\/\//, "").replace(/^\/(?!\/)/, ""), { readonly: true });
const userById = database.prepare("SELECT id, is_active FROM users WHERE id = ?");
const accessOf = database.prepare(
  `SELECT users.is_active, projects.id AS project_id, projects.user_id AS owner_id,
          EXISTS (SELECT 1 FROM project_members
                  WHERE project_members.project_id = projects.id AND project_members.user_id = users.id) AS is_member
   FROM users LEFT JOIN projects ON projects.id = ? WHERE users.id = ?`,
);
const signingKey = createHmac("sha1", config.secret_key).update("cookie-session").digest();

// The user id in a Cookie header, whose session Flask signed: [.]payload.timestamp.signature, each in base64url.
function sessionUser(header) {
  const value = /(?:^|; )session=([^;]*)/.exec(header ?? "")?.[1] ?? "";
  const end = value.lastIndexOf(".");
  const signed = value.slice(0, Math.max(end, 0));
  const expected = createHmac("sha1", signingKey).update(signed).digest();
  const given = Buffer.from(value.slice(end + 1), "base64url");
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) return null;
  const [payload, stamp] = [signed.slice(0, signed.lastIndexOf(".")), signed.slice(signed.lastIndexOf(".") + 1)];
  const signedAt = Buffer.from(stamp, "base64url").readUIntBE(0, Buffer.from(stamp, "base64url").length);
  if (Date.now() / 1000 - signedAt > SESSION_LIFETIME) return null;
  const compressed = payload.startsWith(".");
  const bytes = Buffer.from(compressed ? payload.slice(1) : payload, "base64url");
  return JSON.parse(compressed ? inflateSync(bytes) : bytes)._user_id ?? null;
}

function identify(header) {
  const userId = sessionUser(header);
  return userId !== null && userById.get(userId)?.is_active ? userId : null;
}

// The code of the error that keeps a user out of a project's room, or null.
function refusal(userId, projectId) {
  const row = accessOf.get(projectId, userId);
  if (!row?.is_active) return "authentication_required";
  if (row.project_id !== projectId) return "project_not_found";
  return row.owner_id === userId || row.is_member ? null : "access_denied";
}

// The server and its rooms

const http = createServer();
const io = new Server(http, {
  transports: ["websocket"],
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
  pingInterval: config.ping_interval * 1000,
});

function refuse(socket, code, more = {}) {
  socket.emit("error", { message: ERRORS[code], code, ...more });
}

io.on("connection", (socket) => {
  const userId = identify(socket.handshake.headers.cookie);
  socket.conn.request = null;
  if (userId === null) {
    refuse(socket, "authentication_required");
    setTimeout(AUTH_GRACE).then(() => socket.disconnect(true));
    return;
  }
  socket.on("join_project", ({ project_id }) => {
    const code = refusal(userId, project_id);
    if (code !== null) return refuse(socket, code, { project_id });
    socket.join(`project_${project_id}`);
    socket.emit("joined_project", { project_id, room: `project_${project_id}` });
  });
  socket.emit("connected", { message: "Connected to AutoModerate" });
});

// What the harness wants

const published = new Map();

function update(index) {
  const seq = published.get(index) ?? 0;
  published.set(index, seq + 1);
  return {
    ...config.template,
    project_id: config.projects[index],
    meta_data: { ...config.template.meta_data, seq, sent: Number(process.hrtime.bigint()) },
    event_id: `${Date.now()}-${seq % 10}`,
  };
}

async function publish({ rooms, updates, rate, batch }) {
  const start = performance.now();
  for (let first = 0; first < updates; first += batch) {
    const wait = rate ? start + (first / rate) * 1000 - performance.now() : 0;
    // Without a rate one turn of the loop, in which the kernel's answers to what was written are taken.
    await (wait > 0 ? setTimeout(wait) : setImmediate());
    for (let number = first; number < Math.min(first + batch, updates); number++) {
      const index = number % rooms;
      io.to(`project_${config.projects[index]}`).emit("moderation_update", update(index));
    }
  }
  return { published: updates };
}

async function carryOutCommands() {
  for await (const line of createInterface({ input: process.stdin })) {
    process.stdout.write(`${JSON.stringify(await publish(JSON.parse(line).publish))}\n`);
  }
  process.exit(0);
}

http.listen({ port: 0, host: "127.0.0.1", backlog: BACKLOG }, () => {
  process.stdout.write(`${JSON.stringify({ port: http.address().port })}\n`);
  carryOutCommands();
});
