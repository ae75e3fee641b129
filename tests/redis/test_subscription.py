"""How a node learns that there is something new, and that it does so whatever becomes of what it is told."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from automoderate.backplane.redis import RedisBackplane, RedisPublisher
from automoderate.backplane.redis import reader as redis_reader
from automoderate.backplane.redis.entries import CONTROL, MAX_TOLD, READ_COUNT, Announcement, stream
from automoderate.backplane.redis.troubles import Troubles
from automoderate.backplane.redis.writer import Writer
from automoderate.core.hub import LoggedOut, Published
from automoderate.server.interfaces import BackplaneUnavailable
from kits import PATIENCE, until
from kits.cables import Cable
from kits.redis_server import Node, RedisServer

KEY = stream("p")
NewNode = Callable[..., Node]


@pytest.fixture
def only_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes look at no stream unasked, but once when they have connected."""
    monkeypatch.setattr(redis_reader, "LOOK_EVERY", 3600.0)


def add(server: RedisServer, *numbers: int, key: str = KEY, tell: bool) -> None:
    """Append updates as anybody may, at once, and say so or not."""
    with server.client() as client, client.pipeline(transaction=True) as pipeline:
        for number in numbers:
            pipeline.xadd(key, {"event": "e", "data": f'{{"n":{number}}}'})
        if tell:
            pipeline.publish(key, "")
        pipeline.execute()


def subscribers(server: RedisServer, project_id: str = "p") -> int:
    with server.client() as client:
        ((_, number),) = client.pubsub_numsub(stream(project_id))
        return int(number)


def reconnects(node: Node) -> float:
    return node.backplane.stats()["backplane_reconnects_total"]


# What nodes are told, and what they are not -------------------------------------------------------------------


def test_an_entry_of_which_nobody_says_anything_is_found(node: Node, server: RedisServer) -> None:
    projects = [f"p{number}" for number in range(20)]  # of all turns
    for project_id in projects:
        node.follow(project_id)
        until(lambda project_id=project_id: subscribers(server, project_id))  # type: ignore[misc]
    for number, project_id in enumerate(projects):
        add(server, number, key=stream(project_id), tell=False)
    until(lambda: len(node.numbers) == 20)
    assert sorted(node.numbers) == list(range(20))
    with server.client() as client:
        client.xadd(CONTROL, {"said": Announcement("another", LoggedOut("u")).encode()})
    until(lambda: LoggedOut("u") in node.told)


@pytest.mark.usefixtures("only_told")
def test_whoever_adds_an_entry_may_say_so(node: Node, server: RedisServer) -> None:
    node.follow()
    add(server, *range(3 * READ_COUNT + 1), tell=True)
    until(lambda: len(node.numbers) == 3 * READ_COUNT + 1)
    assert node.numbers == list(range(3 * READ_COUNT + 1))
    with server.client() as client:
        client.xadd(CONTROL, {"said": Announcement("another", LoggedOut("u")).encode()})
        client.publish(CONTROL, "")
    until(lambda: LoggedOut("u") in node.told)


@pytest.mark.usefixtures("only_told")
def test_what_is_published_under_a_claim_is_told_of(node: Node, server: RedisServer) -> None:
    node.follow()
    until(lambda: subscribers(server))
    with server.client() as client:
        now = str(client.time()[0])
    writer = Writer(server.url, entries=1000, max_age=1000, patience=PATIENCE, troubles=Troubles())
    for _ in range(2):
        writer.publish_once("p", "e", '{"n":1}', digest="1", since=now).result(PATIENCE)
    assert writer.close(PATIENCE)
    until(lambda: node.numbers == [1])


def test_what_is_said_of_nothing_changes_nothing(node: Node, server: RedisServer) -> None:
    node.follow()
    until(lambda: subscribers(server))
    with server.client() as client:
        keys = client.pubsub_channels("automoderate:*")
        assert {KEY.encode(), CONTROL.encode()} < set(keys), "and the node's own"
        for key in keys:
            for said in ("", "x" * 100_000, b"\xff"):
                assert client.publish(key, said) == 1
        client.publish(stream("nobody follows it"), "")
    node.publish(1)
    until(lambda: node.numbers == [1])
    assert len(node.told) == 1
    assert reconnects(node) == 0


@pytest.mark.usefixtures("only_told")
def test_who_joins_does_not_wait_for_what_nobody_says(node: Node, server: RedisServer) -> None:
    node.follow()
    until(lambda: subscribers(server))
    node.publish(1)
    until(lambda: node.numbers == [1])
    add(server, 2, tell=False)
    node.read("p", None)
    until(lambda: node.numbers == [1, 2])


@pytest.mark.usefixtures("only_told")
def test_of_a_thousand_projects_only_the_one_with_several_updates_is_read(
    new_node: NewNode, server: RedisServer
) -> None:
    near, far = new_node(), new_node()
    projects = [f"p{number}" for number in range(1000)]
    for project_id in projects:
        far.follow(project_id)
    until(lambda: subscribers(server, projects[-1]))
    for number in range(2):  # when it has the second it has done with all that came before the first
        near.publish(number, project_id=projects[0])
        until(lambda number=number: number in far.numbers)  # type: ignore[misc]
    with server.client() as client, client.monitor() as monitor:
        near.publish(2, project_id=projects[500])
        until(lambda: 2 in far.numbers)
        add(server, 3, 4, key=stream(projects[700]), tell=True)
        until(lambda: 4 in far.numbers)
        with server.client() as another:
            another.echo("the end")
        assert read(commands(monitor)) == [stream(projects[700])], "an update by itself was told"
    assert far.numbers == [0, 1, 2, 3, 4]


def commands(monitor: Any) -> Iterator[str]:
    while (command := monitor.next_command()["command"]) != "ECHO the end":
        yield command


def read(commands: Iterator[str]) -> list[str]:
    """The projects' streams that were named."""
    found: list[str] = []
    for command in commands:
        if command.startswith("XREAD "):
            words = command.partition(" STREAMS ")[2].split()
            found.extend(word for word in words[: len(words) // 2] if word.endswith(":updates"))
    return found


# Entries that are told ----------------------------------------------------------------------------------------


def told(event_id: str, before: str, number: int) -> str:
    """How an entry is told."""
    return f'+{event_id} {before} e\n{{"n":{number}}}'


@pytest.mark.usefixtures("only_told")
def test_what_is_told_of_is_taken_only_where_nothing_is_missed_before_it(node: Node, server: RedisServer) -> None:
    position = node.follow()
    until(lambda: subscribers(server))
    add(server, 1, tell=False)  # of which nobody says anything
    with server.client() as client:
        (newest, _), *_ = client.xrevrange(KEY, count=1)
        later = client.xadd(KEY, {"event": "e", "data": '{"n":2}'}).decode()
        client.publish(KEY, told(later, newest.decode(), 2))
        until(lambda: node.numbers == [1, 2], "both were read")
        client.publish(KEY, told(later, position, 2))  # it is late, or again
        client.publish(KEY, told(later, newest.decode(), 2))
    node.publish(3)
    until(lambda: node.numbers == [1, 2, 3])
    assert node.lost == []


@pytest.mark.usefixtures("only_told")
@pytest.mark.parametrize("said", [b"+", b"+1-0", b"+1-0 x e\n{}", b"+\xff 1-0 e\n{}", b"+ 1-0 e\n{}"])
def test_what_tells_of_no_entry_is_looked_after(node: Node, server: RedisServer, said: bytes) -> None:
    node.follow()
    until(lambda: subscribers(server))
    add(server, 1, tell=False)
    with server.client() as client:
        client.publish(KEY, said)
    until(lambda: node.numbers == [1])
    until(lambda: node.backplane.stats()["backplane_rejected_total"] == 1)


@pytest.mark.usefixtures("only_told")
def test_an_entry_that_is_told_and_was_never_there_is_noticed_as_a_gap(node: Node, server: RedisServer) -> None:
    position = node.follow()
    until(lambda: subscribers(server))
    with server.client() as client:
        client.publish(KEY, told(f"{int(position.partition('-')[0]) + 1}-0", position, 1))
        until(lambda: node.numbers == [1])
        client.client_kill_filter(_type="pubsub", skipme=True)
    until(lambda: node.lost == ["p"], "who saw it has to catch up")


@pytest.mark.usefixtures("only_told")
def test_an_announcement_comes_before_an_update_that_is_told_after_it(new_node: NewNode, server: RedisServer) -> None:
    near, far = new_node(), new_node()
    far.follow()
    until(lambda: subscribers(server))
    for number in range(50):
        near.backplane.announce(LoggedOut(f"u{number}")).result(PATIENCE)
        near.publish(number)
    until(lambda: len(far.numbers) == 50)
    said = [item for item in far.told if isinstance(item, LoggedOut | Published)]
    places = {item.user_id if isinstance(item, LoggedOut) else f"n{item.update.data['n']}": place
              for place, item in enumerate(said)}  # fmt: skip
    assert all(places[f"u{number}"] < places[f"n{number}"] for number in range(50))


@pytest.mark.usefixtures("only_told")
def test_an_announcement_comes_before_an_update_that_is_read_before_its_message(
    node: Node, server: RedisServer
) -> None:
    node.follow()
    until(lambda: subscribers(server))
    with server.client() as client:
        for number in range(20):
            client.xadd(CONTROL, {"said": Announcement("another", LoggedOut(f"u{number}")).encode()})
            add(server, number, tell=True)
    until(lambda: len(node.numbers) == 20)
    said = [item.user_id if isinstance(item, LoggedOut) else f"n{item.update.data['n']}"
            for item in node.told if isinstance(item, LoggedOut | Published)]  # fmt: skip
    assert [name for name in said if name[0] == "u"] == [f"u{number}" for number in range(20)]
    assert all(said.index(f"u{number}") < said.index(f"n{number}") for number in range(20))


@pytest.mark.usefixtures("only_told")
def test_what_is_too_large_to_be_told_and_what_is_published_together_is_read(node: Node, server: RedisServer) -> None:
    node.follow()
    until(lambda: subscribers(server))
    text = '{"n":1,"text":"' + "x" * MAX_TOLD + '"}'
    node.backplane.publish("p", "e", text).result(PATIENCE)
    node.backplane.publish_all("p", [("e", '{"n":2}'), ("e", '{"n":3}')]).result(PATIENCE)
    node.publish(*range(4, 300))
    until(lambda: len(node.numbers) == 299)
    assert node.numbers == list(range(1, 300))
    with server.client() as client:
        assert 0 < client.ttl(KEY) <= 86_400


# Who is followed ----------------------------------------------------------------------------------------------


def test_what_is_followed_no_longer_is_heard_no_longer(node: Node, server: RedisServer) -> None:
    for _ in range(3):
        node.follow()
        until(lambda: subscribers(server) == 1)
        node.backplane.unfollow("p")
        until(lambda: subscribers(server) == 0)


@pytest.mark.usefixtures("only_told")
def test_what_came_before_its_channel_was_heard_is_found(new_node: NewNode, cable: Cable, server: RedisServer) -> None:
    node = new_node(cable)
    cable.before(b"SUBSCRIBE\r\n$%d\r\n%s" % (len(KEY), KEY.encode()), lambda: add(server, 1, tell=True))
    node.follow()
    until(lambda: node.numbers == [1])


@pytest.mark.usefixtures("only_told")
def test_whenever_a_project_is_joined_live_continues_where_its_history_ended(
    new_node: NewNode, server: RedisServer, seed: int
) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    near, far = new_node(), new_node()
    over = threading.Event()

    def publish() -> None:
        pause = random.Random(seed + 1)
        while not over.is_set():
            near.publish(*range(pause.choice([1, 1, 5])))
            over.wait(pause.choice([0, 0.001, 0.01]))

    publishing = threading.Thread(target=publish)
    publishing.start()
    try:
        for _ in range(60):
            check_join(far, server, chance)
    finally:
        over.set()
        publishing.join(PATIENCE)
    assert far.lost == []


def check_join(node: Node, server: RedisServer, chance: random.Random) -> None:
    for _ in range(chance.randrange(3)):  # not for long
        if chance.random() < 0.5:
            node.follow()
        else:
            node.backplane.follow("p")
        node.backplane.unfollow("p")
    position = node.follow()
    wanted = chance.randrange(1, 10)
    # What was under way when it was followed no longer is older.
    until(lambda: len(after(node, position)) >= wanted, "updates come")
    node.backplane.unfollow("p")
    seen = after(node, position)
    with server.client() as client:
        there = [entry.decode() for entry, _ in client.xrange(KEY, f"({position}", count=len(seen))]
    assert seen == there
    time.sleep(chance.choice([0, 0, 0.002]))  # so that it is followed again sooner or later


def after(node: Node, position: str) -> list[str]:
    ids = [item.update.event_id for item in list(node.told) if isinstance(item, Published)]
    return [each for each in ids if order(each) > order(position)]


def order(event_id: str) -> tuple[int, ...]:
    return tuple(map(int, event_id.split("-")))


# What is cut --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("only_told")
@pytest.mark.parametrize("which", ["subscription", "reading", "either"])
def test_a_connection_that_is_cut_loses_nothing(
    new_node: NewNode, cable: Cable, server: RedisServer, which: str
) -> None:
    near, far = new_node(), new_node(cable)
    far.follow()
    for number in range(6):
        until(far.hears)
        before = reconnects(far)
        near.publish(*range(10 * number, 10 * number + 5))
        if which == "subscription" or (which == "either" and number % 2):
            cable.cut_where(b"SUBSCRIBE")
        else:
            cable.cut_where(b"XREAD")
        add(server, *range(10 * number + 5, 10 * number + 10), tell=True)  # which has to be read
        until(lambda before=before: reconnects(far) > before, "it notices")  # type: ignore[misc]
        until(lambda number=number: len(far.numbers) >= 10 * number + 10)  # type: ignore[misc]
    assert far.numbers == list(range(60))
    assert far.lost == []
    assert reconnects(near) == 0


def test_a_subscription_that_nothing_comes_from_is_made_anew(
    new_node: NewNode, cable: Cable, server: RedisServer
) -> None:
    near, far = new_node(), new_node(cable)
    far.follow()
    until(lambda: subscribers(server))
    cable.say(b"SUBSCRIBE", b"UNSUBSCRIBE\r\n")
    until(lambda: not subscribers(server))
    near.publish(1)
    until(lambda: reconnects(far) == 1, "it notices")
    until(lambda: subscribers(server) and far.hears())
    near.publish(2)
    until(lambda: far.numbers == [1, 2])
    assert far.lost == []


@pytest.mark.usefixtures("only_told")
def test_a_node_that_takes_no_messages_is_dropped_by_redis_and_reads_on(node: Node, server: RedisServer) -> None:
    done: Future[None] = Future()
    node.acted = done
    node.follow()
    node.publish(0)
    until(lambda: node.numbers == [0])
    node.publish(1)  # it waits for the server here
    with server.client() as client:
        client.config_set("client-output-buffer-limit", "pubsub 1mb 0 0")
        until(lambda: client.publish(KEY, "x" * 1_000_000) == 0, "Redis drops it")
    node.publish(2)
    done.set_result(None)
    until(lambda: node.numbers == [0, 1, 2])
    until(lambda: reconnects(node) == 1)
    assert node.lost == []


# Who may not --------------------------------------------------------------------------------------------------


def test_a_redis_that_lets_a_node_hear_no_channel_is_refused(server: RedisServer) -> None:
    with server.client() as client:
        client.acl_setuser("deaf", enabled=True, nopass=True, commands=["+@all"], keys=["*"], reset_channels=True)
    backplane = RedisBackplane(server.url.replace("//", "//deaf:x@"))
    with pytest.raises(BackplaneUnavailable, match=r"^cannot use Redis at \S+: .*channel"):
        backplane.check()
    backplane.close()


def test_a_node_needs_nothing_in_redis_but_what_has_its_name(
    server: RedisServer, request: pytest.FixtureRequest
) -> None:
    with server.client() as client:
        names = {"keys": ["automoderate:*"], "channels": ["automoderate:*"]}
        client.acl_setuser("able", enabled=True, nopass=True, commands=["+@all"], **names)
    node = Node(server.url.replace("//", "//able:x@"))
    request.addfinalizer(node.backplane.close)
    node.backplane.check()
    node.follow()
    node.publish(1)
    until(lambda: node.numbers == [1])


def test_what_nodes_cannot_be_told_of_is_published_all_the_same(
    node: Node, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "automoderate.redis")
    node.follow()
    with server.client() as client:
        client.acl_setuser("mute", enabled=True, nopass=True, commands=["+@all", "-publish"], keys=["*"])
    door = RedisPublisher(server.url.replace("//", "//mute:x@"), patience=PATIENCE, max_waiting=10)
    for number in range(2):
        door.publish("p", "e", {"n": number}).result(PATIENCE)
    until(lambda: node.numbers == [0, 1])
    assert door.close(PATIENCE)
    (said,) = caplog.messages
    assert said.startswith("messages that tell other nodes at once what is new fail: ")
