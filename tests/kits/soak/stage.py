"""What a fault run is played on: a Redis, two nodes in processes of their own, a database; and what breaks them."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import redis
import requests

from automoderate.backplane.redis.histories import MAX_HISTORY
from automoderate.core.hub import stamped
from automoderate.directory import accounts
from automoderate.notifier.http import PublishingApi, PublishingError
from kits import PATIENCE, until
from kits.live_server import PASSWORD, LiveServer
from kits.processes import Process, steady_port
from kits.redis_server import RedisServer
from kits.soak.plan import NODES, PROJECTS, Fault, Plan
from kits.soak.verdict import Entry, Limits

ENTRIES = 100_000
"""So many updates of each project are kept that none is missing at the end."""
LIMITS = Limits(entries=ENTRIES, size=MAX_HISTORY)
CANNOT_START = 3
"""How a node ends that finds no Redis; whatever minds it starts it again."""
SETTINGS = {
    "history_entries": str(ENTRIES),
    "max_connections_per_minute": "1000000",  # all clients are of one address
    "max_events_per_minute": "10000",
    "drain_timeout": "5",
    "check_timeout": str(PATIENCE),
    # Only announcements make anybody leave: one that got lost would show.
    "recheck_interval": "100000",
}


class Stage:
    """Everything but clients and publishers. Methods are for threads; what they break is whole when they return."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.redis = RedisServer(folder)
        self._world = LiveServer(folder)
        self.projects: dict[str, tuple[str, str]] = {}
        """Each project's id and API key, by name."""
        self._users: dict[str, str] = {}
        self.removed: set[tuple[str, str]] = set()
        """Projects and users: who is no longer a member."""
        self._plan = plan
        self._ports = {name: steady_port() for name in NODES}
        self.bases = {name: f"http://127.0.0.1:{port}" for name, port in self._ports.items()}
        self._nodes = {
            name: Process(
                folder / f"{name}.log", adapter=plan.adapters[name], port=str(port), redis_url=self.redis.url,
                database_url=str(self._world.database), **SETTINGS,
            )
            for name, port in self._ports.items()
        }  # fmt: skip
        self._faults: Mapping[str, Callable[[Fault], None]] = {
            "redis killed": self._kill_redis, "redis paused": self._pause_redis,
            "redis connections cut": self._cut_redis, "node killed": self._stop_node, "node drained": self._stop_node,
            "member removed": self._remove_member,
        }  # fmt: skip

    def start(self) -> None:
        """Start the nodes, and meanwhile make users and projects."""
        with ThreadPoolExecutor() as threads:
            started = [threads.submit(node.start) for node in self._nodes.values()]
            self._populate()
            for each in started:
                each.result()

    def _populate(self) -> None:
        database = self._world.database
        for name in self._plan.users:
            address = f"{name.replace(' ', '')}@example.org"
            self._users[name] = accounts.create_user(database, username=name, email=address, password=PASSWORD).id
        for name in PROJECTS:
            project_id = accounts.create_project(database, name=name, owner_id=self._world.users["alice"]).id
            self.projects[name] = project_id, accounts.create_api_key(database, project_id, "publisher").key
            for user in sorted(self._plan.members[name]):
                accounts.add_member(database, project_id, self._users[user])

    def cookies(self) -> dict[str, str]:
        """A ``Cookie`` header for each user, by name."""
        return {
            name: self._world.cookie_of({"_user_id": user_id, "_fresh": True}) for name, user_id in self._users.items()
        }

    def close(self) -> None:
        for node in self._nodes.values():
            node.close()
        self._world.close()
        self.redis.close()

    def log_of(self, node: str) -> str:
        return self._nodes[node].log

    # Faults

    def perform(self, fault: Fault) -> None:
        """Break something, and mend it."""
        self._faults[fault.kind](fault)

    def _kill_redis(self, fault: Fault) -> None:
        self.redis.kill()
        time.sleep(fault.seconds)
        self.redis.start()

    def _pause_redis(self, fault: Fault) -> None:
        self.redis.pause()
        time.sleep(fault.seconds)
        self.redis.resume()

    def _cut_redis(self, fault: Fault) -> None:
        """Of both nodes and of the publishers; a reader is one that hears or reads what is new."""
        with self.redis.client() as client:
            for each in [*client.client_list(_type="normal"), *client.client_list(_type="pubsub")]:
                reads = each["cmd"] in ("xread", "subscribe", "unsubscribe")
                if each["name"] == "automoderate" and fault.target in ("all", "readers" if reads else "others"):
                    with contextlib.suppress(redis.ResponseError):  # it has gone by itself
                        client.client_kill(each["addr"])

    def _stop_node(self, fault: Fault) -> None:
        node = self._nodes[fault.target]
        node.stop(signal.SIGKILL if fault.kind == "node killed" else signal.SIGTERM)
        time.sleep(fault.seconds)
        until(lambda: self._started(node), f"node {fault.target} starts")

    @staticmethod
    def _started(node: Process) -> bool:
        if node.try_to_start():
            return True
        assert node.wait() == CANNOT_START, node.log
        return False

    def _remove_member(self, fault: Fault) -> None:
        """Announced until somebody has taken it, as a program has to that wants it to take effect at once."""
        project_id, api_key = self.projects[fault.target]
        user_id = self._users[fault.user]
        accounts.remove_member(self._world.database, project_id, user_id)
        self.removed.add((fault.target, fault.user))
        until(lambda: any(self._announced(base, api_key, project_id, user_id) for base in self.bases.values()))

    @staticmethod
    def _announced(base: str, api_key: str, project_id: str, user_id: str) -> bool:
        try:
            with PublishingApi(base, timeout=PATIENCE) as api:
                api.access_changed(api_key, project_id=project_id, user_id=user_id)
        except PublishingError:
            return False
        return True

    # The end

    def heal(self) -> None:
        """Wait until both nodes say that all is well."""
        for name, base in self.bases.items():
            until(lambda base=base: _ready(base), f"node {name} is ready")  # type: ignore[misc]

    def stream_of(self, name: str) -> list[Entry]:
        """What is in a project's stream, without the marks."""
        with self.redis.client() as client:
            found = client.xrange(_key(self.projects[name][0]))
        return [_entry(event_id.decode(), values[b"data"].decode()) for event_id, values in found if values[b"event"]]

    def newest(self) -> dict[str, str]:
        """The id of the newest update of each project, by the project's id."""
        with self.redis.client() as client:
            return {
                project_id: client.xrevrange(_key(project_id), count=1)[0][0].decode()
                for project_id, _ in self.projects.values()
            }


def _key(project_id: str) -> str:
    return f"automoderate:{{{project_id}}}:updates"


def _entry(event_id: str, text: str) -> Entry:
    return Entry(event_id, json.loads(text)["number"], len(stamped(text, event_id)))


def _ready(base: str) -> bool:
    try:
        return requests.get(f"{base}/readyz", timeout=PATIENCE).status_code == 200
    except requests.ConnectionError:
        return False
