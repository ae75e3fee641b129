// What the servers in JavaScript share: who is who and who may see what, the updates, and the line protocol of
// benchmarks/servers.py.
//
// The cookie is checked as Flask does (HMAC-SHA1 with a salted key, then its age). The questions are put to SQLite with
// prepared statements, on the loop (better-sqlite3 in Node, bun:sqlite in Bun): an answer takes microseconds, less than a way
// to a worker thread and back. Where the database is PostgreSQL they go through a pool of connections, and answers are
// promises; `then` makes one thing of both.

import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setImmediate, setTimeout } from "node:timers/promises";
import { inflateSync } from "node:zlib";

export const AUTH_GRACE = 1000;
export const BACKLOG = 4096;
export const EVENT = "moderation_update";
export const PING_TIMEOUT = 20_000;
export const WELCOME = { message: "Connected to AutoModerate" };
const PUBLISHING = /^\/api\/projects\/([^/]+)\/events$/;
const SESSION_LIFETIME = 31 * 24 * 3600; // Flask's PERMANENT_SESSION_LIFETIME, seconds
const ERRORS = {
  authentication_required: "Authentication required",
  project_not_found: "Project not found",
  access_denied: "Access denied - you are not a member of this project",
};

export const config = JSON.parse(readFileSync(process.argv.find((word) => word.endsWith(".json")), "utf8"));

// The database

let statements = 0;

// A question: what it is given, to the first row of the answer or undefined.
const prepare = config.database_url.startsWith("sqlite:") ? await sqlite() : await postgresql();

async function sqlite() {
  const path = config.database_url.replace(/^sqlite:\/\//, "").replace(/^\/(?!\/)/, "");
  const { Database, default: BetterSqlite } = globalThis.Bun ? await import("bun:sqlite") : await import("better-sqlite3");
  const database = new (Database ?? BetterSqlite)(path, { readonly: true });
  return (sql) => {
    const statement = database.prepare(sql);
    return (...values) => {
      statements++;
      return statement.get(...values) ?? undefined;
    };
  };
}

async function postgresql() {
  const { default: pg } = await import("pg");
  const pool = new pg.Pool({ connectionString: config.database_url.replace(/^postgresql\+\w+:/, "postgresql:") });
  return (sql) => {
    let number = 0;
    const text = sql.replace(/\?/g, () => `$${++number}`);
    const name = createHmac("sha1", "statement").update(text).digest("hex");
    return async (...values) => {
      statements++;
      return (await pool.query({ name, text, values })).rows[0];
    };
  };
}

export const then = (value, next) => (value instanceof Promise ? value.then(next) : next(value));

const userById = prepare("SELECT id, is_active FROM users WHERE id = ?");
const accessOf = prepare(
  `SELECT users.is_active, projects.id AS project_id, projects.user_id AS owner_id,
          EXISTS (SELECT 1 FROM project_members
                  WHERE project_members.project_id = projects.id AND project_members.user_id = users.id) AS is_member
   FROM users LEFT JOIN projects ON projects.id = ? WHERE users.id = ?`,
);
const keyOf = prepare("SELECT project_id, is_active FROM api_keys WHERE key = ?");

// Who is who, and who may see what

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

// Whose a Cookie header is, or null.
export function identify(header) {
  const userId = sessionUser(header);
  return userId === null ? null : then(userById(userId), (row) => (row?.is_active ? userId : null));
}

// The code of the error that keeps a user out of a project's room, or null.
export function refusal(userId, projectId) {
  return then(accessOf(projectId, userId), (row) => {
    if (!row?.is_active) return "authentication_required";
    if (row.project_id !== projectId) return "project_not_found";
    return row.owner_id === userId || row.is_member ? null : "access_denied";
  });
}

export const room = (projectId) => `project_${projectId}`;
export const error = (code, more = {}) => ({ message: ERRORS[code], code, ...more });

// Updates

// Nanoseconds of CLOCK_MONOTONIC. Bun counts from where its process began: the kernel says once how far apart they are.
const apart = globalThis.Bun ? await (async () => {
  const { dlopen, ptr } = await import("bun:ffi");
  const { symbols } = dlopen("libc.so.6", { clock_gettime: { args: ["int", "ptr"], returns: "int" } });
  const time = new BigInt64Array(2);
  symbols.clock_gettime(1, ptr(time));
  return time[0] * 1_000_000_000n + time[1] - process.hrtime.bigint();
})() : 0n;
const monotonic = () => Number(process.hrtime.bigint() + apart);

const published = new Map();
let lastId = 0;

const eventId = () => `${Date.now()}-${lastId++ % 10}`;

function update(index) {
  const seq = published.get(index) ?? 0;
  published.set(index, seq + 1);
  return {
    ...config.template,
    project_id: config.projects[index],
    meta_data: { ...config.template.meta_data, seq, sent: monotonic() },
    event_id: eventId(),
  };
}

// The answer to a request of the publishing API, as [status, object], or null where that is not what was asked for.
export function answerPublication(method, path, key, body, publish) {
  const projectId = method === "POST" ? PUBLISHING.exec(path)?.[1] : undefined;
  if (projectId === undefined) return null;
  return then(keyOf(key ?? ""), (row) => {
    if (!row?.is_active) return [401, { error: "A valid X-API-Key header is needed" }];
    if (row.project_id !== projectId) return [403, { error: "This API key belongs to another project" }];
    const { event, data } = JSON.parse(body());
    data.event_id = eventId();
    publish(projectId, event, data);
    return [202, { event_id: data.event_id }];
  });
}

// What the harness wants

// Without a rate one turn of the loop, in which the kernel's answers to what was written are taken.
const oneTurn = () => setImmediate();

async function carryOut({ rooms, updates, rate, batch }, publish, pace) {
  const start = performance.now();
  for (let first = 0; first < updates; first += batch) {
    const wait = rate ? start + (first / rate) * 1000 - performance.now() : 0;
    await (wait > 0 ? setTimeout(wait) : rate ? oneTurn() : pace(Math.min(batch, updates - first), rooms, first === 0));
    for (let number = first; number < Math.min(first + batch, updates); number++) {
      const index = number % rooms;
      publish(config.projects[index], EVENT, update(index));
    }
  }
  return { published: updates };
}

const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

// Wait until connections are to be taken, where that is wanted.
export async function standBy() {
  if (!config.standby) return;
  say({ standing_by: true });
  await lines.next();
}

// Say that it can begin, as on which port connections are taken, and carry out commands until standard input ends. Without
// a rate `pace` is waited for before so many updates are published.
export async function serveCommands(ready, publish, pace = oneTurn) {
  say(ready);
  for await (const line of lines) {
    const command = JSON.parse(line);
    say(command.publish ? await carryOut(command.publish, publish, pace) : { statements });
  }
  process.exit(0);
}
