// What the page holds: the order, decisions in place, marks where updates are missing, and older pages.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Store } from "../../../automoderate/dashboard/static/store.js";

const data = (id, content, status = "approved", more = {}) => ({ event_id: `${id}-0`, content_id: content, status, content_preview: content, ...more });
const event = (...given) => ({ event: "moderation_update", data: data(...given) });
const shown = (store) => store.entries.map((entry) => (entry.kind === "mark" ? "mark" : `${entry.data.content_id} ${entry.status}`));

function filled(...ids) {
  const store = new Store();
  for (const id of ids) store.arrive("update", data(id, `c${id}`));
  return store;
}

test("the newest comes first, also where an older one arrives late", () => {
  const store = filled(10, 12);
  store.arrive("update", data(11, "c11"));
  store.arrive("update", data(9, "c9"));
  assert.deepEqual(shown(store), ["c12 approved", "c11 approved", "c10 approved", "c9 approved"]);
  assert.equal(store.oldest, "9-0");
});

test("a decision goes to the content that waits for it, wherever that stands", () => {
  const store = new Store();
  store.arrive("update", data(1, "a", "pending"), true);
  store.arrive("update", data(2, "b"));
  const { entry, was } = store.arrive("update", data(3, "a", "flagged", { rule_name: "No links" }));
  assert.equal(was, "pending");
  assert.deepEqual([entry.status, entry.rule, entry.id, entry.old], ["flagged", "No links", "1-0", true]);
  assert.deepEqual(shown(store), ["b approved", "a flagged"]);
  assert.equal(store.arrive("update", data(4, "a", "approved")).was, null, "a second decision is an update of its own");
  assert.deepEqual(shown(store), ["a approved", "b approved", "a flagged"]);
});

test("what is said once more of a content that still waits changes its row", () => {
  const store = new Store();
  store.arrive("update", data(1, "a", "pending"));
  assert.equal(store.arrive("update", data(2, "a", "pending", { content_type: "image" })).was, "pending");
  assert.deepEqual(shown(store), ["a pending"]);
  assert.equal(store.entries[0].type, "image");
});

test("contents without an id are apart also where they wait, and where older ones are read", () => {
  const store = new Store();
  for (const none of [null, "", undefined]) {
    assert.equal(store.arrive("update", data(store.entries.length + 10, none, "pending")).was, null);
    assert.equal(store.arrive("update", data(store.entries.length + 10, none)).was, null);
  }
  assert.equal(store.entries.length, 6);
  assert.equal(store.older([event(1, null, "pending"), event(2, null)]).brought.length, 2);
});

test("a number is as good a name of a content as a text", () => {
  const store = new Store();
  store.arrive("update", data(1, 42, "pending"));
  assert.equal(store.entries[0].contentId, "42");
  assert.equal(store.arrive("update", data(2, "42")).was, "pending");
  store.arrive("update", data(3, 0, "pending"));
  assert.equal(store.arrive("update", data(4, 0)).was, "pending");
  assert.equal(store.arrive("update", data(5, ["a"])).entry.contentId, "");
});

test("an unknown status is pending, and contents without an id are apart", () => {
  const store = new Store();
  store.arrive("update", { event_id: "1-0", status: "constructor" });
  store.arrive("update", { event_id: "2-0", status: "approved" });
  assert.deepEqual(store.entries.map((entry) => entry.status), ["approved", "pending"]);
});

test("a mark stands on what is there, and once only", () => {
  assert.equal(new Store().mark("missed"), null, "there is nothing that it could part");
  const store = filled(5);
  assert.equal(store.mark("missed").text, "missed");
  assert.equal(store.mark("missed again"), null);
  store.arrive("update", data(2, "c2")); // the clock of a restarted server may be behind
  assert.deepEqual(shown(store), ["c2 approved", "mark", "c5 approved"]);
});

test("a mark in the middle stands above what is there, and not beside another or below everything", () => {
  const store = filled(5, 6);
  assert.equal(store.mark("left out", 1).text, "left out");
  assert.deepEqual(shown(store), ["c6 approved", "mark", "c5 approved"]);
  assert.equal(store.mark("left out again", 1), null);
  assert.equal(store.mark("nothing is below", 3), null);
});

test("what a search looks in is made once, until the update changes", () => {
  const store = new Store();
  let made = 0;
  const meta = { get note() { return `made ${(made += 1)} times`; } }; // prettier-ignore
  const { entry } = store.arrive("update", data(1, "a", "pending", { meta_data: meta }));
  assert.match(entry.text, /made 1 times/);
  assert.match(entry.text, /made 1 times/);
  store.arrive("update", data(2, "a", "approved"));
  assert.match(entry.text, /approved[^]*made 2 times/);
});

test("older pages go to the end", () => {
  const store = filled(10);
  assert.equal(store.edge(), "10-0");
  const { brought } = store.older([{ event: "stats_update", data: { event_id: "7-0" } }, event(8, "c8"), event(9, "c9")]);
  assert.deepEqual(brought.map((entry) => entry.data.content_id), ["c9", "c8"]);
  assert.ok(brought.every((entry) => entry.old));
  assert.deepEqual(shown(store), ["c10 approved", "c9 approved", "c8 approved"]);
  assert.equal(store.edge(), "7-0", "what is no row was read, too");
});

test("in an older page a decision goes to its content, and one that is decided further up is left out", () => {
  const store = filled(10);
  const received = (id, content) => ({ event: "content_received", data: data(id, content, "pending") });
  store.older([received(1, "a"), received(2, "c10"), received(3, "b"), event(4, "a", "rejected")]);
  assert.deepEqual(shown(store), ["c10 approved", "b pending", "a rejected"]);
  assert.equal(store.arrive("update", data(11, "b", "flagged")).was, "pending");
  assert.deepEqual(shown(store), ["c10 approved", "b flagged", "a rejected"]);
});

test("an older decision of a content that waits still further down is told as a change", () => {
  const store = new Store();
  store.arrive("update", data(1, "a", "pending"));
  const mark = store.mark("missed");
  store.arrive("update", data(9, "c9"));
  const { brought, changed, closed } = store.older([event(1, "a"), event(5, "a", "flagged")], mark);
  assert.deepEqual([brought.length, changed.map(({ was }) => was), closed], [0, ["pending"], true]);
  assert.deepEqual(shown(store), ["c9 approved", "a flagged"]);
});

test("what was missed is filled in at its mark, which goes once the pages meet", () => {
  const store = filled(1, 2);
  const mark = store.mark("missed");
  store.arrive("update", data(9, "c9"));
  assert.equal(store.edge(mark), "9-0");
  const { brought, closed } = store.older([event(7, "c7"), event(8, "c8")], mark);
  assert.deepEqual([closed, brought.some(({ old }) => old)], [false, false], "it came since the page was opened");
  assert.deepEqual(shown(store), ["c9 approved", "c8 approved", "c7 approved", "mark", "c2 approved", "c1 approved"]);
  assert.equal(store.edge(mark), "7-0");
  assert.equal(store.older([event(1, "c1"), event(2, "c2"), event(6, "c6")], mark).closed, true);
  assert.deepEqual(shown(store), ["c9", "c8", "c7", "c6", "c2", "c1"].map((name) => `${name} approved`));
});

test("with nothing above a mark the newest are asked for", () => {
  const store = filled(1);
  assert.equal(store.edge(store.mark("missed")), null);
});

test("what was let go of can be loaded again, and is known to have been counted", () => {
  const store = filled(1, 2, 3);
  store.forget();
  assert.equal(store.oldest, "2-0");
  const { brought } = store.older([event(0, "c0"), event(1, "c1")]);
  assert.deepEqual(brought.map((entry) => [entry.data.content_id, entry.again]), [["c1", true], ["c0", false]]);
});

test("a decision of what was let go of is an update of its own", () => {
  const store = new Store();
  store.arrive("update", data(1, "a", "pending"));
  store.forget();
  assert.equal(store.arrive("update", data(2, "a", "approved")).was, null);
});

test("an author is found under the names that pipelines use", () => {
  const store = new Store();
  const authors = [{ author: "ann" }, { username: 17 }, { user: { name: "bea" } }, { author: "", user: "cy" }, { author: [] }, "no object", null];
  authors.forEach((meta_data, index) => store.arrive("update", data(index + 1, `c${index}`, "approved", { meta_data })));
  assert.deepEqual(store.entries.map((entry) => entry.author).reverse(), ["ann", "17", "bea", "cy", "", "", ""]);
});

test("a change of a rule says what happened, and belongs to that rule", () => {
  const store = new Store();
  for (const given of [{ action: "created", rule: { name: "No links" } }, { rule_data: "Spam" }, {}]) store.arrive("rule", given);
  assert.deepEqual(store.entries.map(({ preview, rule }) => [preview, rule]).reverse(), [
    ["“No links” was created", "No links"], ["“Spam” was changed", "Spam"], ["A rule was changed", ""],
  ]); // prettier-ignore
});
