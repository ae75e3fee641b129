"""How the command line tells running servers what it changed: through Redis, which every node hears, or over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import click
from attrs import frozen

from automoderate.cli.common import Unavailable, WrongUsage
from automoderate.cli.running import ask_server
from automoderate.core.hub import AccessChanged, LoggedOut
from automoderate.notifier.http import check_url
from automoderate.server.interfaces import BackplaneUnavailable
from automoderate.settings import Settings

if TYPE_CHECKING:
    from automoderate.backplane.redis import RedisPublisher

TIMEOUT = 5.0
"""Seconds the running server, or Redis, has to take an announcement."""


class Announcer(Protocol):
    """Who is told of a change, and how."""

    told: str
    not_told: str
    later: str

    def tell(self, item: AccessChanged | LoggedOut) -> None:
        """Announce it. :class:`click.ClickException` says why it could not be, and ends with the status for that."""


def announcer(settings: Settings, url: str) -> Announcer:
    """Redis where there is one to tell all nodes through, else the server at ``url``. Nothing is connected yet."""
    if settings.redis_url is None:
        try:
            return _OverHttp(check_url(url), settings.secret_key)
        except ValueError as error:
            raise WrongUsage(str(error)) from None
    try:
        from automoderate.backplane.redis import RedisPublisher

        return _OverRedis(RedisPublisher(settings.redis_url, patience=TIMEOUT, max_waiting=1))
    except ModuleNotFoundError as error:
        raise Unavailable(f'--redis-url needs {error.name}: pip install "automoderate[redis]"') from error
    except ValueError as error:
        raise WrongUsage(f"redis_url: {error}") from None


def announce(to: Announcer, change: AccessChanged, later: str = "") -> str:
    """Have live sessions and keys looked at again; the sentence that says whether at once, or ``later``."""
    try:
        to.tell(change)
    except click.ClickException as error:
        return to.not_told.format(error.message, later or to.later)
    return to.told


@frozen
class _OverRedis:
    publisher: RedisPublisher

    told = "The nodes were told through Redis: it takes effect at once."
    not_told = "The nodes were not told ({}): it takes effect {}."
    later = "at their next re-check"

    def tell(self, item: AccessChanged | LoggedOut) -> None:
        if isinstance(item, LoggedOut):
            taken = self.publisher.logged_out(item.user_id)
        else:
            taken = self.publisher.access_changed(user_id=item.user_id, project_id=item.project_id)
        try:
            taken.result()  # it fails by itself
        except BackplaneUnavailable as error:
            raise Unavailable(str(error).rstrip(".")) from None
        finally:
            self.publisher.close(TIMEOUT)


@frozen
class _OverHttp:
    base: str
    secret_key: str | None

    told = "The running server was told: it takes effect at once."
    not_told = "The running server was not told ({}): it takes effect {}."
    later = "at its next re-check"

    def tell(self, item: AccessChanged | LoggedOut) -> None:
        if not self.secret_key:
            raise WrongUsage("SECRET_KEY is not set")
        ask_server(
            "POST", self.base, "/api/access-changes", self.secret_key, json=_body(item),
            timeout=TIMEOUT, found=lambda response: True if response.status_code == 202 else None,
        )  # fmt: skip


def _body(item: AccessChanged | LoggedOut) -> Mapping[str, Any]:
    if isinstance(item, LoggedOut):
        return {"user_id": item.user_id, "logged_out": True}
    whose = {"user_id": item.user_id, "project_id": item.project_id}
    return {name: value for name, value in whose.items() if value is not None}
