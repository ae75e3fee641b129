"""Tells dashboards what the moderation pipeline decided, without ever getting in the pipeline's way.

:class:`WebSocketNotifier` has the methods of AutoModerate's own notifier. It works in the process of the server
(``realtime=``) or in any other, through the Redis of several nodes (``redis_url=``) or over the publishing API
(``url=`` and ``api_key=``). ``AsyncWebSocketNotifier`` is the same for programs on asyncio or trio; it needs the extra
``anyio``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from automoderate.notifier.base import Notifier, WebSocketNotifier
from automoderate.notifier.items import Publisher

if TYPE_CHECKING:
    from automoderate.notifier.asynchronous import AsyncWebSocketNotifier as AsyncWebSocketNotifier


def __getattr__(name: str) -> Any:
    if name != "AsyncWebSocketNotifier":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from automoderate.notifier.asynchronous import AsyncWebSocketNotifier
    except ModuleNotFoundError as error:
        raise ImportError(f'{name} needs {error.name}: pip install "automoderate[anyio]"') from error
    return AsyncWebSocketNotifier


__all__ = ["Notifier", "Publisher", "WebSocketNotifier"]
