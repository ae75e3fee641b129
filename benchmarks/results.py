"""What a run has found: every sample, and the JSON file that holds them.

::

    {"schema": 1,
     "date": "2026-01-15T10:30:00+00:00",
     "command": ["python", "-m", "benchmarks.fanout", "--repeat", "3"],
     "machine": {"processor": "…", "cores": 2, "memory": 25e9 (bytes), "system": "Linux 6.1 …", "descriptors": 20000},
     "versions": {"python": "3.11.9", "automoderate": "0.1.0", …},
     "notes": ["what was left out or made smaller, and why"],
     "contenders": [{"name": "asyncio", "title": "AutoModerate, asyncio", "kind": "adapter" | "peer" | "floor",
                     "command": ["…"], "versions": {"uvloop": "0.21.0"}}],
     "scenarios": [{"name": "fanout-1x5000", "kind": "throughput", "members": 5000, "rooms": 1,
                    "rate": null, "batch": 1}],
     "samples": [{"scenario": "fanout-1x5000", "contender": "asyncio", "round": 0, …}]}

Contenders and scenarios are in the order in which they are shown. A sample has ``scenario``, ``contender``, ``round``
and, by the kind of its scenario (times in seconds unless the name says otherwise):

``throughput``, ``backlog`` and ``delay``
    ``deliveries``, ``seconds`` (first publish to last receipt), ``rate`` (deliveries a second), ``server_cpu`` (CPU
    seconds of the server's process meanwhile), ``cost_us`` (that per delivery, microseconds), ``load_share`` (the load
    generator's CPU time by wall time, 0 to 1), ``load_limited`` (it was above 0.9: the figure may be the load
    generator's), ``delay`` (publish to receipt: ``p50_ms``, ``p99_ms``, ``max_ms`` and ``histogram``, pairs of an
    upper bound in microseconds and a count, ascending, empty ones left out).
``stall``
    The same, and ``ping`` and ``join``: how long another client's WebSocket ping and ``join_project`` took to be
    answered meanwhile, ``count``, ``p50_ms``, ``p99_ms``, ``max_ms`` each.
``connect``
    ``members``, ``seconds``, ``rate`` (sessions connected, logged in and joined a second), ``server_cpu``,
    ``cost_us`` (per session), ``load_share``, ``load_limited``.
``memory``
    ``members``, ``before`` and ``after`` (resident bytes with no session and with all of them), ``bytes_each``.

A sample that failed has ``error``, one line, instead of the figures.
"""
