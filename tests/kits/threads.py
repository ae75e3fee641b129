"""The whole server in a thread of the test's process, where tests may look into it and change its parts."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from automoderate.adapters.runtime import Handle
from automoderate.app import Assembly
from kits import PATIENCE


class ServerThread:
    """A server that runs; ``handle`` is its adapter's."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._ready: Future[Handle] = Future()
        self._thread = threading.Thread(target=self._run, name=f"server-{assembly.adapter.__name__}", daemon=True)
        self._thread.start()
        self.handle = self._ready.result(PATIENCE)

    def _run(self) -> None:
        try:
            self._assembly.run(self._ready.set_result)
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    @property
    def url(self) -> str:
        """Where it listens."""
        address, port = self.handle.addresses[0]
        scheme = "http" if self._assembly.certificate is None else "https"
        return f"{scheme}://{address}:{port}"

    @property
    def running(self) -> bool:
        """Whether it has not left yet."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop as SIGTERM would, and wait until it has left; idempotent."""
        self.handle.stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the server did not leave"
