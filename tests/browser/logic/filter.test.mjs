// The filter: what it lets through, and how an address says it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Filter } from "../../../automoderate/dashboard/static/filter.js";
import { contentLink, webLink } from "../../../automoderate/dashboard/static/links.js";
import { Entry } from "../../../automoderate/dashboard/static/store.js";
import { initials } from "../../../automoderate/dashboard/static/text.js";

const entry = new Entry("update", {
  content_id: "8f0c", status: "flagged", content_type: "image", moderator_type: "ai", moderator_name: "AI", rule_name: "No Links",
  content_preview: "A photo of the Sunset", meta_data: { author: "ann", nested: { tag: ["pier", null, 48213], said: 'C:\\New "cafe\u0301"' } },
}); // prettier-ignore
const rule = new Entry("rule", { action: "created", rule: { name: "No Links" } });

test("what is wanted is wanted by everything that was chosen", () => {
  for (const [chosen, wanted, wantsRule] of [
    [{}, true, true],
    [{ statuses: ["flagged", "pending"] }, true, false],
    [{ statuses: ["approved"] }, false, false],
    [{ type: "image" }, true, false],
    [{ type: "text" }, false, false],
    [{ moderator: "ai", rule: "No Links" }, true, false],
    [{ rule: "No Links" }, true, true],
    [{ statuses: ["flagged"], rule: "Spam" }, false, false],
    [{ text: "  SUNSET photo " }, true, false],
    [{ text: "sunset morning" }, false, false],
    [{ text: "pier" }, true, false],
    [{ text: 'c:\\new "CAFÉ"' }, true, false],
    [{ text: "TAG 48213" }, true, false],
    [{ text: '","' }, false, false],
    [{ text: "8F0C" }, true, false],
    [{ text: "links" }, true, true],
  ]) {
    const filter = new Filter(chosen);
    assert.deepEqual([filter.matches(entry), filter.matches(rule)], [wanted, wantsRule], JSON.stringify(chosen));
  }
});

test("an address says it all, and keeps what else it says", () => {
  const filter = new Filter({ statuses: ["pending", "flagged"], type: "image", moderator: "ai", rule: "A & B=C", text: "é, ü" });
  const query = filter.write("?theme=x&status=approved");
  assert.equal(query, "theme=x&status=flagged,pending&type=image&moderator=ai&rule=A+%26+B%3DC&q=%C3%A9,+%C3%BC");
  const again = Filter.parse(`?${query}`);
  assert.deepEqual({ ...again }, { ...filter });
  assert.equal(new Filter().write("?status=flagged&q=x"), "");
});

test("an address that says nonsense filters nothing by it", () => {
  assert.equal(Filter.parse("?status=all,,constructor&q=%20").active, false);
  assert.deepEqual(Filter.parse("?status=flagged,flagged,x").statuses, ["flagged"]);
});

test("a status is chosen and let go by the same button", () => {
  const filter = new Filter().toggle("flagged").toggle("approved");
  assert.deepEqual(filter.statuses, ["approved", "flagged"]);
  assert.deepEqual(filter.toggle("flagged").toggle("approved").active, false);
});

test("only addresses of the web are links", () => {
  assert.equal(webLink("https://example.org/a?b=c#d"), "https://example.org/a?b=c#d");
  assert.equal(webLink("HTTP://EXAMPLE.org"), "http://example.org/");
  for (const no of ["javascript:alert(1)", " https://a.example", "https://a.example b", "data:text/html,x", "ftp://a", "//a.example", "https://", 5, null]) {
    assert.equal(webLink(no), null, String(no));
  }
});

test("a content's page is the operator's, whatever the content is called", () => {
  const link = (id, template = "/content/{content_id}?project={project_id}") => contentLink(template, id, "p 1");
  assert.equal(link("a"), "/content/a?project=p%201");
  assert.equal(link("../../log out?x#y"), "/content/..%2F..%2Flog%20out%3Fx%23y?project=p%201");
  assert.equal(link("{project_id}$&"), "/content/%7Bproject_id%7D%24%26?project=p%201");
  for (const none of ["", ".", "..", "half of \ud83c", undefined, 5]) assert.equal(link(none), null);
  assert.equal(contentLink(undefined, "a", "p"), null);
});

test("people are known by their first letters", () => {
  assert.deepEqual(["Ann Lee", "olga", "jo.doe@example.org", "élan", "", "😀 x"].map(initials), ["AL", "O", "JD", "É", "?", "😀X"]);
});
