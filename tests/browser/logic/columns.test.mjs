// What happened lately, in columns that go as time goes by.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Columns } from "../../../automoderate/dashboard/static/columns.js";

test("columns move on with the clock, and nothing lies in the future", ({ mock }) => {
  mock.timers.enable({ apis: ["Date"], now: 1_000_005 });
  const columns = new Columns(3, 10, () => ({ count: 0 }));
  const counts = () => columns.all().map(({ count }) => count);
  assert.deepEqual(counts(), [0, 0, 0]);
  for (const time of [1_000_005, 1_000_000, 999_999, 2_000_000, 999_970]) columns.at(time).count += 1;
  assert.deepEqual(counts(), [0, 1, 3], "the oldest is gone, and the clock of one publisher is ahead");
  mock.timers.setTime(1_000_010);
  assert.deepEqual(counts(), [1, 3, 0]);
  mock.timers.setTime(1_000_040);
  assert.deepEqual(counts(), [0, 0, 0]);
});
