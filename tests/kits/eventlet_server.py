"""Two servers on one hub, in a process that eventlet has patched in one way or another.

``python -m kits.eventlet_server PATCHED``: a scripted driver and a web application, each in a greenlet; their ports are
printed. SIGTERM ends both.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from automoderate.adapters.runtime import Handle, Options

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]

# When, and what of, the standard library is patched.
PATCHED = ("never", "before the imports", "before the imports, but for threads", "after the imports")


def main(patched: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
        import eventlet
    if patched.startswith("before"):
        eventlet.monkey_patch(thread=patched == "before the imports")

    from automoderate import adapters
    from kits.adapters import Script, Web

    run = adapters.load("eventlet").run
    if patched == "after the imports":
        eventlet.monkey_patch()

    handles: list[Handle] = []
    web = eventlet.spawn(run, Web(), Options(port=0, app=Site(handles)), on_ready=handles.append, handle_signals=False)

    def ready(handle: Handle) -> None:
        while not handles:
            eventlet.sleep(0)
        print(handle.addresses[0][1], handles[0].addresses[0][1], flush=True)

    run(Script(), Options(port=0), on_ready=ready)
    handles[0].stop()
    web.wait()


class Site:
    """Says what it runs on, blocks for real, or answers at length."""

    def __init__(self, handles: list[Any]) -> None:
        from eventlet import patcher

        self.released = patcher.original("threading").Event()
        self.handles = handles

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        if environ["PATH_INFO"] == "/thread":
            import threading

            loop = self.handles[0].submit(lambda _: threading.get_native_id()).result()
            return [json.dumps({"mine": threading.get_native_id(), "loop": loop}).encode()]
        if environ["PATH_INFO"] == "/block":
            return [b"released" if self.released.wait(60) else b"never released"]
        if environ["PATH_INFO"] == "/release":
            self.released.set()
            return [b"ok"]
        return (b"%07d\n" % number * 1000 for number in range(500))


if __name__ == "__main__":
    main(*sys.argv[1:])
