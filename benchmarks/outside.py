"""Figures of updates that come over HTTP: by the load generator's own hand, and through our notifier."""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.child import Child
from benchmarks.generator import SENT, SEQ, Posted
from benchmarks.inside import LONGEST
from benchmarks.servers import STARTING
from benchmarks.site import Site, costs
from benchmarks.world import TEMPLATE, World, api_key

CONNECTIONS = 8
WARM_UP = 100  # POSTs
MOST = 100_000  # POSTs in one run
BURST = 5000  # updates


def warm_up(site: Site, world: World) -> None:
    """A few POSTs that tell how many there are to be."""
    posted = _post(site, world, WARM_UP)
    site.posts = posted.posted / posted.seconds


def measure_publish(site: Site, world: World, seconds: float) -> dict[str, Any]:
    """POSTs on kept-alive connections, as many as are answered, each of which has to arrive."""
    server = site.alone()
    before = server.cpu()
    posted = _post(site, world, max(CONNECTIONS, min(MOST, round(site.posts * seconds))))
    site.posts = posted.posted / posted.seconds
    return {
        "updates": posted.posted, "rate": site.posts, **costs(posted, server.cpu() - before, posted.posted),
        "answer": posted.answer.summary(), "delay": posted.delivery.summary(),
    }  # fmt: skip


def _post(site: Site, world: World, updates: int) -> Posted:
    project = world.projects - 1  # the probe's, which is in no room that is measured otherwise
    meta_data = {**TEMPLATE["meta_data"], "seq": SEQ, "sent": SENT}
    data = {**TEMPLATE, "project_id": world.probe().project_id, "meta_data": meta_data}
    body = json.dumps({"event": "moderation_update", "data": data})
    body = body.replace(f'"{SEQ}"', SEQ).replace(f'"{SENT}"', SENT)
    path = f"/api/projects/{world.probe().project_id}/events"
    return site.load.post(CONNECTIONS, updates, path, api_key(project), body)


def measure_notifier(site: Site, world: World) -> dict[str, Any]:
    """A burst through ``WebSocketNotifier(url=…)`` in a process of its own, until its last update has arrived."""
    server = site.alone()
    where = (f"http://127.0.0.1:{server.ports[0]}", api_key(world.projects - 1), world.probe().project_id)
    argv = [sys.executable, "-m", "benchmarks.notifying", *_source(site), *where, str(BURST), str(site.config)]
    notifier = Child(argv, site.cores.load)
    try:
        notifier.hear(STARTING)
        site.load.listen()
        before, spent = server.cpu(), notifier.cpu()
        notifier.say("go")
        told = notifier.hear(LONGEST)
        heard = site.load.heard(told["sent"], LONGEST)
        spent = notifier.cpu() - spent
        number = heard.deliveries
        return {
            "updates": BURST, "deliveries": number, "rate": number / heard.seconds, "dropped": told["dropped"],
            "failed": told["failed"], **costs(heard, server.cpu() - before, number, spent),
            "notifier_cpu": spent, "notifier_us": spent / number * 1e6, "delay": heard.delivery.summary(),
        }  # fmt: skip
    finally:
        notifier.close()


def _source(site: Site) -> tuple[str, ...]:
    """The option by which a client program is taken from the server's checkout."""
    return ("--source", str(site.contender.source)) if site.contender.source else ()
