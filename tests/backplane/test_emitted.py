"""What a message of python-socketio's RedisManager is to us, without a Redis."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import socketio

from automoderate.backplane.redis.emitted import Emitted, NotJSON, emitted
from automoderate.backplane.redis.entries import MAX_EVENT, MAX_UPDATE, BadEntry


class Written(socketio.PubSubManager):  # type: ignore[misc]
    """Keeps what the library would have published."""

    def __init__(self) -> None:
        super().__init__(write_only=True)
        self.set_server(socketio.Server(async_mode="threading"))
        self.messages: list[bytes] = []

    def _publish(self, data: Any) -> None:
        self.messages.append(json.dumps(data).encode())


def message(**changes: Any) -> bytes:
    """An emit as python-socketio 5.14 writes it, with some of it changed."""
    said = {
        "method": "emit", "event": "moderation_update", "data": [{"n": 1}], "binary": False, "namespace": "/",
        "room": "project_p", "skip_sid": None, "callback": None, "host_id": "0" * 32,
    }  # fmt: skip
    return json.dumps(said | changes).encode()


@pytest.mark.parametrize("room", ["project_p", ["project_p"], ["project_p", "lobby", "project_p", 7, ["project_p"]]])
def test_what_is_emitted_to_a_project_is_its_update(room: object) -> None:
    assert emitted(message(room=room)) == Emitted(("p",), "moderation_update", '{"n":1}')


def test_a_list_of_rooms_is_each_of_their_projects() -> None:
    found = emitted(message(room=["project_b", "project_a", "lobby"]))
    assert found is not None
    assert found.projects == ("b", "a")


@pytest.mark.parametrize("event", ["stats_update", "error", "a word of the application's own", "é" * MAX_EVENT])
def test_every_name_that_an_event_may_have_goes_through(event: str) -> None:
    assert emitted(message(event=event)) == Emitted(("p",), event, '{"n":1}')


@pytest.mark.parametrize("namespace", ["/", None, ""])
def test_the_default_namespace_need_not_be_named(namespace: str | None) -> None:
    assert emitted(message(namespace=namespace)) is not None


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ([{}], "{}"),
        ({"n": 1}, '{"n":1}'),
        ([{"event_id": "7-7", "n": 1}], '{"n":1}'),
        ([{"event_id": "7-7"}], "{}"),
        ([{"n": 10**30, "x": None, "s": "€\ud800"}], f'{{"n":{10**30},"x":null,"s":"\\u20ac\\ud800"}}'),
    ],
)  # fmt: skip
def test_data_means_the_same_afterwards_without_an_event_id(data: object, text: str) -> None:
    found = emitted(message(data=data))
    assert found is not None
    assert json.loads(found.text) == json.loads(text)


def test_whom_it_skips_and_who_is_called_back_changes_nothing() -> None:
    assert emitted(message(skip_sid=["x"], callback=["project_p", "/", 1])) == emitted(message())


@pytest.mark.parametrize(
    "say",
    [
        lambda manager: manager.emit("e", {"n": 1}),
        lambda manager: manager.emit("e", {"n": 1}, room="lobby"),
        lambda manager: manager.emit("e", {"n": 1}, room="project_"),
        lambda manager: manager.emit("e", {"n": 1}, room="project_" + "x" * 101),
        lambda manager: manager.emit("e", {"n": 1}, room=["lobby", "hall"]),
        lambda manager: manager.emit("e", {"n": 1}, room="project_p", namespace="/admin"),
        lambda manager: manager.emit("e", b"\x00", room="lobby"),
        lambda manager: manager.can_disconnect("sid", "/"),
        lambda manager: manager.disconnect("sid", "/"),
        lambda manager: manager.enter_room("sid", "/", "project_p"),
        lambda manager: manager.leave_room("sid", "/", "project_p"),
        lambda manager: manager.close_room("project_p", "/"),
    ],
)
def test_what_else_the_library_says_is_nothing_to_us(say: Callable[[Written], object]) -> None:
    manager = Written()
    say(manager)
    assert [emitted(said) for said in manager.messages] == [None]


def test_an_answer_to_another_host_is_nothing_to_us() -> None:
    assert emitted(message(method="callback", host_id="host", sid="sid", id=1, args=[])) is None


@pytest.mark.parametrize("said", [b"{}", b"[]", b"null", b"7", b'"emit"', b'["method"]', b'{"method":["emit"]}'])
def test_json_of_somebody_elses_is_nothing_to_us(said: bytes) -> None:
    assert emitted(said) is None


@pytest.mark.parametrize(
    "room", [None, 7, True, {}, {"project_p": 1}, [], [None], [["project_p"]], "Project_p", "project_\ud800"]
)
def test_a_room_that_is_none_is_nothing_to_us(room: object) -> None:
    assert emitted(message(room=room)) is None


@pytest.mark.parametrize("namespace", ["/admin", 7, ["/"], {"/": 1}])
def test_a_namespace_that_is_another_is_nothing_to_us(namespace: object) -> None:
    assert emitted(message(namespace=namespace)) is None


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_not_opened(protocol: int) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
            return pytest.fail, ("it was opened",)

    for said in (json.loads(message()), Trap()):
        with pytest.raises(NotJSON):
            emitted(pickle.dumps(said, protocol))


@pytest.mark.parametrize("said", [b"", b"\xff", b"{", b"no json", message() + b"}", b"[" * 100_000])
def test_what_is_not_json_is_called_that(said: bytes) -> None:
    with pytest.raises(NotJSON):
        emitted(said)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"event": None}, "event has no name"),
        ({"event": 7}, "event has no name"),
        ({"event": ""}, "event's name"),
        ({"event": "two\nlines"}, "event's name"),
        ({"event": "e" * (MAX_EVENT + 1)}, "event's name"),
        ({"data": None}, "'moderation_update' is not one object"),
        ({"data": []}, "is not one object"),
        ({"data": ["text"]}, "is not one object"),
        ({"data": [None]}, "is not one object"),
        ({"data": [[{}]]}, "is not one object"),
        ({"data": [{}, {}]}, "is not one object"),
        ({"data": [{"n": float("nan")}]}, "cannot be sent: Out of range"),
        ({"data": [{"n": float("inf")}]}, "cannot be sent: Out of range"),
        ({"data": [{"text": "x" * MAX_UPDATE}]}, f"more than {MAX_UPDATE}"),
        ({"binary": True, "data": [[{"_placeholder": True, "num": 0}], "AA=="]}, "is binary"),
    ],
)
def test_what_cannot_be_an_update_is_refused_with_the_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadEntry, match=reason) as caught:
        emitted(message(**changes))
    assert not isinstance(caught.value, NotJSON)


@pytest.mark.parametrize("missing", ["event", "data"])
def test_what_is_incomplete_is_refused(missing: str) -> None:
    said = json.loads(message())
    del said[missing]
    with pytest.raises(BadEntry):
        emitted(json.dumps(said).encode())


def test_data_that_is_nested_as_deep_as_it_goes_is_taken_or_refused() -> None:
    outcomes: set[type] = set()
    for depth in (*range(10, 3000, 10), 150_000):  # Python 3.14 goes as deep as its stack is
        said = message().replace(b'{"n": 1}', b'{"n":' * depth + b"1" + b"}" * depth)
        try:
            outcomes.add(type(emitted(said)))
        except BadEntry as error:
            outcomes.add(type(error))
    assert Emitted in outcomes
    assert len(outcomes) > 1


def test_what_the_library_writes_is_understood() -> None:
    manager = Written()
    manager.emit("stats_update", {"n": 1}, to="project_p")
    manager.emit("stats_update", ({"n": 2},), room=["project_p", "project_q"], skip_sid="x")
    assert [emitted(said) for said in manager.messages] == [
        Emitted(("p",), "stats_update", '{"n":1}'), Emitted(("p", "q"), "stats_update", '{"n":2}'),
    ]  # fmt: skip
