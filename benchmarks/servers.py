"""The servers that are measured side by side, and how the harness speaks with one.

A server under test is a process of its own, started as ``<argv> CONFIG`` with standard input and output as pipes.
CONFIG is the path of a JSON file, the same for every server of a run:

``database_url``
    An AutoModerate database (SQLite, made by :mod:`benchmarks.world`). Every server looks up who a session cookie
    names, and whether they may be in the project they want to join, with one query each; Python servers through
    :mod:`automoderate.directory`.
``secret_key``
    What Flask signed the session cookies with.
``projects``
    Project ids. "Room number i" below is the room of ``projects[i]``.
``template``
    The data of a ``moderation_update`` without what differs from one to the next, which are ``project_id``,
    ``event_id`` (``"<milliseconds>-<number>"``) and, in ``meta_data``, ``seq`` and ``sent``.
``ping_interval``
    Seconds between two Engine.IO pings of one session; longer than any run, so that nobody's are in a figure.

It listens on a free port of 127.0.0.1, without compression or access log, and prints one line when it takes
connections; everything else it has to say goes to standard error::

    {"port": 40123}

A session behaves as docs/client-reference.md says: ``connected`` after the login, ``joined_project`` after
``join_project``. Then commands come, one line of JSON each, and each is answered with one line before the next comes::

    {"publish": {"rooms": 100, "updates": 6400, "rate": null, "batch": 64}}
    {"published": 6400}

publishes ``updates`` updates as ``moderation_update`` to the rooms number 0 to ``rooms`` - 1 in turn. ``seq`` counts
the updates of each room from 0 and goes on with the next command. ``sent`` is the publisher's CLOCK_MONOTONIC in
nanoseconds just before the update is encoded; every update is encoded when it is published, none beforehand.

``batch`` updates at a time are handed over in one go. Without a ``rate`` the next batch follows as soon as the
previous one has left as far as the server can tell, and with a ``rate`` batches leave at fixed times, so many updates
a second in all. The answer may come before the last update has left.

End of file on standard input ends the process, in two seconds at most; then it is killed. CPU time and resident memory
are what the kernel says of the process; it may have threads, but no children.
"""
