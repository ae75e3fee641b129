"""The publishing API as its callers see it: HTTP requests, and errors a person can act on."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import requests

_TEMPORARY = frozenset({429, 502, 503, 504})
_NOT_HERE = frozenset({404, 405})
_MOUNTED = "/realtime"
PAGE = 1000
"""Updates that are asked for at a time."""


class PublishingError(Exception):
    """The publishing API did not take something; the message is one line for a person."""


class Unreachable(PublishingError):
    """No server answered, or its answer was lost on the way."""


class Refused(PublishingError):
    """The server answered with anything but acceptance. ``temporary`` where trying again later may help.

    ``retry_after`` is how many seconds later the server asks for, 0 where it does not say. ``event`` is which of
    several events it would not take, counted from 1, as far as it says so.
    """

    def __init__(self, message: str, status: int, *, retry_after: float = 0.0, event: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.temporary = status in _TEMPORARY
        self.retry_after = retry_after
        self.event = event


def check_url(url: str) -> str:
    """``url`` without a slash at its end. Raises ValueError where it is not a whole HTTP URL."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")  # as looking it up would fail
        whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        whole = False
    if not whole or not url.isprintable() or any(sign in url for sign in "?# "):
        raise ValueError(f"{shown_url(url)!r} is no server address; it should look like http://127.0.0.1:6217")
    return url.rstrip("/")


def shown_url(url: str) -> str:
    """``url`` for people: without a password in front of the host, or what stands behind a question mark."""
    return re.sub(r"//.*@", "//***@", re.sub(r"[?#].*", "…", url, flags=re.DOTALL), flags=re.DOTALL)


def check_api_key(api_key: str) -> str:
    """``api_key`` as it is. Raises ValueError where it could not travel in a header."""
    if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise ValueError("an API key is printable ASCII without spaces, like am_…")
    return api_key


class PublishingApi:
    """The publishing API of the server at ``url``, over one kept-alive connection. One thread at a time.

    Where another application is mounted the API lives under ``/realtime``: where it is not found in its usual place
    that is tried too, and the place that answered is remembered. ``timeout`` is in seconds, for connecting and again
    for the answer.

    Raises ValueError for a URL that is none.
    """

    def __init__(self, url: str, *, timeout: float = 5.0) -> None:
        base = check_url(url)
        self._bases = (base,) if base.endswith(_MOUNTED) else (base, base + _MOUNTED)
        self._timeout = timeout
        self._session = requests.Session()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._session.close()

    def publish(self, project_id: str, event: str, data: Mapping[str, Any], api_key: str) -> str:
        """Publish one event and return its ``event_id``. Raises Unreachable or Refused."""
        said = json.dumps({"event": event, "data": data}).encode()
        return self.publish_all(project_id, [said], api_key)[0]

    def publish_all(self, project_id: str, events: Sequence[bytes], api_key: str) -> list[str]:
        """Publish events, each ``{"event", "data"}`` as JSON: all of them or none. Returns their ids, in order.

        One by itself is sent as such, which also servers take that know no others. Raises Unreachable or Refused.
        """
        body = events[0] if len(events) == 1 else b'{"events":[%b]}' % b",".join(events)
        answer = self._ask("POST", _events(project_id), api_key, body)
        found = [answer.get("event_id")] if len(events) == 1 else answer.get("event_ids")
        event_ids = [str(each or "") for each in found] if isinstance(found, list) else []
        return event_ids if len(event_ids) == len(events) else [""] * len(events)

    def updates_after(self, project_id: str, event_id: str, api_key: str) -> list[dict[str, Any]]:
        """The next updates after the id, at most PAGE: ``{"event", "data"}`` each. Raises Unreachable or Refused."""
        answer = self._ask("GET", f"{_events(project_id)}?after={quote(event_id)}&limit={PAGE}", api_key)
        found = answer.get("events")
        updates = found if isinstance(found, list) else []
        return [each for each in updates if isinstance(each, dict) and isinstance(each.get("data"), dict)]

    def access_changed(self, api_key: str, **whose: str) -> None:
        """Have live sessions checked again, by ``project_id`` and ``user_id``. Raises Unreachable or Refused."""
        self._ask("POST", "/api/access-changes", api_key, json.dumps(whose).encode())

    def _ask(self, method: str, path: str, api_key: str, body: bytes | None = None) -> dict[str, Any]:
        *others, last = self._bases
        for base in others:
            try:
                return self._ask_at(base, method, path, api_key, body)
            except Refused as refused:
                if refused.status not in _NOT_HERE:
                    raise
        return self._ask_at(last, method, path, api_key, body)

    def _ask_at(self, base: str, method: str, path: str, api_key: str, body: bytes | None) -> dict[str, Any]:
        headers = {"X-API-Key": api_key, "Content-Type": "application/json"}
        try:
            # A redirect would make the POST a GET of some page and lose what was to be published.
            response = self._session.request(
                method, base + path, data=body, headers=headers, timeout=self._timeout, allow_redirects=False
            )
        except requests.RequestException as error:
            raise Unreachable(f"cannot reach {shown_url(base)}: {reason(error)}") from error
        answer = _answer(response)
        if response.status_code != (202 if method == "POST" else 200):
            raise _refusal(base, response, answer)
        self._bases = (base,)
        return answer


def _events(project_id: str) -> str:
    return f"/api/projects/{quote(project_id, safe='')}/events"


def reason(error: requests.RequestException) -> str:
    """Why a request failed, in a few words: the system's own where there are some."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        # urllib3 keeps what happened in ``reason`` or in the arguments, not always in the chain of causes.
        causes = (getattr(inner, "reason", None), *inner.args, inner.__cause__, inner.__context__)
        inner = next((cause for cause in causes if isinstance(cause, BaseException)), None)
    return str(error) or type(error).__name__


def _answer(response: requests.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except (requests.JSONDecodeError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _refusal(base: str, response: requests.Response, answer: Mapping[str, Any]) -> Refused:
    said = answer.get("error")
    event = said.get("event") if isinstance(said, Mapping) else None
    return Refused(
        _words(shown_url(base), response, answer),
        response.status_code,
        retry_after=_retry_after(response.headers.get("Retry-After", "")),
        event=event if isinstance(event, int) else None,
    )


def _words(base: str, response: requests.Response, answer: Mapping[str, Any]) -> str:
    said = answer.get("error") or answer.get("message")
    if isinstance(said, Mapping):
        said = said.get("message")
    if said:
        return f"{base} refused ({response.status_code}): {said}"
    if response.is_redirect:
        return f"{base} answered {response.status_code}, it is at {response.headers['Location']}"
    if response.status_code in _NOT_HERE or response.ok:
        return f"there is no publishing API at {base} (it answered {response.status_code})"
    return f"{base} answered {response.status_code} {response.reason}"


def _retry_after(value: str) -> float:
    """Seconds, of either form of RFC 9110, section 10.2.3; 0 for what is neither."""
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


__all__ = [
    "PAGE",
    "PublishingApi",
    "PublishingError",
    "Refused",
    "Unreachable",
    "check_api_key",
    "check_url",
    "reason",
    "shown_url",
]
