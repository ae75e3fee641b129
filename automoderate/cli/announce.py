"""How the command line tells running servers what it changed: through Redis, which every node hears, or over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import click
import requests
from attrs import frozen

from automoderate.cli import CannotStart, WrongUsage
from automoderate.core.hub import AccessChanged, LoggedOut
from automoderate.dashboard.services import CONTROL_SUBJECT, control_serializer
from automoderate.publishing import check_url, reason
from automoderate.realtime import BackplaneUnavailable
from automoderate.settings import Settings

if TYPE_CHECKING:
    from automoderate.backplane.redis import RedisDoor

TIMEOUT = 5.0
"""Seconds the running server, or Redis, has to take an announcement."""


class Announcer(Protocol):
    """Who is told of a change, and how."""

    told: str
    not_told: str

    def tell(self, item: AccessChanged | LoggedOut) -> None:
        """Announce it. :class:`click.ClickException` says why it could not be, and ends with the status for that."""


def announcer(settings: Settings, url: str) -> Announcer:
    """Redis where there is one to tell all nodes through, else the server at ``url``. Nothing is connected yet."""
    if settings.redis_url is None:
        try:
            return _Http(check_url(url), settings.secret_key)
        except ValueError as error:
            raise WrongUsage(str(error)) from None
    try:
        from automoderate.backplane.redis import RedisDoor

        return _Redis(RedisDoor(settings.redis_url, patience=TIMEOUT, max_waiting=1))
    except ModuleNotFoundError as error:
        raise CannotStart(f'--redis-url needs {error.name}: pip install "automoderate[redis]"') from error
    except ValueError as error:
        raise WrongUsage(f"redis_url: {error}") from None


def announce(to: Announcer, change: AccessChanged) -> str:
    """Have live sessions looked at again; the sentence that says whether that happens at once."""
    try:
        to.tell(change)
    except click.ClickException as error:
        return to.not_told.format(error.message)
    return to.told


@frozen
class _Redis:
    door: RedisDoor

    told = "The nodes were told through Redis: it takes effect at once."
    not_told = "The nodes were not told ({}): it takes effect at their next re-check."

    def tell(self, item: AccessChanged | LoggedOut) -> None:
        if isinstance(item, LoggedOut):
            taken = self.door.logged_out(item.user_id)
        else:
            taken = self.door.access_changed(user_id=item.user_id, project_id=item.project_id)
        try:
            taken.result()  # it fails by itself
        except BackplaneUnavailable as error:
            raise CannotStart(str(error).rstrip(".")) from None
        finally:
            self.door.close(TIMEOUT)


@frozen
class _Http:
    base: str
    secret_key: str | None

    told = "The running server was told: it takes effect at once."
    not_told = "The running server was not told ({}): it takes effect at its next re-check."

    def tell(self, item: AccessChanged | LoggedOut) -> None:
        if not self.secret_key:
            raise WrongUsage("SECRET_KEY is not set")
        headers = {"Authorization": f"Bearer {control_serializer(self.secret_key).dumps(CONTROL_SUBJECT)!s}"}
        statuses: list[int] = []
        # Where another application is mounted, the first address is one of its own.
        for prefix in ("", "/realtime"):
            try:
                response = requests.post(
                    f"{self.base}{prefix}/api/access-changes",
                    json=_body(item), headers=headers, timeout=TIMEOUT, allow_redirects=False,
                )  # fmt: skip
            except requests.RequestException as error:
                raise CannotStart(f"cannot reach {self.base}: {reason(error)}") from None
            if response.status_code == 202:
                return
            statuses.append(response.status_code)
        if 401 in statuses:
            raise click.ClickException(f"{self.base} does not accept this SECRET_KEY")
        raise click.ClickException(f"{self.base} answered {statuses[-1]}")


def _body(item: AccessChanged | LoggedOut) -> Mapping[str, Any]:
    if isinstance(item, LoggedOut):
        return {"user_id": item.user_id, "logged_out": True}
    whose = {"user_id": item.user_id, "project_id": item.project_id}
    return {name: value for name, value in whose.items() if value is not None}
