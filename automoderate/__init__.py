"""AutoModerate's real-time tier: live moderation updates over Socket.IO.

Importing this package imports no runtime: asyncio, trio and eventlet adapters are chosen by name at
startup (:mod:`automoderate.adapters`).
"""

from typing import Any

__version__ = "0.1.0"


def run(**options: Any) -> None:
    """Serve until SIGTERM or SIGINT, as ``automoderate serve`` does.

    ``options`` are the fields of :class:`automoderate.settings.Settings`; neither the environment nor a file is read.
    Raises :exc:`ValueError` for an option that cannot be used and :exc:`automoderate.app.CannotStart`.
    """
    from automoderate import app
    from automoderate.settings import Settings

    app.run(Settings(**options))
