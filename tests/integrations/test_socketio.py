"""What attaching itself promises: the application's handlers, the end, and who may be attached to."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import requests
import socketio

from automoderate.adapters import load, names
from automoderate.backplane.memory import MemoryBackplane
from automoderate.core.hub import Hub
from automoderate.integrations.socketio import attach
from automoderate.integrations.translation import Call
from automoderate.notifier import WebSocketNotifier
from automoderate.server.interfaces import NotRunning
from automoderate.testing import MemoryDirectory
from kits import PATIENCE, until
from kits.attached_servers import World


def test_the_applications_own_handlers_go_on(world: World) -> None:
    alice = world.welcome("alice")
    assert alice.call("chat", {"text": "hello"}) == "heard"
    assert world.application_saw == [("connect", None), ("chat", {"text": "hello"})]


def test_whom_the_application_refuses_the_hub_never_meets(world: World) -> None:
    client = world.client("alice#refuse")
    client.wait("connect_error")
    assert world.hub.counts()["sessions"] == 0


def test_nobody_is_met_before_the_application_has_let_them_in(world: World) -> None:
    """A second post overtakes the one whose CONNECT still waits for the application's handler."""
    url = f"http://127.0.0.1:{world.port}/socket.io/?EIO=4&transport=polling"
    headers = {"Cookie": world.directory.cookie_of("alice#slow")}
    sid = requests.get(url, headers=headers, timeout=PATIENCE).text.split('"')[3]

    def post(data: str) -> None:
        assert requests.post(f"{url}&sid={sid}", data, headers=headers, timeout=PATIENCE).status_code == 200

    with ThreadPoolExecutor(1) as pool:
        connecting = pool.submit(post, "40")
        until(lambda: bool(world.application_saw))
        post('42["leave_project",{"project_id":"p"}]')
        assert world.hub.counts()["sessions"] == 0
        world.gate.set()
        connecting.result(PATIENCE)
    assert world.hub.counts()["sessions"] == 1
    seen = ""
    while "connected" not in seen:
        seen += requests.get(f"{url}&sid={sid}", timeout=PATIENCE).text + "\x1e"
    packets = [packet for packet in seen.split("\x1e") if packet != "2"]  # a ping may come first
    assert packets[0].startswith("40")


def test_whom_the_application_disconnects_the_hub_forgets(world: World) -> None:
    alice, bob = world.welcome("alice"), world.welcome("bob")
    alice.call("join_project", {"project_id": "p"})
    closing = world.sio.disconnect(world.sids[0])
    if closing is not None:
        world.run(closing)
    alice.wait("disconnect")
    bob.call("leave_project", {"project_id": "p"})
    until(lambda: world.hub.counts()["sessions"] == 1)
    assert world.hub.counts()["memberships"] == 0


def test_what_only_looks_like_an_event_of_ours_is_left_to_the_library(world: World) -> None:
    alice = world.welcome("alice")
    alice.emit("join_project", {"project_id": b"binary"})
    alice.emit("unheard_of", {"project_id": "p"})
    assert alice.call("chat", {"bytes": b'2["join_project",{"project_id":"p"}]'}) == "heard"
    assert alice.call("leave_project", {"project_id": "p"}) == {"project_id": "p"}
    assert [name for name, _ in alice.events if name not in ("connect", "ready")] == ["connected", "left_project"]


def test_updates_of_many_threads_keep_the_order_of_each(world: World) -> None:
    alice = world.welcome("alice")
    alice.call("join_project", {"project_id": "p"})

    def publish(source: int) -> None:
        for number in range(50):
            world.attachment.publish("p", "stats_update", {"source": source, "number": number})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(publish, range(4)))
    updates = alice.wait_all("stats_update", 200)
    for source in range(4):
        assert [update["number"] for update in updates if update["source"] == source] == list(range(50))
    ids = [tuple(map(int, update["event_id"].split("-"))) for update in updates]
    assert ids == sorted(set(ids))


def test_the_notifier_publishes_through_it(world: World) -> None:
    alice = world.welcome("alice")
    alice.call("join_project", {"project_id": "p"})
    notifier = WebSocketNotifier(realtime=world.attachment)
    notifier.send_stats_update("p", {"total": 3})
    assert alice.wait("stats_update")["total"] == 3
    notifier.close(PATIENCE)
    assert notifier.sent == 1


def test_taken_off_the_clients_stay_and_are_told_nothing_more(world: World) -> None:
    alice = world.welcome("alice")
    alice.call("join_project", {"project_id": "p"})
    world.publish(1)
    world.take_off()
    world.take_off()
    assert [data["n"] for data in alice.wait_all("moderation_update", 1)] == [1]
    assert list(world.sio.manager.get_participants("/", "project_p")) == []
    for future in (
        world.attachment.publish("p", "moderation_update", {"n": 2}),
        world.attachment.access_changed(user_id="alice"),
        world.attachment.logged_out("alice"),
    ):
        assert isinstance(future.exception(PATIENCE), NotRunning)
    assert alice.call("chat", "still there") == "heard"
    alice.emit("join_project", {"project_id": "p"})
    assert alice.call("chat", "and nobody else") == "heard"
    assert [name for name, _ in alice.events if name not in ("connect", "ready")] == [
        "connected", "joined_project", "moderation_update",
    ]  # fmt: skip
    assert world.hub.counts()["sessions"] == 0


@pytest.mark.parametrize("server", [None, object(), socketio.Manager()])
def test_anything_else_is_refused(server: Any) -> None:
    with pytest.raises(TypeError, match=r"Flask-SocketIO has it as \.server"):
        attach(server, Hub(), directory=MemoryDirectory(), backplane=MemoryBackplane())


@pytest.mark.parametrize("make", [socketio.Server, socketio.AsyncServer])
def test_nothing_is_started_before_the_first_client(make: Any) -> None:
    server = make(async_mode="threading") if make is socketio.Server else make()
    backplane = MemoryBackplane()
    attachment = attach(server, Hub(random=random.random), directory=MemoryDirectory(), backplane=backplane)
    event_id = attachment.publish("p", "stats_update", {}).result(0)
    assert backplane.read("p", "0-0").last_event_id == event_id
    attachment.close()
    assert isinstance(attachment.publish("p", "stats_update", {}).exception(0), NotRunning)


def test_what_the_server_did_not_perform_is_logged_without_its_content(caplog: pytest.LogCaptureFixture) -> None:
    def emit(_event: str, _data: dict[str, str]) -> None:
        raise OSError("it is gone")

    call = Call(partial(emit, "moderation_update", {"content_preview": "buy my spam"}))
    try:
        call.perform()
    except OSError:
        call.failed()
    assert "did not perform emit" in caplog.text
    assert "it is gone" in caplog.text
    assert "spam" not in caplog.text


def test_it_is_no_runtime_to_serve_with() -> None:
    assert "socketio" not in names()
    with pytest.raises(ValueError, match="unknown adapter 'socketio'"):
        load("socketio")
