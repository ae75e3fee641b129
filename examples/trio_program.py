"""Live updates inside a trio program: the server is one of its tasks, and cancelled with the others.

SECRET_KEY=… DATABASE_URL=… python3 examples/trio_program.py PROJECT_ID [PORT]
"""

from __future__ import annotations

import itertools
import os
import signal
import sys

import trio

from automoderate import app
from automoderate.adapters.trio import serve
from automoderate.realtime import Realtime
from automoderate.settings import Settings


async def count(realtime: Realtime, project_id: str) -> None:
    """What the program does besides: it counts, and tells everybody who watches the project."""
    for number in itertools.count(1):
        realtime.publish(project_id, "stats_update", {"counted": number})
        await trio.sleep(0.1)


async def main(project_id: str, port: int) -> None:
    settings = Settings(
        adapter="trio", port=port, database_url=os.environ["DATABASE_URL"], secret_key=os.environ["SECRET_KEY"]
    )
    assembly = app.build(settings)
    try:
        async with trio.open_nursery() as nursery:
            handle = await nursery.start(serve, assembly.server, assembly.options)
            assembly.realtime.bind(assembly.server, handle)
            print("Serving on http://{}:{}".format(*handle.addresses[0]), flush=True)
            nursery.start_soon(count, assembly.realtime, project_id)
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                await anext(aiter(signals))
            nursery.cancel_scope.cancel()  # the server takes leave of its clients, the rest ends at once
    finally:
        assembly.realtime.unbind()
        assembly.database.close()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 6217)
