// Copies the browser build of socket.io-client out of node_modules, to where the dashboard serves it from.
// Runs by itself after `npm ci` and `npm install`; by hand: `npm run assets`.

import { copyFileSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const source = join(root, "node_modules", "socket.io-client", "dist");
const target = join(root, "automoderate", "dashboard", "static", "vendor");

mkdirSync(target, { recursive: true });
for (const name of ["socket.io.esm.min.js", "socket.io.esm.min.js.map"]) {
  copyFileSync(join(source, name), join(target, name));
}
