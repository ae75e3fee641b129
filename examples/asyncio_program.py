"""Live updates inside an asyncio program: the server is one of its tasks, and cancelled with the others.

SECRET_KEY=… DATABASE_URL=… python3 examples/asyncio_program.py PROJECT_ID [PORT]
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys

from automoderate import app
from automoderate.adapters.asyncio import serve
from automoderate.adapters.runtime import Handle
from automoderate.realtime import Realtime
from automoderate.settings import Settings


async def count(realtime: Realtime, project_id: str) -> None:
    """What the program does besides: it counts, and tells everybody who watches the project."""
    for number in itertools.count(1):
        realtime.publish(project_id, "stats_update", {"counted": number})
        await asyncio.sleep(0.1)


async def main(project_id: str, port: int) -> None:
    settings = Settings(port=port, database_url=os.environ["DATABASE_URL"], secret_key=os.environ["SECRET_KEY"])
    assembly = app.build(settings)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def ready(handle: Handle) -> None:
        assembly.realtime.bind(assembly.server, handle)
        print("Serving on http://{}:{}".format(*handle.addresses[0]), flush=True)

    try:
        async with asyncio.TaskGroup() as group:
            serving = serve(assembly.server, assembly.options, on_ready=ready)
            tasks = [group.create_task(serving), group.create_task(count(assembly.realtime, project_id))]
            await stop.wait()
            for task in tasks:
                task.cancel()  # the server takes leave of its clients, the rest ends at once
    finally:
        assembly.realtime.unbind()
        assembly.database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 6217))
