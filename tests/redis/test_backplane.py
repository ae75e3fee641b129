"""The Redis backplane against a real Redis."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from automoderate.backplane.redis import RedisBackplane, histories
from automoderate.backplane.redis.entries import READ_COUNT, update
from automoderate.backplane.redis.histories import MAX_HISTORY
from automoderate.core.hub import AccessChanged, LoggedOut, PositionAdvanced
from automoderate.server.interfaces import BackplaneUnavailable
from kits import until
from kits.redis_server import Node, RedisServer

KEY = "automoderate:{p}:updates"
NewNode = Callable[..., Node]


def test_what_one_node_publishes_all_that_follow_hear_in_order(new_node: NewNode) -> None:
    near, far, elsewhere = new_node(), new_node(), new_node()
    near.follow()
    far.follow()
    elsewhere.follow("q")
    near.publish(*range(500))
    until(lambda: len(near.numbers) == len(far.numbers) == 500, "both hear")
    assert near.numbers == far.numbers == list(range(500))
    assert elsewhere.told == [] or all(isinstance(item, PositionAdvanced) for item in elsewhere.told)


def test_live_continues_exactly_where_the_first_history_ended(node: Node) -> None:
    before = node.publish(1, 2, 3)
    node.backplane.follow("p")
    history = node.read("p", before[0])
    assert [update.event_id for update in history.updates] == before[1:]
    assert (history.complete, history.last_event_id) == (True, before[2])
    node.publish(4)
    until(lambda: node.numbers)
    assert node.numbers == [4]


def test_following_again_begins_anew(node: Node) -> None:
    node.follow()
    node.backplane.unfollow("p")
    node.publish(1)
    node.follow()
    node.publish(2)
    until(lambda: 2 in node.numbers)
    assert node.numbers == [2]


def test_a_project_without_history_has_a_position_that_can_be_continued(node: Node) -> None:
    position = node.read("p", None).last_event_id
    assert node.read("p", position).complete
    node.publish(1)
    history = node.read("p", position)
    assert [update.data["n"] for update in history.updates] == [1]


@pytest.mark.parametrize("after", ["", "x", "1-1", "99999999999999-0", f"{2**64 - 1}-0", f"{2**64}-0"])
def test_an_id_that_is_not_there_is_not_continued(node: Node, after: str) -> None:
    (last,) = node.publish(1)
    history = node.read("p", after)
    assert (history.updates, history.complete, history.last_event_id) == ((), False, last)


def test_an_id_may_be_spelled_with_zeros(node: Node) -> None:
    milliseconds, _, sequence = node.publish(1)[0].partition("-")
    (newest,) = node.publish(2)
    history = node.read("p", f"0{milliseconds}-0{sequence}")
    assert [update.event_id for update in history.updates] == [newest]


@pytest.mark.parametrize("before", [f"{2**64}-0", f"1-{2**64}"])
def test_nothing_comes_before_what_is_no_id(node: Node, before: str) -> None:
    node.publish(1)
    assert node.read("p", None, 5, before).updates == ()


def test_without_an_id_the_newest_are_told_oldest_first(node: Node, server: RedisServer) -> None:
    node.read("p", None)  # leaves a mark, which is no update
    issued = node.publish(*range(READ_COUNT + 20))
    with server.client() as client:
        client.xadd(KEY, {"event": "e", "data": "no update"})
    for newest in (1, READ_COUNT + 10, 200):
        history = node.read("p", None, newest)
        assert [update.event_id for update in history.updates] == issued[-newest:]
        assert history.complete
        assert history.last_event_id > issued[-1], "something that is no update is the newest entry"
    assert node.read("p", None).updates == ()
    assert node.read("q", None, 5).updates == ()


def test_of_those_before_an_id_the_newest_are_told_oldest_first(node: Node, server: RedisServer) -> None:
    with server.client() as client:
        client.xadd(KEY, {"event": "e", "data": "no update"}, id="5-5")
    issued = node.publish(*range(READ_COUNT + 20))
    for place, newest in ((5, 3), (READ_COUNT + 15, READ_COUNT + 5), (3, 200), (0, 10)):
        history = node.read("p", None, newest, issued[place])
        assert [update.event_id for update in history.updates] == issued[max(0, place - newest) : place]
        assert (history.complete, history.last_event_id) == (True, issued[-1])
    beyond = f"{2**64 - 1}-{2**64 - 1}"  # the largest id there can be
    assert [update.event_id for update in node.read("p", None, 2, beyond).updates] == issued[-2:]
    for nothing in ("0-0", "000-0", "0-1", "none", "5-4"):
        assert node.read("p", None, 10, nothing).updates == ()
    pages, before = 0, issued[-1]
    while found := node.read("p", None, 7, before).updates:
        pages, before = pages + 1, found[0].event_id
    assert (pages, before) == (-(-(len(issued) - 1) // 7), issued[0]), "page by page to the oldest that is kept"


def test_of_the_newest_no_more_are_told_than_are_kept_and_fit(new_node: NewNode, server: RedisServer) -> None:
    node = new_node(entries=100, max_age=1000)
    node.publish(*range(150))
    assert [update.data["n"] for update in node.read("p", None, 200).updates] == list(range(50, 150))
    text = json.dumps({"text": "x" * (MAX_HISTORY // 3)})
    for _ in range(4):
        node.backplane.publish("large", "stats_update", text).result(60)
    assert len(node.read("large", None, 10).updates) == 2
    with server.client() as client:
        client.xadd("automoderate:{old}:updates", {"event": "e", "data": '{"n":1}'}, id="1000-0")
        client.xadd("automoderate:{old}:updates", {"event": "e", "data": '{"n":2}'}, id="2000000-0")
    assert [update.data["n"] for update in node.read("old", None, 10).updates] == [2]


def test_what_was_trimmed_is_not_continued(new_node: NewNode, server: RedisServer) -> None:
    node = new_node(entries=100)
    first, *_, last = node.publish(*range(1000))
    assert not node.read("p", first).complete
    assert node.read("p", last).complete
    with server.client() as client:
        assert client.xlen(KEY) < 300


def test_more_than_one_client_may_be_sent_is_not_continued(new_node: NewNode) -> None:
    node = new_node(entries=200)
    (first,) = node.publish(0)
    node.publish(*range(200))
    assert len(node.read("p", first).updates) == 200
    node.publish(200)
    assert not node.read("p", first).complete
    (start,) = node.publish(0, project_id="large")
    text = json.dumps({"text": "\u20ac" * (MAX_HISTORY // 3 // 3)}, ensure_ascii=False)  # three bytes each
    for _ in range(4):
        node.backplane.publish("large", "stats_update", text).result(60)
    assert not node.read("large", start).complete


def test_what_is_trimmed_while_it_is_read_is_not_continued(
    node: Node, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    position = node.follow()
    with server.client() as client, client.pipeline() as pipeline:
        for number in range(READ_COUNT + 10):
            pipeline.xadd(KEY, {"event": "e", "data": f'{{"n":{number}}}' if number > READ_COUNT else "no update"})
        pipeline.execute()

        def trimming(project_id: str, entry: Any) -> Any:
            client.xtrim(KEY, 1, approximate=False)
            return update(project_id, entry)

        monkeypatch.setattr(histories, "update", trimming)
        assert not node.read("p", position).complete


def test_what_is_too_old_is_neither_continued_nor_kept(new_node: NewNode, server: RedisServer) -> None:
    node = new_node(max_age=1000)
    with server.client() as client:
        old = int(client.time()[0] - 5000) * 1000
        client.xadd(KEY, {"event": "e", "data": '{"n":1}'}, id=f"{old}-0")
        assert node.read("p", f"{old}-0").complete  # the newest there is
        node.publish(2)
        assert not node.read("p", f"{old}-0").complete
        assert 990 <= client.ttl(KEY) <= 1000


@pytest.mark.parametrize(
    "fields",
    [
        {"event": "e", "data": "no json"},
        {"event": "e", "data": "[1]"},
        {"event": "e", "data": '{"n":NaN}'},
        {"event": "e", "data": b"\xff"},
        {"event": "e", "data": '{"n":1}'.encode("utf-16-le")},
        {"event": "e", "data": b'{"n":"\xed\xa0\x80"}'},
        {"event": "e", "data": '{"x":' + "[" * 254 + "]" * 254 + "}"},
        {"event": b"\xff", "data": "{}"},
        {"event": "e" * 1000, "data": "{}"},
        {"event": "e", "data": '{"x":"' + "x" * 2_000_000 + '"}'},
        {"event": "e", "data": '{"event_id":"7-7","x":' + "[" * 1000 + "]" * 1000 + "}"},
        {"event": "e", "data": "{}", "more": "?"},
        {"something": "else"},
    ],
)
def test_an_entry_that_is_no_update_is_skipped(node: Node, server: RedisServer, fields: dict[str, str | bytes]) -> None:
    position = node.follow()
    with server.client() as client:
        entry = client.xadd(KEY, fields).decode()
    node.publish(1)
    until(lambda: node.numbers == [1], "the update behind it")
    assert PositionAdvanced("p", entry) in node.told
    assert node.backplane.stats()["backplane_rejected_total"] == 1
    assert [update.data["n"] for update in node.read("p", position).updates] == [1]


def test_a_plain_entry_of_anybodys_is_an_update(node: Node, server: RedisServer) -> None:
    node.follow()
    with server.client() as client:
        entry = client.xadd(KEY, {"event": "e", "data": ' { "n" : 1, "event_id": "7-7", "s": "\\ud800" } '}).decode()
        client.xadd(KEY, {"event": "e", "data": "{ }"})
        client.xadd(KEY, {"event": "e", "data": '{"n":1}'.encode("utf-8-sig")})
        node.publish(2)
    until(lambda: node.told and len([item for item in node.told if not isinstance(item, PositionAdvanced)]) == 4)
    assert node.told[-2].update.text.startswith('{"n":1,"event_id":')  # type: ignore[union-attr]
    assert node.told[-4].update.data == {"n": 1, "s": "\ud800", "event_id": entry}  # type: ignore[union-attr]


def test_what_nobody_would_take_is_not_published(node: Node) -> None:
    with pytest.raises(ValueError, match="bytes as JSON"):
        node.backplane.publish("p", "e", '{"x":"' + "x" * 2_000_000 + '"}')
    with pytest.raises(ValueError, match="event's name"):
        node.backplane.publish("p", "", "{}")
    for project_id in ("", "p" * 101, "half of a pair: \ud800"):
        with pytest.raises(ValueError, match="no project id"):
            node.backplane.publish(project_id, "e", "{}")


def test_announcements_reach_the_other_nodes_and_not_their_own(new_node: NewNode, server: RedisServer) -> None:
    near, far = new_node(), new_node()
    said: list[AccessChanged | LoggedOut] = [AccessChanged("u", "p"), AccessChanged(None, "p"), LoggedOut("u")]
    with server.client() as client:
        client.xadd("automoderate:control", {"said": '{"what":"logged_out"}'})
        client.xadd("automoderate:control", {"said": '{"what":"logged_out","node":"x","user_id":1}'})
        client.xadd("automoderate:control", {"said": '{"what":"access_changed","node":"x","user_id":1,"project_id":2}'})
    for item in said:
        near.backplane.announce(item).result(60)
    until(lambda: len(far.told) == 3, "the other node hears")
    assert far.told == said
    assert near.told == []
    assert far.backplane.stats()["backplane_rejected_total"] == 3


def test_a_redis_that_is_not_there_is_said_in_one_line() -> None:
    backplane = RedisBackplane("redis://somebody:secret@127.0.0.1:1/0")
    with pytest.raises(
        BackplaneUnavailable, match=r"^cannot use Redis at redis://\*\*\*@127\.0\.0\.1:1/0: .*refused"
    ) as error:
        backplane.check()
    assert "\n" not in str(error.value)
    with pytest.raises(BackplaneUnavailable):
        backplane.read("p", None)()
    backplane.close()
    with pytest.raises(BackplaneUnavailable, match="stopped"):
        backplane.publish("p", "e", "{}").result(0)


def test_a_node_of_a_cluster_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = RedisServer(tmp_path_factory.mktemp("cluster"), cluster=True)
    try:
        with pytest.raises(BackplaneUnavailable, match="cluster"):
            RedisBackplane(server.url).check()
    finally:
        server.close()
