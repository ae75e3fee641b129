// How values read to a person.

import assert from "node:assert/strict";
import { test } from "node:test";

process.env.TZ = "Asia/Tokyo"; // before the first moment is read
const { exact, moment, plain, readTime, shortened } = await import("../../../automoderate/dashboard/static/text.js");

test("a long text is cut between two characters", () => {
  for (const [text, shown] of [
    ["four", "four"],
    ["fives", "fiv…"],
    ["ab🎉cd", "ab…"],
    ["a🎉bcd", "a🎉…"],
  ]) assert.equal(shortened(text, 4), shown);
}); // prettier-ignore

test("a moment without a time zone is one of UTC, as pipelines write it", () => {
  for (const text of ["2026-01-15T10:30:00", "2026-01-15 10:30:00", "2026-01-15T10:30:00.000001", "2026-01-15T19:30:00+09:00", "2026-01-15T10:30Z"])
    assert.equal(readTime({ timestamp: text }).toISOString(), "2026-01-15T10:30:00.000Z", text);
});

test("an update that does not say when it was made is as old as its event id", () => {
  for (const timestamp of [undefined, null, 17, "", "soon"]) {
    assert.equal(readTime({ timestamp, event_id: "1768473000000-7" }).toISOString(), "2026-01-15T10:30:00.000Z");
    for (const id of [undefined, null, 17, "", "1-0"]) assert.ok(Date.now() - readTime({ timestamp, event_id: id }) < 60_000, String(id));
  }
});

test("what is not of today says its day", () => {
  const now = new Date();
  assert.match(moment(now), /:\d\d:\d\d/);
  assert.match(moment(new Date(now - 86_400_000)), /[A-Z][a-z]{2} \d{1,2}\b.*:\d\d/);
});

test("a small number is not rounded to none, and an exact one not at all", () => {
  for (const [value, shown, exactly] of [
    [0.00421, "0.00421", "0.00421"],
    [-0.000125, "-0.000125", "-0.000125"],
    [0, "0", "0"],
    [48213, "48,213", "48213"],
    [12.3456, "12.35", "12.3456"],
    [null, "–", "–"],
    [true, "Yes", "Yes"],
    ["2,026", "2,026", "2,026"],
  ]) assert.deepEqual([plain(value), exact(value)], [shown, exactly]);
}); // prettier-ignore
