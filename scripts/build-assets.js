// Copies the browser builds of socket.io-client out of node_modules, to where the server and its dashboard serve them from.
// Runs by itself after `npm ci` and `npm install`, and when the package is built (setup.py); by hand: `npm run assets`.

import { copyFileSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const client = join(root, "node_modules", "socket.io-client");
const target = join(root, "automoderate", "dashboard", "static", "vendor");

mkdirSync(target, { recursive: true });
for (const name of ["socket.io.esm.min.js", "socket.io.esm.min.js.map", "socket.io.min.js"]) {
  copyFileSync(join(client, "dist", name), join(target, name));
}
copyFileSync(join(client, "LICENSE"), join(target, "socket.io-client.LICENSE"));
