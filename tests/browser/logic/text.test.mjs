// How values read to a person.

import assert from "node:assert/strict";
import { test } from "node:test";

import { shortened } from "../../../automoderate/dashboard/static/text.js";

test("a long text is cut between two characters", () => {
  for (const [text, shown] of [
    ["four", "four"],
    ["fives", "fiv…"],
    ["ab🎉cd", "ab…"],
    ["a🎉bcd", "a🎉…"],
  ]) assert.equal(shortened(text, 4), shown);
}); // prettier-ignore
