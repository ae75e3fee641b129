"""How commands talk to a running server over HTTP: with a token that the secret key signs, wherever its API is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
import requests

from automoderate import control
from automoderate.cli.common import Unavailable
from automoderate.notifier.http import reason, shown_url

__all__ = ["DEFAULT_URL", "ask_server"]

DEFAULT_URL = "http://127.0.0.1:6217"
"""Where a server is that was started without any option."""

T = TypeVar("T")


def ask_server(
    method: str, base: str, path: str, secret_key: str, *, timeout: float,
    found: Callable[[requests.Response], T | None], **more: Any,
) -> T:  # fmt: skip
    """Ask a running server; returns what ``found`` makes of its answer.

    ``found`` returns None for an answer that is no success. ``timeout`` is in seconds, and ``more`` is handed to
    ``requests.request``. Raises Unavailable where no server answers in time, and click.ClickException, which says why,
    where no answer is a success.
    """
    headers = {"Authorization": f"Bearer {control.sign(secret_key)}"}
    statuses: list[int] = []
    # Where another application is mounted, the first address is one of its own.
    for prefix in ("", "/realtime"):
        try:
            response = requests.request(
                method, f"{base}{prefix}{path}", headers=headers, timeout=timeout, allow_redirects=False, **more
            )
        except requests.RequestException as error:
            raise Unavailable(f"cannot reach {shown_url(base)}: {reason(error)}") from None
        if (answer := found(response)) is not None:
            return answer
        if _error_code(response) == "wrong_time":
            raise click.ClickException(f"the clocks of {shown_url(base)} and of this machine differ too much")
        statuses.append(response.status_code)
    if 401 in statuses:
        raise click.ClickException(f"{shown_url(base)} does not accept this SECRET_KEY")
    raise click.ClickException(f"{shown_url(base)} answered {statuses[-1]}")


def _error_code(response: requests.Response) -> Any:
    """The code of an error that our API answers; None for any other answer."""
    try:
        return response.json()["error"]["code"]
    except (ValueError, TypeError, KeyError):
        return None
